"""Writes small trace.dat files, byte by byte, so that tests can say what is in them.

It knows the layout from formats as published (trace-cmd, Documentation/trace-cmd/trace-cmd.dat.v6.5.txt and .v7.5.txt; Linux,
include/linux/ring_buffer.h), and shares no code with the parsers.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import zstandard

MAGIC: Final = b"\x17\x08Dtracing"
PAGE: Final = 4096

HEADER_PAGE: Final = (
    "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
    "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
    "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
    "\tfield: char data;\toffset:16;\tsize:{size};\tsigned:1;\n"
)
HEADER_EVENT: Final = (
    "# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\tarray       :   32 bits\n\n"
    "\tpadding     : type == 29\n\ttime_extend : type == 30\n\ttime_stamp : type == 31\n\tdata max type_len  == 28\n"
)
COMMON: Final = (
    ("unsigned short common_type", 0, 2, 0),
    ("unsigned char common_flags", 2, 1, 0),
    ("unsigned char common_preempt_count", 3, 1, 0),
    ("int common_pid", 4, 4, 1),
)

#: File versions, with the codec where one compresses.
VERSIONS: Final = ("v6", "v7", "v7-zstd", "v7-zlib")

Field = tuple[str, int, int, int]

# --- records of a sub-buffer ----------------------------------------------------------------------------------------------------------


def common(event: int, tid: int) -> bytes:
    """The fields that all events have: type, flags, preemption count, thread."""
    return struct.pack("<HBBi", event, 0, 0, tid)


def data(payload: bytes, delta: int = 0) -> bytes:
    """A record of at most 112 bytes, its length in the header word."""
    padded = payload + bytes(-len(payload) % 4)
    assert 4 <= len(padded) <= 112
    return struct.pack("<I", len(padded) // 4 | delta << 5) + padded


def long_data(payload: bytes, delta: int = 0) -> bytes:
    """A record of any length, which stands in the word after the header."""
    return struct.pack("<II", delta << 5, len(payload) + 4) + payload + bytes(-len(payload) % 4)


def taken_back(size: int, delta: int) -> bytes:
    """An event that was discarded after it was reserved: padding that holds the place of `size` bytes."""
    assert delta > 0
    return struct.pack("<II", 29 | delta << 5, size - 4) + bytes(size - 8)


def rest_is_empty() -> bytes:
    """Padding without a delta: nothing follows in the sub-buffer."""
    return struct.pack("<II", 29, 0)


def time_extend(delta: int) -> bytes:
    """More time than fits into the 27 bits of a header."""
    return struct.pack("<II", 30 | (delta & (1 << 27) - 1) << 5, delta >> 27)


def time_stamp(ts: int) -> bytes:
    """An absolute time, of which 59 bits are stored."""
    low = ts & (1 << 59) - 1
    return struct.pack("<II", 31 | (low & (1 << 27) - 1) << 5, low >> 27)


def subbuffer(ts: int, *records: bytes, page: int = PAGE, missed: int | None = None, commit: int | None = None) -> bytes:
    """A sub-buffer; `missed` events were lost before it (-1: it is not known how many), `commit` overrules the length stated."""
    body = b"".join(records)
    word = len(body) if commit is None else commit
    if missed is not None:
        word |= 1 << 31
        if missed >= 0:
            word |= 1 << 30
            body += struct.pack("<Q", missed)
    assert 16 + len(body) <= page
    return (struct.pack("<QQ", ts, word) + body).ljust(page, b"\0")


# --- metadata -------------------------------------------------------------------------------------------------------------------------


def format_text(name: str, number: int, fields: Sequence[Field], print_format: str = '""') -> str:
    """An event format as tracefs shows it; fields are (declaration, offset, size, signed)."""

    def lines(some: Sequence[Field]) -> str:
        return "".join(f"\tfield:{decl};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n" for decl, offset, size, signed in some)

    return f"name: {name}\nID: {number}\nformat:\n{lines(COMMON)}\n{lines(fields)}\nprint fmt: {print_format}\n"


@dataclass
class Instance:
    """A ring buffer: its sub-buffers by CPU, one after the other."""

    cpus: Mapping[int, Sequence[bytes]]
    name: str = ""
    clock: str = "global"


@dataclass
class Trace:
    """What is in a file."""

    instances: list[Instance]
    systems: dict[str, list[str]] = field(default_factory=dict)
    ftrace: list[str] = field(default_factory=list)
    cmdlines: str = ""
    uname: str = "Linux host 6.1.0-test x86_64"
    page: int = PAGE
    options: list[tuple[int, bytes]] = field(default_factory=list)

    def write(self, version: str) -> bytes:
        """As a file: one of VERSIONS."""
        if version == "v6":
            return _V6(self).write()
        return _V7(self, version.removeprefix("v7").removeprefix("-") or "none").write()

    @property
    def cpus(self) -> int:
        """CPUs of the machine."""
        return max((cpu + 1 for instance in self.instances for cpu in instance.cpus), default=1)

    def header_info(self) -> bytes:
        page = HEADER_PAGE.format(size=self.page - 16).encode()
        event = HEADER_EVENT.encode()
        return b"header_page\0" + struct.pack("<Q", len(page)) + page + b"header_event\0" + struct.pack("<Q", len(event)) + event

    def ftrace_events(self) -> bytes:
        return _counted(self.ftrace)

    def event_formats(self) -> bytes:
        systems = (name.encode() + b"\0" + _counted(texts) for name, texts in self.systems.items())
        return struct.pack("<I", len(self.systems)) + b"".join(systems)

    def saved_cmdlines(self) -> bytes:
        return struct.pack("<Q", len(self.cmdlines.encode())) + self.cmdlines.encode()

    def told(self) -> list[tuple[int, bytes]]:
        """The options that both versions have: clock, uname, writer, CPU count, and those of the test."""
        clock = f"local [{self.instances[0].clock}] counter\0".encode()
        known = [(4, clock), (5, self.uname.encode() + b"\0"), (9, b"0.0 test\0"), (8, struct.pack("<I", self.cpus))]
        return known + self.options


def _counted(texts: Sequence[str]) -> bytes:
    return struct.pack("<I", len(texts)) + b"".join(struct.pack("<Q", len(text)) + text.encode() for text in texts)


def _preamble(version: int, page: int) -> bytes:
    return MAGIC + str(version).encode() + b"\0" + struct.pack("<BBI", 0, 8, page)


def _option(kind: int, body: bytes) -> bytes:
    return struct.pack("<HI", kind, len(body)) + body


class _V6:
    """Blocks back to back; the offsets of data are known once the length of all before them is."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def write(self) -> bytes:
        trace = self.trace
        head = _preamble(6, trace.page) + trace.header_info() + trace.ftrace_events() + trace.event_formats()
        head += struct.pack("<II", 0, 0) + trace.saved_cmdlines() + struct.pack("<I", trace.cpus) + b"options  \0"
        # First with offsets of zero, to learn the lengths.
        tail = self._tail([0] * len(trace.instances), 0)
        tables = [len(head) + len(self._options([0] * len(trace.instances)))]
        for instance in trace.instances:
            tables.append(tables[-1] + len(self._table(instance, 0)))
        start = -(-(len(head) + len(tail)) // trace.page) * trace.page
        tail = self._tail(tables[:-1], start)
        body = b"".join(b"".join(instance.cpus.get(cpu, ())) for instance in trace.instances for cpu in range(trace.cpus))
        return (head + tail).ljust(start, b"\0") + body

    def _options(self, tables: Sequence[int]) -> bytes:
        options = b"".join(_option(kind, body) for kind, body in self.trace.told())
        for instance, offset in list(zip(self.trace.instances, tables, strict=True))[1:]:
            options += _option(3, struct.pack("<Q", offset) + instance.name.encode() + b"\0")
        return options + struct.pack("<H", 0)

    def _tail(self, tables: Sequence[int], start: int) -> bytes:
        tail = self._options(tables)
        for instance in self.trace.instances:
            tail += self._table(instance, start)
            start += sum(len(page) for pages in instance.cpus.values() for page in pages)
        return tail

    def _table(self, instance: Instance, start: int) -> bytes:
        table = b"flyrecord\0"
        for cpu in range(self.trace.cpus):
            size = sum(map(len, instance.cpus.get(cpu, ())))
            table += struct.pack("<QQ", start, size)
            start += size
        clock = f"[{instance.clock}]".encode()
        return table + struct.pack("<Q", len(clock)) + clock


class _V7:
    """Sections, one after the other, and two sections of options that point at them."""

    def __init__(self, trace: Trace, codec: str) -> None:
        self.trace = trace
        self.codec = codec
        self.out = bytearray()

    def write(self) -> bytes:
        trace = self.trace
        self.out += (
            _preamble(7, trace.page) + self.codec.encode() + b"\0" + b"1\0" * (self.codec != "none") + b"\0" * (self.codec == "none")
        )
        options_at = len(self.out)
        self.out += bytes(8)
        blocks = (trace.header_info(), trace.ftrace_events(), trace.event_formats(), struct.pack("<I", 0), struct.pack("<I", 0))
        sections = [(16 + i, struct.pack("<Q", self._section(16 + i, block))) for i, block in enumerate(blocks)]
        sections.append((21, struct.pack("<Q", self._section(21, trace.saved_cmdlines()))))
        buffers = [self._buffer(instance) for instance in trace.instances]
        # Two sections of options: the chain is followed.
        last = self._options([(3, body) for body in buffers], 0)
        struct.pack_into("<Q", self.out, options_at, self._options(sections + trace.told(), last))
        return bytes(self.out)

    def _header(self, kind: int, size: int, *, packed: bool) -> None:
        self.out += struct.pack("<HHIQ", kind, int(packed), 0xFFFFFFFF, size)

    def _section(self, kind: int, block: bytes) -> int:
        at = len(self.out)
        if self.codec == "none":
            self._header(kind, len(block), packed=False)
            self.out += block
        else:
            packed = pack(self.codec, block)
            self._header(kind, len(packed) + 8, packed=True)
            self.out += struct.pack("<II", len(packed), len(block)) + packed
        return at

    def _options(self, options: Sequence[tuple[int, bytes]], following: int) -> int:
        at = len(self.out)
        body = b"".join(_option(kind, each) for kind, each in options) + _option(0, struct.pack("<Q", following))
        self._header(0, len(body), packed=False)
        self.out += body
        return at

    def _buffer(self, instance: Instance) -> bytes:
        """Write the section of a buffer; returns the option that points at it."""
        at = len(self.out)
        self._header(3, 0, packed=self.codec != "none")
        table = b""
        for cpu, pages in sorted(instance.cpus.items()):
            self.out += bytes(-len(self.out) % self.trace.page)
            offset = len(self.out)
            self.out += self._chunks(b"".join(pages)) if self.codec != "none" else b"".join(pages)
            table += struct.pack("<IQQ", cpu, offset, len(self.out) - offset)
        struct.pack_into("<Q", self.out, at + 8, len(self.out) - at - 16)
        names = instance.name.encode() + b"\0" + instance.clock.encode() + b"\0"
        return struct.pack("<Q", at) + names + struct.pack("<II", self.trace.page, len(instance.cpus)) + table

    def _chunks(self, body: bytes) -> bytes:
        size = 10 * self.trace.page
        blocks = [body[at : at + size] for at in range(0, len(body), size)]
        packed = [pack(self.codec, block) for block in blocks]
        chunks = (struct.pack("<II", len(each), len(block)) + each for each, block in zip(packed, blocks, strict=True))
        return struct.pack("<I", len(blocks)) + b"".join(chunks)


def pack(codec: str, block: bytes) -> bytes:
    """The block, compressed as trace-cmd does: zstd frames do not say how much they hold."""
    if codec == "zstd":
        return zstandard.ZstdCompressor(write_content_size=False).compress(block)
    return zlib.compress(block)


# --- a small event that most tests are about ------------------------------------------------------------------------------------------

PING: Final = 300
PING_FORMAT: Final = format_text("ping", PING, [("u64 value", 8, 8, 0)], '"value=%llu", REC->value')


def ping(value: int, tid: int = 7) -> bytes:
    """The payload of one `ping`."""
    return common(PING, tid) + struct.pack("<Q", value)


def pings(*pages: bytes) -> Trace:
    """A trace of one CPU with these sub-buffers."""
    return Trace([Instance({0: pages})], {"test": [PING_FORMAT]}, cmdlines="7 some task\n")


def one_event(name: str, fields: Sequence[Field], *payloads: bytes, print_format: str = '""') -> Trace:
    """A trace of one event, id 400, one record for each payload (what follows the common fields), a nanosecond apart."""
    records = (long_data(common(400, 7) + payload, delta=1) for payload in payloads)
    return Trace([Instance({0: [subbuffer(0, *records)]})], {"test": [format_text(name, 400, fields, print_format)]})
