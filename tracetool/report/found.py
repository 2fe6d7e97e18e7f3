"""The findings of the HTML report: a row each, neighbours of one cause as one, and what opens beneath it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tracetool.foreign import printable
from tracetool.report import storyline
from tracetool.report.details import Alike, Details, groups
from tracetool.report.neighbours import Neighbours
from tracetool.report.sketch import sketch
from tracetool.report.summary import remedy
from tracetool.report.words import counted, duration, hexadecimal, listed, since
from tracetool.schema import PAGE_SHIFT

if TYPE_CHECKING:
    from markupsafe import Markup

    from tracetool.analysis import Analysis, Step, Story
    from tracetool.explaining import Explanation

FINDINGS_SHOWN: Final = 200
RECORDS_SHOWN: Final = 8
STEPS_SHOWN: Final = 40
#: Of a finding those around what it is about.
STEPS_OF_FINDING: Final = 16
#: Stories and small pictures take no more than that, in characters of the document.
STORIES_SIZE: Final = 60_000
_HOLDERS: Final = 12
#: What stands around the text of a step.
_AROUND: Final = 60


@dataclass(frozen=True)
class Mark:
    """A step of a story: time since the first event of the page, and the text with names of pages in their colours.

    `danger`: what it begins; `number`: the how-manieth it is; `here`: whether it is what the finding is about; `parts`: whether the policy
    parts here from the observed kernel.
    """

    at: str
    text: Markup
    danger: storyline.Danger | None
    number: int = 1
    here: bool = False
    parts: bool = False


@dataclass(frozen=True)
class Told:
    """What opens: the harm, who is who, what either side sees, the picture, the steps, how sure it is, the records with their roles."""

    harm: str
    who: str
    pages: str
    sides: tuple[str, ...]
    picture: Markup
    steps: tuple[Mark, ...]
    left_out: str
    doubts: tuple[tuple[str, str], ...]
    records: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """A row: `row` has the columns of `schema.FINDINGS` of the first of `group`; times in words; what filters and picks need as `data`.

    `policies` are the replays that have it, that of `row` first.
    """

    group: Neighbours
    policies: tuple[str, ...]
    row: dict[str, Any]
    kind: str
    at: str | None
    lasted: str | None
    records: tuple[str, ...]
    more_records: int
    remedy: str
    data: dict[str, Any]
    told: Told | None


@dataclass(frozen=True)
class Findings:
    """The rows that are shown; `groups` there are in all, of `findings` findings; `told` of the rows open to a story."""

    rows: tuple[Finding, ...]
    groups: int
    findings: int
    told: int


def findings(analysis: Analysis, details: Details | None) -> Findings:
    """The worst FINDINGS_SHOWN rows; the first of each cause are told, as long as STORIES_SIZE lasts."""
    all_of_them = groups(analysis)
    rows = tuple(_rows(analysis, details, all_of_them[:FINDINGS_SHOWN]))
    return Findings(rows, len(all_of_them), analysis.findings.height, sum(row.told is not None for row in rows))


def _rows(analysis: Analysis, details: Details | None, shown: Sequence[Alike]) -> Iterator[Finding]:
    length, left = analysis.trace.to_ns - analysis.trace.from_ns, STORIES_SIZE
    for alike in shown:
        group = alike.first
        row = group.first
        explained = details.told.get(row["id"]) if details else None
        told = _told(analysis, explained) if explained and left > 0 else None
        left -= len(told.picture) + sum(len(mark.text) + _AROUND for mark in told.steps) if told else 0
        at, until = row["from_ns"], row["to_ns"]
        records = [analysis.evidence[event] for event in row["evidence"] or () if event in analysis.evidence]
        yield Finding(
            group=group,
            policies=alike.policies,
            row=row,
            kind="info" if row["severity"] != "defect" else "defect" if row["certainty"] == "certain" else "doubt",
            at=None if at is None else since(at - analysis.trace.from_ns, length),
            lasted=None if at is None or until is None else duration(until - at),
            records=tuple(f"{event} #{number}" for event, _, number in records[:RECORDS_SHOWN]),
            more_records=max(len(records) - RECORDS_SHOWN, 0),
            remedy=remedy(row["rule"], row["severity"]),
            data=_data(analysis, alike),
            told=told,
        )


def _data(analysis: Analysis, alike: Alike) -> dict[str, Any]:
    group = alike.first
    row, begin = group.first, analysis.trace.from_ns
    low = None if group.low is None else group.low >> PAGE_SHIFT
    return {
        "rule": row["rule"],
        "policies": json.dumps(alike.policies),
        "kind": f"{row['certainty']} {row['severity']}",
        "pids": " ".join(str(pid) for pid in dict.fromkeys((row["pid"], row["by_pid"])) if pid is not None),
        "from": "" if row["from_ns"] is None else row["from_ns"] - begin,
        "to": "" if row["to_ns"] is None else row["to_ns"] - begin,
        "low": "" if low is None else low,
        "high": "" if low is None else low + group.count - 1,
    }


def _told(analysis: Analysis, e: Explanation) -> Told:
    story = e.story
    unsafe = (
        [d for d in storyline.dangers(analysis, story) if d.rule == e.rule and d.from_ns == e.from_ns] if e.severity == "defect" else []
    )
    letters = [letter for letter in story.owners if letter in e.people]
    named = [f"{letter} is {e.people[letter]}" for letter in letters[:_HOLDERS]]
    pages = [f"{name} is {what}" for name, what in list(story.pages.items())[:_HOLDERS]]
    further = len(story.steps) - STEPS_OF_FINDING
    left_out = (
        counted(max(further, 0) + e.left_out, "more step") + " of this page's family, further away" if further > 0 or e.left_out else ""
    )
    return Told(
        harm=e.harm,
        who=listed(named) + (f" and {len(letters) - _HOLDERS} more" if len(letters) > _HOLDERS else ""),
        pages=listed(pages) + (f" and {len(story.pages) - _HOLDERS} more" if len(story.pages) > _HOLDERS else ""),
        sides=e.sides,
        picture=sketch(story, unsafe, e.act),
        steps=tuple(marks(story, [story], unsafe, act=e.act, most=STEPS_OF_FINDING)),
        left_out=left_out,
        doubts=tuple((doubt.why, doubt.settles) for doubt in e.doubts),
        records=tuple(
            f"{record.role}: {record.event} #{record.row}, {record.ts} ns, CPU {record.cpu}" for record in e.records[:RECORDS_SHOWN]
        ),
    )


def marks(
    story: Story,
    stories: Sequence[Story],
    unsafe: Sequence[storyline.Danger],
    act: Step | None = None,
    parted: Sequence[Step] = (),
    most: int = STEPS_SHOWN,
) -> Iterator[Mark]:
    """The steps of a story, at most `most`, those around `act`; `stories` share its times and colours."""
    begin, end = storyline.span(stories)
    at = next((number for number, step in enumerate(story.steps) if step == act), 0)
    first = max(0, min(at - most // 2, len(story.steps) - most))
    pages = storyline.page_names(stories)
    for number, step in enumerate(story.steps[first : first + most], first + 1):
        danger = storyline.danger_of(step, unsafe)
        yield Mark(since(step.ts - begin, end - begin), chips(step.text, pages), danger, number, step == act, step in parted)


def chips(text: str, pages: tuple[str, ...]) -> Markup:
    """Names of pages in the colours of the picture."""
    from markupsafe import Markup, escape

    parts = re.split(r"\b(P\d+)\b", printable(text))
    shown = (
        Markup('<span class="page page-{}">{}</span>').format(pages.index(part) % storyline.COLOURS, part)
        if part in pages
        else escape(part)
        for part in parts
    )
    return Markup("").join(shown)


def frame(row: dict[str, Any], redact: bool) -> str:
    """The page frame of a finding."""
    if row["pfn"] is None:
        return "policy only"
    return f"#{row['pfn']}" if redact else hexadecimal(row["pfn"])
