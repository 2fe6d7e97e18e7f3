"""A trace for ui.perfetto.dev: who held which page when, as slices on tracks of processes and of page families.

- Each process has a track; below it every COW decision and every finding about what it holds is an instant, and how many pages it maps
  and how many references it holds are counters.
- Each page family (a page and the copies made of it, and of those) has a track; below it a track for each address of each process that
  mapped one of its pages, on which stays are slices and decisions instants, tracks for references, which are slices, and for findings.

A family takes a track for each of its places, so not all of a large trace can be shown (`tracetool.export.shown`). What is left out is
said in the trace itself, by the instant `about this trace`, and by what `write` returns.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool import __version__
from tracetool.analysing import analyse
from tracetool.analysis import Analysis
from tracetool.errors import Unanswerable
from tracetool.export.files import whole
from tracetool.export.packets import COUNTER, INSTANT, SLICE_BEGIN, SLICE_END, Events, Tracks, packets
from tracetool.export.shown import FAMILIES, Shown, choose, ranges
from tracetool.export.tables import about
from tracetool.policies import Policy
from tracetool.replay import OBSERVED
from tracetool.trace import Trace
from tracetool_parsers.loops import loop

Ints = npt.NDArray[Any]

#: Processes that have a track, points of a counter, references of one process to one family that are shown side by side.
_PROCESSES: Final = 1_000
_POINTS: Final = 2_000
_ABREAST: Final = 32
_LISTED: Final = 20
_FOR_EVER: Final = np.iinfo(np.int64).max

_POINTERS: Final = frozenset({"address", "pfn", "pfn_before", "pfn_after"})
_STAY: Final = ("page_id", "pfn", "mm", "pid", "comm", "address", "began", "ended", "order")
_REFERENCE: Final = (
    "reference", "page_id", "pfn", "mm", "pid", "by_pid", "comm", "address", "kind", "access", "longterm", "via", "holder", "released",
)  # fmt: skip
_DECISION: Final = (
    "decision", "reason", "tid", "pid", "mm", "address", "page_before", "page_after", "pfn_before", "pfn_after", "mapcount", "references",
    "duration_ns", "in_kernel", "pages", "event",
)  # fmt: skip
_FINDING: Final = (
    "id", "rule", "policy", "certainty", "severity", "pid", "comm", "mm", "address", "pfn", "page_id", "to_ns", "by_pid", "via", "area",
    "call_site", "fingerprint", "summary",
)  # fmt: skip


@dataclass
class Written:
    """What was written: how many slices (stays and references), instants, counter values and tracks, and in words what was left out."""

    slices: int = 0
    instants: int = 0
    counters: int = 0
    tracks: int = 0
    left_out: list[str] = field(default_factory=list)


def export_perfetto(
    trace: Trace, path: str | os.PathLike[str], policies: Sequence[Policy] = (), *, families: int = FAMILIES, pid: int | None = None
) -> Written:
    """Write the observed replay of a trace, and its replay under `policies`, to a file, which is in its place only once all is written.

    Args:
        trace: the trace.
        path: the file.
        policies: what else to replay it under.
        families: page families of each replay that are shown.
        pid: show the families of this process's pages only, and what is about them.

    Raises:
        Unanswerable: no page is known that the process `pid` mapped.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile, tracetool
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = export_perfetto(tracetool.open("fixtures/mail-6.1.dat"), Path(folder, "mail.pftrace"))
        >>> written.slices, written.left_out
        (44, [])
    """
    with whole(path) as beside, open(beside, "xb") as file:
        return write(trace, analyse(trace, policies), file, families=families, pid=pid)


def write(trace: Trace, analysis: Analysis, file: IO[bytes], *, families: int = FAMILIES, pid: int | None = None) -> Written:
    """The same to an open file, which needs not be seekable; raises Unanswerable, OSError."""
    shown = [choose(replay, analysis, families, pid) for replay in analysis.replays.values()]
    if pid is not None and not any(each.mapped.height for each in shown):
        pids = trace.replay().stays["pid"].drop_nulls().unique().sort().head(_LISTED).to_list()
        hint = f"processes with pages: {', '.join(map(str, pids)) or 'none'}"
        raise Unanswerable(f"no page is known that process {pid} mapped", path=trace.raw.metadata.path, hint=hint)
    first = (trace.raw.span() or (0, 0))[0]
    tracks, told = Tracks(), Written()
    processes = _Processes(tracks, trace, shown, told.left_out)
    events = [group for each in shown for group in (*processes.events(each, first), *_families(tracks, each, first))]
    told.left_out += [text for each in shown for text in each.left_out]
    events.append(_about(tracks, trace, analysis, first, told.left_out))
    told.tracks = tracks.count
    for group in events:
        told.slices += len(group) * (group.type == SLICE_BEGIN)
        told.instants += len(group) * (group.type == INSTANT)
        told.counters += len(group) * (group.type == COUNTER)
    for part in packets(tracks, events):
        file.write(part)
    return told


# --- processes ------------------------------------------------------------------------------------------------------------------------


class _Processes:
    """The tracks of processes."""

    def __init__(self, tracks: Tracks, trace: Trace, shown: Sequence[Shown], left_out: list[str]) -> None:
        """Add them; where there are too many, those that decided most, then those that held and mapped most."""
        self._tracks = tracks
        weights = [
            (each, by, weight)
            for one in shown
            for each, by, weight in (
                (one.decisions, "pid", 1e6),
                (one.findings, "pid", 1e6),
                (one.references, "by_pid", 1e3),
                (one.mapped, "pid", 1),
            )
        ]
        named = pl.concat(
            [each.select(pl.col(by).cast(pl.Int64).alias("pid"), weight=pl.lit(float(weight))) for each, by, weight in weights]
        )
        found = named.drop_nulls("pid").group_by("pid").agg(pl.col("weight").sum()).sort("weight", "pid", descending=[True, False])
        if found.height > _PROCESSES:
            others = found["pid"][_PROCESSES:]
            left_out.append(f"{len(others):,} of {found.height:,} processes: {ranges(others)}")
        own = found.head(_PROCESSES).sort("pid").join(_names(trace), on="pid", how="left", maintain_order="left")
        self._known = own.select("pid", above=pl.Series(tracks.add(own["comm"], pids=own["pid"], ordered=True)))

    def events(self, shown: Shown, first: int) -> list[Events]:
        """What is told of them in one replay."""
        decisions = self._below(shown.decisions, "pid", f"COW decisions ({shown.replay})")
        findings = self._below(shown.findings, "pid", f"findings ({shown.replay})")
        counters = [_counter(self._below(shown.mapped, "pid", f"pages mapped ({shown.replay})", counters=True), first)]
        if shown.replay == OBSERVED:
            counters.append(_counter(self._below(shown.references, "by_pid", "references held", counters=True), first))
        return [_decisions(decisions, ("decision",)), _findings(findings, ("finding",), first), *counters]

    def _below(self, frame: pl.DataFrame, pid: str, name: str, *, counters: bool = False) -> pl.DataFrame:
        """The rows of processes that have a track, each with the number of the track of that name below it (`track`)."""
        rows = frame.with_columns(_pid=pl.col(pid).cast(pl.Int64))
        own = self._known.join(rows, left_on="pid", right_on="_pid", how="semi", maintain_order="left")
        track = self._tracks.add(_repeated(name, own.height), own["above"].to_numpy(), counters=counters)
        return rows.join(own.select(_pid="pid", track=pl.Series(track)), on="_pid", how="inner", maintain_order="left")


def _names(trace: Trace) -> pl.DataFrame:
    """What each process (`pid`) was last called: `comm`."""
    by_time = trace.processes.sort("from_ns", maintain_order=True).with_columns(pl.col("pid").cast(pl.Int64))
    main = pl.col("comm").filter(pl.col("tid") == pl.col("pid")).last()
    return by_time.group_by("pid").agg(pl.coalesce(main, pl.col("comm").last()).alias("comm"))


def _counter(frame: pl.DataFrame, first: int) -> Events:
    """How many there are on each track of what rows tell the begin and the end; of many changes every so manieth, and the last."""
    begun = frame.select("track", ts=pl.col("from_ns").fill_null(first), change=pl.lit(1, pl.Int64))
    ended = frame.drop_nulls("to_ns").select("track", ts="to_ns", change=pl.lit(-1, pl.Int64))
    values = (
        pl.concat([begun, ended])
        .group_by("track", "ts")
        .agg(pl.col("change").sum())
        .sort("track", "ts")
        .with_columns(
            value=pl.col("change").cum_sum().over("track"),
            at=pl.int_range(pl.len(), dtype=pl.Int64).over("track"),
            of=pl.len().over("track").cast(pl.Int64),
        )
    )
    step = pl.max_horizontal(pl.col("of") // _POINTS, 1)
    values = values.filter((pl.col("at") % step == 0) | (pl.col("at") == pl.col("of") - 1))
    place, track = np.zeros(values.height, np.int64), values["track"].to_numpy()
    return Events(COUNTER, values["ts"].to_numpy(), place, track, values=values["value"].to_numpy())


# --- page families --------------------------------------------------------------------------------------------------------------------


def _families(tracks: Tracks, shown: Shown, first: int) -> list[Events]:
    """The tracks of the page families of one replay, and what is on them."""
    if not shown.stays.height:
        return []
    root = tracks.add(pl.Series([f"page families ({shown.replay})"]), ordered=True)
    begun = shown.stays.group_by("rank").agg(pl.col("family", "address").first()).sort("rank")
    names = [f"page {page} at {address:#x}" for page, address in begun.select("family", "address").iter_rows()]
    families = begun.select("rank", above=pl.Series(tracks.add(pl.Series(names), root[0], ordered=True)))
    stays = shown.stays.join(families, on="rank", how="left", maintain_order="left")
    stays = stays.with_columns(lane=pl.struct("rank", "mm", "address").rle_id())
    places = stays.group_by("lane").agg(pl.col("rank", "above", "mm", "address", "pid", "comm").first()).sort("lane")
    owners = [
        f"{_or_unknown(comm)} {_or_unknown(pid)} at {address:#x}"
        for comm, pid, address in places.select("comm", "pid", "address").iter_rows()
    ]
    places = places.with_columns(track=pl.Series(tracks.add(pl.Series(owners), places["above"].to_numpy())))
    stays = stays.with_columns(places["track"].gather(stays["lane"]))
    at = places.select("rank", "address", "track", space="mm")
    decided = shown.decisions.join(at, on=["rank", "space", "address"], how="inner", maintain_order="left")
    held = shown.references.join(families, on="rank", how="inner", maintain_order="left")
    told = shown.findings.join(families, on="rank", how="inner", maintain_order="left")
    below = told.select("above").unique(maintain_order=True)
    below = below.with_columns(track=pl.Series(tracks.add(_repeated("findings", below.height), below["above"].to_numpy())))
    return [
        *_slices(stays, first, ("ownership",), pl.format("page {}", "page_id"), _STAY),
        *_held(tracks, held, first, shown),
        _decisions(decided, ("decision", "family")),
        _findings(told.join(below, on="above", how="left", maintain_order="left"), ("finding", "family"), first),
    ]


def _held(tracks: Tracks, references: pl.DataFrame, first: int, shown: Shown) -> list[Events]:
    """References as slices, side by side where those of one process overlap."""
    frame = references.sort("rank", "by_pid", "from_ns", "reference", maintain_order=True)
    frame = frame.with_columns(group=pl.struct("rank", "by_pid").rle_id())
    begin, end = frame["from_ns"].fill_null(first).to_numpy(), frame["to_ns"].fill_null(_FOR_EVER).to_numpy()
    lane, busy = np.zeros(frame.height, np.int64), np.zeros(_ABREAST, np.int64)
    abreast.run(frame.height, frame["group"].cast(pl.Int64).to_numpy(), begin.astype(np.int64), end.astype(np.int64), busy, lane)
    if (lane < 0).any():
        number = int((lane < 0).sum())
        shown.left_out.append(f"{shown.replay}: {number:,} references of processes that held more than {_ABREAST} of one family at once")
    frame = frame.with_columns(lane=pl.Series(lane)).filter(pl.col("lane") >= 0).sort("group", "lane", maintain_order=True)
    frame = frame.with_columns(row=pl.struct("group", "lane").rle_id())
    rows = frame.group_by("row").agg(pl.col("above", "comm", "by_pid").first()).sort("row")
    # Tracks of one name are shown as one.
    owners = [f"references of {_or_unknown(comm)} {_or_unknown(pid)}" for comm, pid in rows.select("comm", "by_pid").iter_rows()]
    track = pl.Series(tracks.add(pl.Series(owners, dtype=pl.String), rows["above"].to_numpy()))
    name = pl.format("{} page {} via {}", pl.col("access").cast(pl.String), "page_id", pl.col("via").cast(pl.String))
    return _slices(frame.with_columns(track=track.gather(frame["row"])), first, ("reference",), name, _REFERENCE)


@loop
def abreast(group: Ints, begin: Ints, end: Ints, busy: Ints, lane: Ints) -> None:
    """Give each row (sorted by group and begin) the first lane of its group that is free by then, -1 where `busy` has no more lanes."""
    current, used = -1, 0
    for i in range(len(group)):
        if group[i] != current:
            current, used = group[i], 0
        free = 0
        while free < used and busy[free] > begin[i]:
            free += 1
        lane[i] = free if free < len(busy) else -1
        if free < len(busy):
            busy[free] = end[i]
            used = max(used, free + 1)


# --- events ---------------------------------------------------------------------------------------------------------------------------


def _slices(frame: pl.DataFrame, first: int, categories: tuple[str, ...], name: pl.Expr, notes: Sequence[str]) -> list[Events]:
    """The begins and ends of rows that are sorted by track and time and do not overlap on a track; without an end they stay open."""
    place = np.arange(frame.height, dtype=np.int64) * 2
    begin, track = frame["from_ns"].fill_null(first).to_numpy(), frame["track"].to_numpy()
    ended = frame["to_ns"].is_not_null().to_numpy()
    end = np.maximum(frame["to_ns"].fill_null(0).to_numpy(), begin)[ended]
    older = frame.select(before_trace=pl.when(pl.col("from_ns").is_null()).then(True))["before_trace"]
    told = {**_notes(frame, notes), "before_trace": older}
    return [
        Events(SLICE_BEGIN, begin, place, track, categories, frame.select(name=name)["name"], notes=told, pointers=_POINTERS),
        Events(SLICE_END, end, place[ended] + 1, track[ended]),
    ]


def _decisions(frame: pl.DataFrame, categories: tuple[str, ...]) -> Events:
    name = pl.format("{} ({})", pl.col("decision").cast(pl.String), pl.col("reason").cast(pl.String))
    return _instants(frame, pl.col("ts"), categories, name, _DECISION)


def _findings(frame: pl.DataFrame, categories: tuple[str, ...], first: int) -> Events:
    return _instants(frame, pl.col("from_ns").fill_null(first), categories, pl.format("{} ({})", "rule", "certainty"), _FINDING)


def _instants(frame: pl.DataFrame, at: pl.Expr, categories: tuple[str, ...], name: pl.Expr, notes: Sequence[str]) -> Events:
    told = frame.select(at=at, name=name)
    place, track = np.arange(frame.height, dtype=np.int64), frame["track"].to_numpy()
    return Events(INSTANT, told["at"].to_numpy(), place, track, categories, told["name"], notes=_notes(frame, notes), pointers=_POINTERS)


def _notes(frame: pl.DataFrame, names: Sequence[str]) -> dict[str, pl.Series]:
    """Columns as notes: strings, Booleans, integers."""
    words = [name for name in names if isinstance(frame.schema[name], pl.Enum | pl.Categorical)]
    return frame.select(names).with_columns(pl.col(words).cast(pl.String)).to_dict()


def _about(tracks: Tracks, trace: Trace, analysis: Analysis, first: int, left_out: Sequence[str]) -> Events:
    """One instant at the begin that says what this is, and what it leaves out."""
    said: Mapping[str, Any] = {
        **about(trace),
        "replays": ", ".join(analysis.replays),
        "tracetool": __version__,
        **{f"left_out_{number}": text for number, text in enumerate(left_out, 1)},
    }
    notes = {name: pl.Series([value]) for name, value in said.items() if value is not None}
    track = tracks.add(pl.Series(["tracetool"]))
    return Events(INSTANT, np.array([first]), np.zeros(1, np.int64), track, ("about",), pl.Series(["about this trace"]), notes=notes)


def _repeated(name: str, times: int) -> pl.Series:
    return pl.Series([name] * times, dtype=pl.String)


def _or_unknown(value: object) -> object:
    return "?" if value is None else value
