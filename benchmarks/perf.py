"""perf.data against `perf script`: all events with all their fields.

The large file is a small one whose records come again and again, each time later: of a file in the usual layout whose records end in an
identifier, as `perf record` writes them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.large import Large
from benchmarks.reading import Ours, Peer, Reader, against_peers, figure, in_turn
from benchmarks.results import Figure, Speed
from tracetool_parsers.perfattrs import TIME
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
    return Large(large, recording.name, "perf.data", rounds, rounds * found, large.stat().st_size)


def measure_perf(trace: Large, peers: Sequence[Peer], runs: int) -> tuple[list[Figure], list[str]]:
    """This library and each peer in turn, `runs` times; the second list names the peers that failed."""
    ours = Ours("perf.data, every field, to Arrow")
    taken, failed = in_turn([ours, *peers], trace.path, runs)
    against: dict[Reader, list[Speed]] = {ours: against_peers(taken[ours], taken)}
    return [figure("perf", reader, seconds, trace, against.get(reader, ())) for reader, seconds in taken.items()], failed
