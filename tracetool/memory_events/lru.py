"""What fills and empties the LRU batches of each CPU, as the raw events tell it.

A new page waits in a batch of its CPU, which holds a reference to it, until the batch is full or drained (mm/swap.c, `lru_add`). What is
allocated as movable goes there: anonymous pages and page cache alike. A larger page goes through at once and takes the whole batch along.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracetool.memory_events.columns import column_of

Ints = npt.NDArray[Any]

MIGRATE_MOVABLE: Final = 1
#: No kernel has more CPUs (arch/x86/Kconfig, NR_CPUS); with a higher number nothing is said of batches.
MOST_CPUS: Final = 8192
#: No anonymous page is larger: 2 MiB.
MOST_ORDER: Final = 9
#: Kinds of LRU events: the batch is drained; a page joins it; a larger page passes through it.
DRAINED, JOINS, PASSES = range(3)
#: madvise() drains for these: DONTNEED, FREE, COLD, PAGEOUT, DONTNEED_LOCKED (mm/madvise.c).
_DRAINING_ADVICE: Final = (4, 8, 20, 21, 24)


def pages_in_a_batch(release: tuple[int, int] | None, new_flags: bool) -> int:
    """PAGEVEC_SIZE of include/linux/pagevec.h: 15, and 31 since v6.9; where the release is not known, by the numbers of FOLL_* (v6.3)."""
    return 31 if (new_flags if release is None else release >= (6, 9)) else 15


class LruEvents(NamedTuple):
    """In trace order: `position` int64 among all events of the trace, `cpu` int32, `pfn` int64 (-1: none) and log2 of how many from there
    on (`order` int8), `what` int8.
    """

    position: Ints
    cpu: Ints
    pfn: Ints
    order: Ints
    what: Ints


def lru_events(made: Mapping[str, pa.Table], allocations: pa.Table | None) -> LruEvents:
    """From tables with `position`; nothing where the trace does not say which allocations are movable.

    exit_mmap(), the move of exec's stack, munmap() and madvise() drain the batch of their CPU, and so does the freeing of pages in batches
    (free_pages_and_swap_cache() and __pagevec_release() before it; a batch that is emptied into the LRU lists frees in such a batch, too).
    """
    if allocations is None or "migratetype" not in allocations.column_names:
        return LruEvents(*(np.zeros(0, dtype) for dtype in (np.int64, np.int32, np.int64, np.int8, np.int8)))
    order, movable = _column(allocations, "order"), _column(allocations, "migratetype") == MIGRATE_MOVABLE
    parts = [
        (
            _column(allocations, "position")[movable],
            _column(allocations, "cpu")[movable],
            _column(allocations, "pfn")[movable],
            np.clip(order[movable], 0, MOST_ORDER),
            np.where(order[movable] > 0, PASSES, JOINS),
        )
    ]
    for name in ("mm_exit", "table_move", "sys_exit_munmap", "sys_enter_madvise", "mm_page_free_batched"):
        if name in made:
            table = made[name]
            drains = np.isin(_column(table, "behavior"), _DRAINING_ADVICE) if name == "sys_enter_madvise" else np.s_[:]
            at = _column(table, "position")[drains]
            parts.append((at, _column(table, "cpu")[drains], np.full(at.size, -1), np.zeros(at.size, np.int64), np.full(at.size, DRAINED)))
    position, cpu, pfn, orders, what = (np.concatenate(column) for column in zip(*parts, strict=True))
    if cpu.size and not 0 <= int(cpu.min()) <= int(cpu.max()) < MOST_CPUS:
        return lru_events(made, None)
    by_time = np.argsort(position, kind="stable")
    return LruEvents(
        position[by_time], cpu[by_time].astype(np.int32), pfn[by_time], orders[by_time].astype(np.int8), what[by_time].astype(np.int8)
    )


def _column(table: pa.Table, name: str) -> Ints:
    return np.broadcast_to(column_of(table, name), table.num_rows)
