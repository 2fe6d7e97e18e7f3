"""Numbers out of records: the streams are merged, and each record's numbers go straight to the rows of its table.

A record is read a moment after it was found, while it is in the cache, and what is read of it is written to where it stays. Records are
made of 4-byte words, so what is copied are words: numbers that do not lie at whole words (kprobe arguments are packed) are shifted
together afterwards, out of the columns of words that they touch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .loops import index, loop
from .memory import empty
from .merge import Heads, leave, rival_of, sift
from .ringbuffer import SPOT_LENGTH, SPOT_SHIFT, Ahead

Array = npt.NDArray[Any]

UNSIGNED: Final = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
SIGNED: Final = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}

#: A number: its first byte in a record, and its size in bytes (1, 2, 4, 8).
Place = tuple[int, int]

#: Why the loop came back: all is done, a stream has no records ahead, a table has no room, too many short records.
DONE: Final = 0
EMPTY: Final = 1
FULL: Final = 2
#: How many records that are too short for their numbers are noted before they must be looked at.
MOST_SHORT: Final = 1 << 10


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
    """Which words of which table's records go where; all int64, the first six one number a table.

    Attributes:
        rows: the next free row.
        ends: the row after the last that there is room for.
        needs: bytes that a record must have.
        first, split, last: the copies of a table are first..last, those of double words before split.
        spots: what to add to the row for the place in `Columns.spots`, NO_SPOTS where it is not wanted.
        skips: for each copy which word of the record.
        bases: for each copy what to add to the row for the place in the array of double words, or of words.
    """

    rows: Array
    ends: Array
    needs: Array
    first: Array
    split: Array
    last: Array
    spots: Array
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
        spots: int64, where the records are (`ringbuffer.SPOT_SHIFT`), of the tables that want it.
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


#: In place of what to add to a row: no table has so many rows.
NO_SPOTS: Final = 1 << 62

#: Numbers that the loop carries from one call to the next: the place in the order of the trace, and how many records were short.
PLACE: Final = 0
SHORT: Final = 1


def room_for(wanted: Sequence[Wanted], rows: Sequence[int], *, buffers: bool, places: bool) -> tuple[Plan, Columns]:
    """Room for so many rows of each table."""
    none = np.empty(0, np.int64)
    plan = Plan(*(np.zeros(len(wanted), np.int64) for _ in Plan._fields))._replace(skips=none, bases=none)
    copies: list[tuple[int, int]] = []
    row = doubles = singles = spots = 0
    for number, (table, count) in enumerate(zip(wanted, rows, strict=True)):
        plan.rows[number], plan.ends[number], plan.needs[number] = row, row + count, table.need
        plan.first[number] = len(copies)
        copies += [(skip, doubles + i * count - row) for i, skip in enumerate(table.doubles)]
        doubles += len(table.doubles) * count
        plan.split[number] = len(copies)
        copies += [(skip, singles + i * count - row) for i, skip in enumerate(table.singles)]
        singles += len(table.singles) * count
        plan.last[number] = len(copies)
        plan.spots[number] = spots - row if table.varying else NO_SPOTS
        spots += count if table.varying else 0
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
        empty(2 * MOST_SHORT, np.int64),
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


@loop
def gather(
    words: Array,
    pairs: Array,
    ahead: Ahead,
    heads: Heads,
    stream_cpus: Array,
    stream_buffers: Array,
    pid_word: int,
    plan: Plan,
    columns: Columns,
    state: Array,
) -> int:
    """Pass on the records ahead in the order of the trace, until a stream has none left: EMPTY, the stream is the first of the heap; or a
    table has no room: FULL, or too many records are short: FULL; or no stream is in the heap: DONE.

    The first stream of the heap may have got new records since the last call, or none: then it has ended.
    """
    times = ahead.times
    heap, following, lasts = heads.heap, heads.next, heads.last
    if heads.size[0]:
        if following[heap[0]] == lasts[heap[0]]:
            leave(times, heads)
        else:
            sift(times, heads)
    place = state[PLACE]
    why = DONE
    while heads.size[0]:
        stream = heap[0]
        record, stop = following[stream], lasts[stream]
        cpu = stream_cpus[stream]
        # One stream goes on as long as it is before its nearest rival: records of one CPU come in runs.
        rival = rival_of(times, heads)
        limit = times[following[rival]] if rival >= 0 else 0
        while True:
            group = ahead.groups[index(record)]
            if group >= 0:
                row = plan.rows[index(group)]
                if row == plan.ends[index(group)]:
                    why = FULL
                    break
                spot = ahead.spots[index(record)]
                start = spot >> SPOT_SHIFT
                columns.times[index(row)] = times[index(record)]
                columns.cpus[index(row)] = cpu
                columns.tids[index(row)] = words[index(start + pid_word)]
                if len(columns.buffers):
                    columns.buffers[index(row)] = stream_buffers[stream]
                if len(columns.places):
                    columns.places[index(row)] = place
                if plan.spots[index(group)] != NO_SPOTS:
                    columns.spots[index(plan.spots[index(group)] + row)] = spot
                if (spot & SPOT_LENGTH) >= plan.needs[index(group)]:
                    for copy in range(plan.first[index(group)], plan.split[index(group)]):
                        columns.doubles[index(plan.bases[index(copy)] + row)] = pairs[index(start + plan.skips[index(copy)])]
                    for copy in range(plan.split[index(group)], plan.last[index(group)]):
                        columns.singles[index(plan.bases[index(copy)] + row)] = words[index(start + plan.skips[index(copy)])]
                else:
                    for copy in range(plan.first[index(group)], plan.split[index(group)]):
                        columns.doubles[index(plan.bases[index(copy)] + row)] = 0
                    for copy in range(plan.split[index(group)], plan.last[index(group)]):
                        columns.singles[index(plan.bases[index(copy)] + row)] = 0
                    short = state[SHORT]
                    columns.short[2 * short] = row
                    columns.short[2 * short + 1] = spot
                    state[SHORT] = short + 1
                plan.rows[index(group)] = row + 1
            place += 1
            record += 1
            if record == stop or state[SHORT] == MOST_SHORT:
                why = EMPTY if record == stop else FULL
                break
            if rival >= 0 and not (times[index(record)] < limit or (times[index(record)] == limit and stream < rival)):
                break
        following[stream] = record
        if why != DONE:
            break
        sift(times, heads)
    state[PLACE] = place
    return why
