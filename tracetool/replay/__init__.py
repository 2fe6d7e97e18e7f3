"""The replay: memory events -> who owned which page when, observed or under a policy.

memory events --history--> what happened (places, stays, references, steps) --simulated--> what a policy makes of it --tables--> frames
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool import notebook, schema
from tracetool.memory_events import codes as c
from tracetool.policies import POLICIES, Policy
from tracetool.processes import owners
from tracetool.replay import columns as k
from tracetool.replay import tables
from tracetool.replay.deciding import OLDER, W_POLICY
from tracetool.replay.history import History, rebuild
from tracetool.replay.lifeline import lifeline
from tracetool.replay.moments import Moments
from tracetool.replay.simulated import Outcome, replay_steps

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

    def __repr__(self) -> str:
        return f"<Replay {self.policy}: {len(self.stay_rows)} stays, {len(self.outcome.decisions)} decisions>"

    def _repr_html_(self) -> str:
        stays, faults = self.ownership.collect(), self.fault_rows
        decided = faults.group_by("decision", "reason").agg(pl.len()).sort("len", "decision", "reason", descending=[True, False, False])
        owned = stays.group_by("pid", "comm").agg(pl.col("page_id").n_unique(), pl.len()).sort("page_id", "pid", descending=[True, False])
        return notebook.fragment(
            f"Replay: {self.policy}",
            notebook.facts({"stays": stays.height, "references": self.reference_rows.height, "decisions": faults.height}),
            notebook.table("Decisions", ("decision", "reason", "how many"), decided.rows()),
            notebook.table("Processes", ("pid", "comm", "pages", "stays"), owned.rows()),
        )

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
        """Who owned which page when, one row a stay of a page in an address space, as a polars LazyFrame (`schema.OWNERSHIP`).

        Columns: `page_id` (one life of a page frame), `pfn` (page frame number; null: only the policy makes it), `mm` (number of the
        address space), `pid`, `comm`, `address` (UInt64, bytes), `from_ns`, `to_ns` (ns of the trace's clock; null: before it, or to its
        end), `began`, `ended` (Enum: fork, copy, unmapped, ...), `order` (log2 of the pages of its mapping).

        Example:
            >>> import tracetool, polars as pl
            >>> owners = tracetool.open("fixtures/mail-6.1.dat").replay().ownership
            >>> shared = owners.filter(pl.col("pid").n_unique().over("page_id") > 1)  # pages that more than one process mapped
            >>> shared.select(pl.col("page_id").n_unique()).collect().item()
            14
        """
        return tables.ownership(self.stays)

    @functools.cached_property
    def reference_rows(self) -> pl.DataFrame:
        """The references with the memory events that bound them (`from_event`, `to_event`; -1: none)."""
        return tables.references(self.history, self._outcome.ref_page, self.processes).collect()

    @property
    def references(self) -> pl.LazyFrame:
        """One row a GUP reference to a known page, as a polars LazyFrame (`schema.REFERENCES`).

        Columns: `reference` (number), `page_id`, `pfn` (page frame number), `mm`, `pid` whose memory it is, `by_pid` and `comm` of the one
        that took it, `address` (UInt64, bytes), `kind` (get, pin), `access` (read, write), `longterm`, `via` (vmsplice, io_uring, ...),
        `holder`, `from_ns`, `to_ns` (ns of the trace's clock; null: held at its end), `released` (how well the end is known).

        Example:
            >>> import tracetool
            >>> references = tracetool.open("fixtures/mail-6.1.dat").replay().references.collect()
            >>> references.filter(via="vmsplice").select("by_pid", "kind", "access", "holder", "released").rows()
            [(115, 'get', 'read', 'pipe fd 10', 'exact')]
        """
        return self.reference_rows.lazy().select(list(schema.REFERENCES))

    @functools.cached_property
    def fault_rows(self) -> pl.DataFrame:
        """The decisions, with the `place` each is about and whether it rests on accesses that the trace cannot show (`unsure`)."""
        return tables.faults(self.history, self._outcome, self.processes).collect()

    @property
    def faults(self) -> pl.LazyFrame:
        """One row a COW decision, as a polars LazyFrame (`schema.FAULTS`).

        Columns: `ts` (ns of the trace's clock), `mm`, `tid`, `pid`, `comm`, `address` (UInt64, bytes), `page_before`, `page_after`
        (page_id), `pfn_before`, `pfn_after` (page frame numbers), `decision` (Enum: copy, reuse, ...), `reason` (what decided it),
        `mapcount`, `references` (of the page, before), `duration_ns` (ns; null: not recorded), `in_kernel`, `event` (row of the memory
        event), `pages` (how many it is about).

        Example:
            >>> import tracetool
            >>> faults = tracetool.open("fixtures/mail-6.1.dat").replay("page-count").faults.collect()
            >>> faults.filter(decision="copy", reason="reference").select("pid", "mapcount", "references").rows()
            [(116, 1, 1)]
        """
        return self.fault_rows.lazy().select(list(schema.FAULTS))

    @functools.cached_property
    def undetermined(self) -> pl.DataFrame:
        """Decisions about pages older than the trace, of which no policy can be asked (rows of `fault_rows`)."""
        return self.fault_rows.filter(pl.Series(self._outcome.decisions[:, W_POLICY] == OLDER))

    @functools.cached_property
    def family_of_page(self) -> Ints:
        """For each page the page that its family began with: copies followed back to their source."""
        copies = self.fault_rows.filter(pl.col("decision").is_in(list(schema.COPIES))).drop_nulls(["page_before", "page_after"])
        before, after = copies["page_before"].to_numpy(), copies["page_after"].to_numpy()
        parent = np.arange(1 + max(self.history.pages, int(after.max(initial=0))))
        parent[after] = before
        while not np.array_equal(further := parent[parent], parent):
            parent = further
        return parent

    def history_of(self, *, pfn: int | None = None, pid: int | None = None, address: int | None = None) -> pl.DataFrame:
        """What happened to a page frame (`pfn`), or at an address of a process, in order: a polars DataFrame (`schema.HISTORY`).

        Columns: `ts` (ns of the trace's clock; null: before it), `act` (Enum), `page_id`, `pfn` (page frame number), `mm`, `pid`, `comm`,
        `address` (UInt64, bytes), `text` (the same in words), `event` (row of the memory event).

        Raises:
            Unanswerable: the trace knows nothing of that frame or address.

        Example:
            >>> import tracetool
            >>> replay = tracetool.open("fixtures/mail-6.1.dat").replay()
            >>> held = replay.references.collect().filter(via="vmsplice")
            >>> replay.history_of(pfn=held["pfn"][0])["act"].to_list()[:5]
            ['touch', 'fork', 'get', 'decided-copy', 'copied']
        """
        return lifeline(self, pfn=pfn, pid=pid, address=address)

    def pages_at(self, ts: int, pid: int | None = None) -> pl.DataFrame:
        """Every known page of every process (or of `pid`) after the events up to time `ts` (ns): a polars DataFrame (`schema.PAGES`).

        What the trace tells only later of that moment counts, too: a frame that a later fault names was there before.

        Columns: `mark` (empty), `ts` (ns of the trace's clock), `pid`, `mm`, `address` (String, hexadecimal), `pfn` (page frame number; 0:
        none, -1: not known), `mapcount`, `references`, `pins`, `zero`, `swapped`, `ksm`, `exclusive`, `uncertain`.

        Example:
            >>> import tracetool
            >>> replay = tracetool.open("fixtures/mail-6.1.dat").replay()
            >>> held = replay.references.collect().filter(via="vmsplice")
            >>> pages = replay.pages_at(held["from_ns"][0])
            >>> pages.filter(pfn=held["pfn"][0]).select("pid", "mapcount", "references").rows()
            [(115, 2, 1), (116, 2, 1)]
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
