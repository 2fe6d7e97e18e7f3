"""Records of a perf.data, in the order of delivery -> rows: times, threads, names, numbers as they lie, and where the rest lies.

The names of threads change on the way, so records of COMM and FORK take part wherever names are wanted. Source of how names pass on:
Linux, tools/perf/util/machine.c (`machine__process_fork_event`, `machine__process_comm_event`) and thread.c (`thread__fork`).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .loops import index, loop, part
from .memory import empty
from .perfrecords import (
    COMM,
    EXIT,
    FORK,
    RECORD_TYPES,
    Ids,
    Layouts,
    Queue,
    chain_of,
    end_attr,
    raw_of,
    signed32,
    word64,
)
from .ringbuffer import word
from .streams import pairs_of

Array = npt.NDArray[Any]

#: Thread ids are below this: Linux, include/linux/threads.h, PID_MAX_LIMIT.
_MOST_TID: Final = 1 << 22
#: The start of a stretch that there is not.
NOWHERE: Final = -(1 << 62)
#: Types of records that begin with a process and a thread of their own.
_WITH_TID: Final = (1, 3, 8, 10, 12, 16)


class Threads(NamedTuple):
    """What is known of each thread while records go by.

    Attributes:
        names: int32, for each thread id what named it: 0: nothing, 1: it is the idle one, 2 and up: a COMM record.
        pids: int32, the process that it was first seen in and 2; 0: it was never seen, 1: its process is not known.
        own: int64, for each type of record the word of the thread that it is about, 0: the one that made it.
    """

    names: Array
    pids: Array
    own: Array

    @classmethod
    def new(cls) -> Threads:
        """No thread known but the idle one."""
        own = np.zeros(RECORD_TYPES, np.int64)
        own[list(_WITH_TID)] = 3
        own[[EXIT, FORK]] = 4
        threads = cls(np.zeros(_MOST_TID, np.int32), np.zeros(_MOST_TID, np.int32), own)
        threads.names[0], threads.pids[0] = 1, 2
        return threads


class Plan(NamedTuple):
    """Which rows which records become. Rows are counted over all tables; what is said to be at a row is so less the table's first row.

    Attributes:
        tables: int64, for each source the table that its records are rows of, -1 for none.
        body: int64, for each source the word of a record where its body is: what most fields are counted from.
        found: int64, for each source 1 where the body or the call chain has to be looked for.
        first, values, split, last: int64, for each source its copies: first..values are double words of the record itself, up to split
            double words of the body, up to last words of the body.
        at: int64, for each copy the word that is copied.
        bases: int64, for each copy where its column starts in the array of double words, or of words.
        rows: int64, for each table the row that comes next; counted on.
        firsts: int64, for each table its first row.
        bodies, chains: int64, for each table where its stretch of these arrays starts, NOWHERE for none.
    """

    tables: Array
    body: Array
    found: Array
    first: Array
    values: Array
    split: Array
    last: Array
    at: Array
    bases: Array
    rows: Array
    firsts: Array
    bodies: Array
    chains: Array


class Columns(NamedTuple):
    """Where rows are written; all tables lie one after the other.

    Attributes:
        times: int64, ns.
        cpus, tids, pids: int32.
        names: int32, what named the thread: -1: nothing, 0: it is the idle one, 1 and up: a COMM record.
        about: int32, the thread that has no name; written only where that is so.
        positions: int64, how many records of any kind came before; empty where they are not wanted.
        doubles, singles: uint64, uint32: copied numbers, as they lie in the file.
        bodies, body_sizes: int64, the word where fields lie, and their bytes; for tables with fields that are no plain numbers.
        chains, chain_sizes: int64, the same for call chains.
    """

    times: Array
    cpus: Array
    tids: Array
    pids: Array
    names: Array
    about: Array
    positions: Array
    doubles: Array
    singles: Array
    bodies: Array
    body_sizes: Array
    chains: Array
    chain_sizes: Array

    @classmethod
    def room(cls, rows: int, *, positions: bool, copies: tuple[int, int], bodies: int, chains: int) -> Columns:
        """Room for so many rows, copies of double words and of words, bodies and call chains."""
        wide, narrow = copies
        cpus, tids, pids, names, about = (empty(rows, np.int32) for _ in range(5))
        body_starts, body_sizes = (empty(bodies, np.int64) for _ in range(2))
        chain_starts, chain_sizes = (empty(chains, np.int64) for _ in range(2))
        return cls(
            empty(rows, np.int64),
            cpus,
            tids,
            pids,
            names,
            about,
            empty(rows if positions else 0, np.int64),
            empty(wide, np.uint64),
            empty(narrow, np.uint32),
            body_starts,
            body_sizes,
            chain_starts,
            chain_sizes,
        )


@part
def process_of(words: Array, at: int, swapped: int) -> int:
    """The number of a process as `Threads` has it."""
    return min(max(signed32(words, at, swapped), -1), _MOST_TID) + 2


@part
def take_names(words: Array, at: int, kind: int, note: int, swapped: int, threads: Threads) -> None:
    """A COMM record names a thread; with a FORK a new one has its parent's name, if that has one."""
    limit = len(threads.names)
    process = process_of(words, at + 2, swapped)
    if kind == COMM:
        tid = signed32(words, at + 3, swapped)
        if 0 <= tid < limit:
            if threads.pids[tid] <= 1:
                threads.pids[tid] = process
            threads.names[tid] = note + 2
        return
    tid, parent = signed32(words, at + 4, swapped), signed32(words, at + 5, swapped)
    name = 0
    if 0 <= parent < limit:
        above = process_of(words, at + 3, swapped)
        if threads.pids[parent] > 1 and threads.pids[parent] != above:
            # Another thread had that number: the records of its end were lost.
            threads.names[parent] = 0
        threads.pids[parent] = above
        name = threads.names[parent]
    if 0 <= tid < limit:
        threads.pids[tid] = process
        threads.names[tid] = name


@part
def size_of(words: Array, start: int, swapped: int) -> int:
    """Bytes of the record that starts at a word."""
    sized = word(words, start + 1, swapped)
    return sized & 0xFFFF if swapped else sized >> 16


@loop
def emit(  # noqa: C901, PLR0912, PLR0915 -- one loop, as calls would cost as much as the work
    words: Array,
    pairs: Array,
    order: Array,
    queue: Queue,
    layouts: Layouts,
    ids: Ids,
    plan: Plan,
    threads: Threads,
    position: int,
    columns: Columns,
) -> None:
    """Write the rows of records in the order of delivery: `order` numbers them in the queue, `position` were delivered before."""
    swapped = layouts.swapped
    attrs, limit, counted = len(layouts.size), len(threads.names), len(columns.positions)
    for turn in range(len(order)):
        entry = order[index(turn)]
        source = queue.sources[index(entry)]
        start = queue.starts[index(entry)]
        table = plan.tables[index(source)]
        if source < attrs:
            if table < 0:
                continue
            row = plan.rows[index(table)]
            tid_at = layouts.tid[index(source)]
            pid = signed32(words, start + tid_at, swapped) if tid_at >= 0 else -1
            tid = signed32(words, start + tid_at + 1, swapped) if tid_at >= 0 else -1
            named = tid
            body = start + plan.body[index(source)]
            if plan.found[index(source)]:
                stop = start + size_of(words, start, swapped) // 4
                body = chain_of(words, start, stop, layouts, source)
                if plan.chains[index(table)] != NOWHERE:
                    columns.chains[plan.chains[index(table)] + row] = body + 2
                    columns.chain_sizes[plan.chains[index(table)] + row] = 8 * word64(words, body, swapped)
                body = raw_of(words, body, stop, layouts, source) + 1
            if plan.bodies[index(table)] != NOWHERE:
                columns.bodies[plan.bodies[index(table)] + row] = body
                columns.body_sizes[plan.bodies[index(table)] + row] = word(words, body - 1, swapped)
        else:
            kind = source - attrs
            size = size_of(words, start, swapped)
            stop = start + size // 4
            if (kind == COMM and size >= 16) or (kind == FORK and size >= 24):
                take_names(words, start, kind, queue.notes[index(entry)], swapped, threads)
            if table < 0:
                continue
            row = plan.rows[index(table)]
            attr = end_attr(words, start, stop, layouts, ids)
            fits = stop - layouts.end[attr] >= start + 2
            pid = -1
            tid = -1
            if fits and layouts.end_tid[attr] >= 0:
                pid = signed32(words, stop - layouts.end[attr] + layouts.end_tid[attr], swapped)
                tid = signed32(words, stop - layouts.end[attr] + layouts.end_tid[attr] + 1, swapped)
            named = tid
            own = threads.own[kind]
            if own and start + own < stop:
                named = signed32(words, start + own, swapped)
                if layouts.end_tid[attr] < 0:
                    tid = named
                    pid = signed32(words, start + 2, swapped)
            body = start
            if plan.bodies[index(table)] != NOWHERE:
                columns.bodies[plan.bodies[index(table)] + row] = body
                columns.body_sizes[plan.bodies[index(table)] + row] = size - 4 * layouts.end[attr] if fits else size
        plan.rows[index(table)] = row + 1
        columns.times[index(row)] = queue.times[index(entry)]
        columns.cpus[index(row)] = queue.cpus[index(entry)]
        columns.tids[index(row)] = tid
        columns.pids[index(row)] = pid
        name = threads.names[named] - 1 if 0 <= named < limit else -1
        columns.names[index(row)] = name
        if name < 0:
            columns.about[index(row)] = named
        if counted:
            columns.positions[index(row)] = position + turn
        for copy in range(plan.first[index(source)], plan.values[index(source)]):
            columns.doubles[index(plan.bases[index(copy)] + row)] = pairs[index(start + plan.at[index(copy)])]
        for copy in range(plan.values[index(source)], plan.split[index(source)]):
            columns.doubles[index(plan.bases[index(copy)] + row)] = pairs[index(body + plan.at[index(copy)])]
        for copy in range(plan.split[index(source)], plan.last[index(source)]):
            columns.singles[index(plan.bases[index(copy)] + row)] = words[index(body + plan.at[index(copy)])]


class Emission:
    """Rows that are written piece by piece, in the order of delivery."""

    def __init__(self, words: Array, layouts: Layouts, ids: Ids) -> None:
        """Begin with no thread known."""
        self._words, self._pairs, self._layouts, self._ids = words, pairs_of(words), layouts, ids
        self._threads = Threads.new()
        self._delivered = 0

    def emit(self, order: Array, queue: Queue, plan: Plan, columns: Columns) -> None:
        """Write the rows of the next records; `order` numbers them in the queue."""
        emit.run(
            order.size, self._words, self._pairs, order, queue, self._layouts, self._ids, plan, self._threads, self._delivered, columns
        )
        self._delivered += order.size
