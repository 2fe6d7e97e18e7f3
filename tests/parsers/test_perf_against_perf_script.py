"""Every event of real perf.data files is what `perf script --ns` says it is."""

from __future__ import annotations

import mmap
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest

from conftest import FIXTURES, traces_folder
from parsers.perfwriter import Perf
from tracetool_parsers import RawTrace
from tracetool_parsers.perfdata import open_perf_data

FOLDER: Final = traces_folder()
FIXED: Final = sorted(FIXTURES.glob("*.perf.data"))
RECORDINGS: Final = sorted((FOLDER / "formats").glob("*.perf.data")) if FOLDER else []

_SIDE: Final = ("--show-task-events", "--show-mmap-events", "--show-lost-events")
_LINE: Final = re.compile(r"^ *(.*?) +(-?\d+)/(-?\d+) +\[(-?\d+)\] +(\d+)\.(\d{9}): +(?:\d+ +)?(.*)$")
_PAIR: Final = re.compile(r"(\w+)=(.*?)(?= \w+=|$)")
_CODE: Final = re.compile(r"^\((\w+)(?: <- (\w+))?\) ")
_NUMBER: Final = r"(0x[0-9a-f]+|0)"
_RECORDS: Final = (
    ("fork", r"PERF_RECORD_FORK\((-?\d+):(-?\d+)\):\((-?\d+):(-?\d+)\)", ("pid", "tid_field", "ppid", "ptid")),
    ("exit", r"PERF_RECORD_EXIT\((-?\d+):(-?\d+)\):\((-?\d+):(-?\d+)\)", ("pid", "tid_field", "ppid", "ptid")),
    ("comm", r"PERF_RECORD_COMM( exec|): (.*):(-?\d+)/(-?\d+)", ("exec", "comm_field", "pid", "tid_field")),
    (
        "mmap",
        rf"PERF_RECORD_MMAP (-?\d+)/(-?\d+): \[{_NUMBER}\({_NUMBER}\) @ {_NUMBER}\]: (\w) (.*)",
        ("pid", "tid_field", "addr", "len", "pgoff", "data", "filename"),
    ),
    (
        "mmap2",
        rf"PERF_RECORD_MMAP2 (-?\d+)/(-?\d+): \[{_NUMBER}\({_NUMBER}\) @ {_NUMBER} (\w+):(\w+) (\d+) (\d+)\]: ([-rwxsp]+) (.*)",
        ("pid", "tid_field", "addr", "len", "pgoff", "maj", "min", "ino", "ino_generation", "prot", "filename"),
    ),
    ("lost", r"PERF_RECORD_LOST lost (\d+)", ("lost",)),
)

pytestmark = pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed: nothing to compare with")


@dataclass(frozen=True)
class Line:
    """A line of `perf script`."""

    comm: str
    pid: int
    tid: int
    cpu: int
    ts: int
    event: str
    args: str


def open_perf(path: Path, *, strict: bool = False) -> RawTrace:
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return RawTrace(open_perf_data(data, str(path), strict=strict))


def perf_script(path: Path, *more: str) -> list[str]:
    # Without a home of its own perf would look for symbols; without a pager and with nothing to wait for on standard input.
    done = subprocess.run(
        ["perf", "script", "--ns", "-i", path, *more], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True
    )
    return done.stdout.splitlines()


def lines_of(path: Path, fields: str) -> list[Line]:
    lines = []
    for text in perf_script(path, "-F", f"comm,pid,tid,cpu,time,event,{fields}", *_SIDE):
        match = _LINE.match(text)
        assert match is not None, text
        comm, pid, tid, cpu, seconds, nanoseconds, rest = match.groups()
        event, args = next(((name, rest) for name, pattern, _ in _RECORDS if re.fullmatch(pattern, rest)), ("", ""))
        if not event:
            event, _, args = rest.partition(": ")
            event = event.rstrip(": ").rpartition(":")[2]
        lines.append(Line(comm, int(pid), int(tid), int(cpu), int(seconds) * 10**9 + int(nanoseconds), event, args.strip()))
    return lines


def name(path: Path) -> str:
    return path.name.removesuffix(".perf.data")


def is_software(path: Path) -> bool:
    return "-sw" in path.name


@pytest.mark.parametrize("path", FIXED, ids=name)
def test_fixture_equals_perf_script(path: Path) -> None:
    compare(path)


@pytest.mark.skipif(not RECORDINGS, reason="no recordings beside the project: set TRACETOOL_TRACES to their folder")
@pytest.mark.parametrize("path", RECORDINGS, ids=name)
def test_recording_equals_perf_script(path: Path) -> None:
    compare(path)


@pytest.mark.parametrize("path", [path for path in FIXED if is_software(path)], ids=name)
def test_call_chains_are_those_that_perf_dumps(path: Path) -> None:
    chains: list[list[int]] = []
    left = 0
    for text in perf_script(path, "-D"):
        if match := re.search(r"FP chain: nr:(\d+)", text):
            chains.append([])
            left = int(match[1])
        elif left and (match := re.match(r"\.\.\.\.\. +\d+: ([0-9a-f]{16})", text)):
            chains[-1].append(int(match[1], 16))
            left -= 1
    table = open_perf(path).table("page-faults")
    assert len(chains) > 100
    assert table["callchain"].to_pylist() == chains


def test_namespaces_control_groups_and_switches_are_those_that_perf_shows(tmp_path: Path) -> None:
    perf, path = Perf(), tmp_path / "perf.data"
    cgroup, namespaces = perf.pack("Q", 77) + b"/system.slice\0\0\0", perf.pack("IIQQQQQ", 5, 6, 2, 4, 21, 5, 22)
    path.write_bytes(
        perf.file(
            perf.comm(5, 6, "one", 1),
            perf.other(19, cgroup, 2, cpu=1),
            perf.other(16, namespaces, 3, pid=5, tid=6),
            perf.other(14, b"", 4, misc=0x2000, pid=5, tid=6, cpu=1),
            perf.other(15, perf.pack("II", 8, 9), 5, misc=0x6000, pid=5, tid=6, cpu=1),
        )
    )
    shown = ("--show-cgroup-events", "--show-namespace-events", "--show-switch-events")
    lines = perf_script(path, "-F", "pid,tid,time,cpu", *shown)
    text = [line.split("PERF_RECORD_", 1) for line in lines if "PERF_RECORD_" in line]
    said = {about.split()[0]: (head.split()[-1], " ".join(about.split()[1:])) for head, about in text}
    (links,) = [re.findall(r": (\d+)/(0x[0-9a-f]+)", line) for line in lines if "PERF_RECORD_" not in line]
    trace = open_perf(path, strict=True)
    (group,), (space,) = trace.table("cgroup").to_pylist(), trace.table("namespaces").to_pylist()
    (switch,), (wide,) = trace.table("switch").to_pylist(), trace.table("switch_cpu_wide").to_pylist()
    assert said["CGROUP"] == (at(group), f"cgroup: {group['id']} {group['path']}")
    assert said["NAMESPACES"] == (at(space), f"{space['pid']}/{space['tid_field']} - nr_namespaces: {space['count']}")
    assert [number for link in links for number in (int(link[0]), int(link[1], 16))] == space["dev_ino"]
    assert said["SWITCH"] == (at(switch), "OUT")
    assert said["SWITCH_CPU_WIDE"] == (at(wide), f"OUT preempt next pid/tid: {wide['other_pid']}/{wide['other_tid']}")
    assert (switch["out"], switch["preempt"], wide["out"], wide["preempt"]) == (True, False, True, True)


def at(row: Mapping[str, Any]) -> str:
    """The time of a row as perf prints it."""
    return f"{row['ts'] // 10**9}.{row['ts'] % 10**9:09d}:"


def compare(path: Path) -> None:
    """Order, times, CPUs, threads and events of all records, then the names of threads and all fields event by event."""
    trace = open_perf(path, strict=True)
    lines = lines_of(path, "addr" if is_software(path) else "trace")
    timeline = trace.timeline()
    assert len(lines) > 500
    assert timeline["event"].to_pylist() == [line.event for line in lines]
    assert timeline["ts"].to_pylist() == [line.ts for line in lines]
    assert timeline["cpu"].to_pylist() == [line.cpu for line in lines]
    assert timeline["tid"].to_pylist() == [line.tid for line in lines]
    by_event: dict[str, list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        by_event[line.event].append(place)
    assert trace.counts() == {event: len(places) for event, places in by_event.items()}
    tables = trace.tables(list(by_event), positions=True)
    for event, places in by_event.items():
        assert tables[event]["position"].to_pylist() == places
        compare_event(trace, event, tables[event], [lines[place] for place in places])


def compare_event(trace: RawTrace, event: str, table: pa.Table, lines: Sequence[Line]) -> None:
    assert table["ts"].to_pylist() == [line.ts for line in lines]
    assert table["cpu"].to_pylist() == [line.cpu for line in lines]
    assert table["tid"].to_pylist() == [line.tid for line in lines]
    assert table["tgid"].to_pylist() == [line.pid for line in lines]
    assert table["comm"].to_pylist() == [line.comm for line in lines]
    known = {each: (pattern, columns) for each, pattern, columns in _RECORDS}
    if event in known:
        compare_record(event, table, *known[event], [line.args for line in lines])
    elif event == "page-faults":
        assert table["addr"].to_pylist() == [int(line.args, 16) for line in lines]
    else:
        compare_fields(trace, event, lines)


def compare_record(event: str, table: pa.Table, pattern: str, columns: Sequence[str], printed: Sequence[str]) -> None:
    matches = [re.fullmatch(pattern, text) for text in printed]
    rows = [match.groups() for match in matches if match is not None]
    assert len(rows) == table.num_rows
    for column, texts in zip(columns, zip(*rows, strict=True), strict=True):
        assert list(map(_meaning(column), texts)) == table[column].to_pylist(), f"{event}.{column}"


def _meaning(column: str) -> Callable[[str], object]:
    if column in ("exec", "data"):
        return lambda text: text in (" exec", "r")
    if column in ("maj", "min"):
        return lambda text: int(text, 16)
    if column == "prot":
        return lambda text: sum(bit for letter, bit in zip("rwx", (1, 2, 4), strict=True) if letter in text)
    return str if column in ("comm_field", "filename") else lambda text: int(text, 0)


def compare_fields(trace: RawTrace, event: str, lines: Sequence[Line]) -> None:
    fields = trace.formats()[event].fields
    own = [field.column for field in fields if not field.name.startswith(("__probe", "sample_"))]
    probes = [field.column for field in fields if field.name.startswith("__probe")]
    table = trace.table(event, [*own, *probes])
    for column, printed in zip(own, zip(*([value for _, value in _PAIR.findall(line.args)] for line in lines), strict=True), strict=True):
        compare_column(f"{event}.{column}", table[column], printed)
    codes = [match.groups() for match in map(_CODE.match, (line.args for line in lines)) if match is not None]
    assert len(codes) == (len(lines) if probes else 0)
    for place, column in enumerate(probes):
        assert table[column].to_pylist() == [int(code[place] or "", 16) for code in codes], f"{event}.{column}"


def compare_column(where: str, column: pa.ChunkedArray, printed: Sequence[str]) -> None:
    if pa.types.is_string(column.type):
        assert column.to_pylist() == list(printed), where
        return
    ours = [value % (1 << column.type.bit_width) for value in column.to_pylist()]
    # A column is in one base throughout, which the event's print format says.
    assert ours in ([_read(text, base, column.type.bit_width) for text in printed] for base in (10, 16)), where


def _read(text: str, base: int, bits: int) -> int | None:
    try:
        return int(text, 0 if text.startswith("0x") else base) % (1 << bits)
    except ValueError:
        return None
