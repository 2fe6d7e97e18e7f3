"""The twin of a perf.data file as a big-endian machine would have written it: each number is turned, by the published layout alone.

For little-endian files that are not compressed, whose records name their event by an identifier or all have one layout.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

_SAMPLE: Final = 9
_RAW, _CHAIN, _IDENTIFIER = 1 << 10, 1 << 5, 1 << 16
_ORDER: Final = (_IDENTIFIER, 1, 2, 4, 8, 64, 512, 128, 256)
_ENDS: Final = (2, 4, 64, 512, 128, _IDENTIFIER)
#: Of the kernel's records what stands before the text or the end: u32 and u64 by their bytes.
_BODIES: Final = {1: "44888", 2: "88", 3: "44", 4: "44448", 7: "44448", 10: "44888448844"}
#: Of perf's own records only this one matters here; the others become such as say nothing.
_FINISHED_ROUND: Final = 68
_FINISHED_INIT: Final = 82
_FIELD: Final = re.compile(rb"field:([^;]+?)\s*(\w+)(\[[^\]]*\])?;\s*offset:(\d+);\s*size:(\d+);")
_SIZES: Final = {b"char": 1, b"u8": 1, b"u16": 2, b"short": 2, b"u32": 4, b"int": 4, b"u64": 8, b"s64": 8, b"long": 8}
_TEXTS: Final = (3, 4, 5, 6, 8, 9)
_FEATURES: Final = (1, *_TEXTS, 7, 10, 11, 12, 21)


class Twin:
    """Turns one file."""

    def __init__(self, data: bytes) -> None:
        self.old = data
        self.new = bytearray(data)
        self.fields: dict[int, list[tuple[int, int]]] = {}
        self.samples: dict[int, int] = {}

    def turn(self, at: int, size: int) -> int:
        """Turn one number; returns it."""
        self.new[at : at + size] = self.old[at : at + size][::-1]
        return int.from_bytes(self.old[at : at + size], "little")

    def several(self, at: int, sizes: str) -> int:
        """Turn numbers of these sizes; returns the byte behind them."""
        for size in map(int, sizes):
            self.turn(at, size)
            at += size
        return at

    def made(self) -> bytes:
        self.several(0, "8888888888")
        begin, size = struct.unpack_from("<QQ", self.old, 40)
        self._attrs()
        bits = int.from_bytes(self.old[72:104], "little")
        kept = []
        for place, number in enumerate(bit for bit in range(256) if bits >> bit & 1):
            if number in _FEATURES:
                kept.append((number, *struct.unpack_from("<QQ", self.old, begin + size + 16 * place)))
        # Features that nobody here reads are left out.
        self.new[72:104] = struct.pack(">4Q", sum(1 << number for number, _, _ in kept), 0, 0, 0)
        for place, (number, at, length) in enumerate(kept):
            struct.pack_into(">QQ", self.new, begin + size + 16 * place, at, length)
            self._feature(number, at, length)
        self._records(begin, begin + size)
        return bytes(self.new)

    def _attrs(self) -> None:
        entry, at, size = struct.unpack_from("<QQQ", self.old, 16)
        for each in range(at, at + size, entry):
            sample_type = struct.unpack_from("<Q", self.old, each + 24)[0]
            self._attr(each)
            ids, length = struct.unpack_from("<QQ", self.old, each + entry - 16)
            self.several(each + entry - 16, "88")
            for place in range(ids, ids + length, 8):
                self.samples[self.turn(place, 8)] = sample_type

    def _attr(self, at: int) -> None:
        self.several(at, "44" + "8" * 4)
        flags = self.old[at + 40 : at + 48]
        # Bit fields fill each byte from its other end.
        self.new[at + 40 : at + 48] = bytes(int(f"{byte:08b}"[::-1], 2) for byte in flags)
        self.several(at + 48, "44" + "8" * 4 + "44" + "8" + "42" + "2")

    def _feature(self, number: int, at: int, size: int) -> None:
        if number == 1:
            self._formats(at)
        elif number in _TEXTS:
            self.turn(at, 4)
        elif number == 7:
            self.several(at, "44")
        elif number in (10, 21):
            self.several(at, "8" * (size // 8))
        elif number == 11:
            words = self.turn(at, 4)
            at += 4
            for _ in range(words):
                at += 4 + self.turn(at, 4)
        else:
            self._descriptions(at)

    def _descriptions(self, at: int) -> None:
        events, size = self.turn(at, 4), self.turn(at + 4, 4)
        at += 8
        for _ in range(events):
            self._attr(at)
            at += size
            ids, length = self.turn(at, 4), self.turn(at + 4, 4)
            at = self.several(at + 8 + length, "8" * ids)

    def _formats(self, at: int) -> None:
        at = self.old.index(b"\0", at + 10) + 1
        self.new[at] = 1
        at = self.several(at + 2, "4")
        for _ in ("header_page", "header_event"):
            at = self.old.index(b"\0", at) + 1
            at += 8 + self.turn(at, 8)
        at = self._format_texts(at)
        systems = self.turn(at, 4)
        at += 4
        for _ in range(systems):
            at = self._format_texts(self.old.index(b"\0", at) + 1)
        for size in (4, 4, 8):
            at += size + self.turn(at, size)

    def _format_texts(self, at: int) -> int:
        count = self.turn(at, 4)
        at += 4
        for _ in range(count):
            size = self.turn(at, 8)
            text = self.old[at + 8 : at + 8 + size]
            number = re.search(rb"ID: (\d+)", text)
            assert number is not None
            self.fields[int(number[1])] = list(_numbers_of(text))
            at += 8 + size
        return at

    def _records(self, at: int, end: int) -> None:
        while at < end:
            kind, _, size = struct.unpack_from("<IHH", self.old, at)
            self.several(at, "422")
            if kind >= 64 and kind != _FINISHED_ROUND:
                struct.pack_into(">I", self.new, at, _FINISHED_INIT)
            if kind == _SAMPLE:
                self._sample(at)
            elif kind < 64:
                self.several(at + 8, _BODIES[kind])
                # The attributes differ only in what their samples hold: other records end alike.
                last = next(iter(self.samples.values()))
                place = at + size - 8 * sum(bool(last & bit) for bit in _ENDS)
                for bit in _ENDS:
                    if last & bit:
                        place = self.several(place, "44" if bit in (2, 128) else "8")
            at += size

    def _by_identifier(self) -> bool:
        return all(kind & _IDENTIFIER for kind in self.samples.values())

    def _only(self) -> int:
        (kind,) = set(self.samples.values())
        return kind

    def _sample(self, at: int) -> None:
        identifier = struct.unpack_from("<Q", self.old, at + 8)[0]
        kind = self.samples[identifier] if self._by_identifier() else self._only()
        at += 8
        for bit in _ORDER:
            if kind & bit:
                at = self.several(at, "44" if bit in (2, 128) else "8")
        if kind & _CHAIN:
            at = self.several(at + 8, "8" * self.turn(at, 8))
        if kind & _RAW:
            size = self.turn(at, 4)
            number = struct.unpack_from("<H", self.old, at + 4)[0]
            for offset, length in self.fields[number]:
                self.turn(at + 4 + offset, length)
            at += 4 + size
        if kind & 1 << 15:
            self.turn(at, 8)


def _numbers_of(text: bytes) -> Iterator[tuple[int, int]]:
    """Where the numbers of an event lie: those of arrays one by one, and the descriptors of strings."""
    for kind, _, brackets, at, size in _FIELD.findall(text):
        offset, length = int(at), int(size)
        words = kind.split()
        each = length if not brackets or words[0] == b"__data_loc" else next(_SIZES[word] for word in reversed(words) if word in _SIZES)
        if length:
            yield from ((place, each) for place in range(offset, offset + length, each))
