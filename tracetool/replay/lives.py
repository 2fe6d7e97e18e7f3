"""Pages, places and stays begin and end: the loop's words for what happened, each writing what policies will replay."""

from __future__ import annotations

from tracetool.replay import columns as k
from tracetool.replay.columns import World
from tracetool.replay.pagetables import insert, link, remove, unlink
from tracetool_parsers.loops import guarded


@guarded
def step(w: World, event: int, op: int, a: int, b: int, third: int) -> None:
    """Write a step for the policies to replay."""
    at = w.counts[k.STEPS]
    w.counts[k.STEPS] = at + 1
    w.steps[at, k.H_OP] = op
    w.steps[at, k.H_A] = a
    w.steps[at, k.H_B] = b
    w.steps[at, k.H_C] = third
    w.steps[at, k.H_EVENT] = event


@guarded
def new_page(w: World, event: int, frame: int) -> int:
    """A new life of a page frame; the one before is over, if nothing said so."""
    page = w.counts[k.PAGES]
    w.counts[k.PAGES] = page + 1
    w.pages[page, k.F_FRAME] = frame
    w.pages[page, k.F_MAPCOUNT] = 0
    w.pages[page, k.F_RMAP] = -1
    w.pages[page, k.F_REFS] = -1
    w.pages[page, k.F_KSM] = -1
    w.pages[page, k.F_LAZY] = k.NOT_LAZY
    w.pages[page, k.F_MOVING] = 0
    w.pages[page, k.F_BORN] = event
    w.pages[page, k.F_FOLIO] = -1
    w.pages[page, k.F_SWAPPED] = 0
    w.pages[page, k.F_DROPPER] = -1
    w.pages[page, k.F_DROPPED] = -1
    before = w.frame_page[frame]
    if before >= 0:
        end_page(w, event, before)
    w.frame_page[frame] = page
    return page


@guarded
def end_page(w: World, event: int, page: int) -> None:
    """A freed frame is mapped nowhere and referenced by none: what still seems to be was missed, and ends here at the latest."""
    while w.pages[page, k.F_RMAP] >= 0:
        w.counts[k.HEALED] += 1
        drop(w, event, w.pages[page, k.F_RMAP], k.UNMAPPED)
    while w.pages[page, k.F_REFS] >= 0:
        release(w, event, w.pages[page, k.F_REFS], k.AT_LATEST)
    if w.pages[page, k.F_SWAPPED]:
        step(w, event, k.STEP_FREED, page, -1, -1)
    if w.frame_page[w.pages[page, k.F_FRAME]] == page:
        w.frame_page[w.pages[page, k.F_FRAME]] = -1


@guarded
def begin_stay(w: World, event: int, pte: int, kind: int, page: int, began: int, order: int) -> None:
    """A stay begins: `page` is a page, or THE_ZERO_PAGE or SWAPPED; the mapping is of 2 ** `order` pages."""
    at = w.counts[k.STAYS]
    w.counts[k.STAYS] = at + 1
    w.stays[at, k.S_PLACE] = w.ptes[pte, k.P_PLACE]
    w.stays[at, k.S_PAGE] = page
    w.stays[at, k.S_FROM] = event
    w.stays[at, k.S_TO] = -1
    w.stays[at, k.S_BEGAN] = began
    w.stays[at, k.S_ENDED] = k.OPEN
    w.stays[at, k.S_ORDER] = order
    w.ptes[pte, k.P_STAY] = at
    w.ptes[pte, k.P_KIND] = kind
    if kind == k.PAGE:
        link(w, pte, page)


@guarded
def end_stay(w: World, event: int, pte: int, ended: int) -> None:
    """The stay of an entry ends; the entry itself remains, holding nothing."""
    stay = w.ptes[pte, k.P_STAY]
    w.stays[stay, k.S_TO] = event
    w.stays[stay, k.S_ENDED] = ended
    if w.ptes[pte, k.P_KIND] == k.PAGE:
        unlink(w, pte)


@guarded
def drop(w: World, event: int, pte: int, ended: int) -> None:
    """The entry goes with what it holds."""
    drop_by(w, event, pte, ended, -1)


@guarded
def drop_by(w: World, event: int, pte: int, ended: int, thread: int) -> None:
    """The same; `thread` holds the page until `flush`, -1: it does not."""
    page = w.ptes[pte, k.P_PAGE]
    end_stay(w, event, pte, ended)
    step(w, event, k.STEP_DROP, w.ptes[pte, k.P_PLACE], ended, thread)
    if thread >= 0:
        w.threads[thread, k.X_DROPS] += 1
        w.pages[page, k.F_DROPPER] = thread
        w.pages[page, k.F_DROPPED] = w.threads[thread, k.X_DROPS]
    remove(w, pte)


@guarded
def flush(w: World, event: int, thread: int, number: int) -> None:
    """A thread lets go of the pages that it has unmapped, up to one."""
    if w.threads[thread, k.X_FLUSHED] >= number:
        return
    w.threads[thread, k.X_FLUSHED] = number
    last = w.counts[k.STEPS] - 1
    if last >= 0 and w.steps[last, k.H_OP] == k.STEP_FLUSH and w.steps[last, k.H_A] == thread:
        w.steps[last, k.H_B] = number
    else:
        step(w, event, k.STEP_FLUSH, thread, number, -1)


@guarded
def new_place(w: World, mm: int, vpn: int) -> int:
    """An entry for an address that has none."""
    pte = insert(w, mm, vpn)
    place = w.counts[k.PLACES]
    w.counts[k.PLACES] = place + 1
    w.places[place, k.L_MM] = mm
    w.places[place, k.L_VPN] = vpn
    w.ptes[pte, k.P_PLACE] = place
    return pte


@guarded
def release(w: World, event: int, ref: int, how: int) -> None:
    """A reference is released."""
    w.refs[ref, k.R_TO] = event
    w.refs[ref, k.R_RELEASED] = how
    page = w.refs[ref, k.R_PAGE]
    before = w.pages[page, k.F_REFS]
    if before == ref:
        w.pages[page, k.F_REFS] = w.refs[ref, k.R_NEXT]
    else:
        while w.refs[before, k.R_NEXT] != ref:
            before = w.refs[before, k.R_NEXT]
        w.refs[before, k.R_NEXT] = w.refs[ref, k.R_NEXT]
    step(w, event, k.STEP_UNREF, ref, -1, -1)
