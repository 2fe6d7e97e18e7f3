"""Whole ranges of an address space in the observed replay: fork, exec's and mremap's moves, unmapping, exit, snapshots."""

from __future__ import annotations

from tracetool.memory_events import codes as c
from tracetool.memory_events.codes import Op
from tracetool.replay import columns as k
from tracetool.replay.columns import Events, World
from tracetool.replay.lives import begin_stay, drop, end_stay, new_page, new_place, step
from tracetool.replay.pagetables import find, in_range, remove
from tracetool_parsers.loops import guarded

MADV_DONTNEED, MADV_FREE = 4, 8


@guarded
def _free_lazily(w: World, e: Events, i: int) -> None:
    """MADV_FREE: swap entries go; pages that nobody shares stay until reclaim wants them (mm/madvise.c, `madvise_free_pte_range`)."""
    first = e.address[i] >> 12
    number = in_range(w, e.mm[i], first, first + e.pages[i])
    for n in range(number):
        pte = w.found[n]
        if w.ptes[pte, k.P_KIND] == k.SWAP:
            drop(w, i, pte, k.UNMAPPED)
        elif w.ptes[pte, k.P_KIND] == k.PAGE and w.pages[w.ptes[pte, k.P_PAGE], k.F_MAPCOUNT] == 1:
            w.pages[w.ptes[pte, k.P_PAGE], k.F_LAZY] = k.LAZY


@guarded
def _fork(w: World, e: Events, i: int) -> None:
    """What the parent has in the range, the child has too; where fork copied a page early, the child's is there already."""
    child, parent = e.mm[i], e.arg[i]
    if e.flags[i] & c.COPIED == 0 or parent < 0:
        return
    first = e.address[i] >> 12
    for n in range(in_range(w, child, first, first + e.pages[i])):
        # An early copy of a page that is older than the trace: nothing is known to be shared.
        own = w.found[n]
        if find(w, parent, w.vpn[own]) < 0:
            step(w, i, k.STEP_NEW, w.ptes[own, k.P_PLACE], w.ptes[own, k.P_PAGE], k.EARLY_COPY)
    number = in_range(w, parent, first, first + e.pages[i])
    for n in range(number):
        of = w.found[n]
        own = find(w, child, w.vpn[of])
        early = w.ptes[own, k.P_PAGE] if own >= 0 else -1
        if own < 0:
            own = new_place(w, child, w.vpn[of])
            stay = w.ptes[of, k.P_STAY]
            begin_stay(w, i, own, w.ptes[of, k.P_KIND], w.stays[stay, k.S_PAGE], k.FORK, w.stays[stay, k.S_ORDER])
        step(w, i, k.STEP_SHARE, w.ptes[of, k.P_PLACE], w.ptes[own, k.P_PLACE], early)


@guarded
def _zap(w: World, event: int, mm: int, first: int, end: int) -> None:
    """The zero page and swap entries go without a word; mapped pages are told by rmap_remove."""
    number = in_range(w, mm, first, end)
    for n in range(number):
        if w.ptes[w.found[n], k.P_KIND] != k.PAGE:
            drop(w, event, w.found[n], k.UNMAPPED)


@guarded
def _table_move(w: World, e: Events, i: int) -> None:
    mm, first, to = e.mm[i], e.address[i] >> 12, e.arg[i] >> 12
    # Tables move to where nothing is: MREMAP_FIXED unmaps what was there, and of zero pages and swap entries nothing says so.
    number = in_range(w, mm, to, to + e.pages[i])
    for n in range(number):
        there = w.vpn[w.found[n]]
        if w.ptes[w.found[n], k.P_KIND] != k.PAGE and not first <= there < first + e.pages[i]:
            drop(w, i, w.found[n], k.UNMAPPED)
    number = in_range(w, mm, first, first + e.pages[i])
    # exec moves its stack by less than its length at times: all entries go before the first one comes back.
    for n in range(number):
        old = w.found[n]
        w.found[n] = w.ptes[old, k.P_STAY]
        end_stay(w, i, old, k.MOVED)
        remove(w, old)
    for n in range(number):
        place, page = w.stays[w.found[n], k.S_PLACE], w.stays[w.found[n], k.S_PAGE]
        vpn = w.places[place, k.L_VPN] - first + to
        stale = find(w, mm, vpn)
        if stale >= 0:
            w.counts[k.HEALED] += 1
            drop(w, i, stale, k.UNMAPPED)
        new = new_place(w, mm, vpn)
        kind = k.PAGE if page >= 0 else k.ZERO if page == k.THE_ZERO_PAGE else k.SWAP
        begin_stay(w, i, new, kind, page, k.MOVE, w.stays[w.found[n], k.S_ORDER])
        step(w, i, k.STEP_MOVE, place, w.ptes[new, k.P_PLACE], -1)


@guarded
def _exit(w: World, e: Events, i: int) -> None:
    """Teardown begins: what goes without a word goes now. When it is over nothing is left."""
    mm = e.mm[i]
    if mm < 0:
        return
    over = e.flags[i] & c.EXIT_DONE != 0
    w.spaces[mm, k.A_DYING] = 0 if over else 1
    number = in_range(w, mm, 0, 1 << 45)
    for n in range(number):
        if over or w.ptes[w.found[n], k.P_KIND] != k.PAGE:
            drop(w, i, w.found[n], k.EXIT)


@guarded
def _protect(w: World, e: Events, i: int) -> None:
    if e.mm[i] < 0:
        return
    first = e.address[i] >> 12
    number = in_range(w, e.mm[i], first, first + e.pages[i])
    for n in range(number):
        step(w, i, k.STEP_PROTECT, w.ptes[w.found[n], k.P_PLACE], 1 if e.flags[i] & 2 else 0, -1)


@guarded
def _snapshot(w: World, e: Events, i: int) -> None:
    """What was there before the trace, or where it was cut."""
    mm, vpn, held = e.mm[i], e.address[i] >> 12, e.flags[i]
    if mm < 0:
        return
    if held == c.WHOLE:
        w.spaces[mm, k.A_BORN] = 1
        return
    if find(w, mm, vpn) >= 0 or (held == c.IS_PAGE and e.frames[i] != 1):
        return
    pte = new_place(w, mm, vpn)
    place = w.ptes[pte, k.P_PLACE]
    if held == c.IS_PAGE:
        page = w.frame_page[e.frame[i]]
        if page < 0:
            page = new_page(w, -1, e.frame[i])
        begin_stay(w, -1, pte, k.PAGE, page, k.BEFORE_TRACE, e.arg[i])
        step(w, i, k.STEP_AGAIN, place, page, k.AGAIN | k.REPLACED << 4)
    elif held == c.IS_ZERO:
        begin_stay(w, -1, pte, k.ZERO, k.THE_ZERO_PAGE, k.BEFORE_TRACE, 0)
        step(w, i, k.STEP_ZERO, place, k.ZERO_PAGE, k.REPLACED)
    else:
        begin_stay(w, -1, pte, k.SWAP, k.SWAPPED, k.BEFORE_TRACE, 0)
        step(w, i, k.STEP_SWAP_OUT, place, -1, -1)


@guarded
def change_areas(w: World, e: Events, i: int) -> None:
    """System calls that change areas, and address spaces that come and go."""
    op, mm = e.op[i], e.mm[i]
    if op == Op.SNAPSHOT:
        _snapshot(w, e, i)
    elif op == Op.FORK_RANGE:
        _fork(w, e, i)
    elif op == Op.FORK:
        w.spaces[mm, k.A_BORN] = 1 if e.arg[i] >= 0 and w.spaces[e.arg[i], k.A_BORN] else 0
    elif op == Op.EXIT:
        _exit(w, e, i)
    elif op == Op.MREMAP:
        if mm >= 0 and e.flags[i] == c.TABLES_MOVED:
            _table_move(w, e, i)
        elif mm >= 0 and e.flags[i] < e.pages[i]:
            _zap(w, i, mm, (e.address[i] >> 12) + e.flags[i], (e.address[i] >> 12) + e.pages[i])
    elif mm >= 0 and (op == Op.MUNMAP or op == Op.MMAP or (op == Op.MADVISE and e.flags[i] == MADV_DONTNEED)):
        _zap(w, i, mm, e.address[i] >> 12, (e.address[i] >> 12) + e.pages[i])
    elif mm >= 0 and op == Op.MADVISE and e.flags[i] == MADV_FREE:
        _free_lazily(w, e, i)
    elif op == Op.MPROTECT:
        _protect(w, e, i)
