"""trace.dat version 6: all blocks back to back, then options, then the table of what each CPU recorded.

Layout: trace-cmd, lib/trace-cmd/trace-input.c (`read_options_type`, `read_cpu_data`, `init_data_v6`).
"""

from __future__ import annotations

from typing import Final

from .cursor import Cursor, text
from .options import MOST_OPTIONS, Option, Options, chosen_clock
from .tracedat import (
    Buffer,
    CpuData,
    Preamble,
    Recording,
    assemble,
    read_cmdlines,
    read_event_formats,
    read_ftrace_formats,
    read_header_info,
)

_TAG_SIZE: Final = 10
_OPTIONS: Final = b"options  \0"
_FLYRECORD: Final = b"flyrecord\0"
_LATENCY: Final = b"latency  \0"


def read_rest(cursor: Cursor, preamble: Preamble) -> Recording:
    """The file after its preamble.

    Raises:
        ParseError: it is damaged or cut off before the event data, or holds the text of a latency tracer.
    """
    page_size = read_header_info(cursor)
    formats = read_ftrace_formats(cursor) + read_event_formats(cursor)
    cursor.sized(4, "kernel symbols")
    cursor.sized(4, "printk formats")
    cmdlines = read_cmdlines(cursor)
    cpus = cursor.u32("CPU count")
    options = Options(cpus=cpus)
    tag = bytes(cursor.take(_TAG_SIZE, "tag of the options"))
    if tag == _OPTIONS:
        _read_options(cursor, options)
        tag = bytes(cursor.take(_TAG_SIZE, "tag of the event data"))
    buffers = [_read_table(cursor, tag, "", cpus, page_size, options)]
    for body, own_cpus in options.buffers:
        offset, name = body.u64("offset of a buffer"), body.string("name of a buffer")
        cursor.seek(offset, f"buffer {name!r}")
        tag = bytes(cursor.take(_TAG_SIZE, f"tag of buffer {name!r}"))
        buffers.append(_read_table(cursor, tag, name, cpus if own_cpus is None else own_cpus, page_size, options))
    options.cpus = cpus
    return assemble(preamble, formats, cmdlines, buffers, options)


def _read_options(cursor: Cursor, options: Options) -> None:
    for _ in range(MOST_OPTIONS):
        kind = cursor.u16("id of an option")
        if kind == Option.DONE:
            return
        size = cursor.count(4, 1, f"bytes of option {kind}")
        options.add(kind, cursor.part(size, f"option {kind}"))
    raise cursor.error("the options have no end", "the file is damaged")


def _read_table(cursor: Cursor, tag: bytes, name: str, cpus: int, page_size: int, options: Options) -> Buffer:
    if tag == _LATENCY:
        raise cursor.error("holds the text of a latency tracer, no events", "record events: `trace-cmd record -e EVENT`")
    if tag != _FLYRECORD:
        raise cursor.error("expected the table of event data", "the file is cut off or damaged")
    if cpus * 16 > cursor.left:
        raise cursor.error(f"a table of {cpus} CPUs cannot follow in {cursor.left} bytes", "the file is cut off or damaged")
    table = [CpuData(cpu, cursor.u64("offset of CPU data"), cursor.u64("size of CPU data")) for cpu in range(cpus)]
    clock = None
    if options.has_clock:
        clock = chosen_clock(text(cursor.sized(8, "trace clock")))
    return Buffer(name, clock, page_size, False, tuple(cpu for cpu in table if cpu.size))
