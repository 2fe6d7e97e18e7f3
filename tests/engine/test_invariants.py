"""What holds of every replay at all times, over every recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import tracetool
from conftest import FIXTURES, fixture_traces, traces_folder
from tracetool.memory_events import Op
from tracetool.memory_events import codes as c
from tracetool.replay import columns as k

#: All fixtures; beside them, where there are any, the recordings outside the project.
OUTSIDE = sorted(folder.glob("*/*.dat")) if (folder := traces_folder()) else []
every_recording = pytest.mark.parametrize(
    "path",
    [
        *(pytest.param(path, id=path.stem) for path in (*fixture_traces(), *sorted((FIXTURES / "transitions").glob("*.dat")))),
        *(pytest.param(path, id=f"{path.parent.name}-{path.stem}", marks=pytest.mark.exhaustive) for path in OUTSIDE),
    ],
)


def spans(rows: np.ndarray[Any, Any], keys: list[np.ndarray[Any, Any]], start: int, end: int, forever: int) -> pl.DataFrame:
    """Rows as spans of events by key, in order of their begin."""
    frame = pl.DataFrame({f"key{n}": key for n, key in enumerate(keys)} | {"start": rows[:, start], "end": rows[:, end]})
    return frame.with_columns(pl.when(pl.col("end") < 0).then(forever).otherwise("end").alias("end")).sort(
        "start", "end", maintain_order=True
    )


def overlaps(frame: pl.DataFrame) -> int:
    keys = [name for name in frame.columns if name.startswith("key")]
    return frame.with_columns(before=pl.col("end").shift(1).over(keys)).filter(pl.col("before") > pl.col("start")).height


@every_recording
def test_nothing_is_at_one_address_twice(path: Path) -> None:
    history = tracetool.open(path).history
    place = history.places[history.stays[:, k.S_PLACE]]
    found = spans(history.stays, [place[:, k.L_MM], place[:, k.L_VPN]], k.S_FROM, k.S_TO, len(history.events))
    assert found.height > 15
    assert (found["start"] <= found["end"]).all()
    assert overlaps(found) == 0


@every_recording
def test_a_frame_has_one_life_at_a_time(path: Path) -> None:
    """From the first to the last that maps or references it, a page has its frame to itself."""
    history = tracetool.open(path).history
    mapped = history.stays[history.stays[:, k.S_PAGE] >= 0]
    used = pl.concat(
        [
            spans(mapped, [history.page_frames[mapped[:, k.S_PAGE]], mapped[:, k.S_PAGE]], k.S_FROM, k.S_TO, len(history.events)),
            spans(
                history.refs,
                [history.page_frames[history.refs[:, k.R_PAGE]], history.refs[:, k.R_PAGE]],
                k.R_FROM,
                k.R_TO,
                len(history.events),
            ),
        ]
    )
    lives = used.group_by("key0", "key1").agg(pl.col("start").min(), pl.col("end").max()).sort("start")
    assert lives.height == history.pages
    assert overlaps(lives.select("key0", "start", "end")) == 0


@every_recording
def test_mapcounts_of_decisions_are_the_owners_counted(path: Path) -> None:
    replay = tracetool.open(path).replay()
    history, decisions = replay.history, replay.fault_rows.filter(pl.col("page_before").is_not_null())
    assert decisions.height > 0
    start, end, page = (history.stays[:, column] for column in (k.S_FROM, k.S_TO, k.S_PAGE))
    for row in decisions.iter_rows(named=True):
        owners = (page == row["page_before"]) & (start < row["event"]) & ((end < 0) | (end >= row["event"]))
        # A copy that another thread is making has taken its place already, and the kernel counts the old mapping until it is removed.
        made = history.decisions
        under_way = (made[:, k.D_BEFORE] == row["page_before"]) & (made[:, k.D_FROM] < row["event"]) & (made[:, k.D_TO] > row["event"])
        assert owners.sum() <= row["mapcount"] <= owners.sum() + under_way.sum(), row
        held = history.refs[:, k.R_PAGE] == row["page_before"]
        held &= (history.refs[:, k.R_FROM] < row["event"]) & ((history.refs[:, k.R_TO] < 0) | (history.refs[:, k.R_TO] > row["event"]))
        assert held.sum() == row["references"], row


@every_recording
def test_steps_tell_the_same_story_as_page_tables(path: Path) -> None:
    """The steps, replayed with the recorded decisions, give at each place the stays that the page tables had, one after the other.

    A copy counts from its fault's begin in the one and from its mapping in the other.
    """
    replay = tracetool.open(path).replay()

    def told(stays: np.ndarray[Any, Any]) -> list[list[int]]:
        order = np.argsort(stays[:, k.S_PLACE], kind="stable")
        rows: list[list[int]] = stays[order][:, [k.S_PLACE, k.S_PAGE, k.S_ENDED]].tolist()
        return rows

    assert told(replay.outcome.stays) == told(replay.history.stays)


@every_recording
def test_nobody_owns_anything_after_teardown(path: Path) -> None:
    history = tracetool.open(path).history
    events = history.events
    over = np.flatnonzero((events.op == int(Op.EXIT)) & (events.flags & c.EXIT_DONE != 0))
    assert over.size > 0
    ended = np.full(events.spaces, len(events), np.int64)
    ended[events.mm[over]] = over
    limit = ended[history.places[history.stays[:, k.S_PLACE], k.L_MM]]
    open_still = history.stays[:, k.S_TO] < 0
    assert (limit[open_still] == len(events)).all()
    assert (history.stays[:, k.S_TO] <= limit).all()
    assert (history.stays[:, k.S_FROM] < limit).all()


@every_recording
def test_no_reference_is_released_twice(path: Path) -> None:
    history = tracetool.open(path).history
    released = history.steps[history.steps[:, k.H_OP] == k.STEP_UNREF, k.H_A]
    assert len(np.unique(released)) == len(released)
    assert sorted(released) == np.flatnonzero(history.refs[:, k.R_TO] >= 0).tolist()
    assert ((history.refs[:, k.R_TO] < 0) == (history.refs[:, k.R_RELEASED] == k.UNKNOWN)).all()
    assert ((history.refs[:, k.R_TO] < 0) | (history.refs[:, k.R_TO] > history.refs[:, k.R_FROM])).all()


@every_recording
def test_nothing_was_missed_or_mended(path: Path) -> None:
    """The fixtures lost no event: every unmap is that of a known page, every page's end was seen."""
    history = tracetool.open(path).history
    assert (history.unknown_unmaps, history.healed) == (0, 0)
