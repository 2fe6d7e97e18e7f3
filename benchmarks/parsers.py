"""Reading trace.dat: all events against the peers, one kind of many, the metadata alone, and the memory that a very large one takes."""

from __future__ import annotations

import re
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.large import Large
from benchmarks.reading import Action, Ours, Peer, Reader, against_peers, figure, in_turn
from benchmarks.results import Figure, Speed
from tracetool_parsers import open_trace

#: One event of many: about one in thirty of the recording.
KIND: Final = "anon_new"
_TWICE: Final = 1.7


def measure_parsers(trace: Large, peers: Sequence[Peer], runs: int) -> tuple[list[Figure], list[str]]:
    """All events with all fields, on one thread and on two, and each peer in turn; the second list names the peers that failed."""
    one = Ours(f"{trace.form}, every field, to Arrow: one thread", threads=1)
    two = Ours(f"{trace.form}, every field, to Arrow: two threads", threads=2)
    taken, failed = in_turn([one, two, *peers], trace.path, runs)
    against: dict[Reader, list[Speed]] = {
        one: against_peers(taken[one], taken),
        two: [Speed("one thread", statistics.median(taken[one]) / statistics.median(taken[two]), _TWICE)],
    }
    return [figure("read", reader, seconds, trace, against.get(reader, ())) for reader, seconds in taken.items()], failed


def measure_kind(trace: Large, runs: int, kind: str = KIND) -> list[Figure]:
    """One event of many, and what it costs at least: to look at every record once."""
    one = Ours(f"trace.dat, only `{kind}`: one thread", threads=1, kind=kind)
    scan = Action("trace.dat, only counts: one thread", lambda path: open_trace(path, threads=1).counts())
    taken, _ = in_turn([one, scan], trace.path, runs)
    speed = Speed("counts alone", statistics.median(taken[scan]) / statistics.median(taken[one]))
    return [
        figure("kind", one, taken[one], trace, [speed]),
        Figure("kind", scan.what, taken[scan], trace.events, trace.size),
    ]


def measure_metadata(trace: Large, runs: int) -> Figure:
    """The metadata alone; how much of the file is looked at for them, with the 64 KiB that Linux maps around a page that is."""
    opened = open_trace(trace.path)
    _ = opened.metadata
    looked_at = mapped(trace.path)
    del opened
    reader = Action(f"trace.dat, metadata alone: {looked_at / 1e3:.0f} kB of the file", lambda path: open_trace(path).metadata)
    taken, _ = in_turn([reader], trace.path, runs)
    return Figure("metadata", reader.what, taken[reader])


def mapped(path: Path) -> int:
    """How many bytes of a file this process has in memory where it mapped it."""
    sections = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    own = [section for section in sections if section.partition("\n")[0].endswith(f" {path}")]
    return sum(int(size) << 10 for section in own for size in re.findall(r"^Rss: +(\d+) kB$", section, flags=re.MULTILINE))


def measure_memory(traces: Sequence[Large], kind: str = KIND) -> list[Figure]:
    """The memory that each trace takes, all events and one kind, with as many threads as there are by default; timed once."""
    figures = []
    for trace in traces:
        for what, wanted in (("every field", None), (f"only `{kind}`", kind)):
            reader = Ours(f"{trace.form}, {what}: memory", kind=wanted)
            taken, _ = in_turn([reader], trace.path, 1)
            figures.append(figure("memory", reader, taken[reader], trace))
    return figures


def packed(trace: Large, path: Path) -> Large:
    """The same trace in version 7, packed with zstd.

    Raises:
        subprocess.CalledProcessError: trace-cmd cannot convert it.
    """
    convert = ["trace-cmd", "convert", "-i", str(trace.path), "-o", str(path), "--file-version", "7", "--compression", "zstd"]
    subprocess.run(convert, check=True, capture_output=True)
    return Large(path, trace.recording, "trace.dat of version 7, zstd", trace.rounds, trace.events, path.stat().st_size)
