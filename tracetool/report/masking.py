"""Details that can be given away: what `redact` does to an analysis, done to its details, with the same number for the same name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tracetool.analysis import Analysis, Step, Story
from tracetool.report.details import Details, ReplayDetails
from tracetool.report.redact import redacted

if TYPE_CHECKING:
    import polars as pl

    from tracetool.explaining import Explanation

_NAMES: Final = ("comm", "child_comm")


def masked(analysis: Analysis, details: Details | None) -> tuple[Analysis, Details | None]:
    """Both for strangers: names, paths, frames and kernel addresses become numbers, in either the same."""
    release = analysis.kernel and replace(analysis.kernel, release=redacted(analysis).trace.kernel)
    if details is None:
        return replace(redacted(analysis), kernel=release), None
    told = list(details.told.values())
    texts = [text for each in told for text in _texts(each)] + [details.price.why, details.recorded_on]
    comms = sorted({comm for frame in _frames(details) for name in _NAMES if name in frame.columns for comm in frame[name].drop_nulls()})
    # `redacted` knows stories: names go in as those of owners, texts as steps.
    carrier = _carrier(comms, texts)
    stories = [story for each in told for story in (each.story, *([each.observed] if each.observed else []))]
    families = [story for family in details.families for story in family]
    own = len(analysis.stories)
    clean = redacted(replace(analysis, stories=(*analysis.stories, carrier, *stories, *families)))
    carried = clean.stories[own]
    names = {comm: name.rpartition(" ")[0] for comm, name in zip(comms, carried.owners.values(), strict=True)}
    cleaned = iter([step.text for step in carried.steps])
    following = iter(clean.stories[own + 1 :])
    explained = {each.id: _explanation(each, following, cleaned) for each in told}
    why, recorded_on = cleaned
    return replace(clean, stories=clean.stories[:own], kernel=release), replace(
        details,
        replays=tuple(_replay(each, names) for each in details.replays),
        price=replace(details.price, why=why),
        recorded_on=recorded_on,
        fork_stalls=_renamed(details.fork_stalls, names),
        cow_stalls=_renamed(details.cow_stalls, names),
        told=explained,
        families=tuple(tuple(next(following) for _ in family) for family in details.families),
    )


def _texts(e: Explanation) -> Iterable[str]:
    return (e.summary, e.harm, *e.sides, *(text for doubt in e.doubts for text in (doubt.why, doubt.settles)), *e.people.values())


def _explanation(e: Explanation, stories: Iterable[Story], texts: Iterable[str]) -> Explanation:
    following, cleaned = iter(stories), iter(texts)
    story = next(following)
    at = next((number for number, step in enumerate(e.story.steps) if step == e.act), None)
    return replace(
        e,
        story=story,
        act=None if at is None else story.steps[at],
        observed=next(following) if e.observed else None,
        summary=next(cleaned),
        harm=next(cleaned),
        sides=tuple(next(cleaned) for _ in e.sides),
        doubts=tuple(replace(doubt, why=next(cleaned), settles=next(cleaned)) for doubt in e.doubts),
        people={letter: next(cleaned) for letter in e.people},
        records=tuple(replace(record, comm="", fields={}) for record in e.records),
        background=(),
    )


def _carrier(comms: Iterable[str], texts: Iterable[str]) -> Story:
    owners = {str(number): f"{comm} 0" for number, comm in enumerate(comms)}
    return Story("", "", 0, owners, {}, (), (), tuple(Step(0, "", "", "", text) for text in texts), "", safe=True)


def _frames(details: Details) -> list[pl.DataFrame]:
    tables = [table for each in details.replays for table in (each.decisions, each.forks)]
    return [*tables, details.fork_stalls, details.cow_stalls]


def _replay(each: ReplayDetails, names: Mapping[str, str]) -> ReplayDetails:
    import polars as pl

    rows = _renamed(each.decisions, names)
    process = pl.format("{} {}", pl.col("comm").fill_null("?"), pl.col("pid").cast(pl.String).fill_null("?"))
    # A reference is "via kind access by comm".
    via = pl.col("reference").str.extract(r"^(\S+ \S+ \S+) by ")
    by = pl.col("reference").str.extract(r"(?s)^\S+ \S+ \S+ by (.*)$").replace(dict(names))
    # The paths of files are shown nowhere; they are not given away either.
    rows = rows.with_columns(process=process, reference=via + " by " + by, file=pl.lit(None, pl.String))
    return replace(each, decisions=rows, forks=_renamed(each.forks, names))


def _renamed(frame: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    import polars as pl

    return frame.with_columns(pl.col(name).replace(dict(names)) for name in _NAMES if name in frame.columns)
