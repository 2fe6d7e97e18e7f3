"""Costs: how many copies a policy makes, what they cost beyond the policy that shares the most, and how many page frames are in use.

Times are assumed, not measured: one more copy costs what the shipped cost table says (`prices.Prices.extra_copy`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from tracetool.costs import prices
from tracetool.costs.memory import memory
from tracetool.replay import Replay
from tracetool.schema import PAGE_SIZE

#: The policy against which every other is priced.
SHARES_MOST: Final = "mapcount"


@dataclass(frozen=True)
class Cost:
    """Decisions of one replay, counted (the copy of a huge page as one COW fault and as copies of all its pages), and the most page frames
    in use at one moment (of those that the trace shows).
    """

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
        return copies, copies * PAGE_SIZE, round(copies * prices.load(None).extra_copy.value_ns)


def cost(replay: Replay) -> Cost:
    """Count what a replay decided."""
    by_decision = replay.fault_rows.group_by(pl.col("decision").cast(pl.String)).agg(pl.len(), pl.col("pages").sum())
    counts = {decision: pages for decision, _, pages in by_decision.iter_rows()}
    faults = {decision: rows for decision, rows, _ in by_decision.iter_rows()}
    copies, reuses = counts.get("copy", 0), counts.get("reuse", 0)
    unshares, zero_fills = counts.get("unshare", 0), counts.get("zero-fill", 0)
    return Cost(
        cow_faults=sum(faults.get(each, 0) for each in ("copy", "reuse", "unshare", "zero-fill", "undetermined")),
        copies=copies,
        reuses=reuses,
        early_copies=counts.get("early-copy", 0),
        unshares=unshares,
        zero_fills=zero_fills,
        splits=counts.get("split", 0),
        peak_pages=memory(replay).peak,
    )
