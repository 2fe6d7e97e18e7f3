"""All events with all their fields, against the peers: `python -m benchmarks.parsers TRACE` does it once, for its memory to be seen."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from benchmarks.large import Large
from benchmarks.peers import Peer
from benchmarks.processes import run
from benchmarks.results import Figure
from tracetool_parsers import open_trace


def read_all(path: Path) -> dict[str, pa.Table]:
    """Every event of a trace as an Arrow table, from the closed file on."""
    trace = open_trace(path)
    return trace.tables(trace.event_names())


def measure_parsers(trace: Large, peers: Sequence[Peer], runs: int) -> tuple[list[Figure], list[str]]:
    """This library and each peer in turn, `runs` times, so that a slow moment of the machine meets all of them.

    Every counted run comes right after an uncounted one of the same reader: a virtual machine may hand memory that nobody used for two
    seconds back to its host, and a run after a slower one would then pay for getting it again.

    A peer that fails is left out; the second list names it.
    """
    own: list[float] = []
    others: dict[Peer, list[float]] = {peer: [] for peer in peers}
    failed = []
    for _ in range(runs):
        read_all(trace.path)
        own.append(_timed(trace.path))
        for peer, seconds in list(others.items()):
            run([*peer.command, trace.path])
            finished = run([*peer.command, trace.path])
            if finished.code:
                failed.append(f"{peer.what}: ended with exit code {finished.code}")
                del others[peer]
            else:
                seconds.append(finished.seconds)
    ours = Peer("tracetool_parsers: every field, to Arrow", (sys.executable, "-m", "benchmarks.parsers"))
    return [_figure(reader, seconds, trace) for reader, seconds in ({ours: own} | others).items()], failed


def _timed(path: Path) -> float:
    start = time.perf_counter()
    tables = read_all(path)
    seconds = time.perf_counter() - start
    # Giving the memory back is not part of reading.
    del tables
    return seconds


def _figure(reader: Peer, seconds: list[float], trace: Large) -> Figure:
    # Memory is looked at in a run of its own: to look takes time.
    seen = run([*reader.command, trace.path], anon=True)
    return Figure("read", reader.what, seconds, trace.events, trace.size, seen.max_anon, seen.max_rss)


if __name__ == "__main__":
    read_all(Path(sys.argv[1]))
