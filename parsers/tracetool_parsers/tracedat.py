"""trace.dat: the preamble, and the blocks of metadata that versions 6 and 7 have in common.

After the preamble version 6 is one flat sequence (`tracedat_v6`), version 7 a chain of sections (`tracedat_v7`); the blocks inside are
the same. Nothing here touches event data: a Recording says where they lie. Layout: trace-cmd, lib/trace-cmd/trace-input.c
(`tracecmd_alloc_fd`, `read_headers_v6`, `read_headers_v7`) and Documentation/trace-cmd/trace-cmd.dat.v7.5.txt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from .codec import CODECS
from .cursor import Cursor, text
from .errors import ParseError
from .eventformat import EventFormat, parse_format
from .options import CpuStat, Options
from .sniff import TRACE_DAT_MAGIC

#: The kernel keeps an offset in a sub-buffer in 20 bits: Linux, kernel/trace/ring_buffer.c, RB_WRITE_MASK.
MOST_SUBBUFFER: Final = 1 << 20
#: Linux, include/linux/threads.h, PID_MAX_LIMIT: no thread id is larger.
MOST_TID: Final = 1 << 22
_MOST_CPUS: Final = 1 << 16
_DAMAGED: Final = "the file is cut off or damaged; copy it again"


@dataclass(frozen=True, slots=True)
class CpuData:
    """Where the sub-buffers of one CPU lie: byte offset and size in the file."""

    cpu: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Buffer:
    """One ring buffer instance.

    Attributes:
        name: "" for the top buffer.
        clock: its trace clock, None where the file names none.
        page_size: bytes of a sub-buffer, header included.
        packed: whether its data are compressed, in chunks.
        cpus: the CPUs that have data, by number.
    """

    name: str
    clock: str | None
    page_size: int
    packed: bool
    cpus: tuple[CpuData, ...]


@dataclass(frozen=True, slots=True)
class Preamble:
    """The first bytes of a file.

    Attributes:
        version: 6 or 7.
        page_size: bytes of a sub-buffer, as the preamble says.
        codec: "none", "zlib" or "zstd"; always "none" in version 6.
        options_at: byte offset of the first options section, 0 in version 6.
    """

    version: int
    page_size: int
    codec: str
    options_at: int


@dataclass(frozen=True, slots=True)
class Recording:
    """Everything a file says but the events themselves.

    Attributes:
        preamble: version, codec, page size.
        formats: of all events.
        cmdlines: thread id -> saved command name.
        buffers: where the event data lie, the top buffer first.
        uname, writer: as the recorder wrote them, None where it did not.
        clock: the trace clock of the top buffer, None where no text names it.
        cpus: the number of CPUs of the machine.
        shift_ns, tsc: how time stamps become nanoseconds: see `Options`.
        stats: what the kernel counted as lost.
        notes: what was skipped.
    """

    preamble: Preamble
    formats: tuple[EventFormat, ...]
    cmdlines: dict[int, str]
    buffers: tuple[Buffer, ...]
    uname: str | None
    writer: str | None
    clock: str | None
    cpus: int
    shift_ns: int
    tsc: tuple[int, int] | None
    stats: tuple[CpuStat, ...]
    notes: tuple[str, ...]


def read_recording(data: memoryview, path: str) -> Recording:
    """Read the metadata of a trace.dat whose bytes are `data`.

    Raises:
        ParseError: the metadata are damaged or cut off, or of a kind that is not read (big endian, 32-bit kernels, latency traces).
    """
    from . import tracedat_v6, tracedat_v7

    cursor = Cursor(data, path)
    preamble = _read_preamble(cursor)
    if preamble.version == 6:
        return tracedat_v6.read_rest(cursor, preamble)
    return tracedat_v7.read_rest(cursor, preamble)


def _read_preamble(cursor: Cursor) -> Preamble:
    cursor.take(len(TRACE_DAT_MAGIC), "magic")
    at = cursor.offset
    version = cursor.string("file version")
    if version not in ("6", "7"):
        hint = "versions 6 and 7 are read; `trace-cmd convert` makes a version 7 file of it"
        raise ParseError(f"trace.dat of unknown version {version[:20]!r}", path=cursor.path, offset=at, hint=hint)
    if cursor.integer(1, "byte order") != 0:
        raise cursor.error("a big-endian trace.dat is not read yet", "record on, or convert on, a little-endian machine")
    cursor.take(1, "size of long")
    page_size = cursor.u32("page size")
    if version == "6":
        return Preamble(6, page_size, "none", 0)
    at = cursor.offset
    codec = cursor.string("name of the codec")
    cursor.string("version of the codec")
    if codec not in CODECS:
        message = f"compressed with an unknown codec {codec[:20]!r}"
        raise ParseError(message, path=cursor.path, offset=at, hint=f"read are: {', '.join(CODECS)}")
    return Preamble(7, page_size, codec, cursor.u64("offset of the options"))


def read_header_info(cursor: Cursor) -> int:
    """The block of header_page and header_event; returns the bytes of a sub-buffer, header included.

    Raises:
        ParseError: the sub-buffers are not those of a 64-bit kernel since 2.6.31.
    """
    _expect(cursor, b"header_page\0")
    at = cursor.offset
    described = text(cursor.sized(8, "header_page"))
    _expect(cursor, b"header_event\0")
    cursor.sized(8, "header_event")
    fields = {name: (int(offset), int(size)) for name, offset, size in _HEADER_FIELD.findall(described)}
    if "commit" not in fields or "data" not in fields:
        raise ParseError("header_page does not say where the data are", path=cursor.path, offset=at, hint=_DAMAGED)
    (commit_at, long_size), (data_at, data_size) = fields["commit"], fields["data"]
    if long_size == 4:
        raise ParseError("a trace of a 32-bit kernel is not read yet", path=cursor.path, offset=at, hint="record on a 64-bit kernel")
    if (commit_at, long_size, data_at) != (8, 8, 16):
        raise ParseError("header_page describes sub-buffers of no known kind", path=cursor.path, offset=at, hint=_DAMAGED)
    return checked_page_size(data_at + data_size, cursor.path, at)


_HEADER_FIELD: Final = re.compile(r"field:[^;\n]*?(\w+);\s*offset:(\d{1,9});\s*size:(\d{1,9});")


def checked_page_size(size: int, path: str, offset: int) -> int:
    """The size of a sub-buffer, if it can be one.

    Raises:
        ParseError: it is none that a kernel makes.
    """
    if not 64 <= size <= MOST_SUBBUFFER or size % 8:
        raise ParseError(f"sub-buffers of {size} bytes are not possible", path=path, offset=offset, hint=_DAMAGED)
    return size


def _expect(cursor: Cursor, word: bytes) -> None:
    at = cursor.offset
    if bytes(cursor.take(len(word), repr(word[:-1].decode()))) != word:
        raise ParseError(f"expected {word[:-1].decode()!r}", path=cursor.path, offset=at, hint=_DAMAGED)


def read_formats(cursor: Cursor, system: str, count: int) -> list[EventFormat]:
    """`count` event formats of one system, each after its u64 length."""
    formats = []
    for _ in range(count):
        at = cursor.offset
        described = text(cursor.sized(8, f"an event format of {system}"))
        # ftrace's own list may hold empty entries; they describe nothing.
        if described.strip():
            formats.append(parse_format(described, system, path=cursor.path, offset=at))
    return formats


def read_ftrace_formats(cursor: Cursor) -> list[EventFormat]:
    """The block of the events that ftrace itself makes (print, kernel_stack, ...)."""
    return read_formats(cursor, "ftrace", cursor.count(4, 8, "ftrace formats"))


def read_event_formats(cursor: Cursor) -> list[EventFormat]:
    """The block of all other events, by system."""
    formats = []
    for _ in range(cursor.count(4, 5, "event systems")):
        system = cursor.string("name of an event system")
        formats += read_formats(cursor, system, cursor.count(4, 8, f"formats of {system}"))
    return formats


def read_cmdlines(cursor: Cursor) -> dict[int, str]:
    """The block of saved command lines, "TID COMM" a line; a name may hold spaces. Lines of no possible thread are left out."""
    names = {}
    for line in text(cursor.sized(8, "saved command lines")).split("\n"):
        tid, space, name = line.partition(" ")
        if space and tid.isascii() and tid.isdecimal() and len(tid) <= 7 and int(tid) <= MOST_TID:
            names[int(tid)] = name
    return names


def assemble(
    preamble: Preamble, formats: list[EventFormat], cmdlines: dict[int, str], buffers: list[Buffer], options: Options
) -> Recording:
    """Everything read, as one Recording."""
    with_data = max((cpu.cpu + 1 for buffer in buffers for cpu in buffer.cpus), default=0)
    distinct, notes = _distinct(formats)
    named = next((buffer.clock for buffer in buffers if buffer.clock), None)
    return Recording(
        preamble,
        distinct,
        cmdlines,
        tuple(buffers),
        options.uname,
        options.writer,
        named or options.clock,
        max(with_data, min(options.cpus or 0, _MOST_CPUS)),
        options.shift_ns,
        options.tsc,
        tuple(options.stats),
        (*options.notes, *notes),
    )


def _distinct(formats: list[EventFormat]) -> tuple[tuple[EventFormat, ...], list[str]]:
    """The formats without those whose name or id an earlier one has: a file cannot mean both."""
    names: set[str] = set()
    ids: set[int] = set()
    distinct, notes = [], []
    for event in formats:
        if event.full_name in names or event.id in ids:
            notes.append(f"a second format of {event.full_name} or of id {event.id} is left out")
            continue
        names.add(event.full_name)
        ids.add(event.id)
        distinct.append(event)
    return tuple(distinct), notes
