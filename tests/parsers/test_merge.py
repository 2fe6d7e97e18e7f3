"""The order of events over all CPUs."""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.writer import PING_FORMAT, Instance, Trace, common, data, format_text, ping, subbuffer, time_stamp
from tracetool_parsers import open_trace
from tracetool_parsers.merge import order_of, rows_of
from tracetool_parsers.ringbuffer import Found, Records

streams_of_times = st.lists(st.lists(st.integers(0, 8), max_size=12), min_size=1, max_size=9)


def records_of(streams: list[list[int]], ids: list[int]) -> Records:
    times = np.array([ts for stream in streams for ts in stream], np.int64)
    none = np.zeros(times.size, np.int32)
    counts = np.bincount(ids, minlength=1 << 16).astype(np.int64)
    found = Found(none.view(np.uint32), none, times, np.array(ids, np.uint16), counts, np.zeros(1 << 16, np.int32))
    return Records(found, np.cumsum([0, *map(len, streams)], dtype=np.int64), ())


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


@given(streams_of_times, st.data())
def test_streams_are_merged_as_their_heads_come(streams: list[list[int]], drawn: st.DataObject) -> None:
    size = sum(map(len, streams))
    ids = drawn.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    records = records_of(streams, ids)
    order = order_of(records)
    expected = merged(streams)
    assert np.argsort(order.places).tolist() == expected
    for number in range(4):
        assert rows_of(number, records.found, order).tolist() == [each for each in expected if ids[each] == number]


@given(streams_of_times)
def test_sorted_streams_give_a_stable_sort(streams: list[list[int]]) -> None:
    ordered = [sorted(stream) for stream in streams]
    records = records_of(ordered, [0] * sum(map(len, ordered)))
    assert np.array_equal(np.argsort(order_of(records).places), np.argsort(records.found.times, kind="stable"))


def test_many_streams() -> None:
    streams = [[cpu % 7, cpu % 7 + 5] for cpu in range(256)]
    records = records_of(streams, [0] * 512)
    assert np.argsort(order_of(records).places).tolist() == merged(streams)


@given(streams_of_times)
def test_tables_positions_and_timeline_are_in_one_order(tmp_path_factory: pytest.TempPathFactory, streams: list[list[int]]) -> None:
    numbers = iter(range(10_000))
    cpus = {}
    for cpu, times in enumerate(streams):
        records = [time_stamp(ts) + data(ping(number, 300 + number % 2)) for ts in times for number in [next(numbers)]]
        cpus[cpu] = [subbuffer(0, *records)]
    path = tmp_path_factory.mktemp("merged") / "trace.dat"
    path.write_bytes(Trace([Instance(cpus)], {"test": [PING_FORMAT, format_text("pong", 301, [])]}).write("v6"))
    trace = open_trace(path)
    expected = merged(streams)
    assert trace.table("ping")["value"].to_pylist() == expected
    assert trace.positions("ping").tolist() == list(range(len(expected)))
    assert trace.timeline()["tid"].to_pylist() == [300 + number % 2 for number in expected]


def test_positions_are_places_among_all_events(tmp_path: Path) -> None:
    pong = data(common(301, 1) + bytes(4))
    records = [data(ping(1)), pong, data(ping(2)), pong, pong]
    path = tmp_path / "trace.dat"
    path.write_bytes(Trace([Instance({0: [subbuffer(0, *records)]})], {"test": [PING_FORMAT, format_text("pong", 301, [])]}).write("v6"))
    trace = open_trace(path)
    assert trace.positions("ping").tolist() == [0, 2]
    assert trace.positions("pong").tolist() == [1, 3, 4]
    assert trace.positions("ping").dtype == np.int64
