"""tracetool: who owned which page when, was any sharing unsafe, and what would another kernel have cost?

    import tracetool
    trace = tracetool.open("trace.dat")
    trace.replay("page-count").ownership.collect()

Names are imported when they are used, so that `tracetool --help` waits for no library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracetool.analysing import analyse
    from tracetool.analysis import Analysis
    from tracetool.policies.own import policy
    from tracetool.trace import Trace, open

__version__ = "0.1.0"
__all__ = ["Analysis", "Trace", "__version__", "analyse", "open", "policy"]

_HOMES = {
    "open": "tracetool.trace",
    "Trace": "tracetool.trace",
    "Analysis": "tracetool.analysis",
    "analyse": "tracetool.analysing",
    "policy": "tracetool.policies.own",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
