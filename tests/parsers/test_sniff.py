"""What is no trace is refused with a reason and a way on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parsers.writer import MAGIC, pings
from tracetool_parsers import ParseError, TraceError, open_trace

PERF = b"PERFILE2" + bytes(100)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (MAGIC[:5], "ends inside the magic"),
        (b"# tracer: nop\n#\n  <idle>-0  [001] d..2  1.5: sched_switch: x\n", "is a text file"),
        ("caf\u00e9 ".encode() * 200, "is a text file"),
        (b"\xff\xfe\xfd" * 10, "is not a trace"),
        (b"\x7fELF" + bytes(60), "is not a trace"),
        (PERF, "perf.data"),
        (b"\x1f\x8b\x08" + bytes(10), "gzip"),
        (b"\xfd7zXZ\0" + bytes(10), "xz"),
        (b"\x28\xb5\x2f\xfd" + bytes(10), "zstd"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.dat"
    path.write_bytes(content)
    with pytest.raises(ParseError, match=message) as caught:
        open_trace(path)
    assert caught.value.path == str(path)
    assert caught.value.offset is not None
    assert caught.value.hint


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file") as caught:
        open_trace(tmp_path / "none.dat")
    assert caught.value.path == str(tmp_path / "none.dat")
    assert caught.value.hint


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="is a directory"):
        open_trace(tmp_path)


def test_device() -> None:
    with pytest.raises(TraceError, match="not a regular file"):
        open_trace(os.devnull)


def test_impossible_path() -> None:
    with pytest.raises(TraceError, match="not a possible path"):
        open_trace("a\0b")


def test_format_is_told_from_the_bytes_and_not_from_the_name(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_bytes(pings().write("v7"))
    assert open_trace(path).metadata.format == "trace.dat v7"
