"""Before and after, for a terminal: what the two sides are, the totals, then groups by the size of what they differ in, findings, cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, Final

import polars as pl

from tracetool.before_after import KEYS, BeforeAfter, Run
from tracetool.replay import OBSERVED
from tracetool.report.sections import DEFAULT_WIDTH, Row, Section, lines
from tracetool.report.words import counted, duration, listed, size

#: Groups of either kind, findings of either kind, file names, and reasons of a difference that are shown.
AREAS, SITES, FINDINGS, FILES, REASONS = 8, 20, 10, 4, 3
#: Kinds of memory in a sentence.
_KIND: Final = {"file": "of a file"}

_KINDS: Final = ("copies", "reuses", "early_copies", "unshares", "zero_fills", "splits", "undetermined")
_COSTS: Final = ("copied_pages", "copied_bytes", "copied_ns")
_PER: Final = {"trace": "", "second": ", each second", "fork": ", each fork"}


def text(told: BeforeAfter, width: int = DEFAULT_WIDTH) -> str:
    """The comparison as lines of at most `width` columns."""
    return "\n".join(lines(_sections(told), width)) + "\n"


def _sections(told: BeforeAfter) -> Iterator[Section]:
    what = "what the kernels did" if told.policy == OBSERVED else f"under {told.policy}"
    yield Section(
        f"Before and after: {what}",
        (Row(_side(told.before), "before"), Row(_side(told.after), "after"), *map(Row, _cautions(told))),
    )
    means = ", means" if len(told.before) + len(told.after) > 2 else ""
    yield Section(f"In all{means}{_PER[told.per]}", tuple(_totals(told)))
    yield Section("By program and kind of memory, the largest difference first", tuple(_groups(told, "area", AREAS)))
    yield Section("By call site, the largest difference first", tuple(_groups(told, "call_site", SITES)))
    for title, only in (("Findings gone", "before"), ("Findings new", "after"), ("Findings on both sides, but not as many", None)):
        yield Section(title, tuple(_findings(told, only)))
    yield Section(f"Cost{means}{_PER[told.per]}", tuple(_cost(told)))


# --- what the two sides are -----------------------------------------------------------------------------------------------------------


def _side(runs: Sequence[Run]) -> str:
    names = [PurePath(run.trace.path).name for run in runs[:FILES]]
    files = f"{', '.join(names)} and {len(runs) - FILES:,} more" if len(runs) > FILES else listed(names)
    kernels = listed(list(dict.fromkeys(f"{run.trace.kernel or 'not named'} ({_decides(run)})" for run in runs)))
    each = "" if len(runs) == 1 else "each "
    lengths = sorted(run.trace.to_ns - run.trace.from_ns for run in runs)
    length = " to ".join(dict.fromkeys(duration(each) for each in (lengths[0], lengths[-1])))
    forks, events = (
        _range(values, unit) for values, unit in (([run.forks for run in runs], "fork"), ([run.trace.events for run in runs], "event"))
    )
    return f"{counted(len(runs), 'trace')} ({files}), kernel {kernels}; {each}{length}, {forks}, {events}"


def _decides(run: Run) -> str:
    """The policy of the kernel; where no decision tells it from another, both."""
    return f"decides as {run.kernel.policy}{'' if run.kernel.telling else f' or {run.kernel.runner_up}'}"


def _range(values: list[int], noun: str) -> str:
    least, most = min(values), max(values)
    return counted(least, noun) if least == most else f"{least:,} to {most:,} {noun}s"


def _cautions(told: BeforeAfter) -> Iterator[str]:
    """What keeps the comparison from being one."""
    if not told.has_intervals:
        who = "One trace a side tells" if len(told.before) == len(told.after) == 1 else "A side of one trace tells"
        yield f"{who} no spread: whether a difference is more than chance is not known, and no interval is given."
    elif tests := _intervals(told):
        yield (
            f"In brackets: the 95 % bootstrap interval of a difference of means. Of the {tests:,} by call site about "
            f"{_number(round(tests / 20, 1))} would leave out 0 by chance alone."
        )
    for name, runs in (("before", told.before), ("after", told.after)):
        yield from _cautions_of(name, runs)
    lists = [{event for run in runs for event in run.missing} for runs in (told.before, told.after)]
    if lists[0] != lists[1]:
        yield "What is recorded on one side only shows as a difference."
    if told.generalised:
        kinds = [f"what is {_KIND.get(name, name)}" for name in sorted(told.generalised - {"call_site"})]
        kinds += ["which instruction stored"] if "call_site" in told.generalised else []
        yield f"Only some of the traces tell {listed(kinds)}: groups and findings are not told apart by it."


def _cautions_of(name: str, runs: Sequence[Run]) -> Iterator[str]:
    kernels = {run.trace.kernel for run in runs}
    if len(kernels) > 1:
        yield f"The traces {name} are of {len(kernels)} kernels: their means are of a mixture."
    if lossy := [run for run in runs if run.gaps]:
        yield f"Events were lost {name}, in {_of(len(lossy), len(runs))}: what is counted there is too little."
    if missing := list(dict.fromkeys(event for run in runs for event in run.missing)):
        yield f"Not recorded {name}: {', '.join(missing)}."
    if unseen := sum(run.unseen for run in runs):
        yield f"Not counted {name}: {counted(unseen, 'store')} on which only the policy would have had to decide, not in the trace."


def _of(some: int, of: int) -> str:
    return counted(of, "trace") if some == of == 1 else f"{some:,} of {counted(of, 'trace')}"


def _intervals(told: BeforeAfter) -> int:
    """How many differences by call site could have come out either way."""
    rows = told.table.filter(pl.col("level") == "call_site", pl.col("because").is_null(), pl.col("quantity").is_in(_KINDS))
    return rows.filter(pl.col("low") < pl.col("high")).height


# --- differences ----------------------------------------------------------------------------------------------------------------------


def _totals(told: BeforeAfter) -> Iterator[Row]:
    rows = told.table.filter(pl.col("level") == "total")
    if not rows.filter(pl.col("quantity") == "decisions", (pl.col("before_in") > 0) | (pl.col("after_in") > 0)).height:
        yield Row("No COW decision in any of the traces.")
    for row in rows.filter(pl.col("because").is_null(), pl.col("quantity").is_in(_KINDS)).iter_rows(named=True):
        if row["before_in"] or row["after_in"]:
            yield Row(f"{_change(row)}{_reasons(rows, row['quantity'])}", _signed(row))
    for row in rows.filter(pl.col("quantity") == "findings").iter_rows(named=True):
        if row["before_in"] or row["after_in"]:
            noun = {"defect": "defects found", "info": "findings that are no defects"}[row["severity"]]
            yield Row(_change(row, noun if told.per == "trace" else f"{noun}, each trace"), _signed(row))


def _change(row: dict[str, Any], noun: str | None = None) -> str:
    """`copies 32 -> 16`, with the interval where there is one."""
    name = row["quantity"].replace("_", " ").replace("zero fills", "zero-fills") if noun is None else noun
    return f"{name} {_value(row, 'before')} -> {_value(row, 'after')}{_interval(row)}"


def _interval(row: dict[str, Any]) -> str:
    if row["low"] is None:
        return ""
    if row["low"] == row["high"]:
        return " (no trace of a side differs)" if row["difference"] else ""
    interval = f"{_value(row, 'low', '+')} to {_value(row, 'high', '+')}"
    return f" ({interval})" if row["shown"] else f" (not shown: {interval})"


def _reasons(rows: pl.DataFrame, quantity: str) -> str:
    """What the difference of a quantity is made of, where it is told and not all alike."""
    parts = rows.filter(pl.col("quantity") == quantity, pl.col("because").is_not_null(), pl.col("difference") != 0)
    if not parts.height:
        return ""
    shown = parts.head(REASONS)
    told = [f"{row['because']} {_value(row, 'before')} -> {_value(row, 'after')}{_interval(row)}" for row in shown.iter_rows(named=True)]
    more = f" and {counted(parts.height - REASONS, 'more reason')}" if parts.height > REASONS else ""
    return f": {', '.join(told)}{more}"


def _groups(told: BeforeAfter, level: str, most: int) -> Iterator[Row]:
    rows = told.table.filter(pl.col("level") == level)
    kinds = rows.filter(pl.col("quantity").is_in(_KINDS), pl.col("because").is_null())
    keys = list(KEYS if level == "call_site" else KEYS[:2])
    differs = pl.col("difference") != 0
    # The table is sorted: what is shown comes first.
    groups = kinds.group_by(keys, maintain_order=True).agg(
        differs=differs.any(),
        shown=(pl.col("shown").fill_null(True) & differs).any(),
        before=pl.col("before_in").max(),
        after=pl.col("after_in").max(),
    )
    told_of = groups.filter("shown")
    for group in told_of.head(most).iter_rows(named=True):
        own = rows.filter(pl.col(key) == group[key] for key in keys)
        changed = own.filter(pl.col("quantity").is_in(_KINDS), pl.col("because").is_null(), differs)
        parts = [f"{_change(row)}{_reasons(own, row['quantity'])}" for row in changed.iter_rows(named=True)]
        only = "" if group["before"] and group["after"] else ", only before" if group["before"] else ", only after"
        largest = changed.sort(pl.col("difference").abs(), descending=True, maintain_order=True).row(0, named=True)
        yield Row(f"{', '.join(group[key] for key in keys)}{only}: {'; '.join(parts)}", _signed(largest))
    yield from _left_out(groups, most)


def _left_out(groups: pl.DataFrame, most: int) -> Iterator[Row]:
    shown, differs = int(groups["shown"].sum()), int(groups["differs"].sum())
    if shown > most:
        yield Row(f"showing {most} of {shown:,}; --format csv (jsonl, parquet, ...) writes all")
    if differs > shown:
        yield Row(f"not shown: {counted(differs - shown, 'more group')} whose intervals include 0")
    if groups.height > differs:
        yield Row(f"alike: {counted(groups.height - differs, 'group')}")


# --- findings -------------------------------------------------------------------------------------------------------------------------


def _findings(told: BeforeAfter, only: str | None) -> Iterator[Row]:
    rows = told.table.filter(pl.col("level") == "finding", pl.col("only").eq_missing(pl.lit(only, pl.String)), pl.col("difference") != 0)
    several = len(told.before) + len(told.after) > 2
    for row in rows.head(FINDINGS).iter_rows(named=True):
        through = f" through {row['via']}" if row["via"] not in (None, "other") else ""
        where = f"in {row['area'] or 'unknown'} memory, {_site(row['call_site'])}{through}"
        name = f"{row['rule']} ({row['certainty']} {row['severity']}) of {row['program']} {where}:"
        among = f"; in {row['before_in']} of {row['before_traces']} before, {row['after_in']} of {row['after_traces']} after"
        mark = f" [{row['fingerprint']}]" if row["fingerprint"] else ""
        yield Row(f"{_change(row, name)}{among if several else ''}{mark}", _signed(row))
    if rows.height > FINDINGS:
        yield Row(f"showing {FINDINGS} of {rows.height:,}; --format csv (jsonl, parquet, ...) writes all")
    # Gone is what the side after would have to show; new what that before would.
    if only is not None and rows.height:
        other = "after" if only == "before" else "before"
        yield from _unsettled(told.after if only == "before" else told.before, other, rows["rule"].unique().sort())


def _site(call_site: str | None) -> str:
    known = {None: "instruction not known", "unknown": "instruction not known", "kernel": "by kernel code"}
    return known.get(call_site, f"at instruction ...{call_site}")


def _unsettled(runs: Sequence[Run], name: str, rules: Iterable[str]) -> Iterator[Row]:
    """Where the side without a finding could not have shown it."""
    for rule in rules:
        open_ones = [verdict for run in runs for verdict in run.verdicts if verdict.rule == rule and verdict.verdict == "inconclusive"]
        if open_ones:
            missing = "; ".join(dict.fromkeys(what for verdict in open_ones for what in verdict.missing))
            yield Row(f"{rule} is not settled {name}, in {_of(len(open_ones), len(runs))}: missing are {missing}")


# --- cost -----------------------------------------------------------------------------------------------------------------------------


def _cost(told: BeforeAfter) -> Iterator[Row]:
    rows = told.table.filter(pl.col("level") == "total", pl.col("quantity").is_in(_COSTS))
    nouns = {"copied_pages": "pages copied", "copied_bytes": "the same in bytes", "copied_ns": f"in time, {told.time}"}
    for row in rows.iter_rows(named=True):
        yield Row(_change(row, nouns[row["quantity"]]), _signed(row))
    if told.time == "assumed":
        (run, *_) = [run for run in (*told.before, *told.after) if run.price.time == "assumed"]
        measured = sum(run.price.time != "assumed" for run in (*told.before, *told.after))
        alike = f"; {_of(measured, len(told.copy_ns))} would tell another, but only one price makes times comparable" if measured else ""
        yield Row(f"One more copy is taken for {duration(round(told.copy_ns[0]))}{alike}. {PurePath(run.trace.path).name}: {run.price.why}")
        return
    for name, runs in (("before", told.before), ("after", told.after)):
        each = [f"{duration(round(run.price.extra_ns))} ({_bounds(run)})" for run in runs[:FILES]]
        yield Row(f"One more copy {name}: {', '.join(each)}{', ...' if len(runs) > FILES else ''}; {runs[0].price.why}")


def _bounds(run: Run) -> str:
    return f"{duration(round(run.price.low_ns))} to {duration(round(run.price.high_ns))}"


# --- numbers --------------------------------------------------------------------------------------------------------------------------


def _signed(row: dict[str, Any]) -> str:
    return _value(row, "difference", "+") if row["difference"] else "0"


def _value(row: dict[str, Any], column: str, sign: str = "") -> str:
    value = row[column]
    plus = "+" if sign and value > 0 else ""
    if row["quantity"] == "copied_bytes":
        return f"{plus}{size(round(value))}"
    if row["quantity"] == "copied_ns":
        return f"{plus}{duration(round(value))}"
    return f"{plus}{_number(value)}"


def _number(value: float) -> str:
    """Three digits, and no fewer than there are before the point."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
