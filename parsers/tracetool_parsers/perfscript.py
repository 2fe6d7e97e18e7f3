"""Text of `perf script`."""

from __future__ import annotations

from typing import Final

from .metadata import Metadata
from .source import Source
from .textsniff import HEAD, read_head
from .textsource import TextTrace

_MICROSECONDS: Final = "the text has times in microseconds: events may be out of order within one (perf script --ns prints nanoseconds)"


def open_perf_script(data: memoryview, path: str, *, strict: bool) -> Source:
    """The events of a text that `perf script` printed; nothing but its first lines is read.

    Samples of tracepoints and of other events, with period and call chain where it has them, and the records that
    `--show-task-events`, `--show-mmap-events`, `--show-lost-events` and `--show-namespace-events` add (system `perf`).

    Args:
        data: the text, bytes.
        path: of the file, for messages.
        strict: whether a line that cannot be read, or a last line without an end, is an error; then all is read at once.

    Raises:
        ParseError: with `strict`, at the first such line.
    """
    head = read_head(bytes(data[:HEAD]), "perf script text")
    notes = (_MICROSECONDS,) if len(head.unit) == 7 else ()
    return TextTrace(data, head, Metadata(path, "perf script text", notes=notes), strict=strict)
