"""What the writer writes is what trace-cmd reads: both versions, any codec that it was built with, any byte order and long."""

from __future__ import annotations

import io
import itertools
import shutil
import struct
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parsers.reports import report, reported_losses
from tracetool_parsers.writing import (
    VERSIONS,
    Instance,
    LongSize,
    Trace,
    common,
    cpu_stats,
    data,
    format_text,
    long_data,
    subbuffer,
    taken_back,
    time_extend,
    time_stamp,
)

needs_trace_cmd = pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed: nothing to compare with")
#: Debian's trace-cmd is built without zlib.
READ_BY_TRACE_CMD = [version for version in VERSIONS if version != "v7-zlib"]

EVENT = 300
FORMAT = format_text(
    "sample",
    EVENT,
    [("u64 value", 8, 8, 0), ("s16 small", 16, 2, 1), ("unsigned long address", 24, 8, 0), ("__data_loc char[] name", 32, 4, 0)],
    '"value=%llu", REC->value',
)


def sample_trace(order: Any, long_size: LongSize, page: int) -> Trace:
    """Two CPUs and a second buffer, with every kind of record."""
    mark = "<" if order == "little" else ">"

    def payload(number: int) -> bytes:
        name = f"n{number}\0".encode()
        fields = struct.pack(mark + "QhxxxxxxQI", number, -number, number << 40, 36 | len(name) << 16)
        return common(EVENT, 7 + number, order=order) + fields + name

    def record(number: int, delta: int = 0) -> bytes:
        return data(payload(number), delta, order=order)

    def pages(ts: int, *records: bytes, missed: int | None = None) -> bytes:
        return subbuffer(ts, *records, page=page, missed=missed, order=order, long_size=long_size)

    odd = (time_extend(1 << 28, order=order), taken_back(24, 5, order=order), long_data(payload(2), 3, order=order))
    absolute = time_stamp((1 << 33) + 77, order=order)
    cpus = {
        0: [pages(1000, record(1), *odd), pages(1 << 33, record(3, 2), absolute, record(4, 1), missed=5)],
        1: [pages(1500, record(5), missed=-1)],
    }
    return Trace(
        [
            Instance(cpus, stats=[cpu_stats(0, overrun=3), cpu_stats(1)]),
            Instance({1: [pages(1700, record(9))]}, name="small", stats=[cpu_stats(0), cpu_stats(1, dropped=4)]),
        ],
        {"test": [FORMAT]},
        cmdlines="8 two words\n9 a-b\n",
        page=page,
        order=order,
        long_size=long_size,
        kallsyms="ffffffff81000000 T _text\nffffffff81000100 t helper\t[module]\n",
        printk='0xffffffff82000000 : "hello %d"\n',
    )


@needs_trace_cmd
@pytest.mark.parametrize(("order", "long_size", "page"), [*itertools.product(("little", "big"), (8, 4), (4096, 65536))])
@pytest.mark.parametrize("version", READ_BY_TRACE_CMD)
def test_trace_cmd_reads_every_record(tmp_path: Path, version: str, order: str, long_size: LongSize, page: int) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(sample_trace(order, long_size, page).write(version))
    first, absolute = (1 << 28) + 1000 + 5 + 3, (1 << 33) + 77
    expected = [
        (1000, 0, 8, "two words", 1),
        (1500, 1, 12, "<...>", 5),
        (1700, 1, 16, "<...>", 9),
        (first, 0, 9, "a-b", 2),
        ((1 << 33) + 2, 0, 10, "<...>", 3),
        (absolute + 1, 0, 11, "<...>", 4),
    ]
    lines = report(path)
    assert [(line.ts, line.cpu, line.tid, line.comm) for line in lines] == [row[:4] for row in expected]
    assert [line.args for line in lines] == [
        f"value={number} small={-number} address=0x{number << 40:x} name=n{number}" for *_, number in expected
    ]
    assert reported_losses(path) == [(1, None), (0, 5)]


@needs_trace_cmd
@pytest.mark.parametrize("version", READ_BY_TRACE_CMD)
@pytest.mark.parametrize("order", ["little", "big"])
def test_trace_cmd_reads_the_metadata(tmp_path: Path, version: str, order: str) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(sample_trace(order, 8, 4096).write(version))

    def told(option: str) -> str:
        command = ["trace-cmd", "report", option, "-i", str(path)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert "ffffffff81000000 _text\n" in told("-f")
    assert "helper [module]" in told("-f")
    assert "ffffffff82000000 hello %d" in told("-P")
    assert "Linux host 6.1.0-test x86_64" in told("--uname")
    stats = told("--stat")
    assert stats.index("overrun: 3") < stats.index("Buffer: small") < stats.index("dropped events: 4")


@needs_trace_cmd
@pytest.mark.parametrize("version", READ_BY_TRACE_CMD)
def test_trace_cmd_prints_the_text_of_a_latency_tracer(tmp_path: Path, version: str) -> None:
    lines = "# tracer: irqsoff\n" + "".join(f"line {i}\n" for i in range(9000))
    path = tmp_path / "trace.dat"
    path.write_bytes(Trace([Instance({}, text=lines.encode())], {"test": [FORMAT]}).write(version))
    printed = subprocess.run(["trace-cmd", "report", "-i", str(path)], check=True, capture_output=True, text=True).stdout
    # trace-cmd says how many CPUs there are before, and ends the line once more.
    assert printed == f"cpus=1\n{lines}\n"


def blocks(number: int) -> Iterator[bytes]:
    for i in range(number):
        yield subbuffer(i, data(common(EVENT, 7) + bytes(8)))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_input_gives_the_same_bytes_however_it_is_cut_into_blocks(version: str) -> None:
    def trace(cpu: Any) -> bytes:
        return Trace([Instance({0: cpu})], {"test": [FORMAT]}).write(version)

    whole = b"".join(blocks(25))
    assert trace(blocks(25)) == trace([whole]) == trace([whole[: 4096 * 13], whole[4096 * 13 :]])


def test_chunks_hold_ten_sub_buffers() -> None:
    content = Trace([Instance({0: blocks(25)})], {"test": [FORMAT]}).write("v7-zstd")
    sizes = (10 * 4096, 10 * 4096, 5 * 4096)
    at = content.index(struct.pack("<I", 3), 4096)
    assert at % 4096 == 0
    at += 4
    for size in sizes:
        packed, unpacked = struct.unpack_from("<II", content, at)
        assert unpacked == size
        at += 8 + packed


@pytest.mark.parametrize("version", VERSIONS)
def test_data_are_not_held(tmp_path: Path, version: str) -> None:
    block = b"".join(blocks(256))
    trace = Trace([Instance({cpu: itertools.repeat(block, 16) for cpu in range(2)})], {"test": [FORMAT]})
    with (tmp_path / "trace.dat").open("wb") as file:
        tracemalloc.start()
        trace.save(file, version)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert file.tell() > 2 * 16 * len(block) or version.startswith("v7-")
    assert peak < 4 * len(block)


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="long_data"):
        data(bytes(113))
    with pytest.raises(ValueError, match="do not fit"):
        subbuffer(0, bytes(4081))
    with pytest.raises(ValueError, match="there is: v6, v7, v7-zstd, v7-zlib"):
        Trace([Instance({})]).save(io.BytesIO(), "v8")
    with pytest.raises(ValueError, match="version 6 has one size"):
        Trace([Instance({}), Instance({}, name="large", page=8192)]).write("v6")
