"""Reading integers, strings and blocks out of foreign bytes, each bounded by the bytes that are left."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

from .errors import ParseError

ByteOrder = Literal["little", "big"]

#: No name or version string of a trace file is longer; a missing NUL is then found before a whole file is read.
LONGEST_NAME = 4096


class Cursor:
    """A place in a block of bytes that only moves forward.

    Attributes:
        at: the next byte, counted from the start of `data`.
        end: one past the last byte that may be read.
        path: the file, for errors.
    """

    def __init__(
        self,
        data: memoryview,
        path: str,
        *,
        at: int = 0,
        end: int | None = None,
        order: ByteOrder = "little",
        unpacked_from: int | None = None,
    ) -> None:
        """`unpacked_from` is the byte of the file where the block lies that `data` was decompressed from; None: `data` is the file."""
        self.data = data
        self.path = path
        self.at = at
        self.end = len(data) if end is None else min(end, len(data))
        self.order: ByteOrder = order
        self._unpacked_from = unpacked_from

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return self.end - self.at

    @property
    def offset(self) -> int:
        """Byte offset in the file: of the place itself, or of the compressed block around it."""
        return self.at if self._unpacked_from is None else self._unpacked_from

    def error(self, message: str, hint: str | None = None) -> ParseError:
        """A ParseError at this place."""
        return ParseError(message, path=self.path, offset=self.offset, hint=hint)

    def take(self, size: int, what: str) -> memoryview:
        """The next `size` bytes, not copied.

        Raises:
            ParseError: fewer are left; `what` says what they were to be.
        """
        if not 0 <= size <= self.left:
            raise self.error(f"{what} needs {size} bytes, {max(self.left, 0)} are left", "the file is cut off or damaged")
        block = self.data[self.at : self.at + size]
        self.at += size
        return block

    def part(self, size: int, what: str) -> Cursor:
        """A cursor over the next `size` bytes alone, which this one leaves behind.

        Raises:
            ParseError: fewer are left.
        """
        start = self.at
        self.take(size, what)
        return Cursor(self.data, self.path, at=start, end=self.at, order=self.order, unpacked_from=self._unpacked_from)

    def integer(self, size: int, what: str) -> int:
        """An unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size, what), self.order)

    def u16(self, what: str) -> int:
        """An unsigned 16-bit integer."""
        return self.integer(2, what)

    def u32(self, what: str) -> int:
        """An unsigned 32-bit integer."""
        return self.integer(4, what)

    def u64(self, what: str) -> int:
        """An unsigned 64-bit integer."""
        return self.integer(8, what)

    def count(self, size: int, smallest: int, what: str) -> int:
        """An unsigned integer of `size` bytes that says how many things of at least `smallest` bytes follow.

        Raises:
            ParseError: so many cannot follow.
        """
        start = self.offset
        number = self.integer(size, what)
        if number * smallest > self.left:
            message = f"{number} of {what} cannot follow in {self.left} bytes"
            raise ParseError(message, path=self.path, offset=start, hint="the file is cut off or damaged")
        return number

    def records(self, layout: str, count: int, what: str) -> Iterator[tuple[int, ...]]:
        """`count` groups of integers, laid out one after the other as `struct` writes them.

        Raises:
            ParseError: so many are not left.
        """
        mark = "<" if self.order == "little" else ">"
        return struct.iter_unpack(mark + layout, self.take(count * struct.calcsize(mark + layout), what))

    def rest(self) -> memoryview:
        """All bytes that are left."""
        return self.take(self.left, "rest")

    def sized(self, size: int, what: str) -> memoryview:
        """A block after its own length, an unsigned integer of `size` bytes."""
        return self.take(self.count(size, 1, f"length of {what}"), what)

    def string(self, what: str) -> str:
        """A string up to its NUL, without it.

        Raises:
            ParseError: no NUL within the bytes that are left, or within LONGEST_NAME of them.
        """
        window = bytes(self.data[self.at : min(self.end, self.at + LONGEST_NAME)])
        length = window.find(0)
        if length < 0:
            raise self.error(f"{what} has no end", "the file is cut off or damaged")
        self.at += length + 1
        return text(window[:length])

    def seek(self, at: int, what: str) -> None:
        """Go to byte `at`, forward or back.

        Raises:
            ParseError: it lies outside the block.
        """
        if not 0 <= at <= self.end:
            raise self.error(f"{what} is said to be at byte {at}, past the end at {self.end}", "the file is cut off or damaged")
        self.at = at


def text(block: memoryview | bytes) -> str:
    """Bytes as text, up to the first NUL; what is not UTF-8 is replaced."""
    return bytes(block).split(b"\0", 1)[0].decode("utf-8", "replace")
