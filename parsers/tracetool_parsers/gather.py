"""Numbers out of records: all fields of all events that are asked for, in one pass over the records in file order.

In that order a record is in the cache once, whatever is read of it; each number goes to the row that the order of the trace gives
it. Records are made of 4-byte words, so what is copied are words: numbers that do not lie at whole words (kprobe arguments are
packed) are shifted together afterwards, out of the columns of words that they touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .loops import loop
from .merge import Order
from .ringbuffer import Found, Records

Array = npt.NDArray[Any]

UNSIGNED: Final = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
SIGNED: Final = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}

#: A number: its first byte in a record, and its size in bytes (1, 2, 4, 8).
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What all records of one event have, in the order of the trace.

    Attributes:
        times: int64, ns.
        cpus: int32.
        numbers: for each number asked for its column, unsigned.
    """

    times: Array
    cpus: Array
    numbers: list[Array]


class Plan(NamedTuple):
    """Which words of which event go where; what the loop is told.

    Attributes:
        first, last: int64, 65536 numbers: the copies of each event id; an id without copies is passed over.
        rows: int64, 65536 numbers: the row of `times` and `cpus` where an event's records start.
        skips: int64, for each copy which word of the record.
        bases: int64, where in the output its column starts.
        steps: int64, how far apart its rows are: 1, or 2 where two columns make 64-bit numbers.
    """

    first: Array
    last: Array
    rows: Array
    skips: Array
    bases: Array
    steps: Array


def gather_numbers(
    words: Array, records: Records, order: Order, cpus: Array, wanted: Sequence[tuple[int, Sequence[Place]]]
) -> list[Gathered]:
    """Gather numbers of several events.

    Args:
        words: uint32, what the records lie in.
        records: of all streams.
        order: of the records.
        cpus: int32, the CPU of each stream.
        wanted: ids of events, each once, and the numbers that are wanted of them: at least one, all within the shortest record.
    """
    found = records.found
    plan, size = _plan(found.counts, wanted)
    total = int(found.counts[[number for number, _ in wanted]].sum()) if wanted else 0
    times, cpu_of, out = np.empty(total, np.int64), np.empty(total, np.int32), np.empty(size, np.uint32)
    if total:
        gather.run(total, words, found, order.slots, records.bounds, cpus, plan, times, cpu_of, out)
    gathered = []
    copy = 0
    for number, places in wanted:
        rows = slice(int(plan.rows[number]), int(plan.rows[number] + found.counts[number]))
        columns = []
        for offset, length in places:
            base, steps = int(plan.bases[copy]), _steps(offset, length)
            columns.append(number_of(offset, length, _columns_at(out, base, steps, rows.stop - rows.start)))
            copy += len(steps)
        gathered.append(Gathered(times[rows], cpu_of[rows], columns))
    return gathered


def _plan(counts: Array, wanted: Sequence[tuple[int, Sequence[Place]]]) -> tuple[Plan, int]:
    """The plan, and how many words it writes."""
    first, last, rows = (np.zeros(counts.size, np.int64) for _ in range(3))
    copies: list[tuple[int, int, int]] = []
    size = row = 0
    for number, places in wanted:
        count = int(counts[number])
        first[number], rows[number] = len(copies), row
        row += count
        for offset, length in places:
            steps = _steps(offset, length)
            copies += [(offset // 4 + i, size + (i if step == 2 else i * count), step) for i, step in enumerate(steps)]
            # Columns start at even words: 64-bit numbers are seen in place.
            size += (len(steps) * count + 1) // 2 * 2
        last[number] = len(copies)
    skips, bases, steps_of = np.array(copies, np.int64).reshape(-1, 3).T.copy()
    return Plan(first, last, rows, skips, bases, steps_of), size


def _steps(offset: int, length: int) -> tuple[int, ...]:
    """How far apart the rows are of each word that a number touches."""
    if offset % 4 == 0 and length >= 4:
        return (1,) if length == 4 else (2, 2)
    return (1,) * ((offset % 4 + length + 3) // 4)


def _columns_at(out: Array, base: int, steps: tuple[int, ...], rows: int) -> list[Array]:
    if steps == (2, 2):
        return [out[base : base + 2 * rows]]
    return [out[base + i * rows : base + (i + 1) * rows] for i in range(len(steps))]


def number_of(offset: int, length: int, words: Sequence[Array]) -> Array:
    """A number of `length` bytes at `offset` out of columns of the words that it touches (uint32).

    A number of eight bytes at a whole word is one column of twice as many.
    """
    if offset % 4 == 0 and length >= 4:
        return words[0].view(UNSIGNED[length])
    low = np.uint32(offset % 4 * 8)
    if low:
        high = np.uint32(32 - low)
        words = [word >> low | (words[i + 1] << high if i + 1 < len(words) else np.uint32(0)) for i, word in enumerate(words)]
    if length < 8:
        return words[0].astype(UNSIGNED[length])
    out = np.empty((words[0].size, 2), np.uint32)
    out[:, 0], out[:, 1] = words[0], words[1]
    return out.reshape(-1).view(np.uint64)


@loop
def gather(
    words: Array,
    found: Found,
    slots: Array,
    bounds: Array,
    cpus: Array,
    plan: Plan,
    times: Array,
    cpu_of: Array,
    out: Array,
) -> None:
    """Write times (int64), CPUs (int32) and words (uint32) of the records of the events that are in the plan."""
    for stream in range(len(cpus)):
        cpu = cpus[stream]
        for event in range(bounds[stream], bounds[stream + 1]):
            number = found.ids[event]
            first, last = plan.first[number], plan.last[number]
            if first < last:
                row = slots[event]
                start = found.starts[event]
                times[plan.rows[number] + row] = found.times[event]
                cpu_of[plan.rows[number] + row] = cpu
                for copy in range(first, last):
                    out[plan.bases[copy] + plan.steps[copy] * row] = words[start + plan.skips[copy]]
