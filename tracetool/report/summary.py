"""What every reporter says alike: the rows of the policies table, the worst findings, the answer in three sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from tracetool.analysis import Analysis, PolicyResult
from tracetool.report.words import counted, duration, listed, size
from tracetool.rules import RULES

if TYPE_CHECKING:
    import polars as pl

OBSERVED: Final = "observed"

Standing = Literal["defect", "possible", "clean", "inconclusive"]


@dataclass(frozen=True)
class Safety:
    """How one policy (or the observed kernel) stands: findings of severity `defect`, and what all rules together come to."""

    certain: int
    possible: int
    standing: Standing


@dataclass(frozen=True)
class Row:
    """One row of the policies table; `result` is None for the observed kernel, which is not compared with `mapcount`."""

    name: str
    cow_faults: int
    copies: int
    reuses: int
    early_copies: int
    unshares: int
    result: PolicyResult | None
    safety: Safety


def rows(analysis: Analysis) -> tuple[Row, ...]:
    """The observed kernel first, then the policies in the order in which they were asked for."""

    def observed(decision: str) -> int:
        return analysis.observed.get(decision, 0)

    first = Row(
        OBSERVED, observed("cow_faults"), observed("copies"), observed("reuses"), observed("early_copies"), observed("unshares"),
        None, safety(analysis, OBSERVED),
    )  # fmt: skip
    others = (
        Row(p.name, p.cow_faults, p.copies, p.reuses, p.early_copies, p.unshares, p, safety(analysis, p.name)) for p in analysis.policies
    )
    return (first, *others)


def peak_pages(analysis: Analysis, row: Row) -> int | None:
    """The most page frames at once; None where it is not known."""
    return row.result.peak_pages if row.result is not None else analysis.observed_peak


def safety(analysis: Analysis, policy: str) -> Safety:
    """Defects of `policy`; `clean` only where no rule is inconclusive and at least one was judged."""
    defects = analysis.findings.filter(policy=policy, severity="defect")
    certain = defects.filter(certainty="certain").height
    possible = defects.height - certain
    verdicts = {v.verdict for v in analysis.verdicts if v.policy == policy}
    standing: Standing = "clean" if verdicts == {"clean"} else "inconclusive"
    if possible:
        standing = "possible"
    # A verdict may rest on findings that a filter has left out of the table.
    if certain or ("defect" in verdicts and not possible):
        standing = "defect"
    return Safety(certain, possible, standing)


def worst_first(analysis: Analysis) -> pl.DataFrame:
    """The findings: defects before what the kernel never promised, certain before possible, then observed first, then by time."""
    import polars as pl

    order = [OBSERVED, *(p.name for p in analysis.policies)]
    return analysis.findings.sort(
        pl.col("severity") != "defect",
        pl.col("certainty") != "certain",
        pl.col("policy").replace_strict(order, range(len(order)), default=len(order), return_dtype=pl.Int64),
        "from_ns",
        "id",
    )


def answer(analysis: Analysis) -> tuple[str, ...]:
    """What came out, in a sentence each: the traced kernel, the policies, the costs, what was known before."""
    told = [_observed_sentence(analysis)]
    if analysis.policies:
        told += [_policies_sentence(analysis), _costs_sentence(analysis)]
    return (*told, *filter(None, [known(analysis)]))


def known(analysis: Analysis) -> str:
    """What a baseline made be left out; empty without one."""
    if not analysis.known:
        return ""
    number = analysis.known.findings
    left_out = f"{counted(number, 'finding')} {'is' if number == 1 else 'are'} known from {analysis.known.path} and left out"
    return f"Only what is new is told: {left_out}, also of the verdicts."


def remedy(rule: str, severity: str = "defect") -> str:
    """What avoids a finding of that rule and severity; empty for a rule that this version does not have."""
    return RULES[rule].remedy_of(severity) if rule in RULES else ""


def why_empty(analysis: Analysis) -> str | None:
    """Why there is nothing to tell of COW decisions, or None where there is."""
    if analysis.trace.events == 0:
        return "The trace holds no events: nothing was recorded, or a filter left nothing."
    if any(row.cow_faults for row in rows(analysis)):
        return None
    missing = sorted({m for v in analysis.verdicts if v.verdict == "inconclusive" for m in v.missing})
    if missing:
        return f"No COW fault can be told from this trace. It lacks: {'; '.join(missing)}."
    doubt = ", as far as it can tell" if coverage(analysis) else ""
    return f"No COW fault in this trace: while it was recorded, no traced process wrote to a page that it shared{doubt}."


def why_no_findings(analysis: Analysis) -> str:
    """What an empty table of findings means: everything clean, or not enough recorded to say so."""
    if not analysis.verdicts:
        return "No findings, because no rule was asked."
    none = "No new findings" if analysis.known else "No findings"
    unsettled = [v for v in analysis.verdicts if v.verdict == "inconclusive"]
    if not unsettled:
        but = ", but for what was known" if analysis.known and analysis.known.findings else ""
        return f"{none}: every rule is clean under the observed kernel and every policy asked for{but}."
    missing = sorted({m for v in unsettled for m in v.missing})
    because = f" It lacks: {'; '.join(missing)}." if missing else ""
    share = f"{len(unsettled)} of {counted(len(analysis.verdicts), 'verdict')}"
    return f"{none}, but inconclusive: {share} cannot be settled from this trace.{because}"


def coverage(analysis: Analysis) -> tuple[str, ...]:
    """What the trace lacks, one sentence each; empty where it lacks nothing that is known of."""
    found = analysis.coverage
    told = []
    if found.lost_events is None:
        told.append("Events were lost, an unknown number of them.")
    elif found.lost_events:
        told.append(f"{counted(found.lost_events, 'event')} lost.")
    if found.uncertain_ns:
        told.append(f"State is in doubt for {duration(found.uncertain_ns)} of {duration(analysis.trace.to_ns - analysis.trace.from_ns)}.")
    if found.unknown_events:
        named = sorted(found.unknown_events.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{name} ({number:,})" for name, number in named[:5])
        more = f" and {len(named) - 5} more" if len(named) > 5 else ""
        told.append(f"Events that tracetool knows no meaning for: {shown}{more}.")
    return (*told, *found.notes)


def _observed_sentence(analysis: Analysis) -> str:
    empty = why_empty(analysis)
    if empty:
        return empty
    first = rows(analysis)[0]
    kernel = f"The traced kernel ({analysis.trace.kernel})" if analysis.trace.kernel else "The traced kernel"
    found = {
        "defect": f"broke the rules {counted(first.safety.certain, 'time')} for certain",
        "possible": f"may have broken the rules {counted(first.safety.possible, 'time')}",
        "clean": "broke no rule in doing so",
        "inconclusive": "broke no rule that this trace can prove or rule out",
    }[first.safety.standing]
    if analysis.known and analysis.known.findings:
        found = f"but for what was known, {found}"
    decided = f"{counted(first.copies, 'copy', 'copies')} and {counted(first.reuses, 'reuse')} in place"
    return f"{kernel} decided {counted(first.cow_faults, 'COW fault')} with {decided}, and {found}."


def _policies_sentence(analysis: Analysis) -> str:
    by_standing: dict[Standing, list[str]] = {}
    for row in rows(analysis)[1:]:
        by_standing.setdefault(row.safety.standing, []).append(row.name)
    outcome = next((s.outcome for s in analysis.stories if s.policy in by_standing.get("defect", ()) and not s.safe), "")
    clauses = {
        "defect": "{} would have been unsafe with the same accesses",
        "possible": "{} may have been unsafe, which only an access outside the trace could show",
        "clean": "{} would have kept every reference right",
        "inconclusive": "{} cannot be judged from this trace",
    }
    order: tuple[Standing, ...] = ("defect", "possible", "clean", "inconclusive")
    told = []
    for standing in order:
        if names := by_standing.get(standing):
            why = f" ({outcome.rstrip('.')})" if standing == "defect" and outcome else ""
            told.append(clauses[standing].format(listed(names)) + why)
    but = "but for what was known, " if analysis.known and analysis.known.findings else ""
    return but + "; ".join(told) + "."


def _costs_sentence(analysis: Analysis) -> str:
    by_cost: dict[tuple[int, int, int, str], list[str]] = {}
    for p in analysis.policies:
        if p.extra_copies:
            by_cost.setdefault((p.extra_copies, p.extra_bytes, p.extra_ns, p.time), []).append(p.name)
    if not by_cost:
        return "None of them copies more pages than mapcount, which shares the most."
    told = [
        f"{listed(names)} {'copies' if len(names) == 1 else 'copy'} {counted(abs(copies), 'page')} {'more' if copies > 0 else 'fewer'} "
        f"({size(abs(length))}, {duration(abs(ns))} {time})"
        for (copies, length, ns, time), names in by_cost.items()
    ]
    # It copies huge pages as a whole, and is not the thriftiest where there are many.
    most = "" if min(by_cost)[0] < 0 else ", which shares the most"
    return f"Against mapcount{most}, {'; '.join(told)}."
