"""Small valid inputs of every format: what mutations start from."""

from __future__ import annotations

import gzip
import lzma
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import zstandard

from parsers.test_perf_hostile import WRITTEN
from parsers.test_texthostile import TEXTS
from tracetool.export import export
from tracetool_parsers import open_trace
from tracetool_parsers.cursor import ByteOrder
from tracetool_parsers.tracedat import LongSize
from tracetool_parsers.writing import (
    Instance,
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

_NUMBERS: Final = format_text(
    "numbers", 300, [("u64 value", 8, 8, 0), ("u8 small", 17, 1, 0), ("u16 odd", 19, 2, 0), ("s32 signed", 22, 4, 1)]
)
_TEXTS: Final = format_text(
    "texts", 301, [("u32 value", 8, 4, 0), ("char name[8]", 12, 8, 0), ("__data_loc char[] loc", 20, 4, 0), ("u16 list[]", 24, 0, 0)]
)
_PAGE: Final = 256


def _trace(*, big: bool = False, long_size: LongSize = 8) -> Trace:
    """Three CPUs of two buffers with every kind of record, lost events, and most options."""
    order: ByteOrder = "big" if big else "little"
    mark = ">" if big else "<"

    def numbers(value: int) -> bytes:
        return common(300, value % 4, order=order) + struct.pack(mark + "Q", value) + bytes(range(10))

    def texts(value: int) -> bytes:
        at = 24 | 6 << 16
        return common(301, 2, order=order) + struct.pack(mark + "I8sI", value, b"name", at) + b"abc\0\xff\xff"

    def page(ts: int, *records: bytes, missed: int | None = None) -> bytes:
        return subbuffer(ts, *records, page=_PAGE, missed=missed, order=order, long_size=long_size)

    first = page(1000, data(numbers(1), order=order), long_data(texts(2), 3, order=order), taken_back(16, 5, order=order))
    second = page(2000, time_extend(1 << 30, order=order), data(numbers(3), order=order), missed=4)
    third = page(1500, data(numbers(4), order=order), time_stamp(1 << 32, order=order) + data(numbers(5), order=order), missed=-1)
    options = [(1, b"0x10\0"), (10, b"7 1 name\n1000 2000 /bin/x\n\0"), (14, struct.pack(mark + "IIQ", 3, 1, 0))]
    return Trace(
        [Instance({0: [first, second], 1: [third]}, stats=[cpu_stats(0, overrun=9)]), Instance({1: [third]}, name="other")],
        {"test": [_NUMBERS, _TEXTS]},
        cmdlines="1 one\n2 two\n",
        page=_PAGE,
        options=options,
        order=order,
        long_size=long_size,
        kallsyms="ffffffff81000000 T start\n",
        printk='0xffffffff82000000 : "text"\n',
    )


def trace_dat() -> list[bytes]:
    """trace.dat of both versions, codecs, byte orders and sizes of long; and the text of a latency tracer in one."""
    usual = [_trace().write(version) for version in ("v6", "v7", "v7-zstd", "v7-zlib")]
    latency = Trace([Instance({}, text=TEXTS[2])])
    return [*usual, _trace(big=True).write("v7-zstd"), _trace(big=True, long_size=4).write("v6"), latency.write("v6")]


def _exported(target: str) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "trace.dat", Path(folder) / "out"
        path.write_bytes(_trace().write("v6"))
        export(open_trace(path), out, target)  # type: ignore[arg-type]
        return [out.read_bytes()]


def _packed() -> list[bytes]:
    small = _trace().write("v6")
    return [gzip.compress(small) + gzip.compress(b""), lzma.compress(small), zstandard.compress(small), gzip.compress(WRITTEN[0])]


#: By the name of the format.
SEEDS: Final[Mapping[str, Callable[[], list[bytes]]]] = {
    "trace.dat": trace_dat,
    "perf.data": lambda: list(WRITTEN),
    "ftrace-text": lambda: list(TEXTS[:3]),
    "perf-script": lambda: list(TEXTS[3:]),
    "parquet": lambda: _exported("parquet"),
    "arrow": lambda: _exported("arrow"),
    "packed": _packed,
}
