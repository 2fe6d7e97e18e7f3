"""Readers of traces, timed in turn. `python -m benchmarks.reading TRACE` reads one once in a fresh process, for its memory to be seen."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa

from benchmarks.large import Large
from benchmarks.processes import run
from benchmarks.results import Figure, Speed
from tracetool.errors import TraceError
from tracetool_parsers import open_trace

#: What reading may take beside the tables: bytes for each of their events, and whatever the size of the file.
_EACH: Final = 16
_FIXED: Final = 256 << 20


class Missing(TraceError):
    """A reader that cannot be had here; the message names it and says why."""


class Reader(Protocol):
    """Something that reads traces: what it does, and the command that does so once, which the path of the trace goes after."""

    @property
    def what(self) -> str:
        """For the table."""
        ...

    @property
    def command(self) -> tuple[str, ...]:
        """For a fresh process."""
        ...

    def seconds(self, path: Path) -> float:
        """How long it takes; raises Missing where it fails."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """Another program: the name it is compared by, what it does, its command, and how many times as fast as it we want to be."""

    name: str
    what: str
    command: tuple[str, ...]
    target: float

    def seconds(self, path: Path) -> float:
        """From the start of its process to the end."""
        finished = run([*self.command, path])
        if finished.code:
            raise Missing(f"{self.what}: ended with exit code {finished.code}")
        return finished.seconds


@dataclass(frozen=True, slots=True)
class Ours:
    """This library, warm: from the closed file to Arrow tables.

    Attributes:
        what: as of Reader.
        threads: how many to read with, None: one a core.
        kind: the one event that is wanted, None: all.
        clock: what time is taken by.
    """

    what: str
    threads: int | None = None
    kind: str | None = None
    clock: Callable[[], float] = time.perf_counter

    @property
    def command(self) -> tuple[str, ...]:
        """The main program of this module."""
        options = {"--threads": self.threads, "--kind": self.kind}
        given = [text for name, value in options.items() if value is not None for text in (name, str(value))]
        return (sys.executable, "-m", "benchmarks.reading", *given)

    def tables(self, path: Path) -> dict[str, pa.Table]:
        """The tables with all fields that are not asked for by name."""
        return open_trace(path, threads=self.threads).tables(None if self.kind is None else [self.kind])

    def seconds(self, path: Path) -> float:
        """Until the tables are there."""
        return _timed(self.tables, path, self.clock)

    def bound(self, path: Path) -> int:
        """The most bytes of its own memory that a process may have while it reads."""
        tables = self.tables(path).values()
        return _FIXED + sum(int(table.nbytes) + _EACH * int(table.num_rows) for table in tables)


@dataclass(frozen=True, slots=True)
class Action:
    """Anything else that is done with the path of a trace."""

    what: str
    act: Callable[[Path], object]
    command: tuple[str, ...] = ()

    def seconds(self, path: Path) -> float:
        """Until it is done."""
        return _timed(self.act, path, time.perf_counter)


def _timed(act: Callable[[Path], object], path: Path, clock: Callable[[], float]) -> float:
    """Seconds until something is made of a trace: giving its memory back is not part of it."""
    start = clock()
    made = act(path)
    seconds = clock() - start
    del made
    return seconds


def in_turn(readers: Sequence[Reader], path: Path, runs: int) -> tuple[dict[Reader, list[float]], list[str]]:
    """The seconds of each reader, `runs` times in turn, so that a slow moment of the machine meets all of them.

    Every counted run comes right after an uncounted one of the same reader: a virtual machine may hand memory that nobody used for two
    seconds back to its host, and a run after a slower one would then pay for getting it again.

    A reader that fails is left out; the second list names it.
    """
    taken: dict[Reader, list[float]] = {reader: [] for reader in readers}
    failed = []
    for _ in range(runs):
        for reader in list(taken):
            try:
                reader.seconds(path)
                taken[reader].append(reader.seconds(path))
            except Missing as reason:
                failed.append(str(reason))
                del taken[reader]
    return taken, failed


def figure(part: str, reader: Reader, seconds: list[float], trace: Large, against: Sequence[Speed] = ()) -> Figure:
    """A figure with the memory of a reader, which a run of its own looks at: to look takes time."""
    bound = reader.bound(trace.path) if isinstance(reader, Ours) else None
    seen = run([*reader.command, trace.path], anon=True)
    return Figure(part, reader.what, seconds, trace.events, trace.size, seen.max_anon, seen.max_rss, bound, tuple(against))


def against_peers(own: list[float], taken: dict[Reader, list[float]]) -> list[Speed]:
    """How medians compare with those of the peers among the readers."""
    return [
        Speed(peer.name, statistics.median(seconds) / statistics.median(own), peer.target)
        for peer, seconds in taken.items()
        if isinstance(peer, Peer)
    ]


def main(arguments: Sequence[str] | None = None) -> dict[str, pa.Table]:
    """Read once; the tables are there as long as the caller keeps them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading", description="Read a trace once.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--kind")
    asked = parser.parse_args(arguments)
    return Ours("", asked.threads, asked.kind).tables(asked.path)


if __name__ == "__main__":
    kept = main()
