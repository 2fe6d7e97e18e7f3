"""The other readers: a C program over libtracecmd, `trace-cmd report`, `perf script`."""

from __future__ import annotations

import functools
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.reading import Missing, Peer

_SOURCE: Final = Path(__file__).with_name("peer.c")
#: Debian's libtracecmd-dev does not name the two others, without which its header cannot be included.
_PACKAGES: Final = "libtracecmd-dev, libtracefs-dev and libtraceevent-dev"


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
    return Peer("libtracecmd", "libtracecmd in C: every field as a number, nothing kept", (str(program),), target=4)


def trace_cmd_report() -> Peer:
    """The program that users read a trace with.

    Raises:
        Missing: there is no trace-cmd.
    """
    if shutil.which("trace-cmd") is None:
        raise Missing("trace-cmd report: needs trace-cmd")
    return Peer("trace-cmd report", "trace-cmd report -R > /dev/null", ("trace-cmd", "report", "-R", "-i"), target=50)


def perf_script() -> Peer:
    """The program that users read a perf.data with.

    Raises:
        Missing: there is no perf.
    """
    if shutil.which("perf") is None:
        raise Missing("perf script: needs perf")
    return Peer("perf script", "perf script > /dev/null", ("perf", "script", "-i"), target=20)


def all_peers(folder: Path) -> tuple[list[Peer], list[str]]:
    """The peers for trace.dat that can be had here, and of each other one why not."""
    return found(functools.partial(libtracecmd, folder), trace_cmd_report)


def found(*makers: Callable[[], Peer]) -> tuple[list[Peer], list[str]]:
    """The peers that can be had, and of each other one why not."""
    peers, missing = [], []
    for make in makers:
        try:
            peers.append(make())
        except Missing as reason:
            missing.append(str(reason))
    return peers, missing
