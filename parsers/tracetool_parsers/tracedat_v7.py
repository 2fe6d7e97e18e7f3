"""trace.dat version 7: sections, found through a chain of options.

Layout: trace-cmd, lib/trace-cmd/trace-input.c (`read_section_header`, `handle_options`, `init_buffer_cpu_data`) and
lib/trace-cmd/trace-output.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from .codec import unpack_section
from .cursor import Cursor
from .options import MOST_OPTIONS, Option, Options
from .tracedat import (
    Buffer,
    CpuData,
    Preamble,
    Recording,
    assemble,
    checked_page_size,
    read_cmdlines,
    read_event_formats,
    read_ftrace_formats,
    read_header_info,
)

T = TypeVar("T")

_COMPRESSED: Final = 1


def read_rest(cursor: Cursor, preamble: Preamble) -> Recording:
    """The file after its preamble.

    Raises:
        ParseError: the index or a section of metadata is damaged or cut off.
    """
    options = Options()
    at = preamble.options_at
    visited: set[int] = set()
    while at:
        if at in visited:
            raise cursor.error(f"the options at byte {at} follow themselves", "the file is damaged")
        visited.add(at)
        section = _section(cursor, preamble, at, Option.DONE)
        at = _read_options(section, options)
    if not visited:
        raise cursor.error("has no index", "the recorder was stopped before it wrote the index of the file")
    page_size = _metadata(cursor, preamble, options, Option.HEADER_INFO, read_header_info)
    if page_size is None:
        raise cursor.error("has no header_page", "the file is cut off or damaged")
    formats = (_metadata(cursor, preamble, options, Option.FTRACE_EVENTS, read_ftrace_formats) or []) + (
        _metadata(cursor, preamble, options, Option.EVENT_FORMATS, read_event_formats) or []
    )
    cmdlines = _metadata(cursor, preamble, options, Option.CMDLINES, read_cmdlines) or {}
    buffers = [_read_buffer(cursor, body) for body, _ in options.buffers]
    # The top buffer's name is empty: it comes first whatever the order of the options, as in version 6.
    buffers.sort(key=lambda buffer: buffer.name != "")
    return assemble(preamble, formats, cmdlines, buffers, options)


def _metadata(cursor: Cursor, preamble: Preamble, options: Options, kind: Option, read: Callable[[Cursor], T]) -> T | None:
    at = options.sections.get(kind)
    return None if at is None else read(_section(cursor, preamble, at, kind))


def _section(cursor: Cursor, preamble: Preamble, at: int, kind: Option) -> Cursor:
    """The contents of the section whose header is at byte `at`, unpacked where it is compressed."""
    flags, size = _section_header(cursor, at, kind)
    end = cursor.at + size
    if not flags & _COMPRESSED:
        return Cursor(cursor.data, cursor.path, at=cursor.at, end=end)
    if preamble.codec == "none":
        raise cursor.error(f"the {kind.name} section is compressed in a file without a codec", "the file is damaged")
    start = cursor.at
    return Cursor(unpack_section(preamble.codec, cursor, end), cursor.path, unpacked_from=start)


def _section_header(cursor: Cursor, at: int, kind: Option) -> tuple[int, int]:
    name = "OPTIONS" if kind == Option.DONE else kind.name
    cursor.seek(at, f"the {name} section")
    found = cursor.u16("id of a section")
    flags = cursor.u16("flags of a section")
    cursor.u32("description of a section")
    size = cursor.u64("size of a section")
    if found != kind:
        raise cursor.error(f"expected the {name} section ({kind.value}), found {found}", "the file is damaged")
    return flags, size


def _read_options(section: Cursor, options: Options) -> int:
    """Take in one section of options; returns the byte offset of the next, 0 after the last."""
    for _ in range(MOST_OPTIONS):
        kind = section.u16("id of an option")
        size = section.count(4, 1, f"bytes of option {kind}")
        if kind == Option.DONE:
            return section.u64("offset of more options")
        options.add(kind, section.part(size, f"option {kind}"))
    raise section.error("the options have no end", "the file is damaged")


def _read_buffer(cursor: Cursor, body: Cursor) -> Buffer:
    at = body.u64("offset of a buffer")
    name = body.string("name of a buffer")
    clock = body.string(f"clock of buffer {name!r}")
    page_size = checked_page_size(body.u32("sub-buffer size"), cursor.path, body.offset)
    count = body.count(4, 20, f"CPUs of buffer {name!r}")
    cpus = [CpuData(body.u32("CPU"), body.u64("offset of CPU data"), body.u64("size of CPU data")) for _ in range(count)]
    if any(cpu.cpu >= 1 << 31 for cpu in cpus):
        raise body.error(f"buffer {name!r} names an impossible CPU", "the file is damaged")
    flags, _ = _section_header(cursor, at, Option.BUFFER)
    with_data = sorted((cpu for cpu in cpus if cpu.size), key=lambda cpu: cpu.cpu)
    return Buffer(name, clock or None, page_size, bool(flags & _COMPRESSED), tuple(with_data))
