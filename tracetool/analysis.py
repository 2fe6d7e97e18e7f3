"""Analysis: the results of one replay under the observed kernel and any policies, ready to be reported or asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import polars as pl

    from tracetool.replay import Replay


@dataclass(frozen=True)
class TraceInfo:
    """What was traced: `from_ns` and `to_ns` are the first and last time stamp on the clock `clock`."""

    path: str
    format: str
    kernel: str | None
    clock: str | None
    cpus: int
    events: int
    from_ns: int
    to_ns: int


@dataclass(frozen=True)
class Coverage:
    """What the trace cannot say: lost events (None: an unknown number), time under doubt in ns, events that no probe of ours names."""

    lost_events: int | None
    uncertain_ns: int
    unknown_events: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """A policy asked to decide every recorded decision from the recorded state before it.

    `faults`: decisions that the trace determines; `same`: those decided as the kernel did; `undetermined`: state not known;
    `contested`: those of `faults` on which two policies differ, the only ones that tell policies apart; `contested_same` of these.
    """

    faults: int
    same: int
    undetermined: int
    contested: int
    contested_same: int


@dataclass(frozen=True)
class PolicyResult:
    """One policy: decisions, and what they cost beyond `mapcount` (times in ns, `time` says measured or assumed)."""

    name: str
    checked_on: str
    cow_faults: int
    copies: int
    reuses: int
    early_copies: int
    unshares: int
    zero_fills: int
    splits: int
    extra_copies: int
    extra_bytes: int
    extra_ns: int
    time: Literal["measured", "assumed"]
    peak_pages: int
    agreement: Agreement


@dataclass(frozen=True)
class Verdict:
    """What a trace says of one rule under one policy; `missing` says what an inconclusive one lacks."""

    rule: str
    policy: str
    verdict: Literal["defect", "clean", "inconclusive"]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stay:
    """A bar of the picture: `owner` maps page `page` from `from_ns` to `to_ns` (None: to the end of the trace)."""

    owner: str
    page: str
    from_ns: int
    to_ns: int | None
    began: str
    ended: str


@dataclass(frozen=True)
class Held:
    """A reference of the picture: taken by `owner` on `page`, `via` an interface, released at `to_ns` (None: not in the trace)."""

    owner: str
    page: str
    from_ns: int
    to_ns: int | None
    kind: str
    access: str
    via: str
    released: str


@dataclass(frozen=True)
class Step:
    """One sentence of a story: what happened at `ts`; `act` is one of map, fork, reference, copy, reuse, unmap, exit, release, swap."""

    ts: int
    owner: str
    act: str
    page: str
    text: str
    evidence: tuple[int, ...] = ()


@dataclass(frozen=True)
class Story:
    """One page family told as the mail tells it: A, B are address spaces (`owners`: letter -> "name pid"), P0, P1 pages.

    `pages` maps P0, P1... to what is known of the frame ("frame 0x299d", or "a frame that only this policy makes"); `outcome` says what the
    holders of references see in the end, `safe` whether that is what the kernel owes them.
    """

    title: str
    policy: str
    address: int
    owners: Mapping[str, str]
    pages: Mapping[str, str]
    stays: tuple[Stay, ...]
    references: tuple[Held, ...]
    steps: tuple[Step, ...]
    outcome: str
    safe: bool


@dataclass(frozen=True)
class Analysis:
    """Everything that a report says, and the replays to ask further.

    `observed` counts by decision (keys: cow_faults, copies, reuses, early_copies, zero_fills, unshares, splits); `findings` is the table
    of that name; `stories` holds for the most telling page family one story a policy, `observed` first.
    """

    trace: TraceInfo
    coverage: Coverage
    observed: Mapping[str, int]
    policies: tuple[PolicyResult, ...]
    verdicts: tuple[Verdict, ...]
    findings: pl.DataFrame
    evidence: Mapping[int, tuple[str, int, int]]
    stories: tuple[Story, ...]
    replays: Mapping[str, Replay]
