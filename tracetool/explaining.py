"""One finding explained: the story of its page, who holds what, what either side sees, how sure that is, and the records it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from tracetool.analysing import analyse
from tracetool.analysis import Step, Story, TraceInfo
from tracetool.errors import Unanswerable, UnknownEvent, Unusable
from tracetool.fingerprints import with_fingerprints
from tracetool.harms import harm, sides
from tracetool.judging import found, replayed, traced
from tracetool.memory_events import Op
from tracetool.policies import policy as policy_named
from tracetool.probes import BY_EVENT
from tracetool.records import Record, records
from tracetool.replay import OBSERVED, Replay
from tracetool.rules import RULES
from tracetool.rules.base import TRACED_RELEASES, outlasts, traced_releases
from tracetool.stories import lacking, settled, tell_page
from tracetool.telling import Holding, Teller, Telling
from tracetool.trace import Trace

#: A family with more rows is told around the finding.
MOST_ROWS: Final = 40


@dataclass(frozen=True)
class Doubt:
    """Why a finding is only possible, and which event, had the trace it, would settle that."""

    why: str
    settles: str


@dataclass(frozen=True)
class Explanation:
    """A finding, told. Times are in ns on the trace's clock; letters and P0, P1... are those of `story`, `people` says who they are.

    `area`, `call_site` and `fingerprint` are those of `schema.FINDINGS`. `act` is the step that makes it unsafe, `observed` the story of
    the same page as the traced kernel had it (None where that is what is explained). `holdings`: who holds what once it is unsafe; `harm`:
    what is wrong, in a sentence; `sides`: what either side sees; `doubts`: empty where it is certain. `bystanders` are other address
    spaces that map the page then. `records` prove the finding, `background` the other steps of the story, of which `left_out` rows are
    not told.
    """

    trace: TraceInfo
    id: str
    rule: str
    title: str
    policy: str
    certainty: str
    severity: str
    summary: str
    remedy: str
    address: int
    from_ns: int
    to_ns: int | None
    area: str
    call_site: str
    fingerprint: str
    story: Story
    people: Mapping[str, str]
    act: Step | None
    observed: Story | None
    holdings: tuple[Holding, ...]
    bystanders: int
    harm: str
    sides: tuple[str, ...]
    doubts: tuple[Doubt, ...]
    records: tuple[Record, ...]
    background: tuple[Record, ...]
    left_out: int


def explain(trace: Trace, name: str, policy: str | None = None) -> Explanation:
    """Explain the finding of that id (`missed-cow-1@mapcount`); without `@`, of `policy` (None: observed).

    Raises:
        Unusable: the id is of another policy than `policy`.
        UnknownName: there is no such policy.
        UnknownEvent: there is no such finding; the hint lists those that there are.
        Unanswerable: there are no findings under that policy at all; the hint says why.
    """
    bare, at, of = name.partition("@")
    if at and policy is not None and policy != of:
        raise Unusable(f"the finding {name!r} is not of policy {policy!r}", hint=f"leave --policy out, or write {bare}@{policy}")
    replay = replayed(trace, of if at else policy or OBSERVED)
    findings = found(trace, replay)
    # A policy may have other names, too, as that of a kernel version has.
    rows = findings.filter(pl.col("id") == f"{bare}@{replay.policy}")
    if not rows.height:
        raise _unknown(trace, f"{bare}@{replay.policy}", replay.policy, findings)
    if rows["page_id"][0] is None or not rows["evidence"].list.len()[0]:
        path = trace.raw.metadata.path
        raise Unanswerable(f"{rows['id'][0]} is about no page that the trace knows", path=path, hint=f"it says: {rows['summary'][0]}")
    if replay.policy != OBSERVED:
        findings = pl.concat([found(trace, trace.replay(OBSERVED)), findings])
    return explained(trace, replay, findings, with_fingerprints(rows, [replay], trace).row(0, named=True))


def explained(trace: Trace, replay: Replay, findings: pl.DataFrame, finding: Mapping[str, Any]) -> Explanation:
    """Explain one row of `findings`, which are those of `replay` and of the observed one: their stories tell all harm to the page.

    The row is about a page, has evidence and its fingerprint.
    """
    return _Explainer(trace, replay, findings, finding).explanation()


def _unknown(trace: Trace, name: str, policy: str, findings: pl.DataFrame) -> UnknownEvent | Unanswerable:
    path = trace.raw.metadata.path
    if findings.height:
        return UnknownEvent.among("finding", name, findings["id"].to_list(), path=path)
    asked = [] if policy == OBSERVED else [policy_named(policy)]
    said = [v for v in analyse(trace, asked).verdicts if v.policy == policy]
    lacks = sorted({what for v in said if v.verdict == "inconclusive" for what in v.missing})
    why = f"the trace cannot tell; it lacks {'; '.join(lacks)}" if lacks else f"every rule is clean: {', '.join(v.rule for v in said)}"
    hint = f"{why}; tracetool replay lists the findings under all policies"
    return Unanswerable(f"no finding {name!r}: there are none under {policy!r}", path=path, hint=hint)


class _Explainer:
    """Explains one row of the findings."""

    def __init__(self, trace: Trace, replay: Replay, findings: pl.DataFrame, finding: Mapping[str, Any]) -> None:
        self._trace, self._replay, self._finding = trace, replay, finding
        self._rows = [int(row) for row in finding["evidence"] or ()]
        self._reference = self._found(replay.reference_rows.filter(pl.col("from_event").is_in(self._rows)), "page_id", "address", "mm")
        self._act = self._event_of_act()
        self._fault = self._found(replay.fault_rows.filter(pl.col("event") == self._act), "page_before")
        replays = [replay] if replay.policy == OBSERVED else [trace.replay(OBSERVED), replay]
        tellers = tell_page(replays, findings, finding["page_id"], self._act, self._parties(), MOST_ROWS)
        self._teller: Teller = tellers[-1]
        self._telling: Telling = tellers[-1].telling()
        self._lacks = lacking(trace)
        self._observed = settled(tellers[0].telling().story, self._lacks) if len(tellers) > 1 else None

    def _found(self, rows: pl.DataFrame, page: str, *same: str) -> dict[str, Any] | None:
        """The row about the finding's page, and alike in those columns."""
        wanted = [pl.col(page) == self._finding["page_id"], *(pl.col(name) == self._finding[name] for name in same)]
        rows = rows.filter(*wanted)
        return rows.row(0, named=True) if rows.height else None

    def _event_of_act(self) -> int:
        """The memory event of what makes it unsafe: that of the evidence which happened then, if not the taking of the reference itself."""
        ts = self._trace.history.events.ts
        then = [row for row in self._rows if ts[row] == self._finding["from_ns"]]
        taken = self._reference["from_event"] if self._reference else -1
        return next((row for row in [*then, *self._rows] if row != taken), taken)

    def _parties(self) -> list[int]:
        """The address spaces that the finding is about: the reference's, the one that acts, and whom it shares the page with by this."""
        page = self._replay.stays.filter(pl.col("page_id") == self._finding["page_id"])
        by = page.filter((pl.col("pid") == self._finding["by_pid"]) | (pl.col("began") == "fork") & pl.col("from_event").is_in(self._rows))
        acting = [] if self._fault is None else [self._fault["mm"]]
        return list(dict.fromkeys([self._finding["mm"], *acting, *by["mm"].to_list()]))

    def explanation(self) -> Explanation:
        """All of it."""
        finding, story = self._finding, settled(self._telling.story, self._lacks)
        rule, cast = RULES[finding["rule"]], self._teller.cast(finding)
        roles = {row: self._role(row) for row in self._rows}
        page = self._telling.names.get(finding["page_id"])
        holdings = self._teller.holdings(self._pages(), self._settled())
        proof = records(self._trace, roles, partners=True)
        steps = {row: step.text for step in story.steps for row in step.evidence if row not in roles}
        others = records(self._trace, steps, partners=True)
        return Explanation(
            trace=traced(self._trace),
            id=finding["id"],
            rule=rule.name,
            title=rule.title,
            policy=finding["policy"],
            certainty=finding["certainty"],
            severity=finding["severity"],
            summary=finding["summary"] or "",
            remedy=rule.remedy_of(finding["severity"]),
            address=finding["address"],
            from_ns=int(self._trace.history.events.ts[self._act]) if finding["from_ns"] is None else finding["from_ns"],
            to_ns=finding["to_ns"],
            area=finding["area"] or "unknown",
            call_site=finding["call_site"] or "unknown",
            fingerprint=finding["fingerprint"] or "",
            story=story,
            people=self._telling.people,
            act=self._step_of_act(),
            observed=self._observed,
            holdings=holdings,
            bystanders=self._mappers() - len({holding.owner for holding in holdings if holding.what == "maps" and holding.page == page}),
            harm=harm(finding, cast),
            sides=sides(finding, cast),
            doubts=tuple(self._doubts()) if finding["certainty"] != "certain" else (),
            records=proof,
            background=tuple(record for record in others if (record.event, record.row) not in {(each.event, each.row) for each in proof}),
            left_out=self._telling.left_out,
        )

    def _step_of_act(self) -> Step | None:
        steps = [step for step in self._telling.story.steps if self._act in step.evidence]
        page = self._telling.names.get(self._finding["page_id"])
        about = [step for step in steps if page in (step.page, None) or (page or "") in step.text]
        return next(iter(about or steps), None)

    def _pages(self) -> list[int]:
        """The page of the reference, and the one that the act gave instead."""
        after = self._fault["page_after"] if self._fault else None
        return [self._finding["page_id"], *([] if after is None else [after])]

    def _mappers(self) -> int:
        """How many address spaces map the page once the act has taken effect."""
        event = self._settled()
        there = self._replay.stays.filter(pl.col("page_id") == self._finding["page_id"], pl.col("from_event") <= event, outlasts(event))
        return there["mm"].n_unique()

    def _settled(self) -> int:
        """The memory event by which the act has taken effect: of a copy the one that maps it."""
        if self._fault and self._fault["page_after"] not in (None, self._fault["page_before"]):
            mapped = self._replay.stays.filter(
                pl.col("page_id") == self._fault["page_after"], pl.col("mm") == self._fault["mm"], pl.col("from_event") >= self._act
            )
            return int(mapped["from_event"][0]) if mapped.height else self._act
        return self._act

    def _role(self, row: int) -> str:
        if self._reference and row == self._reference["from_event"]:
            return "the reference is taken"
        if self._reference and row == self._reference["to_event"]:
            return "it is released" if self._reference["released"] == "exact" else "it is released by then"
        if row != self._act:
            return "what goes with it"
        operation = Op(int(self._trace.history.events.op[row]))
        return {Op.COW_BEGIN: "the store", Op.FORK_RANGE: "fork shares the page", Op.MPROTECT: "stores are allowed again"}.get(
            operation, "what makes it unsafe"
        )

    def _doubts(self) -> Iterator[Doubt]:
        """What the trace does not prove, in the order of the rules: the reference, then the store."""
        if self._reference and (doubt := self._doubt_of_release(self._reference)):
            yield doubt
        if self._fault and self._fault["unsure"]:
            yield self._doubt_of_store(self._fault)
        elif self._fault and not self._reference:
            why = "What held the page when it was copied, no event tells."
            yield Doubt(why, "A record of what held it: a reference, the swap cache, an LRU batch, or its lock.")

    def _doubt_of_release(self, reference: Mapping[str, Any]) -> Doubt | None:
        via, released = reference["via"], reference["released"]
        formats = self._trace.raw.formats()
        if released == "exact" or (released == "unknown" and via in traced_releases(formats)):
            return None
        when = "it may have been released before" if released == "at-latest" else "whether it still was held then, no record says"
        probes = [f"{name} (probe {BY_EVENT[name].site})" for name in TRACED_RELEASES.get(via, ())]
        recorded = [name for name in TRACED_RELEASES.get(via, ()) if name in formats]
        if via == "other":
            settles = "a record of the system call that took it, which tells by what it is held, and of its release"
        elif not probes:
            settles = f"a record of the release of references by {via}, for which tracetool knows no event"
        elif recorded:
            settles = f"a release of this very page: {' or '.join(recorded)}, which this trace has for others"
        else:
            settles = f"the release: {' or '.join(probes)}, which this trace does not record"
        taken = "of an unknown interface" if via == "other" else via
        return Doubt(f"The end of the reference ({taken}) is not known exactly: {when}.", f"{settles[0].upper()}{settles[1:]}.")

    def _doubt_of_store(self, fault: Mapping[str, Any]) -> Doubt:
        owner, at = self._telling.letters.get(fault["mm"], "the process"), f"{fault['address']:#x}"
        watch = f"a write watchpoint (perf record -e mem:{at}:w)"
        if fault["decision"] == "unseen":
            until = "" if self._finding["to_ns"] is None else " and before the reference is released"
            return Doubt(
                f"The traced kernel let {owner} write there without a fault, so no record says whether it did.",
                f"A store of {owner} to {at} after this{until}: {watch}, or a recording on a kernel that faults there.",
            )
        return Doubt(
            "The traced kernel left a mapping of this page writable that the policy would have write-protected: stores through it would "
            "have been decided about before, and are not in the trace.",
            f"Any store to the page before this: {watch}, or a recording on a kernel that shares pages as the policy does.",
        )
