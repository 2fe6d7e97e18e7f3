"""Stalls: how long fork, and copy-on-write after it, hold a thread up: what a database's user feels.

Fork holds up the thread that calls it for as long as it copies page tables (`fork_range` to `fork_range_done`, area by area), and after
it every first store to a page that is still shared is a fault. Times are those of the trace's clock, whatever it was recorded on: where
that is no hardware (`timing.hardware`), they say which thread is held up the most, not for how long it would be elsewhere; times by the
cost table can be asked for instead.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool.costs.prices import Prices
from tracetool.costs.timing import LEAST_FAULTS, FaultTimes, Hardware, paired
from tracetool.processes import process_at, with_names
from tracetool.replay import OBSERVED, Replay
from tracetool.trace import Trace

Ints = npt.NDArray[Any]

#: Base pages of a huge page.
HUGE_PAGES: Final = 512
#: The windows of time that COW faults are summed in, in ns.
WINDOW_NS: Final = 100_000_000

#: What a decision costs by the cost table (an entry's name). Early copies are part of what fork takes; the others need no fault.
_ENTRIES: Final = {
    "copy": "copy_fault",
    "unshare": "copy_fault",
    "reuse": "reuse_fault",
    "zero-fill": "zero_fill_fault",
    "split": "huge_split_fault",
}
_BEGIN_LIVES: Final = ("before-trace", "fork", "thread")
#: Decisions that copy, and so tell other CPUs.
_COPIES: Final = ("copy", "unshare")


# --- fork -----------------------------------------------------------------------------------------------------------------------------


def fork_stalls(trace: Trace) -> pl.DataFrame:
    """One row a fork that copied page tables, in the order of the trace.

    `from_ns` (Int64: its first area begins), `tid`, `pid` (Int32: who forks), `comm`, `child_pid` (Int32; null: not told), `areas`
    (UInt32), `busy_ns` (Int64: from begin to end of each area, summed), `span_ns` (Int64: from the first begin to the last end; an area
    whose end is missing counts in neither).
    """
    counts = trace.raw.counts()
    if not counts.get("fork_range"):
        return _no_forks()
    begins = trace.events("fork_range").select("ts", "tid", "mm", "start").with_columns(done=pl.lit(False)).collect()
    parts = [begins]
    if counts.get("fork_range_done"):
        ends = trace.events("fork_range_done").select("ts", "tid", mm=pl.lit(None), start=pl.lit(None), done=pl.lit(True)).collect()
        parts.append(ends.cast(begins.schema))
    # An end comes after a begin of the same time.
    events = pl.concat(parts).with_row_index("row").sort("tid", "ts", "done", "row")
    areas = _areas(events)
    younger = trace.processes.filter(pl.col("how") == "fork").select(
        pl.col("tid").alias("child_pid"), pl.col("parent").alias("tid"), pl.col("from_ns").alias("child_ns")
    )
    forks = (
        areas.group_by("fork", maintain_order=True)
        .agg(
            from_ns=pl.col("ts").first(),
            tid=pl.col("tid").first(),
            areas=pl.len(),
            busy_ns=(pl.col("end") - pl.col("ts")).sum(),
            until=pl.col("end").max().fill_null(pl.col("ts").last()),
        )
        .with_columns(span_ns=pl.col("until") - pl.col("from_ns"), next_ns=pl.col("from_ns").shift(-1).over("tid"))
        .sort("until", maintain_order=True)
        .join_asof(younger.sort("child_ns"), left_on="until", right_on="child_ns", by="tid", strategy="forward", check_sortedness=False)
        # The child of this fork, not that of a later one.
        .with_columns(child_pid=pl.when(pl.col("next_ns").is_null() | (pl.col("child_ns") < pl.col("next_ns"))).then(pl.col("child_pid")))
        .sort("from_ns", "tid")
    )
    return _named(forks, trace.processes).select(list(_no_forks().columns))


def _areas(events: pl.DataFrame) -> pl.DataFrame:
    """Areas copied, by thread: `ts`, `end` (null: missing), `tid`, and the number of the `fork` each belongs to.

    Fork goes through the areas by address (Linux, kernel/fork.c: `dup_mmap`): one that does not lie behind the last is another fork's, as
    is one of another child.
    """
    done = events["done"].to_numpy()
    end = np.full(len(done), -1, np.int64)
    ts = events["ts"].to_numpy()
    for first, last in paired(events["tid"].to_numpy(), np.where(done, -1, 0), np.where(done, 0, -1))[:1]:
        end[first] = ts[last]
    another = (
        (pl.col("tid") != pl.col("tid").shift(1)) | (pl.col("mm") != pl.col("mm").shift(1)) | (pl.col("start") <= pl.col("start").shift(1))
    )
    return (
        events.with_columns(pl.Series("end", end))
        .filter(~pl.col("done"))
        .with_columns(pl.when(pl.col("end") >= 0).then("end").alias("end"), fork=another.fill_null(True).cum_sum())
    )


def _named(frame: pl.DataFrame, processes: pl.DataFrame) -> pl.DataFrame:
    """Add process and name of thread `tid` at `from_ns`."""
    pid = process_at(frame.select("tid", "from_ns"), processes).alias("pid")
    return with_names(frame.with_columns(pid), processes, "from_ns")


def _no_forks() -> pl.DataFrame:
    columns = {"from_ns": pl.Int64, "tid": pl.Int32, "pid": pl.Int32, "comm": pl.String, "child_pid": pl.Int32, "areas": pl.UInt32}
    return pl.DataFrame(schema={**columns, "busy_ns": pl.Int64, "span_ns": pl.Int64})


def fork_summary(stalls: pl.DataFrame) -> pl.DataFrame:
    """Of `fork_stalls` one row a process, the worst first: `pid`, `comm`, `forks`, and of `span_ns` the ranks, as in `cow_windows`."""
    span = pl.col("span_ns")
    return (
        stalls.group_by("pid", maintain_order=True)
        .agg(
            pl.col("comm").last(),
            forks=pl.len(),
            median_ns=span.sort().get((pl.len() * 0.5).ceil().cast(pl.Int64) - 1),
            p99_ns=span.sort().get((pl.len() * 0.99).ceil().cast(pl.Int64) - 1),
            worst_ns=span.max(),
        )
        .sort("worst_ns", "pid", descending=[True, False])
    )


# --- COW faults -----------------------------------------------------------------------------------------------------------------------


def cow_stalls(trace: Trace, replay: Replay, times: FaultTimes, prices: Prices, hardware: Hardware) -> pl.DataFrame:
    """What COW faults took of each thread's time, in windows of 100 ms, the thread with the worst first; as `cow_windows`.

    Of the observed replay the faults' own times (without what recording costs) are summed, where the recording's are times of hardware; of
    a policy, and elsewhere, each decision costs what its kind does here at the median, else by the cost table, to which comes what a copy
    costs where other threads of the address space have to be told (`Prices.shootdown_ns`).
    """
    costs, measured = decision_costs(times, prices, hardware)
    decision, whole = pl.col("decision"), (pl.col("decision") == "copy") & (pl.col("pages") > 1)
    frame = replay.fault_rows.select("event", "ts", "tid", "mm", "pages", decision.cast(pl.String))
    frame = frame.with_columns(
        ns=pl.when(whole)
        .then(prices.huge_reuse_fault.value_ns + prices.copy_2m.value_ns * pl.col("pages") / HUGE_PAGES)
        .otherwise(decision.replace_strict(costs, default=0.0, return_dtype=pl.Float64)),
        measured=decision.is_in(list(measured)) & ~whole,
        told=pl.Series(prices.shootdown_ns(threads_at(frame, trace.processes).to_numpy(), trace.raw.metadata.cpus)),
    ).with_columns(pl.when(decision.is_in(_COPIES) & ~pl.col("measured")).then(pl.col("ns") + pl.col("told")).otherwise("ns").alias("ns"))
    if replay.policy == OBSERVED and hardware.real:
        own = times.frame.select("event", own=(pl.col("raw_ns") - pl.col("within_ns") - pl.col("probe_ns")).clip(0))
        frame = frame.join(own, on="event", how="left", maintain_order="left").with_columns(
            ns=pl.coalesce("own", "ns"), measured=pl.col("own").is_not_null() | pl.col("measured")
        )
    return cow_windows(frame, trace.processes, trace.raw.span() or (0, 0))


def decision_costs(times: FaultTimes, prices: Prices, hardware: Hardware) -> tuple[dict[str, float], set[str]]:
    """What a fault of each decision takes, in ns: the median where enough were measured on hardware, else the cost table's; and which
    decisions were measured.
    """
    costs = {decision: float(getattr(prices, entry).value_ns) for decision, entry in _ENTRIES.items()}
    measured: set[str] = set()
    for decision in _ENTRIES if hardware.real else ():
        faults = times.of(decision)
        if faults.height >= LEAST_FAULTS:
            costs[decision] = max(float(np.median(faults["net_ns"].to_numpy())), 0.0)
            measured.add(decision)
    return costs, measured


def threads_at(frame: pl.DataFrame, processes: pl.DataFrame) -> pl.Series:
    """How many threads address space `mm` had at time `ts`, of those that the trace shows (Int64; one row a row of `frame`).

    A thread that is older than the trace was there from its start.
    """
    older = (pl.col("how") == "before-trace").cum_sum().over("tid") > 0
    first = (pl.col("mm") >= 0).cum_sum().over("tid", "life") == 1
    rows = (
        processes.with_columns(life=pl.col("how").is_in(_BEGIN_LIVES).cum_sum().over("tid"), older=older)
        .with_columns(older=(pl.col("life") == 1) & pl.col("older") & first)
        .filter(pl.col("mm") >= 0)
        .select("mm", since=pl.when("older").then(pl.lit(np.iinfo(np.int64).min)).otherwise("from_ns"), until="to_ns")
    )
    came, went = rows.select("mm", ts="since", threads=1), rows.drop_nulls("until").select("mm", ts="until", threads=-1)
    count = pl.concat([came, went]).sort("ts", maintain_order=True).with_columns(pl.col("threads").cum_sum().over("mm"))
    asked = frame.select("mm", "ts").with_row_index("row").sort("ts")
    found = asked.join_asof(count, on="ts", by="mm", strategy="backward", check_sortedness=False).sort("row")
    return found["threads"].fill_null(0).cast(pl.Int64)


def cow_windows(faults: pl.DataFrame, processes: pl.DataFrame, span: tuple[int, int], window_ns: int = WINDOW_NS) -> pl.DataFrame:
    """Sum the time of faults in windows, thread by thread.

    Args:
        faults: `ts` (ns), `tid`, `ns` (what each took), `measured` (whether that was measured); a fault counts in the window it begins in.
        processes: as `schema.PROCESSES`.
        span: first and last time stamp of the trace; windows begin at the first.
        window_ns: how long a window is.

    Returns:
        one row a thread that had such faults, the worst first: `tid`, `pid` (Int32), `comm`, `faults` (UInt32), `windows` (Int64: those
        that it lived in), `hit` (UInt32: those with a fault), `total_ns`, and over all its windows `median_ns`, `p99_ns`, `worst_ns`
        (Float64: time in one window, by nearest rank), `worst_from_ns` (Int64: where the worst window begins) and `time` (String:
        `measured` where all of it is, else `assumed`).
    """
    lives = _lives(processes, span)
    window = (pl.col("ts") - span[0]) // window_ns
    placed = (
        faults.with_row_index("row")
        .sort("ts", "row")
        .join_asof(lives, left_on="ts", right_on="begun", by="tid", strategy="backward", check_sortedness=False)
        .with_columns(window=window, begun=pl.coalesce("begun", pl.lit(span[0])), until=pl.coalesce("until", pl.lit(span[1])))
    )
    hit = (
        placed.group_by("tid", "begun", "window")
        .agg(pl.len().alias("faults"), pl.col("ns").sum(), pl.col("measured").all(), pl.col("until").first(), pl.col("ts").min())
        .sort("ns", "window", descending=[False, True])
    )
    lived = (pl.col("until").first() - span[0]) // window_ns - (pl.col("begun").first() - span[0]) // window_ns + 1
    rows = (
        hit.group_by("tid", "begun", maintain_order=True)
        .agg(
            ns=pl.col("ns"),
            faults=pl.col("faults").sum(),
            hit=pl.len(),
            total_ns=pl.col("ns").sum(),
            worst_ns=pl.col("ns").last(),
            worst_from_ns=pl.col("window").last() * window_ns + span[0],
            measured=pl.col("measured").all(),
            from_ns=pl.col("ts").min(),
            # A window that a fault lies in was lived in.
            windows=pl.max_horizontal(lived, pl.len().cast(pl.Int64)),
        )
        .with_columns(median_ns=_ranked(0.5), p99_ns=_ranked(0.99))
        .with_columns(time=pl.when("measured").then(pl.lit("measured")).otherwise(pl.lit("assumed")))
        .sort("worst_ns", "total_ns", "tid", descending=[True, True, False])
    )
    columns = ["tid", "pid", "comm", "faults", "windows", "hit", "total_ns", "median_ns", "p99_ns", "worst_ns", "worst_from_ns", "time"]
    return _named(rows, processes).select(columns)


def _ranked(share: float) -> pl.Expr:
    """The value at a share of all windows, by nearest rank; the windows without a fault are 0, and come first."""
    rank = (pl.col("windows") * share).ceil().cast(pl.Int64) - 1 - (pl.col("windows") - pl.col("hit").cast(pl.Int64))
    return pl.when(rank >= 0).then(pl.col("ns").list.get(pl.max_horizontal(rank, pl.lit(0)), null_on_oob=True)).otherwise(0.0)


def _lives(processes: pl.DataFrame, span: tuple[int, int]) -> pl.DataFrame:
    """From when to when each thread lived in the trace: `tid`, `begun`, `until`; numbers come back."""
    return (
        processes.with_columns(life=pl.col("how").is_in(_BEGIN_LIVES).cum_sum().over("tid"))
        .group_by("tid", "life", maintain_order=True)
        .agg(
            begun=pl.when(pl.col("how").first() == "before-trace").then(pl.lit(span[0])).otherwise(pl.col("from_ns").first()),
            until=pl.when(pl.col("to_ns").last().is_null()).then(pl.lit(span[1])).otherwise(pl.col("to_ns").last()),
        )
        .sort("begun", maintain_order=True)
        .select("tid", "begun", "until")
    )
