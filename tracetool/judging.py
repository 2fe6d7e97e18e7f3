"""What the rules find in one replay of a trace, for verbs that need no whole analysis."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from tracetool import schema
from tracetool.analysis import TraceInfo, Verdict
from tracetool.errors import UnknownName
from tracetool.policies import POLICIES
from tracetool.processes import RECORDERS
from tracetool.replay import OBSERVED, Replay
from tracetool.rules import RULES, findings, verdict
from tracetool.stories import evidence_of
from tracetool.trace import Trace


def replayed(trace: Trace, name: str) -> Replay:
    """The replay of that name, `observed` or a policy's; raises UnknownName, which lists them."""
    try:
        return trace.replay(name)
    except UnknownName:
        raise UnknownName("policy", name, [OBSERVED, *POLICIES]) from None


def found(trace: Trace, replay: Replay) -> pl.DataFrame:
    """What all rules find in one replay, as `schema.FINDINGS` (but for fingerprints), with the ids that an analysis gives."""
    evidence = evidence_of(replay, trace.raw.formats())
    empty = pl.DataFrame(schema=schema.polars_schema(schema.FINDINGS))
    return pl.concat([empty, *(findings(rule, evidence) for rule in RULES.values())])


def verdicts(trace: Trace, replay: Replay, findings: pl.DataFrame) -> Iterator[Verdict]:
    """What a trace says of each rule under one replay; `findings` are what the rules found there, and may be of other replays, too.

    What the recorder itself did on pages older than the trace is not judged.
    """
    undetermined = trace.replay(OBSERVED).undetermined.filter(~pl.col("comm").is_in(RECORDERS)).height
    available, lost = trace.raw.formats().keys(), trace.raw.losses.num_rows > 0
    implausible = trace.history.events.implausible
    for rule in RULES.values():
        cases = findings.filter(pl.col("policy") == replay.policy, pl.col("rule") == rule.name)
        said, missing = verdict(rule, cases, available, lost=lost, undetermined=undetermined, implausible=implausible)
        yield Verdict(rule.name, replay.policy, said, missing)


def traced(trace: Trace) -> TraceInfo:
    """What was traced."""
    metadata = trace.raw.metadata
    first, last = trace.raw.span() or (0, 0)
    events = sum(trace.raw.counts().values())
    return TraceInfo(metadata.path, metadata.format, metadata.kernel, metadata.clock, metadata.cpus, events, first, last)
