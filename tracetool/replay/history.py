"""The observed replay as arrays: gives the loop its room, lets it run, and keeps what it wrote, cut to size."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tracetool.memory_events import MemoryEvents, Op
from tracetool.memory_events import codes as c
from tracetool.memory_events.lru import JOINS, MOST_CPUS
from tracetool.progress import stage
from tracetool.replay import columns as k
from tracetool.replay.batches import Batches, allocations, batches, folios_of
from tracetool.replay.columns import Events, World
from tracetool.replay.observed import VIA_EXEC, observe
from tracetool.replay.pagetables import rehash
from tracetool.replay.simstate import FOLIO_COLUMNS, O_FIRST, O_MM0, O_MM1, O_PARTS
from tracetool.schema import VIA
from tracetool_parsers.memory import empty

Ints = npt.NDArray[Any]

#: Interfaces whose releases recording profile 1 shows.
_TRACED: Final = ("vmsplice", "io_uring", "rdma", "vfio", "af_xdp")


@dataclass(frozen=True)
class History:
    """What happened, as the traced kernel did it: arrays with the columns of `replay.columns`; times are rows of `events`.

    `page_frames` gives each page its frame (index into `events.known_frames`), `page_ksm` when KSM merged another into it (-1: never),
    `page_born` the event that mapped it first (-1: older than the trace), `page_folio` the larger page that it is a part of (-1: none);
    `unknown_unmaps` counts unmaps of pages that nobody was known to map, `healed` mappings that ended unseen.
    """

    events: MemoryEvents
    places: Ints
    stays: Ints
    refs: Ints
    decisions: Ints
    steps: Ints
    page_frames: Ints
    page_ksm: Ints
    page_born: Ints
    page_folio: Ints
    folios: int
    unknown_unmaps: int
    healed: int

    @property
    def pages(self) -> int:
        """Lives of page frames that the trace shows."""
        return len(self.page_frames)

    @functools.cached_property
    def step_kinds(self) -> Ints:
        """How many steps there are of each kind."""
        return np.bincount(self.steps[:, k.H_OP], minlength=k.STEPS_IN_ALL)

    @functools.cached_property
    def cpus(self) -> Ints:
        """The CPU of each event as int32, 0 throughout where there is nothing to know of LRU batches."""
        known = len(self.events.lru.row) and len(self.events) and 0 <= int(self.events.cpu.min()) <= int(self.events.cpu.max()) < MOST_CPUS
        return self.events.cpu.astype(np.int32, copy=False) if known else np.zeros(len(self.events), np.int32)

    @functools.cached_property
    def batches(self) -> Batches:
        """The LRU batches: the same for every policy."""
        lru = self.events.lru
        cpus = 1 + max(int(self.cpus.max(initial=0)), int(lru.cpu.max(initial=0)))
        again = (self.page_born >= 0) & (self.events.op[self.page_born] != int(Op.MAP_NEW)) if len(self.events) else self.page_born >= 0
        read = self.steps[(self.steps[:, k.H_OP] == k.STEP_SWAP_IN) & (self.steps[:, k.H_C] & k.SWAPS_IN_MIGRATED == 0), k.H_B]
        again[read] = False
        return batches(lru, self.events.lru_batch, self._allocated, self.page_born, again, cpus)

    @functools.cached_property
    def _allocated(self) -> Ints:
        return allocations(self.events.lru, self.page_frames, self.page_born)

    @functools.cached_property
    def folio_of_page(self) -> Ints:
        """The larger page that each is a part of, -1: none; also where its parts were mapped one by one."""
        return folios_of(self.events.lru, self._allocated, self.page_folio, self.folios)[0]

    @functools.cached_property
    def folio_parts(self) -> Ints:
        """Folios as a policy's replay begins with them (row, simstate.O_*)."""
        folios = np.zeros((1 + int(self.folio_of_page.max(initial=self.folios - 1)), FOLIO_COLUMNS), np.int32)
        folios[:, [O_MM0, O_MM1]] = -1
        part = np.flatnonzero(self.folio_of_page >= 0)
        which, first, parts = np.unique(self.folio_of_page[part], return_index=True, return_counts=True)
        folios[which, O_FIRST], folios[which, O_PARTS] = part[first], parts
        return folios

    @functools.cached_property
    def ref_sure(self) -> Ints:
        """Of each reference (int8), whether it is known until when it is held: a probe saw its release, or would have seen it."""
        via = self.events.flags[self.refs[:, k.R_FROM]] >> c.VIA_SHIFT
        traced = np.isin(via, [VIA.index(name) for name in _TRACED])
        released = self.refs[:, k.R_RELEASED]
        return ((released == k.EXACT) | ((released == k.UNKNOWN) & traced)).astype(np.int8)

    @functools.cached_property
    def reads_ahead(self) -> bool:
        """Whether swap is read ahead, which devices without waiting (zram) do not need: by how many pages a read brings."""
        read = self.steps[self.steps[:, k.H_OP] == k.STEP_SWAP_IN, k.H_EVENT]
        asked = np.flatnonzero(self.events.op == int(Op.SWAP_IN))
        joins = self.events.lru.row[self.events.lru.what == JOINS]
        if not len(read) or not len(asked):
            return False
        begin = asked[np.maximum(np.searchsorted(asked, read) - 1, 0)]
        brought = np.searchsorted(joins, read, side="right") - np.searchsorted(joins, begin, side="right")
        return bool(np.median(brought[brought > 0]) > 2) if (brought > 0).any() else False

    @property
    def page_pfn(self) -> Ints:
        """Page frame number by page."""
        return self.events.known_frames[self.page_frames]


def rebuild(events: MemoryEvents) -> History:
    """Replay the memory events as they happened."""
    e = Events(
        events.op, events.mm, events.address, events.pages, events.first_frame, events.frames, events.flags, events.arg, events.thread
    )  # fmt: skip
    world = _empty(events)
    told = (events.op == int(Op.COW_END)) & ((events.flags & c.UNSHARE) == 0) & ((events.arg & 8) != 0)
    position, end = 0, len(events)
    with stage("replaying as recorded", end, "events", lambda: int(world.steps[max(world.counts[k.STEPS] - 1, 0), k.H_EVENT])):
        while (position := observe.run(end, world, e, position, end, int(told.any()))) < end:
            world = _larger(world)

    def cut(rows: Ints, counter: int) -> Ints:
        # What is behind was never touched, and takes no memory.
        return rows[: world.counts[counter]]

    return History(
        events=events,
        places=cut(world.places, k.PLACES),
        stays=_found_late(cut(world.stays, k.STAYS), world.places, events),
        refs=cut(world.refs, k.REFS),
        decisions=cut(world.decisions, k.DECISIONS),
        steps=cut(world.steps, k.STEPS),
        page_frames=cut(world.pages, k.PAGES)[:, k.F_FRAME],
        page_ksm=cut(world.pages, k.PAGES)[:, k.F_KSM],
        page_born=cut(world.pages, k.PAGES)[:, k.F_BORN],
        page_folio=cut(world.pages, k.PAGES)[:, k.F_FOLIO],
        folios=int(world.counts[k.FOLIOS]),
        unknown_unmaps=int(world.counts[k.UNKNOWN_UNMAPS]),
        healed=int(world.counts[k.HEALED]),
    )


def _found_late(stays: Ints, places: Ints, events: MemoryEvents) -> Ints:
    """Let stays that were found when they had lasted for long begin where they can: not before another at that address has ended, nor
    before fork or exec made the address space; else before the trace.
    """
    late = np.flatnonzero(stays[:, k.S_FROM] < 0)
    if not late.size:
        return stays
    place = places[stays[:, k.S_PLACE]]
    order = np.lexsort((np.arange(len(stays)), place[:, k.L_VPN], place[:, k.L_MM]))
    follows = np.zeros(len(stays), np.bool_)
    follows[1:] = (place[order][1:] == place[order][:-1]).all(axis=1)
    ended = np.full(len(stays), -1, np.int64)
    ended[order[follows]] = stays[order[np.flatnonzero(follows) - 1], k.S_TO]
    made = np.full(events.spaces, -1, np.int64)
    execs = np.flatnonzero((events.op == int(Op.GUP)) & (events.flags >> c.VIA_SHIFT == VIA_EXEC) & (events.mm >= 0))[::-1]
    forks = np.flatnonzero(events.op == int(Op.FORK))
    made[events.mm[execs]] = execs
    made[events.mm[forks]] = forks
    made = made[place[:, k.L_MM]]
    stays[late, k.S_FROM] = np.maximum(ended, made)[late]
    zero = stays[:, k.S_PAGE] == k.THE_ZERO_PAGE
    began = np.where(ended >= made, np.where(zero, k.ZERO_PAGE, k.AGAIN), k.FORK)
    stays[late, k.S_BEGAN] = np.where(stays[late, k.S_FROM] < 0, k.BEFORE_TRACE, began[late])
    return stays


def _empty(events: MemoryEvents) -> World:
    n = len(events)
    spaces = _rows(events.spaces, 4)
    spaces[:, k.A_TABLE] = -1
    threads = _rows(events.threads, 8)
    threads[:] = -1
    ptes = n // 32 + 64
    return World(
        ptes=_chained(_rows(ptes, 10), 0),
        vpn=np.zeros(ptes, np.int64),
        tables=_rows(n // 128 + 64, 4, np.int64),
        pages=_room(n // 8 + 64, 12),
        spaces=spaces,
        pte_hash=_hash(ptes),
        table_hash=_hash(n // 128 + 64),
        frame_page=np.full(max(len(events.known_frames), 1), -1, np.int32),
        threads=threads,
        groups=_rows(len(events.holders), 2),
        # Room that is never used takes no memory, and growing takes time.
        places=_room(n + 64, 2, np.int64),
        stays=_room(n + 64, 7),
        refs=_room(n // 4 + 64, 8),
        decisions=_room(int((events.op == int(Op.COW_BEGIN)).sum()) + 64, 6),
        steps=_room(2 * n + 64, 5),
        found=np.zeros(n // 32 + 64, np.int32),
        counts=np.zeros(13, np.int64),
    )


def _rows(rows: int, columns: int, dtype: Any = np.int32) -> Ints:
    return np.zeros((max(rows, 1), columns), dtype)


def _room(rows: int, columns: int, dtype: Any = np.int32) -> Ints:
    """Rows of which each is written as a whole before it is read."""
    return empty(rows * columns, dtype).reshape(rows, columns)


def _hash(entries: int) -> Ints:
    return np.full(1 << max((2 * entries - 1).bit_length(), 4), -1, np.int32)


def _chained(ptes: Ints, start: int) -> Ints:
    """Chain the unused entries from `start` on, each to the next; the last one leads to where growth would begin."""
    ptes[start:, k.P_NEXT] = np.arange(start + 1, len(ptes) + 1)
    return ptes


def _larger(w: World) -> World:
    """Room for `counts[NEED]` more of everything that is short of it, and half as much again."""
    need = int(w.counts[k.NEED])

    def larger(rows: Ints, counter: int, per_entry: int = 1) -> Ints:
        wanted = int(w.counts[counter]) + per_entry * need + 8
        if wanted < len(rows):
            return rows
        grown = np.zeros((wanted + wanted // 2, *rows.shape[1:]), rows.dtype)
        grown[: len(rows)] = rows
        return grown

    ptes = larger(w.ptes, k.LIVE)
    tables = larger(w.tables, k.TABLES)
    grown = w._replace(
        ptes=_chained(ptes, len(w.ptes)) if len(ptes) > len(w.ptes) else ptes,
        vpn=larger(w.vpn, k.LIVE),
        tables=tables,
        pages=larger(w.pages, k.PAGES),
        pte_hash=_hash(len(ptes)),
        table_hash=_hash(len(tables)),
        places=larger(w.places, k.PLACES),
        stays=larger(w.stays, k.STAYS),
        refs=larger(w.refs, k.REFS),
        decisions=larger(w.decisions, k.DECISIONS),
        steps=larger(w.steps, k.STEPS, 2),
        found=np.zeros(max(len(w.found), need + need // 2 + 8), np.int32),
    )
    rehash.run(len(ptes), grown)
    return grown
