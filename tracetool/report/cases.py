"""What reports for test runners have in common: every policy is a suite, every rule a case that fails, is skipped, or passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from tracetool.analysis import Analysis, Verdict
from tracetool.foreign import printable
from tracetool.report import summary
from tracetool.report.neighbours import Neighbours, neighbours, together
from tracetool.report.words import counted

if TYPE_CHECKING:
    import polars as pl

#: Findings (with their neighbours) that a case lists; it says how many more there are.
FINDINGS_LISTED: Final = 100

_OUTCOMES: Final[Mapping[str, Literal["fail", "skip", "pass"]]] = {"defect": "fail", "inconclusive": "skip", "clean": "pass"}


@dataclass(frozen=True)
class Case:
    """A rule under a policy. Every string is one line that can be printed.

    `why` is of a failed case what was found, of a skipped one what the trace lacks; `lines` tell the findings, also those that are no
    certain defects.
    """

    rule: str
    outcome: Literal["fail", "skip", "pass"]
    why: str
    lines: tuple[str, ...]


def suites(analysis: Analysis) -> dict[str, tuple[Case, ...]]:
    """The cases of each policy, `observed` first, in the order in which they were judged."""
    verdicts: dict[str, list[Verdict]] = {}
    for verdict in analysis.verdicts:
        verdicts.setdefault(verdict.policy, []).append(verdict)
    found = {(str(key[0]), str(key[1])): rows for key, rows in summary.worst_first(analysis).partition_by(
        "policy", "rule", as_dict=True, maintain_order=True
    ).items()}  # fmt: skip
    return {
        printable(policy): tuple(_case(verdict, found.get((policy, verdict.rule))) for verdict in judged)
        for policy, judged in verdicts.items()
    }


def _case(verdict: Verdict, found: pl.DataFrame | None) -> Case:
    outcome = _OUTCOMES[verdict.verdict]
    why = ""
    if outcome == "skip":
        why = f"missing: {'; '.join(verdict.missing)}" if verdict.missing else "the trace cannot tell"
    elif outcome == "fail":
        certain = 0 if found is None else found.filter(certainty="certain", severity="defect").height
        why = f"{counted(certain, 'certain defect')} under {verdict.policy}"
    return Case(printable(verdict.rule), outcome, printable(why), () if found is None else tuple(map(printable, _lines(found))))


def _lines(found: pl.DataFrame) -> list[str]:
    rows = together(found)
    lines = [_line(each) for each in neighbours(rows.head(FINDINGS_LISTED))]
    if rows.height > FINDINGS_LISTED:
        lines.append(f"showing {FINDINGS_LISTED} of {rows.height:,}; --json has all")
    remedy = summary.remedy(found["rule"][0], found["severity"][0])
    return [*lines, *([f"remedy: {remedy}"] if remedy else [])]


def _line(each: Neighbours) -> str:
    fingerprints = f" [{', '.join(each.fingerprints)}]" if each.fingerprints else ""
    return f"{each.first['certainty']} {each.first['severity']} {each.name}: {each.told}{fingerprints}"
