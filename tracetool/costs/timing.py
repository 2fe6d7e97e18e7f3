"""Timing: how long COW faults took, as the trace itself shows, and from that the price of one more copy.

    timeline --pairs--> begin and end of each fault --less nested faults, preemption, probes--> net times --medians--> price

A fault's time is that from `cow_fault` to `cow_fault_done` on its thread. What is in it and is no part of it comes off: faults within
it, time that the thread was off its CPU (`sched_switch`), and what the events recorded within it cost themselves. That cost is
calibrated from the trace: where two events of one kind follow each other on a thread and a CPU with next to nothing between them (pages
that are unmapped or freed one by one), the time from one to the next is what one costs, at most. (Faults of one decision cannot tell:
nearly all hold the same events, in each of the recordings beside this project.)

Medians, not means, are compared: interrupts, and preemption that no event tells, are in some faults, and are long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool.costs.hardware import Hardware, Timeline, adjacent, hardware, quickest, stuck, timeline
from tracetool.costs.prices import Prices
from tracetool.memory_events import MemoryEvents
from tracetool.probes import BY_EVENT
from tracetool.trace import Trace
from tracetool_parsers.eventformat import EventFormat

__all__ = [
    "CopyPrice", "FaultTimes", "Hardware", "ProbeCost", "Source", "Timeline", "fault_times", "hardware", "price", "timeline", "times_of",
]  # fmt: skip

Ints = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Source = Literal["measured", "measured, uncorrected", "assumed"]

#: The faults that are timed, by the event that begins them; and what else can begin and end within one.
TIMED: Final = {"cow_fault": "cow_fault_done", "huge_cow_fault": "huge_cow_fault_done"}
WITHIN: Final = {**TIMED, "swap_fault": "swap_fault_done"}

#: Fewer faults of a decision tell nothing.
LEAST_FAULTS: Final = 20
#: The interval that is given, how often it is drawn for, and with what seed.
CONFIDENCE: Final = 0.95
RESAMPLES: Final = 4_000
SEED: Final = 0


@dataclass(frozen=True)
class ProbeCost:
    """What recording one event of a kind costs: the median of `spans` (ns, sorted) `between` two events that follow each other."""

    between: str
    spans: Ints

    @property
    def ns(self) -> float:
        """The cost in ns."""
        return float(np.median(self.spans))


@dataclass(frozen=True)
class FaultTimes:
    """The COW faults with both their ends in the trace.

    `frame` has one row a fault, in the order of the trace: `event` (Int64: row of the memory event that begins it), `tid` (Int32),
    `decision`, `reason` (Enum: `schema.FAULTS`), `huge` (Boolean: of a huge page), `raw_ns` (Int64: from begin to end), `within_ns` (Int64:
    other faults within it), `preempted_ns` (Int64: off its CPU), `kprobes` and `tracepoints` (Int64: events recorded within it), `nested`
    (Int64: both), `probe_ns` (Float64: what recording these cost; 0 where that is not known), `net_ns` (Float64: what is left), and
    `left_out` (String: why its time says nothing; null: it counts).

    `nested` says which events were recorded within faults: `decision`, `event` (name), `per_fault` (Float64). `probes` has the cost of
    kinds of event (`kprobe`, `tracepoint`); `corrected` whether the cost of all events within faults is known.
    """

    frame: pl.DataFrame
    nested: pl.DataFrame
    probes: Mapping[str, ProbeCost] = field(default_factory=dict)
    corrected: bool = True

    def of(self, decision: str) -> pl.DataFrame:
        """The faults of base pages that count, of one decision; of copies those of anonymous pages."""
        return self.frame.filter(
            pl.col("left_out").is_null(), ~pl.col("huge"), pl.col("decision") == decision, pl.col("reason") != "not-anonymous"
        )

    def distribution(self) -> pl.DataFrame:
        """One row a decision: `faults`, `left_out`, `nested` (median), and of the net time `p5_ns`, `median_ns`, `p95_ns`, `worst_ns`."""
        counts, net = pl.col("left_out").is_null(), pl.col("net_ns").filter(pl.col("left_out").is_null())
        return (
            self.frame.group_by("decision", "huge")
            .agg(
                faults=counts.sum(),
                left_out=(~counts).sum(),
                nested=pl.col("nested").filter(counts).median(),
                p5_ns=net.quantile(0.05),
                median_ns=net.median(),
                p95_ns=net.quantile(0.95),
                worst_ns=net.max(),
            )
            .sort("huge", "decision")
        )


@dataclass(frozen=True)
class CopyPrice:
    """What one more copy takes, in ns: the price, its 95 % interval (of an assumed one: how far measurements lie apart), where it is from
    (`time`), of how many copies and reuses it was measured, and why it is that, in a sentence.
    """

    extra_ns: float
    low_ns: float
    high_ns: float
    time: Source
    copies: int
    reuses: int
    why: str


# --- the trace ------------------------------------------------------------------------------------------------------------------------


def fault_times(trace: Trace, line: Timeline | None = None) -> FaultTimes:
    """Time the COW faults of a trace; `line` is its `timeline`, where that was read already."""
    line = line or timeline(trace)
    switches = None
    if trace.raw.counts().get("sched_switch"):
        switches = trace.events("sched_switch").select("ts", pl.col("prev_pid", "next_pid").cast(pl.Int32)).collect()
    decided = decisions(trace.history.events, trace.replay().fault_rows)
    return times_of(line, decided, kinds_of(line.names, trace.raw.formats()), switches, trace.losses)


def decisions(events: MemoryEvents, faults: pl.DataFrame) -> pl.DataFrame:
    """What was decided in each fault: `event` (row of the memory event), `begins` (name of the raw event), `row` (its row), `decision`,
    `reason`; `faults` has the columns of `schema.FAULTS`.
    """
    rows = faults["event"].to_numpy()
    names = pl.Series(events.source_names or [""], dtype=pl.String)
    return faults.select(
        "event",
        names.gather(pl.Series(events.source[rows].astype(np.uint32))).alias("begins"),
        pl.Series("row", events.source_row[rows].astype(np.int64)),
        "decision",
        "reason",
    ).unique("event", keep="first", maintain_order=True)


def kinds_of(names: list[str], formats: Mapping[str, EventFormat]) -> Ints:
    """Whether each event is a kprobe (int8: 1) or a tracepoint (0): by its fields, else, in texts, by the list of known probes."""

    def is_kprobe(name: str) -> bool:
        form, known = formats.get(name), BY_EVENT.get(name)
        if form is not None and any(each.name in ("__probe_ip", "__probe_func", "__probe_ret_ip") for each in form.fields):
            return True
        return known is not None and known.site != "-" and ":" not in known.site

    return np.array([is_kprobe(name) for name in names], np.int8)


# --- times of faults ------------------------------------------------------------------------------------------------------------------


def times_of(
    line: Timeline, decided: pl.DataFrame, kprobe: Ints, switches: pl.DataFrame | None = None, losses: Ints | None = None
) -> FaultTimes:
    """Time the faults of a timeline.

    Args:
        line: all events.
        decided: what was decided, as `decisions` gives it.
        kprobe: as `kinds_of` gives it.
        switches: `ts`, `prev_pid`, `next_pid` of all `sched_switch` events, in order; None: not recorded.
        losses: from when to when events are missing, two int64 (ns) a row.
    """
    spans = _Spans(line, kprobe)
    begin, end = spans.begin, spans.end
    frame = pl.DataFrame(
        {
            "begins": pl.Series(line.names or [""], dtype=pl.String).gather(pl.Series(line.event[begin], dtype=pl.UInt32)),
            "row": spans.row,
            "order": begin,
            "tid": line.tid[begin].astype(np.int32),
            "raw_ns": line.ts[end] - line.ts[begin],
            "within_ns": spans.within,
            "preempted_ns": _preempted(line, begin, end, switches),
            "kprobes": spans.kprobes,
            "tracepoints": spans.tracepoints,
            "left_out": _left_out(line, begin, end, switches, losses),
        }
    )
    frame = decided.join(frame, on=["begins", "row"], how="inner").sort("order")
    probes = probe_costs(line, kprobe)
    count = {"kprobe": pl.col("kprobes"), "tracepoint": pl.col("tracepoints")}
    corrected = all(kind in probes or not int(frame[f"{kind}s"].sum()) for kind in count)
    cost = sum((count[kind] * probes[kind].ns for kind in count if corrected and kind in probes), pl.lit(0.0))
    frame = frame.with_columns(
        huge=pl.col("begins") != "cow_fault", nested=pl.col("kprobes") + pl.col("tracepoints"), probe_ns=cost
    ).with_columns(net_ns=pl.col("raw_ns") - pl.col("within_ns") - pl.col("preempted_ns") - pl.col("probe_ns"))
    columns = [
        *("event", "tid", "decision", "reason", "huge", "raw_ns", "within_ns", "preempted_ns", "kprobes", "tracepoints", "nested"),
        *("probe_ns", "net_ns", "left_out"),
    ]
    return FaultTimes(frame.select(columns), spans.events_within(frame), probes, corrected)


def paired(thread: Ints, opens: Ints, closes: Ints) -> list[tuple[Ints, Ints]]:
    """Begins and ends of what can nest, innermost first: a list of (begin, end), arrays of rows.

    Rows are events by thread, those of each in order. `opens` and `closes` say what an event begins or ends (a number; -1: nothing). A
    begin or an end whose other half is missing is left over.
    """
    rows = np.flatnonzero((opens >= 0) | (closes >= 0))
    found: list[tuple[Ints, Ints]] = []
    while rows.size > 1:
        first, then = rows[:-1], rows[1:]
        match = (opens[first] >= 0) & (opens[first] == closes[then]) & (thread[first] == thread[then])
        if not match.any():
            break
        found.append((first[match], then[match]))
        kept = np.ones(rows.size, np.bool_)
        kept[:-1] &= ~match
        kept[1:] &= ~match
        rows = rows[kept]
    return found


class _Spans:
    """The faults of a timeline that have both ends: rows of begin and end; `row` is the begin's among events of its name."""

    def __init__(self, line: Timeline, kprobe: Ints) -> None:
        pairs = [(_code(line, name), _code(line, done)) for name, done in WITHIN.items()]
        opens, closes = np.full(len(line.names) + 1, -1), np.full(len(line.names) + 1, -1)
        for number, (begins, ends) in enumerate(pairs):
            opens[begins] = closes[ends] = number
        opens[-1] = closes[-1] = -1
        threads = np.unique(line.tid[opens[line.event] >= 0])
        some = np.flatnonzero(np.isin(line.tid, threads))
        self._line, self._order = line, some[np.argsort(line.tid[some], kind="stable")]
        event = line.event[self._order]
        levels = paired(line.tid[self._order], opens[event], closes[event])
        first, last, own = self._measured(levels, kprobe[event] if len(event) else event)
        timed = opens[event[first]] < len(TIMED)
        self._first, self._last = first[timed], last[timed]
        self.begin, self.end = self._order[self._first], self._order[self._last]
        self.within = line.ts[self.end] - line.ts[self.begin] - own[timed, 0]
        self.kprobes, self.tracepoints = own[timed, 1], own[timed, 2]
        self.row = np.zeros(len(self.begin), np.int64)
        for begins, _ in pairs[: len(TIMED)]:
            its = np.flatnonzero(line.event[self.begin] == begins)
            self.row[its] = np.searchsorted(np.flatnonzero(line.event == begins), self.begin[its])

    def _measured(self, levels: list[tuple[Ints, Ints]], kprobe: Ints) -> tuple[Ints, Ints, Ints]:
        """Begin and end of all pairs, and of each what is its own (int64: time, kprobes, tracepoints), without that of pairs within it."""
        size = len(self._order)
        sums = np.zeros((size + 1, 2), np.int64)
        sums[1:] = np.cumsum(np.stack([kprobe == 1, kprobe == 0], axis=1), axis=0)
        ts = self._line.ts[self._order]
        taken = np.zeros((size + 1, 3), np.int64)
        own: list[Ints] = []
        for first, last in levels:
            inner = np.cumsum(taken, axis=0)
            whole = np.column_stack([ts[last] - ts[first], sums[last] - sums[first + 1]])
            own.append(whole - (inner[last] - inner[first]))
            taken[first] = own[-1]
        if not levels:
            none = np.zeros(0, np.int64)
            return none, none, np.zeros((0, 3), np.int64)
        return np.concatenate([f for f, _ in levels]), np.concatenate([last for _, last in levels]), np.concatenate(own)

    def events_within(self, frame: pl.DataFrame) -> pl.DataFrame:
        """How many events of each name are recorded within a fault of each decision, on average: `decision`, `event`, `per_fault`."""
        sizes = self._last - self._first - 1
        ends = np.cumsum(sizes)
        inside = np.repeat(self._first + 1 - (ends - sizes), sizes) + np.arange(ends[-1] if sizes.size else 0)
        names = pl.Series(self._line.names or [""], dtype=pl.String)
        codes = pl.Series(self._line.event[self._order[inside]], dtype=pl.UInt32)
        counted = pl.DataFrame({"order": np.repeat(self.begin, sizes), "event": names.gather(codes)})
        faults = frame.filter(~pl.col("huge")).select("order", "decision")
        total = faults.group_by("decision").agg(faults=pl.len())
        return (
            counted.join(faults, on="order")
            .group_by("decision", "event")
            .agg(events=pl.len())
            .join(total, on="decision")
            .select("decision", "event", per_fault=pl.col("events") / pl.col("faults"))
            .sort("decision", "per_fault", "event", descending=[False, True, False])
        )


def _code(line: Timeline, name: str) -> int:
    """The number of an event; -1: it never occurs."""
    return line.names.index(name) if name in line.names else -1


def _preempted(line: Timeline, begin: Ints, end: Ints, switches: pl.DataFrame | None) -> Ints:
    """How long the thread of each fault was off its CPU between its two ends, in ns."""
    if switches is None or not len(begin):
        return np.zeros(len(begin), np.int64)
    moves = pl.concat(
        [
            switches.select("ts", tid="prev_pid", on=pl.lit(0), order=pl.int_range(pl.len()) * 2),
            switches.select("ts", tid="next_pid", on=pl.lit(1), order=pl.int_range(pl.len()) * 2 + 1),
        ]
    ).sort("order")
    since, was = pl.col("ts").shift(1).over("tid"), pl.col("on").shift(1).over("tid")
    back = (
        moves.with_columns(off=pl.when((pl.col("on") == 1) & (was == 0)).then(pl.col("ts") - since).otherwise(0))
        .with_columns(pl.col("off").cum_sum().over("tid"))
        .sort("ts", maintain_order=True)
    )

    def until(rows: Ints) -> Ints:
        at = pl.DataFrame({"row": np.arange(len(rows)), "ts": line.ts[rows], "tid": line.tid[rows].astype(np.int32)}).sort("ts")
        joined = at.join_asof(back, on="ts", by="tid", strategy="backward", check_sortedness=False).sort("row")
        return joined["off"].fill_null(0).to_numpy()

    return until(end) - until(begin)


def _left_out(line: Timeline, begin: Ints, end: Ints, switches: pl.DataFrame | None, losses: Ints | None) -> pl.Series:
    """Why the time of each fault says nothing: events are missing in it, its clock stood, or its thread was off its CPU for as long as
    no event tells.
    """
    why = np.full(len(begin), "", object)
    if switches is None and len(begin):
        order = np.argsort(line.cpu, kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        changes = np.zeros(len(order), np.int64)
        changes[1:] = np.cumsum(line.tid[order][1:] != line.tid[order][:-1])
        elsewhere = (line.cpu[begin] != line.cpu[end]) | (changes[rank[end]] != changes[rank[begin]])
        why[elsewhere & (line.cpu[begin] >= 0)] = "preempted"
    stood = stuck(line)
    if len(begin):
        why[stood[begin] | stood[end]] = "clock stood"
    if losses is not None and len(losses):
        ordered = losses[np.argsort(losses[:, 0], kind="stable")]
        last = np.searchsorted(ordered[:, 0], line.ts[end], side="right") - 1
        furthest = np.maximum.accumulate(ordered[:, 1])
        why[(last >= 0) & (furthest[np.maximum(last, 0)] >= line.ts[begin])] = "events lost"
    return pl.Series(why, dtype=pl.String).replace("", None)


# --- what recording costs -------------------------------------------------------------------------------------------------------------


def probe_costs(line: Timeline, kprobe: Ints) -> dict[str, ProbeCost]:
    """What recording an event costs, by kind of event (`kprobe`, `tracepoint`): the shortest median span between two of the kind.

    A kind of which no two follow each other often enough is missing. What the kernel does between the two is counted with it: the cost is
    at most that.
    """
    spans, costs = adjacent(line), {}
    for kind, number in (("kprobe", 1), ("tracepoint", 0)):
        codes = pl.Series(np.flatnonzero(kprobe == number), dtype=pl.Int32).implode()
        found = quickest(spans.filter(pl.col("first").is_in(codes), pl.col("then").is_in(codes)))
        if found is not None:
            first, then, ns = found
            costs[kind] = ProbeCost(f"{line.names[first]} and {line.names[then]}", np.sort(ns))
    return costs


# --- the price of a copy --------------------------------------------------------------------------------------------------------------


def price(times: FaultTimes, prices: Prices, recorded_on: Hardware) -> CopyPrice:
    """The price of one more copy: the median copy less the median reuse, with a 95 % bootstrap interval; else that of the cost table.

    It is assumed where the trace has too few faults with both ends, and where it may have been recorded under emulation. Both medians and
    the calibrated cost of probes are drawn anew for the interval, each fault being taken for independent of the others.
    """
    copies, reuses = times.of("copy"), times.of("reuse")

    def assumed(why: str) -> CopyPrice:
        table = prices.extra_copy
        return CopyPrice(table.value_ns, table.low_ns, table.high_ns, "assumed", copies.height, reuses.height, f"{why}; {table.source}")

    if not times.frame.height:
        return assumed("no COW fault has both its ends in the trace")
    if min(copies.height, reuses.height) < LEAST_FAULTS:
        return assumed(f"{copies.height:,} copies and {reuses.height:,} reuses tell their time, which is too few")
    random = np.random.default_rng(SEED)
    extra = float(_median(copies) - _median(reuses))
    drawn = _drawn(copies["net_ns"].to_numpy(), random) - _drawn(reuses["net_ns"].to_numpy(), random)
    for kind, cost in times.probes.items() if times.corrected else ():
        more = float(_mean(copies, f"{kind}s") - _mean(reuses, f"{kind}s"))
        drawn -= more * (_drawn(cost.spans, random) - cost.ns)
    low, high = (float(each) for each in np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    told = _told(times, copies, reuses)
    if not recorded_on.real:
        return assumed(f"recorded on {recorded_on}, whose times are not taken for those of hardware: there {told}")
    if extra <= 0:
        return assumed(f"no copy takes longer than a reuse here: {told}")
    source: Source = "measured" if times.corrected else "measured, uncorrected"
    return CopyPrice(extra, low, high, source, copies.height, reuses.height, f"{told}; {recorded_on}")


def _told(times: FaultTimes, copies: pl.DataFrame, reuses: pl.DataFrame) -> str:
    """What was measured, in words."""
    raw = (float(_median(each, "raw_ns")) for each in (copies, reuses))
    copy, reuse = raw
    text = f"{copies.height:,} copies take {_us(copy)} and {reuses.height:,} reuses {_us(reuse)} (medians)"
    nested = [_mean(each, "nested") for each in (copies, reuses)]
    if not times.corrected:
        return f"{text}, with {nested[0]:.1f} and {nested[1]:.1f} events recorded in each, whose cost cannot be told apart"
    less = _mean(copies, "probe_ns") - _mean(reuses, "probe_ns")
    how = ", ".join(f"a {kind} {_us(cost.ns)}, as between {cost.between}" for kind, cost in times.probes.items())
    return f"{text}; the difference less {_us(less)} that recording {nested[0]:.1f} and {nested[1]:.1f} events in each costs ({how})"


def _us(ns: float) -> str:
    return f"{ns / 1000:.3g} us"


def _median(frame: pl.DataFrame, column: str = "net_ns") -> float:
    return float(np.median(frame[column].to_numpy()))


def _mean(frame: pl.DataFrame, column: str) -> float:
    return float(np.mean(frame[column].to_numpy()))


def _drawn(values: Ints, random: np.random.Generator) -> Floats:
    """Medians of samples drawn from `values` with replacement, RESAMPLES of them, without drawing them.

    The k-th of n such values is that at quantile U, the k-th smallest of n uniform numbers, which has a beta distribution of (k, n-k+1).
    """
    ordered, size = np.sort(values), len(values)
    middle = (size + 1) // 2
    at = random.beta(middle, size - middle + 1, RESAMPLES)
    low: Floats = ordered[np.minimum((at * size).astype(np.int64), size - 1)].astype(np.float64)
    if size % 2:
        return low
    # The next one after it: the least of the uniform numbers above.
    at += (1 - at) * random.beta(1, size - middle, RESAMPLES)
    high = ordered[np.minimum((at * size).astype(np.int64), size - 1)].astype(np.float64)
    drawn: Floats = (low + high) / 2
    return drawn
