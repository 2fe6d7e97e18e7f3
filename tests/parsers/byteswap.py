"""The twin of a recording as a machine of the other byte order, or of another size of long, would have written it.

The recording is taken apart here, by nothing but its published layout, and written again by `tracetool_parsers.writing`; sub-buffers,
records and the fields in them are turned one by one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import zstandard

from tracetool_parsers.cursor import ByteOrder
from tracetool_parsers.writing import Instance, LongSize, Trace

#: Options whose contents are numbers, by id: CPU count, trace id, guest's clock, ticks.
_NUMBERS: Final[Mapping[int, str]] = {8: "I", 11: "Q", 14: "IIQ"}
#: Options that the writer makes itself: done, buffer, sections.
_OWN: Final = {0, 3, 15, *range(16, 22)}
#: Options that the writer has as attributes: clock, uname, CPU count, version.
_SAID: Final = {4, 5, 8, 9}

_FIELD: Final = re.compile(r"field:([^;]+?)\s*(\w+)(\[[^\]]*\])?;\s*offset:(\d+);\s*size:(\d+);")
_SIZES: Final = {"char": 1, "u8": 1, "short": 2, "int": 4, "u32": 4, "long": 8, "u64": 8, "s64": 8, "cpumask_t": 8}


@dataclass
class Pieces:
    """What a little-endian version 7 file holds: sections by id, unpacked; options; the sub-buffers of each CPU of each buffer."""

    page: int
    sections: dict[int, bytes] = field(default_factory=dict)
    options: list[tuple[int, bytes]] = field(default_factory=list)
    buffers: list[tuple[str, str, dict[int, bytes]]] = field(default_factory=list)


def twin(content: bytes, *, order: ByteOrder = "big", long_size: LongSize = 8) -> Trace:
    """The recording in the given byte order and with that size of long in its sub-buffers."""
    pieces = _taken_apart(content)
    ftrace, systems = _formats(pieces)
    events = {
        int(number[1]): _swaps(text)
        for text in [*ftrace, *(text for texts in systems.values() for text in texts)]
        if (number := _ID.search(text))
    }
    turn = _Turn(order, long_size, pieces.page, events)
    instances = [
        Instance(
            {cpu: [turn.page(data[at : at + pieces.page]) for at in range(0, len(data), pieces.page)] for cpu, data in cpus.items()},
            name,
            clock,
        )
        for name, clock, cpus in sorted(pieces.buffers, key=lambda buffer: buffer[0] != "")
    ]
    said = dict(pieces.options)
    return Trace(
        instances,
        systems,
        ftrace,
        _sized(pieces.sections[21], "<Q"),
        uname=said[5].rstrip(b"\0").decode(),
        page=pieces.page,
        options=[(kind, turn.option(kind, body)) for kind, body in pieces.options if kind not in _OWN | _SAID],
        order=order,
        long_size=long_size,
        kallsyms=_sized(pieces.sections[19], "<I"),
        printk=_sized(pieces.sections[20], "<I"),
        writer=said[9].rstrip(b"\0").decode(),
        cpu_count=struct.unpack("<I", said[8])[0],
    )


_ID: Final = re.compile(r"^ID: (\d+)$", re.MULTILINE)


def _taken_apart(content: bytes) -> Pieces:
    assert content[:12] == b"\x17\x08Dtracing7\0"[:12]
    assert content[12] == 0
    (page,) = struct.unpack_from("<I", content, 14)
    at = content.index(b"\0", content.index(b"\0", 18) + 1) + 1
    packed_with = content[18 : content.index(b"\0", 18)]
    pieces = Pieces(page)
    (at,) = struct.unpack_from("<Q", content, at)
    while at:
        _, _, _, size = struct.unpack_from("<HHIQ", content, at)
        at = _take_options(content, at + 16, at + 16 + size, pieces)
    for kind, body in pieces.options:
        if 16 <= kind <= 21:
            pieces.sections[kind] = _section(content, struct.unpack("<Q", body)[0])
        elif kind == 3:
            pieces.buffers.append(_buffer(content, body, page, packed_with))
    return pieces


def _take_options(content: bytes, at: int, end: int, pieces: Pieces) -> int:
    while at < end:
        kind, size = struct.unpack_from("<HI", content, at)
        body = content[at + 6 : at + 6 + size]
        if kind == 0:
            return int(struct.unpack("<Q", body)[0])
        pieces.options.append((kind, body))
        at += 6 + size
    raise AssertionError("options without an end")


def _section(content: bytes, at: int) -> bytes:
    _, flags, _, size = struct.unpack_from("<HHIQ", content, at)
    if not flags & 1:
        return content[at + 16 : at + 16 + size]
    packed, unpacked = struct.unpack_from("<II", content, at + 16)
    return _unpack(content[at + 24 : at + 24 + packed], unpacked)


def _buffer(content: bytes, body: bytes, page: int, packed_with: bytes) -> tuple[str, str, dict[int, bytes]]:
    name, clock, table = body[8:].split(b"\0", 2)
    size, count = struct.unpack_from("<II", table)
    assert size == page
    cpus = {}
    for number in range(count):
        cpu, at, size = struct.unpack_from("<IQQ", table, 8 + 20 * number)
        if size:
            cpus[cpu] = content[at : at + size] if packed_with == b"none" else b"".join(_chunks(content, at))
    return name.decode(), clock.decode(), cpus


def _chunks(content: bytes, at: int) -> Iterator[bytes]:
    (count,) = struct.unpack_from("<I", content, at)
    at += 4
    for _ in range(count):
        packed, unpacked = struct.unpack_from("<II", content, at)
        yield _unpack(content[at + 8 : at + 8 + packed], unpacked)
        at += 8 + packed


def _unpack(packed: bytes, size: int) -> bytes:
    return zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)


def _sized(block: bytes, layout: str) -> str:
    (size,) = struct.unpack_from(layout, block)
    start = struct.calcsize(layout)
    return block[start : start + size].decode()


def _formats(pieces: Pieces) -> tuple[list[str], dict[str, list[str]]]:
    def texts(block: bytes, at: int) -> tuple[list[str], int]:
        (count,) = struct.unpack_from("<I", block, at)
        at += 4
        found = []
        for _ in range(count):
            (size,) = struct.unpack_from("<Q", block, at)
            found.append(block[at + 8 : at + 8 + size].decode())
            at += 8 + size
        return found, at

    ftrace, _ = texts(pieces.sections[17], 0)
    block = pieces.sections[18]
    (count,) = struct.unpack_from("<I", block)
    at, systems = 4, {}
    for _ in range(count):
        end = block.index(b"\0", at)
        systems[block[at:end].decode()], at = texts(block, end + 1)
    return ftrace, systems


#: Where numbers lie in a record: offset, bytes of a number, bytes of all of them; -1: to the end; 0: a word here says where.
Swap = tuple[int, int, int]


def _swaps(text: str) -> list[Swap]:
    swaps = []
    for kind, _, brackets, offset, size in _FIELD.findall(text):
        element = _SIZES.get(kind.replace("[]", "").split()[-1].rstrip("*"), 8)
        if kind.startswith("__data_loc"):
            swaps.append((int(offset), 1 if "char" in kind else element, 0))
        elif int(size) == 0:
            swaps.append((int(offset), element, -1))
        elif brackets:
            swaps.append((int(offset), element, int(size)))
        else:
            swaps.append((int(offset), int(size), int(size)))
    return swaps


@dataclass
class _Turn:
    """Turns what is little-endian, with longs of 8 bytes, into what is wanted."""

    order: ByteOrder
    long_size: LongSize
    size: int
    events: Mapping[int, Sequence[Swap]]

    @property
    def mark(self) -> str:
        return "<" if self.order == "little" else ">"

    def option(self, kind: int, body: bytes) -> bytes:
        layout = _NUMBERS.get(kind)
        assert layout or kind in (1, 2, 6, 7, 10, 24), f"option {kind} is not known here"
        return struct.pack(self.mark + layout, *struct.unpack("<" + layout, body)) if layout else body

    def page(self, page: bytes) -> bytes:
        ts, commit = struct.unpack_from("<QQ", page)
        used = commit & (1 << 27) - 1
        head = struct.pack(self.mark + ("QQ" if self.long_size == 8 else "QI"), ts, commit)
        body = b"".join(self.records(page[16 : 16 + used]))
        if commit & 1 << 30:
            missed = struct.unpack_from("<Q", page, 16 + used)
            body += struct.pack(self.mark + ("Q" if self.long_size == 8 else "I"), *missed)
        return (head + body).ljust(self.size, b"\0")

    def records(self, data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            (word,) = struct.unpack_from("<I", data, at)
            kind, delta = word & 31, word >> 5
            yield struct.pack(self.mark + "I", word if self.order == "little" else kind << 27 | delta)
            at += 4
            length = 4 * kind
            if kind == 0 or kind >= 29:
                (second,) = struct.unpack_from("<I", data, at)
                yield struct.pack(self.mark + "I", second)
                at += 4
                # An empty rest has no length; other padding has that of what was taken back.
                length = {0: second - 4, 29: second - 4 if delta else len(data) - at}.get(kind, 0)
            payload = data[at : at + length]
            yield self.payload(payload) if kind < 29 else payload
            at += length
            yield data[at : at + -length % 4]
            at += -length % 4

    def payload(self, payload: bytes) -> bytes:
        if self.order == "little":
            return payload
        turned = bytearray(payload)
        (event,) = struct.unpack_from("<H", payload)
        for offset, element, size in self.events.get(event, ((0, 2, 2), (4, 4, 4))):
            begin, end = offset, offset + size
            if size == 0:
                (word,) = struct.unpack_from("<I", payload, offset)
                struct.pack_into(">I", turned, offset, word)
                begin, end = word & 0xFFFF, (word & 0xFFFF) + (word >> 16)
            elif size < 0:
                end = len(payload)
            for at in range(begin, min(end, len(payload)) - element + 1, element):
                turned[at : at + element] = payload[at : at + element][::-1]
        return bytes(turned)
