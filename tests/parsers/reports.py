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


@dataclass
class Line:
    """One event as trace-cmd prints it; `args` are its raw fields, `key=value`."""

    comm: str
    tid: int
    cpu: int
    ts: int
    event: str
    args: str
    more: list[str] = field(default_factory=list)


def report(path: Path, *options: str) -> list[Line]:
    """The events of a recording in the order in which trace-cmd prints them."""
    command = ["trace-cmd", "report", "-t", "-R", *options, "-i", str(path)]
    printed = subprocess.run(command, check=True, capture_output=True).stdout.decode("utf-8", "replace")
    lines: list[Line] = []
    for text in printed.split("\n"):
        match = _LINE.match(text)
        if match:
            comm, tid, cpu, seconds, nanoseconds, event, args = match.groups()
            lines.append(Line(comm, int(tid), int(cpu), int(seconds) * 10**9 + int(nanoseconds), event, args))
        elif lines:
            lines[-1].more.append(text)
    return lines


def fields_of(line: Line, names: list[str]) -> dict[str, str]:
    """The values of the named fields, which trace-cmd prints in the order of the event's format."""
    pattern = " +".join(rf"{re.escape(name)}=(.*)" for name in names)
    match = re.fullmatch(pattern, line.args)
    if match is None:
        message = f"{line.event}: {line.args!r} are not {names}"
        raise ValueError(message)
    return dict(zip(names, match.groups(), strict=True))
