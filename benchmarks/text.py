"""Lines a second of text traces: `python -m benchmarks.text TEXT` reads one once, `measure_text` takes the figures."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa

from benchmarks.large import Large
from benchmarks.processes import run
from benchmarks.results import Figure
from tracetool_parsers.ftracetext import open_ftrace_text
from tracetool_parsers.raw import RawTrace


def read_all(path: Path) -> dict[str, pa.Table]:
    """Every event of a text as an Arrow table, from the closed file on: what it holds is found out, then read."""
    import mmap

    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    trace = RawTrace(open_ftrace_text(data, str(path), strict=False))
    return trace.tables(trace.event_names())


def make_text(recording: Path, folder: Path, lines: int) -> Large:
    """The raw report of a recording, again and again, until it has that many lines; times start anew each round."""
    command = ["trace-cmd", "report", "-t", "-R", "-i", str(recording)]
    head, _, body = subprocess.run(command, check=True, capture_output=True).stdout.partition(b"\n")
    own = body.count(b"\n")
    rounds = -(-lines // own)
    path = folder / "large.txt"
    with path.open("wb") as out:
        out.write(head + b"\n")
        for _ in range(rounds):
            out.write(body)
    return Large(path, rounds, own * rounds, path.stat().st_size)


def measure_text(text: Large, runs: int) -> list[Figure]:
    """All tables, compiled loops loaded: processor time of this thread, which other programs lengthen less than the clock."""
    read_all(text.path)
    seconds = []
    for _ in range(runs):
        start = time.thread_time()
        tables = read_all(text.path)
        seconds.append(time.thread_time() - start)
        del tables
    seen = run([sys.executable, "-m", "benchmarks.text", text.path], anon=True)
    return [
        Figure(
            "text",
            "tracetool_parsers: trace-cmd report -t -R, every field, to Arrow",
            seconds,
            text.events,
            text.size,
            seen.max_anon,
            seen.max_rss,
        )
    ]


if __name__ == "__main__":
    read_all(Path(sys.argv[1]))
