"""The order of all events of a trace: the streams of the CPUs merged by time.

It is the order in which `trace-cmd report` prints: a merge, not a sort. Each stream keeps its own order even where its clock goes
back; of equal times the stream that comes first goes first (streams are by buffer, then by CPU).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .loops import part

Array = npt.NDArray[Any]


class Heads(NamedTuple):
    """How far each stream is.

    Attributes:
        heap: int64, the streams that have records ahead, as a heap: the one with the next record first.
        size: int64, one number: how many are in the heap.
        next, last: int64, for each stream its next record, and the one after its last.
    """

    heap: Array
    size: Array
    next: Array
    last: Array

    @classmethod
    def of(cls, streams: int) -> Heads:
        """No stream has a record yet."""
        return cls(*(np.zeros(size, np.int64) for size in (streams, 1, streams, streams)))


@part
def before(times: Array, heads: Heads, one: int, other: int) -> bool:
    """Whether stream `one` has the next record, of two streams that both have records ahead."""
    first, second = times[heads.next[one]], times[heads.next[other]]
    return bool(first < second or (first == second and one < other))


@part
def sift(times: Array, heads: Heads) -> None:
    """Let the top of the heap sink to its place."""
    heap, size = heads.heap, heads.size[0]
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
def join(times: Array, heads: Heads, stream: int) -> None:
    """Put a stream that has records ahead into the heap."""
    heap = heads.heap
    at = heads.size[0]
    heads.size[0] = at + 1
    heap[at] = stream
    while at and before(times, heads, heap[at], heap[(at - 1) // 2]):
        heap[at], heap[(at - 1) // 2] = heap[(at - 1) // 2], heap[at]
        at = (at - 1) // 2


@part
def leave(times: Array, heads: Heads) -> None:
    """Take the stream at the top, which has ended, out of the heap."""
    heads.size[0] -= 1
    if heads.size[0]:
        heads.heap[0] = heads.heap[heads.size[0]]
        sift(times, heads)


@part
def rival_of(times: Array, heads: Heads) -> int:
    """The stream that has the next record after those of the top one, -1 where there is no other."""
    heap, size = heads.heap, heads.size[0]
    if size < 2:
        return -1
    rival = heap[1]
    if size > 2 and before(times, heads, heap[2], rival):
        rival = heap[2]
    return int(rival)
