"""Page frames over time: as the replay's own answer for each moment, and exact for histories that are made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tracetool
from conftest import every_recording, fixture_path
from engine.build import BASE, Machine, address
from tracetool.costs import cost
from tracetool.costs.memory import KEPT_BY, memory

A, B = 10, 11


@pytest.mark.parametrize("path", every_recording())
def test_pages_over_time_are_those_of_the_replay_at_every_mark(path: Path) -> None:
    trace = tracetool.open(path)
    for policy in ("observed", "exclusive"):
        replay = trace.replay(policy)
        timeline = memory(replay).timeline
        marks = trace.marks()["event"].to_list() or np.linspace(0, len(replay.history.events) - 1, 9, dtype=int).tolist()
        for event in marks[:: max(len(marks) // 12, 1)]:
            stays = replay.stays.filter(
                pl.col("page_id") >= 0, pl.col("from_event") <= event, (pl.col("to_event") < 0) | (pl.col("to_event") > event)
            )
            mapped = stays.group_by("page_id").len()
            refs = replay.reference_rows.filter(
                pl.col("from_event") <= event, (pl.col("to_event") < 0) | (pl.col("to_event") > event), pl.col("page_id").is_not_null()
            )
            alone = set(refs["page_id"]) - set(mapped["page_id"])
            expected = ((mapped["len"] == 1).sum(), (mapped["len"] > 1).sum(), len(alone))
            told = timeline.filter(pl.col("event") <= event).tail(1)
            assert (told.select(KEPT_BY).row(0) if told.height else (0, 0, 0)) == expected, (policy, event)


def test_what_keeps_each_page() -> None:
    """The mail: B's page is once, then shared, then P0 is kept by A's reference alone, until that is released."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), 50)
    b = m.fork(a, B, [(BASE, 1)])
    taken = m.vmsplice(a, address(0), 50)
    m.cow(a, address(0), 50, 51)
    copied = m.cow(b, address(0), 50, 52)
    held_from = m.now
    m.pipe_release(A, 50)
    released = m.now
    told = memory(m.replay())
    # A's page of stack is its own throughout, and is not forked.
    counts = told.timeline.select("ts", *KEPT_BY).rows()
    assert counts[-1][1:] == (3, 0, 0)
    assert [row[1:] for row in counts if taken < row[0] < copied] == [(3, 0, 0)]
    alone = [(row[0], row[3]) for row in counts if row[3]]
    assert len(alone) == 1
    assert copied < alone[0][0] <= held_from
    assert told.page_seconds["referenced"] == pytest.approx((released - alone[0][0]) / 1e9)
    assert (told.peak, cost(m.replay()).peak_pages) == (4, 4)


def test_nothing_mapped_is_nothing() -> None:
    m = Machine()
    m.mark(A, "nothing")
    told = memory(m.replay())
    assert (told.peak, told.peak_ns, told.timeline.height) == (0, None, 0)
    assert told.page_seconds == dict.fromkeys(KEPT_BY, 0.0)


def test_what_is_asked_of_a_replay_twice_is_worked_out_once_and_not_kept_beyond_it() -> None:
    import gc
    import weakref

    trace = tracetool.open(fixture_path("mail-6.1.dat"))
    replay = trace.replay("page-count")
    assert memory(replay) is memory(replay)
    assert memory(replay) is not memory(trace.replay("mapcount"))
    gone = weakref.ref(replay)
    del replay, trace
    gc.collect()
    assert gone() is None
