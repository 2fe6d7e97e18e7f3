"""From a trace to an Analysis: replay as observed and under each policy, judge by the rules, count the costs, tell the story."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

import polars as pl

from tracetool.analysis import Analysis, Coverage, Known, PolicyResult
from tracetool.baseline import Baseline
from tracetool.costs import SHARES_MOST, Cost, cost
from tracetool.fingerprints import with_fingerprints
from tracetool.judging import found as found_in
from tracetool.judging import traced, verdicts
from tracetool.policies import POLICIES, Policy, policy
from tracetool.probes import BY_EVENT
from tracetool.processes import RECORDERS
from tracetool.progress import stage
from tracetool.replay import OBSERVED
from tracetool.stories import lacking, settled, tell
from tracetool.trace import Trace
from tracetool.trace import open as open_trace


def analyse(trace: Trace | str | os.PathLike[str], policies: Iterable[Policy] | None = None, baseline: Baseline | None = None) -> Analysis:
    """Replay a trace as observed and under policies, and say what follows.

    Args:
        trace: a trace, or the file of one.
        policies: those to replay under, besides what was observed; None: all that there are.
        baseline: the findings of an earlier run; findings and verdicts are then about what it does not have. Stories tell all.

    Raises:
        TraceError: the file cannot be read.

    Example:
        >>> import tracetool
        >>> from tracetool.policies import policy
        >>> analysis = tracetool.analyse("fixtures/mail-6.1.dat", [policy("page-count"), policy("exclusive")])
        >>> [(result.name, result.copies) for result in analysis.policies]
        [('page-count', 11), ('exclusive', 11)]
    """
    if not isinstance(trace, Trace):
        trace = open_trace(trace)
    decided = [trace.decided_by(p) for p in (POLICIES.values() if policies is None else policies)]
    # Several names may stand for one policy.
    asked = list({p.name: p for p in decided}.values())
    replays = [trace.replay(OBSERVED), *(trace.replay(p) for p in asked)]
    events = len(trace.history.events)
    with stage("applying the rules", events, "events"):
        found = with_fingerprints(pl.concat([found_in(trace, replay) for replay in replays]), replays, trace)
    with stage("telling stories", events, "events"):
        lacks = lacking(trace)
        stories = tuple(settled(story, lacks) for story in tell(replays, found))
    known = None
    if baseline:
        everything, found = found, baseline.new(found)
        known = Known(baseline.path, everything.height - found.height, everything)
    rows = [row for rows in found["evidence"].to_list() for row in rows]
    rows += [row for story in stories for step in story.steps for row in step.evidence]
    with stage("counting costs", events, "events"):
        costs = {replay.policy: cost(replay) for replay in replays}
    return Analysis(
        trace=traced(trace),
        coverage=_coverage(trace),
        observed={name: getattr(costs[OBSERVED], name) for name in _OBSERVED},
        policies=_results(trace, asked, costs),
        verdicts=tuple(verdict for replay in replays for verdict in verdicts(trace, replay, found)),
        findings=found,
        evidence=trace.history.events.evidence(rows),
        stories=stories,
        replays={replay.policy: replay for replay in replays},
        known=known,
        kernel=trace.kernel,
        observed_peak=costs[OBSERVED].peak_pages,
        recorded=trace,
        names=_names(trace),
    )


_OBSERVED: Final = ("cow_faults", "copies", "reuses", "early_copies", "zero_fills", "unshares", "splits")


def _results(trace: Trace, asked: Sequence[Policy], costs: Mapping[str, Cost]) -> tuple[PolicyResult, ...]:
    base = costs.get(SHARES_MOST) or cost(trace.replay(policy(SHARES_MOST)))
    results = []
    for decided, agreement in zip(asked, trace.agreements(asked), strict=True):
        own = costs[decided.name]
        extra_copies, extra_bytes, extra_ns = own.beyond(base)
        results.append(
            PolicyResult(
                name=decided.name,
                checked_on=decided.checked_on,
                extra_copies=extra_copies,
                extra_bytes=extra_bytes,
                extra_ns=extra_ns,
                time="assumed",
                agreement=agreement,
                **asdict(own),
            )
        )
    return tuple(results)


def _names(trace: Trace) -> tuple[str, ...]:
    """All names that threads ever had: those of processes, and what renaming and the recorder itself said."""
    named = set(trace.processes["comm"].drop_nulls()) | set(trace.raw.metadata.cmdlines.values())
    renamed = trace.raw.formats().get("task_rename")
    for field in ("oldcomm", "newcomm"):
        if renamed is not None and trace.raw.counts().get("task_rename") and any(each.name == field for each in renamed.fields):
            named |= {str(name) for name in trace.raw.table("task_rename", [field])[field].to_pylist() if name}
    return tuple(sorted(filter(None, named)))


def _coverage(trace: Trace) -> Coverage:
    raw, history = trace.raw, trace.history
    lost = pl.from_arrow(raw.losses)
    assert isinstance(lost, pl.DataFrame)
    counts = raw.counts()
    own_records = {name for name, event in raw.formats().items() if event.system == "perf"}
    notes = [*raw.metadata.notes, *trace.history.events.notes]
    own = trace.replay(OBSERVED).undetermined.filter(pl.col("comm").is_in(RECORDERS)).height
    if own:
        notes.append(f"not judged: COW decisions of the recorder itself on pages older than the trace ({own})")
    if implausible := history.events.implausible:
        notes.append(
            f"records of faults that cannot be true, by their addresses or flags: {implausible:,}; are the offsets of the probes those of "
            "this kernel?"
        )
    if history.unknown_unmaps:
        notes.append(f"unmaps of pages whose mapping the trace does not show: {history.unknown_unmaps}")
    if history.healed:
        notes.append(f"mappings whose end the trace does not show: {history.healed}")
    first, last = raw.span() or (0, 0)
    return Coverage(
        lost_events=None if lost["events"].null_count() else int(lost["events"].sum()),
        uncertain_ns=last - min([last, *lost["from_ns"].fill_null(first).to_list()]),
        # Records of perf itself (mmap, comm, fork) are no events of the kernel's memory management.
        unknown_events={name: number for name, number in counts.items() if name not in BY_EVENT and name not in own_records},
        notes=tuple(notes),
    )
