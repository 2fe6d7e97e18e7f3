"""Recorded Linux kernel traces as Arrow tables of events.

    trace = tracetool_parsers.open_trace("trace.dat")    # only metadata are read
    trace.event_names()
    trace.table("mm_page_alloc")                         # pyarrow.Table

Read are trace.dat files of trace-cmd, versions 6 and 7, perf.data in all its modes, the text of tracefs, `trace-cmd report` and
`perf script`, and Parquet and Arrow files that `tracetool export` wrote; packed with gzip, xz or zstd or not, and from standard input
("-"). `RawTrace` says what a table has, docs/formats.md what each format can tell.
The package knows nothing of what the events mean and needs nothing of tracetool.

Names are imported when they are used: the errors alone cost no library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import ParseError, TraceError, UnknownEvent
    from .eventformat import EventFormat, Field
    from .metadata import Metadata
    from .opening import open_trace
    from .raw import RawTrace

__all__ = ["EventFormat", "Field", "Metadata", "ParseError", "RawTrace", "TraceError", "UnknownEvent", "open_trace"]

_HOMES = {
    "open_trace": "opening",
    "RawTrace": "raw",
    "Metadata": "metadata",
    "EventFormat": "eventformat",
    "Field": "eventformat",
    "TraceError": "errors",
    "ParseError": "errors",
    "UnknownEvent": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
