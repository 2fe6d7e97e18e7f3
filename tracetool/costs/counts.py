"""Costs: how many copies a policy makes, what they cost beyond the policy that shares the most, and how many page frames are in use.

Times are assumed, not measured: the default price of one more copy is the difference between a COW fault that copies 4 KiB and one that
reuses, on Linux 6.18 in a virtual machine with nested paging on an AMD EPYC: 2.9 us against 0.9 us.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool.replay import Replay
from tracetool.replay import columns as k
from tracetool.schema import PAGE_SIZE

Ints = npt.NDArray[Any]

#: The policy against which every other is priced.
SHARES_MOST: Final = "mapcount"
#: What one copy costs more than writing in place, in ns.
EXTRA_COPY_NS: Final = 2_000


@dataclass(frozen=True)
class Cost:
    """Decisions of one replay, counted, and the most page frames in use at one moment (of those that the trace shows)."""

    cow_faults: int
    copies: int
    reuses: int
    early_copies: int
    unshares: int
    zero_fills: int
    splits: int
    peak_pages: int

    @property
    def copied_pages(self) -> int:
        """Pages copied from another anonymous page or from page cache, for whatever reason."""
        return self.copies + self.early_copies + self.unshares

    def beyond(self, than: Cost) -> tuple[int, int, int]:
        """Copies, bytes and ns (assumed) beyond those of another replay of the same trace; negative where it copies less."""
        copies = self.copied_pages - than.copied_pages
        return copies, copies * PAGE_SIZE, copies * EXTRA_COPY_NS


def cost(replay: Replay) -> Cost:
    """Count what a replay decided."""
    counts = dict(replay.fault_rows.get_column("decision").cast(pl.String).value_counts().iter_rows())
    copies, reuses = counts.get("copy", 0), counts.get("reuse", 0)
    unshares, zero_fills = counts.get("unshare", 0), counts.get("zero-fill", 0)
    return Cost(
        cow_faults=copies + reuses + unshares + zero_fills + counts.get("undetermined", 0),
        copies=copies,
        reuses=reuses,
        early_copies=counts.get("early-copy", 0),
        unshares=unshares,
        zero_fills=zero_fills,
        splits=counts.get("split", 0),
        peak_pages=peak_pages(replay),
    )


def peak_pages(replay: Replay) -> int:
    """The most anonymous page frames that were mapped or referenced at one moment."""
    stays, held = replay.stay_rows, replay.outcome.ref_page >= 0
    refs = replay.history.refs[held]
    page = np.concatenate([stays[:, k.S_PAGE], replay.outcome.ref_page[held]])
    start = np.concatenate([stays[:, k.S_FROM], refs[:, k.R_FROM]])
    end = np.concatenate([stays[:, k.S_TO], refs[:, k.R_TO]])
    known = page >= 0
    if not known.any():
        return 0
    page, start, end = page[known], start[known], end[known]
    last = len(replay.history.events)
    first = np.full(int(page.max()) + 1, last, np.int64)
    until = np.full(len(first), -1, np.int64)
    np.minimum.at(first, page, start)
    np.maximum.at(until, page, np.where(end < 0, last, end))
    used = until >= 0
    change = np.bincount(first[used] + 1, minlength=last + 2) - np.bincount(until[used] + 1, minlength=last + 2)
    return int(np.cumsum(change).max(initial=0))
