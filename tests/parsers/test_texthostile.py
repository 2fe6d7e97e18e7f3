"""Whatever a text holds, it gives tables and losses, the same ones compiled and uncompiled, or a ParseError; nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import fixture_path
from parsers.test_ftracetext import LATENCY, TRACEFS_LINES
from parsers.test_perfscript import LINES
from parsers.texts import everything, ftrace, perf, printed
from tracetool_parsers import ParseError, RawTrace
from tracetool_parsers.ftracetext import text_kind

REPORT = """\
cpus=2
          cowlab-135   [001]    16.354804222: page_fault_user:      address=0x7f23b71420b0 ip=0x7f23b71420b0 error_code=0x14
          cowlab-135   [001]    16.354826876: mm_fault:             (ffffffff812d0d90) mm=0xff11000004853a80 address=0x7f23b71420b0
          cowlab-135   [001]    16.361652808: sys_enter_brk:        brk: 0x00000000
          cowlab-135   [001]    16.361673819: sys_exit_brk:         0x36e59000
CPU:0 [3 EVENTS DROPPED]
          cowlab-135   [001]    16.363439364: print:                tracing_mark_write: scenario snapshot pid=135
          cowlab-136   [000]    16.389325870: task_newtask:         pid=136 comm=cowlab clone_flags=1200000 oom_score_adj=0
"""
CHAINS = """\
perf-exec   144 [000]    23.653141523:          1 page-faults:     7f800b1c1e76
\t            8bc2 check_match+0x2 (/lib64/ld-linux-x86-64.so.2)
\t           27f513 [unknown]

"""
TEXTS = [text.encode() for text in (REPORT, TRACEFS_LINES, LATENCY, LINES, CHAINS)]
OPENERS: list[Callable[[bytes], RawTrace]] = [ftrace, perf]
PIECES = [
    b"-1",
    b" [000]",
    b" 1.0: ",
    b"=",
    b"0x",
    b"e: ",
    b"\n",
    b" ",
    b"\0",
    b"(",
    b")",
    b"CPU:1 [LOST 1 EVENTS]\n",
    b"\xff",
    b"9" * 30,
    b"a" * 700,
    b'"',
]


def read(opener: Callable[[bytes], RawTrace], text: bytes) -> None:
    trace = opener(text)
    tables = everything(trace)
    assert sum(trace.counts().values()) == tables["timeline"].num_rows
    for name, count in trace.counts().items():
        tables[name].validate(full=True)
        assert tables[name].num_rows == count
    assert all(row["events"] is None or row["events"] >= 0 for row in trace.losses.to_pylist())
    assert trace.metadata.format
    lines = text.count(b"\n")
    assert tables["timeline"].num_rows <= lines


@pytest.mark.parametrize("opener", OPENERS)
@settings(max_examples=60)
@given(text=st.lists(st.sampled_from(PIECES) | st.binary(max_size=12), max_size=30).map(b"".join))
@example(text=b"\n" * 1000)
@example(text=b"a-1 [000] 1.0: e: " + b" ".join(b"k%d=1" % number for number in range(300)) + b"\n")
@example(text=b"a-1 [000] 1.0: e: " + b"k=1 " * 300 + b"\n")
@example(text=b"a-1 [99999999] 1.0: e: a=1\na-99999999999999999999 [0] 1.0: e: a=1\na-1 [0] 99999999999999999999.5: e: a=1\n")
def test_garbage(opener: Callable[[bytes], RawTrace], text: bytes) -> None:
    read(opener, text)
    text_kind(text)


@pytest.mark.parametrize("opener", OPENERS)
@settings(max_examples=60)
@given(
    text=st.sampled_from(TEXTS), edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 20), st.sampled_from(PIECES)), max_size=4)
)
def test_damaged_lines(opener: Callable[[bytes], RawTrace], text: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    for place, length, piece in edits:
        at = place % (len(text) + 1)
        text = text[:at] + piece + text[at + length :]
    read(opener, text)


@pytest.mark.parametrize("text", TEXTS)
def test_every_cut_loses_one_line_at_most(text: bytes) -> None:
    opener = perf if text_kind(text) == "perf script text" else ftrace
    whole = opener(text).timeline().to_pylist()
    for end in range(0, len(text), 7):
        cut = opener(text[:end])
        listed = cut.timeline().to_pylist()
        assert listed == whole[: len(listed)]
        assert (cut.losses.num_rows > 0 and cut.losses.to_pylist()[-1]["source"] == "truncated line") == (end > 0 and text[end - 1] != 10)


def test_one_line_of_many_megabytes() -> None:
    start = b"            bash-7       [001] .....   100.000001: "
    for filling in (b"=", b" ", b"-1 ", b'k="', b"a=1 "):
        trace = ftrace(start + b"e: x=" + filling * (2_000_000 // len(filling)) + b"\n" + start + b"f: y=1\n")
        assert trace.counts() == {"e": 1, "f": 1}
        assert trace.table("f").column("y").to_pylist() == [1]
        read(ftrace, filling * (2_000_000 // len(filling)))


@pytest.mark.parametrize("seed", range(3))
def test_compiled_and_plain_loops_give_equal_tables(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = random.Random(seed)
    texts: list[tuple[Callable[[bytes], RawTrace], bytes]] = [
        (perf if text_kind(text) == "perf script text" else ftrace, text) for text in TEXTS
    ]
    for _ in range(30):
        text = bytearray(choose.choice(TEXTS))
        for _ in range(choose.randrange(6)):
            at = choose.randrange(len(text))
            text[at : at + choose.randrange(9)] = choose.choice(PIECES)
        texts += [(opener, bytes(text)) for opener in OPENERS]
    for opener, each in texts:
        monkeypatch.setenv("TRACETOOL_LOOPS", "python")
        plain = everything(opener(each))
        monkeypatch.setenv("TRACETOOL_LOOPS", "compiled")
        compiled = everything(opener(each))
        assert plain.keys() == compiled.keys()
        for name, table in plain.items():
            assert table.equals(compiled[name]), (name, each)


@pytest.mark.parametrize("name", ["mail-6.1.dat", "zap-6.1.dat"])
def test_fixtures_read_alike_compiled_and_plain(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(fixture_path(name), "-R")
    monkeypatch.setenv("TRACETOOL_LOOPS", "python")
    plain = everything(ftrace(text))
    monkeypatch.setenv("TRACETOOL_LOOPS", "compiled")
    compiled = everything(ftrace(text))
    assert all(table.equals(compiled[event]) for event, table in plain.items())
    assert plain.keys() == compiled.keys()


def test_kinds_of_text_are_told_apart(traces: Path) -> None:
    formats = traces / "formats"
    assert text_kind((formats / "mail.trace.txt").read_bytes()) == "ftrace text"
    assert text_kind((formats / "mail.perf.script.txt").read_bytes()) == "perf script text"
    for report in ("snapshot.report.txt", "snapshot.report-raw.txt"):
        lines = (formats / report).read_bytes()
        assert text_kind(lines) == text_kind(lines.partition(b"\n")[2]) == "trace-cmd report text"


def test_kinds_of_small_texts() -> None:
    assert [text_kind(text) for text in TEXTS] == ["trace-cmd report text", "ftrace text", "ftrace text", *["perf script text"] * 2]
    assert text_kind(TRACEFS_LINES.partition("started ####\n")[2].encode()) == "ftrace text"
    for other in (b"", b"hello\n", b"\x7fELF\0\0", b"pid,comm\n1,2\n", b"[12.5] usb 1-1: new device\n"):
        assert text_kind(other) is None


def test_a_mapped_text_is_no_copy(tmp_path: Path) -> None:
    with pytest.raises(ParseError) as error:
        ftrace("            bash-7       [001] .....   1.0: e: a=1\nx\n", strict=True)
    assert (error.value.path, error.value.offset) == ("trace.txt", 51)
