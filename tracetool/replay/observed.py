"""The observed replay: memory events -> who mapped which page when, as the traced kernel said, and the steps that policies replay."""

from __future__ import annotations

from tracetool.memory_events import codes as c
from tracetool.memory_events.codes import Op
from tracetool.replay import columns as k
from tracetool.replay.areas import change_areas
from tracetool.replay.columns import Events, World
from tracetool.replay.lives import begin_stay, drop, drop_by, end_page, end_stay, flush, new_page, new_place, step
from tracetool.replay.pagetables import find, in_range, mapper
from tracetool.replay.references import open_references, put_references, releasable, take_references
from tracetool.schema import VIA
from tracetool_parsers.loops import guarded, loop, part

#: What a fault returns when nothing was done (include/linux/mm_types.h, `enum vm_fault_reason`): VM_FAULT_OOM, SIGBUS, RETRY; FALLBACK.
FAILED, VM_FAULT_FALLBACK = 0x403, 0x800
#: GUP of an address space that no thread has run on yet is exec's, which fills it from nothing.
VIA_EXEC = VIA.index("exec")


@guarded
def _map_new(w: World, e: Events, i: int, t: int) -> None:
    """New anonymous pages are mapped. What was there goes first; its rmap_remove is still to come on this thread."""
    mm, first, why = e.mm[i], e.address[i] >> 12, e.arg[i]
    order = _order(e.frames[i])
    folio = _new_folio(w) if e.frames[i] > 1 else -1
    for n in range(e.frames[i]):
        page = new_page(w, i, e.frame[i] + n)
        w.pages[page, k.F_FOLIO] = folio
        pte = find(w, mm, first + n)
        held = w.ptes[pte, k.P_KIND] if pte >= 0 else k.FREE
        began = k.TOUCH
        if why == c.IN_COW:
            began = k.ZERO_FILL if held == k.ZERO else k.COPY
        elif why == c.IN_FORK:
            began = k.EARLY_COPY
        elif why == c.IN_SWAP or held == k.SWAP:
            began = k.SWAP_IN
        if pte >= 0:
            if held == k.PAGE:
                w.threads[t, k.X_REPLACED] = w.ptes[pte, k.P_PAGE]
            end_stay(w, i, pte, k.COPIED if held == k.PAGE else k.REPLACED)
        else:
            pte = new_place(w, mm, first + n)
        begin_stay(w, i, pte, k.PAGE, page, began, order)
        if why == c.IN_COW and n == 0 and w.threads[t, k.X_DECISION] >= 0:
            decision = w.threads[t, k.X_DECISION]
            w.decisions[decision, k.D_AFTER] = page
            w.decisions[decision, k.D_PLACE] = w.ptes[pte, k.P_PLACE]
            if e.flags[w.decisions[decision, k.D_FROM]] & c.ZERO_PAGE:
                w.decisions[decision, k.D_DECISION] = k.DID_ZERO_FILL
            else:
                w.decisions[decision, k.D_DECISION] = k.DID_COPY
        elif why != c.IN_FORK and held == k.SWAP:
            _swapped_in(w, e, i, t, w.ptes[pte, k.P_PLACE], page, began)
        elif why != c.IN_FORK:
            step(w, i, k.STEP_NEW, w.ptes[pte, k.P_PLACE], page, began)


@guarded
def _new_folio(w: World) -> int:
    folio = w.counts[k.FOLIOS]
    w.counts[k.FOLIOS] = folio + 1
    return folio


@guarded
def _swapped_in(w: World, e: Events, event: int, t: int, place: int, page: int, began: int) -> None:
    """A page is read back from swap, or found in the swap cache; with no fault it comes back from a migration, for which kernels before
    5.14 unmap as for swap (mm/rmap.c, `try_to_unmap_one`).
    """
    how, asked = k.SWAPS_IN_MIGRATED, w.threads[t, k.X_SWAPPING]
    if asked == place:
        how = k.SWAPS_IN_STORE if w.threads[t, k.X_STORES] == 1 else 0
        w.threads[t, k.X_SWAPPED_IN] = w.counts[k.STEPS]
    elif (
        asked >= 0 and w.places[asked, k.L_MM] == e.mm[event] and 0 <= w.places[asked, k.L_VPN] - (e.address[event] >> 12) < e.frames[event]
    ):
        # The fault brings its neighbours along.
        how = 0
    step(w, event, k.STEP_SWAP_IN, place, page, how | began << 4)


@guarded
def _swap_fault(w: World, e: Events, i: int, t: int) -> None:
    pte = find(w, e.mm[i], e.address[i] >> 12) if e.mm[i] >= 0 else -1
    w.threads[t, k.X_SWAPPING] = w.ptes[pte, k.P_PLACE] if pte >= 0 else -1
    w.threads[t, k.X_STORES] = e.flags[i] & c.WRITE


@guarded
def _order(pages: int) -> int:
    """log2 of how many pages an event maps."""
    order = 0
    while 2 << order <= pages:
        order += 1
    return order


@guarded
def _map_again(w: World, e: Events, i: int, t: int) -> None:
    """Known pages are mapped (again): swap-in, migration back, KSM."""
    mm, first = e.mm[i], e.address[i] >> 12
    order = _order(e.frames[i])
    folio = _new_folio(w) if e.frames[i] > 1 else -1
    for n in range(e.frames[i]):
        frame = e.frame[i] + n
        page = w.frame_page[frame]
        if page < 0:
            page = new_page(w, -1, frame)
            w.pages[page, k.F_BORN] = i
            w.pages[page, k.F_FOLIO] = folio
        pte = find(w, mm, first + n)
        began, ended = k.AGAIN, k.REPLACED
        swapped = pte >= 0 and w.ptes[pte, k.P_KIND] == k.SWAP
        if pte >= 0:
            held = w.ptes[pte, k.P_PAGE] if w.ptes[pte, k.P_KIND] == k.PAGE else -1
            if held == page:
                w.pages[page, k.F_MOVING] = 0
                continue
            if held >= 0 and w.pages[held, k.F_MOVING]:
                began, ended = k.MIGRATION, k.MIGRATED
                w.pages[page, k.F_LAZY] = w.pages[held, k.F_LAZY]
                if w.pages[held, k.F_KSM] >= 0:
                    w.pages[page, k.F_KSM] = i
            elif held >= 0:
                w.threads[t, k.X_REPLACED] = held
                # Nobody but KSM puts a page that is mapped elsewhere in the place of another (mm/ksm.c, `replace_page`).
                if w.pages[page, k.F_MAPCOUNT] > 0:
                    ended = k.MERGED
                    if w.pages[page, k.F_KSM] < 0:
                        w.pages[page, k.F_KSM] = i
            end_stay(w, i, pte, ended)
        elif e.flags[i] & c.SPLIT and w.spaces[mm, k.A_BORN]:
            # Not mapped any more: mremap has moved it before the split says what the mapping was.
            continue
        else:
            pte = new_place(w, mm, first + n)
        begin_stay(w, i, pte, k.PAGE, page, began, order)
        if swapped:
            _swapped_in(w, e, i, t, w.ptes[pte, k.P_PLACE], page, began)
        else:
            step(w, i, k.STEP_AGAIN, w.ptes[pte, k.P_PLACE], page, began | ended << 4)


@guarded
def _zero(w: World, event: int, pte: int) -> None:
    """The zero page takes the place of a page that held nothing else."""
    end_stay(w, event, pte, k.MERGED)
    begin_stay(w, event, pte, k.ZERO, k.THE_ZERO_PAGE, k.ZERO_PAGE, 0)
    step(w, event, k.STEP_ZERO, w.ptes[pte, k.P_PLACE], k.ZERO_PAGE, k.MERGED)


@guarded
def _freed(w: World, event: int, page: int) -> None:
    """A page that was to come back and is freed instead held nothing but zeros: taken out of a larger page, it gives way to the zero page
    (mm/migrate.c, `try_to_map_unused_to_zeropage`, since v6.12).
    """
    while w.pages[page, k.F_MOVING] and w.pages[page, k.F_RMAP] >= 0:
        _zero(w, event, w.pages[page, k.F_RMAP])
    end_page(w, event, page)


@guarded
def _unmap(w: World, e: Events, i: int, t: int) -> None:
    first = e.address[i] >> 12
    for n in range(e.frames[i]):
        page = w.frame_page[e.frame[i] + n]
        if page < 0:
            continue
        if w.threads[t, k.X_REPLACED] == page:
            w.threads[t, k.X_REPLACED] = -1
            _take_effect(w, e, i, t)
            continue
        if e.flags[i] & c.MIGRATES:
            # It comes back, as another frame or as itself; only pages of nothing but zeros do not (`_freed`).
            w.pages[page, k.F_MOVING] = 1
            continue
        mm = e.mm[i]
        pte = mapper(w, page, mm, first, first + e.arg[i]) if mm >= 0 else -1
        if pte < 0 and w.pages[page, k.F_MAPCOUNT] == 1:
            # Only one can have been meant, whatever the context seemed to say.
            pte = w.pages[page, k.F_RMAP]
        if pte < 0:
            w.counts[k.UNKNOWN_UNMAPS] += 1
        elif e.flags[i] & c.SWAPPED and w.pages[page, k.F_LAZY] == k.LAZY_TRIED:
            # Dropped as MADV_FREE allows: it was not written to since.
            w.pages[page, k.F_LAZY] = k.LAZY
            drop(w, i, pte, k.UNMAPPED)
        elif e.flags[i] & c.ZEROED:
            _zero(w, i, pte)
        elif e.flags[i] & c.SWAPPED:
            end_stay(w, i, pte, k.SWAPPED_OUT)
            begin_stay(w, i, pte, k.SWAP, k.SWAPPED, k.AGAIN, 0)
            w.pages[page, k.F_SWAPPED] = 1
            step(w, i, k.STEP_SWAP_OUT, w.ptes[pte, k.P_PLACE], -1, -1)
        else:
            drop_by(w, i, pte, k.EXIT if w.spaces[w.ptes[pte, k.P_MM], k.A_DYING] else k.UNMAPPED, t)


@guarded
def _cow_begin(w: World, e: Events, i: int, t: int) -> None:
    """A store meets a read-only page. Shared file mappings are none of COW's business."""
    w.threads[t, k.X_DECISION] = -1
    w.threads[t, k.X_EFFECT] = -1
    w.threads[t, k.X_REPLACED] = -1
    if e.flags[i] & c.SHARED or e.mm[i] < 0:
        return
    mm, vpn = e.mm[i], e.address[i] >> 12
    pte = find(w, mm, vpn)
    before = k.NO_PAGE
    if e.flags[i] & c.ZERO_PAGE:
        before = k.THE_ZERO_PAGE
        if pte < 0:
            pte = new_place(w, mm, vpn)
            # UFFDIO_ZEROPAGE may have mapped it at any time since the area was made; that it was there before this, nothing says.
            late = e.flags[i] & c.USERFAULTFD != 0 and w.spaces[mm, k.A_BORN] != 0
            begin_stay(w, i if late else -1, pte, k.ZERO, k.THE_ZERO_PAGE, k.ZERO_PAGE if late else k.BEFORE_TRACE, 0)
            step(w, i, k.STEP_ZERO, w.ptes[pte, k.P_PLACE], k.ZERO_PAGE, k.REPLACED)
    elif pte >= 0 and w.ptes[pte, k.P_KIND] == k.PAGE:
        before = w.ptes[pte, k.P_PAGE]
    elif pte < 0 and mm >= 0 and w.spaces[mm, k.A_BORN]:
        # Every anonymous page of an address space that the trace saw being made is known: this one is page cache.
        before = k.FILE_PAGE
    at = w.counts[k.DECISIONS]
    w.counts[k.DECISIONS] = at + 1
    w.decisions[at, k.D_FROM] = i
    w.decisions[at, k.D_TO] = -1
    w.decisions[at, k.D_PLACE] = w.ptes[pte, k.P_PLACE] if pte >= 0 else -1
    w.decisions[at, k.D_BEFORE] = before
    w.decisions[at, k.D_AFTER] = before
    w.decisions[at, k.D_DECISION] = k.NOTHING
    w.threads[t, k.X_DECISION] = at
    w.threads[t, k.X_EFFECT] = at
    if pte < 0 or e.flags[i] & c.HUGE:
        return
    asked = w.threads[t, k.X_SWAPPED_IN]
    if asked >= 0 and w.steps[asked, k.H_A] == w.ptes[pte, k.P_PLACE]:
        # The store that had the page read back is decided about now.
        w.steps[asked, k.H_C] |= k.SWAPS_IN_DECIDED
    step(w, i, k.STEP_DECIDE, w.ptes[pte, k.P_PLACE], at, _held_by_request(w, e, i, pte))


@guarded
def _held_by_request(w: World, e: Events, i: int, pte: int) -> int:
    """1 where the GUP request that faults has just taken another part of the same folio: of those before this one that are mapped still."""
    if e.arg[i] == 0 or w.ptes[pte, k.P_KIND] != k.PAGE:
        return 0
    folio, here = w.pages[w.ptes[pte, k.P_PAGE], k.F_FOLIO], e.address[i] >> 12
    if folio < 0:
        return 0
    for vpn in range(max(e.arg[i] >> 12, here - 511), here):
        before = find(w, e.mm[i], vpn)
        if before >= 0 and w.ptes[before, k.P_KIND] == k.PAGE and w.pages[w.ptes[before, k.P_PAGE], k.F_FOLIO] == folio:
            return 1
    return 0


@guarded
def _huge_end(w: World, e: Events, i: int, t: int, decision: int) -> None:
    """A huge page is written to in place, all of it from now on; or its mapping is split, and a fault of a single page follows."""
    w.threads[t, k.X_EFFECT] = -1
    begin = w.decisions[decision, k.D_FROM]
    if e.arg[i] & VM_FAULT_FALLBACK:
        w.decisions[decision, k.D_DECISION] = k.DID_SPLIT
    elif e.arg[i] & FAILED or w.decisions[decision, k.D_DECISION] != k.NOTHING:
        return
    else:
        w.decisions[decision, k.D_DECISION] = k.DID_REUSE
    place, unshare = w.decisions[decision, k.D_PLACE], 1 if e.flags[begin] & c.UNSHARE else 0
    step(w, i, k.STEP_HUGE, place, decision, unshare)
    first = e.address[begin] >> 12 & ~511
    for n in range(in_range(w, e.mm[begin], first, first + 512)):
        own = w.ptes[w.found[n], k.P_PLACE]
        if own != place and w.ptes[w.found[n], k.P_KIND] == k.PAGE:
            step(w, i, k.STEP_PART, own, -1, unshare)


@guarded
def _cow_end(w: World, e: Events, i: int, t: int, says_write: int) -> None:
    decision = w.threads[t, k.X_DECISION]
    w.threads[t, k.X_DECISION] = -1
    if decision < 0:
        return
    begin = w.decisions[decision, k.D_FROM]
    w.decisions[decision, k.D_TO] = i
    if e.flags[begin] & c.HUGE:
        _huge_end(w, e, i, t, decision)
        return
    if w.decisions[decision, k.D_DECISION] == k.NOTHING:
        # Up to v6.1 success is told by VM_FAULT_WRITE (8).
        failed = e.arg[i] & (FAILED | VM_FAULT_FALLBACK) != 0 or (says_write != 0 and e.flags[begin] & c.UNSHARE == 0 and e.arg[i] & 8 == 0)
        if failed:
            return
        w.decisions[decision, k.D_DECISION] = k.DID_REUSE
        if w.decisions[decision, k.D_BEFORE] == k.NO_PAGE:
            _found(w, e, begin, decision)
    _take_effect(w, e, i, t)


@guarded
def _take_effect(w: World, e: Events, i: int, t: int) -> None:
    """A decision is carried out: the old page has lost this mapping, or it is reused. Until then others see the page as it was."""
    decision = w.threads[t, k.X_EFFECT]
    w.threads[t, k.X_EFFECT] = -1
    if decision < 0:
        return
    unshare = e.flags[w.decisions[decision, k.D_FROM]] & c.UNSHARE != 0
    if unshare and w.decisions[decision, k.D_DECISION] != k.DID_REUSE:
        w.decisions[decision, k.D_DECISION] = k.DID_UNSHARE
    after = w.decisions[decision, k.D_AFTER] if w.decisions[decision, k.D_DECISION] != k.DID_REUSE else -1
    step(w, i, k.STEP_UNSHARE if unshare else k.STEP_WRITE, w.decisions[decision, k.D_PLACE], decision, after)


@guarded
def _found(w: World, e: Events, begin: int, decision: int) -> None:
    """A page that was reused in place is anonymous: it has been here since before the trace."""
    mm, vpn = e.mm[begin], e.address[begin] >> 12
    if e.frames[begin] != 1 or find(w, mm, vpn) >= 0:
        return
    page = w.frame_page[e.frame[begin]]
    if page < 0:
        page = new_page(w, -1, e.frame[begin])
    pte = new_place(w, mm, vpn)
    begin_stay(w, -1, pte, k.PAGE, page, k.BEFORE_TRACE, 0)
    step(w, begin, k.STEP_AGAIN, w.ptes[pte, k.P_PLACE], page, k.AGAIN | k.REPLACED << 4)
    w.decisions[decision, k.D_PLACE] = w.ptes[pte, k.P_PLACE]
    w.decisions[decision, k.D_AFTER] = page


@guarded
def _fault(w: World, e: Events, i: int) -> None:
    """A read of an untouched anonymous page, of which nothing else came, maps the zero page."""
    if e.flags[i] & (c.WRITE | c.ANON_AREA) != c.ANON_AREA or e.arg[i] != c.FAULT_NOTHING or e.mm[i] < 0:
        return
    if e.flags[i] & c.USERFAULTFD and e.flags[i] & c.TRIED == 0:
        # It waits for another thread, which maps a page with a word (UFFDIO_COPY) or the zero page without one; then it tries again.
        return
    if not w.spaces[e.mm[i], k.A_BORN]:
        return
    huge = e.flags[i] & c.HUGE != 0
    first = e.address[i] >> 12 & ~511 if huge else e.address[i] >> 12
    for vpn in range(first, first + 512 if huge else first + 1):
        if find(w, e.mm[i], vpn) < 0:
            pte = new_place(w, e.mm[i], vpn)
            begin_stay(w, i, pte, k.ZERO, k.THE_ZERO_PAGE, k.ZERO_PAGE, 9 if huge else 0)
            step(w, i, k.STEP_ZERO, w.ptes[pte, k.P_PLACE], k.ZERO_PAGE, k.REPLACED)


@guarded
def _apart(w: World, e: Events, i: int, page: int) -> None:
    """A page that is freed by itself was part of a larger one no more: that was split into its pages."""
    folio = w.pages[page, k.F_FOLIO]
    if folio >= 0 and e.pages[i] == 1:
        step(w, i, k.STEP_APART, folio, -1, -1)


@guarded
def _reclaim(w: World, e: Events, i: int) -> None:
    """Reclaim tries to unmap a page. Tried before in vain, it was written to since MADV_FREE, and is a page like others again."""
    page = w.frame_page[e.frame[i]] if e.frames[i] > 0 else -1
    if page >= 0 and w.pages[page, k.F_LAZY] != k.NOT_LAZY:
        w.pages[page, k.F_LAZY] = k.LAZY_TRIED if w.pages[page, k.F_LAZY] == k.LAZY else k.NOT_LAZY


@guarded
def _need(w: World, e: Events, i: int) -> int:
    """How many entries an event may touch at most."""
    op, mm = e.op[i], e.mm[i]
    if op == Op.FORK_RANGE:
        return w.spaces[e.arg[i], k.A_PTES] + w.spaces[mm, k.A_PTES] if e.arg[i] >= 0 else 0
    if op == Op.FREE or op == Op.MAP_NEW:
        need = max(e.frames[i], 1)
        for n in range(e.frames[i]):
            page = w.frame_page[e.frame[i] + n]
            if page >= 0:
                need += w.pages[page, k.F_MAPCOUNT] + open_references(w, page)
        return need
    if op == Op.REF_PUT:
        return releasable(w, e, i)
    if (op == Op.COW_END or op == Op.FAULT) and e.flags[i] & c.HUGE:
        return 512
    if (mm >= 0 and op >= Op.MMAP) or op == Op.EXIT or op == Op.REF_GET:
        return w.spaces[mm, k.A_PTES] if mm >= 0 else 0
    return max(e.frames[i], 1)


@guarded
def _room(w: World, need: int) -> bool:
    """Whether every array has room for what an event that touches `need` entries can add."""
    counts = w.counts
    return (
        counts[k.LIVE] + need + 2 < len(w.vpn)
        and counts[k.TABLES] + need + 2 < len(w.tables)
        and counts[k.PAGES] + need + 2 < len(w.pages)
        and counts[k.PLACES] + need + 2 < len(w.places)
        and counts[k.STAYS] + need + 2 < len(w.stays)
        and counts[k.REFS] + need + 2 < len(w.refs)
        and counts[k.STEPS] + 2 * need + 4 < len(w.steps)
        and counts[k.DECISIONS] + 2 < len(w.decisions)
        and need + 2 < len(w.found)
    )


@part
def _test(w: World, e: Events, i: int) -> None:
    """What an event gives as an index is one: all others are numbers that the replay gave out itself.

    Raises:
        IndexError: the memory events contradict themselves.
    """
    op, mm, first = e.op[i], e.mm[i], e.frame[i]
    spaces, groups = len(w.spaces), len(w.groups)
    if not (-1 <= mm < spaces and 0 <= e.thread[i] < len(w.threads) and first >= 0 and first + max(e.frames[i], 0) <= len(w.frame_page)):
        raise IndexError("memory events that contradict themselves")
    if (op == Op.FORK or op == Op.FORK_RANGE) and not (mm >= 0 and -1 <= e.arg[i] < spaces):
        raise IndexError("memory events that contradict themselves")
    if (op == Op.REF_GET or (op == Op.REF_PUT and e.flags[i] & c.BY_GROUP != 0)) and not 0 <= e.arg[i] < groups:
        raise IndexError("memory events that contradict themselves")


@loop
@guarded
def observe(w: World, e: Events, start: int, end: int, says_write: int) -> int:
    """Replay events from `start` on; returns `end`, or the event before which the arrays must grow by `counts[NEED]` entries."""
    for i in range(start, end):
        _test(w, e, i)
        need = _need(w, e, i)
        if not _room(w, need):
            w.counts[k.NEED] = need
            return i
        op, t = e.op[i], e.thread[i]
        if op != Op.UNMAP and op != Op.FREE:
            flush(w, i, t, w.threads[t, k.X_DROPS])
        if op == Op.UNMAP:
            _unmap(w, e, i, t)
        elif op == Op.FAULT:
            w.threads[t, k.X_SWAPPING] = -1
            w.threads[t, k.X_SWAPPED_IN] = -1
            _fault(w, e, i)
        elif op == Op.SWAP_IN:
            _swap_fault(w, e, i, t)
        elif op == Op.FREE:
            for n in range(e.frames[i]):
                page = w.frame_page[e.frame[i] + n]
                if page >= 0:
                    if w.pages[page, k.F_DROPPER] == t:
                        flush(w, i, t, w.pages[page, k.F_DROPPED])
                    _apart(w, e, i, page)
                    _freed(w, i, page)
            if e.flags[i] & c.FREES_LAST:
                flush(w, i, t, w.threads[t, k.X_DROPS])
        elif op == Op.MAP_NEW:
            if e.mm[i] >= 0 and e.frames[i] > 0:
                _map_new(w, e, i, t)
        elif op == Op.COW_BEGIN:
            _cow_begin(w, e, i, t)
        elif op == Op.COW_END:
            _cow_end(w, e, i, t, says_write)
        elif op == Op.MAP_AGAIN:
            if e.mm[i] >= 0:
                _map_again(w, e, i, t)
        elif op == Op.GUP:
            if e.mm[i] >= 0 and e.flags[i] >> c.VIA_SHIFT == VIA_EXEC:
                w.spaces[e.mm[i], k.A_BORN] = 1
        elif op == Op.REF_GET:
            take_references(w, e, i)
        elif op == Op.REF_PUT:
            put_references(w, e, i)
        elif op == Op.SWAP_OUT:
            _reclaim(w, e, i)
        else:
            change_areas(w, e, i)
    return end
