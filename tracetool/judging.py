"""What the rules find in one replay of a trace, for verbs that need no whole analysis."""

from __future__ import annotations

import polars as pl

from tracetool import schema
from tracetool.analysis import TraceInfo
from tracetool.errors import UnknownName
from tracetool.policies import POLICIES
from tracetool.replay import OBSERVED, Replay
from tracetool.rules import RULES, findings
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


def traced(trace: Trace) -> TraceInfo:
    """What was traced."""
    metadata = trace.raw.metadata
    first, last = trace.raw.span() or (0, 0)
    events = sum(trace.raw.counts().values())
    return TraceInfo(metadata.path, metadata.format, metadata.kernel, metadata.clock, metadata.cpus, events, first, last)
