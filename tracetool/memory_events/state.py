"""What the context loop keeps: one small state a thread and an address space, and what it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tracetool.memory_events.rows import R_KIND, Rows
from tracetool.probes import Kind
from tracetool_parsers.loops import part

Ints = npt.NDArray[Any]

PAGE_SHIFT = 12
#: Addresses of user space have at most 57 bits (5-level page tables).
ADDRESS_END = 1 << 57

# What each thread is in the middle of, -1 where nothing: its address space and process; the fork it makes; exec's new address space; the
# fault, COW decision, swap fault, reclaim and teardown under way; GUP and system call under way, and what they have got so far; the first
# frame that reclaim or migration unmaps, whether it swaps, and where; whether mmap or mremap is done with what was there; where
# to a huge page migrates; whether a huge page is being split; where a huge page could be; the huge page whose mapping is being split;
# what it has freed last since it unmapped pages (0: nothing).
(T_SEEN, T_MM, T_TGID, T_FORK_MM, T_FORK_POINTER, T_FORK_ROW, T_FORK_SRC, T_NEW_MM, T_FAULT, T_COW, T_SWAP_MM, T_SWAP_PAGE, T_UNMAP_MM,
 T_DYING, T_SLOW, T_FAST, T_CALL, T_FIRST_GROUP, T_INSTANT, T_GRABS, T_GRABBED, T_UNMAP_FRAME, T_UNMAP_SWAPS, T_HUGE, T_SPLIT, T_REQUESTS,
 T_UNMAP_ADDRESS, T_MAPPED, T_UNMAP_TARGET, T_SPLITTING, T_UNMAP_NEXT, T_FREED) = range(32)  # fmt: skip
# GUP requests that got references: who asked, how many pages, the row of the system call (-1: none), from which byte on, and how many
# requests of that call there were before.
G_THREAD, G_PAGES, G_CALL, G_START, G_NUMBER = range(5)
# Memory events.
O_OP, O_MM, O_ADDRESS, O_PAGES, O_FRAME, O_FLAGS, O_ARG, O_ROW = range(8)
# Changes in a thread's life.
K_ROW, K_THREAD, K_TGID, K_MM, K_PARENT, K_HOW = range(6)
# What mmap, munmap, mremap and mprotect did to a range of pages: first, end, whether anonymous private memory is there as one area (1), it
# is something else (0), or only its protection changed (2), and the change before it of the same address space.
A_FIRST, A_END, A_WHAT, A_BEFORE = range(4)
AREA_OTHER, AREA_ANONYMOUS, AREA_PROTECTED = range(3)
# counters
OUT, TASK, SPACE, GROUP, AREA = range(5)


class Spaces(NamedTuple):
    """By pointer: the address space that it names now, and whether that is being torn down; by address space: its heap's end, if it ran,
    and the last change of its areas (from 1; 0: none), which a fork's child shares; and those changes.
    """

    current: Ints
    dying: Ints
    heap_end: Ints
    ran: Ints
    area: Ints
    areas: Ints


@part
def emit(out: Ints, count: Ints, row: int, op: int, mm: int, address: int, pages: int, frame: int, flags: int, arg: int) -> int:
    """Write a memory event; returns its row, so that what follows can still change it."""
    at = count[OUT]
    count[OUT] = at + 1
    out[at, O_OP] = op
    out[at, O_MM] = mm
    out[at, O_ADDRESS] = address
    out[at, O_PAGES] = pages
    out[at, O_FRAME] = frame
    out[at, O_FLAGS] = flags
    out[at, O_ARG] = arg
    out[at, O_ROW] = row
    return at


@part
def change(tasks: Ints, threads: Ints, count: Ints, row: int, thread: int, parent: int, how: int) -> None:
    """Write a change in a thread's life."""
    at = count[TASK]
    count[TASK] = at + 1
    tasks[at, K_ROW] = row
    tasks[at, K_THREAD] = thread
    tasks[at, K_TGID] = threads[thread, T_TGID]
    tasks[at, K_MM] = threads[thread, T_MM]
    tasks[at, K_PARENT] = parent
    tasks[at, K_HOW] = how


@part
def space_of(spaces: Spaces, count: Ints, pointer: int, unmaps: bool) -> int:
    """The address space that a pointer names; one torn down is only unmapped from, anything else is the next one's."""
    if pointer < 0:
        return -1
    if spaces.current[pointer] < 0 or (spaces.dying[pointer] != 0 and not unmaps):
        spaces.current[pointer] = count[SPACE]
        spaces.dying[pointer] = 0
        count[SPACE] += 1
    return spaces.current[pointer]


@part
def span(start: int, length: int) -> int:
    """Pages of [start, start + length), 0 for a range that is no user memory; the kernel rounds lengths up."""
    if start < 0 or start >= ADDRESS_END or length <= 0:
        return 0
    return (min(length, ADDRESS_END - start) + 4095) >> PAGE_SHIFT


@part
def span_to(start: int, end: int) -> int:
    """Pages of [start, end). Foreign numbers may be so far apart that their difference is none: it is taken of user addresses only."""
    return span(start, min(end, ADDRESS_END) - start) if 0 <= start < end else 0


@part
def change_area(spaces: Spaces, count: Ints, mm: int, first: int, pages: int, what: int) -> None:
    """Note what became of a range of pages."""
    if mm < 0 or pages <= 0:
        return
    at = count[AREA] + 1
    count[AREA] = at
    spaces.areas[at, A_FIRST] = first
    spaces.areas[at, A_END] = first + pages
    spaces.areas[at, A_WHAT] = what
    spaces.areas[at, A_BEFORE] = spaces.area[mm]
    spaces.area[mm] = at


@part
def is_one_area(spaces: Spaces, mm: int, first: int, end: int) -> bool:
    """Whether anonymous private memory was mapped over this range of pages at once, and nothing cut it since."""
    at = spaces.area[mm]
    while at > 0:
        begins, ends, what = spaces.areas[at, A_FIRST], spaces.areas[at, A_END], spaces.areas[at, A_WHAT]
        if begins < end and first < ends:
            whole = begins <= first and end <= ends
            if not whole or what != AREA_PROTECTED:
                return whole and what == AREA_ANONYMOUS
        at = spaces.areas[at, A_BEFORE]
    return False


@dataclass(frozen=True)
class State:
    """What the loop writes, with room for every event that the rows can give."""

    threads: Ints
    spaces: Spaces
    groups: Ints
    out: Ints
    tasks: Ints
    count: Ints


def new_state(r: Rows, pointers: int, threads: int) -> State:
    """Faults, mappings and frees give one event each; the others up to three, and up to two more when they turn out to be over."""
    kinds = np.bincount(r.head[:, R_KIND], minlength=64)
    few = int(kinds[[int(kind) for kind in _ONE_EVENT]].sum())
    many = len(r.head) - few
    lives = pointers + int(kinds[Kind.MM_EXIT] + kinds[Kind.FORK_RANGE])
    gups = int(kinds[Kind.GUP_DONE] + kinds[Kind.GUP_FAST_DONE] + kinds[Kind.SNAPSHOT_REFERENCE])

    calls = int(kinds[Kind.SYSCALL_EXIT] + kinds[Kind.TABLE_MOVE])

    def filled(rows: int, columns: int = 0, value: int = 0) -> Ints:
        shape = (rows, columns) if columns else rows
        # Zeros cost nothing until they are written.
        return np.full(shape, value, np.int64) if value else np.zeros(shape, np.int64)

    state = filled(threads, T_FREED + 1, -1)
    state[:, T_SEEN] = 0
    return State(
        threads=state,
        spaces=Spaces(filled(pointers, value=-1), filled(pointers), filled(lives), filled(lives), filled(lives), filled(2 * calls + 2, 4)),
        groups=filled(gups, G_NUMBER + 1),
        out=filled(few + 5 * many, 8),
        tasks=filled(2 * (int(kinds[Kind.MM_FAULT]) + many + threads), 6),
        count=filled(AREA + 1),
    )


_ONE_EVENT = (
    Kind.RMAP_REMOVE, Kind.PAGE_FREE, Kind.MM_FAULT, Kind.ANON_NEW, Kind.ANON_ADD, Kind.COW_FAULT, Kind.COW_FAULT_DONE, Kind.MARK,
)  # fmt: skip
