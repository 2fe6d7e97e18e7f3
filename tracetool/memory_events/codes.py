"""The numbers in the table of memory events: operations, and the bits of `flags` and values of `arg` by operation."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Op(IntEnum):
    """The operations as numbers, in the order of `schema.OPS`."""

    SNAPSHOT = 0
    FORK = 1
    FORK_RANGE = 2
    EXEC = 3
    EXIT = 4
    MAP_NEW = 5
    MAP_AGAIN = 6
    UNMAP = 7
    FAULT = 8
    COW_BEGIN = 9
    COW_END = 10
    GUP = 11
    REF_GET = 12
    REF_PUT = 13
    FREE = 14
    SWAP_OUT = 15
    SWAP_IN = 16
    KSM_MERGE = 17
    MMAP = 18
    MUNMAP = 19
    MREMAP = 20
    MPROTECT = 21
    MADVISE = 22
    MARK = 23


# fault, cow_begin: what kind of access to what kind of area
WRITE: Final = 1
REMOTE: Final = 2
UNSHARE: Final = 4
ANON_AREA: Final = 8
USER: Final = 16
SHARED: Final = 32
ZERO_PAGE: Final = 64
HUGE: Final = 128  # cow_begin, cow_end: about a huge page that is mapped as one; fault: read where the huge zero page can be
HUGETLB: Final = 256
USERFAULTFD: Final = 512  # a missing page is for another thread to bring
TRIED: Final = 1024  # not the first attempt

# snapshot: what is mapped (flags; arg: log2 of the pages of the mapping), or that all of an address space is told
IS_PAGE: Final = 0
IS_ZERO: Final = 1
IS_SWAPPED: Final = 2
WHOLE: Final = 3

# swap_in: the entry is neither page nor swap: a migration under way, device memory, a poisoned page, a marker (with WRITE, REMOTE...)
SPECIAL: Final = 2048

# unmap: the page is being swapped out; the zero page takes its place, if nothing has; it migrates, or is taken out of a larger one
SWAPPED: Final = 1
ZEROED: Final = 2
MIGRATES: Final = 4

# free: the last of what a thread frees after it has unmapped pages: it has let go of all of them
FREES_LAST: Final = 1

# fault: what the trace says came of it (arg)
FAULT_NOTHING: Final = 0
FAULT_MAPPED: Final = 1
FAULT_COW: Final = 2
FAULT_SWAP: Final = 3

# map_again: only held otherwise: a huge page's mapping is split (above the kernel's own RMAP_* bits)
SPLIT: Final = 256

# map_new: what the new page is for (arg)
TOUCH: Final = 0
IN_COW: Final = 1
IN_FORK: Final = 2
IN_SWAP: Final = 3

# gup, ref_get: what is asked for (with WRITE); arg is the reference group, `pages` what was got
PIN: Final = 2
LONGTERM: Final = 4
FORCE: Final = 8
VIA_SHIFT: Final = 8  # the interface, an index into schema.VIA, lies above the bits

# ref_put: by the group of the request (arg) from page number `pages` on, or by `pfn`; exact, or this is the latest it can be; with PIN
# and the interface of what is released, where that is known
EXACT: Final = 1
BY_GROUP: Final = 16

# fork_range
COPIED: Final = 1

# mremap: `flags` is the new length in pages, or this where page table entries move (arg: the new address)
TABLES_MOVED: Final = -1

# exit: begins, then is over
EXIT_DONE: Final = 1

# task rows: how a stretch of a thread's life begins
HOW: Final = ("before-trace", "fork", "thread", "exec", "rename", "exit", "mm")
HOW_BEFORE: Final = 0
HOW_FORK: Final = 1
HOW_THREAD: Final = 2
HOW_EXEC: Final = 3
HOW_RENAME: Final = 4
HOW_EXIT: Final = 5
HOW_MM: Final = 6

#: FOLL_* by layout: before Linux commit 2c2241081f7d ("mm/gup: move private gup FOLL_ flags to internal.h") (in v6.3), and since.
FOLL_OLD: Final = 0
FOLL_NEW: Final = 1
FOLL_UNKNOWN: Final = 2
