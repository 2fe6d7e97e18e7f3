"""Before and after: what two traces, or two sets of repeats, decided, found and paid, aligned by program, kind of area and call site.

    traces --runs--> counts of each --long--> one table of quantities --matrix--> rows x runs --intervals--> differences

Addresses, pids and times differ from run to run; what is aligned is what stays: the name of the program with its numbers generalised (as
`fingerprints` does), the kind of memory (`where.areas`) and the place of the instruction in its page of code (`where.sites`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import polars as pl

from tracetool import schema
from tracetool.analysis import Kernel, TraceInfo, Verdict
from tracetool.costs.attribution import decisions
from tracetool.costs.forks import forks
from tracetool.costs.prices import Prices, load
from tracetool.costs.timing import CopyPrice, Source, fault_times, hardware, price, timeline
from tracetool.errors import Unanswerable, Unusable
from tracetool.fingerprints import with_fingerprints
from tracetool.intervals import differences
from tracetool.judging import found, traced, verdicts
from tracetool.policies import Policy, chosen
from tracetool.replay import OBSERVED, Replay
from tracetool.rules import RULES
from tracetool.rules.base import missing_events
from tracetool.trace import Trace
from tracetool.trace import open as open_trace
from tracetool.where.ranges import has
from tracetool.where.sites import call_sites

__all__ = ["PER", "BeforeAfter", "Per", "Run", "before_after"]

_log = logging.getLogger(__name__)

Per = Literal["trace", "second", "fork"]
PER: Final = ("trace", "second", "fork")
#: What groups are aligned by, coarse to fine, and what each level sums up.
KEYS: Final = ("program", "area", "call_site")
LEVELS: Final = {"total": 0, "program": 1, "area": 2, "call_site": 3}
#: As in `fingerprints`: threads of pools and of the kernel carry numbers in their names that differ from run to run.
NUMBER: Final = r"\d+"
_QUANTITIES: Final = {
    "copy": "copies", "reuse": "reuses", "early-copy": "early_copies", "unshare": "unshares", "zero-fill": "zero_fills",
    "split": "splits", "undetermined": "undetermined",
}  # fmt: skip
#: What makes findings of several traces the same one.
_FINDING: Final = ("rule", "certainty", "severity", *KEYS, "via", "fingerprint")
#: What makes a row of the result.
_ROW: Final = ("level", *KEYS, "quantity", "because", "rule", "certainty", "severity", "via", "fingerprint")
_UNKNOWN_SITE: Final = "unknown"
_UNKNOWN_AREA: Final = "unknown"


@dataclass(frozen=True)
class Run:
    """One trace, counted.

    `counts` has a row for each `program`, `area`, `call_site`, `decision` and `because` (String): `pages` and `decisions` (Int64).
    `findings` has the columns `_FINDING` and `count` (UInt32). `unseen` are stores of which only the policy would have made a decision, and
    which the trace cannot show. `kernel` says which policy the recorded decisions fit best; `missing` are events that rules need and that
    were not recorded; `gaps` how often events were lost; `lacks` what of `heap`, `anonymous`, `file` and `call_site` the trace cannot tell.
    """

    trace: TraceInfo
    forks: int
    kernel: Kernel
    counts: pl.DataFrame
    findings: pl.DataFrame
    unseen: int
    price: CopyPrice
    verdicts: tuple[Verdict, ...]
    missing: tuple[str, ...]
    gaps: int
    lacks: frozenset[str]

    @property
    def seconds(self) -> float:
        """How long the trace is, on its clock."""
        return (self.trace.to_ns - self.trace.from_ns) / 1e9


@dataclass(frozen=True)
class BeforeAfter:
    """Two sets of runs compared: `table` is `schema.BEFORE_AFTER`, totals first, then programs, areas, call sites, findings; of each the
    largest difference first. `time` says where the price of a copy is from, which `copy_ns` has of each run (ns, before first);
    `generalised` which kinds of area or site only some traces tell apart, and so none here.
    """

    policy: str
    per: Per
    before: tuple[Run, ...]
    after: tuple[Run, ...]
    table: pl.DataFrame
    time: Source
    copy_ns: tuple[float, ...]
    generalised: frozenset[str]

    @property
    def has_intervals(self) -> bool:
        """Whether there are repeats on both sides, whose spread tells something."""
        return min(len(self.before), len(self.after)) > 1


def before_after(
    before: Iterable[Trace | str | os.PathLike[str]],
    after: Iterable[Trace | str | os.PathLike[str]],
    policy: str | Policy = OBSERVED,
    prices: Prices | None = None,
    per: Per = "trace",
) -> BeforeAfter:
    """Compare two sets of repeats: what was observed, or what a policy makes of either side.

    Traces are read one after the other, so that a generator of them needs no more memory than one trace.

    Args:
        before: the traces of one side, one or more.
        after: those of the other.
        policy: the replay that is compared; `kernel` is each trace's own policy.
        prices: the cost table for traces that do not tell the price of a copy (None: the shipped one).
        per: counts are those of a trace, or divided by its length (`second`) or by its forks (`fork`); findings are never divided.

    Raises:
        Unusable: a side has no trace, or `policy` is several.
        UnknownName: there is no such policy.
        Unanswerable: counts are to be divided by what is 0.
        TraceError: a file cannot be read.
    """
    decided, table = policy_of(policy), prices or load(None)
    sides = [tuple(_run(each, decided, table) for each in traces) for traces in (before, after)]
    for name, side in zip(("before", "after"), sides, strict=True):
        if not side:
            raise Unusable(f"no trace {name}", hint="compare before*.dat --with after*.dat")
    runs = [*sides[0], *sides[1]]
    lacking = frozenset[str]().union(*(run.lacks for run in runs))
    told = {name for name in lacking if any(_tells_apart(run, name) for run in runs)}
    time, in_ns = _priced(runs, table)
    long = pl.concat([_long(run, number, told, ns, _divisor(run, per)) for number, (run, ns) in enumerate(zip(runs, in_ns, strict=True))])
    return BeforeAfter(
        policy=OBSERVED if decided is None else decided.name,
        per=per,
        before=sides[0],
        after=sides[1],
        table=_compared(long, len(sides[0]), len(sides[1]), policy=OBSERVED if decided is None else decided.name, per=per, time=time),
        time=time,
        copy_ns=tuple(in_ns),
        generalised=frozenset(told),
    )


def policy_of(policy: str | Policy) -> Policy | None:
    """The one policy that is asked for; None: what was observed. Raises UnknownName, Unusable."""
    if isinstance(policy, Policy):
        return policy
    if policy == OBSERVED:
        return None
    asked = chosen([policy])
    if len(asked) != 1:
        raise Unusable(f"policy {policy!r} is not one", hint="before and after are compared under one policy, or as observed")
    return asked[0]


# --- one trace ------------------------------------------------------------------------------------------------------------------------


def _run(source: Trace | str | os.PathLike[str], policy: Policy | None, prices: Prices) -> Run:
    trace = source if isinstance(source, Trace) else open_trace(source)
    _log.info("replaying %s", trace.raw.metadata.path)
    replay = trace.replay(OBSERVED if policy is None else policy)
    rows = replay.fault_rows
    line = timeline(trace)
    findings = with_fingerprints(found(trace, replay), [replay], trace)
    counts = _counts(trace, replay)
    return Run(
        trace=traced(trace),
        forks=forks(replay).height,
        kernel=trace.kernel,
        counts=counts,
        findings=findings.with_columns(_program(), pl.col("area", "call_site", "via").cast(pl.String))
        .group_by(_FINDING)
        .agg(count=pl.len()),
        unseen=int(rows.filter(pl.col("decision") == "unseen")["pages"].sum()),
        price=price(fault_times(trace, line), prices, hardware(trace, line)),
        verdicts=tuple(verdicts(trace, replay, findings)),
        missing=tuple(dict.fromkeys(event for rule in RULES.values() for event in missing_events(rule, trace.raw.formats().keys()))),
        gaps=trace.raw.losses.num_rows,
        lacks=frozenset(_lacks(trace, counts, findings)),
    )


def _program() -> pl.Expr:
    return pl.col("comm").fill_null("?").str.replace_all(NUMBER, "0").alias("program")


def _counts(trace: Trace, replay: Replay) -> pl.DataFrame:
    rows = decisions(trace, replay)
    keyed = rows.with_columns(_program(), call_sites(rows["event"], trace), pl.col("area").cast(pl.String))
    return keyed.group_by(*KEYS, "decision", "because").agg(pl.col("pages").sum(), decisions=pl.len().cast(pl.Int64))


def _lacks(trace: Trace, counts: pl.DataFrame, findings: pl.DataFrame) -> Iterable[str]:
    """Which kinds of area or site a trace cannot tell of what it has, as the events that tell them are not in it."""
    told = trace.raw.counts()
    both = pl.concat([each.select(pl.col("area", "call_site").cast(pl.String)) for each in (counts, findings)])
    # Without brk's ends a heap is anonymous memory like other.
    if both["area"].is_in(["anonymous", _UNKNOWN_AREA]).any() and not told.get("sys_exit_brk"):
        yield "heap"
    if (both["area"] == _UNKNOWN_AREA).any() and not has(trace, "mm_fault", "vm_ops"):
        yield from ("anonymous", "file")
    if (both["call_site"] == _UNKNOWN_SITE).any() and not told.get("page_fault_user"):
        yield "call_site"


def _tells_apart(run: Run, name: str) -> bool:
    """Whether a run has something that another, which lacks it, would have called otherwise."""
    if name == "call_site":
        return bool((~run.counts["call_site"].is_in(["kernel", _UNKNOWN_SITE])).any())
    return bool((run.counts["area"] == name).any())


# --- all of them as one table ---------------------------------------------------------------------------------------------------------


def _priced(runs: Sequence[Run], prices: Prices) -> tuple[Source, list[float]]:
    """What one more copy takes in each run, and where that is from.

    Its own where all runs tell theirs; else the table's for all, so that no difference is one of where the price is from.
    """
    sources = {run.price.time for run in runs}
    if "assumed" in sources:
        return "assumed", [float(prices.extra_copy.value_ns)] * len(runs)
    return "measured" if sources == {"measured"} else "measured, uncorrected", [run.price.extra_ns for run in runs]


def _divisor(run: Run, per: Per) -> float:
    by = {"trace": 1.0, "second": run.seconds, "fork": float(run.forks)}[per]
    if by <= 0:
        raise Unanswerable(
            f"counts per {per} of what has no {per}", path=run.trace.path, hint="--per trace (the default) divides by nothing"
        )
    return by


def _long(run: Run, number: int, told: Iterable[str], copy_ns: float, divisor: float) -> pl.DataFrame:
    """All quantities of one run at all levels: `_ROW`, `run`, `value` (Float64); `told`: what is not to be told apart."""
    factors = {"copied_pages": 1.0, "copied_bytes": float(schema.PAGE_SIZE), "copied_ns": copy_ns}
    counts = _merged(run.counts, told).with_columns(quantity=pl.col("decision").replace_strict(_QUANTITIES))
    any_reason = pl.lit(None, pl.String).alias("because")
    copied = counts.filter(pl.col("decision").is_in(schema.COPIES))
    fine = pl.concat(
        [
            counts.select(*KEYS, "quantity", "because", value="pages"),
            counts.select(*KEYS, "quantity", any_reason, value="pages"),
            counts.select(*KEYS, pl.lit("decisions").alias("quantity"), any_reason, value="decisions"),
            *(copied.select(*KEYS, pl.lit(name).alias("quantity"), any_reason, value="pages") for name in factors),
            _nothing(),
        ]
    )
    levels = [
        fine.with_columns(pl.lit(None, pl.String).alias(key) for key in KEYS[depth:])
        .group_by(*KEYS, "quantity", "because")
        .agg(pl.col("value").sum() * pl.col("quantity").first().replace_strict(factors, default=1.0, return_dtype=pl.Float64) / divisor)
        .with_columns(level=pl.lit(level))
        for level, depth in LEVELS.items()
    ]
    whole = pl.concat([*levels, *_long_findings(_merged(run.findings, told))], how="diagonal")
    # Nothing has no place: it is there for the totals alone.
    return whole.filter((pl.col("level") == "total") | pl.col("program").is_not_null()).select(*_ROW, pl.lit(number).alias("run"), "value")


def _long_findings(rows: pl.DataFrame) -> Iterable[pl.DataFrame]:
    """Findings one by one, and their totals by severity."""
    counted = rows.select(*_FINDING, pl.col("count").cast(pl.Float64).alias("value"))
    none = pl.DataFrame({"severity": schema.FINDINGS["severity"].values, "value": [0.0, 0.0]})
    for level, by in (("finding", list(_FINDING)), ("total", ["severity"])):
        kept = counted.select(*by, "value") if level == "finding" else pl.concat([counted.select(*by, "value"), none])
        yield kept.group_by(by).agg(pl.col("value").sum()).with_columns(level=pl.lit(level), quantity=pl.lit("findings"))


def _nothing() -> pl.DataFrame:
    """Every quantity once, with the value 0: totals have a row of each."""
    quantities = [each for each in schema.QUANTITIES if each != "findings"]
    empty = pl.lit(None, pl.String)
    return pl.DataFrame({"quantity": quantities, "value": [0] * len(quantities)}).select(
        *(empty.alias(key) for key in KEYS), "quantity", empty.alias("because"), "value"
    )


def _merged(rows: pl.DataFrame, told: Iterable[str]) -> pl.DataFrame:
    """With what only some runs can tell apart as one: as unknown; a fingerprint has area and call site in it."""
    kinds = {name for name in told if name != "call_site"}
    # What one run knows as heap is anonymous to another, which does not know of heaps.
    kinds |= {"anonymous"} if "heap" in kinds else set()
    changes = [pl.when(pl.col("area").is_in(kinds)).then(pl.lit(_UNKNOWN_AREA)).otherwise("area").alias("area")] if kinds else []
    if "call_site" in told:
        changes.append(pl.when(pl.col("call_site") == "kernel").then("call_site").otherwise(pl.lit(_UNKNOWN_SITE)).alias("call_site"))
    if changes and "fingerprint" in rows.columns:
        changes.append(pl.lit(None, pl.String).alias("fingerprint"))
    counted = [name for name in ("pages", "decisions", "count") if name in rows.columns]
    alike = [name for name in rows.columns if name not in counted]
    return rows.with_columns(changes).group_by(alike).agg(pl.col(counted).sum()) if changes else rows


def _compared(long: pl.DataFrame, before: int, after: int, *, policy: str, per: str, time: str) -> pl.DataFrame:
    """The table: a row for each `_ROW` of any run, with means, difference and interval."""
    # In an order of their own: what is computed of a row must not depend, in its last bit, on where it stands.
    rows = long.select(_ROW).unique().sort(_ROW).with_row_index("row")
    placed = long.join(rows, on=_ROW, how="left", nulls_equal=True, maintain_order="left")
    values = np.zeros((rows.height, before + after))
    # What a run has not, it has 0 times.
    np.add.at(values, (placed["row"].to_numpy(), placed["run"].to_numpy()), placed["value"].to_numpy())
    found_in = values != 0
    compared = differences(values[:, :before], values[:, before:])
    bounds = [pl.Series(name, each).fill_nan(None) for name, each in (("low", compared.low), ("high", compared.high))]
    table = rows.drop("row").with_columns(
        pl.lit(policy).alias("policy"),
        pl.Series("before", compared.before),
        pl.Series("after", compared.after),
        pl.Series("difference", compared.difference),
        *bounds,
        pl.Series("before_in", found_in[:, :before].sum(axis=1)),
        pl.Series("after_in", found_in[:, before:].sum(axis=1)),
        pl.lit(before).alias("before_traces"),
        pl.lit(after).alias("after_traces"),
        per=pl.when(pl.col("quantity") == "findings").then(pl.lit("trace")).otherwise(pl.lit(per)),
        time=pl.when(pl.col("quantity") == "copied_ns").then(pl.lit(time)),
    )
    return _sorted(table.with_columns(shown=_shown(), only=_only()))


def _shown() -> pl.Expr:
    """Whether the interval leaves out 0; null where there is none."""
    return (pl.col("low") > 0) | (pl.col("high") < 0)


def _only() -> pl.Expr:
    one, other = pl.col("before_in") > 0, pl.col("after_in") > 0
    return pl.when(one & ~other).then(pl.lit("before")).when(other & ~one).then(pl.lit("after"))


def _sorted(table: pl.DataFrame) -> pl.DataFrame:
    """Levels in their order; within one, groups by what they differ in most: what is shown first, then in decisions that are not alike."""
    group = ["level", *KEYS, "rule", "certainty", "severity", "via", "fingerprint"]
    counted = pl.col("because").is_null() & ~pl.col("quantity").is_in(["copied_bytes", "copied_ns", "decisions"])
    size = pl.col("difference").abs().filter(counted)
    weight = table.group_by(group).agg(
        _shown=size.filter(pl.col("shown").filter(counted).fill_null(True)).max().fill_null(0.0), _size=size.max().fill_null(0.0)
    )
    kinds = {"level": schema.LEVELS, "quantity": schema.QUANTITIES}
    typed = table.join(weight, on=group, how="left", nulls_equal=True).with_columns(
        pl.col(name).cast(pl.Enum(list(values))) for name, values in kinds.items()
    )
    return (
        typed.sort(
            "level", "_shown", "_size", *group[1:], "quantity", pl.col("because").is_not_null(), pl.col("difference").abs(), "because",
            descending=[False, True, True, *(False for _ in group[1:]), False, False, True, False],
        )
        .select(list(schema.BEFORE_AFTER))
        .cast(schema.polars_schema(schema.BEFORE_AFTER))  # type: ignore[arg-type]
    )  # fmt: skip
