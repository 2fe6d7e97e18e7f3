"""Text of ftrace: tracefs `trace` and `trace_pipe`, and what `trace-cmd report` prints."""

from __future__ import annotations

from typing import Final

from .metadata import Metadata
from .source import Source
from .textsniff import HEAD, Head, read_head, text_kind
from .textsource import TextTrace

__all__ = ["open_ftrace_text", "text_kind"]

_MICROSECONDS: Final = "the text has times in microseconds: events may be out of order within one (trace-cmd report -t prints nanoseconds)"
_RELATIVE: Final = "latency format: times are microseconds since the trace began"
_COUNTS: Final = "times are counts of the trace clock, taken as they are"
_CUT_NAMES: Final = "latency format: names of threads are cut to 8 characters"


def open_ftrace_text(data: memoryview, path: str, *, strict: bool) -> Source:
    """The events of a text that tracefs or `trace-cmd report` printed; nothing but its first lines is read.

    Args:
        data: the text, bytes.
        path: of the file, for messages.
        strict: whether a line that cannot be read, or a last line without an end, is an error; then all is read at once.

    Raises:
        ParseError: with `strict`, at the first such line.
    """
    first = bytes(data[:HEAD])
    kind = text_kind(first)
    if kind is None or kind == "perf script text":
        kind = "ftrace text"
    head = read_head(first, kind)
    return TextTrace(data, head, Metadata(path, kind, cpus=head.cpus, notes=notes_of(head), details=head.details), strict=strict)


def notes_of(head: Head) -> tuple[str, ...]:
    """What a user should know of the times and names of a text."""
    notes = []
    if head.unit.startswith("."):
        if len(head.unit) == 7:
            notes.append(_MICROSECONDS)
    else:
        notes.append(_RELATIVE if head.unit else _COUNTS)
    if head.shape.width == 8:
        notes.append(_CUT_NAMES)
    return tuple(notes)
