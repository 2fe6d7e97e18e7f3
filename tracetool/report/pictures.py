"""What the script of the HTML report draws: decisions, memory, forks and times as columns of numbers, and page families as stories.

Everything is bounded: what is too much for a picture is merged (decisions of one kind that lie next to each other) or left out, and said.
Times are in one unit since the trace began; page numbers are addresses without their last three hexadecimal digits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, get_args

from tracetool.foreign import printable
from tracetool.report import figures, storyline
from tracetool.report.details import Details, ReplayDetails
from tracetool.report.geometry import STEPS_SHOWN, Spacing, spacing
from tracetool.report.words import hexadecimal, since, time_unit
from tracetool.schema import PAGE_SHIFT

if TYPE_CHECKING:
    import polars as pl

    from tracetool.analysis import Analysis, Step, Story
    from tracetool.costs.memory import Memory

POINTS_SHOWN: Final = 4_000
PROCESSES_NAMED: Final = 40
FORKS_SHOWN: Final = 200
#: A picture of memory keeps the extremes of so many stretches of time.
STRETCHES: Final = 300
#: Bins of the distribution of times, to a factor of ten; what is below the first is in it.
BINS: Final = 8
LEAST_NS: Final = 100

_SHARED: Final = ("parent_copies", "child_copies", "early_copies", "child_zero_fills")

#: Why a copy was made, in words; what the trace names itself (references) is put as it is.
BECAUSE: Final[Mapping[str, str]] = {
    "another-mapping": "somebody else maps the page",
    "not-anonymous": "a page of a file, or the zero page",
    "pinned-at-fork": "pinned when it was forked",
    "a reference of another process": "somebody else references the page",
    "swap-cache": "only the swap cache",
    "lru-batch": "only an LRU batch",
    "ksm": "KSM had merged it",
    "lock": "only a lock",
    "unmapping": "only a process that was just unmapping it",
    "large-page": "only other parts of a larger page",
    "a reference of its own": "only a reference of the process itself",
    "unknown": "the trace does not tell",
    "sole-owner": "nobody else maps or references the page",
    "exclusive": "marked as its owner's alone",
    "zero-page": "the zero page was there",
    "writable": "its entry is writable",
}


def because(reason: str) -> str:
    """A reason in words."""
    return BECAUSE.get(reason, reason)


@dataclass
class Shared:
    """Values that several policies have alike, kept once: `put` gives the place."""

    values: list[Any] = field(default_factory=list)
    _known: dict[str, int] = field(default_factory=dict)

    def put(self, value: Any) -> int:
        """The place of an equal value."""
        key = json.dumps(value, separators=(",", ":"), allow_nan=False)
        if key not in self._known:
            self._known[key] = len(self.values)
            self.values.append(value)
        return self._known[key]


def model(analysis: Analysis, details: Details | None) -> dict[str, Any]:
    """All of it, as values that JSON knows."""
    trace = analysis.trace
    unit, scale = time_unit(trace.to_ns - trace.from_ns)
    told = {"unit": unit, "scale": scale, "end": (trace.to_ns - trace.from_ns) / scale, "families": _Lineage(analysis, details).told()}
    if details is None or not details.replays:
        return told
    clock = _Clock(trace.from_ns, max(trace.to_ns - trace.from_ns, 1), scale)
    processes = _Processes([each.decisions for each in details.replays])
    reasons = sorted({reason for each in details.replays for reason in each.decisions["because"].unique().to_list()})
    decisions = sorted({decision for each in details.replays for decision in each.decisions["decision"].unique().to_list()})
    areas = sorted({area for each in details.replays for area in each.decisions["area"].unique().to_list()})
    points, memories = Shared(), Shared()
    return told | {
        "processes": processes.names,
        "pids": processes.pids,
        "reasons": reasons,
        "because": {reason: because(reason) for reason in reasons},
        "decisions": decisions,
        "areas": areas,
        "replays": [
            {
                "name": each.name,
                "points": points.put(_points(each.decisions, clock, processes, reasons, decisions, areas)),
                "memory": memories.put(_memory(each.memory, clock)),
                "forks": {part: _shown_forks(each)[part].to_list() for part in _SHARED},
            }
            for each in details.replays
        ],
        "points": points.values,
        "memory": memories.values,
        "forks": _forks(details.replays[0], clock),
        "times": _times(details, clock, processes, decisions),
    }


@dataclass(frozen=True)
class _Clock:
    begin: int
    span: int
    scale: int

    def places(self, ts: pl.Series) -> list[float | None]:
        # As many digits as a picture can show.
        digits = max(len(str(self.span // self.scale)), 1)
        return [None if each is None else round(each, max(6 - digits, 1)) for each in ((ts - self.begin) / self.scale).to_list()]


class _Processes:
    """Processes by their number, those with most decisions by name; the others are one."""

    def __init__(self, tables: Sequence[pl.DataFrame]) -> None:
        import polars as pl

        rows = pl.concat([table.select("pid", "comm") for table in tables])
        counts = rows.group_by("pid", maintain_order=True).agg(pl.len(), pl.col("comm").drop_nulls().unique(maintain_order=True))
        counts = counts.sort("len", descending=True, maintain_order=True).head(PROCESSES_NAMED)
        self.pids: list[int | None] = counts["pid"].to_list()
        self.names = [
            f"{printable(' → '.join(comms)) or '?'} {'?' if pid is None else pid}" for pid, _, comms in counts.iter_rows()
        ]  # fmt: skip
        self._more = rows["pid"].n_unique() > counts.height
        if self._more:
            self.names.append("others")

    def of(self, pids: pl.Series) -> pl.Series:
        import polars as pl

        known = pl.DataFrame({"pid": pl.Series(self.pids, dtype=pids.dtype), "place": range(len(self.pids))})
        rows = pids.to_frame("pid").join(known, on="pid", how="left", maintain_order="left", nulls_equal=True)
        return rows["place"].fill_null(len(self.pids))


def _points(
    rows: pl.DataFrame, clock: _Clock, processes: _Processes, reasons: Sequence[str], decisions: Sequence[str], areas: Sequence[str]
) -> dict[str, list[Any]]:
    """Decisions: time, page number (`v`; `w` the last of those merged), process, decision, reason, kind of memory, pages,
    faults.
    """
    import polars as pl

    frame = rows.select(
        pl.col("ts"),
        (pl.col("address") // (1 << PAGE_SHIFT)).cast(pl.Int64).alias("v"),
        processes.of(rows["pid"]).alias("p"),
        _places(rows["decision"], decisions).alias("d"),
        _places(rows["because"], reasons).alias("r"),
        _places(rows["area"], areas).alias("a"),
        pl.col("pages").alias("n"),
    )
    merged = _merged(frame, clock, ("p", "d", "r", "a"))
    return {
        "t": clock.places(merged["ts"]),
        "v": merged["v"].to_list(),
        "w": merged["last"].to_list(),
        **{name: merged[name].to_list() for name in ("p", "d", "r", "a", "n", "f")},
    }


def _merged(frame: pl.DataFrame, clock: _Clock, alike: Sequence[str]) -> pl.DataFrame:
    """Rows with `f`, how many each stands for; so many are merged that POINTS_SHOWN are left, or nothing more can be."""
    import polars as pl

    if "v" not in frame.columns:
        frame = frame.with_columns(v=pl.lit(0, pl.Int64))
    one = frame.with_columns(pl.lit(1).alias("f"), pl.col("v").alias("last"))
    if frame.height <= POINTS_SHOWN:
        return one
    stretches, shift = 2_000, 0
    while True:
        step = max(clock.span // stretches, 1)
        merged = (
            frame.group_by(
                *alike, when=(pl.col("ts") - clock.begin) // step, where=pl.col("v") // (1 << shift), maintain_order=True
            )
            .agg(pl.col("ts").min(), pl.col("v").min(), pl.col("v").max().alias("last"), pl.col("n").sum(), pl.len().alias("f"))
            .sort("ts", maintain_order=True)
        )  # fmt: skip
        if merged.height <= POINTS_SHOWN or (stretches <= 8 and shift >= 52):
            return merged
        stretches, shift = max(stretches // 2, 8), shift + 2


def _places(values: pl.Series, names: Sequence[str]) -> pl.Series:
    import polars as pl

    return values.replace_strict(list(names), list(range(len(names))), return_dtype=pl.Int64)


def _memory(memory: Memory, clock: _Clock) -> dict[str, list[Any]]:
    import polars as pl

    rows = memory.timeline
    if rows.height > 12 * STRETCHES:
        # Stretches of time, and stretches of events: what happens at once is seen when the picture is drawn nearer.
        by_time = (pl.col("ts") - clock.begin) * STRETCHES // clock.span
        by_event = pl.int_range(pl.len()) * STRETCHES // pl.len()
        rows = rows[pl.concat([_extremes(rows, stretch) for stretch in (by_time, by_event)]).unique().sort()]
    return {"t": clock.places(rows["ts"]), **{name: rows[name].to_list() for name in ("once", "shared", "referenced")}}


def _extremes(rows: pl.DataFrame, stretch: pl.Expr) -> pl.Series:
    """The rows at which each stretch begins, ends, and has its extremes."""
    import polars as pl

    at = pl.col("_row")
    kept = (
        rows.with_columns(_stretch=stretch)
        .with_row_index("_row")
        .group_by("_stretch")
        .agg(
            first=at.first(),
            last=at.last(),
            least=at.get(pl.col("pages").arg_min()),
            most=at.get(pl.col("pages").arg_max()),
            shared=at.get(pl.col("shared").arg_max()),
            referenced=at.get(pl.col("referenced").arg_max()),
        )
        .drop("_stretch")
    )
    return pl.concat(kept.get_columns())


def _shown_forks(replay: ReplayDetails) -> pl.DataFrame:
    """The forks with most copies, in order of time."""
    rows = replay.forks
    if rows.height <= FORKS_SHOWN:
        return rows
    # The same under every policy: by what they share, not by what was copied.
    return rows.sort("shared_pages", descending=True, maintain_order=True).head(FORKS_SHOWN).sort("fork")


def _forks(replay: ReplayDetails, clock: _Clock) -> dict[str, Any]:
    rows = _shown_forks(replay)
    return {
        "from": clock.places(rows["ts"]),
        "to": clock.places(rows["end_ns"]),
        "parent": [_named(comm, pid) for comm, pid in rows.select("comm", "pid").iter_rows()],
        "child": [_named(comm, pid) for comm, pid in rows.select("child_comm", "child_pid").iter_rows()],
        "pids": [list(pids) for pids in rows.select("pid", "child_pid").iter_rows()],
        "shared": rows["shared_pages"].to_list(),
        "all": replay.forks.height,
    }


def _named(comm: str | None, pid: int | None) -> str:
    return f"{printable(comm or '?')} {'?' if pid is None else pid}"


def _times(details: Details, clock: _Clock, processes: _Processes, decisions: Sequence[str]) -> dict[str, Any]:
    """Faults whose time counts: time, process, decision, bin (of the logarithm), faults."""
    import polars as pl

    counted = details.times.frame.filter(pl.col("left_out").is_null(), ~pl.col("huge")).select("event", "net_ns")
    rows = counted.join(details.replays[0].decisions.unique("event", keep="first"), on="event", how="inner", maintain_order="left")
    bins = (pl.col("net_ns").clip(lower_bound=LEAST_NS).log10() * BINS).floor().cast(pl.Int64)
    rows = rows.with_columns(bins.alias("b"), processes.of(rows["pid"]).alias("p"), _places(rows["decision"], decisions).alias("d"))
    merged = _merged(rows.select("ts", "p", "d", "b", n=pl.lit(1)), clock, ("p", "d", "b"))
    return {"t": clock.places(merged["ts"]), "bins": BINS, **{name: merged[name].to_list() for name in ("p", "d", "b", "f")}}


@dataclass(frozen=True)
class _Family:
    """A page family: its stories by policy, the observed one first where it is told, and the findings that are about it.

    `policy` is whose story is shown first, where none is unsafe.
    """

    label: str
    policy: str
    stories: dict[str, Story]
    findings: list[str] = field(default_factory=list)


def _families(analysis: Analysis, details: Details | None) -> Iterator[_Family]:
    """Each page family once."""
    families: dict[Any, _Family] = {}
    if analysis.stories:
        stories = {story.policy: story for story in analysis.stories}
        families[_same(analysis.stories[0])] = _Family("the most telling page", analysis.stories[0].policy, stories)
    for name, each in details.told.items() if details else ():
        observed = each.observed or each.story
        family = families.setdefault(_same(observed), _Family(name, each.policy, {observed.policy: observed}))
        family.stories.setdefault(each.policy, each.story)
        family.findings.append(name)
    yield from families.values()
    for told in details.families if details else ():
        yield _Family("", told[0].policy, {story.policy: story for story in told})


def _same(story: Story) -> tuple[object, ...]:
    return story.address, story.steps, story.stays, story.references


class _Lineage:
    """Page families as stories: that of the analysis, those of findings, the busiest others."""

    def __init__(self, analysis: Analysis, details: Details | None) -> None:
        self._analysis = analysis
        self._details = details
        self._figures = Shared()

    def told(self) -> dict[str, Any]:
        families = [self._family(each) for each in _families(self._analysis, self._details)]
        return {"all": families, "figures": self._figures.values}

    def _family(self, family: _Family) -> dict[str, Any]:
        stories = tuple(family.stories.values())
        first = stories[0]
        pids = {int(pid) for story in stories for name in story.owners.values() if (pid := name.rpartition(" ")[2]).isdecimal()}
        shown = next((n for n, s in enumerate(stories) if not s.safe), list(family.stories).index(family.policy))
        where = f"{hexadecimal(first.address)} of {printable(next(iter(first.owners.values()), '?'))}"
        return {
            "findings": family.findings,
            "label": f"{family.label}: {where}" if family.label else where,
            "address": hexadecimal(first.address),
            "who": storyline.owners(first),
            "v": first.address >> PAGE_SHIFT,
            "pids": sorted(pids),
            "spacing": spacing(stories),
            "shown": shown,
            "stories": [self._story(story, stories) for story in stories],
        }

    def _story(self, story: Story, stories: Sequence[Story]) -> dict[str, Any]:
        begin, end = storyline.span(stories)
        unsafe = storyline.dangers(self._analysis, story)
        parted = storyline.parting(stories[0], story)
        return {
            "policy": story.policy,
            "safe": story.safe,
            "standing": story.standing,
            "outcome": printable(story.outcome),
            "pages": [[page, printable(what)] for page, what in story.pages.items()],
            "colours": {page: n % storyline.COLOURS for n, page in enumerate(storyline.page_names(stories))},
            "left_out": figures.left_out(story),
            "steps": list(self._steps(story.steps[:STEPS_SHOWN], begin, end, unsafe, parted)),
            "figures": {
                kind: self._figures.put(figures.picture(story, stories, unsafe, kind)) for kind in get_args(Spacing)
            },
        }  # fmt: skip

    def _steps(
        self, steps: Iterable[Step], begin: int, end: int, unsafe: Sequence[storyline.Danger], parted: Sequence[Step]
    ) -> Iterable[dict[str, Any]]:
        for step in steps:
            danger = storyline.danger_of(step, unsafe)
            told: dict[str, Any] = {"at": since(step.ts - begin, end - begin), "text": printable(step.text)}
            if danger:
                told["danger"] = f"{danger.rule}, {danger.certainty}"
            if step in parted:
                told["parts"] = True
            yield told
