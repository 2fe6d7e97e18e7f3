"""How Sphinx makes a site of the pages: `make docs`. The pages are plain Markdown, and read as well where they lie."""

from __future__ import annotations

from typing import Final

from tracetool import __version__

project: Final = "tracetool"
author: Final = "the tracetool developers"
version: Final = __version__
release: Final = __version__

extensions: Final = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns: Final = ["_build", "Thumbs.db"]
root_doc: Final = "index"
# A link to `#heading` of a page works as it does where the Markdown is read.
myst_heading_anchors: Final = 4
# The notebook is shown as it was saved; tests/test_tour.py runs it.
nb_execution_mode: Final = "off"
# Dots and dashes stay what was typed: what is shown can be pasted.
smartquotes: Final = False

# --- the API, from docstrings ----------------------------------------------------------------------------------------------------------

# Docstrings write code as `code`.
default_role: Final = "literal"
napoleon_google_docstring: Final = True
napoleon_numpy_docstring: Final = False
autodoc_member_order: Final = "bysource"
autodoc_typehints: Final = "signature"
autodoc_typehints_format: Final = "short"
python_maximum_signature_line_length: Final = 88
# Types of libraries are named, not linked: their pages are on the network, and the site asks it for nothing.
nitpick_ignore_regex: Final = [
    ("py:.*", r"(pl|polars|pa|pyarrow|np|numpy|npt|pd|os|pathlib|collections|typing|enum)\..*"),
]

# --- the site: works from a folder, without a network ---------------------------------------------------------------------------------

html_theme: Final = "furo"
html_title: Final = f"tracetool {__version__}"
html_static_path: Final = ["static"]
html_css_files: Final = ["site.css"]
html_copy_source: Final = False
html_show_sphinx: Final = False
