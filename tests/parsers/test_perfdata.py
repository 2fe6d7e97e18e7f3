"""perf.data files that the tests write: order, names, losses, byte orders, ways of writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard

from conftest import FIXTURES
from parsers.perfwriter import (
    ADDR,
    CALLCHAIN,
    COMPRESSED,
    COMPRESSED2,
    CPU,
    EXEC,
    ID,
    IDENTIFIER,
    IP,
    LOST,
    LOST_SAMPLES,
    MMAP2,
    PERIOD,
    PING,
    PING_FORMAT,
    RAW,
    READ,
    TID,
    TIME,
    USUAL,
    Attr,
    Perf,
)
from tracetool_parsers import ParseError, RawTrace, perfwalk
from tracetool_parsers.perfdata import open_perf_data, open_perf_directory

SWITCH, SWITCH_CPU_WIDE, NAMESPACES, CGROUP = 14, 15, 16, 19
SWITCH_OUT, SWITCH_OUT_PREEMPT = 0x2000, 0x4000


def opened(data: bytes, *, strict: bool = True) -> RawTrace:
    return RawTrace(open_perf_data(memoryview(data), "perf.data", strict=strict))


def rows(trace: RawTrace, event: str, *columns: str) -> list[tuple[Any, ...]]:
    table = trace.table(event)
    return list(zip(*(table[column].to_pylist() for column in columns), strict=True))


def plain(table: pa.Table) -> pa.Table:
    """The table with names as strings: how they are numbered does not matter."""
    return table.set_column(table.column_names.index("comm"), "comm", table["comm"].cast(pa.string()))


def losses(trace: RawTrace) -> list[tuple[Any, ...]]:
    return [tuple(row.values())[:5] for row in trace.losses.to_pylist()]


@pytest.fixture(params=[False, True], ids=["little", "big"])
def perf(request: pytest.FixtureRequest) -> Perf:
    return Perf(big=request.param)


def test_fields_of_all_kinds_are_read(perf: Perf) -> None:
    raw = perf.ping((1 << 64) - 2, small=-70000, odd=0xFFFE, text=b"sixsix", name=b"long name", many=(7, 1 << 31))
    trace = opened(perf.file(perf.sample(1000, pid=3, tid=4, cpu=2, raw=raw, ip=(1 << 63) + 5)))
    assert trace.metadata.format == "perf.data"
    table = trace.table("ping", ["number", "small", "odd", "text", "name", "list", "common_pid", "sample_ip"])
    assert table.to_pylist() == [
        {
            "ts": 1000,
            "cpu": 2,
            "tid": 4,
            "comm": ":4",
            "tgid": 3,
            "number": (1 << 64) - 2,
            "small": -70000,
            "odd": 0xFFFE,
            "text": "sixsix",
            "name": "long name",
            "list": [7, 1 << 31],
            "common_pid": 5,
            "sample_ip": (1 << 63) + 5,
        }
    ]
    assert trace.formats()["ping"].full_name == "test:ping"
    assert trace.table("ping").column_names[-1] == "list"


def test_a_pipe_is_read_as_a_file_is(perf: Perf) -> None:
    perf.features = {4: perf.text("6.1.0-test"), 5: perf.text("6.1.9")}
    records = [perf.comm(5, 5, "name"), perf.sample(5), perf.sample(7), perf.round()]
    file, pipe = opened(perf.file(*records)), opened(perf.pipe(*records))
    assert pipe.metadata.format == "perf.data (pipe)"
    assert (pipe.metadata.kernel, pipe.metadata.writer) == (file.metadata.kernel, file.metadata.writer) == ("6.1.0-test", "perf 6.1.9")
    assert file.table("ping").num_rows == 2
    for event in ("comm", "ping"):
        assert pipe.table(event).equals(file.table(event))


def test_rounds_decide_what_is_delivered_when(perf: Perf) -> None:
    def numbered(time: int, number: int) -> bytes:
        return perf.sample(time, raw=perf.ping(number))

    # 50 is not later than the greatest time of the round before its own, but came after that was delivered: it comes late.
    trace = opened(
        perf.file(
            numbered(100, 1),
            numbered(90, 2),
            perf.round(),
            numbered(110, 3),
            numbered(95, 4),
            numbered(100, 5),
            perf.round(),
            numbered(50, 6),
            numbered(120, 7),
            perf.round(),
            perf.comm(9, 9, "no time"),
            numbered(115, 8),
        )
    )
    assert rows(trace, "ping", "ts", "number") == [(90, 2), (95, 4), (100, 1), (100, 5), (50, 6), (110, 3), (115, 8), (120, 7)]
    timeline = trace.timeline()
    assert timeline["ts"].to_pylist() == [90, 95, 100, 100, 50, 110, 0, 115, 120]
    assert trace.table("comm", positions=True)["position"].to_pylist() == [6]
    assert trace.span() == (50, 120)


def test_names_are_those_at_the_time(perf: Perf) -> None:
    trace = opened(
        perf.file(
            perf.comm(5, 5, "parent"),
            perf.sample(10),
            perf.sample(30, pid=6, tid=6),
            perf.fork((6, 6), (5, 5), 20),
            perf.comm(6, 6, "child", 40, misc=EXEC),
            perf.sample(50, pid=6, tid=6),
            perf.sample(15, pid=6, tid=6),
            perf.sample(60, pid=0, tid=0),
            perf.sample(61, pid=-1, tid=-1),
            perf.fork((8, 8), (7, 7), 62),
            perf.sample(63, pid=8, tid=8),
            # A thread of another process had this number: what it was called says nothing.
            perf.fork((9, 9), (4, 5), 64),
            perf.sample(65, pid=9, tid=9),
        )
    )
    assert rows(trace, "ping", "ts", "comm") == [
        (10, "parent"),
        (15, ":6"),
        (30, "parent"),
        (50, "child"),
        (60, "swapper"),
        (61, ":-1"),
        (63, ":8"),
        (65, ":9"),
    ]
    assert rows(trace, "comm", "ts", "comm_field", "exec") == [(0, "parent", False), (40, "child", True)]
    assert rows(trace, "fork", "pid", "tid_field", "ppid", "ptid", "comm")[0] == (6, 6, 5, 5, "parent")


def test_samples_of_several_kinds_and_layouts_are_told_by_their_ids(perf: Perf) -> None:
    perf.attrs = [
        Attr(ids=(11, 12)),
        Attr(type=1, config=2, sample_type=IP | TID | TIME | ADDR | CPU | PERIOD | CALLCHAIN | IDENTIFIER, ids=(1 << 63,)),
        Attr(sample_type=USUAL | CALLCHAIN | READ, read_format=0xC, ids=(1 << 40,)),
    ]
    group = perf.pack("QQQQQ", 2, 70, 1, 80, 2)
    trace = opened(
        perf.file(
            perf.sample(1, number=12, raw=perf.ping(101)),
            perf.sample(2, attr=1, addr=0x1000, ip=0x2000, period=3, chain=[1, (1 << 64) - 512]),
            perf.sample(3, attr=2, read=group, chain=[5, 6, 7], raw=perf.ping(102, name=b"x")),
            perf.sample(4, number=0, raw=perf.ping(103)),
        )
    )
    # Two attributes are of one event: what only one of them recorded is no column.
    assert rows(trace, "ping", "ts", "number", "name") == [(1, 101, "a name"), (3, 102, "x"), (4, 103, "a name")]
    assert "callchain" not in trace.table("ping").column_names
    assert rows(trace, "page-faults", "addr", "ip", "period", "callchain") == [(0x1000, 0x2000, 3, [1, (1 << 64) - 512])]
    assert trace.formats()["page-faults"].system == "software"


def test_ids_may_lie_at_the_place_of_id(perf: Perf) -> None:
    usual = IP | TID | TIME | ID | CPU | RAW
    second = PING_FORMAT.replace("ping", "pong").replace(str(PING), "778")
    perf.attrs = [Attr(sample_type=usual, ids=(1,)), Attr(sample_type=usual | PERIOD, config=778, ids=(2,))]
    perf.formats = {"test": [PING_FORMAT], "other": [second]}
    trace = opened(perf.file(perf.sample(1, attr=1), perf.sample(2), perf.other(LOST, perf.pack("QQ", 2, 5), 3, attr=1, cpu=7)))
    assert trace.counts() == {"ping": 1, "pong": 1, "lost": 1}
    assert rows(trace, "lost", "ts", "cpu", "id", "lost") == [(3, 7, 2, 5)]


def test_one_event_needs_no_ids(perf: Perf) -> None:
    perf.attrs = [Attr(sample_type=TID | RAW, sample_id_all=False, ids=())]
    trace = opened(perf.file(perf.sample(0, raw=perf.ping(2)), perf.record(3, perf.pack("II", 5, 6) + b"named\0\0\0")))
    assert rows(trace, "ping", "ts", "cpu", "tid", "number") == [(0, -1, 5, 2)]
    assert rows(trace, "comm", "tid", "tgid", "comm") == [(6, 5, "named")]


def test_several_events_without_ids_are_refused(perf: Perf) -> None:
    perf.attrs = [Attr(sample_type=TID | TIME), Attr(sample_type=TID)]
    with pytest.raises(ParseError, match="do not say which event"):
        opened(perf.file(perf.sample(1)))


def test_a_map_has_the_numbers_of_its_file_or_a_build_id(perf: Perf) -> None:
    numbers = perf.pack("IIQQ", 8, 1, 99, 3)
    build_id = bytes([20, 0, 0, 0, *range(20)])
    head, tail = perf.pack("iiQQQ", 5, 6, 0x1000, 0x2000, 0x3000), perf.pack("II", 5, 2) + b"/bin/true\0".ljust(16, b"\0")
    trace = opened(
        perf.file(perf.other(MMAP2, head + numbers + tail, 1, misc=2), perf.other(MMAP2, head + build_id + tail, 2, misc=0x4002))
    )
    assert rows(trace, "mmap2", "maj", "min", "ino", "ino_generation", "build_id", "filename", "prot") == [
        (8, 1, 99, 3, None, "/bin/true", 5),
        (None, None, None, None, list(range(20)), "/bin/true", 5),
    ]
    assert trace.table("mmap2", ["ino"]).column_names[-1] == "ino"


def test_namespaces_control_groups_and_switches_are_read(perf: Perf) -> None:
    links = perf.pack("QQQQ", 4, 0xF0000001, 5, 0xF0000002)
    trace = opened(
        perf.file(
            perf.other(CGROUP, perf.pack("Q", 77) + b"/system.slice\0\0\0", 1),
            perf.other(NAMESPACES, perf.pack("IIQ", 5, 6, 2) + links, 2, pid=5, tid=6),
            perf.other(SWITCH, b"", 3, pid=5, tid=6, cpu=1),
            perf.other(SWITCH, b"", 4, misc=SWITCH_OUT | SWITCH_OUT_PREEMPT, pid=5, tid=6, cpu=1),
            perf.other(SWITCH_CPU_WIDE, perf.pack("II", 8, 9), 5, misc=SWITCH_OUT, pid=5, tid=6, cpu=1),
        )
    )
    assert rows(trace, "cgroup", "ts", "id", "path") == [(1, 77, "/system.slice")]
    assert rows(trace, "namespaces", "ts", "pid", "tid_field", "count", "dev_ino") == [
        (2, 5, 6, 2, [4, 0xF0000001, 5, 0xF0000002]),
    ]
    assert rows(trace, "switch", "ts", "cpu", "tid", "out", "preempt") == [(3, 1, 6, False, False), (4, 1, 6, True, True)]
    assert rows(trace, "switch_cpu_wide", "ts", "tid", "other_pid", "other_tid", "out", "preempt") == [(5, 6, 8, 9, True, False)]


def test_lost_records_lie_after_the_record_before_on_their_cpu(perf: Perf) -> None:
    trace = opened(
        perf.file(
            perf.sample(10, cpu=1),
            perf.sample(20, cpu=2),
            perf.other(LOST, perf.pack("QQ", 1, 30), 40, cpu=1),
            perf.other(LOST, perf.pack("QQ", 1, 5), 41, cpu=3),
            perf.other(LOST_SAMPLES, perf.pack("Q", 34), 0, cpu=1),
            perf.other(LOST_SAMPLES, perf.pack("Q", 5), 0, cpu=3),
            perf.other(LOST_SAMPLES, perf.pack("Q", 1000), 0, misc=0x8000, cpu=3),
        )
    )
    assert losses(trace) == [
        (1, 10, 40, 30, "PERF_RECORD_LOST"),
        (3, None, 41, 5, "PERF_RECORD_LOST"),
        # The events' own count has the 30 once more.
        (1, 10, None, 4, "PERF_RECORD_LOST_SAMPLES"),
    ]


@pytest.mark.parametrize("kind", [COMPRESSED, COMPRESSED2])
def test_compressed_records_are_one_stream_and_straddle(perf: Perf, kind: int) -> None:
    samples = [perf.sample(10 + i, raw=perf.ping(i)) for i in range(3000)]
    packer = zstandard.ZstdCompressor().compressobj()
    plain = b"".join(samples)
    records = [perf.comm(5, 5, "packed")]
    # Pieces end inside records.
    for at in range(0, len(plain), 10_001):
        packed = packer.compress(plain[at : at + 10_001]) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        body = packed if kind == COMPRESSED else perf.pack("Q", len(packed)) + packed + bytes(-len(packed) % 8)
        records += [perf.record(kind, body), perf.round()]
    perf.features[27] = perf.pack("5I", 1, 1, 1, 10, 1 << 20)
    trace = opened(perf.file(*records))
    assert trace.metadata.codec == "zstd"
    assert rows(trace, "ping", "ts", "number", "comm") == [(10 + i, i, "packed") for i in range(3000)]
    assert opened(perf.pipe(*records)).table("ping").equals(trace.table("ping"))
    damaged = bytearray(perf.file(*records))
    # No block of zstd begins so.
    at = damaged.index(records[7]) + 8
    damaged[at : at + 20] = b"\xff" * 20
    broken = opened(bytes(damaged), strict=False)
    assert 100 < broken.counts()["ping"] < 3000
    assert [loss[-1] for loss in losses(broken)] == ["damaged compressed records"]


def test_a_directory_is_its_files_sorted_by_time(perf: Perf, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(perf.file(perf.comm(5, 5, "threads")))
    (tmp_path / "data.10").write_bytes(perf.sample(20) + perf.sample(40))
    (tmp_path / "data.2").write_bytes(perf.sample(10) + perf.sample(30) + perf.sample(35)[:20])
    (tmp_path / "data.3").write_bytes(b"")
    trace = RawTrace(open_perf_directory(str(tmp_path), strict=False))
    assert trace.metadata.format == "perf.data (directory)"
    assert rows(trace, "ping", "ts", "comm") == [(time, "threads") for time in (10, 20, 30, 40)]
    assert [loss[-1] for loss in losses(trace)] == ["truncated file"]


def test_a_killed_recorder_left_what_it_had_written(perf: Perf) -> None:
    perf.formats = {}
    trace = opened(perf.file(perf.sample(10), perf.sample(20), size=0), strict=False)
    assert trace.counts() == {str(PING): 2}
    assert losses(trace) == [(-1, 20, None, None, "recorder was killed")]
    assert "nothing says what its events look like" in trace.metadata.notes[0]


def test_what_is_cut_off_is_a_loss_with_its_place(perf: Perf) -> None:
    first = perf.file(perf.sample(10), perf.round(), perf.sample(20), perf.round(), perf.sample(30))
    at = first.index(perf.sample(30))
    trace = opened(first[: at + 20], strict=False)
    assert trace.counts() == {str(PING): 2}
    assert losses(trace) == [(-1, 10, None, None, "truncated file")]
    assert f"truncated file at byte {at}" in trace.metadata.notes
    with pytest.raises(ParseError, match="truncated file") as caught:
        opened(first[: at + 20])
    assert caught.value.offset == at


def test_after_damage_reading_goes_on_at_the_next_whole_record(perf: Perf) -> None:
    samples = [perf.sample(10 * i, raw=perf.ping(i)) for i in range(1, 9)]
    data = bytearray(perf.file(*samples[:3], perf.round(), *samples[3:6], perf.round(), *samples[6:]))
    at = data.index(samples[4])
    data[at : at + 16] = b"\xff" * 16
    trace = opened(bytes(data), strict=False)
    assert rows(trace, "ping", "number") == [(1,), (2,), (3,), (4,), (6,), (7,), (8,)]
    assert losses(trace) == [(-1, None, 60, None, "damaged record")]
    with pytest.raises(ParseError) as caught:
        opened(bytes(data))
    assert caught.value.offset == at


def test_samples_that_no_event_owns_or_that_are_too_short_are_counted(perf: Perf) -> None:
    perf.attrs = [Attr(ids=(1,)), Attr(ids=(2,), sample_type=USUAL | CALLCHAIN)]
    short = perf.record(9, perf.pack("QQ", 1, 0))
    chain = perf.record(9, perf.pack("QQiiQIIQ", 2, 0, 5, 5, 8, 0, 0, 1 << 60))
    trace = opened(perf.file(perf.sample(10), perf.sample(20, number=99), short, chain, perf.sample(30)), strict=False)
    assert trace.counts() == {"ping": 2}
    assert losses(trace) == [(-1, 10, 30, 1, "samples of no known event"), (-1, 10, 30, 2, "damaged sample")]


def test_fields_past_the_end_of_raw_data_are_null(perf: Perf) -> None:
    trace = opened(perf.file(perf.sample(1, raw=perf.ping(7)[:12]), perf.sample(2, raw=perf.ping(8))))
    assert rows(trace, "ping", "number", "small") == [(None, None), (8, -3)]


def test_records_of_unknown_types_are_counted_and_have_no_fields(perf: Perf) -> None:
    trace = opened(perf.file(perf.other(40, bytes(8), 5)))
    (name,) = trace.counts()
    assert name.startswith("unknown:")
    assert trace.table(name)["ts"].to_pylist() == [5]
    # A type of perf's own is no event.
    assert opened(perf.file(perf.record(90, bytes(8)), perf.sample(1))).counts() == {"ping": 1}


def test_an_empty_file_has_no_events(perf: Perf) -> None:
    perf.features[4] = perf.text("6.1")
    trace = opened(perf.file(perf.round()))
    assert trace.counts() == {}
    assert trace.span() is None
    assert trace.timeline().num_rows == 0
    assert trace.table("ping").num_rows == 0


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.perf.data")), ids=lambda path: path.name)
def test_however_small_the_pieces_are_the_tables_are_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = path.read_bytes()
    whole = opened(data)
    expected = {event: plain(table) for event, table in whole.tables(whole.event_names(), positions=True).items()}
    monkeypatch.setattr(perfwalk, "_QUEUE", 16)
    for positions in (True, False):
        pieces = opened(data, strict=False)
        # Everything in one go, before anything else was asked.
        tables = pieces.tables(positions=positions)
        assert list(tables) == list(expected)
        for event, table in expected.items():
            wanted = table if positions else table.drop_columns(["position"])
            assert plain(tables[event]).equals(wanted), event
            assert plain(pieces.table(event, positions=positions)).equals(wanted), event
        assert pieces.counts() == whole.counts()
        assert pieces.losses.equals(whole.losses)
        assert pieces.timeline().equals(whole.timeline())
