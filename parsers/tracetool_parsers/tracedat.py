"""trace.dat: the preamble, and the blocks of metadata that versions 6 and 7 have in common.

After the preamble version 6 is one flat sequence (`tracedat_v6`), version 7 a chain of sections (`tracedat_v7`); the blocks inside are
the same. Nothing here touches event data: a Recording says where they lie. Layout: trace-cmd, lib/trace-cmd/trace-input.c
(`tracecmd_alloc_fd`, `read_headers_v6`, `read_headers_v7`) and Documentation/trace-cmd/trace-cmd.dat.v7.5.txt.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from .codec import CODECS
from .cursor import LONGEST_NAME, ByteOrder, Cursor, text
from .errors import ParseError
from .eventformat import EventFormat, parse_format
from .metadata import ProcessMaps
from .options import CpuStat, Damage, Guest, Options
from .sniff import TRACE_DAT_MAGIC
from .timefix import TimeFix

#: Size of the kernel's `long`.
LongSize = Literal[4, 8]

#: The kernel keeps an offset in a sub-buffer in 20 bits: Linux, kernel/trace/ring_buffer.c, RB_WRITE_MASK.
MOST_SUBBUFFER: Final = 1 << 20
#: Linux, include/linux/threads.h, PID_MAX_LIMIT: no thread id is larger.
MOST_TID: Final = 1 << 22
#: The kernel saves at most 32,768: Linux, kernel/trace/trace_sched_switch.c, tracing_saved_cmdlines_size_write, PID_MAX_DEFAULT.
_MOST_CMDLINES: Final = 1 << 18
_MOST_CPUS: Final = 1 << 16
#: CPU tables of all buffers together: more than 32 buffers of the largest machine have.
MOST_TABLE: Final = 1 << 18
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
class Block:
    """Where a text lies that is read when it is asked for.

    Attributes:
        offset: byte of the file where it starts.
        size: its bytes there.
        packed: whether it is compressed, as one block: `unpack_section`.
    """

    offset: int
    size: int
    packed: bool


@dataclass(frozen=True, slots=True)
class TextBlock:
    """The text of tracefs `trace`, which a latency tracer leaves in place of event data.

    Attributes:
        name: of the buffer, "" for the top one.
        clock: its trace clock, None where the file names none.
        offset: byte of the file where it starts.
        size: its bytes there; more than there are where the file is cut off.
        packed: whether it is compressed, in chunks like event data.
    """

    name: str
    clock: str | None
    offset: int
    size: int
    packed: bool


@dataclass(frozen=True, slots=True)
class Preamble:
    """The first bytes of a file.

    Attributes:
        version: 6 or 7.
        order: of the bytes of all numbers in the file, event data included.
        page_size: bytes of a sub-buffer, as the preamble says.
        codec: "none", "zlib" or "zstd"; always "none" in version 6.
        options_at: byte offset of the first options section, 0 in version 6.
    """

    version: int
    order: ByteOrder
    page_size: int
    codec: str
    options_at: int


@dataclass(frozen=True, slots=True)
class PageLayout:
    """What header_page says of sub-buffers.

    Attributes:
        long_size: bytes of the kernel's `long`: of `commit`, of a count of lost events, of pointers and longs in events.
        data_at: bytes before the first record.
        size: bytes of a sub-buffer, those included.
    """

    long_size: LongSize
    data_at: int
    size: int


@dataclass(frozen=True, slots=True)
class Recording:
    """Everything a file says but the events themselves.

    Attributes:
        preamble: version, byte order, codec, page size.
        long_size: bytes of the recorded kernel's `long`.
        formats: of all events.
        cmdlines: thread id -> saved command name.
        buffers: where the event data lie, the top buffer first.
        text: where text lies in place of event data.
        uname, writer: as the recorder wrote them, None where it did not.
        clock: the trace clock of the top buffer, None where no text names it.
        cpus: the number of CPUs of the machine.
        times: how time stamps become nanoseconds.
        stats: what the kernel counted as lost.
        trace_id, peer_id, guests, procmaps, hooks, last_boot: see `Options`.
        kallsyms, printk: where the kernel's symbols and printk formats lie (`symbols`); None where the file has none.
        damage: what of the metadata is damaged or cut off, while events can be read without it: to be strict is to refuse it.
        notes: what was skipped, and the damage.
    """

    preamble: Preamble
    long_size: LongSize
    formats: tuple[EventFormat, ...]
    cmdlines: dict[int, str]
    buffers: tuple[Buffer, ...]
    text: tuple[TextBlock, ...]
    uname: str | None
    writer: str | None
    clock: str | None
    cpus: int
    times: TimeFix
    stats: tuple[CpuStat, ...]
    trace_id: int | None
    peer_id: int | None
    guests: tuple[Guest, ...]
    procmaps: tuple[ProcessMaps, ...]
    hooks: tuple[str, ...]
    last_boot: Mapping[str, str]
    kallsyms: Block | None
    printk: Block | None
    damage: tuple[Damage, ...]
    notes: tuple[str, ...]

    @property
    def order(self) -> ByteOrder:
        """Byte order of the file and its event data."""
        return self.preamble.order


@dataclass
class Parts:
    """What the blocks of metadata hold, as they are read: see `Recording`."""

    layout: PageLayout
    formats: list[EventFormat] = field(default_factory=list)
    cmdlines: dict[int, str] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    text: list[TextBlock] = field(default_factory=list)
    kallsyms: Block | None = None
    printk: Block | None = None
    damage: list[Damage] = field(default_factory=list)


def read_recording(data: memoryview, path: str) -> Recording:
    """Read the metadata of a trace.dat whose bytes are `data`.

    Raises:
        ParseError: the metadata are damaged or cut off, so that no event can be read, or of a version or codec that is not known.
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
    at = cursor.offset
    endian = cursor.integer(1, "byte order")
    if endian > 1:
        raise ParseError(f"a byte order of {endian} is not possible", path=cursor.path, offset=at, hint=_DAMAGED)
    cursor.order = "big" if endian else "little"
    # Of the program that recorded, not of the kernel: header_page says the kernel's.
    cursor.take(1, "size of long")
    page_size = cursor.u32("page size")
    if version == "6":
        return Preamble(6, cursor.order, page_size, "none", 0)
    at = cursor.offset
    codec = cursor.string("name of the codec")
    cursor.string("version of the codec")
    if codec not in CODECS:
        message = f"compressed with an unknown codec {codec[:20]!r}"
        raise ParseError(message, path=cursor.path, offset=at, hint=f"read are: {', '.join(CODECS)}")
    return Preamble(7, cursor.order, page_size, codec, cursor.u64("offset of the options"))


def read_header_info(cursor: Cursor) -> PageLayout:
    """The block of header_page and header_event.

    Raises:
        ParseError: the sub-buffers are not those of a kernel since 2.6.31.
    """
    _expect(cursor, b"header_page\0")
    at = cursor.offset
    described = text(cursor.sized(8, "header_page")[:LONGEST_NAME])
    _expect(cursor, b"header_event\0")
    cursor.sized(8, "header_event")
    fields = {name: (int(offset), int(size)) for name, offset, size in _HEADER_FIELD.findall(described)}
    if "commit" not in fields or "data" not in fields:
        raise ParseError("header_page does not say where the data are", path=cursor.path, offset=at, hint=_DAMAGED)
    (commit_at, long_size), (data_at, data_size) = fields["commit"], fields["data"]
    if commit_at != 8 or long_size not in (4, 8) or data_at != 8 + long_size:
        raise ParseError("header_page describes sub-buffers of no known kind", path=cursor.path, offset=at, hint=_DAMAGED)
    size = checked_page_size(data_at + data_size, cursor.path, at)
    return PageLayout(4 if long_size == 4 else 8, data_at, size)


_HEADER_FIELD: Final = re.compile(r"field:[^;\n]{1,200}\b(\w+);[\t ]*offset:(\d{1,9});[\t ]*size:(\d{1,9});")


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


def read_formats(cursor: Cursor, long_size: LongSize, damage: list[Damage], system: str, count: int) -> list[EventFormat]:
    """`count` event formats of one system, each after its u64 length; one that cannot be read is left out, and added to `damage`."""
    formats = []
    for _ in range(count):
        at = cursor.offset
        described = text(cursor.sized(8, f"an event format of {system}"))
        # ftrace's own list may hold empty entries; they describe nothing.
        if described.strip():
            try:
                formats.append(parse_format(described, system, path=cursor.path, offset=at, long_size=long_size))
            except ParseError as error:
                damage.append(Damage(at, f"{error.message}: its events have no names"))
    return formats


def read_ftrace_formats(cursor: Cursor, long_size: LongSize, damage: list[Damage]) -> list[EventFormat]:
    """The block of the events that ftrace itself makes (print, kernel_stack, ...)."""
    return read_formats(cursor, long_size, damage, "ftrace", cursor.count(4, 8, "ftrace formats"))


def read_event_formats(cursor: Cursor, long_size: LongSize, damage: list[Damage]) -> list[EventFormat]:
    """The block of all other events, by system."""
    formats = []
    for _ in range(cursor.count(4, 5, "event systems")):
        system = cursor.string("name of an event system")
        formats += read_formats(cursor, long_size, damage, system, cursor.count(4, 8, f"formats of {system}"))
    return formats


def read_cmdlines(cursor: Cursor) -> dict[int, str]:
    """The block of saved command lines, "TID COMM" a line; a name may hold spaces. Lines of no possible thread are left out."""
    block = bytes(cursor.sized(8, "saved command lines")).split(b"\0", 1)[0]
    lines = itertools.islice(_CMDLINE.finditer(block), _MOST_CMDLINES)
    return {int(line[1]): line[2].decode("utf-8", "replace") for line in lines if int(line[1]) <= MOST_TID}


_CMDLINE: Final = re.compile(rb"^(\d{1,7}) (.*)$", re.MULTILINE)


def sized_block(cursor: Cursor, what: str) -> Block | None:
    """A text after its u32 length, which is stepped over; None where it is empty."""
    size = cursor.count(4, 1, f"length of {what}")
    block = Block(cursor.at, size, packed=False) if size else None
    cursor.take(size, what)
    return block


def assemble(preamble: Preamble, parts: Parts, options: Options) -> Recording:
    """Everything read, as one Recording."""
    with_data = max((cpu.cpu + 1 for buffer in parts.buffers for cpu in buffer.cpus), default=0)
    distinct, notes = _distinct(parts.formats)
    clocks = [buffer.clock for buffer in parts.buffers] + [block.clock for block in parts.text]
    named = next((clock for clock in clocks if clock), None)
    damage = (*options.damage, *parts.damage)
    return Recording(
        preamble=preamble,
        long_size=parts.layout.long_size,
        formats=distinct,
        cmdlines=parts.cmdlines,
        buffers=tuple(parts.buffers),
        text=tuple(parts.text),
        uname=options.uname,
        writer=options.writer,
        clock=named or options.clock,
        cpus=max(with_data, min(options.cpus or 0, _MOST_CPUS)),
        times=options.times,
        stats=tuple(options.stats),
        trace_id=options.trace_id,
        peer_id=options.peer_id,
        guests=tuple(options.guests),
        procmaps=tuple(options.procmaps),
        hooks=tuple(options.hooks),
        last_boot=options.last_boot,
        kallsyms=parts.kallsyms,
        printk=parts.printk,
        damage=damage,
        notes=(*options.notes, *notes, *(f"{what} (at byte {offset})" for offset, what in damage)),
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
