"""Every event of real recordings is what `trace-cmd report -t -R` says it is."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from reports import Line, fields_of, report

from tracetool_parsers import RawTrace, open_trace

ROOT = Path(__file__).parents[2]
FIXTURES = sorted((ROOT / "fixtures").glob("*.dat"))
TRACES = Path(os.environ.get("TRACETOOL_TRACES") or ROOT.parent / "shared" / "traces")
RECORDINGS = sorted(TRACES.glob("*/*.dat"))
#: One recording a kernel by default, and those of other file versions: the rest is for `-m exhaustive`.
USUAL = [path for path in RECORDINGS if path.stem in ("thp", "snapshot-v6", "snapshot-v7-none")]

pytestmark = pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed: nothing to compare with")


def name(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


@pytest.mark.parametrize("path", FIXTURES, ids=name)
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
    assert np.array_equal(ours, hexadecimal) or (None not in decimal and np.array_equal(ours, decimal)), where


def _read(text: str, base: int, bits: int) -> int | None:
    try:
        return int(text, base) % (1 << bits)
    except ValueError:
        return None
