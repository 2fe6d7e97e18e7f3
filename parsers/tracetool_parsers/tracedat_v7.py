"""trace.dat version 7: sections, found through a chain of options; where that is broken, one after the other.

Layout: trace-cmd, lib/trace-cmd/trace-input.c (`read_section_header`, `handle_options`, `init_buffer_cpu_data`) and
lib/trace-cmd/trace-output.c.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, TypeVar

from .codec import unpack_section
from .cursor import Cursor
from .errors import ParseError
from .options import MOST_OPTIONS, Damage, Option, Options
from .recovery import recovered_buffer
from .tracedat import (
    MOST_TABLE,
    Block,
    Buffer,
    CpuData,
    Parts,
    Preamble,
    Recording,
    TextBlock,
    assemble,
    checked_page_size,
    read_cmdlines,
    read_event_formats,
    read_ftrace_formats,
    read_header_info,
)

T = TypeVar("T")

_COMPRESSED: Final = 1
_HEADER_SIZE: Final = 16
#: More than any file has: a walk over sections of no size ends.
_MOST_SECTIONS: Final = 100_000


def read_rest(cursor: Cursor, preamble: Preamble) -> Recording:
    """The file after its preamble; what the index does not name, because it is damaged or cut off, is looked for.

    Raises:
        ParseError: a section without which no event can be read is damaged or cut off.
    """
    return _Reader(cursor, preamble).read()


class _Section(NamedTuple):
    """A section of a file: byte of its header, and what that says."""

    at: int
    kind: int
    packed: bool
    size: int

    @property
    def begin(self) -> int:
        return self.at + _HEADER_SIZE

    @property
    def end(self) -> int:
        return self.begin + self.size


class _Reader:
    def __init__(self, cursor: Cursor, preamble: Preamble) -> None:
        self._cursor = cursor
        self._preamble = preamble
        self._first = cursor.at
        self._options = Options()
        self._read: set[int] = set()
        self._located: set[int] = set()
        self._damage: list[Damage] = []

    def read(self) -> Recording:
        found: list[_Section] | None = None
        try:
            self._follow(self._preamble.options_at)
            if not self._read:
                raise self._cursor.error("has no index")
        except ParseError as error:
            self._damage.append(Damage(min(error.offset or 0, len(self._cursor.data)), error.message))
            found = self._walk()
        parts = self._metadata()
        parts.buffers = self._buffers()
        parts.text = [self._text(body) for body in self._options.texts]
        if found is not None:
            self._recover(found, parts)
            if not parts.buffers and not parts.text:
                offset, what = self._damage[0]
                raise ParseError(what, path=self._cursor.path, offset=offset, hint="the file is cut off or damaged before the event data")
        parts.damage = self._damage
        return assemble(self._preamble, parts, self._options)

    def _follow(self, at: int) -> None:
        """Take in the sections of options from the one at byte `at` on."""
        while at:
            if at in self._read:
                raise self._cursor.error(f"the options at byte {at} follow themselves")
            section = self._section(at, Option.DONE)
            self._read.add(at)
            contents = self._contents(section)
            at = self._take_options(contents)

    def _take_options(self, contents: Cursor) -> int:
        """Take in one section of options; returns the byte offset of the next, 0 after the last."""
        for _ in range(MOST_OPTIONS):
            kind = contents.u16("id of an option")
            size = contents.count(4, 1, f"bytes of option {kind}")
            if kind == Option.DONE:
                return contents.u64("offset of more options")
            self._options.add(kind, contents.part(size, f"option {kind}"))
        raise contents.error("the options have no end", "the file is damaged")

    # --- sections ---

    def _header(self, at: int, what: str) -> _Section:
        cursor = self._cursor
        cursor.seek(at, what)
        kind, flags = cursor.u16("id of a section"), cursor.u16("flags of a section")
        cursor.u32("description of a section")
        return _Section(at, kind, bool(flags & _COMPRESSED), cursor.u64("size of a section"))

    def _section(self, at: int, kind: Option) -> _Section:
        name = "OPTIONS" if kind == Option.DONE else kind.name
        section = self._header(at, f"the {name} section")
        if section.kind != kind:
            raise self._cursor.error(f"expected the {name} section ({kind.value}), found {section.kind}", "the file is damaged")
        return section

    def _contents(self, section: _Section) -> Cursor:
        """The contents of a section of metadata, unpacked where they are compressed."""
        cursor, order = self._cursor, self._preamble.order
        if not section.packed:
            return Cursor(cursor.data, cursor.path, at=section.begin, end=section.end, order=order)
        cursor.seek(section.begin, "a compressed section")
        if self._preamble.codec == "none":
            raise cursor.error(f"the section {section.kind} is compressed in a file without a codec", "the file is damaged")
        unpacked = unpack_section(self._preamble.codec, cursor, section.end)
        return Cursor(unpacked, cursor.path, order=order, unpacked_from=section.begin)

    # --- metadata ---

    def _metadata(self) -> Parts:
        layout = self._block(Option.HEADER_INFO, read_header_info)
        if layout is None:
            first = self._damage[0] if self._damage else Damage(self._first, "the index names none")
            hint = "the file is cut off or damaged"
            raise ParseError(f"has no header_page: {first.what}", path=self._cursor.path, offset=first.offset, hint=hint)
        parts = Parts(layout, kallsyms=self._late(Option.KALLSYMS), printk=self._late(Option.PRINTK))
        for kind, read in ((Option.FTRACE_EVENTS, read_ftrace_formats), (Option.EVENT_FORMATS, read_event_formats)):
            parts.formats += self._block(kind, partial(read, long_size=layout.long_size, damage=self._damage)) or []
        try:
            parts.cmdlines = self._block(Option.CMDLINES, read_cmdlines) or {}
        except ParseError as error:
            self._damage.append(Damage(error.offset or 0, f"saved command lines: {error.message}"))
        return parts

    def _block(self, kind: Option, read: Callable[[Cursor], T]) -> T | None:
        at = self._options.sections.get(kind)
        return None if at is None else read(self._contents(self._section(at, kind)))

    def _late(self, kind: Option) -> Block | None:
        """Where the contents of a section lie that is read when it is asked for; None where they are damaged."""
        at = self._options.sections.get(kind)
        if at is None:
            return None
        try:
            section = self._section(at, kind)
        except ParseError as error:
            self._options.notes.append(f"{error.message} at byte {error.offset}: skipped")
            return None
        return Block(section.begin, max(min(section.size, len(self._cursor.data) - section.begin), 0), section.packed)

    # --- event data ---

    def _buffers(self) -> list[Buffer]:
        left = MOST_TABLE
        buffers = []
        for body, _ in self._options.buffers:
            buffer = self._buffer(body, left)
            left -= len(buffer.cpus)
            buffers.append(buffer)
        # The top buffer's name is empty: it comes first whatever the order of the options, as in version 6.
        buffers.sort(key=lambda buffer: buffer.name != "")
        return buffers

    def _buffer(self, body: Cursor, most: int) -> Buffer:
        at = body.u64("offset of a buffer")
        name = body.string("name of a buffer")
        clock = body.string(f"clock of buffer {name!r}")
        page_size = checked_page_size(body.u32("sub-buffer size"), self._cursor.path, body.offset)
        count = body.count(4, 20, f"CPUs of buffer {name!r}")
        if count > most:
            raise body.error(f"{count} CPUs of buffer {name!r} are not possible", "the file is damaged")
        cpus = [CpuData(*entry) for entry in body.records("IQQ", count, "the table of event data")]
        if any(cpu.cpu >= 1 << 31 for cpu in cpus):
            raise body.error(f"buffer {name!r} names an impossible CPU", "the file is damaged")
        section = self._section(at, Option.BUFFER)
        self._located.add(at)
        with_data = sorted((cpu for cpu in cpus if cpu.size), key=lambda cpu: cpu.cpu)
        return Buffer(name, clock or None, page_size, section.packed, tuple(with_data))

    def _text(self, body: Cursor) -> TextBlock:
        at, name, clock = body.u64("offset of a text"), body.string("name of a buffer"), body.string("clock of a buffer")
        section = self._section(at, Option.BUFFER_TEXT)
        self._located.add(at)
        return TextBlock(name, clock or None, section.begin, section.size, section.packed)

    # --- without an index ---

    def _walk(self) -> list[_Section]:
        """The sections of the file, one after the other; options that the chain did not reach are taken in."""
        found: list[_Section] = []
        at, end = self._first, len(self._cursor.data)
        try:
            while at < end and len(found) < _MOST_SECTIONS:
                section = self._header(at, "a section")
                if section.kind not in tuple(Option) or (not section.size and section.kind != Option.BUFFER):
                    raise self._cursor.error(f"no section is of kind {section.kind} and {section.size} bytes")
                found.append(section)
                # The recorder fills in the size of a buffer when it has written it.
                at = section.end if section.size else end
        except ParseError as error:
            self._damage.append(Damage(min(at, end), error.message))
        for section in found:
            if Option.HEADER_INFO <= section.kind <= Option.CMDLINES:
                self._options.sections.setdefault(section.kind, section.at)
            elif section.kind == Option.DONE and section.at not in self._read:
                self._take_in(section)
        return found

    def _take_in(self, section: _Section) -> None:
        self._read.add(section.at)
        try:
            self._take_options(self._contents(section))
        except ParseError as error:
            self._damage.append(Damage(min(section.at, len(self._cursor.data)), error.message))

    def _recover(self, found: list[_Section], parts: Parts) -> None:
        """Find the event data, or the text, of buffers that no option names."""
        for section in found:
            if section.at in self._located:
                continue
            if section.kind == Option.BUFFER_TEXT:
                parts.text.append(TextBlock("", None, section.begin, section.size, section.packed))
            elif section.kind == Option.BUFFER:
                number = len(parts.buffers)
                end = section.end if section.size else len(self._cursor.data)
                name = f"buffer {number}" if number else ""
                buffer = recovered_buffer(self._cursor, section.begin, end, name, parts.layout, packed=section.packed)
                parts.buffers.append(buffer)
                note = f"the table of CPUs of buffer {name!r} at byte {section.at} is lost: they are numbered in the order of their data"
                self._options.notes.append(note)
