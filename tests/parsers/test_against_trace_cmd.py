"""Every event of real recordings is what `trace-cmd report -t -R` says it is."""

from __future__ import annotations

import shutil
import struct
from collections import defaultdict
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
    long_data,
    ping,
    rest_is_empty,
    subbuffer,
    taken_back,
    time_extend,
    time_stamp,
)
from tracetool_parsers import RawTrace, open_trace

FOLDER = traces_folder()
RECORDINGS = sorted(FOLDER.glob("*/*.dat")) if FOLDER else []
#: One recording a kernel by default, and those of other file versions: the rest is for `-m exhaustive`.
USUAL = [path for path in RECORDINGS if path.stem in ("thp", "snapshot-v6", "snapshot-v7-none")]

pytestmark = pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed: nothing to compare with")


def name(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


@pytest.mark.parametrize("path", fixture_traces(), ids=name)
def test_fixture_equals_the_report_of_trace_cmd(path: Path) -> None:
    compare(open_trace(path), report(path))


@pytest.mark.skipif(not USUAL, reason="no recordings beside the project: set TRACETOOL_TRACES to their folder")
@pytest.mark.parametrize("path", USUAL, ids=name)
def test_recording_equals_the_report_of_trace_cmd(path: Path) -> None:
    compare(open_trace(path), report(path))


@pytest.mark.exhaustive
@pytest.mark.skipif(not RECORDINGS, reason="no recordings beside the project: set TRACETOOL_TRACES to their folder")
@pytest.mark.parametrize("path", RECORDINGS, ids=name)
def test_every_recording_equals_the_report_of_trace_cmd(path: Path) -> None:
    compare(open_trace(path), report(path))


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
    lines = report(path)
    assert len(lines) == 12
    assert [line.more for line in lines if line.more != []] != []
    compare(open_trace(path), lines)


def compare(trace: RawTrace, lines: list[Line]) -> None:
    """Order, times, CPUs, threads and names of all events, then the names of threads and all fields event by event."""
    timeline = trace.timeline()
    assert len(lines) > 0
    assert timeline["ts"].to_pylist() == [line.ts for line in lines]
    assert timeline["cpu"].to_pylist() == [line.cpu for line in lines]
    assert timeline["tid"].to_pylist() == [line.tid for line in lines]
    assert timeline["event"].to_pylist() == [line.event for line in lines]
    by_event: dict[str, list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        by_event[line.event].append(place)
    assert trace.counts() == {event: len(places) for event, places in by_event.items()}
    for event, places in by_event.items():
        assert trace.positions(event).tolist() == places
        compare_event(trace, event, [lines[place] for place in places])


def compare_event(trace: RawTrace, event: str, lines: list[Line]) -> None:
    fields = trace.formats()[event].fields
    table = trace.table(event, [field.column for field in fields])
    assert table["ts"].to_pylist() == [line.ts for line in lines]
    assert table["cpu"].to_pylist() == [line.cpu for line in lines]
    assert table["tid"].to_pylist() == [line.tid for line in lines]
    assert table["comm"].to_pylist() == [line.comm for line in lines]
    printed = [fields_of(line, [field.name for field in fields]) for line in lines]
    for field in fields:
        compare_column(f"{event}.{field.name}", table[field.column], [row[field.name] for row in printed])


def compare_column(where: str, column: pa.ChunkedArray, printed: list[str]) -> None:
    if pa.types.is_string(column.type):
        # trace-cmd ends the line at the newline that trace_marker writes.
        assert [text.removesuffix("\n") for text in column.to_pylist()] == printed, where
        return
    bits = column.type.bit_width
    ours = [value % (1 << bits) for value in column.to_pylist()]
    decimal, hexadecimal = ([_read(text, base, bits) for text in printed] for base in (10, 16))
    # Kernel addresses that have a symbol are printed as it: such a column cannot be compared (only `ip` of three events is so).
    if None in hexadecimal:
        assert where.endswith(".ip"), f"{where}: {printed[hexadecimal.index(None)]!r} is no number"
        return
    # A column is in one base throughout, which trace-cmd takes from the event's print format; 0x marks some of the hexadecimal ones.
    assert ours in (decimal, hexadecimal), where


def _read(text: str, base: int, bits: int) -> int | None:
    try:
        return int(text, base) % (1 << bits)
    except ValueError:
        return None
