"""Each fork as a row: what it shared, and what was copied of it until its child was gone."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool.memory_events import Op
from tracetool.memory_events import codes as c
from tracetool.processes import owners, with_names
from tracetool.replay import Replay
from tracetool.replay import columns as k
from tracetool.where.once import once

Ints = npt.NDArray[Any]

_MOMENT: Final = 1_000_000


@once
def forks(replay: Replay) -> pl.DataFrame:
    """One row a fork: `fork` (number), `event`, `end_event` (the child's memory is torn down, by exit or exec; -1: it is not), `ts`,
    `end_ns`, `parent_mm`, `child_mm`, `pid` and `comm` of the parent, `child_pid` and `child_comm`, `shared_pages` (that the child mapped
    by it), `parent_pages` (that the parent mapped then, as far as the trace knows).
    """
    events = replay.history.events
    at = np.flatnonzero((events.op == int(Op.FORK)) & (events.arg >= 0) & (events.arg != events.mm))
    child, parent = events.mm[at], events.arg[at].astype(np.int32)
    gone = np.flatnonzero((events.op == int(Op.EXIT)) & (events.flags & c.EXIT_DONE == 0) & (events.mm >= 0))
    first = pl.DataFrame({"child_mm": events.mm[gone], "end_event": gone}).group_by("child_mm").agg(pl.col("end_event").min())
    frame = (
        pl.DataFrame({"event": at, "ts": events.ts[at], "parent_mm": parent, "child_mm": child})
        .with_row_index("fork")
        .join(first, on="child_mm", how="left", maintain_order="left")
        .with_columns(pl.col("end_event").fill_null(-1))
    )
    ends = frame["end_event"].to_numpy()
    frame = frame.with_columns(
        pl.Series("end_ns", np.where(ends >= 0, events.ts[np.maximum(ends, 0)], 0)).set(pl.Series(ends < 0), None),
        pl.Series("shared_pages", _shared(replay, child)),
        pl.Series("parent_pages", _mapped(replay, parent, at)),
    )
    names = owners(replay.processes)
    frame = frame.join(names, left_on="parent_mm", right_on="mm", how="left", maintain_order="left").join(
        names.rename({"pid": "child_pid"}), left_on="child_mm", right_on="mm", how="left", maintain_order="left"
    )
    frame = with_names(frame, replay.processes, "ts", pid="pid", comm="comm")
    # A child is what it is called when it has begun to run: a moment after the fork.
    frame = frame.with_columns(_later=pl.col("end_ns").fill_null(pl.col("ts") + _MOMENT).clip(pl.col("ts"), pl.col("ts") + _MOMENT))
    return with_names(frame, replay.processes, "_later", pid="child_pid", comm="child_comm").drop("_later")


def _shared(replay: Replay, child: Ints) -> Ints:
    """How many pages each child mapped by fork."""
    stays = replay.stay_rows
    by_fork = stays[(stays[:, k.S_BEGAN] == k.FORK) & (stays[:, k.S_PAGE] >= 0)]
    count = np.bincount(replay.history.places[by_fork[:, k.S_PLACE], k.L_MM], minlength=max(replay.history.events.spaces, 1))
    return count[child]


def _mapped(replay: Replay, parent: Ints, at: Ints) -> Ints:
    """How many pages each parent mapped just before it forked."""
    stays = replay.stay_rows[replay.stay_rows[:, k.S_PAGE] >= 0]
    mm = replay.history.places[stays[:, k.S_PLACE], k.L_MM].astype(np.int64)
    last = len(replay.history.events)
    end = np.where(stays[:, k.S_TO] < 0, last, stays[:, k.S_TO])

    def before(moments: Ints) -> Ints:
        """How many of the moments lie before the fork, in its parent's or an address space of a lower number."""
        width = last + 2  # from -1, older than the trace, to the end
        return np.searchsorted(np.sort(mm * width + moments), parent.astype(np.int64) * width + at, side="left")

    # Stays of lower address spaces count in both, and cancel out.
    return before(stays[:, k.S_FROM]) - before(end)


def fork_of(decisions: pl.DataFrame, table: pl.DataFrame) -> pl.Series:
    """The fork that each decision (`event`, `mm`) belongs to, as a series `fork`: the last one, of those whose child is still there, in
    which its address space was parent or child; null: none.
    """
    breaks = _breaks(table)
    asked = decisions.select(pl.col("event").cast(pl.Int64), pl.col("mm").cast(pl.Int32)).with_row_index("_row")
    found = asked.sort("event", maintain_order=True).join_asof(
        breaks.sort("event", maintain_order=True), on="event", by="mm", strategy="backward", check_sortedness=False
    )
    return found.sort("_row")["fork"]


def _breaks(table: pl.DataFrame) -> pl.DataFrame:
    """From which event on which fork is an address space's last living one: `mm`, `event`, `fork` (null: none)."""
    moments: list[tuple[int, bool, int, int]] = []
    for fork, event, end, parent, child in table.select("fork", "event", "end_event", "parent_mm", "child_mm").iter_rows():
        for mm in (parent, child):
            moments.append((event, True, mm, fork))
            if end >= 0:
                moments.append((end, False, mm, fork))
    moments.sort(key=lambda moment: (moment[0], moment[1]))
    alive: dict[int, dict[int, None]] = {}
    rows = []
    for event, begins, mm, fork in moments:
        own = alive.setdefault(mm, {})
        if begins:
            own[fork] = None
        else:
            own.pop(fork, None)
        rows.append((mm, event, next(reversed(own), None)))
    return pl.DataFrame(rows, schema={"mm": pl.Int32, "event": pl.Int64, "fork": pl.UInt32}, orient="row").unique(
        ["mm", "event"], keep="last", maintain_order=True
    )
