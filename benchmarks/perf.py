"""perf.data against `perf script`: all events with all their fields; `python -m benchmarks.perf TRACE` reads one once, for its memory.

The large file is a small one whose records come again and again, each time later: of a file in the usual layout whose records end in an
identifier, as `perf record` writes them.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from benchmarks.large import Large
from benchmarks.peers import Peer
from benchmarks.processes import run
from benchmarks.results import Figure
from tracetool_parsers import RawTrace
from tracetool_parsers.perfattrs import TIME
from tracetool_parsers.perfdata import open_perf_data
from tracetool_parsers.perfheader import FINISHED_ROUND, read_header

_SAMPLE: Final = 9
#: Time between two rounds, ns.
_PAUSE: Final = 1_000_000


def make_large_perf(recording: Path, large: Path, events: int) -> Large:
    """Write a perf.data of at least `events` events to `large`, from a little-endian one that is a file and not compressed."""
    data = recording.read_bytes()
    header = read_header(memoryview(data), str(recording))
    attr = header.attrs[0]
    once, again, times = bytearray(), bytearray(), []
    at, found = header.begin, 0
    while at < header.end:
        kind, _, size = struct.unpack_from("<IHH", data, at)
        place = attr.in_sample(TIME) if kind == _SAMPLE else size - attr.end_size + attr.at_end(TIME)
        if kind == FINISHED_ROUND:
            again += data[at : at + size]
        elif kind >= 64 or not any(data[at + place : at + place + 8]):
            # What was there before the recording began is told once.
            once += data[at : at + size]
        else:
            times.append((len(again) + place) // 8)
            again += data[at : at + size]
            found += 1
        at += size
    rounds = -(-events // found)
    size = len(once) + rounds * len(again)
    features = (int.from_bytes(data[72:104], "little")).bit_count()
    moved = size - (header.end - header.begin)
    table = [struct.unpack_from("<QQ", data, header.end + 16 * i) for i in range(features)]
    words = np.frombuffer(bytes(again), "<u8").copy()
    span = np.uint64(int(words[times].max() - words[times].min()) + _PAUSE)
    with large.open("wb") as out:
        out.write(data[:48] + struct.pack("<Q", size) + data[56 : header.begin])
        out.write(once)
        for _ in range(rounds):
            out.write(words.data)
            words[times] += span
        out.write(b"".join(struct.pack("<QQ", place + moved, length) for place, length in table))
        out.write(data[header.end + 16 * features :])
    return Large(large, rounds, rounds * found, large.stat().st_size)


def read_all(path: Path) -> dict[str, pa.Table]:
    """Every event of a perf.data as an Arrow table, from the closed file on."""
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return RawTrace(open_perf_data(data, str(path), strict=False)).tables()


def measure_perf(trace: Large, runs: int) -> tuple[list[Figure], list[str]]:
    """This library and `perf script` in turn, `runs` times; the second list says what could not be measured."""
    own, peer = [], []
    script = Peer("perf script", ("perf", "script", "-i"))
    missing = [] if shutil.which("perf") else ["perf script: perf is not here"]
    for _ in range(runs):
        read_all(trace.path)
        start = time.perf_counter()
        tables = read_all(trace.path)
        own.append(time.perf_counter() - start)
        # Giving the memory back is not part of reading.
        del tables
        if not missing:
            peer.append(run([*script.command, trace.path]).seconds)
    ours = Peer("tracetool_parsers: perf.data, every field, to Arrow", (sys.executable, "-m", "benchmarks.perf"))
    measured = [(ours, own)] if missing else [(ours, own), (script, peer)]
    figures = []
    for reader, seconds in measured:
        seen = run([*reader.command, trace.path], anon=True)
        figures.append(Figure("perf", reader.what, seconds, trace.events, trace.size, seen.max_anon, seen.max_rss))
    return figures, missing


if __name__ == "__main__":
    read_all(Path(sys.argv[1]))
