"""Raw event tables -> one table of memory events: what happened to which page of which address space, in trace order.

    raw events --rows--> columns in trace order --context--> memory events, and the changes in every thread's life

`codes` has the numbers in the table. Unmaps and frees of frames that the trace never shows as anonymous memory are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tracetool import schema
from tracetool.memory_events import codes as c
from tracetool.memory_events import state as k
from tracetool.memory_events.codes import Op
from tracetool.memory_events.context import read_context
from tracetool.memory_events.holders import holders
from tracetool.memory_events.lru import pages_in_a_batch
from tracetool.memory_events.rows import R_THREAD, EventSource, Merged, merge, with_tables
from tracetool.memory_events.state import new_state
from tracetool.memory_events.unsupported import implausible, unsupported
from tracetool.progress import stage

if TYPE_CHECKING:
    import polars as pl

Ints = npt.NDArray[Any]

__all__ = ["EventSource", "MemoryEvents", "Op", "memory_events", "with_tables"]

_NAMES_FRAME = (Op.SNAPSHOT, Op.MAP_NEW, Op.MAP_AGAIN, Op.COW_BEGIN, Op.REF_GET)
_MAPS = (int(Op.MAP_NEW), int(Op.MAP_AGAIN))
_FOLLOWS_FRAME = (Op.UNMAP, Op.FREE, Op.SWAP_OUT, Op.REF_PUT)


@dataclass(frozen=True)
class MemoryEvents:
    """Memory events as columns, one row an event, in trace order.

    `op` int8 (codes.Op), `mm` int32, `address` int64 (bytes), `pages` int64, `flags`, `arg` int64; `pfn` int64 (-1: none named);
    `first_frame` and `frames` int32: the slice of `known_frames` (sorted page frame numbers) that the event names; `ts` int64 ns,
    `cpu` int32, `tid` int32; `source` int16 into `source_names`, `source_row` int64. `spaces` counts the address spaces.
    `holders` (String) says of each GUP request what holds its references, null where the trace does not. `lru` is what fills and empties
    the LRU batches between them, each of which has room for `lru_batch` pages.
    """

    op: Ints
    mm: Ints
    address: Ints
    pages: Ints
    pfn: Ints
    first_frame: Ints
    frames: Ints
    flags: Ints
    arg: Ints
    thread: Ints
    ts: Ints
    cpu: Ints
    tid: Ints
    source: Ints
    source_row: Ints
    source_names: list[str]
    known_frames: Ints
    spaces: int
    threads: int
    holders: pl.Series
    tasks: Ints
    task_ts: Ints
    tids: Ints
    notes: list[str]
    implausible: int
    lru: LruRows
    lru_batch: int

    def __len__(self) -> int:
        return len(self.op)

    def table(self) -> pl.LazyFrame:
        """The events as `schema.MEMORY_EVENTS` describes them."""
        import polars as pl

        source = pl.Series("source", self.source, dtype=pl.Int32)
        names = pl.Series("source", self.source_names or [""], dtype=pl.String)
        frame = pl.DataFrame(
            {
                "ts": self.ts,
                "cpu": self.cpu,
                "tid": self.tid,
                "op": schema.labels("op", schema.OPS, self.op),
                "mm": self.mm,
                "address": self.address.view(np.uint64),
                "pages": self.pages,
                "pfn": np.maximum(self.pfn, 0),
                "flags": self.flags,
                "arg": self.arg,
                "source": names.gather(source) if len(self) else pl.Series("source", [], dtype=pl.String),
                "source_row": self.source_row,
            }
        )
        return frame.with_columns(pl.col("source").cast(pl.Categorical)).lazy()

    def evidence(self, rows: npt.ArrayLike) -> Mapping[int, tuple[str, int, int]]:
        """Memory event rows -> the raw event each rests on: its name, time stamp and row."""
        wanted = np.unique(np.asarray(rows, np.int64))
        return {
            int(row): (self.source_names[self.source[row]], int(self.ts[row]), int(self.source_row[row]))
            for row in wanted
            if 0 <= row < len(self)
        }


def memory_events(source: EventSource, kernel: str | None = None) -> MemoryEvents:
    """Read the memory events of a raw trace; `kernel` (a release such as "6.1.0") is a hint where the events do not tell.

    `source` is a `tracetool_parsers.RawTrace`, or hand-made tables by `with_tables`.
    """
    with stage("putting events in order"):
        merged = merge(source, kernel)
    rows = merged.rows
    state = new_state(rows, len(merged.pointers), len(merged.tids))
    # What was last written tells how far the loop is: it is not slowed down to say so.
    with stage("events to memory events", len(rows.head), "events", lambda: int(state.out[max(state.count[k.OUT] - 1, 0), k.O_ROW])):
        read_context.run(
            len(rows.head),
            rows,
            merged.tids,
            merged.foll_layout,
            _thread_named("ksmd", merged, source),
            state.threads,
            state.spaces,
            state.groups,
            state.out,
            state.tasks,
            state.count,
        )
    out, tasks = state.out[: state.count[k.OUT]], state.tasks[: state.count[k.TASK]].copy()
    op, pages = out[:, k.O_OP].astype(np.int8), out[:, k.O_PAGES]
    known, first, frames = _frames(op, out[:, k.O_FRAME], pages)
    ends_unmapping = (op == int(Op.FREE)) & (out[:, k.O_FLAGS] == c.FREES_LAST)
    about_file_pages = np.isin(op, [int(Op.UNMAP), int(Op.FREE)]) & (frames == 0) & ~ends_unmapping
    keep = np.flatnonzero(~about_file_pages)
    row = out[keep, k.O_ROW]
    thread = rows.head[row, R_THREAD]
    return MemoryEvents(
        op=op[keep],
        mm=out[keep, k.O_MM].astype(np.int32),
        address=out[keep, k.O_ADDRESS],
        pages=pages[keep],
        pfn=out[keep, k.O_FRAME],
        first_frame=first[keep],
        frames=frames[keep],
        flags=out[keep, k.O_FLAGS],
        arg=out[keep, k.O_ARG],
        thread=thread,
        ts=merged.ts[row],
        cpu=merged.cpu[row],
        tid=merged.tids[thread].astype(np.int32),
        source=merged.event[row],
        source_row=merged.source_row[row],
        source_names=merged.names,
        known_frames=known,
        spaces=int(state.count[k.SPACE]),
        threads=len(merged.tids),
        holders=holders(merged, state.groups[: state.count[k.GROUP]]),
        tasks=tasks,
        task_ts=merged.ts[tasks[:, k.K_ROW]],
        tids=merged.tids,
        lru=_between(merged, row, known),
        lru_batch=pages_in_a_batch(merged.release, merged.foll_layout == c.FOLL_NEW),
        implausible=implausible(merged),
        notes=[*_notes(merged, source), *unsupported(merged, op[keep], out[keep, k.O_FLAGS], merged.ts[row], source.counts())],
    )


class LruRows(NamedTuple):
    """What fills and empties LRU batches (`lru.JOINS`...), in trace order: `row` int32, the memory event that follows next; `cpu` int32;
    `frame` and `frames` int32, the slice of `known_frames` that is allocated; `what` int8.
    """

    row: Ints
    cpu: Ints
    frame: Ints
    frames: Ints
    what: Ints


def _between(merged: Merged, row: Ints, known: Ints) -> LruRows:
    """LRU events among memory events, which lie in these rows."""
    lru = merged.lru
    follows = np.searchsorted(merged.positions[row], lru.position)
    first = np.searchsorted(known, lru.pfn)
    last = np.searchsorted(known, np.where(lru.pfn < 0, lru.pfn, lru.pfn + (np.int64(1) << lru.order)))
    return LruRows(follows.astype(np.int32), lru.cpu, first.astype(np.int32), (last - first).astype(np.int32), lru.what)


def _thread_named(name: str, merged: Merged, source: EventSource) -> int:
    """The number of the kernel's thread of that name, -1 where nothing names one."""
    saved = getattr(getattr(source, "metadata", None), "cmdlines", None) or {}
    named = [tid for tid, comm in saved.items() if comm == name]
    at = int(np.searchsorted(merged.tids, named[0])) if named else len(merged.tids)
    return at if at < len(merged.tids) and merged.tids[at] == named[0] else -1


def _frames(op: Ints, frame: Ints, pages: Ints) -> tuple[Ints, Ints, Ints]:
    """Number the frames that are anonymous at some time: the sorted frames, and for each event the slice of them that it names."""
    names = np.isin(op, [int(o) for o in _NAMES_FRAME]) & (frame >= 0)
    many = names & np.isin(op, _MAPS) & (pages > 1)
    spans = np.repeat(frame[many], pages[many]) + _counted(pages[many])
    known = np.unique(np.concatenate([frame[names], spans]))
    uses = names | np.isin(op, [int(o) for o in _FOLLOWS_FRAME])
    start = np.where(uses, frame, -1)
    length = np.where(np.isin(op, [int(Op.FREE), int(Op.UNMAP), int(Op.REF_PUT), *_MAPS]), np.minimum(pages, 1 << 20), 1)
    first = np.searchsorted(known, start)
    last = np.searchsorted(known, np.where(start < 0, start, start + length))
    return known, first.astype(np.int32), (last - first).astype(np.int32)


def _counted(sizes: Ints) -> Ints:
    """0, 1, ... below each size, one after the other."""
    ends = np.cumsum(sizes)
    counted: Ints = np.arange(ends[-1] if sizes.size else 0) - np.repeat(ends - sizes, sizes)
    return counted


def _notes(merged: Merged, source: EventSource) -> list[str]:
    """What the recording had no probe for; an event that merely never fired is not missing."""
    formats = source.formats()
    missing = [name for name in _NEEDED if name not in formats]
    return [*merged.notes, f"not recorded, so not replayed: {', '.join(missing)}"] if missing else merged.notes


_NEEDED = ("mm_fault", "cow_fault", "cow_fault_done", "anon_new", "rmap_remove", "fork_range", "fork_range_done", "mm_exit")
