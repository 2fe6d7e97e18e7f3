"""LRU batches over time: when each new page leaves its CPU's, when each is emptied; and which pages were allocated together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tracetool.memory_events.lru import DRAINED, JOINS, PASSES
from tracetool_parsers.loops import guarded, loop

if TYPE_CHECKING:
    from tracetool.memory_events import LruRows

Ints = npt.NDArray[Any]

#: After every event there is.
NEVER = (1 << 31) - 1


class Batches(NamedTuple):
    """`batch` int32 (page, CPU, event of joining, event before which it leaves, whether that can be earlier), zeros where a page waits in
    none; `drains` int32, the events before which batches are emptied, those of CPU `c` from `first[c]` to `first[c + 1]`, sorted.
    """

    batch: Ints
    drains: Ints
    first: Ints


@loop
@guarded
def wait(
    what: Ints, cpu: Ints, row: Ints, size: int, waiting: Ints, number: Ints, known: Ints, until: Ints, unsure: Ints, drained: Ints
) -> None:
    """Let pages wait until their batch is full or drained; how full a batch was when the trace began is known once it is drained."""
    for i in range(len(what)):
        own = cpu[i]
        if what[i] != DRAINED:
            waiting[own, number[own]] = i
            number[own] += 1
            unsure[i] = 1 - known[own]
        if what[i] == JOINS and number[own] < size:
            continue
        for n in range(number[own]):
            until[waiting[own, n]] = row[i]
        number[own] = 0
        drained[i] = 1
        if what[i] == DRAINED or what[i] == PASSES:
            known[own] = 1


def allocations(lru: LruRows, page_frames: Ints, page_born: Ints) -> Ints:
    """For each page (of dense frame `page_frames`, mapped first at event `page_born`) the row of `lru` that allocated its frame last
    before, -1 where the trace does not tell.
    """
    allocates = np.flatnonzero((lru.what != DRAINED) & (lru.frames > 0))
    many = np.repeat(allocates, lru.frames[allocates])
    ends = np.cumsum(lru.frames[allocates])
    counted = np.arange(many.size) - np.repeat(ends - lru.frames[allocates], lru.frames[allocates])
    key = (lru.frame[many].astype(np.int64) + counted) << 32 | lru.row[many]
    in_order = np.argsort(key, kind="stable")
    at = np.searchsorted(key[in_order], page_frames.astype(np.int64) << 32 | np.maximum(page_born, 0), side="right") - 1
    found = np.full(len(page_frames), -1, np.int64)
    told = np.flatnonzero((at >= 0) & (page_born >= 0))
    entry = in_order[at[told]]
    own = key[entry] >> 32 == page_frames[told]
    found[told[own]] = many[entry[own]]
    return found


def batches(lru: LruRows, size: int, allocated: Ints, page_born: Ints, again: Ints, cpus: int) -> Batches:
    """When each page (`allocated`: by which row of `lru`) leaves its batch of `size` pages. Of those that were not new when they were
    mapped (`again`) it is not known: while pages migrate batches may be switched off (mm/swap.c, `lru_cache_disable`).
    """
    n = len(lru.row)
    until, unsure, drained = np.full(n, NEVER, np.int32), np.zeros(n, np.int8), np.zeros(n, np.int8)
    empty = (np.zeros((cpus, size), np.int32), np.zeros(cpus, np.int32), np.zeros(cpus, np.int8))
    wait.run(n, lru.what, lru.cpu, lru.row, size, *empty, until, unsure, drained)
    batch = np.zeros((len(allocated), 4), np.int32)
    found = np.flatnonzero(allocated >= 0)
    found = found[lru.what[allocated[found]] == JOINS]
    join = allocated[found]
    batch[found] = np.stack([lru.cpu[join], page_born[found], until[join], unsure[join] | again[found]], axis=1)
    emptied = np.flatnonzero(drained)
    by_cpu = emptied[np.argsort(lru.cpu[emptied], kind="stable")]
    return Batches(batch, lru.row[by_cpu], np.searchsorted(lru.cpu[by_cpu], np.arange(cpus + 1)))


def folios_of(lru: LruRows, allocated: Ints, page_folio: Ints, folios: int) -> tuple[Ints, int]:
    """The folio of each page, also of those that were mapped one by one but allocated together, as a migrated huge page's are; and how many
    folios there are.
    """
    alone = np.flatnonzero((page_folio < 0) & (allocated >= 0))
    alone = alone[lru.what[allocated[alone]] == PASSES]
    if not alone.size:
        return page_folio, folios
    together, number = np.unique(allocated[alone], return_inverse=True)
    told = page_folio.copy()
    told[alone] = folios + number
    return told, folios + together.size
