"""Hand-made analyses: the example of the mail of August 2020, and the same with foreign or large contents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl

from tracetool.analysis import (
    Agreement,
    Analysis,
    Coverage,
    Held,
    Kernel,
    PolicyResult,
    RecordedDecision,
    Stay,
    Step,
    Story,
    TraceInfo,
    Verdict,
)  # fmt: skip
from tracetool.schema import FINDINGS, RULES, polars_schema

START = 6_479_130_000
ADDRESS = 0x7FEEBE8D4000
FORK, TAKE, A_WRITES, B_WRITES, RELEASE, B_EXITS, A_EXITS = (START + us * 1000 for us in (1_352, 4_251, 4_996, 5_936, 6_317, 6_830, 8_908))
EVIDENCE = {
    10: ("anon_new", START, 40),
    20: ("fork_range", FORK, 4),
    30: ("gup_grab", TAKE, 2),
    40: ("cow_fault", A_WRITES, 11),
    50: ("cow_fault", B_WRITES, 13),
    60: ("pipe_release", RELEASE, 0),
}
SAFE = "A's reference reads what P0 held when it was taken; A, B and the reference each have a page of their own."
LEAK = "A's reference reads what B wrote into P0 after the fork."


def story(policy: str, copies: bool) -> Story:
    """The mail's example; `copies`: B's write copies P0 to P2, else it reuses P0."""
    write = (
        Step(B_WRITES, "B", "copy", "P2", "B writes: P0 is referenced, so it is copied to P2. Only A's reference keeps P0.", (50,))
        if copies
        else Step(B_WRITES, "B", "reuse", "P0", "B writes: only B maps P0, so it is reused in place, though A's reference reads it.", (50,))
    )
    b_stays = (
        (Stay("B", "P0", FORK, B_WRITES, "fork", "copied"), Stay("B", "P2", B_WRITES, B_EXITS, "copy", "exit"))
        if copies
        else (Stay("B", "P0", FORK, B_EXITS, "fork", "exit"),)
    )
    pages = {"P0": "frame 0x259e", "P1": "frame 0x7f1d6"}
    if copies:
        pages["P2"] = "frame 0x3e03" if policy == "observed" else "a frame that only this policy makes"
    return Story(
        title="One page, two owners, one reference",
        policy=policy,
        address=ADDRESS,
        owners={"A": "cowlab 115", "B": "cowlab 116"},
        pages=pages,
        stays=(
            Stay("A", "P0", START, A_WRITES, "touch", "copied"),
            Stay("A", "P1", A_WRITES, A_EXITS, "copy", "exit"),
            *b_stays,
        ),
        references=(Held("A", "P0", TAKE, RELEASE, "get", "read", "vmsplice", "exact"),),
        steps=(
            Step(START, "A", "map", "P0", "A writes for the first time: P0 is new and A's alone.", (10,)),
            Step(FORK, "A", "fork", "P0", "A forks B: both map P0, write-protected.", (20,)),
            Step(TAKE, "A", "reference", "P0", "A takes a read reference to P0 (vmsplice).", (30,)),
            Step(A_WRITES, "A", "copy", "P1", "A writes: B maps P0 too, so it is copied to P1. The reference keeps P0.", (40,)),
            write,
            Step(RELEASE, "A", "release", "P0", "A's reference to P0 is released.", (60,)),
            Step(B_EXITS, "B", "exit", "P2" if copies else "P0", "B exits."),
            Step(A_EXITS, "A", "exit", "P1", "A exits."),
        ),
        outcome=SAFE if copies else LEAK,
        safe=copies,
    )


def policy(name: str, copies: int, reuses: int) -> PolicyResult:
    """A policy that decides five faults; mapcount decides two of them by a copy."""
    extra = copies - 2
    return PolicyResult(
        name=name, checked_on="5.10, 6.1, 6.12, 7.2", cow_faults=5, copies=copies, reuses=reuses, early_copies=0, unshares=0, zero_fills=1,
        splits=0,
        extra_copies=extra, extra_bytes=extra * 4096, extra_ns=extra * 2000, time="assumed", peak_pages=17 + extra,
        agreement=Agreement(faults=5, same=5 - (extra == 0), undetermined=0, contested=1, contested_same=int(extra > 0)),
    )  # fmt: skip


def kernel(**changes: Any) -> Kernel:
    """Which policy the mail's kernel had: B's write tells, which copied a page that only a reference still held."""
    told = RecordedDecision(B_WRITES, 116, ADDRESS, copied=True, because="reference", event=50)
    older = {"the page is older than the trace": 2}
    found = Kernel(
        policy="page-count", agreement=Agreement(5, 5, 2, 1, 1, older), runner_up="mapcount",
        runner_up_agreement=Agreement(5, 4, 2, 1, 0, older), told_by=(told,), telling=1, release="5.10.0-35-amd64", expected="page-count",
        disagreements=(),
    )  # fmt: skip
    return replace(found, **changes)


def finding(number: int = 1, **changes: Any) -> dict[str, Any]:
    """The mail's finding, or another one made from it."""
    return {
        "id": f"F{number}", "rule": "missed-cow", "policy": "mapcount", "certainty": "certain", "severity": "defect",
        "pid": 115, "comm": "cowlab", "mm": 3, "address": ADDRESS, "pfn": 0x259E, "page_id": 40, "from_ns": B_WRITES, "to_ns": RELEASE,
        "by_pid": 116, "via": "vmsplice", "area": "anonymous", "call_site": "bb9", "fingerprint": "0123456789abcdef",
        "summary": "cowlab 116 writes into P0 while the read reference of cowlab 115 (vmsplice) still reads it.",
        "evidence": [20, 30, 50],
    } | changes  # fmt: skip


def findings(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows as the table of findings."""
    return pl.DataFrame(list(rows), schema=polars_schema(FINDINGS))


def mail(**changes: Any) -> Analysis:
    """The mail's example under the observed kernel and three policies, of which mapcount is unsafe."""
    names = ("observed", "mapcount", "page-count", "exclusive")
    found = Analysis(
        trace=TraceInfo("traces/mail.dat", "trace.dat 7", "5.10.0-35-amd64", "global", 2, 1285, START - 30_000_000, A_EXITS + 700_000),
        coverage=Coverage(lost_events=0, uncertain_ns=0),
        observed={"cow_faults": 5, "copies": 3, "reuses": 2, "early_copies": 0, "zero_fills": 1, "unshares": 0, "splits": 0},
        policies=(policy("mapcount", 2, 3), policy("page-count", 3, 2), policy("exclusive", 3, 2)),
        verdicts=tuple(
            Verdict(rule, name, "defect" if (rule, name) == ("missed-cow", "mapcount") else "clean") for rule in RULES for name in names
        ),
        findings=findings(finding()),
        evidence=EVIDENCE,
        stories=tuple(story(name, copies=name != "mapcount") for name in names),
        replays={},
        kernel=kernel(),
    )
    return replace(found, **changes)


def hostile(text: str) -> Analysis:
    """The mail's example with `text` wherever a trace's own words are shown."""
    found = mail()
    # A table of polars holds no lone surrogates.
    column = text.encode("utf-8", "replace").decode()
    owners = {"A": f"{text} 115", "B": "cowlab 116"}
    return replace(
        found,
        trace=replace(found.trace, path=text, kernel=text, clock=text),
        kernel=kernel(release=text),
        coverage=replace(found.coverage, lost_events=None, uncertain_ns=1, unknown_events={text: 3}, notes=(text,)),
        verdicts=(*found.verdicts, Verdict("missed-cow", "mapcount", "inconclusive", (text,))),
        findings=findings(finding(comm=column, summary=column)),
        evidence={event: (text, ts, row) for event, (_, ts, row) in EVIDENCE.items()},
        stories=tuple(
            replace(s, title=text, owners=owners, outcome=text, pages={"P0": text}, steps=tuple(replace(x, text=text) for x in s.steps))
            for s in found.stories
        ),
    )


def nothing(**changes: Any) -> Analysis:
    """A trace in which nothing was decided and everything recorded."""
    verdicts = (Verdict("missed-cow", "observed", "clean"),)
    return replace(mail(observed={}, policies=(), stories=(), evidence={}, findings=findings(), verdicts=verdicts, kernel=None), **changes)


def large(stays: int, owners: int, rows: int) -> Analysis:
    """Families and findings beyond every budget: under each policy `stays` bars of `owners` owners, and `rows` findings."""
    bars = tuple(Stay(f"O{i % owners}", f"P{i % 12}", START + i * 1000, START + i * 1000 + 900, "copy", "copied") for i in range(stays))
    letters = {f"O{i}": f"worker {i}" for i in range(owners)}
    found = mail()
    return replace(
        found,
        findings=findings(*(finding(i, from_ns=START + i, certainty="possible" if i % 2 else "certain") for i in range(rows))),
        stories=tuple(replace(s, owners=letters, stays=bars, references=(), steps=()) for s in found.stories),
    )
