"""What `trace-cmd report -t -R` says of a recording, to compare with."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: Right-justified name, which may hold spaces and dashes; thread; CPU; seconds.nanoseconds; event; raw fields.
#: After the name of the buffer, where it is not the top one.
_LINE: Final = re.compile(r"^(?:[^ :]+:)? *(.*)-(\d+) +\[(\d+)\] +(\d+)\.(\d{9}): +(\w+): *(.*)$")
#: Before the first event after a loss: trace-cmd, tracecmd/trace-read.c, trace_show_data.
_LOSS: Final = re.compile(r"^ *CPU:(\d+) \[(?:(\d+) )?EVENTS DROPPED\]$")


@dataclass
class Line:
    """One event as trace-cmd prints it; `args` are its raw fields, `key=value`; `more` are lines after it that are no event.

    `lost_before` says how many events of its CPU were lost before it: None none, -1 an unknown number.
    """

    comm: str
    tid: int
    cpu: int
    ts: int
    event: str
    args: str
    lost_before: int | None = None
    more: list[str] = field(default_factory=list)


def report(path: Path, *options: str) -> list[Line]:
    """The events of a recording in the order in which trace-cmd prints them."""
    command = ["trace-cmd", "report", "-t", "-R", *options, "-i", str(path)]
    printed = subprocess.run(command, check=True, capture_output=True).stdout.decode("utf-8", "replace")
    lines: list[Line] = []
    lost: int | None = None
    for text in printed.split("\n"):
        match, loss = _LINE.match(text), _LOSS.match(text)
        if match:
            comm, tid, cpu, seconds, nanoseconds, event, args = match.groups()
            lines.append(Line(comm, int(tid), int(cpu), int(seconds) * 10**9 + int(nanoseconds), event, args, lost))
            lost = None
        elif loss:
            lost = int(loss[2] or -1)
        elif lines:
            lines[-1].more.append(text)
    return lines


def reported_losses(path: Path) -> list[tuple[int, int | None]]:
    """CPU and number of events (None: unknown) of each loss that trace-cmd prints, in its order."""
    return [(line.cpu, None if line.lost_before < 0 else line.lost_before) for line in report(path) if line.lost_before is not None]


def fields_of(line: Line, names: list[str]) -> dict[str, str]:
    """The values of the named fields, which trace-cmd prints in the order of the event's format."""
    pattern = " +".join(rf"{re.escape(name)}=(.*)" for name in names)
    match = re.fullmatch(pattern, line.args)
    if match is None:
        message = f"{line.event}: {line.args!r} are not {names}"
        raise ValueError(message)
    return dict(zip(names, match.groups(), strict=True))
