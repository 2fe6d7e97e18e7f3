"""What the HTML report shows beyond an analysis: every decision with its cause, memory over time, forks, times of faults, findings told.

`gather` works it out once, from the trace and its replays; everything after it only writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from tracetool.analysis import Analysis, Story
from tracetool.costs.attribution import by_fork, decisions, headline
from tracetool.costs.forks import forks
from tracetool.costs.memory import Memory, memory
from tracetool.costs.prices import Prices, load
from tracetool.costs.stalls import cow_stalls, fork_stalls, fork_summary
from tracetool.costs.timing import CopyPrice, FaultTimes, fault_times, hardware, price
from tracetool.explaining import Explanation, explained
from tracetool.processes import RECORDERS
from tracetool.replay import Replay
from tracetool.report.neighbours import Neighbours, neighbours, together
from tracetool.report.summary import OBSERVED, worst_first
from tracetool.stories import lacking, settled, tell_page
from tracetool.trace import Trace

#: Findings that are told, each as a story with a picture; page families that are told besides.
FINDINGS_TOLD: Final = 40
FAMILIES_TOLD: Final = 12
#: Of a replay with more decisions than that fewer are told: each story looks through all of them.
MANY_DECISIONS: Final = 100_000
#: Rows of a table that one story tells at most.
ROWS_TOLD: Final = 40
#: What a finding has of its policy alone. (Of what a policy makes, pages have numbers of their own.)
_OF_POLICY: Final = frozenset({"id", "policy", "fingerprint", "page_id"})
_DECIDED: Final = ("copy", "reuse", "early-copy", "unshare")


@dataclass(frozen=True)
class ReplayDetails:
    """One replay: `decisions` as `costs.attribution.decisions` gives them, memory over time, `forks` as `costs.attribution.by_fork`,
    and in a sentence how many copies were needed.
    """

    name: str
    decisions: pl.DataFrame
    memory: Memory
    forks: pl.DataFrame
    headline: str


@dataclass(frozen=True)
class Details:
    """`replays`, the observed one first; the price of one more copy, on what it was recorded (in words), and how long faults took; how long
    fork and COW held threads up (`costs.stalls`); `told`: findings explained, by id; `families`: page families told, a story a replay each.
    """

    replays: tuple[ReplayDetails, ...]
    price: CopyPrice
    recorded_on: str
    times: FaultTimes
    fork_stalls: pl.DataFrame
    cow_stalls: pl.DataFrame
    told: Mapping[str, Explanation]
    families: tuple[tuple[Story, ...], ...]


def gather(trace: Trace, analysis: Analysis, prices: Prices | None = None) -> Details:
    """Work it out; `analysis` is that of this trace. `prices`: the cost table (None: the shipped one)."""
    prices = prices or load(None)
    replays = []
    # Who forked whom when is the same under every policy; what a child maps then, all but the same.
    forked = forks(trace.replay(OBSERVED))
    for name, replay in analysis.replays.items():
        rows = decisions(trace, replay)
        replays.append(ReplayDetails(name, rows, memory(replay), by_fork(rows, forked), headline(rows)))
    times, made_on = fault_times(trace), hardware(trace)
    told = dict(_told(trace, analysis))
    return Details(
        replays=tuple(replays),
        price=price(times, prices, made_on),
        recorded_on=str(made_on),
        times=times,
        fork_stalls=fork_summary(fork_stalls(trace)),
        cow_stalls=cow_stalls(trace, trace.replay(OBSERVED), times, prices, made_on),
        told=told,
        families=tuple(_families(trace, analysis, [e.observed or e.story for e in told.values()])),
    )


@dataclass(frozen=True)
class Alike:
    """Neighbours that several replays have in common but for their names: `first` is that of the first of `policies`."""

    first: Neighbours
    policies: tuple[str, ...]


def groups(analysis: Analysis) -> list[Alike]:
    """The findings, worst first: neighbours of one cause as one, and what several replays have alike."""
    alike: dict[tuple[object, ...], list[Neighbours]] = {}
    for each in neighbours(together(worst_first(analysis))):
        row = {name: value for name, value in each.first.items() if name not in _OF_POLICY}
        alike.setdefault((each.count, each.low, *map(str, row.values())), []).append(each)
    return [Alike(found[0], tuple(each.first["policy"] for each in found)) for found in alike.values()]


def chosen(found: Sequence[Alike], most: int) -> list[Neighbours]:
    """Those worth telling: the worst of each cause, then more of the same."""
    seen: set[tuple[object, ...]] = set()
    first: list[Neighbours] = []
    more: list[Neighbours] = []
    for each in (alike.first for alike in found):
        cause = (each.first["rule"], each.first["policy"], each.fingerprints)
        (more if cause in seen else first).append(each)
        seen.add(cause)
    return [*first, *more][:most]


def _told(trace: Trace, analysis: Analysis) -> Iterator[tuple[str, Explanation]]:
    for each in chosen(groups(analysis), _most(analysis, FINDINGS_TOLD)):
        row = each.first
        replay = analysis.replays.get(row["policy"])
        if replay is not None and row["page_id"] is not None and row["evidence"]:
            yield row["id"], explained(trace, replay, _everything(analysis), row)


def _everything(analysis: Analysis) -> pl.DataFrame:
    """All findings, also those that are known and reported no more: a page is as unsafe as it was."""
    known = analysis.known
    return known.everything if known is not None and known.everything is not None else analysis.findings


def _families(trace: Trace, analysis: Analysis, known: Iterable[Story]) -> Iterator[tuple[Story, ...]]:
    """The families with most decisions, but for those that are told already."""
    replays = list(analysis.replays.values())
    if not replays:
        return
    told_already = {_place(story) for story in (*analysis.stories, *known)}
    most = _most(analysis, FAMILIES_TOLD)
    lacks = lacking(trace)
    # Some turn out to be known only once they are told.
    for page, event, mm in _busiest(replays[0], 2 * most):
        tellers = tell_page(replays, _everything(analysis), page, event, [mm], ROWS_TOLD)
        stories = tuple(settled(teller.telling().story, lacks) for teller in tellers)
        if _place(stories[0]) in told_already or not stories[0].steps:
            continue
        told_already.add(_place(stories[0]))
        yield stories
        most -= 1
        if not most:
            return


def _place(story: Story) -> tuple[int, frozenset[str]]:
    """Address and owners: other processes have other pages at the same address."""
    return story.address, frozenset(story.owners.values())


def _busiest(replay: Replay, most: int) -> list[tuple[int, int, int]]:
    """Of the families that most was decided about: the page, event and address space of their first decision; not those of recorders."""
    rows = replay.fault_rows.filter(pl.col("decision").cast(pl.String).is_in(list(_DECIDED)), pl.col("page_before").is_not_null())
    rows = rows.filter(~pl.col("comm").is_in(list(RECORDERS)).fill_null(False))
    roots = replay.family_of_page[rows["page_before"].to_numpy()]
    return (
        rows.with_columns(pl.Series("root", roots))
        .group_by("root", maintain_order=True)
        .agg(pl.len(), pl.col("page_before", "event", "mm").first())
        .sort("len", descending=True, maintain_order=True)
        .head(most)
        .select("page_before", "event", "mm")
        .rows()
    )


def _most(analysis: Analysis, most: int) -> int:
    decided = max((replay.fault_rows.height for replay in analysis.replays.values()), default=0)
    return most if decided <= MANY_DECISIONS else max(most // 4, 1)
