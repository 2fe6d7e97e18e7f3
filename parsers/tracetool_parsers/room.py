"""Room for the numbers of tables' rows: which words of a record go where, and how they become the numbers.

Records are made of 4-byte words, so what is copied are words: numbers that do not lie at whole words (kprobe arguments are packed) are
shifted together afterwards, out of the columns of words that they touch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .memory import empty

Array = npt.NDArray[Any]

UNSIGNED: Final = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
SIGNED: Final = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}

#: A number: its first byte in a record, and its size in bytes (1, 2, 4, 8).
Place = tuple[int, int]

#: How many records that are too short for their numbers are noted before they must be looked at.
MOST_SHORT: Final = 1 << 10
#: Of so many records of a table the numbers are copied at once: few enough to be in the processor's cache, most of the time.
_AT_ONCE: Final = 1 << 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of a table's records.

    Attributes:
        places: its numbers, each at the same place of all records.
        varying: whether something else is wanted, for which it must be known where the records are.
    """

    places: tuple[Place, ...]
    varying: bool

    @property
    def need(self) -> int:
        """Bytes that a record must have to hold all numbers."""
        return max((offset + size for offset, size in self.places), default=0)

    @property
    def doubles(self) -> list[int]:
        """The words where the numbers start that are copied as 64 bits."""
        return [offset // 4 for offset, size in self.places if _is_double((offset, size))]

    @property
    def singles(self) -> list[int]:
        """The words that the other numbers touch, number by number."""
        return [offset // 4 + i for offset, size in self.places if not _is_double((offset, size)) for i in range(words_of(offset, size))]


def _is_double(place: Place) -> bool:
    return place[1] == 8 and place[0] % 4 == 0


def words_of(offset: int, size: int) -> int:
    """How many words a number touches."""
    return (offset % 4 + size + 3) // 4


class Plan(NamedTuple):
    """Which words of which table's records go where; all int64, all but the last two one number a table.

    Attributes:
        rows: the next free row.
        ends: the row after the last that there is room for.
        copied: the next row whose numbers are not copied yet.
        stops: the row before which numbers must be copied.
        at_once: of how many rows the numbers are copied at once, at most.
        needs: bytes that a record must have.
        first, split, last: the copies of a table are first..last, those of double words before split.
        spots: what to add to the row for the place in `Columns.spots`.
        varying: whether the places of all its records are kept there; else those whose numbers are not copied yet.
        skips: for each copy which word of the record.
        bases: for each copy what to add to the row for the place in the array of double words, or of words.
    """

    rows: Array
    ends: Array
    copied: Array
    stops: Array
    at_once: Array
    needs: Array
    first: Array
    split: Array
    last: Array
    spots: Array
    varying: Array
    skips: Array
    bases: Array


class Columns(NamedTuple):
    """Rows of all tables, one table after the other.

    Attributes:
        times: int64, units of the clock.
        cpus: int32.
        tids: uint32, as in the file.
        buffers: int32, or none where only one buffer is read.
        places: int64, place in the order of the trace, or none where it is not wanted.
        doubles: uint64, as in the file: column by column.
        singles: uint32, the same.
        spots: int64, where the records are (`ringbuffer.SPOT_SHIFT`).
        short: int64, the rows of records that are too short, and where these are.
    """

    times: Array
    cpus: Array
    tids: Array
    buffers: Array
    places: Array
    doubles: Array
    singles: Array
    spots: Array
    short: Array


def room_for(wanted: Sequence[Wanted], rows: Sequence[int], *, buffers: bool, places: bool) -> tuple[Plan, Columns]:
    """Room for so many rows of each table."""
    none = np.empty(0, np.int64)
    plan = Plan(*(np.zeros(len(wanted), np.int64) for _ in Plan._fields))._replace(skips=none, bases=none)
    copies: list[tuple[int, int]] = []
    row = doubles = singles = spots = 0
    for number, (table, count) in enumerate(zip(wanted, rows, strict=True)):
        plan.rows[number] = plan.copied[number] = row
        plan.at_once[number] = at_once = min(count, _AT_ONCE)
        plan.ends[number], plan.stops[number], plan.needs[number] = row + count, row + at_once, table.need
        plan.first[number] = len(copies)
        copies += [(skip, doubles + i * count - row) for i, skip in enumerate(table.doubles)]
        doubles += len(table.doubles) * count
        plan.split[number] = len(copies)
        copies += [(skip, singles + i * count - row) for i, skip in enumerate(table.singles)]
        singles += len(table.singles) * count
        plan.last[number] = len(copies)
        plan.spots[number], plan.varying[number] = spots - row, table.varying
        spots += count if table.varying else at_once
        row += count
    skips, bases = np.array(copies, np.int64).reshape(-1, 2).T.copy()
    columns = Columns(
        empty(row, np.int64),
        empty(row, np.int32),
        empty(row, np.uint32),
        empty(row if buffers else 0, np.int32),
        empty(row if places else 0, np.int64),
        empty(doubles, np.uint64),
        empty(singles, np.uint32),
        empty(spots, np.int64),
        # Beside those that the loop stops at, all whose numbers are not copied when it does.
        empty(2 * (MOST_SHORT + sum(min(count, _AT_ONCE) for count in rows)), np.int64),
    )
    return plan._replace(skips=skips, bases=bases), columns


def numbers_of(wanted: Wanted, plan: Plan, columns: Columns, table: int, begin: int, end: int) -> list[Array]:
    """The numbers of one table's rows begin..end, unsigned, as they are in the file but for where they lie."""
    first, split, last = (int(ends[table]) for ends in (plan.first, plan.split, plan.last))
    of_doubles = (columns.doubles[base + begin : base + end] for base in plan.bases[first:split].tolist())
    of_singles = (columns.singles[base + begin : base + end] for base in plan.bases[split:last].tolist())
    return [
        next(of_doubles) if _is_double(place) else number_of(*place, list(itertools.islice(of_singles, words_of(*place))))
        for place in wanted.places
    ]


def number_of(offset: int, length: int, words: Sequence[Array]) -> Array:
    """An unsigned number of `length` bytes at `offset`, out of columns of the words that it touches (uint32)."""
    low = np.uint32(offset % 4 * 8)
    if low:
        high = np.uint32(32 - low)
        words = [word >> low | (words[i + 1] << high if i + 1 < len(words) else np.uint32(0)) for i, word in enumerate(words)]
    if length < 8:
        return words[0].astype(UNSIGNED[length], copy=False)
    double: Array = words[0] | words[1].astype(np.uint64) << np.uint64(32)
    return double
