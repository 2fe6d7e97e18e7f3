"""What a text trace is and how its lines begin, told from its first lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from .textscan import Shape

Kind = Literal["ftrace text", "trace-cmd report text", "perf script text"]

#: How much of a text is looked at.
HEAD: Final = 1 << 16

_FTRACE: Final = re.compile(
    rb"-\d{1,10} +(?:\( *(?:\d+|-+)\) +)?(?:(?P<plain>\[\d+\])(?: +[^\s:]{1,16})?|\d+[^\d\s\]:]\S*) +\d+(?P<unit>\.\d+|us.?|):"
    rb"(?: (?P<name> *[^\s:]+:?)(?P<gap> *)|$)"
)
_PERF: Final = re.compile(rb"[^ -] +-?\d+(?:/-?\d+)? +(?:\[\d+\] +)?\d+(?P<unit>\.\d+): +(?:\d+ +)?[^\s:]+")
_HEADERS: Final[tuple[tuple[bytes, Kind], ...]] = (
    (b"# tracer:", "ftrace text"),
    (b"cpus=", "trace-cmd report text"),
    (b"# ========\n# captured on", "perf script text"),
)
#: The longest start of a line that is looked at.
_MOST: Final = 640

_WRITTEN: Final = re.compile(
    rb"^# entries-in-buffer/entries-written: (\d{1,18})/(\d{1,18})|^# latency: .*? #(\d{1,18})/(\d{1,18}),", re.MULTILINE
)
_CPUS: Final = re.compile(rb"^cpus=(\d{1,5})$|^#.*#P:(\d{1,5})", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Head:
    """What the first lines say.

    Attributes:
        shape: how lines begin.
        unit: what stands behind the seconds of the first time stamp: ".123456", "us" in latency format, "" for a count.
        cpus: number of CPUs, 0 where they do not say.
        overwritten: how many events are no longer in the buffer.
        details: for `Metadata.details`.
    """

    shape: Shape
    unit: str
    cpus: int
    overwritten: int
    details: Mapping[str, str]


def text_kind(head: bytes) -> Kind | None:
    """Which text trace starts with these bytes (the first 64 KiB are enough); None: none that is read."""
    head = head[:HEAD]
    for start, kind in _HEADERS:
        if head.startswith(start):
            return kind
    ftrace = [match for line in _lines(head) if (match := _FTRACE.search(line)) is not None]
    perf = sum(_PERF.search(line) is not None and _FTRACE.search(line) is None for line in _lines(head))
    if perf > len(ftrace):
        return "perf script text"
    if not ftrace:
        return None
    # `trace-cmd report` fills up the names of events, tracefs does not.
    named = [match for match in ftrace if match["name"] is not None and match["name"].endswith(b":")]
    filled = sum(len(match["gap"]) > 1 for match in named)
    return "trace-cmd report text" if filled > len(named) // 2 else "ftrace text"


def read_head(head: bytes, kind: Kind) -> Head:
    """What the first lines of a text of that kind say."""
    head = head[:HEAD]
    if kind == "perf script text":
        first = next((match for line in _lines(head) if (match := _PERF.search(line))), None)
        return Head(Shape(0, 16, 1), "" if first is None else first["unit"].decode("ascii", "replace"), 0, 0, {})
    matches = [match for line in _lines(head) for match in _FTRACE.finditer(line)]
    unit = matches[0]["unit"].decode("ascii", "replace") if matches else "."
    cpus = _CPUS.search(head)
    written = _WRITTEN.search(head)
    lost, details = 0, {}
    if written is not None:
        kept, all_of_them = (int(number) for number in written.groups() if number is not None)
        lost, details = max(all_of_them - kept, 0), {"entries": f"{kept} of {all_of_them} written"}
    shape = _shape(matches, several=kind == "trace-cmd report text")
    return Head(shape, unit, int(cpus[1] or cpus[2]) if cpus else 0, lost, details)


def _shape(matches: list[re.Match[bytes]], *, several: bool) -> Shape:
    """Where most lines have the dash after the command name: names of buffers stand before what is too much."""
    columns = Counter((match.start(), match["plain"] is None) for match in matches)
    if not columns:
        return Shape(0, 16, 0)
    (column, latency), _ = columns.most_common(1)[0]
    width = 8 if latency else 16
    if several and column > width + 2:
        return Shape(column - width, width, 0)
    return Shape(0, min(column, width), 0)


def _lines(head: bytes) -> list[bytes]:
    return [line[:_MOST] for line in head.split(b"\n") if line[:1] != b"#"]
