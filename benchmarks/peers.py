"""The other readers of trace.dat: a C program over libtracecmd, and `trace-cmd report`."""

from __future__ import annotations

import functools
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracetool.errors import TraceError

_SOURCE: Final = Path(__file__).with_name("peer.c")
#: Debian's libtracecmd-dev does not name the two others, without which its header cannot be included.
_PACKAGES: Final = "libtracecmd-dev, libtracefs-dev and libtraceevent-dev"


@dataclass(frozen=True, slots=True)
class Peer:
    """A reader of traces: what it does, and the command, which the path of the trace goes after."""

    what: str
    command: tuple[str, ...]


class Missing(TraceError):
    """A peer that cannot be had here; the message names it and says why."""


def libtracecmd(folder: Path) -> Peer:
    """Compile the C program into `folder`.

    Raises:
        Missing: there is no C compiler, or no libtracecmd to compile against.
    """
    compiler = shutil.which("cc")
    if compiler is None or shutil.which("pkg-config") is None:
        raise Missing("libtracecmd: needs cc and pkg-config")
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libtracecmd"], capture_output=True, text=True, check=False)
    if flags.returncode:
        raise Missing(f"libtracecmd: pkg-config does not find it; Debian has it in {_PACKAGES}")
    program = folder / "peer"
    made = subprocess.run(
        [compiler, "-O2", _SOURCE, "-o", program, *shlex.split(flags.stdout)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        print(made.stderr, file=sys.stderr)
        raise Missing("libtracecmd: the program does not compile against it")
    return Peer("libtracecmd in C: every field as a number, nothing kept", (str(program),))


def trace_cmd_report() -> Peer:
    """The program that users read a trace with.

    Raises:
        Missing: there is no trace-cmd.
    """
    if shutil.which("trace-cmd") is None:
        raise Missing("trace-cmd report: needs trace-cmd")
    return Peer("trace-cmd report -R > /dev/null", ("trace-cmd", "report", "-R", "-i"))


def all_peers(folder: Path) -> tuple[list[Peer], list[str]]:
    """The peers that can be had here, and of each other one why not."""
    found, missing = [], []
    makers: tuple[Callable[[], Peer], ...] = (functools.partial(libtracecmd, folder), trace_cmd_report)
    for make in makers:
        try:
            found.append(make())
        except Missing as reason:
            missing.append(str(reason))
    return found, missing
