"""Lines a second of text traces: of what trace-cmd reports, every line an event."""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path
from typing import Final

from benchmarks.large import Large
from benchmarks.reading import Ours, figure, in_turn
from benchmarks.results import Figure, Speed

#: Lines a second that are wanted at least, millions.
_TARGET: Final = 1


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
    return Large(path, recording.name, "text of trace-cmd report -t -R", rounds, own * rounds, path.stat().st_size)


def measure_text(text: Large, runs: int) -> list[Figure]:
    """All tables, by the clock, and by processor time, which other programs lengthen less."""
    readers = [
        Ours("text, every field, to Arrow: by the clock"),
        Ours("text, every field, to Arrow: processor time", clock=time.process_time),
    ]
    taken, _ = in_turn(readers, text.path, runs)
    return [
        figure("text", reader, seconds, text, [Speed("1 million lines/s", text.events / statistics.median(seconds) / 1e6, _TARGET)])
        for reader, seconds in taken.items()
    ]
