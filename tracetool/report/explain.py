"""One finding for a person or a program: text for a terminal, plain text for a mailing list, JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from tracetool.analysis import Stay, Step, Story
from tracetool.explaining import Explanation
from tracetool.records import Record
from tracetool.report import storyline
from tracetool.report.sections import DEFAULT_WIDTH, Row, Section, cut, lines, paragraph
from tracetool.report.words import counted, hexadecimal, listed, since
from tracetool.schema import SCHEMA_VERSION
from tracetool.telling import Holding

#: What a mailing list can read without wrapping it again.
MAIL_WIDTH: Final = 72
#: Steps of the story that are told, those around the act, and of the observed one; columns of the timeline, rows of it; holders listed.
_STEPS, _PARTINGS, _OWNERS, _MOMENTS, _HOLDERS = 40, 8, 5, 24, 12
_OBSERVED: Final = "observed"
#: Stays that end where another one begins.
_GOES_ON: Final = ("copied", "moved", "replaced", "merged", "migrated")


def text(explanation: Explanation, width: int = DEFAULT_WIDTH) -> str:
    """The finding as lines of at most `width` columns."""
    e = explanation
    head = Section(
        f"{e.id}: {e.certainty} {e.rule} under {e.policy} ({e.severity})",
        (
            Row(f"{e.title}."),
            Row(f"{e.trace.path}: {_traced(e)}"),
            Row(f"Address {_address(e)}; {_people(e)}; {_pages(e)}."),
            Row(_times(e)),
        ),
    )
    return "\n".join(lines([head, *_sections(e)], width)) + "\n"


def mail(explanation: Explanation) -> str:
    """The same for a mailing list: ASCII, no line longer than 72 columns, no trailing white space; of the trace's path its name alone."""
    e = explanation
    name = os.path.basename(e.trace.path)
    subject = f"Subject: {e.rule}@{e.policy}: {e.harm.partition(':')[0].rstrip('.')}"
    # A foreign name may be of any length.
    [first, *_] = [*paragraph(subject, 1 << 20, ascii_only=True), ""]
    intro = (
        f"tracetool replayed {name} ({_traced(e)}) {_under(e)}, and finds a {e.certainty} {e.rule} ({e.severity}): "
        f"{e.title[0].lower()}{e.title[1:]}."
    )
    facts = Section(
        "",
        (
            Row(e.trace.kernel or "not named", "kernel"), Row(e.policy, "policy"), Row(name, "trace"), Row(e.id, "finding"),
            Row(_address(e), "address"),
        ),
    )  # fmt: skip
    told = [
        cut(first, MAIL_WIDTH),
        "",
        *paragraph(intro, MAIL_WIDTH, ascii_only=True),
        "",
        *lines([facts], MAIL_WIDTH, ascii_only=True),
        "",
    ]
    told += [*paragraph(f"{_people(e)}. {_pages(e)}.", MAIL_WIDTH, ascii_only=True), *paragraph(_times(e), MAIL_WIDTH, ascii_only=True), ""]
    return "\n".join([*told, *lines(_sections(e), MAIL_WIDTH, ascii_only=True)]) + "\n"


def to_json(explanation: Explanation) -> str:
    """The same as one JSON object in ASCII: times in ns on the trace's clock, strings of the trace as they were recorded."""
    e = explanation
    finding = ("id", "rule", "title", "policy", "certainty", "severity", "summary", "from_ns", "to_ns", "area", "call_site", "fingerprint")
    document = {
        "schema_version": SCHEMA_VERSION,
        "trace": asdict(e.trace),
        "finding": {name: getattr(e, name) for name in finding} | {"address": hex(e.address)},
        "people": {letter: e.people[letter] for letter in _letters(e)},
        "pages": dict(e.story.pages),
        "story": _steps_json(e.story),
        "outcome": e.story.outcome,
        "observed": None if e.observed is None else _steps_json(e.observed),
        "holdings": [asdict(holding) for holding in e.holdings],
        "bystanders": e.bystanders,
        "harm": e.harm,
        "sides": list(e.sides),
        "doubts": [asdict(doubt) for doubt in e.doubts],
        "remedy": e.remedy,
        "records": [asdict(record) for record in e.records],
        "background": [asdict(record) for record in e.background],
        "left_out": e.left_out,
    }
    return json.dumps(document, indent=2, allow_nan=False, default=str) + "\n"


def _steps_json(story: Story) -> list[dict[str, Any]]:
    return [{"ts": step.ts, "owner": step.owner, "act": step.act, "page": step.page, "text": step.text} for step in story.steps]


def _traced(e: Explanation) -> str:
    return f"{e.trace.format}, kernel {e.trace.kernel or 'not named'}, clock {e.trace.clock or 'not named'}"


def _under(e: Explanation) -> str:
    return "as it was recorded" if e.policy == _OBSERVED else f"under the policy {e.policy}"


def _address(e: Explanation) -> str:
    return f"{e.address:#x}" + ("" if e.area == "unknown" else f" ({e.area})")


def _letters(e: Explanation) -> list[str]:
    """Those that the story names, in its order."""
    named = [*e.story.owners, *(held.owner for held in e.story.references), *(step.owner for step in e.story.steps)]
    return [letter for letter in dict.fromkeys(named) if letter in e.people]


def _people(e: Explanation) -> str:
    letters = _letters(e)
    named = [f"{letter} is {e.people[letter]}" for letter in letters[:_HOLDERS]]
    return listed(named) + (f" and {len(letters) - _HOLDERS} more" if len(letters) > _HOLDERS else "")


def _pages(e: Explanation) -> str:
    pages = list(e.story.pages.items())
    named = [f"{name} is {frame}" for name, frame in pages[:_HOLDERS]]
    return listed(named) + (f" and {len(pages) - _HOLDERS} more" if len(pages) > _HOLDERS else "")


def _marked(e: Explanation) -> str:
    return "UNSAFE" if e.severity == "defect" else "here"


def _span(e: Explanation) -> tuple[int, int]:
    return storyline.span([e.story])


def _times(e: Explanation) -> str:
    begin, end = _span(e)
    into = since(begin - e.trace.from_ns, e.trace.to_ns - e.trace.from_ns)
    what = "it becomes unsafe" if e.severity == "defect" else "what it is about happens"
    return f"Times count from {begin} ns of the trace's clock, {into} into the trace; {what} at {since(e.from_ns - begin, end - begin)}."


def _moment(e: Explanation, ts: int | None, none: str) -> str:
    begin, end = _span(e)
    return none if ts is None else since(ts - begin, end - begin)


def _sections(e: Explanation) -> Iterator[Section]:
    yield Section(f"What happened, {'as recorded' if e.policy == _OBSERVED else 'under ' + e.policy}", tuple(_story(e)))
    yield Section("Who maps what after each step, and which references are held", tuple(_timeline(e)), wrapped=False)
    if e.observed is not None:
        yield Section("What the traced kernel did instead", tuple(_instead(e, e.observed)))
    yield Section("Who holds what from then on", tuple(_holders(e)))
    yield Section("What either side sees", tuple(Row(side) for side in e.sides))
    yield Section("How sure that is", tuple(_certainty(e)))
    yield Section("What avoids it", (Row(f"{e.remedy[0].upper()}{e.remedy[1:]}."),))
    yield Section("The records that it rests on", tuple(_records(e)))
    yield Section("Records of the other steps", tuple(_background(e)))


def _story(e: Explanation) -> Iterator[Row]:
    shown = _around(e.story.steps, e.act, _STEPS)
    for step in shown:
        mark = f"  <- {_marked(e)}{' from here' if e.severity == 'defect' else ''}" if step == e.act else ""
        yield Row(step.text + mark, _moment(e, step.ts, "?"))
    further = len(e.story.steps) - len(shown)
    if further or e.left_out:
        yield Row(f"The story is longer: {further + e.left_out:,} more steps of this page's family, further away, are left out.")


def _instead(e: Explanation, observed: Story) -> Iterator[Row]:
    parted = storyline.parting(e.story, observed)
    nearest = sorted(sorted(parted, key=lambda step: abs(step.ts - e.from_ns))[:_PARTINGS], key=lambda step: step.ts)
    for step in nearest:
        yield Row(step.text, _moment(e, step.ts, "?"))
    if len(parted) > len(nearest):
        yield Row(f"and {len(parted) - len(nearest):,} more steps, further away.")
    if not parted:
        yield Row("The same, as far as the trace shows.")
    elif len(observed.references) <= _PARTINGS:
        yield Row(observed.outcome)


def _holders(e: Explanation) -> Iterator[Row]:
    for held in e.holdings[:_HOLDERS]:
        since_when = _moment(e, held.from_ns, "before the trace")
        what = "maps" if held.what == "maps" else f"holds a {held.what} to"
        yield Row(f"{held.owner} {what} {held.page} since {since_when} ({held.how}), {_until(e, held)}.")
    if len(e.holdings) > _HOLDERS:
        yield Row(f"and {len(e.holdings) - _HOLDERS} more.")
    if e.bystanders > 0:
        yield Row(
            f"{counted(e.bystanders, 'other address space')} {'maps' if e.bystanders == 1 else 'map'} the page of the reference as well."
        )


def _until(e: Explanation, held: Holding) -> str:
    if held.to_ns is None:
        return "to the end of the trace" if held.what == "maps" or held.ended == "unknown" else "its release is not in the trace"
    how = {"exact": "", "at-latest": " at the latest", "unknown": ""}.get(held.ended, f" ({held.ended})")
    return f"until {_moment(e, held.to_ns, '?')}{how}"


def _certainty(e: Explanation) -> Iterator[Row]:
    if e.certainty == "certain":
        yield Row("Certain: the trace has the records of every step that it rests on.")
        return
    yield Row("Possible: the trace does not prove it.")
    for doubt in e.doubts:
        yield Row(doubt.why)
        yield Row(f"What would settle it: {doubt.settles}")


def _timeline(e: Explanation) -> Iterator[Row]:
    """A column an owner; the state after a step is that just before the next one."""
    owners = list(e.story.owners)
    steps = _around(e.story.steps, e.act, _MOMENTS)
    if not 1 <= len(owners) <= _OWNERS or len(steps) < 2:
        return
    following = [*(step.ts - 1 for step in e.story.steps[1:]), e.story.steps[-1].ts]
    states = []
    for step, at in zip(e.story.steps, following, strict=True):
        if step not in steps or (at < step.ts and step is not e.story.steps[-1]):
            continue
        maps = {owner: _there(e.story.stays, owner, at) for owner in owners}
        held = [
            f"{each.owner}:{each.page}" for each in e.story.references if each.from_ns <= at and (each.to_ns is None or each.to_ns > at)
        ]
        mark = f"  <- {_marked(e)}" if step == e.act else ""
        states.append((_moment(e, step.ts, "?"), [maps[owner] for owner in owners], (" ".join(dict.fromkeys(held)) or ".") + mark))
    widths = [max(len(owner), *(len(state[1][n]) for state in states)) for n, owner in enumerate(owners)]
    yield Row("  ".join([*(owner.ljust(width) for owner, width in zip(owners, widths, strict=True)), "references"]), " ")
    for when, cells, held_then in states:
        yield Row("  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), held_then]), when)


def _around(steps: Sequence[Step], act: Step | None, most: int) -> Sequence[Step]:
    """At most so many steps, with the act among them."""
    at = next((n for n, step in enumerate(steps) if step == act), 0)
    first = max(0, min(at - most // 2, len(steps) - most))
    return steps[first : first + most]


def _there(stays: Sequence[Stay], owner: str, at: int) -> str:
    """The pages that an owner maps at a time; `.` none, `?` one that the story leaves out."""
    own = [stay for stay in stays if stay.owner == owner and stay.from_ns <= at]
    pages = [stay.page for stay in own if stay.to_ns is None or stay.to_ns > at]
    if pages or not own:
        return ",".join(dict.fromkeys(pages)) or "."
    last = max(own, key=lambda stay: stay.to_ns or 0)
    return "?" if last.ended in _GOES_ON else "."


def _records(e: Explanation) -> Iterator[Row]:
    for record in e.records:
        yield Row(f"{record.role}: {_record(e, record)}")
        if record.fields:
            yield Row(_fields(record.fields), indent=4)


def _background(e: Explanation) -> Iterator[Row]:
    times = [step.ts for step in _around(e.story.steps, e.act, _STEPS)]
    for record in e.background:
        if min(times) <= record.ts <= max(times):
            yield Row(_record(e, record))


def _record(e: Explanation, record: Record) -> str:
    named = f" ({record.comm})" if record.comm else ""
    return (
        f"{record.event} at {record.ts} ns ({_moment(e, record.ts, '?')}), row {record.row}, CPU {record.cpu}, thread {record.tid}{named}"
    )


def _fields(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={hexadecimal(None) if value is None else value}" for name, value in fields.items())
