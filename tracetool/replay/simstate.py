"""What the replay under a policy keeps: places, pages, folios and swap slots, and the facts that a policy looks at."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy.typing as npt

from tracetool.policies import facts as f
from tracetool.replay import columns as k
from tracetool_parsers.loops import guarded

Ints = npt.NDArray[Any]

# Places: the page there, whether its entry is writable, the open stay; the swap slot (-1: none, or not known), and whether its entry says
# that the page is exclusive (1), that it was writable (2).
Y_PAGE, Y_WRITABLE, Y_STAY, Y_SLOT, Y_EXCLUSIVE = range(5)
# Pages: mappings, FOLL_GET and FOLL_PIN references, exclusive, whether stores to it may have gone unseen; the folio that it is a part of
# (-1: it is one of its own), the swap slot in whose swap cache it is (-1: in none), merged by KSM, the place where it was mapped last; the
# thread that has unmapped it and may still hold it (-1: none), and which of all that this thread has unmapped it was; references that
# are held for sure.
(G_MAPCOUNT, G_GETS, G_PINS, G_EXCLUSIVE, G_UNSURE, G_FOLIO, G_SLOT, G_KSM, G_PLACE, G_HOLDER, G_GATHER, G_SURE) = range(12)
PAGE_COLUMNS: Final = 12
# Folios of more pages: mappings of all parts, parts that are mapped more than once, references; up to two address spaces that map parts
# and how many each does, as the kernel counts them (mm/rmap.c, since v6.15); first part, how many parts;
# references that are held for sure.
O_MAPS, O_TWICE, O_GETS, O_PINS, O_MM0, O_MAPS0, O_MM1, O_MAPS1, O_FIRST, O_PARTS, O_SURE = range(11)
FOLIO_COLUMNS: Final = 11
# Swap slots: entries that refer to each, the page in the swap cache (-1: none).
N_ENTRIES, N_PAGE = range(2)
# LRU batches: the CPU whose batch a page joins, the event at which it does, the event before which it leaves (0: it does not wait), and
# whether that can be earlier.
B_CPU, B_JOINED, B_UNTIL, B_UNSURE = range(4)
# counters
MADE, STAYS, PAGES, SLOTS, HUGE, HUGE_STEP, RECORDED, DOUBT = range(8)
COUNTERS: Final = 8


class Sim(NamedTuple):
    """State and output of one policy's replay, and the policy as tables.

    `cpu` is that of each event; `batch` is of the recorded pages and of those that the policy makes; `drained` says of each CPU the last
    event at which a decision drained its batch; `drains` are the events that empty the batch of each CPU (int32, sorted), those of CPU
    `c` from `drains_from[c]` on. `gathered` counts what each thread has unmapped, `flushed` says of how much it has let go.
    """

    places: Ints
    pages: Ints
    folios: Ints
    slots: Ints
    batch: Ints
    drained: Ints
    drains: Ints
    drains_from: Ints
    gathered: Ints
    flushed: Ints
    pinned: Ints
    place_mm: Ints
    cpu: Ints
    ref_page: Ints
    ref_pin: Ints
    ref_sure: Ints
    said: Ints
    asked: Ints
    made: Ints
    stays: Ints
    counts: Ints
    params: Ints
    write_fault: Ints
    fork: Ints
    gup: Ints
    huge: Ints
    swap_in: Ints


@guarded
def facts(w: Sim, event: int, place: int, page: int) -> int:
    """What a policy looks at, as bits; of LRU batches what is likely."""
    bits = 0
    slot, folio = w.pages[page, G_SLOT], w.pages[page, G_FOLIO]
    mappings = w.pages[page, G_MAPCOUNT]
    if slot >= 0:
        bits |= f.SWAP_CACHED
        mappings += w.slots[slot, N_ENTRIES]
    if mappings > 1:
        bits |= f.MAPPED_ELSEWHERE
    if w.pinned[w.place_mm[place]]:
        bits |= f.MM_HAS_PINNED
    if folio >= 0:
        return bits | _facts_of_folio(w, place, page, folio, mappings)
    if w.pages[page, G_PINS] > 0:
        bits |= f.REFERENCED | f.MAYBE_PINNED
    elif w.pages[page, G_GETS] > 0:
        bits |= f.REFERENCED
    if w.pages[page, G_KSM]:
        bits |= f.KSM
    elif w.pages[page, G_EXCLUSIVE] and mappings <= 1:
        bits |= f.EXCLUSIVE
    if waits(w, event, page):
        bits |= f.LRU_BATCH if w.batch[page, B_CPU] == w.cpu[event] else f.LRU_BATCH_ELSEWHERE
    holder = w.pages[page, G_HOLDER]
    if holder >= 0 and w.pages[page, G_GATHER] > w.flushed[holder]:
        bits |= f.UNMAPPING
    return bits


@guarded
def _facts_of_folio(w: Sim, place: int, page: int, folio: int, mappings: int) -> int:
    bits = f.LARGE
    if w.folios[folio, O_PINS] > 0:
        bits |= f.REFERENCED | f.MAYBE_PINNED
    elif w.folios[folio, O_GETS] > 0:
        bits |= f.REFERENCED
    if w.folios[folio, O_MAPS] > 1:
        bits |= f.NEIGHBOURS
    own = mapped_by(w, folio, w.place_mm[place])
    if w.folios[folio, O_TWICE] > 0 or mappings > 1:
        bits |= f.PART_SHARED | f.ANOTHER_MM
    elif w.folios[folio, O_MAPS] > own:
        bits |= f.ANOTHER_MM
    if w.pages[page, G_EXCLUSIVE] and mappings <= 1:
        bits |= f.EXCLUSIVE
    return bits


@guarded
def mapped_by(w: Sim, folio: int, mm: int) -> int:
    """How many parts an address space maps, as far as that is counted."""
    if w.folios[folio, O_MM0] == mm:
        return w.folios[folio, O_MAPS0]
    return w.folios[folio, O_MAPS1] if w.folios[folio, O_MM1] == mm else 0


@guarded
def surely_held(w: Sim, page: int) -> int:
    """How many references there are whose release the trace tells, or would tell."""
    folio = w.pages[page, G_FOLIO]
    return w.folios[folio, O_SURE] if folio >= 0 else w.pages[page, G_SURE]


@guarded
def waits(w: Sim, event: int, page: int) -> bool:
    """Whether a page is in an LRU batch; where `B_UNSURE` is set it may be in none."""
    return event < w.batch[page, B_UNTIL] and w.batch[page, B_JOINED] > w.drained[w.batch[page, B_CPU]]


@guarded
def leave(w: Sim, event: int, place: int, ended: int) -> None:
    """What is at a place goes."""
    stay, page = w.places[place, Y_STAY], w.places[place, Y_PAGE]
    if stay >= 0:
        w.stays[stay, k.S_TO] = event
        w.stays[stay, k.S_ENDED] = ended
    if page >= 0:
        w.pages[page, G_MAPCOUNT] -= 1
        if w.pages[page, G_FOLIO] >= 0:
            _leave_folio(w, w.pages[page, G_FOLIO], page, w.place_mm[place])
    elif w.places[place, Y_SLOT] >= 0:
        slot = w.places[place, Y_SLOT]
        w.slots[slot, N_ENTRIES] -= 1
        if w.slots[slot, N_ENTRIES] == 0 and w.slots[slot, N_PAGE] >= 0 and w.pages[w.slots[slot, N_PAGE], G_MAPCOUNT] == 0:
            uncache(w, w.slots[slot, N_PAGE])
    w.places[place, Y_SLOT] = -1
    w.places[place, Y_STAY] = -1
    w.places[place, Y_PAGE] = k.NO_PAGE


@guarded
def uncache(w: Sim, page: int) -> None:
    """A page leaves the swap cache."""
    slot = w.pages[page, G_SLOT]
    if slot >= 0:
        w.slots[slot, N_PAGE] = -1
        w.pages[page, G_SLOT] = -1


@guarded
def _leave_folio(w: Sim, folio: int, page: int, mm: int) -> None:
    w.folios[folio, O_MAPS] -= 1
    if w.pages[page, G_MAPCOUNT] == 1:
        w.folios[folio, O_TWICE] -= 1
    if w.folios[folio, O_MM0] == mm:
        w.folios[folio, O_MAPS0] -= 1
        if w.folios[folio, O_MAPS0] == 0:
            w.folios[folio, O_MM0] = -1
    elif w.folios[folio, O_MM1] == mm:
        w.folios[folio, O_MAPS1] -= 1
        if w.folios[folio, O_MAPS1] == 0:
            w.folios[folio, O_MM1] = -1


@guarded
def _enter_folio(w: Sim, folio: int, page: int, mm: int) -> None:
    w.folios[folio, O_MAPS] += 1
    if w.pages[page, G_MAPCOUNT] == 2:
        w.folios[folio, O_TWICE] += 1
    if w.folios[folio, O_MM0] == mm:
        w.folios[folio, O_MAPS0] += 1
    elif w.folios[folio, O_MM1] == mm:
        w.folios[folio, O_MAPS1] += 1
    elif w.folios[folio, O_MM0] < 0:
        w.folios[folio, O_MM0] = mm
        w.folios[folio, O_MAPS0] = 1
    elif w.folios[folio, O_MM1] < 0:
        w.folios[folio, O_MM1] = mm
        w.folios[folio, O_MAPS1] = 1


@guarded
def enter(w: Sim, event: int, place: int, page: int, began: int, writable: int) -> None:
    """A page (or the zero page, or a swap entry) is at a place now."""
    stay = w.counts[STAYS]
    w.counts[STAYS] = stay + 1
    w.stays[stay, k.S_PLACE] = place
    w.stays[stay, k.S_PAGE] = page
    w.stays[stay, k.S_FROM] = event
    w.stays[stay, k.S_TO] = -1
    w.stays[stay, k.S_BEGAN] = began
    w.stays[stay, k.S_ENDED] = k.OPEN
    w.places[place, Y_STAY] = stay
    w.places[place, Y_PAGE] = page
    w.places[place, Y_WRITABLE] = writable
    if page >= 0:
        w.pages[page, G_MAPCOUNT] += 1
        w.pages[page, G_PLACE] = place
        if writable:
            w.pages[page, G_EXCLUSIVE] = 1
        if w.pages[page, G_FOLIO] >= 0:
            _enter_folio(w, w.pages[page, G_FOLIO], page, w.place_mm[place])


@guarded
def copied_to(w: Sim, event: int, recorded: int) -> int:
    """The page that a copy goes to: the one that the recorded kernel took, or one that only the policy makes; that joins its CPU's LRU
    batch, too.
    """
    if recorded >= 0:
        return recorded
    page = w.counts[PAGES]
    w.counts[PAGES] = page + 1
    cpu = w.cpu[event]
    if w.drains_from[cpu + 1] > w.drains_from[cpu]:
        w.batch[page, B_CPU] = cpu
        w.batch[page, B_JOINED] = event
        w.batch[page, B_UNTIL] = _next_drain(w, cpu, event)
    return page


@guarded
def _next_drain(w: Sim, cpu: int, event: int) -> int:
    """The event before which the batch of a CPU is emptied next."""
    low, high = w.drains_from[cpu], w.drains_from[cpu + 1]
    while low < high:
        middle = (low + high) >> 1
        if w.drains[middle] <= event:
            low = middle + 1
        else:
            high = middle
    return w.drains[low] if low < w.drains_from[cpu + 1] else 1 << 30


@guarded
def take_apart(w: Sim, folio: int) -> None:
    """The parts of a folio are pages of their own from now on."""
    for page in range(w.folios[folio, O_FIRST], w.folios[folio, O_FIRST] + w.folios[folio, O_PARTS]):
        if w.pages[page, G_FOLIO] == folio:
            w.pages[page, G_FOLIO] = -1
