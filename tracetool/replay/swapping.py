"""Swap under a policy: entries, the swap cache, and what a page is mapped as when it is back."""

from __future__ import annotations

from tracetool.policies import facts as f
from tracetool.replay import columns as k
from tracetool.replay import simstate as g
from tracetool.replay.deciding import (
    M_CACHES,
    M_FOLLOWS,
    M_SYNCHRONOUS,
    SWAPS_IN_EXCLUSIVE,
    SWAPS_IN_SHARED,
    SWAPS_IN_WRITABLE,
    break_cow,
    reused,
)
from tracetool.replay.simstate import Sim, copied_to, enter, facts, leave, uncache
from tracetool_parsers.loops import guarded


@guarded
def swap_out(w: Sim, event: int, place: int) -> None:
    """Reclaim puts a swap entry in the place of a page, which stays in the swap cache until it is freed."""
    page = w.places[place, g.Y_PAGE]
    slot, exclusive = -1, 0
    if page >= 0:
        slot, exclusive = w.pages[page, g.G_SLOT], w.pages[page, g.G_EXCLUSIVE] | w.places[place, g.Y_WRITABLE] << 1
        if slot < 0:
            slot = w.counts[g.SLOTS]
            w.counts[g.SLOTS] = slot + 1
            w.slots[slot, g.N_PAGE] = page
            w.pages[page, g.G_SLOT] = slot
        w.slots[slot, g.N_ENTRIES] += 1
        w.pages[page, g.G_EXCLUSIVE] = 0
    leave(w, event, place, k.SWAPPED_OUT)
    enter(w, event, place, k.SWAPPED, k.AGAIN, 0)
    w.places[place, g.Y_SLOT] = slot
    w.places[place, g.Y_EXCLUSIVE] = exclusive
    if page >= w.counts[g.RECORDED]:
        # When a page that only the policy makes is freed, no event tells: reclaim frees what it has unmapped.
        freed(w, page)


@guarded
def freed(w: Sim, page: int) -> None:
    """The frame of a page goes back to the allocator, unless somebody still has it under this policy."""
    if w.pages[page, g.G_MAPCOUNT] == 0 and w.pages[page, g.G_GETS] + w.pages[page, g.G_PINS] == 0:
        uncache(w, page)


@guarded
def swap_in(w: Sim, event: int, place: int, recorded: int, how: int) -> None:
    """A page is read back from swap, or found in the swap cache; the policy says how it is mapped, and of a store, who gets it."""
    if how & k.SWAPS_IN_MIGRATED:
        _come_back(w, event, place, recorded, how >> 4)
        return
    slot, exclusive, follow = w.places[place, g.Y_SLOT], w.places[place, g.Y_EXCLUSIVE] & 1, w.params[M_FOLLOWS]
    page, fresh = recorded, 1
    if slot >= 0:
        cached = w.slots[slot, g.N_PAGE]
        if follow and cached >= 0 and cached != recorded:
            # It had left the swap cache, and nothing said so.
            uncache(w, cached)
            cached = -1
        if cached >= 0:
            page, fresh = cached, 0
        else:
            if follow == 0 and (w.pages[recorded, g.G_MAPCOUNT] > 0 or w.pages[recorded, g.G_SLOT] >= 0):
                # The recorded kernel mapped one page where the policy has two.
                page = copied_to(w, event, -1)
            if w.slots[slot, g.N_ENTRIES] > 1 or w.params[M_SYNCHRONOUS] == 0 or w.params[M_CACHES]:
                fresh = 0
                w.slots[slot, g.N_PAGE] = page
                w.pages[page, g.G_SLOT] = slot
        w.slots[slot, g.N_ENTRIES] -= 1
        w.places[place, g.Y_SLOT] = -1
    leave(w, event, place, k.REPLACED)
    enter(w, event, place, page, how >> 4, 0)
    store, decided = how & k.SWAPS_IN_STORE != 0, how & k.SWAPS_IN_DECIDED != 0
    w.pages[page, g.G_EXCLUSIVE] = 0
    fault = (f.STORE if store else 0) | (f.ENTRY_EXCLUSIVE if exclusive else 0) | (f.FRESH if fresh else 0)
    said = w.swap_in[facts(w, event, place, page) | fault]
    if follow and store and not decided:
        said = SWAPS_IN_WRITABLE
    elif follow and decided and said == SWAPS_IN_WRITABLE:
        # Write-protected for another reason (soft-dirty, userfaultfd).
        said = SWAPS_IN_EXCLUSIVE
    w.pages[page, g.G_EXCLUSIVE] = 1 if said != SWAPS_IN_SHARED else 0
    w.places[place, g.Y_WRITABLE] = 1 if said == SWAPS_IN_WRITABLE else 0
    if (store and said == SWAPS_IN_WRITABLE) or (w.params[M_CACHES] and w.params[M_SYNCHRONOUS]):
        reused(w, page)
    if store and not decided and said != SWAPS_IN_WRITABLE:
        break_cow(w, event, place, page, 1)


@guarded
def _come_back(w: Sim, event: int, place: int, recorded: int, began: int) -> None:
    """What looked like swap was a migration: the page is as it was, in another frame or in the same."""
    slot, was, page = w.places[place, g.Y_SLOT], w.places[place, g.Y_EXCLUSIVE], recorded
    if slot >= 0 and w.slots[slot, g.N_PAGE] >= 0:
        before = w.slots[slot, g.N_PAGE]
        if w.pages[before, g.G_SLOT] == slot:
            # The first to come back: the others will find the same.
            if w.params[M_FOLLOWS] == 0 and recorded != before and w.pages[recorded, g.G_MAPCOUNT] > 0:
                page = copied_to(w, event, -1)
            w.pages[before, g.G_SLOT] = -1
            w.pages[page, g.G_KSM] = w.pages[before, g.G_KSM]
            w.slots[slot, g.N_PAGE] = page
        elif w.params[M_FOLLOWS] == 0:
            page = before
    if slot >= 0:
        w.slots[slot, g.N_ENTRIES] -= 1
        w.places[place, g.Y_SLOT] = -1
    leave(w, event, place, k.REPLACED)
    enter(w, event, place, page, began, was >> 1)
    w.pages[page, g.G_EXCLUSIVE] = was & 1 if w.pages[page, g.G_MAPCOUNT] == 1 else 0
