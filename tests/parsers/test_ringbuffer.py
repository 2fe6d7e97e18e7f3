"""Each kind of record in a sub-buffer, and the times it leads to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from parsers.writer import (
    Instance,
    common,
    data,
    long_data,
    ping,
    pings,
    rest_is_empty,
    subbuffer,
    taken_back,
    time_extend,
    time_stamp,
)
from tracetool_parsers import RawTrace, open_trace

Write = Callable[..., RawTrace]


@pytest.fixture
def trace_of(tmp_path: Path) -> Write:
    def write(*pages: bytes) -> RawTrace:
        path = tmp_path / "trace.dat"
        path.write_bytes(pings(*pages).write("v6"))
        return open_trace(path)

    return write


def seen(trace: RawTrace) -> list[tuple[int, int]]:
    """(ts, value) of all pings."""
    table = trace.table("ping")
    return list(zip(table["ts"].to_pylist(), table["value"].to_pylist(), strict=True))


def test_first_record_is_timed_from_the_sub_buffer_and_others_from_the_one_before(trace_of: Write) -> None:
    trace = trace_of(subbuffer(1000, data(ping(1)), data(ping(2), delta=5), data(ping(3), delta=(1 << 27) - 1)))
    assert seen(trace) == [(1000, 1), (1005, 2), (1005 + (1 << 27) - 1, 3)]


def test_every_sub_buffer_starts_with_its_own_time(trace_of: Write) -> None:
    trace = trace_of(subbuffer(1000, data(ping(1), delta=7)), subbuffer(5000, data(ping(2), delta=1)))
    assert seen(trace) == [(1007, 1), (5001, 2)]


def test_long_record_has_its_length_in_the_next_word(trace_of: Write) -> None:
    trace = trace_of(subbuffer(10, long_data(ping(1) + bytes(200), delta=1), data(ping(2), delta=1)))
    assert seen(trace) == [(11, 1), (12, 2)]


def test_long_record_of_odd_length_is_padded_to_a_word(trace_of: Write) -> None:
    trace = trace_of(subbuffer(10, long_data(ping(1) + b"abc", delta=1), data(ping(2), delta=1)))
    assert seen(trace) == [(11, 1), (12, 2)]


def test_longest_short_record(trace_of: Write) -> None:
    trace = trace_of(subbuffer(10, data(ping(1) + bytes(112 - 16)), data(ping(2), delta=3)))
    assert seen(trace) == [(10, 1), (13, 2)]


def test_time_extend_adds_more_time_than_a_header_holds(trace_of: Write) -> None:
    trace = trace_of(subbuffer(10, data(ping(1)), time_extend((1 << 40) + 3), data(ping(2), delta=4)))
    assert seen(trace) == [(10, 1), (10 + (1 << 40) + 3 + 4, 2)]


def test_time_stamp_is_absolute(trace_of: Write) -> None:
    trace = trace_of(subbuffer(10, data(ping(1)), time_stamp(1 << 45), data(ping(2), delta=4)))
    assert seen(trace) == [(10, 1), ((1 << 45) + 4, 2)]


def test_time_stamp_keeps_the_highest_bits_of_the_sub_buffer(trace_of: Write) -> None:
    high = 3 << 59
    trace = trace_of(subbuffer(high + 10, data(ping(1)), time_stamp(1 << 45), data(ping(2), delta=4)))
    assert seen(trace) == [(high + 10, 1), (high + (1 << 45) + 4, 2)]


def test_time_stamp_may_go_back_and_the_cpu_keeps_its_order(trace_of: Write) -> None:
    trace = trace_of(subbuffer(1000, data(ping(1)), time_stamp(400), data(ping(2), delta=4)))
    assert seen(trace) == [(1000, 1), (404, 2)]
    assert trace.span() == (404, 1000)


def test_event_that_was_taken_back_leaves_its_time(trace_of: Write) -> None:
    trace = trace_of(subbuffer(10, data(ping(1)), taken_back(24, delta=6), data(ping(2), delta=4)))
    assert seen(trace) == [(10, 1), (20, 2)]


def test_padding_without_a_delta_ends_the_sub_buffer(trace_of: Write) -> None:
    trace = trace_of(subbuffer(10, data(ping(1)), rest_is_empty(), data(ping(2))), subbuffer(20, data(ping(3))))
    assert seen(trace) == [(10, 1), (20, 3)]
    assert trace.losses.num_rows == 0


def test_padding_that_reaches_past_the_end_is_the_last(trace_of: Write) -> None:
    page = subbuffer(10, data(ping(1)), taken_back(24, delta=6)[:8])
    assert seen(trace_of(page)) == [(10, 1)]


def test_empty_sub_buffer_has_no_events(trace_of: Write) -> None:
    trace = trace_of(subbuffer(10), subbuffer(20, data(ping(3))))
    assert seen(trace) == [(20, 3)]
    assert trace.losses.num_rows == 0


def test_what_lies_behind_the_commit_is_not_read(trace_of: Write) -> None:
    records = data(ping(1)), data(ping(2))
    trace = trace_of(subbuffer(10, *records, commit=len(records[0])))
    assert seen(trace) == [(10, 1)]


@pytest.mark.parametrize("page", [1024, 4096, 16384, 65536])
def test_sub_buffers_of_any_size(tmp_path: Path, page: int) -> None:
    trace = pings()
    trace.page = page
    full = [data(ping(i), delta=1) for i in range((page - 16) // 20)]
    trace.instances = [Instance({0: [subbuffer(0, *full, page=page), subbuffer(10**6, data(ping(7)), page=page)]})]
    for version, content in (("v6", trace.write("v6")), ("v7", trace.write("v7")), ("zstd", trace.write("v7-zstd"))):
        path = tmp_path / version
        path.write_bytes(content)
        assert seen(open_trace(path)) == [(i + 1, i) for i in range(len(full))] + [(10**6, 7)]


def test_threads_of_any_number(trace_of: Write) -> None:
    trace = trace_of(subbuffer(10, *(data(ping(1, tid)) for tid in (0, 7, 4194304, -1, 2**31 - 1))))
    table = trace.table("ping")
    assert table["tid"].to_pylist() == [0, 7, 4194304, -1, 2**31 - 1]
    assert table["comm"].to_pylist() == ["<idle>", "some task", "<...>", "<...>", "<...>"]


def test_record_of_an_unknown_event_is_counted_and_has_the_header_columns(trace_of: Write) -> None:
    trace = trace_of(subbuffer(10, data(ping(1)), data(common(999, 5) + bytes(8), delta=2)))
    assert trace.counts() == {"ping": 1, "unknown:999": 1}
    assert trace.table("unknown:999").to_pylist() == [{"ts": 12, "cpu": 0, "tid": 5, "comm": "<...>"}]
    assert trace.timeline()["event"].to_pylist() == ["ping", "unknown:999"]
