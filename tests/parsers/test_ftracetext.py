"""Texts of tracefs and trace-cmd are read as what printed them meant them."""

from __future__ import annotations

import re
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from conftest import fixture_path, fixture_traces
from parsers.texts import everything, ftrace, printed, rows
from parsers.writer import PING_FORMAT, Instance, Trace, common, data, format_text, long_data, ping, subbuffer
from tracetool_parsers import ParseError, RawTrace, open_trace

TRACEFS = re.compile(r"^ *(.*)-(\d+) +\( *(\d+)\) \[(\d+)\] \S{5} +(\d+)\.(\d{6}): (\w+): (.*)$")

needs_trace_cmd = pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed: nothing prints the texts")

#: What trace-cmd computes or names, and no record holds.
COMPUTED = {("mm_page_alloc", "page"), ("mm_page_free", "page"), ("mm_page_free_batched", "page"), ("mm_page_free_batched", "order")}


def compare_with_recording(text: RawTrace, recording: RawTrace, unit: int, *, raw: bool) -> None:
    """Time (in `unit` ns), CPU, thread and event of each row, and every field that the text prints as the record has it."""
    ours, theirs = everything(text), everything(recording)
    assert ours["timeline"]["ts"].to_pylist() == [(ts + unit // 2) // unit * unit for ts in theirs["timeline"]["ts"].to_pylist()]
    for column in ("cpu", "tid", "event"):
        assert ours["timeline"][column].to_pylist() == theirs["timeline"][column].to_pylist(), column
    assert text.counts() == recording.counts()
    compared = 0
    for event in text.event_names():
        assert ours[event]["comm"].to_pylist() == [name[: text_width(text)] for name in theirs[event]["comm"].to_pylist()]
        fields = {field.name: field.column for field in recording.formats()[event].fields}
        own = {field.name: field.column for field in text.formats()[event].fields}
        if raw:
            assert own.keys() >= fields.keys() - {"ip"}, event
        for name in own.keys() - {name for of, name in COMPUTED if of == event and name not in fields}:
            compared += compare_values(f"{event}.{name}", ours[event][own[name]], theirs[event][fields[name]], raw=raw)
    assert compared > 60


def text_width(text: RawTrace) -> int:
    return 8 if any("8 characters" in note for note in text.metadata.notes) else 16


def compare_values(where: str, ours: pa.ChunkedArray, theirs: pa.ChunkedArray, *, raw: bool) -> int:
    mine, real = ours.to_pylist(), theirs.to_pylist()
    if pa.types.is_integer(ours.type):
        # Bit for bit: system calls return negative numbers, which are printed in hexadecimal.
        assert [value % (1 << 64) for value in mine] == [value % (1 << 64) for value in real], where
    elif pa.types.is_string(theirs.type):
        assert mine == [value.removesuffix("\n") for value in real], where
    else:
        # A symbol, a flag's name or a word: raw reports print the number, but for addresses of functions of the kernel.
        assert not raw or where.endswith(".ip"), where
        return 0
    return 1


@needs_trace_cmd
@pytest.mark.parametrize("path", fixture_traces(), ids=lambda path: path.stem)
def test_raw_report_of_a_fixture_equals_it(path: Path) -> None:
    compare_with_recording(ftrace(printed(path, "-R", "-t")), open_trace(path), 1, raw=True)


@needs_trace_cmd
@pytest.mark.parametrize("name", ["mail-5.10.dat", "mail-7.2.dat", "zap-6.1.dat"])
@pytest.mark.parametrize(("options", "unit"), [(("-t",), 1), ((), 1000), (("-l",), 1000), (("-l", "-t", "-R"), 1)])
def test_report_of_a_fixture_equals_it_as_far_as_it_prints_it(name: str, options: tuple[str, ...], unit: int) -> None:
    path = fixture_path(name)
    compare_with_recording(ftrace(printed(path, *options)), open_trace(path), unit, raw="-R" in options)


@needs_trace_cmd
@pytest.mark.parametrize("options", [("-R", "-t"), ("-t",)])
def test_report_of_a_recording_equals_it(traces: Path, options: tuple[str, ...]) -> None:
    path = traces / "6.1" / "snapshot.dat"
    compare_with_recording(ftrace(printed(path, *options)), open_trace(path), 1, raw="-R" in options)


def test_every_row_of_a_text_of_tracefs_is_as_it_stands_there(traces: Path) -> None:
    path = traces / "formats" / "mail.trace.txt"
    trace = ftrace(path.read_bytes())
    lines = [match for line in path.read_text().splitlines() if (match := TRACEFS.match(line))]
    assert len(lines) == sum(trace.counts().values()) == 879
    names = {"tracing_mark_write": "print"}
    tables = everything(trace)
    seen: dict[str, int] = {}
    for line, ts, cpu, tid, event in zip(lines, *(column.to_pylist() for column in tables["timeline"].columns), strict=True):
        comm, pid, tgid, number, seconds, fraction, name, rest = line.groups()
        assert (ts, cpu, tid) == (int(seconds) * 10**9 + int(fraction) * 1000, int(number), int(pid))
        assert event == names.get(name, name)
        row = seen[event] = seen.get(event, -1) + 1
        mine = {column: tables[event][column][row].as_py() for column in tables[event].column_names}
        assert (mine["comm"], mine["tgid"]) == (comm, int(tgid))
        if event == "print":
            assert mine["buf"] == rest
            continue
        for key, value in re.findall(r"(\w+)=(\S+)", rest):
            name = {"sched_process_fork": {"comm": "parent_comm", "pid": "parent_pid"}}.get(event, {}).get(key, key)
            base = 16 if name == "clone_flags" or value.startswith("0x") else 10
            expected = value if "comm" in name else int(value, base)
            assert mine["comm_field" if name == "comm" else name] == expected, (event, name)
    assert trace.metadata.format == "ftrace text"
    assert trace.metadata.cpus == 2
    assert sum("microseconds" in note for note in trace.metadata.notes) == 1
    assert trace.losses.num_rows == 0


NAMES = ("a-1 [0] 1.0: b", "[000] 5.0: e:", "x:y-z", " two", "a  b-", "-7 [001] 1: x", "x pid=5", "(a) [b]", "=", "né\xff")


@needs_trace_cmd
@pytest.mark.parametrize("options", [("-t",), ("-t", "-R"), ("-t", "-l")])
def test_names_of_threads_may_hold_anything(tmp_path: Path, options: tuple[str, ...]) -> None:
    pages = [subbuffer(1000, *(data(ping(number, 100 + number), 3) for number in range(len(NAMES))))]
    saved = "".join(f"{100 + number} {name}\n" for number, name in enumerate(NAMES))
    trace = ftrace(_report(tmp_path, Trace([Instance({3: pages})], {"test": [PING_FORMAT]}, cmdlines=saved), *options))
    width = 8 if "-l" in options else 16
    table = trace.table("ping").to_pydict()
    # What justifies a name cannot be told from spaces that it starts with.
    assert table["comm"] == [name.encode()[:width].decode("utf-8", "replace").lstrip(" ") for name in NAMES]
    assert table["tid"] == [100 + number for number in range(len(NAMES))]
    assert table["value"] == list(range(len(NAMES)))
    assert table["ts"] == [1000 + 3 * (number + 1) for number in range(len(NAMES))]
    assert set(table["cpu"]) == {3}
    assert trace.losses.num_rows == 0


@needs_trace_cmd
@pytest.mark.parametrize("options", [("-t",), ("-t", "-R")])
def test_names_within_fields_may_look_like_fields(tmp_path: Path, options: tuple[str, ...]) -> None:
    fields = [
        ("char parent_comm[16]", 8, 16, 0),
        ("pid_t parent_pid", 24, 4, 1),
        ("char child_comm[16]", 28, 16, 0),
        ("pid_t child_pid", 44, 4, 1),
    ]
    printing = '"comm=%s pid=%d child_comm=%s child_pid=%d", REC->parent_comm, REC->parent_pid, REC->child_comm, REC->child_pid'
    names = [b"plain", b"x pid=5", b"pid=1 pid=2", b"a=b c=d", b"123", b"child_pid=8 x", b'"quoted"x', b"end "]
    records = (
        long_data(common(400, 7) + struct.pack("<16si16si", name, 1000 + number, name, 2000 + number), 1)
        for number, name in enumerate(names)
    )
    made = Trace([Instance({0: [subbuffer(0, *records)]})], {"sched": [format_text("sched_process_fork", 400, fields, printing)]})
    listed = rows(ftrace(_report(tmp_path, made, *options)), "sched_process_fork")
    texts = [name.decode() for name in names]
    assert [row["parent_comm"] for row in listed] == texts
    assert [row["child_comm"] for row in listed] == texts
    assert [row["parent_pid"] for row in listed] == [1000 + number for number in range(len(names))]
    assert [row["child_pid"] for row in listed] == [2000 + number for number in range(len(names))]


def _report(folder: Path, trace: Trace, *options: str) -> bytes:
    path = folder / "trace.dat"
    path.write_bytes(trace.write("v7"))
    return printed(path, *options)


@needs_trace_cmd
@pytest.mark.parametrize("options", [("-t",), ("-t", "-l")])
def test_buffers_and_their_losses_are_told_apart(tmp_path: Path, options: tuple[str, ...]) -> None:
    def pages(*numbers: int, missed: int = 0) -> list[bytes]:
        first, second = (data(ping(number, number), 5) for number in numbers)
        return [subbuffer(1000 * numbers[0], first), subbuffer(1000 * numbers[0] + 500, second, missed=missed)]

    buffers = [
        Instance({0: pages(1, 2), 1: pages(3, 4, missed=-1)}),
        Instance({0: pages(5, 6, missed=7)}, name="inst: x-1"),
        Instance({0: pages(7, 8, missed=9)}, name="b"),
    ]
    saved = "".join(f"{number} thread {number}\n" for number in range(9))
    text = _report(tmp_path, Trace(buffers, {"test": [PING_FORMAT]}, cmdlines=saved), *options)
    trace = ftrace(text)
    table = trace.table("ping").to_pydict()
    assert table["value"] == list(range(1, 9))
    assert table["buffer"] == ["", "", "", "", "inst: x-1", "inst: x-1", "b", "b"]
    assert table["comm"] == [f"thread {number}"[: text_width(trace)] for number in range(1, 9)]
    assert set(trace.metadata.buffers) == {"", "inst: x-1", "b"}
    losses = [tuple(row.values()) for row in trace.losses.to_pylist()]
    offsets = [match.start() for match in re.finditer(rb"^.*CPU:\d \[", text, re.MULTILINE)]
    assert losses == [
        (1, 3005, 3505, None, "lost line", offsets[0]),
        (0, 5005, 5505, 7, "lost line", offsets[1]),
        (0, 7005, 7505, 9, "lost line", offsets[2]),
    ]


TRACEFS_LINES = """\
# tracer: nop
#
# entries-in-buffer/entries-written: 7/1207   #P:4
#
#           TASK-PID     CPU#  TIMESTAMP  FUNCTION
##### CPU 1 buffer started ####
            bash-1000  [001] d..2.   100.000001: sched_switch: prev_comm=a ==> b prev_pid=1 prev_state=S ==> next_comm=c d next_pid=2
            bash-1000    (-------) [001] d..2   100.000002: sys_mmap(addr: 0, len: 1000, prot: 3, flags: 22, fd: ffffffff, off: 0)
            bash-1000    (   1000) [001]   100.000003: sys_mmap -> 0x7f0000001000
CPU:1 [LOST 12 EVENTS]
          <idle>-0       [001] ..s1.   100.000004: tracing_mark_write: two lines: a=1
  of one mark-1 [0]
CPU:2 [LOST EVENTS]
          <idle>-0       [003] ..s1.   100.000005: do_idle <-cpu_startup_entry
          <idle>-0       [001] ..s1.   100.000006: <stack trace>
 => do_idle
 => cpu_startup_entry
          <idle>-0       [001] ..s1.   100.000007: myprobe: (do_exit+0x0/0x10) name="a b=c d" minus=-5 big=18446744073709551615 mixed=0x10
          <idle>-0       [001] ..s1.   100.000008: myprobe: (do_exit+0x0/0x10) name="" minus=-9223372036854775808 big=1 mixed=-1
"""


def test_what_tracefs_prints_besides() -> None:
    trace = ftrace(TRACEFS_LINES)
    assert trace.counts() == {
        **dict.fromkeys(("sched_switch", "sys_enter_mmap", "sys_exit_mmap", "print", "function", "kernel_stack"), 1),
        "myprobe": 2,
    }
    switch = rows(trace, "sched_switch")[0]
    assert switch == {
        "ts": 100_000_001_000, "cpu": 1, "tid": 1000, "comm": "bash", "tgid": None,
        "prev_comm": "a ==> b", "prev_pid": 1, "prev_state": "S", "next_comm": "c d", "next_pid": 2,
    }  # fmt: skip
    enter = rows(trace, "sys_enter_mmap")[0]
    assert [enter[key] for key in ("addr", "len", "prot", "flags", "fd", "off")] == [0, 0x1000, 3, 0x22, 0xFFFFFFFF, 0]
    assert rows(trace, "sys_exit_mmap")[0]["ret"] == 0x7F0000001000
    assert rows(trace, "sys_exit_mmap")[0]["tgid"] == 1000
    assert rows(trace, "print")[0]["buf"] == "two lines: a=1\n  of one mark-1 [0]"
    assert rows(trace, "function")[0]["args"] == "do_idle <-cpu_startup_entry"
    first, second = rows(trace, "myprobe")
    assert (first["name"], second["name"]) == ("a b=c d", "")
    assert (first["minus"], second["minus"]) == (-5, -(1 << 63))
    assert (first["big"], second["big"]) == ((1 << 64) - 1, 1)
    # Without a sign in one row and with one in another: no type of 64 bits holds both, unless they are left as they are printed.
    assert (first["mixed"], second["mixed"]) == ("0x10", "-1")
    assert [tuple(row.values()) for row in trace.losses.to_pylist()] == [
        (-1, None, 100_000_001_000, 1200, "overwritten", None),
        (1, 100_000_003_000, 100_000_004_000, 12, "lost line", TRACEFS_LINES.index("CPU:1 [")),
        (2, None, None, None, "lost line", TRACEFS_LINES.index("CPU:2 [")),
    ]
    assert trace.metadata.details == {"entries": "7 of 1207 written"}
    assert trace.metadata.cpus == 4


LATENCY = """\
# tracer: wakeup
#
# wakeup latency trace v1.1.5 on 6.1.0
# --------------------------------------------------------------------
# latency: 19 us, #3/5, CPU#1 | (M:preempt VP:0, KP:0, SP:0 HP:0 #P:2)
#    -----------------
#    | task: kworker/1:1-40 (uid:0 nice:0 policy:0 rt_prio:0)
#    -----------------
    bash-12345   1d.h3.    0us!: sched_waking: comm=kworker pid=40
  <idle>-0       0dNs4.  123us : sched_waking: comm=a-b-c pid=41
 a-1 [0]-7     127....1    4us#: sched_waking: comm=x pid=42
"""


def test_latency_format_of_tracefs() -> None:
    trace = ftrace(LATENCY)
    table = trace.table("sched_waking").to_pydict()
    assert table["ts"] == [0, 123_000, 4000]
    assert (table["cpu"], table["tid"], table["pid"]) == ([1, 0, 127], [12345, 0, 7], [40, 41, 42])
    assert table["comm"] == ["bash", "<idle>", "a-1 [0]"]
    assert table["comm_field"] == ["kworker", "a-b-c", "x"]
    assert trace.losses.to_pylist()[0]["events"] == 2
    assert trace.metadata.details == {"entries": "3 of 5 written"}
    assert any("since the trace began" in note for note in trace.metadata.notes)


def test_clocks_that_count() -> None:
    lines = "".join(f"            bash-7       [001] .....   1234567890{number}: e: a={number}\n" for number in (3, 1, 2))
    trace = ftrace(lines)
    table = trace.table("e", ["a"], positions=True).to_pydict()
    # Rows stay in the order of the text, also where its times go back.
    assert (table["ts"], table["a"], table["position"]) == ([12345678903, 12345678901, 12345678902], [3, 1, 2], [0, 1, 2])
    assert trace.span() == (12345678901, 12345678903)
    assert any("counts" in note for note in trace.metadata.notes)
    assert trace.metadata.details == {}


LINE = "            bash-7       [001] .....   100.00000{}: e: a={}\n"


def test_lines_that_cannot_be_read_are_losses() -> None:
    text = LINE.format(1, 1) + "garbage\nmore\n" + LINE.format(2, 2) + "worse\n" + LINE.format(3, 3)[:-1]
    trace = ftrace(text)
    assert trace.table("e").column("a").to_pylist() == [1, 2]
    assert [tuple(row.values()) for row in trace.losses.to_pylist()] == [
        (-1, 100_000_001_000, 100_000_002_000, 2, "unreadable line", text.index("garbage")),
        (-1, 100_000_002_000, None, 1, "unreadable line", text.index("worse")),
        (-1, 100_000_002_000, None, 1, "truncated line", text.rindex("            bash")),
    ]
    notes = " ".join(trace.metadata.notes)
    assert f"3 lines cannot be read, the first at byte {text.index('garbage')}" in notes
    assert f"at byte {text.rindex('            bash')}" in notes
    with pytest.raises(ParseError) as error:
        ftrace(text, strict=True)
    assert error.value.offset == text.index("garbage")
    with pytest.raises(ParseError) as error:
        ftrace(text.replace("garbage\nmore\n", "").replace("worse\n", ""), strict=True)
    assert error.value.offset == 2 * len(LINE.format(1, 1))
    assert ftrace(LINE.format(1, 1), strict=True).counts() == {"e": 1}


def test_more_losses_than_are_expected() -> None:
    line, lost = LINE.format(1, 1), "CPU:0 [LOST 5 EVENTS]\n"
    losses = ftrace((line + lost) * 3000).losses.to_pydict()
    assert losses["offset"] == [len(line) + number * len(line + lost) for number in range(3000)]
    assert losses["events"] == [5] * 3000


def test_fields_that_come_late_are_counted_once() -> None:
    """Lines that have all fields so far are counted together; a field more, or a value of another kind, starts anew."""
    endings = ("a=1 b=2", "a=3 b=4", "a=5 b=6 c=7", "a=8 b=9 c=-1", "b=1", "a=0x10 b=2 c=3", "a=1 b=x c=4", "a=2 b=5 c=5")
    trace = ftrace("".join(f"            bash-7       [001] .....   100.000001: late_event_name: {ending}\n" for ending in endings))
    listed = [{key: row[key] for key in "abc"} for row in rows(trace, "late_event_name")]
    assert [row["a"] for row in listed] == [1, 3, 5, 8, None, 16, 1, 2]
    assert [row["b"] for row in listed] == ["2", "4", "6", "9", "1", "2", "x", "5"]
    assert [row["c"] for row in listed] == [None, None, 7, -1, None, 3, 4, 5]


@pytest.mark.parametrize("names", [("mm_page_alloc", "mm_page_alloc_zone_locked"), ("e", "ee"), ("abcdefghijklmnop", "abcdefghijklmnoq")])
def test_names_that_begin_alike_are_told_apart(names: tuple[str, str]) -> None:
    order = [names[number in (1, 2, 5)] for number in range(8)]
    lines = (f"            bash-7       [001] .....   100.00000{number}: {name}: a={number} b=0\n" for number, name in enumerate(order))
    assert ftrace("".join(lines)).timeline().column("event").to_pylist() == order


def test_threads_may_share_a_text() -> None:
    text = "".join(LINE.format(number % 10, number) for number in range(1000))
    trace = ftrace(text)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda _: trace.table("e").column("a").to_pylist(), range(4)))
    assert read == [list(range(1000))] * 4


def test_a_text_without_events() -> None:
    trace = ftrace("# tracer: nop\n#\n# entries-in-buffer/entries-written: 0/0   #P:2\n")
    assert trace.event_names() == []
    assert trace.span() is None
    assert trace.timeline().num_rows == trace.losses.num_rows == 0
    assert ftrace("").counts() == {}
