"""Every event of real recordings is what `trace-cmd report -t -R` says it is."""

from __future__ import annotations

import bisect
import shutil
import struct
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from conftest import fixture_traces, traces_folder
from parsers.reports import Line, fields_of, report
from parsers.writer import (
    PING,
    PING_FORMAT,
    Instance,
    Trace,
    common,
    data,
    format_text,
    long_data,
    ping,
    rest_is_empty,
    subbuffer,
    taken_back,
    time_extend,
    time_stamp,
)
from tracetool_parsers import RawTrace, open_trace
from tracetool_parsers.cursor import ByteOrder
from tracetool_parsers.symbols import kallsyms
from tracetool_parsers.tracedat import read_recording

FOLDER = traces_folder()
RECORDINGS = sorted(FOLDER.glob("*/*.dat")) if FOLDER else []
#: One recording a kernel by default, and those of other file versions: the rest is for `-m exhaustive`.
USUAL = [path for path in RECORDINGS if path.stem in ("thp", "snapshot-v6", "snapshot-v7-none")]

pytestmark = pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed: nothing to compare with")


def name(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


@pytest.mark.parametrize("path", fixture_traces(), ids=name)
def test_fixture_equals_the_report_of_trace_cmd(path: Path) -> None:
    compare(path)


@pytest.mark.skipif(not USUAL, reason="no recordings beside the project: set TRACETOOL_TRACES to their folder")
@pytest.mark.parametrize("path", USUAL, ids=name)
def test_recording_equals_the_report_of_trace_cmd(path: Path) -> None:
    compare(path)


@pytest.mark.exhaustive
@pytest.mark.skipif(not RECORDINGS, reason="no recordings beside the project: set TRACETOOL_TRACES to their folder")
@pytest.mark.parametrize("path", RECORDINGS, ids=name)
def test_every_recording_equals_the_report_of_trace_cmd(path: Path) -> None:
    compare(path)


def test_one_recording_in_three_forms_gives_equal_tables(traces: Path) -> None:
    packed, *others = (
        open_trace(traces / name) for name in ("6.1/snapshot.dat", "formats/snapshot-v6.dat", "formats/snapshot-v7-none.dat")
    )
    fields = {name: [field.column for field in packed.formats()[name].fields] for name in packed.event_names()}
    expected = packed.tables(fields)
    assert len(expected) > 20
    for other in others:
        tables = other.tables(fields)
        assert [name for name in fields if not tables[name].equals(expected[name])] == []
        assert other.counts() == packed.counts()
        assert other.losses.equals(packed.losses)
        assert other.timeline().equals(packed.timeline())


@pytest.mark.parametrize("version", ["v6", "v7", "v7-zstd"])
def test_all_kinds_of_records_several_cpus_and_buffers_are_as_trace_cmd_reads_them(tmp_path: Path, version: str) -> None:
    long_payload = common(PING, 9) + struct.pack("<Q", 77) + bytes(200)
    kinds = (data(ping(1)), taken_back(24, 5), data(ping(2), 7), long_data(long_payload, 1), time_extend(1 << 30), data(ping(3)))
    cpus = {
        0: [
            subbuffer(1000, *kinds),
            subbuffer(1 << 32, data(ping(4)), time_stamp((1 << 32) - 9), data(ping(5), 2), rest_is_empty(), missed=3),
        ],
        1: [subbuffer(1000, data(ping(6, 0)), data(ping(7, 8), 12)), subbuffer(400, data(ping(8)), missed=-1)],
        4: [subbuffer(1012, data(ping(9)))],
    }
    trace = Trace([Instance(cpus), Instance({0: [subbuffer(1000, data(ping(10)), data(ping(11), 12))]}, name="inst")])
    trace.systems, trace.cmdlines = {"test": [PING_FORMAT]}, "7 some task\n8 a-b - c\n"
    path = tmp_path / "trace.dat"
    path.write_bytes(trace.write(version))
    lines = compare(path)
    assert len(lines) == 12
    # Both buffers' CPUs have a loss; trace-cmd prints an event that it does not know where padding ends a sub-buffer.
    assert [line.lost_before for line in lines if line.lost_before is not None] == [-1, 3]
    assert [line.more for line in lines if line.more not in ([], [""])] != []


MANY = format_text(
    "many",
    400,
    [
        ("u32 numbers[3]", 8, 12, 0),
        ("u8 raw[4]", 20, 4, 0),
        ("char name[8]", 24, 8, 0),
        ("__data_loc u16[] shorts", 32, 4, 0),
        ("__data_loc char[] text", 36, 4, 0),
        ("s8 small", 40, 1, 1),
        ("bool yes", 41, 1, 0),
        ("short negative", 42, 2, 1),
        ("__rel_loc char[] relative", 44, 4, 0),
        ("unsigned long longs[2]", 48, 16, 0),
        ("s64 back", 64, 8, 1),
        ("void * pointer", 72, 8, 0),
        ("__data_loc s32[] none", 80, 4, 0),
        ("unsigned char letters[3]", 84, 3, 0),
        ("char rest[]", 102, 0, 1),
    ],
)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("version", ["v6", "v7-zstd"])
def test_all_kinds_of_fields_are_as_trace_cmd_reads_them(tmp_path: Path, version: str, order: ByteOrder) -> None:
    mark = "<" if order == "little" else ">"

    def payload(number: int) -> bytes:
        head = struct.pack(mark + "3I4s8s", number, 1 << 31, 0xFFFFFFFF, b"\x01\x02\xff\x00", b"abc de" + bytes([0x61 + number, 0]))
        head += struct.pack(mark + "IIbBhI", 88 | 4 << 16, 92 | 6 << 16, -number, 1, -300 - number, 98 - 48 | 4 << 16)
        head += struct.pack(mark + "QQqQI", 1 << 63, number, -7 - number, 0xFFFF888000000000 + number, 88) + b"xyz\0"
        body = struct.pack(mark + "HH", number, 65535) + b"hello\0" + b"a b\0" + f"tail {number}\n\0".encode()
        return common(400, 7, order=order) + head + body

    records = [long_data(payload(number), 1, order=order) for number in range(20)]
    trace = Trace([Instance({0: [subbuffer(0, *records, order=order)]})], {"test": [MANY]}, order=order)
    path = tmp_path / "trace.dat"
    path.write_bytes(trace.write(version))
    assert len(compare(path)) == 20


def compare(path: Path) -> list[Line]:
    """Order, times, CPUs, threads and names of all events, losses, then the names of threads and all fields event by event."""
    trace, lines = open_trace(path), report(path)
    timeline = trace.timeline()
    assert len(lines) > 0
    assert timeline["ts"].to_pylist() == [line.ts for line in lines]
    assert timeline["cpu"].to_pylist() == [line.cpu for line in lines]
    assert timeline["tid"].to_pylist() == [line.tid for line in lines]
    assert timeline["event"].to_pylist() == [line.event for line in lines]
    compare_losses(trace, lines)
    by_event: dict[str, list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        by_event[line.event].append(place)
    assert trace.counts() == {event: len(places) for event, places in by_event.items()}
    placed = trace.tables(dict.fromkeys(by_event, ()), positions=True)
    told = Told.by(path)
    for event, places in by_event.items():
        assert placed[event]["position"].to_pylist() == places
        compare_event(trace, event, [lines[place] for place in places], told)
    return lines


def compare_losses(trace: RawTrace, lines: list[Line]) -> None:
    """Each loss that trace-cmd prints is one before that event, with that number; it prints those flagged in a sub-buffer."""
    printed = [(line.cpu, line.ts, None if line.lost_before == -1 else line.lost_before) for line in lines if line.lost_before is not None]
    flagged = [(row["cpu"], row["to_ns"], row["events"]) for row in trace.losses.to_pylist() if row["source"] == "sub-buffer flag"]
    assert Counter(flagged) == Counter(printed)


@dataclass
class Told:
    """What of a file decides how trace-cmd prints it: byte order, and the kernel's symbols, which it prints in place of addresses."""

    order: ByteOrder
    addresses: list[int]
    names: list[str]

    @classmethod
    def by(cls, path: Path) -> Told:
        content = memoryview(path.read_bytes())
        recording = read_recording(content, str(path))
        table = kallsyms(content, recording, str(path)).sort_by("address")
        return cls(recording.order, table["address"].to_pylist(), table["name"].to_pylist())

    def around(self, address: int) -> set[str]:
        """The names of the symbol that an address lies in; several may start at one address."""
        last = bisect.bisect_right(self.addresses, address)
        first = bisect.bisect_left(self.addresses, self.addresses[last - 1]) if last else 0
        return set(self.names[first:last])


def compare_event(trace: RawTrace, event: str, lines: list[Line], told: Told) -> None:
    fields = trace.formats()[event].fields
    table = trace.table(event, [field.column for field in fields])
    assert table["ts"].to_pylist() == [line.ts for line in lines]
    assert table["cpu"].to_pylist() == [line.cpu for line in lines]
    assert table["tid"].to_pylist() == [line.tid for line in lines]
    assert table["comm"].to_pylist() == [line.comm for line in lines]
    printed = [fields_of(line, [field.name for field in fields]) for line in lines]
    for field in fields:
        compare_column(f"{event}.{field.name}", table[field.column], [row[field.name] for row in printed], told)


def compare_column(where: str, column: pa.ChunkedArray, printed: list[str], told: Told) -> None:
    ours = column.to_pylist()
    if pa.types.is_string(column.type):
        # trace-cmd ends the line at the newline that trace_marker writes.
        assert [text.removesuffix("\n") for text in ours] == printed, where
    elif pa.types.is_list(column.type):
        compare_arrays(where, ours, column.type.value_type.bit_width // 8, printed, told.order)
    else:
        compare_numbers(where, ours, column.type.bit_width, printed, told)


def compare_arrays(where: str, ours: list[list[int]], size: int, printed: list[str], order: ByteOrder) -> None:
    """trace-cmd prints arrays byte by byte as they lie in the file, those of printable bytes as text."""
    for values, text in zip(ours, printed, strict=True):
        block = b"".join((value % (1 << 8 * size)).to_bytes(size, order) for value in values)
        assert text in (f"ARRAY[{', '.join(f'{byte:02x}' for byte in block)}]", block.split(b"\0")[0].decode("latin-1")), where


def compare_numbers(where: str, ours: list[int], bits: int, printed: list[str], told: Told) -> None:
    """A column is in one base throughout, which trace-cmd takes from the event's print format; 0x marks some of the hexadecimal ones."""
    unsigned = [value % (1 << bits) for value in ours]
    read = [[_read(text, base, bits) for text in printed] for base in (10, 16)]
    # A kernel address that has a symbol is printed as it.
    named = {place for place, text in enumerate(printed) if read[1][place] is None or text in told.around(unsigned[place])}
    assert [printed[place] for place in named if printed[place] not in told.around(unsigned[place])] == [], where
    plain = [place for place in range(len(ours)) if place not in named]
    assert [unsigned[place] for place in plain] in [[column[place] for place in plain] for column in read], where


def _read(text: str, base: int, bits: int) -> int | None:
    try:
        return int(text, base) % (1 << bits)
    except ValueError:
        return None
