"""How Sphinx makes a site of the pages: `make docs`. The pages are plain Markdown, and read as well where they lie."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracetool import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project: Final = "tracetool"
author: Final = "the tracetool developers"
version: Final = __version__
release: Final = __version__

extensions: Final = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc: Final = "index"
# A link to `#heading` of a page works as it does where the Markdown is read.
myst_heading_anchors: Final = 4
# Dots and dashes stay what was typed: what is shown can be pasted.
smartquotes: Final = False

# --- the API, from docstrings ----------------------------------------------------------------------------------------------------------

# Docstrings write code as `code`.
default_role: Final = "literal"
napoleon_google_docstring: Final = True
napoleon_numpy_docstring: Final = False
autodoc_member_order: Final = "bysource"
# Objects come from functions: how the classes are made is nobody's business.
autodoc_class_signature: Final = "separated"
autodoc_default_options: Final = {"exclude-members": "__init__, __new__"}
autodoc_typehints: Final = "signature"
autodoc_typehints_format: Final = "short"
python_maximum_signature_line_length: Final = 88
# Types of libraries are named, not linked: their pages are on the network, and the site asks it for nothing. Nor are those of the inside.
nitpick_ignore_regex: Final = [
    ("py:.*", r"(pl|polars|pa|pyarrow|np|numpy|npt|os|collections|typing|enum)\..*"),
    ("py:.*", r"tracetool\.(baseline\.Baseline|policies\.facts\.Verdict)"),
]

# --- the site: works from a folder, without a network ---------------------------------------------------------------------------------

html_theme: Final = "furo"
html_title: Final = f"tracetool {__version__}"
html_static_path: Final = ["site"]
html_css_files: Final = ["site.css"]
html_copy_source: Final = False
html_show_sphinx: Final = False
html_show_copyright: Final = False
# Of a site in a folder a browser reads no other page to quote it.
html_show_search_summary: Final = False

# --- files outside of this folder -------------------------------------------------------------------------------------------------------

_HERE: Final = Path(__file__).resolve().parent
_LINK: Final = re.compile(r"\]\(((?:\.\./)+[^)#\s]+\.md)")


def _linked(app: Sphinx, page: str, source: list[str]) -> None:
    """Make a link to Markdown of the project that is no page (fixtures/README.md) one to a file that the site brings along."""

    def told(found: re.Match[str]) -> str:
        there = (Path(app.srcdir) / page).parent.joinpath(found[1]).resolve()
        return found[0] if there.is_relative_to(_HERE) else f"](path:{found[1]}"

    source[0] = _LINK.sub(told, source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _linked)
