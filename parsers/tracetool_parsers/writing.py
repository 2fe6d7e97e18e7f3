"""Writing a trace.dat: versions 6 and 7, any codec, byte order and size of long, streamed.

A `Trace` says what is in a file and `save` writes it. The data of a CPU are any iterable of whole sub-buffers, taken block by block, so
that a file may be larger than memory. The same input gives the same bytes. The functions above it build records and sub-buffers for
those who have no faster way to.

Layout: trace-cmd, Documentation/trace-cmd/trace-cmd.dat.v6.5.txt and .v7.5.txt, lib/trace-cmd/trace-output.c; Linux,
include/linux/ring_buffer.h. Nothing is shared with the modules that read it: either can be tested by the other.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, Literal

from .cursor import ByteOrder

MAGIC: Final = b"\x17\x08Dtracing"
#: The usual size of a sub-buffer.
PAGE: Final = 4096
#: File versions, with the codec where one compresses: what `Trace.save` takes.
VERSIONS: Final = ("v6", "v7", "v7-zstd", "v7-zlib")

#: Size of the kernel's `long`.
LongSize = Literal[4, 8]
#: A field of an event format: declaration, offset, size, signed.
Field = tuple[str, int, int, int]

HEADER_PAGE: Final = (
    "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
    "\tfield: local_t commit;\toffset:8;\tsize:{long};\tsigned:1;\n"
    "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
    "\tfield: char data;\toffset:{head};\tsize:{size};\tsigned:1;\n"
)
HEADER_EVENT: Final = (
    "# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\tarray       :   32 bits\n\n"
    "\tpadding     : type == 29\n\ttime_extend : type == 30\n\ttime_stamp : type == 31\n\tdata max type_len  == 28\n"
)
#: The fields that all events have.
COMMON: Final[Sequence[Field]] = (
    ("unsigned short common_type", 0, 2, 0),
    ("unsigned char common_flags", 2, 1, 0),
    ("unsigned char common_preempt_count", 3, 1, 0),
    ("int common_pid", 4, 4, 1),
)

#: Sub-buffers in a compressed chunk: trace-output.c, PAGES_IN_CHUNK.
PAGES_IN_CHUNK: Final = 10

# Ids of options and sections: include/private/trace-cmd-private.h.
_DONE, _CPUSTAT, _BUFFER, _CLOCK, _UNAME, _CPUS, _VERSION = 0, 2, 3, 4, 5, 8, 9
_HEADER_INFO, _FTRACE, _FORMATS, _KALLSYMS, _PRINTK, _CMDLINES, _TEXT = 16, 17, 18, 19, 20, 21, 22

# --- records and sub-buffers ----------------------------------------------------------------------------------------------------------


def common(event: int, tid: int, *, order: ByteOrder = "little") -> bytes:
    """The fields that all events have: type, flags, preemption count, thread."""
    return struct.pack(_mark(order) + "HBBi", event, 0, 0, tid)


def data(payload: bytes, delta: int = 0, *, order: ByteOrder = "little") -> bytes:
    """A record of 1 to 112 bytes, its length in the header word, `delta` (27 bits) after the one before."""
    padded = payload + bytes(-len(payload) % 4)
    if not 4 <= len(padded) <= 112:
        raise ValueError(f"a record of {len(payload)} bytes does not say its length in its header: use long_data")
    return _head(len(padded) // 4, delta, order) + padded


def long_data(payload: bytes, delta: int = 0, *, order: ByteOrder = "little") -> bytes:
    """A record of any length, which stands in the word after the header."""
    return _head(0, delta, order, len(payload) + 4) + payload + bytes(-len(payload) % 4)


def taken_back(size: int, delta: int, *, order: ByteOrder = "little") -> bytes:
    """An event that was discarded after it was reserved: padding with a delta, which holds the place of `size` bytes."""
    return _head(29, delta, order, size - 4) + bytes(size - 8)


def rest_is_empty(*, order: ByteOrder = "little") -> bytes:
    """Padding without a delta: nothing follows in the sub-buffer."""
    return _head(29, 0, order, 0)


def time_extend(delta: int, *, order: ByteOrder = "little") -> bytes:
    """More time than fits into the 27 bits of a header."""
    return _head(30, delta & (1 << 27) - 1, order, delta >> 27)


def time_stamp(ts: int, *, order: ByteOrder = "little") -> bytes:
    """An absolute time, of which 59 bits are stored."""
    low = ts & (1 << 59) - 1
    return _head(31, low & (1 << 27) - 1, order, low >> 27)


def subbuffer(
    ts: int,
    *records: bytes,
    page: int = PAGE,
    missed: int | None = None,
    commit: int | None = None,
    order: ByteOrder = "little",
    long_size: LongSize = 8,
) -> bytes:
    """A sub-buffer of `page` bytes that starts at time `ts`.

    Args:
        ts: the time from which the first delta counts.
        records: as the functions above make them.
        page: bytes, header included.
        missed: how many events were lost before it; -1: it is not known how many.
        commit: overrules the number of bytes stated.
        order: of the kernel.
        long_size: of the kernel.
    """
    mark, long = _mark(order), "Q" if long_size == 8 else "I"
    body = b"".join(records)
    word = len(body) if commit is None else commit
    if missed is not None:
        word |= 1 << 31
        if missed >= 0:
            word |= 1 << 30
            body += struct.pack(mark + long, missed)
    if 8 + long_size + len(body) > page:
        raise ValueError(f"{len(body)} bytes do not fit into a sub-buffer of {page}")
    return (struct.pack(mark + "Q" + long, ts, word) + body).ljust(page, b"\0")


def _head(kind: int, delta: int, order: ByteOrder, *words: int) -> bytes:
    # A bit field: its first member lies in the low bits of a little-endian word, in the high bits of a big-endian one.
    head = kind | delta << 5 if order == "little" else kind << 27 | delta
    return struct.pack(f"{_mark(order)}{1 + len(words)}I", head, *words)


def _mark(order: ByteOrder) -> str:
    return "<" if order == "little" else ">"


# --- what is in a file ----------------------------------------------------------------------------------------------------------------


def format_text(name: str, number: int, fields: Sequence[Field], print_format: str = '""') -> str:
    """An event format as tracefs shows it."""

    def lines(some: Sequence[Field]) -> str:
        return "".join(f"\tfield:{decl};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n" for decl, offset, size, signed in some)

    return f"name: {name}\nID: {number}\nformat:\n{lines(COMMON)}\n{lines(fields)}\nprint fmt: {print_format}\n"


def cpu_stats(cpu: int, *, entries: int = 0, overrun: int = 0, commit_overrun: int = 0, dropped: int = 0) -> str:
    """What the kernel counted for a CPU, as tracefs `per_cpu/cpuN/stats` shows it after trace-cmd's line with the CPU."""
    return f"CPU: {cpu}\nentries: {entries}\noverrun: {overrun}\ncommit overrun: {commit_overrun}\ndropped events: {dropped}\n"


@dataclass
class Instance:
    """A ring buffer.

    Attributes:
        cpus: CPU -> its data: blocks of bytes that are one or more whole sub-buffers each, taken once and one at a time.
        name: "" for the top buffer.
        clock: its trace clock.
        stats: one text a CPU, as `cpu_stats` makes it.
        text: tracefs `trace`, as a latency tracer leaves it in place of event data; in version 6 the top buffer alone can have it.
        page: bytes of its sub-buffers where they are not those of the top buffer; version 7 alone can say so.
    """

    cpus: Mapping[int, Iterable[bytes]]
    name: str = ""
    clock: str = "global"
    stats: Sequence[str] = ()
    text: bytes | None = None
    page: int | None = None


@dataclass
class Trace:
    """What is in a file.

    Attributes:
        instances: the top buffer first.
        systems: system -> its event formats (`format_text`).
        ftrace: the formats of ftrace's own events.
        cmdlines: "TID COMM" a line.
        uname: "Linux HOST RELEASE MACHINE".
        page: bytes of a sub-buffer, header included.
        options: further options: id, contents in the byte order of the file.
        order, long_size: of the kernel.
        kallsyms: as /proc/kallsyms.
        printk: as tracefs `printk_formats`.
        writer: the program that made the file.
        cpu_count: CPUs of the machine, where it is more than those of `instances`.
    """

    instances: list[Instance]
    systems: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ftrace: Sequence[str] = ()
    cmdlines: str = ""
    uname: str = "Linux host 6.1.0-test x86_64"
    page: int = PAGE
    options: Sequence[tuple[int, bytes]] = ()
    order: ByteOrder = "little"
    long_size: LongSize = 8
    kallsyms: str = ""
    printk: str = ""
    writer: str = "0.0 test"
    cpu_count: int = 0

    @property
    def cpus(self) -> int:
        """CPUs of the machine."""
        return max(self.cpu_count, *(cpu + 1 for instance in self.instances for cpu in instance.cpus), 1)

    def save(self, file: BinaryIO, version: str) -> None:
        """Write it to a seekable file, from byte 0 on, as one of VERSIONS.

        Raises:
            ValueError: no such version, or something that version 6 cannot say.
            OSError: the file cannot be written.
        """
        if version not in VERSIONS:
            raise ValueError(f"no version {version!r}; there is: {', '.join(VERSIONS)}")
        out = _Out(file, self.order)
        if version == "v6":
            _save_v6(self, out)
        else:
            _V7(self, version.removeprefix("v7").removeprefix("-") or "none", out).save()

    def write(self, version: str) -> bytes:
        """The same, in memory."""
        file = io.BytesIO()
        self.save(file, version)
        return file.getvalue()


# --- how it is laid out ---------------------------------------------------------------------------------------------------------------


class _Out:
    """A file in the making: integers in its byte order, and places that are filled in once it is known with what."""

    def __init__(self, file: BinaryIO, order: ByteOrder) -> None:
        self._file = file
        self._mark = _mark(order)
        self.at = 0

    def bytes_of(self, layout: str, *values: int) -> bytes:
        return struct.pack(self._mark + layout, *values)

    def raw(self, *blocks: bytes) -> None:
        for block in blocks:
            self._file.write(block)
            self.at += len(block)

    def numbers(self, layout: str, *values: int) -> int:
        """Write integers; returns where, for `fill`."""
        at = self.at
        self.raw(self.bytes_of(layout, *values))
        return at

    def fill(self, at: int, layout: str, *values: int) -> None:
        self._file.seek(at)
        self._file.write(self.bytes_of(layout, *values))
        self._file.seek(self.at)

    def option(self, kind: int, body: bytes) -> int:
        """Write an option; returns where its contents are."""
        self.numbers("HI", kind, len(body))
        at = self.at
        self.raw(body)
        return at

    def align(self, size: int) -> None:
        self.raw(bytes(-self.at % size))

    def sized(self, layout: str, block: bytes) -> bytes:
        """A block after its length."""
        return self.bytes_of(layout, len(block)) + block

    def counted(self, texts: Sequence[str]) -> bytes:
        """Texts after their number, each after its length."""
        return self.bytes_of("I", len(texts)) + b"".join(self.sized("Q", text.encode()) for text in texts)


def _preamble(trace: Trace, version: int, out: _Out) -> None:
    out.raw(MAGIC, str(version).encode(), b"\0", bytes([trace.order == "big", trace.long_size]))
    out.numbers("I", trace.page)


def _blocks(trace: Trace, out: _Out) -> Iterator[tuple[int, bytes]]:
    """The blocks of metadata: section id, contents, the same in both versions."""
    head = 8 + trace.long_size
    page = HEADER_PAGE.format(long=trace.long_size, head=head, size=trace.page - head).encode()
    yield _HEADER_INFO, b"header_page\0" + out.sized("Q", page) + b"header_event\0" + out.sized("Q", HEADER_EVENT.encode())
    yield _FTRACE, out.counted(trace.ftrace)
    systems = (name.encode() + b"\0" + out.counted(texts) for name, texts in trace.systems.items())
    yield _FORMATS, out.bytes_of("I", len(trace.systems)) + b"".join(systems)
    yield _KALLSYMS, out.sized("I", trace.kallsyms.encode())
    yield _PRINTK, out.sized("I", trace.printk.encode())
    yield _CMDLINES, out.sized("Q", trace.cmdlines.encode())


def _told(trace: Trace, out: _Out) -> Iterator[tuple[int, bytes]]:
    """The options that are the same in both versions."""
    yield _CLOCK, f"local [{trace.instances[0].clock}] counter\0".encode()
    yield _UNAME, trace.uname.encode() + b"\0"
    yield _VERSION, trace.writer.encode() + b"\0"
    yield _CPUS, out.bytes_of("I", trace.cpus)
    for instance in trace.instances:
        if instance.stats and instance.name:
            yield _CPUSTAT, f"\nBuffer: {instance.name}\n\n\0".encode()
        for text in instance.stats:
            yield _CPUSTAT, text.encode() + b"\0"
    yield from trace.options


def _save_v6(trace: Trace, out: _Out) -> None:
    """Blocks back to back, the tables of where the data lie, the data."""
    top, *others = trace.instances
    if any(instance.page not in (None, trace.page) for instance in trace.instances) or any(other.text is not None for other in others):
        raise ValueError("version 6 has one size of sub-buffers, and text of the top buffer alone")
    _preamble(trace, 6, out)
    out.raw(*(block for _, block in _blocks(trace, out)))
    out.numbers("I", trace.cpus)
    out.raw(b"options  \0")
    for kind, body in _told(trace, out):
        # With it, trace-cmd expects the clock's name again where the text begins.
        if kind != _CLOCK or top.text is None:
            out.option(kind, body)
    pointers = [out.option(_BUFFER, out.bytes_of("Q", 0) + other.name.encode() + b"\0") for other in others]
    out.numbers("H", _DONE)
    if top.text is not None:
        out.raw(b"latency  \0", top.text)
        return
    tables: list[int] = []
    for instance in trace.instances:
        if instance is not top:
            out.fill(pointers[len(tables) - 1], "Q", out.at)
        out.raw(b"flyrecord\0")
        tables.append(out.numbers(f"{2 * trace.cpus}Q", *[0] * (2 * trace.cpus)))
        out.raw(out.sized("Q", f"[{instance.clock}]".encode()))
    for instance, table in zip(trace.instances, tables, strict=True):
        for cpu in range(trace.cpus):
            out.align(trace.page)
            at = out.at
            for block in instance.cpus.get(cpu, ()):
                out.raw(block)
            out.fill(table + 16 * cpu, "QQ", at, out.at - at)


class _V7:
    """Sections, one after the other, and two sections of options that point at them."""

    def __init__(self, trace: Trace, codec: str, out: _Out) -> None:
        self._trace = trace
        self._codec = codec
        self._out = out
        self._pack = _packer(codec)

    def save(self) -> None:
        trace, out = self._trace, self._out
        _preamble(trace, 7, out)
        out.raw(self._codec.encode(), b"\0\0" if self._codec == "none" else b"\x001\0")
        index = out.numbers("Q", 0)
        sections = [(kind, out.bytes_of("Q", self._section(kind, block))) for kind, block in _blocks(trace, out)]
        buffers = [self._text(instance) if instance.text is not None else self._buffer(instance) for instance in trace.instances]
        # Two sections of options: a reader has to follow the chain.
        last = self._options(buffers, 0)
        out.fill(index, "Q", self._options([*sections, *_told(trace, out)], last))

    def _header(self, kind: int, *, packed: bool) -> int:
        """Write the header of a section; returns where, for `_end`."""
        return self._out.numbers("HHIQ", kind, packed, 0xFFFFFFFF, 0)

    def _end(self, header: int) -> None:
        self._out.fill(header + 8, "Q", self._out.at - header - 16)

    def _section(self, kind: int, block: bytes) -> int:
        header = self._header(kind, packed=self._pack is not None)
        if self._pack is None:
            self._out.raw(block)
        else:
            packed = self._pack(block)
            self._out.numbers("II", len(packed), len(block))
            self._out.raw(packed)
        self._end(header)
        return header

    def _options(self, options: Iterable[tuple[int, bytes]], following: int) -> int:
        header = self._header(_DONE, packed=False)
        for kind, body in options:
            self._out.option(kind, body)
        self._out.option(_DONE, self._out.bytes_of("Q", following))
        self._end(header)
        return header

    def _buffer(self, instance: Instance) -> tuple[int, bytes]:
        """Write the section of a buffer; returns the option that points at it."""
        out, page = self._out, instance.page or self._trace.page
        header = self._header(_BUFFER, packed=self._pack is not None)
        table = b""
        for cpu, blocks in sorted(instance.cpus.items()):
            out.align(page)
            at = out.at
            self._data(blocks, PAGES_IN_CHUNK * page)
            table += out.bytes_of("IQQ", cpu, at, out.at - at)
        self._end(header)
        return _BUFFER, self._named(header, instance) + out.bytes_of("II", page, len(instance.cpus)) + table

    def _text(self, instance: Instance) -> tuple[int, bytes]:
        header = self._header(_TEXT, packed=self._pack is not None)
        self._data([instance.text or b""], PAGES_IN_CHUNK * self._trace.page)
        self._end(header)
        return _TEXT, self._named(header, instance)

    def _named(self, header: int, instance: Instance) -> bytes:
        return self._out.bytes_of("Q", header) + instance.name.encode() + b"\0" + instance.clock.encode() + b"\0"

    def _data(self, blocks: Iterable[bytes], chunk_size: int) -> None:
        if self._pack is None:
            for block in blocks:
                self._out.raw(block)
            return
        count, number = 0, self._out.numbers("I", 0)
        for chunk in _regrouped(blocks, chunk_size):
            packed = self._pack(chunk)
            self._out.numbers("II", len(packed), len(chunk))
            self._out.raw(packed)
            count += 1
        self._out.fill(number, "I", count)


def _regrouped(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in blocks of `size`, the last one maybe shorter."""
    held = bytearray()
    for block in blocks:
        held += block
        whole = len(held) // size * size
        for at in range(0, whole, size):
            yield bytes(held[at : at + size])
        del held[:whole]
    if held:
        yield bytes(held)


def pack(codec: str, block: bytes) -> bytes:
    """The block, compressed with "zstd" or "zlib" as trace-cmd does."""
    packer = _packer(codec)
    return block if packer is None else packer(block)


def _packer(codec: str) -> Callable[[bytes], bytes] | None:
    if codec == "none":
        return None
    if codec == "zlib":
        return zlib.compress
    import zstandard

    # trace-cmd's frames do not say how much they hold: lib/trace-cmd/trace-compress-zstd.c.
    compressor: Any = zstandard.ZstdCompressor(write_content_size=False)
    return lambda block: bytes(compressor.compress(block))
