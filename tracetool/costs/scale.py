"""Scale: what snapshots by fork would cost a process of another size and write rate, by the pages that it wrote during those recorded.

    forks that never exec --snapshots--> pages shared and written --fit--> writes a second --model--> copies, bytes, time at another size

The model: every write hits one page of N, all alike, so that w writes copy N(1-(1-1/N)^w) pages of a snapshot; and a snapshot lasts as
long for each page as those recorded. A real program writes some pages more often than others, and so copies fewer: `by_half` shows how
far it is from the model.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool.costs.forks import forks
from tracetool.costs.prices import Prices
from tracetool.costs.stalls import fork_stalls, threads_at
from tracetool.costs.timing import CopyPrice, Hardware, Source
from tracetool.errors import Unanswerable, Unusable
from tracetool.memory_events import MemoryEvents, Op
from tracetool.memory_events.columns import column_of
from tracetool.replay import Replay
from tracetool.schema import PAGE_SIZE
from tracetool.trace import Trace

Ints = npt.NDArray[Any]

MODEL: Final = "every write hits one page of N, all alike: w writes copy N(1-(1-1/N)^w); a snapshot lasts as long for each page as here"

_GIB: Final = 1 << 30
_UNITS: Final = {
    **{f"{letter}ib": 1 << 10 * power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}b": 10 ** (3 * power) for power, letter in enumerate("kmgt", 1)},
    "b": 1,
}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b)", re.IGNORECASE)
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*s", re.IGNORECASE)
_SECONDS: Final = re.compile(r"(\d+(?:\.\d+)?)\s*s", re.IGNORECASE)
_HINT: Final = "a size, then if wanted a write rate and how long a snapshot lasts: --scale 64GiB,20000/s or --scale 64GiB,20000/s,120s"
#: What `compound` and `rmap_remove_pmd` unmap: all of a huge page.
_HUGE_PAGES: Final = 512


@dataclass(frozen=True)
class Ask:
    """What to project to: resident bytes, writes to pages a second and seconds a snapshot lasts (None: as recorded)."""

    size: int
    rate: float | None = None
    seconds: float | None = None


def parse(text: str) -> Ask:
    """Read "64GiB", "64GiB,20000/s" or "64GiB,20000/s,120s".

    Raises:
        Unusable: it is something else, or a size of less than two pages; the hint says how it is written.
    """
    size, rate, seconds = None, None, None
    for part in text.split(","):
        word = part.strip().replace("_", "")
        if (found := _SIZE.fullmatch(word)) and size is None:
            size = round(float(found[1]) * _UNITS[found[2].lower()])
        elif (found := _RATE.fullmatch(word)) and rate is None:
            rate = float(found[1])
        elif (found := _SECONDS.fullmatch(word)) and seconds is None:
            seconds = float(found[1])
        else:
            raise Unusable(f"{part.strip()!r} in {text!r} is no size, rate or duration", hint=_HINT)
    if size is None or size < 2 * PAGE_SIZE or size >= 1 << 62:
        raise Unusable(f"{text!r} names no size of two pages or more", hint=_HINT)
    return Ask(size, rate, seconds)


@dataclass(frozen=True)
class Projection:
    """What one snapshot of another size would cost.

    Measured, over all snapshots of the process: `snapshots`, `pages` shared (`whole`: exactly; else at most that many, pages of files
    among them, as the process is older than the trace), `written` (distinct pages copied), `share`, `seconds`, `writes` (those that copy
    as many by the model), `by_half` (share of the copies made in the first half of a snapshot), and by the model `by_half_model`.

    Projected, for one snapshot: `to_pages`, `to_seconds`, `to_rate` and `to_writes`, then `copies`, their `time_ns` with the price's
    interval (`low_ns`, `high_ns`; `shootdown_ns` for each in it), and `fork_ns` with the interval of its price (`fork_time`: where from).
    """

    pid: int
    comm: str
    snapshots: int
    pages: int
    whole: bool
    written: int
    share: float
    seconds: float
    writes: float
    by_half: float
    by_half_model: float
    to_pages: int
    to_seconds: float
    to_rate: float
    to_writes: float
    copies: float
    time_ns: float
    low_ns: float
    high_ns: float
    shootdown_ns: float
    fork_ns: float
    fork_low_ns: float
    fork_high_ns: float
    fork_time: Source
    price: CopyPrice
    hardware: Hardware

    @property
    def rate(self) -> float:
        """Writes to pages a second, as measured."""
        return self.writes / self.seconds if self.seconds else 0.0

    @property
    def copied_bytes(self) -> float:
        """Bytes copied: also the memory that is taken beyond that of the process, at most, when the snapshot ends."""
        return self.copies * PAGE_SIZE

    def lines(self) -> list[str]:
        """The projection in words."""
        most = "" if self.whole else " (at most: the process is older than the trace, pages of files are counted, too)"
        copies, fork = (
            f"{_time(low)} to {_time(high)}" for low, high in ((self.low_ns, self.high_ns), (self.fork_low_ns, self.fork_high_ns))
        )
        told = f", {_time(self.shootdown_ns)} of each to tell other CPUs" if self.shootdown_ns else ""
        plural = "" if self.snapshots == 1 else "s"
        size = _bytes(self.to_pages * PAGE_SIZE)
        what_if = f"what if {self.comm} {self.pid} had {size} and {_number(self.to_rate)} writes to pages a second:"
        measured = (
            f"measured: {self.snapshots:,} snapshot{plural} shared {self.pages:,} pages{most}, {self.written:,} of them were written"
            f" ({_percent(self.share)}) in {_time(self.seconds * 1e9)}, as by {_number(self.writes)} writes, {_number(self.rate)} a second;"
            f" recorded on {self.hardware}"
        )
        fit = (
            f"fit: {_percent(self.by_half)} of the copies were made in the first half of a snapshot;"
            f" by the model {_percent(self.by_half_model)} are"
        )
        projected = (
            f"projected: a snapshot of {_time(self.to_seconds * 1e9)} with {_number(self.to_writes)} writes copies {_number(self.copies)}"
            f" pages ({_percent(self.copies / self.to_pages)}): {_bytes(self.copied_bytes)} copied, and at most as much memory more in use;"
            f" {_time(self.time_ns)} of copying in faults ({copies}; price {self.price.time}{told})"
        )
        held = f"fork holds the process up for {_time(self.fork_ns)} ({fork}; {self.fork_time})"
        return [what_if, measured, f"model: {MODEL} ({_time(self.seconds / self.pages * 1e9)})", fit, projected, held]


def distinct(pages: float, writes: float) -> float:
    """How many of `pages` different pages that many random writes hit, on average: N(1-(1-1/N)^w)."""
    return min(pages, writes) if pages <= 1 else -pages * math.expm1(writes * math.log1p(-1 / pages))


def writes_for(pages: float, written: float) -> float:
    """How many random writes hit `written` of `pages` pages, on average; where all are, as many as leave half a page."""
    if pages <= 1:
        return written
    return math.log1p(-min(written, pages - 0.5) / pages) / math.log1p(-1 / pages)


def snapshots(trace: Trace, replay: Replay) -> pl.DataFrame:
    """One row a fork whose child shares pages and never execs, in the order of the trace.

    `pid`, `comm` (who forks), `child_pid` (Int32), `from_ns`, `to_ns` (Int64: the fork; the child's memory is torn down, or the trace
    ends), `pages` (Int64: shared), `whole` (Boolean: exactly so many; else at most: what the child unmapped of its parent's), `written`
    (Int64: distinct pages of them that were copied in either process), `early` (Int64: those copied in the first half of the time),
    `seconds`, `share`, `writes` (Float64: see `writes_for`), `fork_ns` (Int64: from the first area that fork copied to the last; null: not
    recorded), `threads` (Int64: of the process that forks, as far as the trace shows them).
    """
    last = (trace.raw.span() or (0, 0))[1]
    began = trace.processes.select("tid", mm_now="mm", at="from_ns")
    table = forks(replay).with_columns(to_ns=pl.col("end_ns").fill_null(last))
    table = table.with_columns(pl.Series("again", _next_life(table, trace)))
    execs = table.join(began, left_on="child_pid", right_on="tid").filter(
        pl.col("mm_now") >= 0, pl.col("mm_now") != pl.col("child_mm"), pl.col("at") > pl.col("ts"), pl.col("at") < pl.col("again")
    )
    table = table.join(execs, on="fork", how="anti")
    written, early = _written(table, replay)
    known = pl.max_horizontal(pl.col("shared_pages"), pl.col("parent_pages"))
    older = pl.col("parent_mm").is_in(_older(trace.processes).implode())
    any_older = bool(table.select(older.any()).item())
    unmapped = pl.Series("unmapped", _inherited(table, trace) if any_older else np.zeros(table.height, np.int64), dtype=pl.Int64)
    threads = threads_at(table.select(mm="parent_mm", ts="ts"), trace.processes).alias("threads")
    pages = pl.when(older).then(pl.max_horizontal(known, "unmapped", "written")).otherwise(pl.max_horizontal("shared_pages", "written"))
    frame = (
        table.with_columns(pl.Series("written", written), pl.Series("early", early), unmapped, threads)
        .with_columns(pages=pages.cast(pl.Int64), whole=~older, seconds=(pl.col("to_ns") - pl.col("ts")) / 1e9)
        .filter(pl.col("pages") > 0)
        .with_columns(share=pl.col("written") / pl.col("pages"))
    )
    writes = [writes_for(pages, hit) for pages, hit in frame.select("pages", "written").iter_rows()]
    spans = fork_stalls(trace).drop_nulls("child_pid").select("child_pid", fork_ns="span_ns", ts_fork="from_ns").sort("ts_fork")
    frame = (
        frame.with_columns(pl.Series("writes", writes, dtype=pl.Float64))
        .sort("ts", maintain_order=True)
        .join_asof(spans, left_on="ts", right_on="ts_fork", by="child_pid", strategy="nearest", check_sortedness=False)
    )
    return frame.with_columns(from_ns="ts").select(_SNAPSHOT)


_SNAPSHOT: Final = [
    *("pid", "comm", "child_pid", "from_ns", "to_ns", "pages", "whole", "written", "early", "seconds", "share", "writes", "fork_ns"),
    "threads",
]


def _older(processes: pl.DataFrame) -> pl.Series:
    """Address spaces that are older than the trace: the first of threads that are, unless exec made it."""
    lives = pl.col("how").is_in(["before-trace", "fork", "thread"]).cum_sum().over("tid")
    made = processes.filter(pl.col("how") == "exec")["mm"].unique()
    first = (
        processes.filter((pl.col("how") == "before-trace").cum_sum().over("tid") > 0, lives == 1)
        .filter(pl.col("mm") >= 0)
        .group_by("tid", maintain_order=True)
        .agg(pl.col("mm").first())["mm"]
        .unique()
    )
    return first.filter(~first.is_in(made.implode()))


def _written(table: pl.DataFrame, replay: Replay) -> tuple[Ints, Ints]:
    """Of each fork the distinct pages that either process copied until the child's memory was gone, and those of the first half."""
    copies = replay.fault_rows.filter(pl.col("decision").is_in(["copy", "unshare"]), pl.col("reason") != "not-anonymous").select(
        "mm", "ts", "address", "pages"
    )
    copies = copies.sort("mm", "ts", maintain_order=True)
    begin, end = table["ts"].to_numpy(), table["to_ns"].to_numpy()
    rows, forks_of = [], []
    mms, times = copies["mm"].to_numpy(), copies["ts"].to_numpy()
    for side in ("parent_mm", "child_mm"):
        mm = table[side].to_numpy()
        first, last = _found(mms, times, mm, begin), _found(mms, times, mm, end + 1)
        sizes = np.maximum(last - first, 0)
        ends = np.cumsum(sizes)
        rows.append(np.repeat(first - (ends - sizes), sizes) + np.arange(ends[-1] if sizes.size else 0))
        forks_of.append(np.repeat(np.arange(len(mm)), sizes))
    which = np.concatenate(forks_of)
    counted = (
        copies[np.concatenate(rows)]
        .with_columns(fork=pl.Series(which, dtype=pl.Int64))
        .sort("fork", "ts", maintain_order=True)
        .unique(["fork", "address"], keep="first", maintain_order=True)
    )
    halves = (begin + end) // 2
    fork, pages = counted["fork"].to_numpy(), counted["pages"].to_numpy()
    soon = counted["ts"].to_numpy() <= halves[fork]
    total = np.bincount(fork, pages, len(table)).astype(np.int64)
    return total, np.bincount(fork[soon], pages[soon], len(table)).astype(np.int64)


def _found(mms: Ints, times: Ints, mm: Ints, ts: Ints) -> Ints:
    """Where (mm, ts) belongs among rows that are sorted by both: before the first that is not less."""
    order = np.lexsort((np.r_[np.ones(len(mms)), np.zeros(len(mm))], np.r_[times, ts], np.r_[mms, mm]))
    before = np.cumsum(order < len(mms))
    place = np.empty(len(order), np.int64)
    place[order] = before
    found: Ints = place[len(mms) :]
    return found


def _inherited(table: pl.DataFrame, trace: Trace) -> Ints:
    """Of each fork how many pages its child unmapped that it had not mapped itself, pages of files among them."""
    events = trace.history.events
    unmaps = _unmaps(trace)
    owner = unmaps["tid"].to_numpy(), unmaps["ts"].to_numpy()
    sums = np.append(0, np.cumsum(unmaps["pages"].to_numpy()))
    tid = table["child_pid"].fill_null(-1).to_numpy()
    far = np.full(len(tid), np.iinfo(np.int64).max - 1)
    begin, end = table["ts"].to_numpy(), np.where(table["end_ns"].is_null().to_numpy(), table["to_ns"].to_numpy(), far)
    end = np.minimum(end, table["again"].to_numpy())
    gone = sums[_found(*owner, tid, end)] - sums[_found(*owner, tid, begin)]
    inherited: Ints = np.maximum(gone - _mapped_new(events)[table["child_mm"].to_numpy()], 0)
    return inherited


def _next_life(table: pl.DataFrame, trace: Trace) -> Ints:
    """When the number of each fork's child is another thread's."""
    begun = trace.processes.filter(pl.col("how").is_in(["fork", "thread"])).select("tid", again="from_ns").sort("again")
    asked = table.select(tid=pl.col("child_pid").fill_null(-1), ts=pl.col("to_ns")).with_row_index("row").sort("ts")
    found = asked.join_asof(begun, left_on="ts", right_on="again", by="tid", strategy="forward", check_sortedness=False).sort("row")
    return found["again"].fill_null(np.iinfo(np.int64).max - 1).to_numpy()


def _mapped_new(events: MemoryEvents) -> Ints:
    """How many new pages were mapped in each address space."""
    new = np.flatnonzero((events.op == int(Op.MAP_NEW)) & (events.mm >= 0))
    return np.bincount(events.mm[new], events.pages[new], events.spaces + 1).astype(np.int64)


def _unmaps(trace: Trace) -> pl.DataFrame:
    """All unmaps, by thread and time: `tid`, `ts`, `pages`."""
    parts, counts, formats = (
        [pl.DataFrame(schema={"tid": pl.Int64, "ts": pl.Int64, "pages": pl.Int64})],
        trace.raw.counts(),
        trace.raw.formats(),
    )
    for event in ("rmap_remove", "rmap_remove_pmd"):
        if not counts.get(event):
            continue
        there = {each.column for each in formats[event].fields}
        table = trace.raw.table(event, [name for name in ("nr", "compound") if name in there])
        pages = np.full(table.num_rows, 1 if event == "rmap_remove" else _HUGE_PAGES, np.int64)
        pages = np.maximum(pages, np.minimum(column_of(table, "nr", event), _HUGE_PAGES))
        pages = np.where(np.asarray(column_of(table, "compound", event)) == 1, _HUGE_PAGES, pages)
        frame = pl.DataFrame({"tid": table.column("tid").to_numpy(), "ts": table.column("ts").to_numpy(), "pages": pages})
        parts.append(frame.cast(parts[0].schema))
    return pl.concat(parts).sort("tid", "ts", maintain_order=True)


def project(measured: pl.DataFrame, ask: Ask, price: CopyPrice, prices: Prices, hardware: Hardware, cpus: int = 0) -> Projection:
    """Project the snapshots of one process to another size: of that which shares the most pages.

    Args:
        measured: as `snapshots` gives it.
        ask: to what.
        price: of one more copy.
        prices: the cost table, for fork where the trace has no times of hardware.
        hardware: what the trace was recorded on.
        cpus: CPUs of the machine (0: not known), for what telling them of a copy takes where the price is assumed.

    Raises:
        Unanswerable: no fork of the trace is a snapshot.
    """
    if not measured.height:
        hint = "a snapshot is a fork whose child shares pages and never execs, as that of BGSAVE"
        raise Unanswerable("no fork of this trace is a snapshot", hint=hint)
    pid = measured.group_by("pid").agg(pl.col("pages").sum()).sort("pages", "pid", descending=[True, False])["pid"][0]
    own = measured.filter(pl.col("pid").eq_missing(pl.lit(pid)))
    pages, written, early = (int(own[name].sum()) for name in ("pages", "written", "early"))
    seconds, writes = (float(own[name].sum()) for name in ("seconds", "writes"))
    by_model = sum(distinct(size, hits / 2) for size, hits in own.select("pages", "writes").iter_rows())
    to_pages = -(-ask.size // PAGE_SIZE)
    to_seconds = ask.seconds if ask.seconds is not None else seconds * to_pages / pages
    to_rate = ask.rate if ask.rate is not None else writes / seconds if seconds else 0.0
    copies = distinct(to_pages, to_rate * to_seconds)
    told = float(prices.shootdown_ns(own["threads"].to_numpy(), cpus).max()) if price.time == "assumed" else 0.0
    known = own.drop_nulls("fork_ns")
    fork = [each * ask.size / _GIB for each in (prices.fork_gib.value_ns, prices.fork_gib.low_ns, prices.fork_gib.high_ns)]
    fork_time: Source = "assumed"
    if hardware.real and known.height:
        each = (known["fork_ns"] / known["pages"] * to_pages).to_list()
        fork, fork_time = [float(known["fork_ns"].sum()) / int(known["pages"].sum()) * to_pages, min(each), max(each)], "measured"
    return Projection(
        pid=pid if pid is not None else -1,
        comm=own["comm"][-1] or "<...>",
        snapshots=own.height,
        pages=pages,
        whole=bool(own["whole"].all()),
        written=written,
        share=written / pages,
        seconds=seconds,
        writes=writes,
        by_half=early / written if written else 0.0,
        by_half_model=by_model / written if written else 0.0,
        to_pages=to_pages,
        to_seconds=to_seconds,
        to_rate=to_rate,
        to_writes=to_rate * to_seconds,
        copies=copies,
        time_ns=copies * (price.extra_ns + told),
        low_ns=copies * (price.low_ns + told),
        high_ns=copies * (price.high_ns + told),
        shootdown_ns=told,
        fork_ns=fork[0],
        fork_low_ns=fork[1],
        fork_high_ns=fork[2],
        fork_time=fork_time,
        price=price,
        hardware=hardware,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def _bytes(value: float) -> str:
    for unit, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= size:
            return f"{value / size:,.0f} {unit}" if value >= 100 * size else f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def _percent(share: float) -> str:
    return f"{100 * share:.{0 if share >= 0.1 else 1}f} %"


def _time(ns: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:,.0f} {unit}" if ns >= 100 * size else f"{ns / size:.3g} {unit}"
    return f"{ns:.0f} ns"
