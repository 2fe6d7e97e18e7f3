"""Raw event tables -> one set of columns in trace order: the input of the loop that reads their context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from tracetool.memory_events.codes import FOLL_NEW, FOLL_OLD, FOLL_UNKNOWN
from tracetool.memory_events.columns import column_of
from tracetool.memory_events.lru import LruEvents, lru_events
from tracetool.probes import BY_EVENT, Kind, Probe
from tracetool.schema import VIA
from tracetool_parsers.eventformat import EventFormat, Field

Ints = npt.NDArray[Any]

#: Kinds whose first argument names a thread.
_TASK_KINDS = (Kind.NEW_TASK, Kind.EXEC, Kind.TASK_EXIT, Kind.RENAME, Kind.SNAPSHOT_TASK)
#: Kinds with a field `vmemmap`.
_TELL_VMEMMAP = (Kind.FORK_RANGE, Kind.SNAPSHOT_TASK)
#: Bytes of a `struct page` on every 64-bit kernel recorded so far.
PAGE_STRUCT_SHIFT = 6
#: Pages that one entry of the second lowest level maps on x86-64: 2 MiB; no anonymous page is larger.
PMD_ORDER = 9


class EventSource(Protocol):
    """What is read of a raw trace: `tracetool_parsers.RawTrace` and hand-made tables alike."""

    def counts(self) -> dict[str, int]:
        """How often each event occurs."""
        ...

    def formats(self) -> Mapping[str, EventFormat]:
        """The fields of each event."""
        ...

    def table(self, name: str, fields: Sequence[str] | None = None) -> pa.Table:
        """All records of an event."""
        ...

    def tables(self, names: Mapping[str, Sequence[str] | None], *, positions: bool = False) -> dict[str, pa.Table]:
        """All records of some events; with `position`, a column that puts the rows of these tables into the order of the trace."""
        ...


# Columns of Rows.head: what kind of event, on which thread, about which address space (and which other), about which task (formerly),
# through which interface a call takes references.
R_KIND, R_THREAD, R_MM, R_OTHER, R_TASK, R_OLD_TASK, R_VIA = range(7)


class Rows(NamedTuple):
    """Every event that the replay reads, in trace order: `head` int32 (row, R_*), `args` int64 (row, four arguments of its probe).

    Kernel pointers are dense numbers (-1: none), pages are frame numbers.
    """

    head: Ints
    args: Ints


@dataclass(frozen=True)
class Merged:
    """The rows, and what their dense numbers stand for: `tids[thread]`, `pointers[mm]`; `event[i]` indexes `names`.

    `positions` are those of the rows among all events of the trace, as the positions in `lru` are.
    """

    rows: Rows
    ts: Ints
    cpu: Ints
    event: Ints
    source_row: Ints
    names: list[str]
    tids: Ints
    pointers: Ints
    foll_layout: int
    notes: list[str]
    lru: LruEvents
    positions: Ints
    release: tuple[int, int] | None


def merge(source: EventSource, kernel: str | None = None) -> Merged:
    """Gather the columns that the replay reads from every known event of `source`, in trace order.

    Frame numbers come from `struct page` pointers by the value of vmemmap_base, which fork_range records; without it frames are numbered
    from the lowest pointer seen, which a note says.

    Raises:
        TraceError: a field that the replay reads is none of numbers.
    """
    counts = source.counts()
    probes = [BY_EVENT[name] for name in counts if name in BY_EVENT and counts[name] and BY_EVENT[name].kind != Kind.IGNORED]
    formats = source.formats()
    wanted = {probe.event: _fields(probe, formats[probe.event]) for probe in probes}
    if counts.get("mm_page_alloc") and (counts.get("anon_new") or counts.get("migrate_unmap")):
        wanted["mm_page_alloc"] = ["pfn", "order", "migratetype"]
    made = source.tables(_existing(wanted, formats), positions=True)
    allocations = made.pop("mm_page_alloc", None)
    tables = list(made.values())
    places = [table.column("position").to_numpy() for table in tables]
    notes: list[str] = []
    rank, positions = _ranks(places)
    total = len(positions)

    names = ("ts", "tid", "mm", "other", "task", "old_task", "a0", "a1", "a2", "a3", "source_row")
    columns = {name: np.zeros(total, np.int64) for name in names}
    kind, cpu, event, via = (np.zeros(total, dtype) for dtype in (np.int8, np.int32, np.int16, np.int8))
    for number, (probe, table, at) in enumerate(zip(probes, tables, rank, strict=True)):
        kind[at], event[at], via[at] = int(probe.kind), number, VIA.index(probe.via)
        cpu[at] = column_of(table, "cpu")
        columns["ts"][at], columns["tid"][at] = column_of(table, "ts"), column_of(table, "tid")
        columns["source_row"][at] = np.arange(table.num_rows)
        columns["mm"][at] = column_of(table, probe.mm, probe.event)
        columns["other"][at] = column_of(table, probe.other_mm, probe.event)
        for slot, field in enumerate(probe.args):
            columns[f"a{slot}"][at] = column_of(table, field, probe.event)
        if probe.kind in _TASK_KINDS:
            columns["task"][at] = columns["a0"][at]
        if probe.kind == Kind.EXEC:
            columns["old_task"][at] = columns["a1"][at]
    _pages_to_frames(source, probes, tables, rank, columns, notes)
    for probe, table, at in zip(probes, tables, rank, strict=True):
        if probe.kind == Kind.ANON_NEW:
            columns["a2"][at] = pages_mapped(columns["a1"][at], np.asarray(column_of(table, "position")), allocations)
        if probe.kind == Kind.MIGRATE_UNMAP:
            columns["a2"][at] = migrated_to(columns["a1"][at], table, allocations, [made[name] for name in _FREES if name in made])

    tids, (thread, task, old_task) = _dense(columns["tid"], columns["task"], columns["old_task"])
    pointers, (mm, other) = _dense(columns["mm"], columns["other"])
    if pointers.size and (null := np.flatnonzero(pointers == 0)).size:
        mm[mm == null[0]] = other[other == null[0]] = -1
    head = np.stack([kind, thread, mm, other, task, old_task, via], axis=1).astype(np.int32)
    rows = Rows(head, np.stack([columns[f"a{slot}"] for slot in range(4)], axis=1))
    layout = _foll_layout(rows, kernel, notes)
    return Merged(
        rows, columns["ts"], cpu, event, columns["source_row"], [p.event for p in probes], tids, pointers, layout, notes,
        lru_events(made, allocations), positions, _release(kernel),
    )  # fmt: skip


def _existing(wanted: Mapping[str, list[str]], formats: Mapping[str, EventFormat]) -> dict[str, list[str]]:
    """The fields that are asked for, as far as this trace has them."""
    has = {name: {field.name for field in formats[name].fields} for name in wanted}
    return {name: [field for field in fields if field in has[name]] for name, fields in wanted.items()}


def _fields(probe: Probe, event: EventFormat) -> list[str]:
    wanted = dict.fromkeys((probe.mm, probe.other_mm, *probe.args, *(["vmemmap"] if probe.kind in _TELL_VMEMMAP else [])))
    return [field.name for field in event.fields if field.name in wanted]


def _ranks(places: list[npt.NDArray[np.int64]]) -> tuple[list[Ints], Ints]:
    """Positions among all events of the trace -> positions among those that are read, and these backwards."""
    if not places:
        return [], np.zeros(0, np.int64)
    used = np.zeros(max((int(p.max()) + 1 for p in places if p.size), default=0), np.bool_)
    for place in places:
        used[place] = True
    rank = np.cumsum(used) - 1
    return [rank[place] for place in places], np.flatnonzero(used)


def _dense(*columns: Ints) -> tuple[Ints, list[Ints]]:
    """Values -> the sorted distinct ones, and each column as indexes into them. They are few: a search beats sorting them all."""
    distinct = [pl.Series(column).unique().to_numpy() for column in columns]
    values = np.unique(np.concatenate(distinct))
    return values, [np.searchsorted(values, column).astype(np.int32) for column in columns]


def _pages_to_frames(
    source: EventSource, probes: list[Probe], tables: list[pa.Table], rank: list[Ints], columns: dict[str, Ints], notes: list[str]
) -> None:
    paged = [(f"a{p.args.index('page')}", at) for p, at in zip(probes, rank, strict=True) if "page" in p.args]
    base = _vmemmap(probes, tables)
    if base is None:
        base = _vmemmap_by_allocations(source)
    if base is None and paged:
        base = min((int(columns[slot][at].min()) for slot, at in paged if len(at)), default=0)
        notes.append(
            "nothing tells where struct pages lie (fork_range, or mm_page_alloc before anon_new): frames are numbered from the lowest seen"
        )
    for slot, at in paged:
        columns[slot][at] = (columns[slot][at] - np.int64(base or 0)) >> PAGE_STRUCT_SHIFT


def pages_mapped(frames: Ints, position: Ints, allocations: pa.Table | None) -> Ints:
    """How many pages are mapped with each new anonymous page: those that were allocated with it last, 0 where that is not known."""
    if allocations is None:
        return np.zeros(frames.size, np.int64)
    pfn, order, at = (np.asarray(column_of(allocations, name)) for name in ("pfn", "order", "position"))
    # Hardly any frame is ever the first of several: only of those, and of where a huge page can begin, the last allocation is looked for.
    doubtful = np.flatnonzero(np.isin(frames, np.unique(pfn[order > 0])) | (frames % (1 << PMD_ORDER) == 0))
    of_them = np.flatnonzero(np.isin(pfn, frames[doubtful]))
    frame, when = np.concatenate([pfn[of_them], frames[doubtful]]), np.concatenate([at[of_them], position[doubtful]])
    by_frame = np.lexsort((when, frame))
    allocated = by_frame < of_them.size
    last = np.maximum.accumulate(np.where(allocated, np.arange(by_frame.size), -1))
    own = np.flatnonzero(~allocated & (last >= 0) & (frame[by_frame] == frame[by_frame[last]]))
    found = order[of_them[by_frame[last[own]]]]
    pages = np.ones(frames.size, np.int64)
    pages[doubtful] = 0
    pages[doubtful[by_frame[own] - of_them.size]] = np.where((found >= 0) & (found <= PMD_ORDER), 1 << np.clip(found, 0, PMD_ORDER), 0)
    return pages


_FREES = ("mm_page_free", "mm_page_free_batched")


def migrated_to(frames: Ints, table: pa.Table, allocations: pa.Table | None, frees: list[pa.Table]) -> Ints:
    """For each huge page that is unmapped for migration the first frame that it becomes, 0 where it is none or stays what it is.

    The last huge page that the same thread allocated before is its target (mm/migrate.c, `migrate_pages`); of the two the one that is
    freed first is not used any more.
    """
    targets = np.zeros(frames.size, np.int64)
    huge = np.flatnonzero(frames % (1 << PMD_ORDER) == 0)
    if allocations is None or not huge.size:
        return targets
    pfn, order, at, tid = (np.asarray(column_of(allocations, name)) for name in ("pfn", "order", "position", "tid"))
    large = order == PMD_ORDER
    pfn, at, tid = pfn[large], at[large], tid[large]
    freed = [np.stack([np.broadcast_to(column_of(free, name), free.num_rows) for name in ("pfn", "position")]) for free in frees]
    gone, when = np.concatenate(freed, axis=1) if freed else np.zeros((2, 0), np.int64)
    # Of all that is freed only these can matter: each is looked at once for every huge page.
    matters = np.isin(gone, np.concatenate([frames[huge], pfn]))
    gone, when = gone[matters], when[matters]
    own, since = np.asarray(column_of(table, "tid")), np.asarray(column_of(table, "position"))
    for row in huge.tolist():
        before = np.flatnonzero((tid == own[row]) & (at < since[row]))
        if not before.size:
            continue
        target = pfn[before[-1]]
        ends = [int(when[(gone == frame) & (when > since[row])].min(initial=np.iinfo(np.int64).max)) for frame in (frames[row], target)]
        if ends[0] < ends[1]:
            targets[row] = target
    return targets


def _vmemmap(probes: list[Probe], tables: list[pa.Table]) -> int | None:
    """The value of vmemmap_base, as fork_range and snapshots record it."""
    for probe, table in zip(probes, tables, strict=True):
        if probe.kind in _TELL_VMEMMAP and table.num_rows and "vmemmap" in table.column_names:
            return int(np.asarray(column_of(table, "vmemmap"))[0])
    return None


def _vmemmap_by_allocations(source: EventSource) -> int | None:
    """What most new anonymous pages agree on: each is the frame that its thread allocated last (order 0)."""
    counts = source.counts()
    if not counts.get("mm_page_alloc") or not counts.get("anon_new"):
        return None
    made = source.tables({"mm_page_alloc": ["pfn", "order"], "anon_new": ["page"]}, positions=True)
    allocated, mapped = made["mm_page_alloc"], made["anon_new"]
    pfn, single = np.asarray(column_of(allocated, "pfn")), np.asarray(column_of(allocated, "order")) == 0
    at = np.concatenate([np.asarray(column_of(allocated, "position"))[single], np.asarray(column_of(mapped, "position"))])
    tid = np.concatenate([np.asarray(column_of(allocated, "tid"))[single], np.asarray(column_of(mapped, "tid"))])
    value = np.concatenate([pfn[single], np.asarray(column_of(mapped, "page"))])
    is_page = np.arange(len(at)) >= int(single.sum())
    order = np.lexsort((at, tid))
    follows = is_page[order][1:] & ~is_page[order][:-1] & (tid[order][1:] == tid[order][:-1])
    base = (value[order][1:] - (value[order][:-1] << PAGE_STRUCT_SHIFT))[follows]
    found, votes = np.unique(base, return_counts=True)
    return int(found[votes.argmax()]) if found.size else None


def _foll_layout(rows: Rows, kernel: str | None, notes: list[str]) -> int:
    """Which numbers FOLL_* have: by known callers, then by the kernel release, else unknown.

    A slow GUP with FOLL_GET has FOLL_TOUCH, too: 2|4 in the old numbers and 0x10000|2 in the new. The latter is also the old
    FOLL_TOUCH|FOLL_LONGTERM of a pin of remote memory (VFIO), which says the old FOLL_REMOTE, 0x2000, a number that the new ones lack.
    A fast one asks for FOLL_GET or FOLL_PIN without FOLL_TOUCH: 4 or 0x40000, 2 or 0x80000 (without 4: with it FOLL_FAST_ONLY of old).
    """
    slow = rows.args[rows.head[:, R_KIND] == int(Kind.GUP), 2]
    fast = rows.args[rows.head[:, R_KIND] == int(Kind.GUP_FAST), 2] & 0xC0006
    old = int((((slow & 0x10006) == 0x6) | (slow & 0x2000 != 0)).sum() + (fast & 0x40004 != 0).sum())
    new = int(((slow & 0x12006) == 0x10002).sum() + ((fast & 0x40004 == 0) & (fast != 0)).sum())
    if old != new:
        return FOLL_OLD if old > new else FOLL_NEW
    release = _release(kernel)
    if release is not None:
        return FOLL_OLD if release < (6, 3) else FOLL_NEW
    if len(slow) + len(fast):
        notes.append("neither a known caller of GUP nor the kernel release tells the numbers of FOLL_* flags: references are not replayed")
    return FOLL_UNKNOWN


def _release(kernel: str | None) -> tuple[int, int] | None:
    parts = (kernel or "").split(".")
    return (int(parts[0]), int(parts[1])) if len(parts) > 1 and parts[0].isdigit() and parts[1].isdigit() else None


def with_tables(tables: Mapping[str, pa.Table]) -> EventSource:
    """Hand-made tables as a source: rows are ordered by (ts, cpu), equal ones by the order of the mapping and of its rows."""
    return _Tables(tables)


class _Tables:
    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        self._tables = dict(tables)
        sizes = [t.num_rows for t in self._tables.values()]
        ts = np.concatenate([t.column("ts").to_numpy() for t in self._tables.values()] or [np.zeros(0, np.int64)])
        cpu = np.concatenate([t.column("cpu").to_numpy() for t in self._tables.values()] or [np.zeros(0, np.int64)])
        order = np.lexsort((np.arange(ts.size), cpu, ts))
        place = np.empty(ts.size, np.int64)
        place[order] = np.arange(ts.size)
        self._places = dict(zip(self._tables, np.split(place, np.cumsum(sizes)[:-1]), strict=True)) if sizes else {}

    def formats(self) -> Mapping[str, EventFormat]:
        return {name: _format_of(name, table) for name, table in self._tables.items()}

    def counts(self) -> dict[str, int]:
        return {name: table.num_rows for name, table in self._tables.items()}

    def tables(self, names: Mapping[str, Sequence[str] | None], *, positions: bool = False) -> dict[str, pa.Table]:
        made = {name: self.table(name, fields) for name, fields in names.items()}
        return {name: table.append_column("position", pa.array(self._places[name])) for name, table in made.items()} if positions else made

    def table(self, name: str, fields: Sequence[str] | None = None) -> pa.Table:
        return self._tables[name].select(["ts", "cpu", "tid", *(fields or [])]) if fields is not None else self._tables[name]


def _format_of(name: str, table: pa.Table) -> EventFormat:
    fields = tuple(Field(column, column, "unsigned long", 0, 8, False, "here", 0) for column in table.column_names)
    return EventFormat("tracetool", name, 0, (), fields, "")
