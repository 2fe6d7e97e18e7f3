"""Huge pages that are mapped as one, under a policy: reused as a whole, split, or copied as a whole."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from tracetool.policies import facts as f
from tracetool.replay import columns as k
from tracetool.replay import simstate as g
from tracetool.replay.deciding import (
    HUGE_COPIED,
    HUGE_LEFT,
    HUGE_REUSED,
    HUGE_SPLIT,
    M_COPIES_HUGE,
    M_FOLLOWS,
    OLDER,
    REASON_MAPPING,
    REASON_SOLE,
    REASON_UNKNOWN,
    REASON_WRITABLE,
    REASON_ZERO,
    W_AFTER,
    W_PAGES,
    W_WHY,
    break_cow,
    in_doubt,
    made,
    reason_seen,
)
from tracetool.replay.simstate import Sim, copied_to, enter, facts, leave
from tracetool_parsers.loops import guarded

Ints = npt.NDArray[Any]


@guarded
def huge(w: Sim, d: Ints, event: int, place: int, recorded: int, unshare: int) -> None:
    """A store meets a huge page that is mapped as one: all of it is reused, or its mapping is split, or all of it is copied."""
    page = w.places[place, g.Y_PAGE] if place >= 0 else k.NO_PAGE
    begin, last, did = d[recorded, k.D_FROM], d[recorded, k.D_TO], d[recorded, k.D_DECISION]
    follow = w.params[M_FOLLOWS]
    w.counts[g.HUGE] = HUGE_REUSED if did == k.DID_REUSE else HUGE_SPLIT
    if page < 0:
        zero = page == k.THE_ZERO_PAGE
        made(w, begin, last, place, page, page, did, REASON_ZERO if zero else REASON_UNKNOWN, 1 if zero else OLDER)
        return
    if follow == 0 and unshare == 0 and w.places[place, g.Y_WRITABLE]:
        w.counts[g.HUGE] = HUGE_REUSED
        made(w, begin, last, place, page, page, k.DID_IN_PLACE, REASON_WRITABLE, 0)
        return
    bits = facts(w, event, place, page)
    if follow == 0 and unshare and w.gup[bits | f.PIN] == 0:
        # The policy has nothing against the read pin: it takes the page as it is.
        w.counts[g.HUGE] = HUGE_LEFT
        return
    w.counts[g.DOUBT] = 0
    said = in_doubt(w, page, bits, w.huge if bits & f.LARGE else w.write_fault)
    copies, reason = said & 1 != 0, said >> 1
    answer = said & 1 if w.counts[g.DOUBT] == 0 else w.counts[g.DOUBT]
    if follow:
        copies = did == k.DID_SPLIT
        reason = reason_seen(w, begin, place, page) if copies else REASON_SOLE
        if bits & f.ANOTHER_MM and bits & f.LARGE and copies:
            reason = REASON_MAPPING
    if not copies:
        w.counts[g.HUGE] = HUGE_REUSED
        made(w, begin, last, place, page, page, k.DID_REUSE, reason, answer)
    elif w.params[M_COPIES_HUGE] and follow == 0 and bits & f.LARGE:
        w.counts[g.HUGE] = HUGE_COPIED
        made(w, begin, last, place, page, copied_to(w, event, -1), k.DID_COPY, reason, answer)
    else:
        w.counts[g.HUGE] = HUGE_SPLIT
        made(w, begin, last, place, page, page, k.DID_SPLIT, reason, answer)
    w.made[w.counts[g.MADE] - 1, W_WHY] = said >> 1
    _apply_huge(w, event, place, w.made[w.counts[g.MADE] - 1, W_AFTER], unshare)
    if w.counts[g.HUGE] == HUGE_SPLIT and did == k.DID_REUSE and follow == 0:
        # No fault of the single page follows, as the recorded kernel needed none.
        break_cow(w, event, place, page, 1 - unshare)


@guarded
def _apply_huge(w: Sim, event: int, place: int, copied: int, unshare: int) -> None:
    """What was decided about a huge page, at one place of it; `copied`: the page that this part of a copy is."""
    page = w.places[place, g.Y_PAGE]
    if w.counts[g.HUGE] == HUGE_COPIED:
        leave(w, event, place, k.COPIED)
        enter(w, event, place, copied, k.COPY, 1 - unshare)
        w.pages[copied, g.G_EXCLUSIVE] = 1
    elif w.counts[g.HUGE] == HUGE_REUSED:
        w.pages[page, g.G_EXCLUSIVE] = 1
        if unshare == 0:
            w.places[place, g.Y_WRITABLE] = 1


@guarded
def part_of_huge(w: Sim, event: int, place: int, did: int, unshare: int) -> None:
    """Another part of the huge page that was decided about. Where the recorded kernel reused it, stores to it go unseen from now on, also
    those that a policy would have let fault.
    """
    page = w.places[place, g.Y_PAGE]
    if page < 0:
        return
    whole = w.params[M_FOLLOWS] or w.pages[page, g.G_FOLIO] >= 0 or w.pages[page, g.G_MAPCOUNT] == 1
    if w.counts[g.HUGE] == HUGE_COPIED and w.pages[page, g.G_FOLIO] >= 0:
        w.made[w.counts[g.MADE] - 1, W_PAGES] += 1
        _apply_huge(w, event, place, copied_to(w, event, -1), unshare)
    elif w.counts[g.HUGE] == HUGE_REUSED and whole:
        _apply_huge(w, event, place, -1, unshare)
    elif did == k.DID_REUSE:
        w.pages[page, g.G_UNSURE] = 1
