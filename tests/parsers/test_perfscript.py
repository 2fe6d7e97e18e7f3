"""Texts of `perf script` are read as perf meant them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from parsers.texts import everything, perf, rows
from tracetool_parsers import RawTrace

needs_perf = pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed: nothing prints the texts")

ALL_RECORDS = ("--show-task-events", "--show-mmap-events", "--show-lost-events", "--show-namespace-events")

SAMPLE = re.compile(r"^ *(.*?) +(\d+)(?:/(\d+))? +(?:\[(\d+)\] +)?(\d+)\.(\d{6}|\d{9}): +(?:(\d+) +)?([\w:-]+):(?: (.*))?$")
RECORD = re.compile(r"^ *(.*?) +(\d+) +\[(\d+)\] +(\d+)\.(\d{9}): PERF_RECORD_(\w+)(.*)$")


def script(path: Path, *options: str) -> str:
    return subprocess.run(["perf", "script", *options, "-i", str(path)], check=True, capture_output=True).stdout.decode()


def compare_samples(trace: RawTrace, text: str) -> int:
    """Every sample of tracepoints with its numbers; the other lines are counted only."""
    tables = everything(trace)
    samples = [match for line in text.splitlines() if "PERF_RECORD_" not in line and (match := SAMPLE.match(line))]
    seen: dict[str, int] = {}
    values = {name: {column: table[column].to_pylist() for column in table.column_names} for name, table in tables.items()}
    for match in samples:
        comm, pid, tid, cpu, seconds, fraction, period, event, rest = match.groups()
        name = event.partition(":")[2] or event
        row = seen[name] = seen.get(name, -1) + 1
        mine = {column: values[name][column][row] for column in values[name]}
        assert mine["ts"] == int(seconds) * 10**9 + int(fraction.ljust(9, "0"))
        assert mine["cpu"] == (-1 if cpu is None else int(cpu))
        assert mine["tid"] == int(tid or pid)
        assert mine["comm"] == comm
        assert mine.get("tgid") == (int(pid) if tid else None)
        assert mine.get("sample_period", mine.get("period")) == (int(period) if period else None)
        for key, value in re.findall(r"(\w+)=(\S+)", rest or ""):
            column = {"comm": "parent_comm", "pid": "parent_pid"}.get(key, key) if name == "sched_process_fork" else key
            if re.fullmatch(r"-?\d+|0x[0-9a-f]+", value) and "comm" not in key:
                assert mine[column] == int(value, 16 if key == "clone_flags" or "x" in value else 10), (name, key)
    assert sum(trace.counts().get(name, 0) for name in seen) == len(samples)
    return len(samples)


@needs_perf
@pytest.mark.parametrize("options", [("--ns",), (), ("-F", "comm,pid,tid,time,event,trace"), ("--ns", "-F", "+period", *ALL_RECORDS)])
def test_samples_are_those_that_perf_prints(traces: Path, options: tuple[str, ...]) -> None:
    text = script(traces / "formats" / "mail.perf.data", *options)
    trace = perf(text)
    assert compare_samples(trace, text) > 500
    assert trace.losses.num_rows == 0
    assert any("microseconds" in note for note in trace.metadata.notes) == ("--ns" not in options)


def test_stored_text_of_perf_script(traces: Path) -> None:
    text = (traces / "formats" / "mail.perf.script.txt").read_text()
    trace = perf(text)
    assert compare_samples(trace, text) > 500
    compare_records(trace, text)
    assert trace.timeline().num_rows == len(text.splitlines())


def compare_records(trace: RawTrace, text: str) -> None:
    """The records, by expressions of the test's own."""
    names = {name: format_.name for name, format_ in trace.formats().items() if format_.system == "perf"}
    listed = {short: rows(trace, name) for name, short in names.items()}
    seen: dict[str, int] = {}
    for match in filter(None, map(RECORD.match, text.splitlines())):
        kind, rest = match[6].lower(), match[7]
        row = seen[kind] = seen.get(kind, -1) + 1
        mine = listed[kind][row]
        assert mine["ts"] == int(match[4]) * 10**9 + int(match[5])
        numbers = [int(number, 0) for number in re.findall(r"-?\b(?:0x[0-9a-f]+|[1-9]\d*|0)\b", rest)]
        if kind in ("fork", "exit"):
            assert [mine[key] for key in ("pid", "tid_field", "ppid", "ptid")] == numbers
        elif kind == "comm":
            name, _, ids = rest.partition(": ")[2].rpartition(":")
            assert (mine["comm_field"], mine["exec"], f"{mine['pid']}/{mine['tid_field']}") == (name, int(" exec:" in rest), ids)
        else:
            assert [mine[key] for key in ("pid", "tid_field", "addr", "len", "pgoff")] == numbers[:5]
            assert rest.endswith(f" {mine['filename']}")
            if kind == "mmap2":
                major, minor, inode, generation = re.findall(r" ([0-9a-f]+):([0-9a-f]+) (\d+) (\d+)\]", rest)[0]
                assert (mine["maj"], mine["min"]) == (int(major, 16), int(minor, 16))
                assert (mine["ino"], mine["ino_generation"]) == (int(inode), int(generation))
                assert f"]: {mine['prot']} /" in rest or f"]: {mine['prot']} [" in rest or f"]: {mine['prot']} anon" in rest
    assert {kind: row + 1 for kind, row in seen.items()} == {short: len(found) for short, found in listed.items()}


@needs_perf
def test_call_chains_and_addresses(traces: Path) -> None:
    path = traces / "formats" / "snapshot-sw.perf.data"
    text = script(path, "--ns", "-F", "+addr")
    trace = perf(text)
    table = trace.table("page-faults").to_pydict()
    chains: list[list[int]] = []
    addresses = []
    for line in text.splitlines():
        if line.startswith("\t"):
            chains[-1].append(int(line.split()[0], 16))
        elif line:
            chains.append([])
            addresses.append(int(line.split("page-faults:")[1].split()[0], 16))
    assert len(addresses) > 100
    assert table["callchain"] == chains
    assert table["addr"] == addresses
    assert set(table["period"]) == {1}
    assert trace.table("page-faults").schema.field("callchain").type == pa.list_(pa.uint64())
    assert trace.losses.num_rows == 0


@needs_perf
def test_a_sample_without_a_chain_prints_where_it_was(traces: Path) -> None:
    text = script(traces / "formats" / "snapshot-sw.perf.data", "--ns", "-G")
    table = perf(text).table("page-faults").to_pydict()
    assert table["ip"] == [int(line.split("page-faults:")[1].split()[0], 16) for line in text.splitlines()]


LINES = """\
            bash  1000 [001]   100.000001: sched:sched_switch: prev_comm=x prev_pid=3
  a 1 [0] 1.0: b    1001/1002    [003]   100.000002:         17 sched:sched_switch: prev_comm=y: z prev_pid=4
            bash  1000 [001]   100.000003: PERF_RECORD_LOST lost 21
            bash  1000 [001]   100.000004: PERF_RECORD_NAMESPACES 5/5 - nr_namespaces: 7 [...]
           :-1    -1 [002]   100.000005: cycles:u:  ffffffff81000000 _stext+0x0 ([kernel.kallsyms])
            bash  1000   100.000006: PERF_RECORD_COMM exec: a:b/c:7/8
"""


def test_other_lines() -> None:
    trace = perf(LINES)
    assert trace.counts() == {"sched_switch": 2, "lost": 1, "namespaces": 1, "cycles:u": 1, "comm": 1}
    first, second = rows(trace, "sched_switch")
    assert (first["comm"], first["cpu"], first["tid"], first["tgid"], first["sample_period"]) == ("bash", 1, 1000, None, None)
    assert (second["comm"], second["cpu"], second["tid"], second["tgid"]) == ("a 1 [0] 1.0: b", 3, 1002, 1001)
    assert (second["sample_period"], second["prev_comm"], second["prev_pid"]) == (17, "y: z", 4)
    assert rows(trace, "lost")[0]["lost"] == 21
    assert rows(trace, "cycles:u")[0]["ip"] == 0xFFFFFFFF81000000
    assert rows(trace, "cycles:u")[0]["tid"] == -1
    named = rows(trace, "comm")[0]
    assert (named["comm_field"], named["exec"], named["pid"], named["tid_field"], named["cpu"]) == ("a:b/c", 1, 7, 8, -1)
    assert [tuple(row.values()) for row in trace.losses.to_pylist()] == [
        (1, 100_000_001_000, 100_000_003_000, 21, "lost line", LINES.index("            bash  1000 [001]   100.000003"))
    ]
