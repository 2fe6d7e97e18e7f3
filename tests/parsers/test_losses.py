"""What was lost is listed, once."""

from __future__ import annotations

import struct
from pathlib import Path

import pyarrow as pa
import pytest

from parsers.writer import PING_FORMAT, Instance, Trace, data, ping, pings, subbuffer
from tracetool_parsers import RawTrace, inputs, open_trace, perflosses, perfstream, perfwalk, ringbuffer, streams, textscan
from tracetool_parsers.losses import SOURCES

#: What the readers call their sources.
_NAMES = ("DAMAGED", "TRUNCATED", "KILLED", "LOST_RECORD", "LOST_SAMPLES_RECORD", "UNKNOWN_EVENT", "DAMAGED_SAMPLE")

Row = tuple[int, int | None, int | None, int | None, str]


def stat(cpu: int, overrun: int = 0, commit_overrun: int = 0, dropped: int = 0) -> tuple[int, bytes]:
    """A CPUSTAT option, as the kernel writes tracefs per_cpu/cpuN/stats."""
    text = (
        f"CPU: {cpu}\nentries: 5\noverrun: {overrun}\ncommit overrun: {commit_overrun}\nbytes: 99\n"
        f"oldest event ts:     6.226077\nnow ts:     6.237414\ndropped events: {dropped}\nread events: 0\n\0"
    )
    return 2, text.encode()


def opened(folder: Path, trace: Trace, buffers: list[str] | None = None) -> RawTrace:
    path = folder / "trace.dat"
    path.write_bytes(trace.write("v7-zstd"))
    return open_trace(path, buffers=buffers)


def losses(folder: Path, trace: Trace, buffers: list[str] | None = None) -> list[Row]:
    return [tuple(row.values())[:5] for row in opened(folder, trace, buffers).losses.to_pylist()]


def two_pages(missed: int | None) -> Trace:
    return pings(subbuffer(10, data(ping(1)), data(ping(2), delta=5)), subbuffer(100, data(ping(3), delta=1), missed=missed))


def test_nothing_lost(tmp_path: Path) -> None:
    table = opened(tmp_path, two_pages(None)).losses
    assert table.num_rows == 0
    assert table.schema.names == ["cpu", "from_ns", "to_ns", "events", "source", "offset"]
    assert table.schema.types == [pa.int32(), pa.int64(), pa.int64(), pa.int64(), pa.string(), pa.int64()]


def test_flag_with_a_count(tmp_path: Path) -> None:
    assert losses(tmp_path, two_pages(12)) == [(0, 15, 101, 12, "sub-buffer flag")]


def test_flag_without_a_count(tmp_path: Path) -> None:
    assert losses(tmp_path, two_pages(-1)) == [(0, 15, 101, None, "sub-buffer flag")]


def test_count_beside_a_full_sub_buffer_is_read(tmp_path: Path) -> None:
    # 203 records of 20 bytes leave 20: the count of 8 fits behind them.
    page = subbuffer(100, *(data(ping(i)) for i in range(203)), missed=4)
    assert losses(tmp_path, pings(page)) == [(0, None, 100, 4, "sub-buffer flag")]


def test_loss_before_the_first_event_has_no_start(tmp_path: Path) -> None:
    assert losses(tmp_path, pings(subbuffer(10, data(ping(1)), missed=3))) == [(0, None, 10, 3, "sub-buffer flag")]


def test_loss_before_an_empty_last_sub_buffer_has_no_end(tmp_path: Path) -> None:
    assert losses(tmp_path, pings(subbuffer(10, data(ping(1))), subbuffer(20, missed=3))) == [(0, 10, None, 3, "sub-buffer flag")]


def test_losses_lie_between_events_of_their_own_cpu(tmp_path: Path) -> None:
    cpus = {
        0: [subbuffer(10, data(ping(1))), subbuffer(50, data(ping(2)), missed=1)],
        2: [subbuffer(30, data(ping(3))), subbuffer(40, data(ping(4)), missed=2)],
    }
    assert losses(tmp_path, Trace([Instance(cpus)], {"test": [PING_FORMAT]})) == [
        (0, 10, 50, 1, "sub-buffer flag"),
        (2, 30, 40, 2, "sub-buffer flag"),
    ]


def test_times_of_losses_are_nanoseconds(tmp_path: Path) -> None:
    trace = two_pages(2)
    trace.options = [(14, struct.pack("<IIQ", 4, 1, 0)), (7, b"1000\0")]
    assert losses(tmp_path, trace) == [(0, 1030, 1202, 2, "sub-buffer flag")]


@pytest.mark.parametrize(
    ("missed", "overrun", "rows"),
    [
        (None, 0, []),
        (None, 7, [(0, 10, None, 7, "cpustat overrun")]),
        (7, 7, [(0, 15, 101, 7, "sub-buffer flag")]),
        (5, 7, [(0, 15, 101, 5, "sub-buffer flag"), (0, 10, None, 2, "cpustat overrun")]),
        (-1, 7, [(0, 15, 101, None, "sub-buffer flag")]),
    ],
)
def test_overrun_that_flags_tell_of_is_not_counted_twice(tmp_path: Path, missed: int | None, overrun: int, rows: list[Row]) -> None:
    trace = two_pages(missed)
    trace.options = [stat(0, overrun)]
    assert losses(tmp_path, trace) == rows


def test_drops_are_counted_beside_flags(tmp_path: Path) -> None:
    trace = two_pages(5)
    trace.options = [stat(0, overrun=5, commit_overrun=2, dropped=3)]
    assert losses(tmp_path, trace) == [
        (0, 15, 101, 5, "sub-buffer flag"),
        (0, 10, None, 2, "cpustat commit overrun"),
        (0, 10, None, 3, "cpustat dropped events"),
    ]


def test_losses_of_a_trace_without_events_have_no_start(tmp_path: Path) -> None:
    trace = pings()
    trace.options = [stat(0, dropped=3)]
    assert losses(tmp_path, trace) == [(0, None, None, 3, "cpustat dropped events")]


def test_stats_of_another_buffer_are_its_own(tmp_path: Path) -> None:
    instances = [Instance({0: [subbuffer(10, data(ping(1)))]}), Instance({0: [subbuffer(20, data(ping(1)))]}, name="small")]
    trace = Trace(instances, {"test": [PING_FORMAT]}, options=[stat(0), (2, b"\nBuffer: small\n\n\0"), stat(0, dropped=8)])
    assert losses(tmp_path, trace, buffers=[""]) == []
    assert losses(tmp_path, trace, buffers=["small"]) == [(0, 20, None, 8, "cpustat dropped events")]


def test_every_source_that_a_reader_names_is_explained() -> None:
    readers = (perflosses, perfstream, perfwalk, inputs, streams)
    named = {value for reader in readers for name, value in vars(reader).items() if name in _NAMES and isinstance(value, str)}
    named |= {*ringbuffer.SOURCES, *textscan.SOURCES} - {""}
    assert len(named) > 10
    assert named <= SOURCES.keys()
    assert SOURCES.keys() - named == {
        "cpustat overrun",
        "cpustat commit overrun",
        "cpustat dropped events",
        "overwritten",
        *(f"damaged {packing} data" for packing in ("gzip", "xz", "zstd")),
    }
