"""From a trace to an Analysis: replay as observed and under each policy, judge by the rules, count the costs, tell the story."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

import numpy as np
import polars as pl

from tracetool import schema
from tracetool.agreement import agreements
from tracetool.analysis import Analysis, Coverage, PolicyResult, TraceInfo, Verdict
from tracetool.costs import SHARES_MOST, Cost, cost
from tracetool.memory_events import Op
from tracetool.memory_events import codes as c
from tracetool.policies import POLICIES, Policy, policy
from tracetool.probes import BY_EVENT
from tracetool.processes import RECORDERS
from tracetool.replay import OBSERVED, Replay
from tracetool.replay import columns as k
from tracetool.rules import RULES, findings, verdict
from tracetool.stories import evidence_of, tell
from tracetool.trace import Trace
from tracetool.trace import open as open_trace


def analyse(trace: Trace | str | os.PathLike[str], policies: Iterable[Policy] | None = None) -> Analysis:
    """Replay a trace (or the file of one) as observed and under `policies` (None: all that there are), and say what follows."""
    if not isinstance(trace, Trace):
        trace = open_trace(trace)
    asked = list(POLICIES.values()) if policies is None else list(policies)
    replays = [trace.replay(OBSERVED), *(trace.replay(p) for p in asked)]
    found = pl.concat(
        [pl.DataFrame(schema=schema.polars_schema(schema.FINDINGS))]
        + [findings(rule, evidence_of(replay, trace.raw.formats())) for replay in replays for rule in RULES.values()]
    )
    stories = tell(replays, found)
    rows = [row for rows in found["evidence"].to_list() for row in rows]
    rows += [row for story in stories for step in story.steps for row in step.evidence]
    costs = {replay.policy: cost(replay) for replay in replays}
    return Analysis(
        trace=_info(trace),
        coverage=_coverage(trace),
        observed={name: getattr(costs[OBSERVED], name) for name in _OBSERVED},
        policies=_results(trace, asked, costs),
        verdicts=_verdicts(trace, replays, found),
        findings=found,
        evidence=trace.history.events.evidence(rows),
        stories=stories,
        replays={replay.policy: replay for replay in replays},
    )


_OBSERVED: Final = ("cow_faults", "copies", "reuses", "early_copies", "zero_fills", "unshares", "splits")


def _results(trace: Trace, asked: Sequence[Policy], costs: Mapping[str, Cost]) -> tuple[PolicyResult, ...]:
    base = costs.get(SHARES_MOST) or cost(trace.replay(policy(SHARES_MOST)))
    results = []
    for decided, agreement in zip(asked, agreements(trace.history, asked), strict=True):
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


def _verdicts(trace: Trace, replays: Sequence[Replay], found: pl.DataFrame) -> tuple[Verdict, ...]:
    unknown = replays[0].undetermined
    undetermined = unknown.filter(~pl.col("comm").is_in(RECORDERS)).height
    available = trace.raw.formats().keys()
    lost = trace.raw.losses.num_rows > 0
    unasked = _beyond(trace)
    verdicts = []
    for replay in replays:
        beyond = [] if replay.policy == OBSERVED else unasked
        for rule in RULES.values():
            cases = found.filter(pl.col("policy") == replay.policy, pl.col("rule") == rule.name)
            said, missing = verdict(rule, cases, available, lost=lost, undetermined=undetermined, beyond=beyond)
            verdicts.append(Verdict(rule.name, replay.policy, said, missing))
    return tuple(verdicts)


def _beyond(trace: Trace) -> list[str]:
    """What happened in the trace that this version does not replay under policies."""
    events = trace.history.events
    missing = []
    if ((events.op == int(Op.COW_BEGIN)) & (events.flags & c.HUGE != 0)).any():
        missing.append("decisions of policies about huge pages, which this version has not")
    # Mapping again what is mapped there, as the split of a huge page does, is no step.
    steps = trace.history.steps
    stepped = events.op[steps[steps[:, k.H_EVENT] >= 0, k.H_EVENT]]
    if np.isin(stepped, [int(Op.MAP_AGAIN), int(Op.SWAP_OUT)]).any():
        missing.append("decisions of policies about swapped and merged (KSM) pages, which this version has not")
    return missing


def _info(trace: Trace) -> TraceInfo:
    metadata = trace.raw.metadata
    first, last = trace.raw.span() or (0, 0)
    events = sum(trace.raw.counts().values())
    return TraceInfo(metadata.path, metadata.format, metadata.kernel, metadata.clock, metadata.cpus, events, first, last)


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
