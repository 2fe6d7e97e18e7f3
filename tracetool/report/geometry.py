"""Where the picture puts things: time stamps on the x axis, owners in lanes beneath each other, references in rows of a lane."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from tracetool.analysis import Held, Stay, Story
from tracetool.report.storyline import span
from tracetool.report.words import since, time_unit

Floats = npt.NDArray[np.float64]
Spacing = Literal["time", "steps"]

BARS_SHOWN: Final = 2000
LANES_SHOWN: Final = 40
STEPS_SHOWN: Final = 200
#: Times beneath a picture step by step.
TICKS_SHOWN: Final = 16

# Heights in rows: a lane is its title, the marks, the bar of stays, then a bar and a label for each row of references.
TITLE: Final = 0.25
MARKS: Final = 1.15
STAYS: Final = 1.8
REFERENCES: Final = 2.4
REFERENCE_ROW: Final = 0.75
_WITHOUT_REFERENCES: Final = 2.3
_GAP: Final = 0.35


@dataclass(frozen=True)
class Axis:
    """The x axis: `place` maps time stamps (int64 ns) to floats, `end` is where what has no end stops, `layout` is plotly's."""

    place: Callable[[Sequence[int]], Floats]
    end: int
    layout: dict[str, Any]

    def extent(self, bars: Sequence[Stay | Held]) -> tuple[Floats, Floats]:
        """Begin and length of each bar."""
        begin = self.place([bar.from_ns for bar in bars])
        return begin, self.place([self.end if bar.to_ns is None else bar.to_ns for bar in bars]) - begin

    def beside(self, begin: float, end: float) -> dict[str, Any]:
        """A label for what lies from `begin` to `end`: in the last two fifths it ends there, so that a narrow picture does not cut it."""
        left, right = self.layout["range"]
        return {"x": end, "xanchor": "right"} if begin > left + (right - left) * 0.6 else {"x": begin, "xanchor": "left"}


@dataclass(frozen=True)
class Lane:
    """An owner's lane: its top in rows from the top of the picture, growing downwards, and the row of each of its references."""

    top: float
    rows: tuple[int, ...]


def spacing(stories: Sequence[Story]) -> Spacing:
    """`steps` where some step lies within a fiftieth of the width from the next one, and would be hidden by it; else `time`."""
    first, last = span(stories)
    times = sorted({step.ts for story in stories for step in story.steps})
    return "time" if all(later - earlier > (last - first) / 50 for earlier, later in itertools.pairwise(times)) else "steps"


def axis(stories: Sequence[Story], kind: Spacing) -> Axis:
    """The x axis that the pictures of all policies share: to scale, or the steps evenly spaced with their times at the ticks."""
    first, last = span(stories)
    end = last + max((last - first) // 16, 1)
    unit, scale = time_unit(last - first)
    title = f"{unit} since the first event of this page"
    if kind == "time":
        margin = (end - first) / scale / 30
        layout: dict[str, Any] = {"title": {"text": title}, "range": [-margin, (end - first) / scale]}
        return Axis(lambda ts: np.clip(_relative(ts, first), 0, end - first) / scale, end, layout)
    times = sorted({first, *(step.ts for story in stories for step in story.steps)})
    known = _relative([*times, max(end, times[-1] + 1)], first)
    places = np.arange(len(known), dtype=np.float64)
    apart = -(-len(times) // TICKS_SHOWN)
    layout = {
        "title": {"text": f"{title} (not to scale)", "standoff": 6},
        "range": [-0.3, len(known) - 1.0],
        "automargin": True,
        "tickvals": list(range(0, len(times), apart)),
        "ticktext": [since(ts - first, last - first).removesuffix(f" {unit}") for ts in times[::apart]],
    }
    return Axis(lambda ts: np.interp(_relative(ts, first), known, places), end, layout)


def lanes(story: Story) -> tuple[dict[str, Lane], float]:
    """The lanes of the first LANES_SHOWN owners, and the height of them all in rows."""
    found, top = {}, 0.0
    for owner in list(story.owners)[:LANES_SHOWN]:
        rows = packed([held for held in story.references[:BARS_SHOWN] if held.owner == owner])
        found[owner] = Lane(top, rows)
        top += _GAP + (REFERENCES + REFERENCE_ROW * (max(rows) + 1) - 0.2 if rows else _WITHOUT_REFERENCES)
    return found, top


def packed(held: Sequence[Held]) -> tuple[int, ...]:
    """A row for each reference, so that those that overlap in time lie beneath each other."""
    free: list[float] = []
    rows = []
    for one in held:
        row = next((i for i, until in enumerate(free) if until <= one.from_ns), len(free))
        free[row : row + 1] = [float("inf") if one.to_ns is None else one.to_ns]
        rows.append(row)
    return tuple(rows)


def _relative(ts: Sequence[int], first: int) -> Floats:
    # Subtracted as integers: a clock in ns since boot has more digits than a float holds.
    return (np.asarray(ts, np.int64) - first).astype(np.float64)
