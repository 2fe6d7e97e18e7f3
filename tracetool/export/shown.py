"""What of a replay a Perfetto trace shows: page families that tell most, within bounds; what is left out is said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool.analysis import Analysis
from tracetool.replay import Replay
from tracetool.replay import columns as k

Ints = npt.NDArray[Any]

#: Page families that are shown of each replay, unless more are asked for.
FAMILIES: Final = 256
#: Of each replay at most: stays and references of page families, tracks for their places and for those who hold references, places and
#: holders of one family; decisions, findings.
SLICES: Final = 1_000_000
PLACES: Final = 20_000
PLACES_OF_FAMILY: Final = 64
DECISIONS: Final = 500_000
FINDINGS: Final = 100_000
#: Of numbers that are listed, ranges that are written out.
_RANGES: Final = 40

#: Decisions that nobody made.
_NONE: Final = ("in-place", "none", "unseen")


@dataclass(frozen=True)
class Shown:
    """What is shown of one replay.

    `references`, `decisions` and `findings` are all there are, within bounds, with the `rank` of their page family (null: that family is
    not shown); a decision's address space is `space`. `stays` are those of families that are shown, sorted by rank, address space, address
    and time, with the `family` (the page that it began with). `mapped` (`pid`, `from_ns`, `to_ns`) are all stays. `left_out` says in words
    what is missing.
    """

    replay: str
    stays: pl.DataFrame
    references: pl.DataFrame
    decisions: pl.DataFrame
    findings: pl.DataFrame
    mapped: pl.DataFrame
    left_out: list[str]


def choose(replay: Replay, analysis: Analysis, families: int = FAMILIES, pid: int | None = None) -> Shown:
    """Choose so many page families of a replay, with `pid` only of those that this process mapped, and nothing beside them.

    Families with findings come first, then those with most references, decisions, stays.
    """
    tables = _tables(replay, analysis)
    if pid is not None:
        own = tables["stays"].filter(pid=pid).select("family").unique()
        tables = {name: frame.join(own, on="family", how="semi", maintain_order="left") for name, frame in tables.items()}
    left_out: list[str] = []
    for name, most in (("decisions", DECISIONS), ("findings", FINDINGS)):
        tables[name] = _beginning(tables[name], most, name, left_out)
    ranked = _ranked(tables)
    width = pl.col("places").clip(upper_bound=PLACES_OF_FAMILY) + pl.col("holders").clip(upper_bound=PLACES_OF_FAMILY)
    length = pl.col("stays") + pl.col("references")
    kept = ranked.filter(pl.col("rank") < families, length.cum_sum() <= SLICES, width.cum_sum() <= PLACES).select("family", "rank")
    if kept.height < ranked.height:
        lost = ranked.join(kept, on="family", how="anti")
        what = f"{lost.height:,} of {ranked.height:,} page families ({lost['stays'].sum():,} stays)"
        left_out.append(f"{what}: pages {ranges(lost['family'])} and their copies")
    mapped = tables["stays"].select("pid", "from_ns", "to_ns")
    tables = {name: frame.join(kept, on="family", how="left", maintain_order="left") for name, frame in tables.items()}
    stays, references = _in_places(tables["stays"], left_out), _of_few(tables["references"], left_out)
    said = [f"{replay.policy}: {text}" for text in left_out]
    return Shown(replay.policy, stays, references, tables["decisions"], tables["findings"], mapped, said)


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as ranges, `3-7, 9`; of many ranges only the first."""
    ordered = np.unique(np.fromiter(numbers, np.int64))
    breaks = np.flatnonzero(np.diff(ordered) != 1)
    begins, ends = ordered[np.append(0, breaks + 1)], ordered[np.append(breaks, len(ordered) - 1)]
    listed = list(zip(begins.tolist(), ends.tolist(), strict=True))[:_RANGES]
    more = int((ordered > listed[-1][1]).sum())
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in listed) + (f" and {more:,} more" if more else "")


def _tables(replay: Replay, analysis: Analysis) -> dict[str, pl.DataFrame]:
    """All there is to show, each row with its page family."""
    made = replay.fault_rows.filter(~pl.col("decision").is_in(list(_NONE)))
    # A decision of GUP is the work of another address space than the one whose page it is about.
    at, spaces = made["place"].to_numpy(), np.append(replay.history.places[:, k.L_MM], -1)
    made = made.with_columns(
        space=pl.Series(spaces[np.where(at >= 0, at, -1)]).cast(pl.Int32), page=pl.coalesce("page_before", "page_after")
    )
    return {
        "stays": _with_family(replay, replay.stays.filter(pl.col("page_id") >= 0), "page_id"),
        "references": _with_family(replay, replay.reference_rows.drop_nulls("page_id"), "page_id"),
        "decisions": _with_family(replay, made.sort("ts", maintain_order=True), "page"),
        "findings": _with_family(replay, analysis.findings.filter(policy=replay.policy).sort("from_ns", maintain_order=True), "page_id"),
    }


def _with_family(replay: Replay, frame: pl.DataFrame, page: str) -> pl.DataFrame:
    """Rows with the page that the family of theirs began with; null where no page is known."""
    pages = frame[page].cast(pl.Int64).fill_null(-1).to_numpy()
    root = np.append(replay.family_of_page, -1)
    known = (pages >= 0) & (pages < len(root) - 1)
    family = np.where(known, root[np.where(known, pages, -1)], pages)
    return frame.with_columns(family=pl.Series(family, dtype=pl.Int64).set(pl.Series(family < 0), None))


def _beginning(frame: pl.DataFrame, most: int, what: str, left_out: list[str]) -> pl.DataFrame:
    if frame.height > most:
        left_out.append(f"{frame.height - most:,} of {frame.height:,} {what}: the last ones")
    return frame.head(most)


def _ranked(tables: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """All families, those that tell most first: `family`, `stays`, `places`, `references`, `holders`, `rank`."""
    counted = tables["stays"].group_by("family").agg(stays=pl.len(), places=pl.struct("mm", "address").n_unique())
    for name in ("references", "decisions", "findings"):
        counted = counted.join(tables[name].group_by("family").agg(pl.len().alias(name)), on="family", how="left")
    holders = tables["references"].group_by("family").agg(holders=pl.col("by_pid").n_unique())
    counted = counted.join(holders, on="family", how="left")
    by = ("findings", "references", "decisions", "stays")
    return (
        counted.with_columns(pl.col(*by, "places", "holders").fill_null(0).cast(pl.Int64))
        .sort(*by, "family", descending=[True] * len(by) + [False])
        .with_row_index("rank")
        .with_columns(pl.col("rank").cast(pl.Int64))
    )


def _in_places(stays: pl.DataFrame, left_out: list[str]) -> pl.DataFrame:
    """The stays of families that are shown, without those at places beyond the bound of a family."""
    own = stays.drop_nulls("rank").sort("rank", "mm", "address", "from_event", "to_event", maintain_order=True)
    own = own.with_columns(_place=pl.struct("mm", "address").rle_id().over("rank"))
    crowded = own.filter(pl.col("_place") >= PLACES_OF_FAMILY)
    if crowded.height:
        what = f"{crowded.height:,} stays in families of more than {PLACES_OF_FAMILY} places"
        left_out.append(f"{what}: pages {ranges(crowded['family'].unique())} and their copies")
    return own.filter(pl.col("_place") < PLACES_OF_FAMILY).drop("_place")


def _of_few(references: pl.DataFrame, left_out: list[str]) -> pl.DataFrame:
    """The references, without a rank where their families have holders beyond the bound and theirs is one of those."""
    number = pl.col("by_pid").fill_null(-1).rank("dense").over("rank")
    crowded = references.filter(pl.col("rank").is_not_null(), number > PLACES_OF_FAMILY)
    if crowded.height:
        what = f"{crowded.height:,} references to families that more than {PLACES_OF_FAMILY} processes hold"
        left_out.append(f"{what}: pages {ranges(crowded['family'].unique())} and their copies")
    return references.with_columns(rank=pl.when(number <= PLACES_OF_FAMILY).then("rank"))
