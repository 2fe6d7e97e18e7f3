"""Numbers out of records: all fields of all events that are asked for, in one pass over the records in file order.

In that order a record is in the cache once, whatever is read of it; each number goes to the row that the order of the trace gives
it. Records are made of 4-byte words, so what is copied are words: numbers that do not lie at whole words (kprobe arguments are
packed) are shifted together afterwards, out of the columns of words that they touch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .loops import loop
from .merge import Order
from .ringbuffer import Found, Records, word

Array = npt.NDArray[Any]

UNSIGNED: Final = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
SIGNED: Final = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}

#: A number: its first byte in a record, and its size in bytes (1, 2, 4, 8).
Place = tuple[int, int]


class Header(NamedTuple):
    """The columns that every event has, of all events that are asked for, one event after the other.

    Attributes:
        times: int64, ns.
        cpus: int32.
        tids: int32.
    """

    times: Array
    cpus: Array
    tids: Array


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was gathered of several events.

    Attributes:
        header: of the records of all of them.
        rows: for each event which rows of the header are its own, in the order of the trace.
        numbers: for each event the columns of the numbers that were asked for, unsigned.
    """

    header: Header
    rows: list[slice]
    numbers: list[list[Array]]


class Plan(NamedTuple):
    """Which words of which event go where; what the loop is told.

    Attributes:
        wanted: int64, 65536 numbers: 1 where an event is asked for.
        rows: int64, 65536 numbers: the row of the header where an event's records start.
        first, split, last: int64, 65536 numbers: the copies of an event are first..last, those of double words before split.
        skips: int64, for each copy which word of the record.
        bases: int64, for each copy where its column starts in the array of double words, or of words.
    """

    wanted: Array
    rows: Array
    first: Array
    split: Array
    last: Array
    skips: Array
    bases: Array


def gather_numbers(
    words: Array, records: Records, order: Order, cpus: Array, pid_at: int, wanted: Sequence[tuple[int, Sequence[Place]]]
) -> Gathered:
    """Gather numbers of several events.

    Args:
        words: uint32, what the records lie in.
        records: of all streams.
        order: of the records.
        cpus: int32, the CPU of each stream.
        pid_at: the byte of every record where its thread is, a multiple of 4.
        wanted: ids of events, each once, and the numbers that are wanted of them, all within the shortest record.
    """
    found = records.found
    plan, doubles, singles = _plan(found.counts, wanted)
    total = int(found.counts[plan.wanted == 1].sum())
    header = Header(np.empty(total, np.int64), np.empty(total, np.int32), np.empty(total, np.int32))
    if total:
        # The thread is gathered as a word; it is a signed number.
        copied = header._replace(tids=header.tids.view(np.uint32))
        # The loop looks at every event, however few are wanted.
        gather.run(len(order.slots), words, found, order.slots, records.bounds, cpus, pid_at // 4, plan, copied, doubles, singles)
    rows, numbers = [], []
    for number, places in wanted:
        start, count = int(plan.rows[number]), int(found.counts[number])
        rows.append(slice(start, start + count))
        numbers.append(_columns(plan, number, count, places, doubles, singles))
    return Gathered(header, rows, numbers)


def _columns(plan: Plan, number: int, count: int, places: Sequence[Place], doubles: Array, singles: Array) -> list[Array]:
    """The numbers of one event, out of what was copied for it."""
    first, split, last = (int(ends[number]) for ends in (plan.first, plan.split, plan.last))
    of_doubles = (doubles[base : base + count] for base in plan.bases[first:split].tolist())
    of_singles = (singles[base : base + count] for base in plan.bases[split:last].tolist())
    return [
        next(of_doubles) if _is_double(place) else number_of(*place, list(itertools.islice(of_singles, _words_of(place))))
        for place in places
    ]


def _is_double(place: Place) -> bool:
    offset, length = place
    return length == 8 and offset % 4 == 0


def _words_of(place: Place) -> int:
    """How many words a number touches."""
    offset, length = place
    return (offset % 4 + length + 3) // 4


def _plan(counts: Array, wanted: Sequence[tuple[int, Sequence[Place]]]) -> tuple[Plan, Array, Array]:
    """The plan, and room for the double words (uint64) and words (uint32) that it copies."""
    asked, rows, first, split, last = (np.zeros(counts.size, np.int64) for _ in range(5))
    copies: list[tuple[int, int]] = []
    row = doubles = singles = 0
    for number, places in wanted:
        count = int(counts[number])
        asked[number], rows[number], first[number] = 1, row, len(copies)
        row += count
        skips = [offset // 4 for offset, length in places if _is_double((offset, length))]
        copies += [(skip, doubles + i * count) for i, skip in enumerate(skips)]
        doubles += len(skips) * count
        split[number] = len(copies)
        skips = [place[0] // 4 + i for place in places if not _is_double(place) for i in range(_words_of(place))]
        copies += [(skip, singles + i * count) for i, skip in enumerate(skips)]
        singles += len(skips) * count
        last[number] = len(copies)
    skips_of, bases = np.array(copies, np.int64).reshape(-1, 2).T.copy()
    return Plan(asked, rows, first, split, last, skips_of, bases), np.empty(doubles, np.uint64), np.empty(singles, np.uint32)


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
    found: Found,
    slots: Array,
    bounds: Array,
    cpus: Array,
    pid_word: int,
    plan: Plan,
    header: Header,
    doubles: Array,
    singles: Array,
) -> None:
    """Write the header, double words (uint64) and words (uint32) of the records of the events that are in the plan."""
    for stream in range(len(cpus)):
        cpu = cpus[stream]
        for event in range(bounds[stream], bounds[stream + 1]):
            number = found.ids[event]
            if plan.wanted[number]:
                slot = slots[event]
                start = found.starts[event]
                row = plan.rows[number] + slot
                header.times[row] = found.times[event]
                header.cpus[row] = cpu
                header.tids[row] = words[start + pid_word]
                for copy in range(plan.first[number], plan.split[number]):
                    at = start + plan.skips[copy]
                    doubles[plan.bases[copy] + slot] = word(words, at) | word(words, at + 1) << 32
                for copy in range(plan.split[number], plan.last[number]):
                    singles[plan.bases[copy] + slot] = words[start + plan.skips[copy]]
