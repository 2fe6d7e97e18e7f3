"""The format is told from the first bytes; what is no trace is refused with a reason and a way on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parsers.writer import MAGIC, pings
from tracetool_parsers import ParseError, TraceError, UnknownEvent, open_trace
from tracetool_parsers.sniff import Format, forced, format_named, sniff

TRACE_DAT = MAGIC + b"7\0"
FTRACE = b"""# tracer: nop
#
# entries-in-buffer/entries-written: 1/1   #P:2
#
          <idle>-0       [001] d..2.     1.500000: sched_switch: x=1
"""
BARE_FTRACE = b"          <idle>-0       [001] d..2.     1.500000: sched_waking: x=1\n"
REPORT = b"""cpus=2
           sleep-115   [001]     6.200671677: page_fault_user:      address=0x7f ip=0x7f error_code=0x14
"""
SCRIPT = b"sleep   115/115   [001]     6.200671677: exceptions:page_fault_user: address=0x7f ip=0x7f error_code=0x14\n"
PERF = b"PERFILE2" + bytes(100)

FORMATS = [
    (TRACE_DAT, Format.trace_dat),
    (PERF, Format.perf_data),
    (b"2ELIFREP" + bytes(100), Format.perf_data),
    (FTRACE, Format.ftrace_text),
    (BARE_FTRACE, Format.ftrace_text),
    (REPORT, Format.trace_cmd_text),
    (SCRIPT, Format.perf_script),
    (b"PAR1" + bytes(100), Format.parquet),
    (b"ARROW1\0\0" + bytes(100), Format.arrow),
    (b"\xff\xff\xff\xff\x10\0\0\0" + bytes(100), Format.arrow),
]


@pytest.mark.parametrize(("content", "form"), FORMATS)
def test_the_first_bytes_tell_the_format(content: bytes, form: Format) -> None:
    assert sniff(memoryview(content), "file") is form


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (MAGIC[:5], "ends inside the magic of a trace.dat"),
        (b"PERF", "ends inside the magic of a perf.data"),
        (b"hello\nworld\n", "is a text file"),
        ("caf\u00e9 ".encode() * 20_000, "is a text file"),
        (b"\xff\xfe\xfd" * 10, "is not a trace"),
        (b"\x7fELF" + bytes(60), "is not a trace"),
        (b"BZh9" + bytes(60), "bzip2"),
        (b"PK\x03\x04" + bytes(60), "zip"),
    ],
)
def test_other_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file.dat"
    path.write_bytes(content)
    with pytest.raises(ParseError, match=message) as caught:
        open_trace(path)
    assert caught.value.path == str(path)
    assert caught.value.offset is not None
    assert caught.value.hint


@pytest.mark.parametrize(("content", "form"), FORMATS)
def test_a_format_that_is_the_one_may_be_forced(content: bytes, form: Format) -> None:
    assert forced(memoryview(content), form, "file") is form


@pytest.mark.parametrize(("content", "form"), FORMATS)
@pytest.mark.parametrize("other", [Format.trace_dat, Format.perf_data, Format.parquet, Format.arrow])
def test_a_format_with_a_magic_is_not_forced_on_anything_else(content: bytes, form: Format, other: Format) -> None:
    if other is form:
        return
    with pytest.raises(ParseError, match=f"is no {other}") as caught:
        forced(memoryview(content), other, "file")
    assert str(form) in str(caught.value.hint)


def test_text_may_be_forced_on_text_alone() -> None:
    for content in (FTRACE, SCRIPT, b"hello\n", b"\xff\xfe\xfd"):
        assert forced(memoryview(content), Format.trace_cmd_text, "file") is Format.trace_cmd_text
    for content in (TRACE_DAT, PERF, b"PAR1"):
        with pytest.raises(ParseError, match="is no trace-cmd-text"):
            forced(memoryview(content), Format.trace_cmd_text, "file")


def test_a_format_that_is_not_there_lists_those_that_are() -> None:
    assert format_named("perf.data") is Format.perf_data
    with pytest.raises(UnknownEvent, match="no format 'perfdata'") as caught:
        format_named("perfdata")
    assert "did you mean 'perf.data'?" in str(caught.value.hint)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file") as caught:
        open_trace(tmp_path / "none.dat")
    assert caught.value.path == str(tmp_path / "none.dat")
    assert caught.value.hint


def test_a_directory_without_a_trace(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="is a directory"):
        open_trace(tmp_path)


def test_a_device_is_read_to_its_end() -> None:
    with pytest.raises(ParseError, match="is empty"):
        open_trace(os.devnull)


def test_impossible_path() -> None:
    with pytest.raises(TraceError, match="not a possible path"):
        open_trace("a\0b")


def test_format_is_told_from_the_bytes_and_not_from_the_name(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_bytes(pings().write("v7"))
    assert open_trace(path).metadata.format == "trace.dat v7"
