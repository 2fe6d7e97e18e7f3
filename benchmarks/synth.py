"""Making traces: how fast a made-up one is written, and with how much memory, whatever its size."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.processes import run
from benchmarks.results import Figure
from tracetool.errors import TraceError

#: Ways to write the same trace: what a figure says of it, options.
WAYS: Final = (
    ("version 6", ("--file-version", "6")),
    ("version 7, zstd", ()),
)


def measure_synth(events: int, runs: int) -> list[Figure]:
    """A random history of about `events` events, written `runs` times each way by a fresh process; then once more to look at its memory.

    The compiler, where it is needed, is waited for before.

    Raises:
        TraceError: tracetool itself fails.
    """
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "made.dat"
        return [_measured(what, ["--events", str(events), "-o", str(path), "--force", *options], events, runs) for what, options in WAYS]


def _measured(what: str, options: list[str], events: int, runs: int) -> Figure:
    command = [sys.executable, "-c", "from tracetool.cli import main; main()", "synth", "random", *options]
    finished = [run(command) for _ in range(runs + 1)]
    watched = run(command, anon=True)
    if any(each.code for each in (*finished, watched)):
        raise TraceError(f"tracetool synth ended with exit codes {[each.code for each in finished]}", hint="what it said is above")
    path = Path(options[options.index("-o") + 1])
    seconds = [each.seconds for each in finished[1:]]
    return Figure("synth", f"random history: {what}", seconds, events, path.stat().st_size, watched.max_anon, watched.max_rss)
