"""The replay: memory events -> who owned which page when, observed or under a policy.

memory events --history--> what happened (places, stays, references, steps) --simulated--> what a policy makes of it --tables--> frames
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool import schema
from tracetool.memory_events import codes as c
from tracetool.policies import POLICIES, Policy
from tracetool.processes import owners
from tracetool.replay import columns as k
from tracetool.replay import tables
from tracetool.replay.history import History, rebuild
from tracetool.replay.lifeline import lifeline
from tracetool.replay.moments import Moments
from tracetool.replay.simulated import W_POLICY, Outcome, replay_steps

__all__ = ["OBSERVED", "History", "Replay", "rebuild"]

OBSERVED = "observed"

Ints = npt.NDArray[Any]


class Replay:
    """One replay of a trace: what the traced kernel did (`observed`), or what a policy would have done.

    `ownership`, `references` and `faults` are polars LazyFrames (`schema`); `pages_at` answers for one moment. Pages that only a policy
    makes have a `page_id` and no `pfn`.
    """

    def __init__(self, history: History, processes: pl.DataFrame, policy: Policy | None = None, losses: Ints | None = None) -> None:
        """`losses`: from when to when events are missing, two int64 (ns) a row."""
        self.history = history
        self._losses = np.zeros((0, 2), np.int64) if losses is None else losses
        self.processes = processes
        self.policy = policy.name if policy else OBSERVED
        # Followed, any policy gives the recorded outcome; what it says to each decision is not looked at here.
        self._outcome = replay_steps(history, policy or POLICIES["mapcount"], follow=policy is None)

    @property
    def outcome(self) -> Outcome:
        """The decisions and stays as arrays."""
        return self._outcome

    @property
    def stay_rows(self) -> Ints:
        """Stays as arrays (`columns.S_*`): the observed ones are those of the page tables themselves."""
        return self.history.stays if self.policy == OBSERVED else self._outcome.stays

    @functools.cached_property
    def stays(self) -> pl.DataFrame:
        """Every stay, also of the zero page and of swap entries (negative `page_id`), with the memory events that bound it."""
        return tables.stays_frame(self.history, self.stay_rows, self.processes)

    @property
    def ownership(self) -> pl.LazyFrame:
        """One row a stay of a page in an address space (`schema.OWNERSHIP`)."""
        return tables.ownership(self.stays)

    @functools.cached_property
    def reference_rows(self) -> pl.DataFrame:
        """The references with the memory events that bound them (`from_event`, `to_event`; -1: none)."""
        return tables.references(self.history, self._outcome.ref_page, self.processes).collect()

    @property
    def references(self) -> pl.LazyFrame:
        """One row a GUP reference to a known page (`schema.REFERENCES`)."""
        return self.reference_rows.lazy().select(list(schema.REFERENCES))

    @functools.cached_property
    def fault_rows(self) -> pl.DataFrame:
        """The decisions, with the `place` each is about and whether it rests on accesses that the trace cannot show (`unsure`)."""
        return tables.faults(self.history, self._outcome, self.processes).collect()

    @property
    def faults(self) -> pl.LazyFrame:
        """One row a COW decision (`schema.FAULTS`)."""
        return self.fault_rows.lazy().select(list(schema.FAULTS))

    @functools.cached_property
    def undetermined(self) -> pl.DataFrame:
        """Decisions about pages older than the trace, of which no policy can be asked: rows of `fault_rows`."""
        return self.fault_rows.filter(pl.Series(self._outcome.decisions[:, W_POLICY] < 0))

    @functools.cached_property
    def family_of_page(self) -> Ints:
        """For each page the page that its family began with: copies followed back to their source."""
        copies = self.fault_rows.filter(pl.col("decision").is_in(["copy", "early-copy", "unshare"])).drop_nulls(
            ["page_before", "page_after"]
        )
        before, after = copies["page_before"].to_numpy(), copies["page_after"].to_numpy()
        parent = np.arange(1 + max(self.history.pages, int(after.max(initial=0))))
        parent[after] = before
        while not np.array_equal(further := parent[parent], parent):
            parent = further
        return parent

    def history_of(self, *, pfn: int | None = None, pid: int | None = None, address: int | None = None) -> pl.DataFrame:
        """What happened to a page frame (`pfn`), or at an address of a process, in order, as `schema.HISTORY`."""
        return lifeline(self, pfn=pfn, pid=pid, address=address)

    def pages_at(self, ts: int, pid: int | None = None) -> pl.DataFrame:
        """Every known page of every process (or of `pid`) after the events up to time `ts` (ns), as `schema.PAGES`.

        What the trace tells only later of that moment counts, too: a frame that a later fault names was there before.
        """
        return self.pages_after(int(np.searchsorted(self.history.events.ts, ts, side="right")) - 1, ts, pid)

    def pages_after(self, event: int, ts: int, pid: int | None = None, mark: str = "") -> pl.DataFrame:
        """The same after the memory event of that row."""
        alive = self.stay_rows[self._stays_at.at(event)]
        page = alive[:, k.S_PAGE]
        held = self._references_at.at(event)
        referenced, pins = self._outcome.ref_page[held], tables.is_pin(self.history.events.flags[self.history.refs[held, k.R_FROM]])

        def counted(pages: Ints) -> Ints:
            distinct, count = np.unique(pages[pages >= 0], return_counts=True)
            at = np.searchsorted(distinct, page)
            known = (page >= 0) & (np.append(distinct, -1)[at] == page)
            return np.where(known, np.append(count, 0)[at], 0).astype(np.int32)

        mapcount = counted(page)
        place = self.history.places[alive[:, k.S_PLACE]]
        pfn = tables.frames_of(self.history, page)
        frame = pl.DataFrame(
            {
                "mark": pl.Series([mark] * len(page), dtype=pl.String),
                "ts": np.full(len(page), ts, np.int64),
                "mm": place[:, k.L_MM].astype(np.int32),
                "vpn": place[:, k.L_VPN],
                "pfn": pfn.fill_null(0).to_numpy() if self.policy == OBSERVED else np.where(page < 0, 0, pfn.fill_null(-1).to_numpy()),
                "mapcount": mapcount,
                "references": counted(referenced[~pins]),
                "pins": counted(referenced[pins]),
                "zero": page == k.THE_ZERO_PAGE,
                "swapped": page == k.SWAPPED,
                "ksm": (page >= 0) & self._merged(page, event),
                "exclusive": mapcount == 1,
                "uncertain": self._is_uncertain(alive, event, ts),
            }
        )
        frame = frame.join(self._owners, on="mm", how="left", maintain_order="left").with_columns(pl.col("pid").fill_null(-1))
        if pid is not None:
            frame = frame.filter(pl.col("pid") == pid)
        address = pl.Series("address", [f"{vpn << schema.PAGE_SHIFT:#x}" for vpn in frame["vpn"].to_list()], dtype=pl.String)
        return (
            frame.with_columns(address).sort("mm", "vpn", maintain_order=True).select(list(schema.PAGES)) if frame.height else _no_pages()
        )

    @functools.cached_property
    def _stays_at(self) -> Moments:
        return Moments(self.stay_rows[:, k.S_FROM], self.stay_rows[:, k.S_TO], len(self.history.events))

    @functools.cached_property
    def _references_at(self) -> Moments:
        return Moments(self.history.refs[:, k.R_FROM], self.history.refs[:, k.R_TO], len(self.history.events))

    @functools.cached_property
    def _owners(self) -> pl.DataFrame:
        return owners(self.processes)

    def _merged(self, page: Ints, event: int) -> Ints:
        """Whether KSM had merged another page into each of these by then."""
        since = np.append(self.history.page_ksm, -1)[np.where((page >= 0) & (page < self.history.pages), page, -1)]
        merged: Ints = (since >= 0) & (since <= event)
        return merged

    def _is_uncertain(self, stays: Ints, event: int, ts: int) -> Ints:
        """Whether what is said of each stay may be wrong: for lost events, or because another thread may have filled the page unseen."""
        began = stays[:, k.S_FROM]
        by_fault = (stays[:, k.S_PAGE] == k.THE_ZERO_PAGE) & (began >= 0)
        uncertain = self._rests_on_losses(stays, event, ts)
        uncertain[by_fault] |= self.history.events.flags[began[by_fault]] & c.USERFAULTFD != 0
        return uncertain

    def _rests_on_losses(self, stays: Ints, event: int, ts: int) -> Ints:
        """Whether events were lost before that time, after the last that says what is at the place of each stay, or after its page began:
        of an older page, a fork or an unmap may be among them, and its mapcount another.
        """
        begun = self._losses[self._losses[:, 0] <= ts]
        if not len(begun):
            return np.zeros(len(stays), np.bool_)
        decisions = self.history.decisions
        told = decisions[(decisions[:, k.D_FROM] <= event) & (decisions[:, k.D_PLACE] >= 0)]
        last = np.full(len(self.history.places), -1, np.int64)
        np.maximum.at(last, told[:, k.D_PLACE], told[:, k.D_FROM])
        settled = np.maximum(stays[:, k.S_FROM], last[stays[:, k.S_PLACE]])
        page, first = stays[:, k.S_PAGE], self._first_event
        settled = np.where(page >= 0, np.minimum(settled, first[np.maximum(page, 0)]), settled)
        when = np.where(settled >= 0, self.history.events.ts[np.maximum(settled, 0)], np.iinfo(np.int64).min)
        uncertain: Ints = when < int(begun[:, 1].max())
        return uncertain

    @functools.cached_property
    def _first_event(self) -> Ints:
        """The event by which each page began, -1: before the trace."""
        page, begun = self.stay_rows[:, k.S_PAGE], self.stay_rows[:, k.S_FROM]
        first = np.full(max(int(page.max(initial=0)), 0) + 1, -1, np.int64)
        # Backwards: the first stay is what remains.
        first[page[::-1][page[::-1] >= 0]] = begun[::-1][page[::-1] >= 0]
        return first


def _no_pages() -> pl.DataFrame:
    return pl.DataFrame(schema=schema.polars_schema(schema.PAGES))
