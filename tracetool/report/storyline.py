"""What reporters ask of the stories: their common span of time, where a policy parts from the observed kernel, the unsafe moments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tracetool.analysis import Analysis, Held, Stay, Step, Story

#: Colours that pages can have; more pages begin again with the first.
COLOURS: Final = 8

_FOLLOWING: Final = frozenset({"unmap", "exit", "release"})
_ENDANGERING: Final = frozenset({"fork", "reference", "copy", "reuse", "store", "swap"})


@dataclass(frozen=True)
class Danger:
    """An unsafe stretch of a story: from the act that makes it unsafe to the release of the reference (None: not in the trace), in ns."""

    rule: str
    certainty: str
    from_ns: int
    to_ns: int | None


def span(stories: Iterable[Story]) -> tuple[int, int]:
    """The life of the page family in ns on the trace's clock: the first and the last moment that any of the stories names.

    Stays that began long before the first step do not stretch it: idle time would dwarf what matters.
    """
    told = tuple(stories)
    acts = [step.ts for story in told for step in story.steps]
    bars = [bar for story in told for bar in _bars(story)]
    begins = acts or [bar.from_ns for bar in bars]
    ends = [bar.to_ns for bar in bars if bar.to_ns is not None]
    first = min(begins, default=0)
    return first, max((*begins, *ends), default=first)


def page_names(stories: Iterable[Story]) -> tuple[str, ...]:
    """P0, P1... of all stories in order: a page keeps its place, and with it its colour, under every policy."""
    names: dict[str, None] = {}
    for story in stories:
        names |= dict.fromkeys(story.pages) | dict.fromkeys(bar.page for bar in _bars(story))
    return tuple(names)


def owners(story: Story, limit: int = 12) -> str:
    """Who the letters stand for: `A is cowlab 115, B is cowlab 116`."""
    named = [f"{letter} is {name}" for letter, name in list(story.owners.items())[:limit]]
    more = len(story.owners) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def parting(observed: Story, story: Story) -> tuple[Step, ...]:
    """The decisions of `story` that were not so in `observed`; empty where it goes as the traced kernel went.

    Which page an exit or an unmap lets go of follows from the decisions, and is left out.
    """
    happened = {(step.ts, step.owner, step.act, step.page) for step in observed.steps}
    return tuple(step for step in story.steps if step.act not in _FOLLOWING and (step.ts, step.owner, step.act, step.page) not in happened)


def dangers(analysis: Analysis, story: Story) -> tuple[Danger, ...]:
    """The defects among the findings that this story tells of, in order of time."""
    first, last = span([story])
    columns = ("rule", "certainty", "from_ns", "to_ns")
    found = analysis.findings.filter(policy=story.policy, severity="defect").filter(address=story.address).select(columns).rows()
    inside = {Danger(*row) for row in found if row[2] is not None and first <= row[2] <= last}
    return tuple(sorted(inside, key=lambda danger: (danger.from_ns, danger.rule)))


def danger_of(step: Step, unsafe: Iterable[Danger]) -> Danger | None:
    """The danger that this step begins, or None; the end of a mapping or of a reference begins none."""
    if step.act not in _ENDANGERING:
        return None
    return next((danger for danger in unsafe if danger.from_ns == step.ts), None)


def leaks(story: Story, unsafe: Iterable[Danger]) -> tuple[tuple[Step, Held], ...]:
    """Each store that reaches the holder of a read reference (missed-cow), and that reference."""
    missed = [danger for danger in unsafe if danger.rule == "missed-cow"]
    return tuple(
        (step, held)
        for step in story.steps
        if danger_of(step, missed)
        for held in story.references
        if held.page == step.page and held.access == "read" and held.from_ns <= step.ts and (held.to_ns is None or held.to_ns > step.ts)
    )


def _bars(story: Story) -> tuple[Stay | Held, ...]:
    return (*story.stays, *story.references)
