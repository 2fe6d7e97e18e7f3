"""How well policies decide as the traced kernel did: the results, as numbers and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

#: Why a decision cannot be judged, first of all.
OLDER: Final = "the page is older than the trace"


@dataclass(frozen=True)
class Agreement:
    """A policy asked to decide every recorded decision from the recorded state before it.

    `faults`: decisions that the trace determines; `same`: those decided as the kernel did; `undetermined`: state not known;
    `contested`: those of `faults` on which two policies differ, the only ones that tell policies apart; `contested_same` of these;
    `reasons` counts what is undetermined by why.
    """

    faults: int
    same: int
    undetermined: int
    contested: int
    contested_same: int
    reasons: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordedDecision:
    """A decision of the traced kernel: when, by which thread, at which address (of the page), whether it copied, and what is known or
    likely to have decided it; `event` is the memory event.
    """

    ts: int
    tid: int
    address: int
    copied: bool
    because: str
    event: int


@dataclass(frozen=True)
class Kernel:
    """Which policy the traced kernel had, as its decisions show.

    `told_by` are the first of `telling` decisions that tell it from the next best, `runner_up`; none: they tell nothing, and the release
    decides. `expected` is the policy that mainline of that `release` has (None: it names no version). `disagreements` are all decisions
    that the policy would have made otherwise.
    """

    policy: str
    agreement: Agreement
    runner_up: str
    runner_up_agreement: Agreement
    told_by: tuple[RecordedDecision, ...]
    telling: int
    release: str | None
    expected: str | None
    disagreements: tuple[RecordedDecision, ...]

    @property
    def text(self) -> str:
        """In a sentence."""
        agreement = self.agreement
        said = f"{self.policy} decides {agreement.same:,} of {agreement.faults:,} decisions as the traced kernel did"
        if not self.telling:
            said += f"; none of them tells it from {self.runner_up}"
        else:
            others = "decision tells" if self.telling == 1 else "decisions tell"
            said += f"; {self.telling:,} {others} it from {self.runner_up}"
        if self.expected is None:
            return f"{said}; the release of the kernel is not known"
        if self.expected != self.policy:
            return f"{said}; mainline of {self.release} has {self.expected}: a backport, or a mistake of this tool"
        return f"{said}; mainline of {self.release} has it, too"
