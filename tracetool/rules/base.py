"""What rules have in common: what they look at, and how a case becomes a finding and a verdict."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from tracetool import schema

_UNPINS: Final = ("unpin_page", "unpin_pages", "unpin_pages_dirty", "unpin_range", "unpin_folio")
#: Interfaces that release their references where a probe of ours sees it, and the probes: where one of them was recorded, a reference
#: that is not released by the end of the trace is still held.
TRACED_RELEASES: Final[Mapping[str, tuple[str, ...]]] = {
    "vmsplice": ("pipe_release",),
    "io_uring": _UNPINS,
    "rdma": _UNPINS,
    "vfio": _UNPINS,
    "af_xdp": _UNPINS,
}


def traced_releases(available: Collection[str]) -> tuple[str, ...]:
    """The interfaces whose releases a trace would show; `available` are the events that it has a format of."""
    return tuple(via for via, probes in TRACED_RELEASES.items() if any(probe in available for probe in probes))


@dataclass(frozen=True)
class Evidence:
    """One replay's tables, as a rule sees them.

    `faults`: `schema.FAULTS` and `unsure` (the state rests on accesses that the trace cannot show); `references`: `schema.REFERENCES` and
    `from_event`, `to_event`, the memory events that bound each (-1: none); `stays`: `schema.OWNERSHIP` and the same two.
    `traced`: the interfaces whose releases the trace would show.
    """

    policy: str
    faults: pl.DataFrame
    references: pl.DataFrame
    stays: pl.DataFrame
    traced: tuple[str, ...] = tuple(TRACED_RELEASES)


@dataclass(frozen=True)
class Rule:
    """`find` gives one row a case, with the columns of `held`; `needs` are the raw events without which nothing can be said.

    `remedy` says what avoids the defect, `remedy_info` what helps where the kernel promised nothing (empty: the same).
    """

    name: str
    title: str
    needs: tuple[str, ...]
    find: Callable[[Evidence], pl.DataFrame]
    remedy: str
    remedy_info: str = ""

    def remedy_of(self, severity: str) -> str:
        """What avoids a finding of that severity."""
        return self.remedy_info if severity == "info" and self.remedy_info else self.remedy

    @property
    def description(self) -> str:
        """What the rule finds and which kernels it is about, in one paragraph: what its file begins with."""
        told = " ".join((inspect.getdoc(sys.modules[self.find.__module__]) or self.title).split())
        return told.removeprefix(f"{self.name}: ")


def outlasts(event: pl.Expr | int) -> pl.Expr:
    """Whether what ends at `to_event` (-1: it does not) is still there after the memory event of row `event`."""
    return (pl.col("to_event") < 0) | (pl.col("to_event") > event)


def held(evidence: Evidence) -> pl.DataFrame:
    """Every decision about a page while a reference to it was held: fault columns, and the reference's with `_ref` after their name.

    A reference is held from the event that takes it to the one that releases it, in the order of the trace.
    """
    return (
        evidence.faults.filter(pl.col("page_before").is_not_null())
        .join(evidence.references, left_on="page_before", right_on="page_id", suffix="_ref", how="inner", maintain_order="left_right")
        .filter(pl.col("from_event") < pl.col("event"), outlasts(pl.col("event")))
    )


def known(evidence: Evidence) -> pl.Expr:
    """Whether the trace proves until when a reference is held: it saw the release, or would have seen it."""
    seen = pl.col("released") == "exact"
    open_still = (pl.col("released") == "unknown") & pl.col("via").is_in(list(evidence.traced))
    return seen | open_still


def known_held(evidence: Evidence) -> pl.Expr:
    """Whether the trace proves that the reference was still held at the fault, and that nothing happened to the page unseen."""
    return known(evidence) & ~pl.col("unsure")


def certainty(proved: pl.Expr) -> pl.Expr:
    """What a case is called by whether the trace proves it."""
    return pl.when(proved).then(pl.lit("certain")).otherwise(pl.lit("possible"))


def frame_named(column: str) -> pl.Expr:
    """A page frame number in a sentence; a frame that only a policy makes has none."""
    return pl.col(column).cast(pl.String).fill_null("(of the policy)")


def findings(rule: Rule, evidence: Evidence) -> pl.DataFrame:
    """The cases of one rule in one replay as `schema.FINDINGS`: one a page, holder and writer: the gravest, most certain, first in time."""
    cases = rule.find(evidence)
    if not cases.height:
        return pl.DataFrame(schema=schema.polars_schema(schema.FINDINGS))
    cases = (
        cases.sort(pl.col("severity") != "defect", pl.col("certainty") != "certain", "ts", "event", maintain_order=True)
        .unique(["page_before", "mm_ref", "address_ref", "mm"], keep="first", maintain_order=True)
        .sort("ts", "event", maintain_order=True)
        .with_row_index("number", offset=1)
    )
    return cases.select(
        id=pl.format("{}-{}@{}", pl.lit(rule.name), "number", pl.lit(evidence.policy)),
        rule=pl.lit(rule.name),
        policy=pl.lit(evidence.policy),
        certainty=pl.col("certainty"),
        severity=pl.col("severity"),
        pid=pl.col("by_pid"),
        comm=pl.col("comm_ref"),
        mm=pl.col("mm_ref"),
        address=pl.col("address_ref"),
        pfn=pl.col("pfn_before"),
        page_id=pl.col("page_before"),
        from_ns=pl.col("ts"),
        to_ns=pl.col("to_ns"),
        by_pid=pl.col("pid"),
        via=pl.col("via"),
        # What a rule does not look at; `tracetool.fingerprints` does.
        area=pl.lit(None),
        call_site=pl.lit(None),
        fingerprint=pl.lit(None),
        summary=pl.col("summary"),
        evidence=pl.concat_list(pl.col("from_event", "event", "to_event").cast(pl.Int64)).list.eval(pl.element().filter(pl.element() >= 0)),
    ).cast(schema.polars_schema(schema.FINDINGS))  # type: ignore[arg-type]


def missing_events(rule: Rule, available: Collection[str]) -> list[str]:
    """The events that a rule needs and the trace has no format of."""
    return [event for event in rule.needs if event not in available]


def lacking(rule: Rule, available: Collection[str], *, lost: bool, implausible: int) -> list[str]:
    """What a trace lacks as a whole, so that a page of it cannot be called clean: events that the rule needs (`available`: those that the
    trace has a format of), what was lost, and what cannot be true (`implausible`: how many records).
    """
    missing = [f"the event {event}" for event in missing_events(rule, available)]
    if lost:
        missing.append("the events that were lost")
    if implausible:
        missing.append(f"records of faults that can be true ({implausible:,} cannot)")
    return missing


def verdict(
    rule: Rule, found: pl.DataFrame, available: Collection[str], *, lost: bool, undetermined: int, implausible: int = 0
) -> tuple[Literal["defect", "clean", "inconclusive"], tuple[str, ...]]:
    """What the trace says of a rule, and what it lacks.

    `clean` is said only when everything that the rule needs was recorded (`available`: events that the trace has a format of), nothing
    was lost, no decision concerned a page older than the trace (`undetermined`), which could be referenced since before, and no record
    cannot be true (`implausible`).
    """
    defects = found.filter(pl.col("severity") == "defect")
    if defects.filter(pl.col("certainty") == "certain").height:
        return "defect", ()
    missing = lacking(rule, available, lost=lost, implausible=implausible)
    if undetermined:
        missing.append(f"what was before it (pages older than the trace: {undetermined:,} decisions)")
    if defects.height:
        missing.append(f"the accesses or releases that would settle possible defects ({defects.height:,})")
    return ("inconclusive", tuple(missing)) if missing else ("clean", ())
