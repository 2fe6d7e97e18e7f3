"""Damaged perf.data files: tables or a ParseError with a place, and nothing else."""

from __future__ import annotations

import os
import random
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import FIXTURES
from parsers.perfwriter import ADDR, CALLCHAIN, COMPRESSED, LOST, RAW, READ, USUAL, Attr, Perf
from tracetool_parsers import ParseError, RawTrace
from tracetool_parsers.perfdata import open_perf_data

_CASES = 60


def read_all(data: bytes) -> None:
    """Ask everything of a file."""
    error = None
    try:
        ask_all(RawTrace(open_perf_data(memoryview(data), "perf.data", strict=False)))
    except ParseError as caught:
        error = caught
    if error is not None:
        assert error.path == "perf.data"
        assert error.offset is None or error.offset >= 0


def ask_all(trace: RawTrace) -> None:
    in_one_go = trace.tables()
    tables = trace.tables(trace.event_names(), positions=True)
    counts = trace.counts()
    assert {name: table.num_rows for name, table in in_one_go.items()} == counts
    assert {name: table.num_rows for name, table in tables.items()} == counts
    for table in tables.values():
        table.validate(full=True)
    assert trace.timeline().num_rows == sum(counts.values())
    trace.span()
    trace.losses.validate(full=True)
    assert trace.metadata.path == "perf.data"


def written(*, big: bool, pipe: bool) -> bytes:
    import zstandard

    perf = Perf(big=big)
    more = Attr(sample_type=USUAL | CALLCHAIN | READ | ADDR, read_format=0xF, ids=(7, 9))
    perf.attrs = [Attr(ids=(1, 2)), more, Attr(type=1, config=2, sample_type=(USUAL | CALLCHAIN) & ~RAW, ids=(3,))]
    perf.features = {27: perf.pack("5I", 1, 1, 1, 10, 1 << 20), 4: perf.text("6.1"), 11: perf.pack("I", 1) + perf.text("perf")}
    read = perf.pack("QQQQQQ", 1, 2, 3, 4, 5, 6)
    records = [
        perf.comm(5, 5, "name"),
        perf.sample(10),
        perf.sample(12, attr=1, read=read, chain=[1, 2], raw=perf.ping(3)),
        perf.sample(11, attr=2, chain=[1, 2, 3]),
        perf.round(),
        perf.fork((6, 6), (5, 5), 13),
        perf.other(LOST, perf.pack("QQ", 1, 30), 40, cpu=1),
        perf.record(COMPRESSED, zstandard.compress(perf.sample(20) + perf.sample(21))),
        perf.round(),
        perf.sample(30),
    ]
    return perf.pipe(*records) if pipe else perf.file(*records)


WRITTEN = [written(big=big, pipe=pipe) for big in (False, True) for pipe in (False, True)]


@pytest.mark.parametrize("data", WRITTEN, ids=["file", "pipe", "big file", "big pipe"])
def test_every_cut_of_a_written_file(data: bytes) -> None:
    for size in range(0, len(data), 11):
        read_all(data[:size])


@given(data=st.sampled_from(WRITTEN), bits=st.lists(st.integers(0, 1 << 20), min_size=1, max_size=4))
@settings(max_examples=_CASES)
def test_flipped_bits(data: bytes, bits: list[int]) -> None:
    flipped = bytearray(data)
    for bit in bits:
        flipped[bit // 8 % len(data)] ^= 1 << bit % 8
    read_all(bytes(flipped))


@given(
    data=st.sampled_from(WRITTEN),
    at=st.integers(0, 1 << 20),
    value=st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\xff" * 4, b"\xff\x7f", b"\0\0\0\x80" * 2, b"\x7f" + b"\xff" * 7, b"\1" + b"\0" * 7]),
)
@settings(max_examples=_CASES)
def test_lengths_and_counts_turned_to_garbage(data: bytes, at: int, value: bytes) -> None:
    place = at % (len(data) // 4) * 4
    read_all(data[:place] + value + data[place + len(value) :])


@given(data=st.binary(max_size=400), begin=st.sampled_from([0, 104, 300]))
@settings(max_examples=_CASES)
def test_records_of_garbage(data: bytes, begin: int) -> None:
    for whole in WRITTEN:
        read_all(whole[: -(begin + 1)] + data)


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.perf.data")), ids=lambda path: path.name)
def test_damaged_recordings_compiled_and_not(path: Path) -> None:
    data = path.read_bytes()
    begin = data.find(b"perf-exec")
    assert begin > 0
    noise = random.Random(1)
    for way in ("python", "compiled"):
        with mock.patch.dict(os.environ, {"TRACETOOL_LOOPS": way}):
            for at in range(begin, len(data), len(data) // 3):
                read_all(data[:at])
                read_all(data[:at] + noise.randbytes(64) + data[at + 64 :])
