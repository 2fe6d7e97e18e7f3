"""Protocol buffers written by columns: many messages of one shape at once, with no Python code that runs once a message.

A part of each message is a row of `Cells`: bytes, of which some count. Parts stand side by side, and flattened give the messages one
after the other. (https://protobuf.dev/programming-guides/encoding)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Ints = npt.NDArray[Any]

_VARINT, _BYTES = 0, 2
#: Bytes of the longest number.
_LONGEST: Final = 10


@dataclass(frozen=True, slots=True)
class Cells:
    """A part of each message: `data` (uint8, one row a message), of which the bytes `used` (bool, of the same shape) count."""

    data: npt.NDArray[np.uint8]
    used: npt.NDArray[np.bool_]

    def sizes(self) -> Ints:
        """How many bytes the part has in each message: int64."""
        sizes: Ints = self.used.sum(axis=1, dtype=np.int64)
        return sizes

    def flat(self) -> npt.NDArray[np.uint8]:
        """The bytes of all messages, one after the other."""
        flat: npt.NDArray[np.uint8] = self.data[self.used]
        return flat


def number(values: Ints) -> Cells:
    """Integers as varints; negative ones as protobuf's int64 has them, in ten bytes."""
    unsigned = values.astype(np.int64, copy=False).view(np.uint64) if values.dtype != np.uint64 else values
    longest = max(1, -(-int(unsigned.max(initial=0)).bit_length() // 7))
    groups = unsigned[:, None] >> (np.arange(min(longest, _LONGEST), dtype=np.uint64) * np.uint64(7))
    used = groups != 0
    used[:, 0] = True
    data = (groups & np.uint64(0x7F)).astype(np.uint8)
    data[:, :-1] |= used[:, 1:].astype(np.uint8) << np.uint8(7)
    return Cells(data, used)


def constant(value: bytes, rows: int) -> Cells:
    """The same bytes in each message."""
    data = np.broadcast_to(np.frombuffer(value, np.uint8), (rows, len(value)))
    return Cells(data, np.ones(data.shape, np.bool_))


def integer(field: int, values: Ints, present: Ints | None = None) -> Cells:
    """A field with a number; `present` (bool): in which messages it is there (None: in all)."""
    return _where(present, beside([constant(_key(field, _VARINT), len(values)), number(values)]))


def text(field: int, values: pl.Series, present: Ints | None = None) -> Cells:
    """A field with a string; a null counts as an empty one."""
    array = values.fill_null("").to_arrow()
    assert isinstance(array, pa.LargeStringArray), "polars strings"
    ends = np.frombuffer(array.buffers()[1], np.int64, len(array) + 1, array.offset * 8)
    stored = array.buffers()[2]
    content = np.frombuffer(stored, np.uint8) if stored is not None and stored.size else np.zeros(1, np.uint8)
    sizes = np.diff(ends)
    at = np.arange(int(sizes.max(initial=0)))
    data = content[np.minimum(ends[:-1, None] + at, content.size - 1)]
    return _where(present, _prefixed(field, Cells(data, at < sizes[:, None])))


def message(field: int, parts: Sequence[Cells], present: Ints | None = None) -> Cells:
    """A field with a message inside."""
    return _where(present, _prefixed(field, beside(parts)))


def beside(parts: Sequence[Cells]) -> Cells:
    """Parts, one after the other in each message."""
    return Cells(np.concatenate([part.data for part in parts], axis=1), np.concatenate([part.used for part in parts], axis=1))


def interleaved(parts: Sequence[tuple[Ints, Cells]], rows: int) -> npt.NDArray[np.uint8]:
    """Messages of several shapes in one order: each part says at which of the `rows` places its messages go; all places are taken."""
    sizes = np.zeros(rows, np.int64)
    for places, cells in parts:
        sizes[places] = cells.sizes()
    begins = np.cumsum(sizes) - sizes
    out = np.empty(int(sizes.sum()), np.uint8)
    for places, cells in parts:
        own = sizes[places]
        flat = cells.flat()
        out[np.repeat(begins[places] - (np.cumsum(own) - own), own) + np.arange(flat.size)] = flat
    return out


def encoded(field: int, value: int | str | bytes) -> bytes:
    """One field of one message."""
    if isinstance(value, int):
        return _key(field, _VARINT) + _number(value)
    raw = value.encode() if isinstance(value, str) else value
    return _key(field, _BYTES) + _number(len(raw)) + raw


def _prefixed(field: int, inside: Cells) -> Cells:
    """What has a length before it."""
    rows = len(inside.data)
    return beside([constant(_key(field, _BYTES), rows), number(inside.sizes()), inside])


def _where(present: Ints | None, cells: Cells) -> Cells:
    return cells if present is None else Cells(cells.data, cells.used & present[:, None])


def _key(field: int, kind: int) -> bytes:
    return _number(field << 3 | kind)


def _number(value: int) -> bytes:
    rest = value & 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])
