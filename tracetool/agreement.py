"""Does a policy decide as the traced kernel did? Every recorded decision, judged from the recorded state before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool import outcomes
from tracetool.outcomes import Agreement, Kernel, RecordedDecision
from tracetool.policies import POLICIES, Policy, of_kernel
from tracetool.replay import columns as k
from tracetool.replay.deciding import (
    BATCH_UNKNOWN,
    OLDER,
    RELEASE_UNKNOWN,
    W_BEFORE,
    W_DECISION,
    W_EVENT,
    W_PLACE,
    W_POLICY,
    W_REASON,
)
from tracetool.replay.history import History
from tracetool.replay.simulated import replay_steps
from tracetool.schema import PAGE_SHIFT, REASONS, labels

Ints = npt.NDArray[Any]

#: As `replay.simulated`'s reasons why a policy cannot be asked: events were lost since the page was mapped.
LOST: Final = -4
#: Why a decision cannot be judged.
UNDETERMINED: Final[Mapping[int, str]] = {
    OLDER: outcomes.OLDER,
    BATCH_UNKNOWN: "how full the LRU batch was when the trace began is not known",
    RELEASE_UNKNOWN: "when a reference was released is not traced",
    LOST: "events were lost since the page was mapped",
}
_COPIES: Final = (k.DID_COPY, k.DID_ZERO_FILL, k.DID_EARLY_COPY, k.DID_UNSHARE, k.DID_SPLIT)
#: Disagreements of which each is told; more are counted.
MOST_TOLD: Final = 20


def agreements(history: History, asked: Sequence[Policy], losses: Ints | None = None) -> list[Agreement]:
    """One a policy asked for. Contested are the decisions on which any two of the built-in policies and those asked for differ.

    The replay follows the recorded outcome, so that one disagreement does not cause the next. `losses`: from when to when events are
    missing, two int64 (ns) a row.
    """
    return judge(history, asked, losses).agreements([p.name for p in asked])


@dataclass(frozen=True)
class Judged:
    """What policies say to each recorded decision.

    `decisions`: `event`, `place`, `page` (before it), `copied` (what the kernel did), `reason` (what the state shows to have decided it),
    and for each policy a column of its name: whether it copies, null where it cannot say; `why`: for each policy, why not, and how often.
    """

    decisions: pl.DataFrame
    policies: Mapping[str, Policy]
    why: Mapping[str, Mapping[str, int]]

    def agreements(self, names: Sequence[str]) -> list[Agreement]:
        """How each of these policies did."""
        contested = pl.min_horizontal(list(self.policies)) != pl.max_horizontal(list(self.policies))
        found = []
        for name in names:
            same = pl.col(name) == pl.col("copied").cast(pl.Int8)
            counts = self.decisions.select(
                faults=pl.col(name).is_not_null().sum(),
                same=same.fill_null(False).sum(),
                contested=(pl.col(name).is_not_null() & contested).sum(),
                contested_same=(same & contested).fill_null(False).sum(),
            ).row(0, named=True)
            found.append(Agreement(undetermined=self.decisions.height - counts["faults"], reasons=self.why[name], **counts))
        return found


def judge(history: History, asked: Sequence[Policy] = (), losses: Ints | None = None) -> Judged:
    """Ask the built-in policies and those given about every recorded decision."""
    policies = {p.name: p for p in (*POLICIES.values(), *asked)}
    lost = np.zeros((0, 2), np.int64) if losses is None else losses
    frames = {name: _said(history, p, lost) for name, p in policies.items()}
    # A fork that shares is a row only for a policy that would have copied: the others say "share" to it, as the kernel did.
    decisions = pl.concat([frame.select("event", "place", "page", "copied", "reason") for frame in frames.values()])
    decisions = decisions.unique(["event", "place"], maintain_order=True)
    why = {}
    for name, frame in frames.items():
        decisions = decisions.join(frame.select("event", "place", pl.col("said").alias(name)), on=["event", "place"], how="left")
        decisions = decisions.with_columns(pl.col(name).fill_null(0))
        reasons = decisions.filter(pl.col(name) < 0).group_by(name).len().sort("len", descending=True)
        why[name] = {UNDETERMINED[code]: count for code, count in reasons.iter_rows()}
    known = [pl.when(pl.col(name) >= 0).then(pl.col(name)).alias(name) for name in policies]
    return Judged(decisions.with_columns(known).sort("event", "place"), policies, why)


def _said(history: History, policy: Policy, losses: Ints) -> pl.DataFrame:
    made = replay_steps(history, policy, follow=True).decisions
    decision = pl.Series(made[:, W_DECISION])
    said = made[:, W_POLICY].astype(np.int8)
    said[_rests_on_losses(history, made, losses)] = LOST
    return pl.DataFrame(
        {
            "event": made[:, W_EVENT],
            "place": made[:, W_PLACE],
            "page": made[:, W_BEFORE],
            "copied": decision.is_in(_COPIES),
            "reason": labels("reason", REASONS, made[:, W_REASON]),
            "said": said,
        }
    )


def _rests_on_losses(history: History, made: Ints, losses: Ints) -> Ints:
    """Whether events were lost between the first mapping of the page that a decision is about and the decision."""
    if not len(losses) or not len(made):
        return np.zeros(len(made), np.bool_)
    ts, page = history.events.ts[made[:, W_EVENT]], made[:, W_BEFORE]
    begins = np.sort(losses[:, 0])
    ends = np.maximum.accumulate(losses[np.argsort(losses[:, 0], kind="stable"), 1])
    before = np.searchsorted(begins, ts, side="right")
    recorded = (page >= 0) & (page < history.pages)
    born = np.full(len(made), -1, np.int64)
    born[recorded] = history.page_born[page[recorded]]
    since = np.where(born >= 0, history.events.ts[np.maximum(born, 0)], np.iinfo(np.int64).min)
    lost: Ints = (before > 0) & (since < ends[np.maximum(before - 1, 0)]) & (made[:, W_POLICY] >= 0) & (page != k.THE_ZERO_PAGE)
    return lost


def of_recording(history: History, judged: Judged, release: str | None) -> Kernel:
    """Which policy the recorded decisions fit best. `release` (of uname) is a hint only, as vendors backport: where decisions do not tell
    policies apart, it does.
    """
    named = of_kernel(release)
    # Of the variants of one policy the recording's own is asked, where its release names one.
    names = [name for name in judged.policies if not (named and name == "exclusive" and named.name.startswith("exclusive@"))]
    results = dict(zip(names, judged.agreements(names), strict=True))
    names.sort(key=lambda name: (_missed(results[name]), name != (named.name if named else "exclusive")))
    best, second = names[:2]
    parts = judged.decisions.filter(pl.col(best) != pl.col(second), pl.col(best) == pl.col("copied").cast(pl.Int8))
    return Kernel(
        policy=best,
        agreement=results[best],
        runner_up=second,
        runner_up_agreement=results[second],
        told_by=tuple(_decision(history, row) for row in parts.head(MOST_TOLD).iter_rows(named=True)),
        telling=parts.height,
        release=release,
        expected=named.name if named else None,
        disagreements=disagreements(history, judged, best),
    )


def _missed(agreement: Agreement) -> float:
    return 1 - agreement.same / agreement.faults if agreement.faults else 1.0


def disagreements(history: History, judged: Judged, name: str) -> tuple[RecordedDecision, ...]:
    """Every decision that a policy would have made otherwise, with what is likely to have been the reason."""
    apart = judged.decisions.filter(pl.col(name) != pl.col("copied").cast(pl.Int8))
    return tuple(_decision(history, row) for row in apart.iter_rows(named=True))


def _decision(history: History, row: Mapping[str, Any]) -> RecordedDecision:
    events, event, place = history.events, row["event"], row["place"]
    address = int(history.places[place, k.L_VPN]) << PAGE_SHIFT if place >= 0 else int(events.address[event])
    return RecordedDecision(int(events.ts[event]), int(events.tid[event]), address, bool(row["copied"]), _because(history, row), event)


def _because(history: History, row: Mapping[str, Any]) -> str:
    """What the trace shows to have decided it, or what is likely where it shows nothing."""
    if not row["copied"]:
        return "what seemed to hold the page had let go of it" if row["reason"] != "unknown" else "nothing else held the page"
    if row["reason"] != "unknown":
        return str(row["reason"])
    refs = history.refs
    ended = refs[(refs[:, k.R_PAGE] == row["page"]) & (refs[:, k.R_TO] >= 0) & (refs[:, k.R_TO] <= row["event"])]
    if len(ended) and (ended[:, k.R_RELEASED] != k.EXACT).any():
        return "a reference whose release is not in the trace"
    born = int(history.page_born[row["page"]]) if 0 <= row["page"] < history.pages else -1
    if born >= 0 and row["event"] - born < _RECENT:
        return "the LRU batch of another CPU, or a lock that was held"
    return "a lock that was held, or a reference that no event tells of"


#: Memory events within which a page that was mapped may still wait in an LRU batch.
_RECENT: Final = 2_000
