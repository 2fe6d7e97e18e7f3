"""The arrays of the replay: one row a thing, one column a fact. Loops get whole arrays (few, so that they compile fast) and index
`array[row, COLUMN]`; a row lies in one cache line. Rows are dense numbers, -1 is none, times are rows of the memory events.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy.typing as npt

Ints = npt.NDArray[Any]

# Page table entries: whose, what they hold, at which place and stay; their page table; links of that table's (and free) entries, and of
# the page's mappers (the kernel's rmap). The virtual page number lies in World.vpn.
P_MM, P_PAGE, P_KIND, P_PLACE, P_STAY, P_TABLE, P_NEXT, P_PREV, P_RNEXT, P_RPREV = range(10)
FREE, PAGE, ZERO, SWAP = 0, 1, 2, 3  # P_KIND

# Page tables: 512 pages from `base` (virtual page number >> 9) of an address space; first entry, the address space's next table.
T_BASE, T_MM, T_HEAD, T_NEXT = range(4)
TABLE_SHIFT: Final = 9

# Pages, lives of page frames: dense frame number, mappings, first mapper, newest open reference, when KSM merged another into it, whether
# MADV_FREE lets reclaim drop it and whether reclaim has tried to, whether it is on its way to another frame; the event that mapped it first
# (-1: older than the trace), the folio of more pages that it is of (-1: none), whether it was ever swapped out; the thread that unmapped it
# last, and which of all that this thread has unmapped it was.
F_FRAME, F_MAPCOUNT, F_RMAP, F_REFS, F_KSM, F_LAZY, F_MOVING, F_BORN, F_FOLIO, F_SWAPPED, F_DROPPER, F_DROPPED = range(12)
NOT_LAZY, LAZY, LAZY_TRIED = range(3)

# Address spaces: first page table, entries, whether the trace saw it from the start, whether it is being torn down.
A_TABLE, A_PTES, A_BORN, A_DYING = range(4)

# Threads: the page that each has just replaced, the decision that it is in, the decision still to be carried out; the place of the swap
# fault that it is in, whether that is a store's, the step that read the page back; how many pages it has unmapped, and how many of them it
# has let go of: it holds them until it has unmapped all that it is to, and then lets go of them in that order (mm/mmu_gather.c).
X_REPLACED, X_DECISION, X_EFFECT, X_SWAPPING, X_STORES, X_SWAPPED_IN, X_DROPS, X_FLUSHED = range(8)

# GUP requests: first reference, how many.
G_FIRST, G_SIZE = range(2)

# Places: an address of an address space for as long as something is mapped there.
L_MM, L_VPN = range(2)

# Stays of a page (or the zero page, or a swap entry) at a place; how they began and ended.
# The mapping that it belongs to may be of more pages: the order is log2 of how many.
S_PLACE, S_PAGE, S_FROM, S_TO, S_BEGAN, S_ENDED, S_ORDER = range(7)
# As schema.BEGAN, schema.ENDED.
BEFORE_TRACE, TOUCH, COPY, FORK, EARLY_COPY, ZERO_FILL, UNSHARE, SWAP_IN, AGAIN, MOVE, ZERO_PAGE, MIGRATION = range(12)
OPEN, UNMAPPED, COPIED, EXIT, MOVED, SWAPPED_OUT, REPLACED, MERGED, MIGRATED = range(9)

# GUP references to one page: request, number of the page in it; begin, end and how well that is known; the page's next one.
R_PAGE, R_PLACE, R_GROUP, R_INDEX, R_FROM, R_TO, R_RELEASED, R_NEXT = range(8)
EXACT, AT_LATEST, UNKNOWN = range(3)  # as schema.RELEASED

# Recorded COW decisions: begin, end, place, page before and after, what was decided.
D_FROM, D_TO, D_PLACE, D_BEFORE, D_AFTER, D_DECISION = range(6)
(DID_COPY, DID_REUSE, DID_ZERO_FILL, DID_EARLY_COPY, DID_UNSHARE, DID_SPLIT, DID_IN_PLACE, UNDETERMINED, NOTHING, UNSEEN
 ) = range(10)  # fmt: skip  # schema.DECISIONS

# Pages that are no page: not known, page cache, the zero page, swapped out.
NO_PAGE, FILE_PAGE, THE_ZERO_PAGE, SWAPPED = -1, -2, -3, -4

# Steps: what happened to places, whatever a kernel decides. Operands a, b, c, and the memory event.
H_OP, H_A, H_B, H_C, H_EVENT = range(5)
STEP_NEW: Final = 0  # place, page, how it began: a fresh page
STEP_ZERO: Final = 1  # place, how it began, how what was there ended: the zero page
STEP_WRITE: Final = 2  # place, recorded decision, page that a copy gave or -1: a store to a read-only page takes effect
STEP_UNSHARE: Final = 3  # the same, for a read pin
STEP_SHARE: Final = 4  # parent's place, child's new place, page that an early copy gave or -1
STEP_DROP: Final = 5  # place, how it ended, the thread that holds its page until it is flushed (-1: none does)
STEP_MOVE: Final = 6  # place, new place
STEP_SWAP_OUT: Final = 7  # place
STEP_AGAIN: Final = 8  # place, page, how it began and (in 16ths) how what was there ended: a known page is mapped again
STEP_REF: Final = 9  # place, reference, flags of the request
STEP_UNREF: Final = 10  # reference
STEP_PROTECT: Final = 11  # place, 1: may be written again, 0: may not
STEP_DECIDE: Final = 12  # place, recorded decision, 1: the GUP request that faults holds its folio: a store meets a read-only page
STEP_PART: Final = 13  # place, -, 1: for a read pin: what was just decided about a huge page is about this, too
STEP_HUGE: Final = 14  # place, recorded decision, 1: for a read pin: a store meets a read-only huge page; its other parts follow
STEP_SWAP_IN: Final = 15  # place, page, SWAPS_IN_... and (in 16ths) how the stay begins: a page is read back from swap
STEP_FREED: Final = 16  # page: a page that was swapped out is freed
STEP_FLUSH: Final = 17  # thread, a number: it has let go of the pages that it unmapped, up to this one
STEP_APART: Final = 18  # folio: its pages are pages like others from now on
STEPS_IN_ALL: Final = 19

# STEP_SWAP_IN: for a store; a decision about that store follows; no fault: the entry was that of a migration under way.
SWAPS_IN_STORE, SWAPS_IN_DECIDED, SWAPS_IN_MIGRATED = 1, 2, 4

# World.counts
PTES, TABLES, PAGES, PLACES, STAYS, REFS, STEPS, DECISIONS, LIVE, NEED, UNKNOWN_UNMAPS, HEALED, FOLIOS = range(13)


class World(NamedTuple):
    """Everything that the observed replay reads and writes; hashes are powers of two long and at most half full."""

    ptes: Ints
    vpn: Ints
    tables: Ints
    pages: Ints
    spaces: Ints
    pte_hash: Ints
    table_hash: Ints
    frame_page: Ints
    threads: Ints
    groups: Ints
    places: Ints
    stays: Ints
    refs: Ints
    decisions: Ints
    steps: Ints
    found: Ints
    counts: Ints


class Events(NamedTuple):
    """The columns of the memory events that the replay reads; `frame` and `frames` are a slice of the dense frame numbers."""

    op: Ints
    mm: Ints
    address: Ints
    pages: Ints
    frame: Ints
    frames: Ints
    flags: Ints
    arg: Ints
    thread: Ints
