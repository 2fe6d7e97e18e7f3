"""The order of all events of a trace: the streams of the CPUs merged by time.

It is the order in which `trace-cmd report` prints: a merge, not a sort. Each stream keeps its own order even where its clock goes
back; of equal times the stream that comes first goes first (streams are by buffer, then by CPU).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .loops import loop, part
from .ringbuffer import Found, Records

Array = npt.NDArray[Any]


class Order(NamedTuple):
    """Where each record, in file order, comes in the order of the trace; int32 (int64 where that cannot count them).

    Attributes:
        places: its place among all records.
        slots: its place among the records of its event.
    """

    places: Array
    slots: Array


def order_of(records: Records) -> Order:
    """Merge the streams."""
    found, bounds = records.found, records.bounds
    events = found.times.size
    dtype = np.int32 if events < 1 << 31 else np.int64
    order = Order(np.empty(events, dtype), np.empty(events, dtype))
    if events:
        heap, heads, seen = np.zeros(bounds.size, np.int64), bounds[:-1].copy(), np.zeros(found.counts.size, np.int64)
        merge.run(events, found, bounds, heap, heads, seen, order)
    return order


def rows_of(number: int, found: Found, order: Order) -> Array:
    """The records of the event with id `number` in the order of the trace: int64."""
    chosen = np.flatnonzero(found.ids == number)
    rows = np.empty_like(chosen)
    rows[order.slots[chosen]] = chosen
    return rows


@part
def before(times: Array, heads: Array, one: int, other: int) -> bool:
    """Whether stream `one` has the next event, of two streams that both have events left."""
    first, second = times[heads[one]], times[heads[other]]
    return bool(first < second or (first == second and one < other))


@part
def sift(heap: Array, size: int, times: Array, heads: Array) -> None:
    """Let the top of the heap sink to its place."""
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and before(times, heads, heap[child + 1], heap[child]):
            child += 1
        if not before(times, heads, heap[child], heap[at]):
            return
        heap[at], heap[child] = heap[child], heap[at]
        at = child


@part
def fill(heap: Array, times: Array, bounds: Array, heads: Array) -> int:
    """Put the streams that have events into the heap; returns how many they are."""
    size = 0
    for stream in range(len(heads)):
        if heads[stream] < bounds[stream + 1]:
            at = size
            heap[at] = stream
            while at and before(times, heads, heap[at], heap[(at - 1) // 2]):
                heap[at], heap[(at - 1) // 2] = heap[(at - 1) // 2], heap[at]
                at = (at - 1) // 2
            size += 1
    return size


@loop
def merge(found: Found, bounds: Array, heap: Array, heads: Array, seen: Array, order: Order) -> None:
    """Write the order of the records that were found.

    `heap` has room for all streams, `heads` is each stream's first record, `seen` how many records of each event have come.
    """
    times, ids = found.times, found.ids
    size = fill(heap, times, bounds, heads)
    place = 0
    while size:
        stream = heap[0]
        event, stop = heads[stream], bounds[stream + 1]
        # One stream goes on as long as it is before its nearest rival: events of one CPU come in runs.
        rival = -1
        limit = 0
        if size > 1:
            rival = heap[1]
            if size > 2 and before(times, heads, heap[2], rival):
                rival = heap[2]
            limit = times[heads[rival]]
        while True:
            number = ids[event]
            order.places[event] = place
            order.slots[event] = seen[number]
            seen[number] += 1
            place += 1
            event += 1
            if event == stop or (rival >= 0 and not (times[event] < limit or (times[event] == limit and stream < rival))):
                break
        heads[stream] = event
        if event == stop:
            size -= 1
            heap[0] = heap[size]
        sift(heap, size, times, heads)
