"""Fields of records -> Arrow columns of their own types.

The rows of one event have the same layout: a column is one pass that gathers words at a fixed distance from where each record starts.
Numbers that do not lie at whole words (kprobe arguments are packed) are shifted together out of the words they touch. What does not
fit into a record, in a damaged file, is null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .eventformat import Field
from .loops import index, loop
from .memory import empty
from .room import SIGNED, UNSIGNED, number_of
from .streams import pairs_of
from .strings import chunks_of, joined, strings_of

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """The records of one event, in the order of the trace.

    Attributes:
        words: uint32, what the records lie in.
        starts: int64, the word where each payload starts.
        lengths: int64, bytes of each payload.
        swapped: whether their numbers are big endian.
    """

    words: Array
    starts: Array
    lengths: Array
    swapped: bool = False


def is_number(field: Field) -> bool:
    """Whether a field is one number, at the same place of each record."""
    return field.element == 0 and field.place == "here" and field.size in UNSIGNED


def number_column(values: Array, field: Field, absent: Array | None = None) -> pa.Array:
    """Gathered numbers as a column of the field's type: (u)int8..(u)int64."""
    return pa.array(values.view(SIGNED[field.size]) if field.signed else values, mask=absent)


def column(rows: Rows, field: Field) -> pa.Array | pa.ChunkedArray:
    """The column of a field whose place is not the same in all records, or that some records are too short for."""
    if is_number(field):
        values, absent = numbers(rows, field.offset, field.size)
        return number_column(values, field, absent)
    places, sizes, absent = _spans(rows, field)
    make = _strings if field.is_string else _lists
    return make(rows, places, sizes, absent, field)


def numbers(rows: Rows, offset: int, size: int) -> tuple[Array, Array | None]:
    """Unsigned numbers of `size` bytes (1, 2, 4, 8) at `offset`, and which rows are too short to have one (None: none is)."""
    absent = rows.lengths < offset + size
    starts = rows.starts[~absent].astype(np.int64) + offset // 4
    words = [rows.words[starts + i] for i in range((offset % 4 + size + 3) // 4)]
    present = number_of(offset, size, words)
    if rows.swapped:
        present = present.byteswap()
    if present.size == absent.size:
        return present, None
    values = np.zeros(absent.size, UNSIGNED[size])
    values[~absent] = present
    return values, absent


def looked_up(values: Array, keys: Array) -> Array:
    """values[keys] (int32), and 0 for keys outside."""
    out = empty(keys.size, np.int32)
    if keys.size:
        look_up.run(keys.size, values, keys, out)
    return out


@loop
def look_up(values: Array, keys: Array, out: Array) -> None:
    """Write the value of each key to `out`, 0 for keys outside."""
    size = len(values)
    for row in range(len(keys)):
        key = keys[index(row)]
        out[index(row)] = values[index(key)] if 0 <= key < size else 0


def _spans(rows: Rows, field: Field) -> tuple[Array, Array, Array | None]:
    """First byte, size in bytes and absence of a field of any length, clamped into each record."""
    lengths = rows.lengths
    absent: Array | None = None
    if field.place in ("here", "rest"):
        offsets = np.full(rows.starts.size, field.offset, np.int64)
        if field.place == "rest":
            sizes = lengths - field.offset
        else:
            sizes = np.full(rows.starts.size, field.size, np.int64)
            absent = lengths < field.offset + field.size
    elif field.size in (2, 4):
        described, absent = numbers(rows, field.offset, field.size)
        offsets = (described & 0xFFFF).astype(np.int64)
        # Descriptors of two bytes, of kernels before 2.6.32, hold the offset alone.
        sizes = (described >> 16).astype(np.int64) if field.size == 4 else lengths
        if field.place == "rel_loc":
            offsets += field.offset + field.size
    else:
        offsets, sizes, absent = lengths, lengths * 0, lengths >= 0
    offsets = np.minimum(offsets, lengths)
    sizes = np.clip(sizes, 0, lengths - offsets)
    if absent is not None:
        if absent.any():
            sizes[absent] = 0
        else:
            absent = None
    return rows.starts.astype(np.int64) * 4 + offsets, sizes, absent


def _strings(rows: Rows, places: Array, sizes: Array, absent: Array | None, _: Field) -> pa.Array | pa.ChunkedArray:
    chunks = []
    for chosen in chunks_of(sizes):
        offsets = empty(places[chosen].size + 1, np.int32)
        room = int(sizes[chosen].sum())
        packed = empty(room // 4 + 1, np.uint32)
        pack_texts.run(room // 8, rows.words, places[chosen], sizes[chosen], offsets, packed)
        chunks.append(strings_of(offsets, packed.view(np.uint8)[: offsets[-1]], None if absent is None else absent[chosen]))
    return joined(chunks, pa.string())


def _lists(rows: Rows, places: Array, sizes: Array, absent: Array | None, field: Field) -> pa.Array | pa.ChunkedArray:
    element = field.element or 1
    whole = sizes // element * element
    chunks = []
    for chosen in chunks_of(whole):
        offsets, packed = _packed(rows.words, places[chosen], whole[chosen])
        values = packed.view((SIGNED if field.signed else UNSIGNED)[element])
        values = pa.array(values.byteswap() if rows.swapped else values)
        ends = pa.array((offsets // element).astype(np.int32))
        mask = None if absent is None else pa.array(absent[chosen])
        chunks.append(pa.ListArray.from_arrays(ends, values, mask=mask))
    return joined(chunks)


def _packed(words: Array, places: Array, sizes: Array) -> tuple[Array, Array]:
    """The bytes of all rows one after the other (uint8), and where each starts in them (int64, one more than rows)."""
    offsets = np.zeros(sizes.size + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    packed = empty(int(offsets[-1]), np.uint8)
    if packed.size and not ((places & 3).any() or (sizes & 7).any()):
        pack.run(packed.size // 8, pairs_of(words), places >> 2, 2, offsets >> 3, packed.view(np.uint64))
    elif packed.size:
        pack.run(packed.size, words.view(np.uint8), places, 1, offsets, packed)
    return offsets, packed


@loop
def pack_texts(words: Array, places: Array, sizes: Array, offsets: Array, out: Array) -> None:
    """Copy the bytes before a NUL, at most `sizes`, from each place (byte of `words`) on to the words of `out`, four at a time; write to
    `offsets` where each row starts there, and where the last one ends.
    """
    pending = waiting = written = total = 0
    for row in range(len(places)):
        offsets[index(row)] = total
        place = places[index(row)]
        left = sizes[index(row)]
        while left > 0:
            at = place >> 2
            skipped = place & 3
            four = (words[index(at)] & 0xFFFFFFFF) >> (skipped << 3)
            if left > 4 - skipped:
                four |= ((words[index(at + 1)] & 0xFFFFFFFF) << (32 - (skipped << 3))) & 0xFFFFFFFF if skipped else 0
            count = min(left, 4)
            # The lowest byte that is zero has its high bit set here, and no lower one has.
            zeros = (four - 0x01010101) & ~four & 0x80808080
            if zeros:
                count = min(count, 0 if zeros & 0x80 else 1 if zeros & 0x8000 else 2 if zeros & 0x800000 else 3)
            if count < 4:
                four &= (1 << (count << 3)) - 1
            pending |= four << (waiting << 3)
            waiting += count
            total += count
            if waiting >= 4:
                out[index(written)] = pending & 0xFFFFFFFF
                written += 1
                pending >>= 32
                waiting -= 4
            if count < 4:
                break
            place += 4
            left -= 4
    offsets[len(places)] = total
    if waiting:
        out[written] = pending


@loop
def pack(data: Array, places: Array, step: int, offsets: Array, out: Array) -> None:
    """Copy the numbers of each row, each `step` after the last, to `out`, from offsets[row] up to offsets[row + 1]."""
    for row in range(len(places)):
        at = places[row]
        for to in range(offsets[row], offsets[row + 1]):
            out[index(to)] = data[index(at)]
            at += step
