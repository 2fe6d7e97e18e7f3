"""The report for programs: one JSON object, described in the documentation under `replay --json`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tracetool.analysis import Analysis, Held, Kernel, RecordedDecision, Stay, Step, Story
from tracetool.report.summary import remedy
from tracetool.schema import FINDINGS, SCHEMA_VERSION

_OBSERVED = ("cow_faults", "copies", "reuses", "early_copies", "zero_fills", "unshares", "splits")
_POLICY = (
    "name", "checked_on", "cow_faults", "copies", "reuses", "early_copies", "unshares", "zero_fills",
    "extra_copies", "extra_bytes", "extra_ns", "time", "peak_pages",
)  # fmt: skip
_AGREEMENT = ("faults", "same", "undetermined", "contested", "contested_same")


def render(analysis: Analysis) -> str:
    """`to_dict` as indented JSON in ASCII, ending in a line break."""
    return json.dumps(to_dict(analysis), indent=2, allow_nan=False) + "\n"


def to_dict(analysis: Analysis) -> dict[str, Any]:
    """Everything that a report says, as values that JSON knows: times in ns on the trace's clock, addresses as hexadecimal strings.

    Keys stay as they are while `schema_version` does; new ones may come. `baseline` is there only where findings were compared with one.
    Strings of the trace are given as they were recorded.
    """
    trace, coverage, known = analysis.trace, analysis.coverage, analysis.known
    return {
        "schema_version": SCHEMA_VERSION,
        **({"baseline": {"path": known.path, "known": known.findings}} if known else {}),
        "trace": _fields(trace, ("path", "format", "kernel", "clock", "cpus", "events", "from_ns", "to_ns")),
        "coverage": {
            "lost_events": coverage.lost_events,
            "uncertain_ns": coverage.uncertain_ns,
            "unknown_events": dict(coverage.unknown_events),
            "notes": list(coverage.notes),
        },
        "observed": {key: analysis.observed.get(key, 0) for key in _OBSERVED},
        "policies": [_fields(p, _POLICY) | {"agreement": _fields(p.agreement, _AGREEMENT)} for p in analysis.policies],
        "kernel": _kernel(analysis.kernel) if analysis.kernel else None,
        "verdicts": [{"rule": v.rule, "policy": v.policy, "verdict": v.verdict, "missing": list(v.missing)} for v in analysis.verdicts],
        "findings": [_finding(analysis, row) for row in analysis.findings.select(list(FINDINGS)).iter_rows(named=True)],
        "stories": [_story(analysis, story) for story in analysis.stories],
    }


def _kernel(kernel: Kernel) -> dict[str, Any]:
    """Which policy the traced kernel had, what tells it from the next, and every decision that it would have made otherwise."""
    return {
        **_fields(kernel, ("policy", "runner_up", "telling", "release", "expected", "text")),
        "agreement": _fields(kernel.agreement, _AGREEMENT),
        "undetermined": dict(kernel.agreement.reasons),
        "told_by": [_decision(each) for each in kernel.told_by],
        "disagreements": [_decision(each) for each in kernel.disagreements],
    }


def _decision(decision: RecordedDecision) -> dict[str, Any]:
    return _fields(decision, ("ts", "tid", "copied", "because")) | {"address": hex(decision.address)}


def _finding(analysis: Analysis, row: dict[str, Any]) -> dict[str, Any]:
    address = row["address"]
    return row | {
        "address": None if address is None else hex(address),
        "evidence": _evidence(analysis, row["evidence"] or ()),
        "remedy": remedy(row["rule"], row["severity"]),
    }


def _evidence(analysis: Analysis, events: Iterable[int]) -> list[dict[str, Any]]:
    found = (analysis.evidence[event] for event in events if event in analysis.evidence)
    return [{"event": event, "ts": ts, "row": row} for event, ts, row in found]


def _story(analysis: Analysis, story: Story) -> dict[str, Any]:
    return {
        "title": story.title,
        "policy": story.policy,
        "address": hex(story.address),
        "owners": dict(story.owners),
        "pages": dict(story.pages),
        "stays": [_fields(stay, tuple(Stay.__dataclass_fields__)) for stay in story.stays],
        "references": [_fields(held, tuple(Held.__dataclass_fields__)) for held in story.references],
        "steps": [_step(analysis, step) for step in story.steps],
        "outcome": story.outcome,
        "safe": story.safe,
        "settled": story.settled,
    }


def _step(analysis: Analysis, step: Step) -> dict[str, Any]:
    return _fields(step, ("ts", "owner", "act", "page", "text")) | {"evidence": _evidence(analysis, step.evidence)}


def _fields(record: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}
