"""A recording of a big-endian or 32-bit kernel gives the tables that its little-endian, 64-bit twin gives."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from conftest import FIXTURES
from parsers.byteswap import twin
from parsers.reports import report
from parsers.writer import MAGIC, Instance, Trace, common, format_text, long_data, subbuffer
from tracetool_parsers import ParseError, RawTrace, open_trace
from tracetool_parsers.cursor import ByteOrder
from tracetool_parsers.tracedat import read_recording
from tracetool_parsers.writing import LongSize

#: All kinds of fields of profile 1; strings and arrays are in sched, task and ftrace events.
NAMES = ["mail-6.1", "mail-5.10", "mail-7.2", "vmsplice_child-6.1"]
KINDS: list[tuple[ByteOrder, LongSize]] = [("big", 8), ("little", 4), ("big", 4)]


def everything(trace: RawTrace) -> dict[str, list[dict[str, object]]]:
    """All events with all their fields."""
    tables = trace.tables({name: [field.column for field in trace.formats()[name].fields] for name in trace.event_names()})
    return {name: table.to_pylist() for name, table in tables.items()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("order", "long_size"), KINDS)
@pytest.mark.parametrize("version", ["v6", "v7-zstd"])
def test_twin_gives_the_same_tables(tmp_path: Path, name: str, order: ByteOrder, long_size: LongSize, version: str) -> None:
    original = FIXTURES / f"{name}.dat"
    path = tmp_path / "twin.dat"
    path.write_bytes(twin(original.read_bytes(), order=order, long_size=long_size).write(version))
    ours, theirs = open_trace(path), open_trace(original)
    assert ours.counts() == theirs.counts()
    assert len(ours.counts()) > 20
    assert everything(ours) == everything(theirs)
    assert ours.timeline().equals(theirs.timeline())
    assert ours.losses.equals(theirs.losses)
    assert ours.metadata.kernel == theirs.metadata.kernel
    assert ours.metadata.cmdlines == theirs.metadata.cmdlines


@pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed: nothing to compare with")
@pytest.mark.parametrize(("order", "long_size"), KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_trace_cmd_reads_the_twin_as_the_original(tmp_path: Path, name: str, order: ByteOrder, long_size: LongSize) -> None:
    original = FIXTURES / f"{name}.dat"
    path = tmp_path / "twin.dat"
    path.write_bytes(twin(original.read_bytes(), order=order, long_size=long_size).write("v6"))
    assert report(path) == report(original)


@pytest.mark.parametrize(("order", "long_size"), KINDS)
@pytest.mark.parametrize("version", ["v6", "v7", "v7-zlib"])
def test_metadata_of_the_twin(order: ByteOrder, long_size: LongSize, version: str) -> None:
    content = (FIXTURES / "mail-6.1.dat").read_bytes()
    ours = read_recording(memoryview(twin(content, order=order, long_size=long_size).write(version)), "twin.dat")
    theirs = read_recording(memoryview(content), "original.dat")
    assert (ours.order, ours.long_size) == (order, long_size)
    assert (theirs.order, theirs.long_size) == ("little", 8)
    # Longs of the twin's formats are still of 8 bytes: only its sub-buffers are those of another kernel.
    if long_size == 8:
        assert ours.formats == theirs.formats
    assert [event.full_name for event in ours.formats] == [event.full_name for event in theirs.formats]
    for attribute in ("cmdlines", "uname", "writer", "clock", "cpus", "stats", "trace_id", "damage", "notes"):
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    assert [(buffer.name, buffer.page_size, [cpu.cpu for cpu in buffer.cpus]) for buffer in ours.buffers] == [("", 4096, [0, 1])]


@pytest.mark.parametrize("order", ["little", "big"])
def test_longs_and_pointers_of_no_stated_length_are_of_the_kernels_size(tmp_path: Path, order: ByteOrder) -> None:
    mark = "<" if order == "little" else ">"
    fields = [("__data_loc unsigned long[] longs", 8, 4, 0), ("__data_loc void *[] pointers", 12, 4, 0)]
    payload = common(400, 7, order=order) + struct.pack(mark + "II4I", 16 | 8 << 16, 24 | 8 << 16, 1, 2, 3, 4)
    page = subbuffer(0, long_data(payload, 1, order=order), order=order, long_size=4)
    trace = Trace([Instance({0: [page]})], {"test": [format_text("some", 400, fields)]}, order=order, long_size=4)
    path = tmp_path / "trace.dat"
    path.write_bytes(trace.write("v7"))
    row = open_trace(path).table("some", ["longs", "pointers"]).to_pylist()[0]
    assert (row["longs"], row["pointers"]) == ([1, 2], [3, 4])


def test_a_byte_order_that_is_none_is_refused() -> None:
    with pytest.raises(ParseError, match="byte order of 2") as caught:
        read_recording(memoryview(MAGIC + b"6\0" + bytes([2, 8]) + struct.pack(">I", 4096)), "trace.dat")
    assert caught.value.offset == len(MAGIC) + 2


@pytest.mark.parametrize(
    ("old", "new"), [(b"commit;\toffset:8;\tsize:8", b"commit;\toffset:8;\tsize:4"), (b"data;\toffset:16", b"data;\toffset:12")]
)
def test_sub_buffers_that_are_of_no_kernel_are_refused(old: bytes, new: bytes) -> None:
    content = Trace([Instance({})]).write("v6")
    assert content.count(old) == 1
    with pytest.raises(ParseError, match="no known kind"):
        read_recording(memoryview(content.replace(old, new)), "trace.dat")
