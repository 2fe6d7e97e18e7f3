"""One decision under a policy: what the facts are, what the tables say to them, and what becomes of the page."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from tracetool.policies import facts as f
from tracetool.replay import columns as k
from tracetool.replay import simstate as g
from tracetool.replay.simstate import Sim, copied_to, enter, facts, leave, mapped_by, surely_held, uncache
from tracetool.schema import REASONS
from tracetool_parsers.loops import guarded

Ints = npt.NDArray[Any]

# Decisions made: memory event, its end, place, page before and after, decision, reason, mappings and references before, what the policy
# said (0 reuse, 1 copy, or why it was not asked), whether it rests on accesses that the trace cannot show, how many pages it is about, and
# the policy's reason where it was only asked.
(W_EVENT, W_LAST, W_PLACE, W_BEFORE, W_AFTER, W_DECISION, W_REASON, W_MAPCOUNT, W_REFS, W_POLICY, W_UNSURE, W_PAGES, W_WHY) = range(13)
#: Why a policy cannot be asked: the page is older than the trace; whether it waits in an LRU batch, whether a reference to it was already
#: released, is not known.
OLDER, BATCH_UNKNOWN, RELEASE_UNKNOWN = -1, -2, -3
#: Of a decision whose begin the steps do not tell.
NOT_ASKED = -9

REASON_UNKNOWN = REASONS.index("unknown")
REASON_MAPPING = REASONS.index("another-mapping")
REASON_REFERENCE = REASONS.index("reference")
REASON_SOLE = REASONS.index("sole-owner")
REASON_FILE = REASONS.index("not-anonymous")
REASON_ZERO = REASONS.index("zero-page")
REASON_PINNED = REASONS.index("pinned-at-fork")
REASON_WRITABLE = REASONS.index("writable")
REASON_KSM = REASONS.index("ksm")
REASON_SWAP = REASONS.index("swap-cache")
REASON_LRU = REASONS.index("lru-batch")
REASON_LARGE = REASONS.index("large-page")
REASON_UNMAPPING = REASONS.index("unmapping")

#: What a policy can say to a read reference besides taking the page (0) and unsharing it (1), as `policies.facts` codes it.
GUP_WRITES = 2
#: What it can say of a page from swap.
SWAPS_IN_SHARED, SWAPS_IN_EXCLUSIVE, SWAPS_IN_WRITABLE = range(3)
# What was last decided about a huge page, for its parts.
HUGE_REUSED, HUGE_SPLIT, HUGE_COPIED, HUGE_LEFT = range(4)
# A policy's parameters, as the loop reads them.
M_FOLLOWS, M_RESTORES, M_COPIES_HUGE, M_DRAINS, M_CACHES, M_SYNCHRONOUS = range(6)


@guarded
def made(w: Sim, event: int, last: int, place: int, before: int, after: int, decision: int, reason: int, said: int) -> None:
    """Note a decision."""
    at = w.counts[g.MADE]
    w.counts[g.MADE] = at + 1
    w.made[at, W_EVENT] = event
    w.made[at, W_LAST] = last
    w.made[at, W_PLACE] = place
    w.made[at, W_BEFORE] = before
    w.made[at, W_AFTER] = after
    w.made[at, W_DECISION] = decision
    w.made[at, W_REASON] = reason
    w.made[at, W_MAPCOUNT] = w.pages[before, g.G_MAPCOUNT] if before >= 0 else 0
    w.made[at, W_REFS] = w.pages[before, g.G_GETS] + w.pages[before, g.G_PINS] if before >= 0 else 0
    w.made[at, W_POLICY] = said
    w.made[at, W_UNSURE] = w.pages[before, g.G_UNSURE] if before >= 0 else 0
    w.made[at, W_PAGES] = 1
    w.made[at, W_WHY] = reason


@guarded
def decide(w: Sim, event: int, place: int, page: int, unshare: int, held: int) -> int:
    """What the policy says of a store (or of a read pin that wants the page to itself) now: bit 0 copy, the rest the reason. Where that
    depends on what the trace does not tell, `counts[DOUBT]` says on what. `held`: who asks already holds the folio.
    """
    w.counts[g.DOUBT] = 0
    bits = facts(w, event, place, page)
    if held and bits & f.LARGE:
        said = w.write_fault[bits | f.REFERENCED]
        return 0 if unshare and w.gup[bits | f.PIN] == 0 else said
    if unshare and w.gup[bits | f.PIN] == 0:
        return 0
    if bits & f.LARGE == 0 and bits & f.LRU_BATCH and bits & (f.EXCLUSIVE | f.KSM) == 0 and others(w, page) <= w.params[M_DRAINS]:
        w.drained[w.cpu[event]] = event
    return in_doubt(w, page, bits, w.write_fault)


@guarded
def in_doubt(w: Sim, page: int, bits: int, table: Ints) -> int:
    """What a table says to these facts; where some may not be so, and it would say otherwise, what is likely: that a page is in no LRU
    batch of which nothing tells how full it is, and that a reference is held until the latest moment.
    """
    said = table[bits]
    waits = f.LRU_BATCH | f.LRU_BATCH_ELSEWHERE
    if bits & f.LARGE == 0 and bits & waits and w.batch[page, g.B_UNSURE]:
        likely = table[bits & ~waits]
        if (said ^ likely) & 1:
            w.counts[g.DOUBT] = BATCH_UNKNOWN
            return likely
    if bits & f.REFERENCED and surely_held(w, page) == 0 and (said ^ table[bits & ~(f.REFERENCED | f.MAYBE_PINNED)]) & 1:
        w.counts[g.DOUBT] = RELEASE_UNKNOWN
    return said


@guarded
def reason_seen(w: Sim, event: int, place: int, page: int) -> int:
    """Why the recorded kernel copied, as far as the state shows."""
    bits = facts(w, event, place, page)
    if bits & f.MAPPED_ELSEWHERE:
        return REASON_MAPPING
    if bits & f.REFERENCED:
        return REASON_REFERENCE
    if bits & f.LARGE:
        return REASON_LARGE
    if bits & f.KSM:
        return REASON_KSM
    if bits & f.SWAP_CACHED:
        return REASON_SWAP
    if bits & (f.LRU_BATCH | f.LRU_BATCH_ELSEWHERE):
        return REASON_LRU
    return REASON_UNMAPPING if bits & f.UNMAPPING else REASON_UNKNOWN


@guarded
def others(w: Sim, page: int) -> int:
    """References to a page besides one mapping and the LRU batch."""
    cached = 1 if w.pages[page, g.G_SLOT] >= 0 else 0
    return w.pages[page, g.G_MAPCOUNT] - 1 + w.pages[page, g.G_GETS] + w.pages[page, g.G_PINS] + cached


@guarded
def reused(w: Sim, page: int) -> None:
    """A page that is written to in place leaves the swap cache: nothing is in swap any more of what it will hold."""
    slot = w.pages[page, g.G_SLOT]
    w.pages[page, g.G_KSM] = 0
    if slot >= 0 and w.slots[slot, g.N_ENTRIES] == 0:
        uncache(w, page)


@guarded
def break_cow(w: Sim, event: int, place: int, page: int, write: int) -> int:
    """A fault that only the policy takes, inside GUP or after a swap-in: the process gets the page to itself."""
    bits = facts(w, event, place, page)
    said = w.write_fault[bits]
    folio = w.pages[page, g.G_FOLIO]
    if folio >= 0 and w.folios[folio, g.O_PARTS] == 512 and mapped_by(w, folio, w.place_mm[place]) == 512:
        # Mapped as one: only where that fails are single pages looked at, which fail the same.
        said = w.huge[bits]
    after = copied_to(w, event, -1) if said & 1 else page
    copied = k.DID_COPY if write else k.DID_UNSHARE
    made(w, event, -1, place, page, after, copied if said & 1 else k.DID_REUSE, said >> 1, said & 1)
    if said & 1:
        leave(w, event, place, k.COPIED)
        enter(w, event, place, after, k.COPY if write else k.UNSHARE, write)
    else:
        reused(w, page)
    w.pages[after, g.G_EXCLUSIVE] = 1
    if write:
        w.places[place, g.Y_WRITABLE] = 1
    return after
