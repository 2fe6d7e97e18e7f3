"""trace.dat version 6: all blocks back to back, then options, then the table of what each CPU recorded.

Layout: trace-cmd, lib/trace-cmd/trace-input.c (`read_options_type`, `read_cpu_data`, `init_data_v6`).
"""

from __future__ import annotations

from typing import Final

from .cursor import LONGEST_NAME, Cursor, text
from .options import MOST_OPTIONS, Option, Options, chosen_clock
from .tracedat import (
    MOST_TABLE,
    Buffer,
    CpuData,
    Parts,
    Preamble,
    Recording,
    TextBlock,
    assemble,
    read_cmdlines,
    read_event_formats,
    read_ftrace_formats,
    read_header_info,
    sized_block,
)

_TAG_SIZE: Final = 10
_OPTIONS: Final = b"options  \0"
_FLYRECORD: Final = b"flyrecord\0"
_LATENCY: Final = b"latency  \0"


def read_rest(cursor: Cursor, preamble: Preamble) -> Recording:
    """The file after its preamble.

    Raises:
        ParseError: it is damaged or cut off before the event data.
    """
    layout = read_header_info(cursor)
    parts = Parts(layout)
    for read in (read_ftrace_formats, read_event_formats):
        parts.formats += read(cursor, layout.long_size, parts.damage)
    parts.kallsyms, parts.printk = sized_block(cursor, "kernel symbols"), sized_block(cursor, "printk formats")
    parts.cmdlines = read_cmdlines(cursor)
    cpus = cursor.u32("CPU count")
    options = Options(cpus=cpus)
    tag = bytes(cursor.take(_TAG_SIZE, "tag of the options"))
    if tag == _OPTIONS:
        _read_options(cursor, options)
        tag = bytes(cursor.take(_TAG_SIZE, "tag of the event data"))
    if tag == _LATENCY:
        parts.text.append(TextBlock("", options.clock, cursor.at, cursor.left, packed=False))
        return assemble(preamble, parts, options)
    tables = _Tables(cursor, layout.size, options)
    parts.buffers.append(tables.read(tag, "", cpus))
    for body, own_cpus in options.buffers:
        offset, name = body.u64("offset of a buffer"), body.string("name of a buffer")
        cursor.seek(offset, f"buffer {name!r}")
        tag = bytes(cursor.take(_TAG_SIZE, f"tag of buffer {name!r}"))
        parts.buffers.append(tables.read(tag, name, cpus if own_cpus is None else own_cpus))
    options.cpus = cpus
    return assemble(preamble, parts, options)


def _read_options(cursor: Cursor, options: Options) -> None:
    for _ in range(MOST_OPTIONS):
        kind = cursor.u16("id of an option")
        if kind == Option.DONE:
            return
        size = cursor.count(4, 1, f"bytes of option {kind}")
        options.add(kind, cursor.part(size, f"option {kind}"))
    raise cursor.error("the options have no end", "the file is damaged")


class _Tables:
    """The tables of event data, one a buffer."""

    def __init__(self, cursor: Cursor, page_size: int, options: Options) -> None:
        self._cursor = cursor
        self._page_size = page_size
        self._has_clock = options.has_clock
        self._left = MOST_TABLE

    def read(self, tag: bytes, name: str, cpus: int) -> Buffer:
        cursor = self._cursor
        if tag != _FLYRECORD:
            raise cursor.error("expected the table of event data", "the file is cut off or damaged")
        # Many buffers could name one place: the bytes that are left bound a table, not all of them together.
        self._left -= cpus
        if cpus * 16 > cursor.left or self._left < 0:
            raise cursor.error(f"a table of {cpus} CPUs cannot follow in {cursor.left} bytes", "the file is cut off or damaged")
        places = enumerate(cursor.records("QQ", cpus, "the table of event data"))
        table = [CpuData(cpu, offset, size) for cpu, (offset, size) in places if size]
        clock = chosen_clock(text(cursor.sized(8, "trace clock")[:LONGEST_NAME])) if self._has_clock else None
        return Buffer(name, clock, self._page_size, False, tuple(table))
