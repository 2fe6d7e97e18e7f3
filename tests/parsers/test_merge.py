"""The order of events over all CPUs."""

from __future__ import annotations

import heapq
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.writer import PING_FORMAT, Instance, Trace, common, data, format_text, ping, subbuffer, time_stamp
from tracetool_parsers import RawTrace, open_trace

streams_of_times = st.lists(st.lists(st.integers(0, 8), max_size=12), min_size=1, max_size=9)

PONG_FORMAT = format_text("pong", 301, [("u64 value", 8, 8, 0)])


def merged(streams: list[list[int]]) -> list[int]:
    """Numbers of the records in the order in which their streams are merged, the first stream first where times are equal.

    As `trace-cmd report`: of the next records of all streams the earliest is taken.
    """
    numbers = iter(range(sum(map(len, streams))))
    waiting = [[(ts, number, next(numbers)) for ts in stream] for number, stream in enumerate(streams)]
    out = []
    heads = [stream.pop(0) for stream in waiting if stream]
    heapq.heapify(heads)
    while heads:
        _, stream, number = heapq.heappop(heads)
        out.append(number)
        if waiting[stream]:
            heapq.heappush(heads, waiting[stream].pop(0))
    return out


def written(folder: Path, streams: list[list[int]], kinds: list[int]) -> RawTrace:
    """A trace whose CPUs have records at these times, numbered one after the other; a kind of 0 is a ping, of 1 a pong."""
    numbers = iter(range(10_000))
    cpus = {}
    for cpu, times in enumerate(streams):
        records = []
        for ts in times:
            number = next(numbers)
            payload = common(300 + kinds[number], 300 + number % 2) + number.to_bytes(8, "little")
            records.append(time_stamp(ts) + data(payload))
        # Few records a sub-buffer: a stream is read in several steps.
        cpus[cpu] = [subbuffer(0, *records[at : at + 3], page=128) for at in range(0, len(records), 3)]
    path = folder / "trace.dat"
    path.write_bytes(Trace([Instance(cpus)], {"test": [PING_FORMAT, PONG_FORMAT]}, page=128).write("v6"))
    return open_trace(path)


@given(streams_of_times, st.data())
def test_streams_are_merged_as_their_heads_come(
    tmp_path_factory: pytest.TempPathFactory, streams: list[list[int]], drawn: st.DataObject
) -> None:
    size = sum(map(len, streams))
    kinds = drawn.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    trace = written(tmp_path_factory.mktemp("merged"), streams, kinds)
    expected = merged(streams)
    assert trace.timeline()["tid"].to_pylist() == [300 + number % 2 for number in expected]
    assert trace.timeline()["event"].to_pylist() == ["pong" if kinds[number] else "ping" for number in expected]
    # Also one by one: what is not asked for keeps what is behind it back.
    for kind, name in enumerate(("ping", "pong")):
        assert trace.table(name)["value"].to_pylist() == [number for number in expected if kinds[number] == kind]
    together = trace.tables(["ping", "pong"], positions=True)
    rows = [row for table in together.values() for row in zip(table["position"].to_pylist(), table["value"].to_pylist(), strict=True)]
    assert [number for _, number in sorted(rows)] == expected
    assert len({place for place, _ in rows}) == len(rows)


def test_many_streams(tmp_path: Path) -> None:
    streams = [[cpu % 7, cpu % 7 + 5] for cpu in range(256)]
    trace = written(tmp_path, streams, [0] * 512)
    assert trace.table("ping")["value"].to_pylist() == merged(streams)


def test_positions_order_the_rows_of_all_tables(tmp_path: Path) -> None:
    pong = data(common(301, 1) + bytes(8))
    records = [data(ping(1)), pong, data(ping(2)), pong, pong]
    path = tmp_path / "trace.dat"
    path.write_bytes(Trace([Instance({0: [subbuffer(0, *records)]})], {"test": [PING_FORMAT, PONG_FORMAT]}).write("v6"))
    made = open_trace(path).tables(["ping", "pong"], positions=True)
    assert made["ping"]["position"].to_pylist() == [0, 2]
    assert made["pong"]["position"].to_pylist() == [1, 3, 4]
