"""Metadata, options and buffers of trace.dat files of both versions."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from parsers.writer import MAGIC, PING_FORMAT, VERSIONS, Instance, Trace, data, format_text, pack, ping, pings, subbuffer
from tracetool_parsers import ParseError, RawTrace, UnknownEvent, open_trace
from tracetool_parsers.cursor import ByteOrder
from tracetool_parsers.symbols import PRINTK, SYMBOLS, kallsyms, printk_formats, text_of
from tracetool_parsers.tracedat import read_recording


@pytest.fixture(params=VERSIONS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., RawTrace]:
    """Opens a trace after it was written in one of the versions and codecs."""

    def write(trace: Trace, **options: object) -> RawTrace:
        path = tmp_path / f"{request.param}.dat"
        path.write_bytes(trace.write(request.param))
        return open_trace(path, **options)  # type: ignore[arg-type]

    return write


Open = Callable[..., RawTrace]


def values(trace: RawTrace) -> list[int]:
    return list(trace.table("ping")["value"].to_pylist())


def test_metadata(opened: Open) -> None:
    trace = opened(pings(subbuffer(10, data(ping(1)))))
    metadata = trace.metadata
    version, _, codec = Path(metadata.path).stem.partition("-")
    assert metadata.format == f"trace.dat {version}"
    assert metadata.codec == (codec or "none")
    assert metadata.kernel == "6.1.0-test"
    assert metadata.uname == "Linux host 6.1.0-test x86_64"
    assert metadata.clock == "global"
    assert metadata.cpus == 1
    assert metadata.page_size == 4096
    assert metadata.writer == "trace-cmd 0.0 test"
    assert metadata.buffers == ("",)
    assert metadata.cmdlines == {7: "some task"}
    assert metadata.hypervisor is None
    assert metadata.notes == ()


def test_events_are_read(opened: Open) -> None:
    # More than one chunk of ten sub-buffers.
    trace = opened(pings(*(subbuffer(i, *(data(ping(100 * i + j)) for j in range(3))) for i in range(25))))
    assert values(trace) == [100 * i + j for i in range(25) for j in range(3)]
    assert trace.losses.num_rows == 0


def test_trace_without_events(opened: Open) -> None:
    trace = opened(pings())
    assert trace.event_names() == []
    assert trace.counts() == {}
    assert trace.span() is None
    assert list(trace.formats()) == ["ping"]
    assert trace.table("ping").num_rows == 0
    assert trace.timeline().num_rows == 0
    assert trace.tables([]) == {}


def test_cpus_are_merged_by_time_and_of_equal_times_the_lower_goes_first(opened: Open) -> None:
    cpus = {
        0: [subbuffer(10, data(ping(1)), data(ping(2), delta=10))],
        1: [subbuffer(10, data(ping(3)), data(ping(4), delta=5))],
        5: [subbuffer(12, data(ping(5)))],
    }
    trace = opened(Trace([Instance(cpus)], {"test": [PING_FORMAT]}))
    assert values(trace) == [1, 3, 5, 4, 2]
    assert trace.table("ping")["cpu"].to_pylist() == [0, 1, 5, 1, 0]
    assert trace.metadata.cpus == 6


def test_cpu_whose_time_goes_back_keeps_its_order(opened: Open) -> None:
    cpus = {0: [subbuffer(10, data(ping(1))), subbuffer(5, data(ping(2)))], 1: [subbuffer(7, data(ping(3)), data(ping(4), delta=4))]}
    assert values(opened(Trace([Instance(cpus)], {"test": [PING_FORMAT]}))) == [3, 1, 2, 4]


TWO = [
    Instance({0: [subbuffer(10, data(ping(1)))], 1: [subbuffer(10, data(ping(2)))]}),
    Instance({0: [subbuffer(10, data(ping(3)), data(ping(4), delta=1))]}, name="small"),
]


def test_buffers_are_merged_and_named(opened: Open) -> None:
    trace = opened(Trace(TWO, {"test": [PING_FORMAT]}))
    assert trace.metadata.buffers == ("", "small")
    table = trace.table("ping")
    assert table.column_names == ["ts", "cpu", "tid", "comm", "buffer", "value"]
    assert table["value"].to_pylist() == [1, 2, 3, 4]
    assert table["buffer"].to_pylist() == ["", "", "small", "small"]
    assert table["cpu"].to_pylist() == [0, 1, 0, 0]


def test_one_of_several_buffers(opened: Open) -> None:
    trace = opened(Trace(TWO, {"test": [PING_FORMAT]}), buffers=["small"])
    assert trace.table("ping").column_names == ["ts", "cpu", "tid", "comm", "value"]
    assert values(trace) == [3, 4]


def test_unknown_buffer_lists_those_there_are(opened: Open) -> None:
    with pytest.raises(UnknownEvent, match="no buffer 'smal'") as caught:
        opened(Trace(TWO, {"test": [PING_FORMAT]}), buffers=["smal"])
    assert "did you mean 'small'" in str(caught.value.hint)


def test_unknown_event_names_the_nearest(opened: Open) -> None:
    with pytest.raises(UnknownEvent, match="no event 'pong'") as caught:
        opened(pings()).table("pong")
    assert caught.value.hint == "did you mean 'ping'? there is: ping"


def test_event_by_its_full_name(opened: Open) -> None:
    trace = opened(pings(subbuffer(10, data(ping(1)))))
    assert trace.table("test:ping").equals(trace.table("ping"))


def test_events_of_one_name_need_their_system(opened: Open) -> None:
    other = format_text("ping", 301, [("u64 value", 8, 8, 0)])
    trace = opened(Trace([Instance({0: [subbuffer(10, data(ping(1)))]})], {"a": [PING_FORMAT], "b": [other]}))
    assert trace.event_names() == ["a:ping"]
    assert sorted(trace.formats()) == ["a:ping", "b:ping"]
    with pytest.raises(UnknownEvent, match="no event 'ping'"):
        trace.table("ping")


def test_second_format_of_an_id_is_left_out_and_noted(opened: Open) -> None:
    trace = opened(Trace([Instance({})], {"a": [PING_FORMAT], "b": [format_text("pong", 300, [])]}))
    assert list(trace.formats()) == ["ping"]
    assert trace.metadata.notes == ("a second format of b:pong or of id 300 is left out",)


def test_ftrace_events_are_events(opened: Open) -> None:
    trace = pings(subbuffer(10, data(ping(1))))
    trace.ftrace = [format_text("print", 5, [("unsigned long ip", 8, 8, 0), ("char buf[]", 16, 0, 0)])]
    assert opened(trace).formats()["print"].system == "ftrace"


def test_command_lines_may_hold_spaces_and_odd_lines_are_skipped(opened: Open) -> None:
    trace = pings(subbuffer(10, *(data(ping(i, tid)) for i, tid in enumerate((0, 8, 9, 10)))))
    trace.cmdlines = "8 two words\n9 d\u00e9j\u00e0\n\nodd\n99999999999 much\n-5 less\n0 none\n"
    read = opened(trace)
    assert read.metadata.cmdlines == {8: "two words", 9: "d\u00e9j\u00e0", 0: "none"}
    assert read.table("ping")["comm"].to_pylist() == ["<idle>", "two words", "d\u00e9j\u00e0", "<...>"]


def test_unknown_option_is_noted(opened: Open) -> None:
    trace = pings()
    trace.options = [(77, b"abc")]
    (note,) = opened(trace).metadata.notes
    assert note.startswith("unknown option 77 at byte ")
    assert note.endswith("skipped (3 bytes)")


@pytest.mark.parametrize(
    ("options", "times"),
    [
        ([(7, b"1000\0")], [1010, 1012]),
        ([(7, b"-0x5\0")], [5, 7]),
        ([(1, b"3\0")], [3010, 3012]),
        ([(7, b"1\0"), (1, b"1\0")], [1011, 1013]),
        ([(14, struct.pack("<IIQ", 3, 1, 0))], [15, 18]),
        ([(14, struct.pack("<IIQ", 0xFFFFFFFF, 32, 0))], [9, 11]),
        ([(14, struct.pack("<IIQ", 3, 1, 0)), (7, b"100\0")], [115, 118]),
    ],
)
def test_times_are_turned_into_nanoseconds(opened: Open, options: list[tuple[int, bytes]], times: list[int]) -> None:
    trace = pings(subbuffer(10, data(ping(1)), data(ping(2), delta=2)))
    trace.options = options
    assert opened(trace).table("ping")["ts"].to_pylist() == times


def test_ticks_of_many_bits_are_multiplied_exactly(opened: Open) -> None:
    ticks, multiplier, shift = (1 << 60) + 12345, 2863311531, 32
    trace = pings(subbuffer(ticks, data(ping(1))))
    trace.options = [(14, struct.pack("<IIQ", multiplier, shift, 0))]
    assert opened(trace).span() == (ticks * multiplier >> shift,) * 2


def test_time_offset_that_is_no_number_is_noted(opened: Open) -> None:
    trace = pings(subbuffer(10, data(ping(1))))
    trace.options = [(7, b"soon\0"), (7, b"999999999999999999999\0")]
    read = opened(trace)
    assert read.span() == (10, 10)
    assert ["not applied" in note for note in read.metadata.notes] == [True, True]


def test_event_data_are_not_unpacked_when_a_trace_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(pings(subbuffer(10, data(ping(1)))).write("v7-zstd"))
    unpacked: list[object] = []
    monkeypatch.setattr("tracetool_parsers.streams.unpack", lambda *_, **__: unpacked.append(1))
    assert open_trace(path).metadata.kernel == "6.1.0-test"
    assert unpacked == []


def test_unknown_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(MAGIC + b"8\0" + bytes(20))
    with pytest.raises(ParseError, match="unknown version '8'") as caught:
        open_trace(path)
    assert caught.value.offset == len(MAGIC)


def test_unknown_codec_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(pings().write("v7").replace(b"none\0", b"lzma\0", 1))
    with pytest.raises(ParseError, match="unknown codec 'lzma'") as caught:
        open_trace(path)
    assert caught.value.hint == "read are: none, zlib, zstd"


@pytest.mark.parametrize("version", VERSIONS)
def test_text_of_a_latency_tracer_is_found(version: str) -> None:
    lines = b"# tracer: irqsoff\n" + b"".join(b"line %d\n" % i for i in range(9000))
    content = memoryview(Trace([Instance({}, text=lines, clock="mono")], {"test": [PING_FORMAT]}).write(version))
    recording = read_recording(content, "trace.dat")
    (block,) = recording.text
    assert (block.name, block.clock) == ("", None if version == "v6" else "mono")
    assert recording.buffers == ()
    assert recording.damage == ()
    assert text_of(content, recording, block, "trace.dat") == lines


@pytest.mark.parametrize("version", VERSIONS)
def test_text_that_is_cut_off_is_read_as_far_as_it_is_whole(version: str) -> None:
    lines = b"".join(b"line %d\n" % i for i in range(9000))
    content = Trace([Instance({}, text=lines)], {"test": [PING_FORMAT]}).write(version)
    end = len(content) if version == "v6" else content.index(struct.pack("<HHIQ", 0, 0, 0xFFFFFFFF, 0)[:8], len(content) - 800)
    cut = memoryview(content)[: end - 100]
    recording = read_recording(cut, "trace.dat")
    (block,) = recording.text
    whole = text_of(cut, recording, block, "trace.dat")
    assert lines.startswith(whole)
    assert len(whole) >= 40960


SYMBOL_LINES = "ffffffff81000000 T _text\nffffffff81000100 t helper\t[module]\nodd\n0 A first with more\n0000000000000010 r __ksymtab\n"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("order", ["little", "big"])
def test_symbols_are_read_when_asked_for(version: str, order: ByteOrder) -> None:
    trace = Trace([Instance({})], kallsyms=SYMBOL_LINES, printk='0xffffffff82000000 : "hello %d\\n"\n0x10 : ""\n', order=order)
    content = memoryview(trace.write(version))
    recording = read_recording(content, "trace.dat")
    table = kallsyms(content, recording, "trace.dat")
    assert table.schema == SYMBOLS
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        (0xFFFFFFFF81000000, "T", "_text", None),
        (0xFFFFFFFF81000100, "t", "helper", "module"),
        (0x10, "r", "__ksymtab", None),
    ]
    formats = printk_formats(content, recording, "trace.dat")
    assert formats.schema == PRINTK
    assert [tuple(row.values()) for row in formats.to_pylist()] == [(0xFFFFFFFF82000000, r"hello %d\n"), (0x10, "")]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_without_symbols_has_none(version: str) -> None:
    content = memoryview(pings().write(version))
    recording = read_recording(content, "trace.dat")
    assert kallsyms(content, recording, "trace.dat").equals(SYMBOLS.empty_table())
    assert printk_formats(content, recording, "trace.dat").equals(PRINTK.empty_table())


def test_symbols_of_many_lines_are_all_read() -> None:
    lines = "".join(f"{0xFFFF000000000000 + number:016x} t symbol_{number}\n" for number in range(70_000))
    content = memoryview(Trace([Instance({})], kallsyms=lines).write("v7-zstd"))
    table = kallsyms(content, read_recording(content, "trace.dat"), "trace.dat")
    assert table["address"].to_pylist() == [0xFFFF000000000000 + number for number in range(70_000)]
    assert table["name"][69_999].as_py() == "symbol_69999"


@pytest.mark.parametrize("version", ["v7-zstd", "v7-zlib"])
def test_damaged_symbols_are_an_error_when_they_are_asked_for(version: str) -> None:
    content = Trace([Instance({0: [subbuffer(10, data(ping(1)))]})], {"test": [PING_FORMAT]}, kallsyms=SYMBOL_LINES * 9).write(version)
    packed = pack(version[3:], struct.pack("<I", len(SYMBOL_LINES * 9)) + SYMBOL_LINES.encode() * 9)
    damaged = memoryview(content.replace(packed, b"\xff" * len(packed)))
    recording = read_recording(damaged, "trace.dat")
    assert len(recording.buffers) == 1
    with pytest.raises(ParseError) as caught:
        kallsyms(damaged, recording, "trace.dat")
    assert caught.value.offset == content.index(packed) - 8
