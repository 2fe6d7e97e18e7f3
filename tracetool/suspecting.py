"""From a symptom to its cause: a process saw wrong data at an address. Was it copy-on-write, can that be ruled out, or what is missing?

What the process reads comes from the page that is mapped there, from those that this one was copied from, and from who may write to them
meanwhile: these pages, their owners and references are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool import schema
from tracetool.analysis import TraceInfo
from tracetool.errors import Unanswerable, Unusable
from tracetool.fingerprints import with_fingerprints
from tracetool.judging import found, traced
from tracetool.memory_events import Op
from tracetool.memory_events import codes as c
from tracetool.memory_events.state import ADDRESS_END
from tracetool.replay import OBSERVED, Replay
from tracetool.rules import RULES
from tracetool.rules.base import missing_events
from tracetool.trace import Trace

Ints = npt.NDArray[Any]

Verdict = Literal["COW is the cause", "COW is the likely cause", "cannot be ruled out", "ruled out"]
CAUSE: Final = "COW is the cause"
LIKELY: Final = "COW is the likely cause"
OPEN: Final = "cannot be ruled out"
RULED_OUT: Final = "ruled out"

#: Stays that begin with contents of their own, or with all that the page held where it was before.
_FRESH: Final = ("touch", "zero-page", "zero-fill", "fork", "early-copy", "move", "before-trace")
#: What a copy can be made of besides an anonymous page that the trace knows.
_SOURCES: Final = ("not-anonymous", "zero-page")
#: Pages of which the whole lifeline is told: the last ones.
MOST_PAGES: Final = 32
#: Addresses that an error names.
_NEAREST: Final = 3


@dataclass(frozen=True)
class Suspicion:
    """What a trace says of wrong data at an address (`at_ns`: seen then, on the trace's clock; None: at any time).

    `because` says what the verdict rests on, `missing` what would have to be known to rule COW out. Tables: `findings` (of
    `schema.FINDINGS`) about the pages; `stays`, `others` (`schema.OWNERSHIP`): what was at the address, and who else mapped these pages;
    `references` (`schema.REFERENCES`) to them; `stores` (`schema.FAULTS`): decisions about stores of others, and `shared`: whether the
    page was mapped at the address then. `lifeline` is `schema.HISTORY` of the address and its pages, `pages_left_out` those of which it
    has only what happened at the address.
    """

    trace: TraceInfo
    pid: int
    address: int
    at_ns: int | None
    verdict: Verdict
    because: tuple[str, ...]
    missing: tuple[str, ...]
    findings: pl.DataFrame
    stays: pl.DataFrame
    others: pl.DataFrame
    references: pl.DataFrame
    stores: pl.DataFrame
    lifeline: pl.DataFrame
    pages_left_out: int


def suspect(trace: Trace, pid: int, address: int, at: int | None = None) -> Suspicion:
    """What may have caused wrong data at an address of a process, seen at time `at` (ns on the trace's clock, or since its start).

    Raises:
        Unusable: the address is no user address, or the time is negative.
        Unanswerable: the process, the address or the moment is not in the trace; the hint names what is nearest.
    """
    if not 0 <= address < ADDRESS_END:
        raise Unusable(f"{address:#x} is no address of a process", hint=f"user addresses lie below {ADDRESS_END:#x}")
    page = address >> schema.PAGE_SHIFT << schema.PAGE_SHIFT
    moment = None if at is None else _moment(trace, at)
    replay = trace.replay(OBSERVED)
    stays = _stays_at(trace, replay, pid, page, moment)
    return _Suspect(trace, replay, pid, page, moment, stays).suspicion()


def _moment(trace: Trace, at: int) -> int:
    """A time as one of the trace's clock."""
    first, last = trace.raw.span() or (0, -1)
    if at < 0:
        raise Unusable(f"{at} is no time", hint="--at takes ns on the trace's clock, or since its start")
    moment = at if at >= first else first + at
    if moment > last:
        hint = f"the trace runs from {first} to {last} ns: {last - first} ns"
        raise Unanswerable(f"nothing was recorded at {moment} ns", path=trace.raw.metadata.path, hint=hint)
    return moment


def _stays_at(trace: Trace, replay: Replay, pid: int, address: int, moment: int | None) -> pl.DataFrame:
    """What was mapped at an address, in order; with a moment only what the contents of then come from."""
    path = trace.raw.metadata.path
    lives = trace.processes.filter(pl.col("pid") == pid)
    if not lives.height:
        known = ", ".join(map(str, trace.processes["pid"].unique(maintain_order=True).to_list()[:20]))
        raise Unanswerable(f"no process {pid} in this trace", path=path, hint=f"processes of this trace: {known}")
    mine = replay.stays.filter(pl.col("mm").is_in(lives["mm"].unique().implode()), pl.col("mm") >= 0)
    stays = mine.filter(pl.col("address") == address).sort("from_event", maintain_order=True)
    if moment is not None:
        # The memory that it ran on then; while it execs, what it builds is another's already.
        then = lives.filter(pl.col("from_ns").fill_null(0) <= moment, pl.col("to_ns").is_null() | (pl.col("to_ns") > moment))
        own = stays.filter(pl.col("mm").is_in(then["mm"].unique().implode()))
        stays = own if own.height else stays
    if not stays.height:
        near = mine.select("address", away=(pl.col("address").cast(pl.Int64) - address).abs()).unique("address").sort("away", "address")
        addresses = ", ".join(hex(each) for each in near["address"].head(_NEAREST).to_list())
        what = "only anonymous private memory is replayed (no files, no shared memory, no hugetlb)"
        hint = f"{what}; nearest known addresses of process {pid}: {addresses}" if addresses else what
        raise Unanswerable(f"nothing is known of address {address:#x} of process {pid}", path=path, hint=hint)
    return stays if moment is None else _behind(stays, moment, path)


def _behind(stays: pl.DataFrame, moment: int, path: str) -> pl.DataFrame:
    """The stay of that moment and those before it that its contents come from."""
    begun, open_then = pl.col("from_ns").fill_null(moment) <= moment, pl.col("to_ns").is_null() | (pl.col("to_ns") > moment)
    there = stays.with_row_index("_n").filter(begun, open_then)
    if not there.height:
        times = stays.select("from_ns", "to_ns").rows()
        spans = [f"{'before the trace' if begin is None else begin} to {'its end' if end is None else end}" for begin, end in times]
        more = f" and {len(spans) - _NEAREST} more" if len(spans) > _NEAREST else ""
        hint = f"something was, in ns: {'; '.join(spans[:_NEAREST])}{more}"
        raise Unanswerable(f"nothing is known to be mapped there at {moment} ns", path=path, hint=hint)
    last = int(there["_n"][-1])
    first = last
    began, mm = stays["began"].to_list(), stays["mm"].to_list()
    while first > 0 and began[first] not in _FRESH and mm[first - 1] == mm[first]:
        first -= 1
    return stays.slice(first, last - first + 1)


class _Suspect:
    """Looks at one address."""

    def __init__(self, trace: Trace, replay: Replay, pid: int, address: int, moment: int | None, stays: pl.DataFrame) -> None:
        self._trace, self._replay, self._pid, self._address, self._moment = trace, replay, pid, address, moment
        self._stays = stays
        self._spaces = stays["mm"].unique().to_list()
        self._events = replay.history.events
        at_address = stays.filter(pl.col("page_id") >= 0)["page_id"].unique(maintain_order=True).to_list()
        self._pages = _with_sources(replay, at_address)
        members = pl.Series(self._pages, dtype=pl.Int32).implode()
        foreign = ~pl.col("mm").is_in(self._spaces)
        self._everybody = self._until(replay.stays.filter(pl.col("page_id").is_in(members)), "from_ns")
        self._others = self._everybody.filter(foreign)
        references = replay.reference_rows.filter(pl.col("page_id").is_in(members), pl.col("via") != "exec")
        self._references = self._until(references, "from_ns")
        about = pl.col("page_before").is_in(members) | pl.col("page_after").is_in(members)
        self._faults = self._until(replay.fault_rows.filter(about), "ts")
        no_store = pl.col("decision").is_in(["none", "unseen", "early-copy"])
        self._stores = self._with_shared(self._faults.filter(foreign, pl.col("page_before").is_in(members), ~no_store))
        # What is found about no known page is found about the address.
        here = pl.col("page_id").is_null() & pl.col("mm").is_in(self._spaces) & (pl.col("address") == address)
        findings = self._until(found(trace, replay).filter(pl.col("page_id").is_in(members) | here), "from_ns")
        self._findings = with_fingerprints(findings, [replay], trace)

    def _until(self, frame: pl.DataFrame, column: str) -> pl.DataFrame:
        """What has begun by the moment that is asked for."""
        return frame if self._moment is None else frame.filter(pl.col(column).fill_null(0) <= self._moment)

    def _with_shared(self, stores: pl.DataFrame) -> pl.DataFrame:
        """With whether the page was mapped at the address when it was stored to."""
        spans = self._stays.filter(pl.col("page_id") >= 0).select("page_id", begin="from_event", end="to_event")
        shared = (
            stores.select("event", "place", page_id="page_before")
            .join(spans, on="page_id", how="inner")
            .filter(pl.col("begin") <= pl.col("event"), (pl.col("end") < 0) | (pl.col("end") > pl.col("event")))
            .select("event", "place")
            .unique()
            .with_columns(shared=pl.lit(True))
        )
        return stores.join(shared, on=["event", "place"], how="left", maintain_order="left").with_columns(pl.col("shared").fill_null(False))

    def suspicion(self) -> Suspicion:
        """The verdict, and what it rests on."""
        intrusions = self._intrusions()
        lost = tuple(self._lost())
        missing = (*lost, *self._missing())
        defects = self._findings.filter(pl.col("severity") == "defect")
        harmed = [row for row in defects.iter_rows(named=True) if self._is_harmed(row)]
        verdict: Verdict = RULED_OUT
        if (intrusions and not lost) or any(row["certainty"] == "certain" for row in harmed):
            verdict = CAUSE
        elif intrusions or defects.height:
            verdict = LIKELY
        elif missing:
            verdict = OPEN
        lifeline, left_out = self._lifeline()
        return Suspicion(
            trace=traced(self._trace),
            pid=self._pid,
            address=self._address,
            at_ns=self._moment,
            verdict=verdict,
            because=(*intrusions, *self._found(), *(() if verdict != RULED_OUT else self._cleared())),
            missing=missing,
            findings=self._findings,
            stays=self._stays,
            others=self._others,
            references=self._references,
            stores=self._stores,
            lifeline=lifeline,
            pages_left_out=left_out,
        )

    def _at(self, ts: int) -> str:
        """A moment, since the start of the trace."""
        first, _ = self._trace.raw.span() or (0, 0)
        return f"{(ts - first) / 1e6:+,.3f} ms"

    def _intrusions(self) -> tuple[str, ...]:
        """Stores in place to a page that another address space mapped as well: no kernel that works lets them pass."""
        in_place = self._faults.filter(
            pl.col("decision").is_in(["reuse", "in-place"]), pl.col("page_before").is_in(self._pages), pl.col("mapcount") > 1
        )
        shared = self._stores.filter(pl.col("shared"), pl.col("decision").is_in(["reuse", "in-place"]))
        rows = pl.concat([in_place.select(shared.columns[:-1]), shared.drop("shared")]).unique(["event", "place"], maintain_order=True)
        return tuple(
            f"{_who(row)} wrote {_frame(row['pfn_before'])} in place at {self._at(row['ts'])}, while another process mapped it, too."
            for row in rows.iter_rows(named=True)
        )

    def _is_harmed(self, finding: Mapping[str, Any]) -> bool:
        """Whether the finding is about what is read at the address, not only through another's reference."""
        if finding["rule"] in ("missed-cow", "wrong-cow"):
            return finding["mm"] in self._spaces
        return finding["page_id"] in self._stays["page_id"].to_list()

    def _keeps_older(self, finding: Mapping[str, Any]) -> bool:
        """Whether a reference of this process's own reads other data than its address shows, without a defect."""
        return finding["rule"] == "wrong-cow" and self._is_harmed(finding)

    def _found(self) -> Iterator[str]:
        for row in self._findings.iter_rows(named=True):
            kind = f"{row['certainty']} {row['severity']}" if row["severity"] == "defect" else f"{row['certainty']}, info"
            elsewhere = " That harms the holder of the reference, not what is read at the address."
            is_all = self._is_harmed(row) or row["rule"] == "unnecessary-copy"
            yield f"{row['id']} ({kind}): {row['summary']}.{'' if is_all else elsewhere}"

    def _cleared(self) -> Iterator[str]:
        """What makes the verdict possible."""
        started = [ts for ts in self._everybody["from_ns"].to_list() if ts is not None]
        if self._pages:
            since = f" since the first was new at {self._at(min(started))}" if started else ""
            pages = "the page" if len(self._pages) == 1 else f"the {len(self._pages)} pages whose contents it had"
            yield f"Everything that happened to {pages} was recorded{since}, and nothing was lost meanwhile."
        else:
            yield "Nothing but the zero page was mapped there, and nothing was lost: it holds zeros, and nobody writes to it."
        copied = self._stores.filter(pl.col("shared"))
        if copied.height:
            times = "once" if copied.height == 1 else f"{copied.height:,} times"
            yield f"Others stored to it while it was mapped there ({times}), and were given copies."
        elif self._others.height:
            yield "Others mapped it, and did not store to it meanwhile."
        else:
            yield "No other process mapped it."
        harmless = " other" if self._findings.height else ""
        yield f"No{harmless} finding of any rule is about it, and nobody else held a reference through which it could be written."

    # --- what is missing --------------------------------------------------------------------------------------------------------------

    def _missing(self) -> Iterator[str]:
        formats = self._trace.raw.formats().keys()
        unrecorded = dict.fromkeys(event for rule in RULES.values() for event in missing_events(rule, formats))
        if unrecorded:
            yield f"Events that were not recorded: {', '.join(unrecorded)}."
        yield from self._older()
        yield from self._written_through_references()
        info = [row["id"] for row in self._findings.iter_rows(named=True) if row["severity"] != "defect" and self._keeps_older(row)]
        if info:
            yield f"Whether the data were read through the reference of {', '.join(info)}: it keeps an older page, as it may."
        if self._faults.filter(pl.col("unsure"))["event"].len():
            yield "Stores that the traced kernel let pass without a fault."
        yield from self._brought()

    def _lost(self) -> Iterator[str]:
        """Losses between the begin of the pages and the moment, or their end."""
        stays = pl.concat([self._everybody.select("from_ns", "to_ns"), self._stays.select("from_ns", "to_ns")])
        begin = None if stays["from_ns"].null_count() else min(stays["from_ns"].to_list())
        end = self._moment or (None if stays["to_ns"].null_count() else max(stays["to_ns"].to_list()))
        for loss in self._trace.raw.losses.to_pylist():
            after = loss["to_ns"] is None or begin is None or loss["to_ns"] >= begin
            if after and (loss["from_ns"] is None or end is None or loss["from_ns"] <= end):
                number = "an unknown number of events" if loss["events"] is None else f"{loss['events']:,} events"
                where = "" if loss["cpu"] < 0 else f" of CPU {loss['cpu']}"
                first = "the start" if loss["from_ns"] is None else self._at(loss["from_ns"])
                last = "the end" if loss["to_ns"] is None else self._at(loss["to_ns"])
                yield f"What was lost: {number}{where} between {first} and {last} ({loss['source']})."

    def _older(self) -> Iterator[str]:
        """Pages of which the trace does not know the begin: who else mapped or referenced them?"""
        told = self._told_by_snapshot()
        older = self._everybody.filter(pl.col("began") == "before-trace", ~pl.col("mm").is_in(told))
        for pfn in older["pfn"].unique(maintain_order=True).to_list():
            yield f"What was before the trace: {_frame(pfn)} is older, and who else mapped or referenced it then is not known."
        known = set(older["page_id"].to_list())
        for row in self._faults.filter(pl.col("page_before").is_null(), pl.col("page_after").is_in(self._pages)).iter_rows(named=True):
            if row["reason"] not in _SOURCES and row["page_after"] not in known:
                yield f"What {_frame(row['pfn_after'])} was copied from at {self._at(row['ts'])}: a page older than the trace."
        first = self._stays.row(0, named=True)
        unknown = first["began"] in ("again", "swap-in", "migration") and first["page_id"] not in known
        if unknown and first["from_ns"] is not None:
            yield f"Where {_frame(first['pfn'])} came from, which was mapped again at {self._at(first['from_ns'])}."

    def _told_by_snapshot(self) -> list[int]:
        """Address spaces whose every page a snapshot lists."""
        rows = (self._events.op == int(Op.SNAPSHOT)) & (self._events.flags == c.WHOLE)
        told: list[int] = np.unique(self._events.mm[rows]).tolist()
        return told

    def _written_through_references(self) -> Iterator[str]:
        """Write references of others: what is written through them, no record says."""
        pids = set(self._stays["pid"].drop_nulls().to_list()) | {self._pid}
        writing = self._references.filter(pl.col("access") == "write")
        for row in writing.iter_rows(named=True):
            if row["by_pid"] in pids and row["mm"] in self._spaces:
                continue
            late = "" if row["released"] == "exact" else " at the latest"
            until = "on" if row["to_ns"] is None else f"to {self._at(row['to_ns'])}{late}"
            taker = f"{row['comm'] or 'process'} {'?' if row['by_pid'] is None else row['by_pid']}"
            what = f"write {'pin' if row['kind'] == 'pin' else 'reference'} ({row['via']})"
            yield f"What {taker} wrote through its {what} to {_frame(row['pfn'])}, held from {self._at(row['from_ns'])} {until}."

    def _brought(self) -> Iterator[str]:
        """Faults there that another thread resolves."""
        e = self._events
        here = (e.op == int(Op.FAULT)) & (e.address == self._address) & np.isin(e.mm, self._spaces) & (e.flags & c.USERFAULTFD != 0)
        if here.any():
            yield f"What a handler of userfaultfd put there ({int(here.sum())} faults): not all of it leaves a record."

    def _lifeline(self) -> tuple[pl.DataFrame, int]:
        """The history of the address and of its pages, in the order of the trace; and of how many pages it is not told."""
        pids = self._stays["pid"].drop_nulls().unique(maintain_order=True).to_list()
        parts = [self._replay.history_of(pid=pid, address=self._address).filter(pl.col("mm").is_in(self._spaces)) for pid in pids]
        parts += [self._life_of(page) for page in self._pages[-MOST_PAGES:]]
        rank = pl.col("act").cast(pl.String)
        order = pl.when(rank.str.starts_with("decided-")).then(0).when(rank.is_in([*schema.ENDED, "release"])).then(1).otherwise(2)
        empty = pl.DataFrame(schema=schema.polars_schema(schema.HISTORY))
        lifeline = pl.concat([empty, *parts]).unique(maintain_order=True).with_columns(_order=order)
        lifeline = self._until(lifeline.sort(pl.col("ts").is_not_null(), "event", "_order", maintain_order=True).drop("_order"), "ts")
        return lifeline, max(len(self._pages) - MOST_PAGES, 0)

    def _life_of(self, page: int) -> pl.DataFrame:
        """The history of a page's frame, as far as it is of this page: frames have other lives before and after."""
        pfn = int(self._replay.history.page_pfn[page])
        told = self._replay.history_of(pfn=pfn)
        own = told.filter(pl.col("page_id") == page)
        lives = (pl.col("event") >= own["event"].min()) & (pl.col("event") <= own["event"].max())
        return told.filter((pl.col("page_id") == page) | (pl.col("act").cast(pl.String).str.starts_with("decided-") & lives))


def _with_sources(replay: Replay, pages: Sequence[int]) -> list[int]:
    """Pages and what they were copied from, the oldest first."""
    copies = replay.fault_rows.filter(pl.col("decision").is_in(schema.COPIES)).select("page_before", "page_after").drop_nulls()
    before, after = copies["page_before"].to_numpy(), copies["page_after"].to_numpy()
    source = np.full(1 + max(replay.history.pages, int(after.max(initial=0))), -1, np.int64)
    source[after] = before
    found_pages: dict[int, None] = {}
    for page in reversed(pages):
        at = page
        while at >= 0 and at not in found_pages:
            found_pages[at] = None
            at = int(source[at])
    return list(reversed(found_pages))


def _who(row: Mapping[str, Any]) -> str:
    return "somebody" if row["pid"] is None else f"{row['comm'] or 'process'} {row['pid']}"


def _frame(pfn: int | None) -> str:
    return "a page" if pfn is None else f"frame {pfn:#x}"
