"""Memory over time: page frames in use, and what keeps each: one mapping, several, or a reference alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool.replay import Replay
from tracetool.replay import columns as k
from tracetool.where.once import once

Ints = npt.NDArray[Any]

#: What keeps a page: one mapping, several, a reference alone.
KEPT_BY: Final = ("once", "shared", "referenced")


@dataclass(frozen=True)
class Memory:
    """`timeline`: after each memory event (`event`, `ts`) that changes it, the page frames in use: `once`, `shared`, `referenced`, `pages`
    (their sum). `peak`: the most `pages`, `peak_ns` when first. `page_seconds`: of each of `KEPT_BY`, over the time of the trace.
    """

    timeline: pl.DataFrame
    peak: int
    peak_ns: int | None
    page_seconds: dict[str, float]


@once
def memory(replay: Replay) -> Memory:
    """Follow every page of a replay from its first mapping to its last mapping or reference."""
    events = replay.history.events
    page, at, mappings, references = _changes(replay)
    if not page.size:
        return Memory(pl.DataFrame(schema=_SCHEMA), 0, None, dict.fromkeys(KEPT_BY, 0.0))
    first = np.flatnonzero(np.diff(page, prepend=page[0] - 1))
    mapped, held = _running(mappings, first), _running(references, first)
    kept = np.where(mapped > 1, 1, np.where(mapped == 1, 0, np.where(held > 0, 2, -1)))
    before = np.roll(kept, 1)
    before[first] = -1
    changed = kept != before
    order = np.argsort(at[changed], kind="stable")
    when = at[changed][order]
    deltas = np.stack(
        [(kept[changed][order] == kind).astype(np.int64) - (before[changed][order] == kind) for kind in range(len(KEPT_BY))], axis=1
    )
    moments, last = np.unique(when[::-1], return_index=True)
    counts = np.cumsum(deltas, axis=0)[len(when) - 1 - last]
    ts = np.where(moments >= 0, events.ts[np.maximum(moments, 0)], events.ts[0])
    frame = pl.DataFrame({"event": moments, "ts": ts, **{name: counts[:, i] for i, name in enumerate(KEPT_BY)}}).with_columns(
        pages=pl.sum_horizontal(KEPT_BY)
    )
    until = np.append(ts[1:], int(events.ts[-1]))
    seconds = {name: float((counts[:, i] * (until - ts)).sum() / 1e9) for i, name in enumerate(KEPT_BY)}
    pages = frame["pages"].to_numpy()
    return Memory(frame, int(pages.max()), int(ts[pages.argmax()]), seconds)


_SCHEMA: Final = {"event": pl.Int64, "ts": pl.Int64, **dict.fromkeys((*KEPT_BY, "pages"), pl.Int64)}


def _changes(replay: Replay) -> tuple[Ints, Ints, Ints, Ints]:
    """Every change of a page's mappings and references, summed by page and event, sorted by both; what was before the trace is at -1."""
    stays, held = replay.stay_rows, replay.outcome.ref_page
    refs = replay.history.refs
    end = len(replay.history.events)
    parts = []
    for pages, begin, until, kind in (
        (stays[:, k.S_PAGE], stays[:, k.S_FROM], stays[:, k.S_TO], 0),
        (held, refs[:, k.R_FROM], refs[:, k.R_TO], 1),
    ):
        known = pages >= 0
        own = pages[known].astype(np.int64)
        ends = np.where(until[known] < 0, end, until[known])
        gone = ends < end
        for page, at, sign in ((own, begin[known], 1), (own[gone], ends[gone], -1)):
            parts.append((page, at.astype(np.int64), np.full(page.size, sign if kind == 0 else 0), np.full(page.size, sign if kind else 0)))
    page, at, mappings, references = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((at, page))
    page, at, mappings, references = page[order], at[order], mappings[order], references[order]
    begins = np.flatnonzero((np.diff(page, prepend=-1) != 0) | (np.diff(at, prepend=-2) != 0))
    return page[begins], at[begins], _grouped(mappings, begins), _grouped(references, begins)


def _grouped(values: Ints, begins: Ints) -> Ints:
    return np.add.reduceat(values, begins) if values.size else values


def _running(values: Ints, first: Ints) -> Ints:
    """The running sum, begun anew at each of `first`."""
    total = np.cumsum(values)
    before = np.append(0, total)[first]
    sizes = np.diff(np.append(first, len(values)))
    counted: Ints = total - np.repeat(before, sizes)
    return counted
