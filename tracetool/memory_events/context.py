"""The loop that reads the context of every raw event: one pass over the rows, one small state a thread and an address space.

A kernel pointer to an mm names one address space until it is torn down; what comes after names another. A probe that names no mm
means that of the fault, teardown or system call that its thread is in. GUP is counted from its return, and what a system call gives
back at once is released here.
"""

from __future__ import annotations

from tracetool.memory_events import codes as c
from tracetool.memory_events import state as k
from tracetool.memory_events.codes import Op
from tracetool.memory_events.requests import about_references, give_back
from tracetool.memory_events.rows import R_KIND, R_MM, R_THREAD, Rows
from tracetool.memory_events.state import Ints, Spaces, change, emit, is_one_area, space_of, span
from tracetool.memory_events.tasks import about_tasks, seen
from tracetool.probes import Kind
from tracetool_parsers.loops import loop, part

# FAULT_FLAG_* as in include/linux/mm_types.h since v5.10; VM_* as in include/linux/mm.h; the special bit of an x86 PTE
FAULT_WRITE, FAULT_TRIED, FAULT_USER, FAULT_REMOTE, FAULT_UNSHARE = 0x1, 0x20, 0x40, 0x80, 0x400
VM_SHARED, VM_UFFD_MISSING, VM_HUGETLB = 0x8, 0x200, 0x400000
PTE_SPECIAL = 1 << 9
PTE_FRAME = (1 << 40) - 1
RMAP_COMPOUND = 2
#: The type of a swap entry is its highest five bits (x86-64); of 32 at most 23 to 27 are swap files (include/linux/swap.h, MAX_SWAPFILES).
SWAP_TYPE_SHIFT, SPECIAL_TYPES = 59, 23


@part
def _access(fault_flags: int, vm_flags: int) -> int:
    bits = 0
    if fault_flags & FAULT_WRITE:
        bits |= c.WRITE
    if fault_flags & FAULT_REMOTE:
        bits |= c.REMOTE
    if fault_flags & FAULT_UNSHARE:
        bits |= c.UNSHARE
    if fault_flags & FAULT_USER:
        bits |= c.USER
    if fault_flags & FAULT_TRIED:
        bits |= c.TRIED
    if vm_flags & VM_SHARED:
        bits |= c.SHARED
    if vm_flags & VM_UFFD_MISSING:
        bits |= c.USERFAULTFD
    if vm_flags & VM_HUGETLB:
        bits |= c.HUGETLB
    return bits


@part
def _space_at(r: Rows, i: int, spaces: Spaces, count: Ints) -> int:
    """The address space in which something is mapped or faults; -1 where the address is none of user space."""
    mm = space_of(spaces, count, r.head[i, R_MM], False)
    return mm if 0 <= r.args[i, 0] < k.ADDRESS_END else -1


@part
def _batch(pages: int) -> int:
    """How many pages of a folio one rmap call is about: at most a page table's; kernels before 6.9 do not say, and mean one."""
    return pages if 0 < pages <= 512 else 1


@part
def _fault(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints, tasks: Ints, count: Ints) -> None:
    mm = _space_at(r, i, spaces, count)
    bits = _access(r.args[i, 1], r.args[i, 2])
    if r.args[i, 3] == 0:
        bits |= c.ANON_AREA
    if bits & c.REMOTE == 0 and mm >= 0 and threads[t, k.T_MM] != mm:
        threads[t, k.T_MM] = mm
        change(tasks, threads, count, i, t, -1, c.HOW_MM)
    if mm >= 0:
        spaces.ran[mm] |= bits & c.REMOTE == 0
    threads[t, k.T_FAULT] = emit(out, count, i, Op.FAULT, mm, r.args[i, 0] & ~4095, 1, 0, bits, c.FAULT_NOTHING)


@part
def _mapped_at_once(r: Rows, i: int, t: int, threads: Ints) -> int:
    """How many pages a new anonymous page brings: what was allocated with it; where that was not recorded, a huge page is told by where
    it lies and by the fault that asked for one.
    """
    if r.args[i, 2] > 0:
        return r.args[i, 2]
    asked = threads[t, k.T_HUGE] >= 0 and threads[t, k.T_HUGE] == r.args[i, 0] >> 21
    return 512 if asked and r.args[i, 0] & 0x1FFFFF == 0 and r.args[i, 1] & 511 == 0 else 1


@part
def _followed(t: int, mm: int, address: int, pages: int, what: int, threads: Ints, out: Ints) -> None:
    """The fault that the thread is in led to this, of so many pages, its own among them: no zero page was mapped."""
    fault = threads[t, k.T_FAULT]
    if fault < 0 or out[fault, k.O_MM] != mm or not 0 <= out[fault, k.O_ADDRESS] - address < pages << k.PAGE_SHIFT:
        return
    if out[fault, k.O_ARG] == c.FAULT_NOTHING:
        out[fault, k.O_ARG] = what


@part
def _mapped(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints, count: Ints) -> None:
    mm = _space_at(r, i, spaces, count)
    address = r.args[i, 0] & ~4095
    if r.head[i, R_KIND] == Kind.ANON_ADD:
        if r.args[i, 2] == 512:
            threads[t, k.T_SPLIT] = r.args[i, 1]
        # Kernels before 6.7, which do not say how many pages, say whether it is a huge page as one.
        pages = 512 if r.args[i, 2] == 0 and r.args[i, 3] & RMAP_COMPOUND else _batch(r.args[i, 2])
        splits = c.SPLIT if threads[t, k.T_SPLITTING] >= 0 and pages == 512 else 0
        emit(out, count, i, Op.MAP_AGAIN, mm, address, pages, r.args[i, 1], r.args[i, 3] & 255 | splits, 0)
        _followed(t, mm, address, pages, c.FAULT_MAPPED, threads, out)
        return
    what = c.TOUCH
    cow = threads[t, k.T_COW]
    if cow >= 0 and out[cow, k.O_MM] == mm and out[cow, k.O_ADDRESS] == address:
        what = c.IN_COW
    elif threads[t, k.T_FORK_ROW] >= 0 and threads[t, k.T_FORK_MM] == mm:
        what = c.IN_FORK
    elif threads[t, k.T_SWAP_MM] == mm and threads[t, k.T_SWAP_PAGE] == address:
        what = c.IN_SWAP
    pages = _mapped_at_once(r, i, t, threads)
    emit(out, count, i, Op.MAP_NEW, mm, address, pages, r.args[i, 1], 0, what)
    _followed(t, mm, address, pages, c.FAULT_MAPPED, threads, out)


@part
def _is_reclaimed(r: Rows, t: int, mm: int, frame: int, threads: Ints) -> bool:
    """Whether reclaim or migration, which began with a folio's first frame, goes on with this one: folios lie at multiples of their size.

    Before Linux commit cd62734ca60d ("mm/rmap: split try_to_munlock from try_to_unmap") (in v5.14), and so on a kernel whose unmaps name no
    address space, munlock (in munmap, mremap, teardown) looks like such a beginning, in every space that maps the page, and unmaps nothing.
    """
    head = threads[t, k.T_UNMAP_FRAME]
    if threads[t, k.T_UNMAP_MM] < 0 or not (frame == head or 0 < frame - head < min(head & -head, 512)):
        return False
    if mm < 0:
        call = threads[t, k.T_CALL]
        unlocks = call >= 0 and r.head[call, R_KIND] >= Kind.ENTER_MMAP and r.head[call, R_KIND] <= Kind.ENTER_MREMAP
        if unlocks or threads[t, k.T_DYING] >= 0:
            return False
    elif mm != threads[t, k.T_UNMAP_MM]:
        return False
    if frame < threads[t, k.T_UNMAP_NEXT]:
        return False
    threads[t, k.T_UNMAP_NEXT] = frame + 1
    return True


@part
def _unmapped(r: Rows, i: int, t: int, ksmd: int, threads: Ints, spaces: Spaces, out: Ints, count: Ints) -> None:
    """A mapping goes. Before Linux 6.1 the probe has no mm: that of the reclaim, fault or teardown under way, else the thread's own."""
    mm = space_of(spaces, count, r.head[i, R_MM], True)
    frame = r.args[i, 1]
    # Before a folio's first page was split off, one rmap call was about all of it: `compound`.
    pages = 512 if r.args[i, 3] != 0 else _batch(r.args[i, 2])
    reclaimed = _is_reclaimed(r, t, mm, frame, threads)
    if r.head[i, R_MM] < 0:
        if reclaimed:
            mm = threads[t, k.T_UNMAP_MM]
        elif threads[t, k.T_COW] >= 0:
            mm = out[threads[t, k.T_COW], k.O_MM]
        elif threads[t, k.T_DYING] >= 0:
            mm = threads[t, k.T_DYING]
        else:
            mm = threads[t, k.T_MM]
    flags = 0
    if reclaimed:
        flags = c.SWAPPED if threads[t, k.T_UNMAP_SWAPS] else c.MIGRATES
    # KSM puts another page there first, or, where it holds nothing but zeros, the zero page (mm/ksm.c, `replace_page`).
    flags |= c.ZEROED if t == ksmd else 0
    at = emit(out, count, i, Op.UNMAP, mm, 0, pages, frame, flags, 0)
    threads[t, k.T_FREED] = 0
    if reclaimed:
        out[at, k.O_ADDRESS], out[at, k.O_ARG] = threads[t, k.T_UNMAP_ADDRESS], pages
    elif threads[t, k.T_CALL] >= 0 and mm == threads[t, k.T_MM]:
        call = threads[t, k.T_CALL]
        kind, start, length = r.head[call, R_KIND], r.args[call, 0], r.args[call, 1]
        if kind == Kind.ENTER_MREMAP and span(r.args[call, 3], r.args[call, 2]) > 0 and r.args[call, 3] > 0:
            # MREMAP_FIXED unmaps what is where it moves to.
            start, length = r.args[call, 3], r.args[call, 2]
        elif kind == Kind.ENTER_MREMAP and 0 < r.args[call, 2] < length and start >= 0:
            start, length = start + r.args[call, 2], length - r.args[call, 2]
        if kind >= Kind.ENTER_MMAP and kind <= Kind.ENTER_MADVISE and span(start, length) > 0:
            out[at, k.O_ADDRESS], out[at, k.O_ARG] = start & ~4095, span(start, length)


@part
def _huge_unmapped(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints, count: Ints) -> None:
    """A huge page's mapping as one goes; split, after its pages were mapped one by one, nothing else does. Migrated, it comes back without
    a word as the frames that were allocated for it.
    """
    frame = r.args[i, 1]
    mm = space_of(spaces, count, r.head[i, R_MM], True)
    if threads[t, k.T_SPLIT] == frame:
        return
    migrates = threads[t, k.T_UNMAP_MM] == mm and threads[t, k.T_UNMAP_FRAME] == frame and threads[t, k.T_UNMAP_SWAPS] == 0
    emit(out, count, i, Op.UNMAP, mm, 0, 512, frame, c.MIGRATES if migrates else 0, 0)
    if migrates and threads[t, k.T_UNMAP_TARGET] > 0:
        emit(out, count, i, Op.MAP_AGAIN, mm, threads[t, k.T_UNMAP_ADDRESS], 512, threads[t, k.T_UNMAP_TARGET], 0, 0)


@part
def _huge_zero_page(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints) -> None:
    """A read where a huge page could be maps the huge zero page if the area reaches over all of it (mm/huge_memory.c,
    `do_huge_pmd_anonymous_page`), and nothing says so; else it falls back to a single page.
    """
    fault, first = threads[t, k.T_FAULT], r.args[i, 0] >> 21 << 9
    if fault < 0 or out[fault, k.O_MM] < 0 or out[fault, k.O_ADDRESS] >> 21 != r.args[i, 0] >> 21:
        return
    if out[fault, k.O_FLAGS] & c.WRITE == 0 and is_one_area(spaces, out[fault, k.O_MM], first, first + 512):
        out[fault, k.O_FLAGS] |= c.HUGE


@part
def _cow_fault(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints, tasks: Ints, count: Ints) -> None:
    mm, address, entry = _space_at(r, i, spaces, count), r.args[i, 0] & ~4095, r.args[i, 3]
    bits = _access(r.args[i, 1], r.args[i, 2])
    if threads[t, k.T_MM] < 0 <= mm and bits & c.REMOTE == 0:
        # The trace began inside this fault.
        threads[t, k.T_MM] = mm
        change(tasks, threads, count, i, t, -1, c.HOW_MM)
    if r.head[i, R_KIND] == Kind.HUGE_COW_FAULT:
        bits |= c.HUGE
        frame = ((entry >> k.PAGE_SHIFT) & PTE_FRAME & ~511) + ((address >> k.PAGE_SHIFT) & 511)
    else:
        if entry & PTE_SPECIAL:
            bits |= c.ZERO_PAGE
        frame = (entry >> k.PAGE_SHIFT) & PTE_FRAME
    _followed(t, mm, address, 1, c.FAULT_COW, threads, out)
    # A fault inside GUP: from where on is asked.
    asked = r.args[threads[t, k.T_SLOW], 0] & ~4095 if threads[t, k.T_SLOW] >= 0 else 0
    threads[t, k.T_COW] = emit(out, count, i, Op.COW_BEGIN, mm, address, 1, frame, bits, asked)


@part
def _let_go(t: int, threads: Ints, out: Ints) -> None:
    """What a thread has freed last since it unmapped pages was the last of them."""
    if threads[t, k.T_FREED] > 0:
        out[threads[t, k.T_FREED], k.O_FLAGS] = c.FREES_LAST
        threads[t, k.T_FREED] = -1


@part
def _before(r: Rows, i: int, t: int, threads: Ints, out: Ints, count: Ints) -> None:
    """What the thread's next event of any other kind shows to be over."""
    kind = r.head[i, R_KIND]
    if threads[t, k.T_INSTANT] >= 0:
        give_back(i, threads[t, k.T_INSTANT], 0, 0, out, count)
        threads[t, k.T_INSTANT] = -1
    if kind == Kind.PAGE_FREE:
        # It may be an interrupt's.
        return
    _let_go(t, threads, out)
    if kind != Kind.ANON_ADD and kind != Kind.RMAP_REMOVE_PMD:
        threads[t, k.T_SPLIT] = -1
        threads[t, k.T_SPLITTING] = -1
        if kind != Kind.RMAP_REMOVE and kind != Kind.HUGE_SPLIT:
            threads[t, k.T_UNMAP_MM] = -1
    if kind == Kind.MM_FAULT:
        threads[t, k.T_HUGE] = -1
    goes_on = kind == Kind.RMAP_REMOVE or kind == Kind.RMAP_REMOVE_PMD or kind == Kind.SWAP_UNMAP or kind == Kind.GUP_GRAB
    if threads[t, k.T_DYING] >= 0 and not goes_on:
        emit(out, count, i, Op.EXIT, threads[t, k.T_DYING], 0, 0, 0, c.EXIT_DONE, 0)
        threads[t, k.T_DYING] = -1


@part
def _pages(r: Rows, i: int, t: int, ksmd: int, threads: Ints, spaces: Spaces, out: Ints, tasks: Ints, count: Ints) -> bool:
    """Faults and mappings: by far the most events."""
    kind = r.head[i, R_KIND]
    if kind == Kind.RMAP_REMOVE:
        _unmapped(r, i, t, ksmd, threads, spaces, out, count)
    elif kind == Kind.PAGE_FREE:
        if 0 <= r.args[i, 1] <= 20:
            at = emit(out, count, i, Op.FREE, -1, 0, 1 << r.args[i, 1], r.args[i, 0], 0, 0)
            if threads[t, k.T_FREED] >= 0:
                threads[t, k.T_FREED] = at
    elif kind == Kind.MM_FAULT:
        _fault(r, i, t, threads, spaces, out, tasks, count)
    elif kind == Kind.ANON_NEW or kind == Kind.ANON_ADD:
        _mapped(r, i, t, threads, spaces, out, count)
    elif kind == Kind.COW_FAULT or kind == Kind.HUGE_COW_FAULT:
        _cow_fault(r, i, t, threads, spaces, out, tasks, count)
    elif kind == Kind.COW_FAULT_DONE or kind == Kind.HUGE_COW_FAULT_DONE:
        cow = threads[t, k.T_COW]
        if cow >= 0:
            emit(out, count, i, Op.COW_END, out[cow, k.O_MM], out[cow, k.O_ADDRESS], 1, 0, out[cow, k.O_FLAGS], r.args[i, 0])
        threads[t, k.T_COW] = -1
    elif kind == Kind.SWAP_FAULT:
        threads[t, k.T_SWAP_MM] = _space_at(r, i, spaces, count)
        threads[t, k.T_SWAP_PAGE] = r.args[i, 0] & ~4095
        _followed(t, threads[t, k.T_SWAP_MM], threads[t, k.T_SWAP_PAGE], 1, c.FAULT_SWAP, threads, out)
        special = c.SPECIAL if (r.args[i, 3] >> SWAP_TYPE_SHIFT) & 31 >= SPECIAL_TYPES else 0
        emit(out, count, i, Op.SWAP_IN, threads[t, k.T_SWAP_MM], threads[t, k.T_SWAP_PAGE], 1, 0, _access(r.args[i, 1], 0) | special, 0)
    elif kind == Kind.SWAP_FAULT_DONE:
        threads[t, k.T_SWAP_MM] = -1
    elif kind == Kind.SWAP_UNMAP or kind == Kind.MIGRATE_UNMAP:
        threads[t, k.T_UNMAP_MM] = space_of(spaces, count, r.head[i, R_MM], True)
        threads[t, k.T_UNMAP_FRAME] = r.args[i, 1]
        threads[t, k.T_UNMAP_NEXT] = r.args[i, 1]
        threads[t, k.T_UNMAP_ADDRESS] = r.args[i, 0] & ~4095
        threads[t, k.T_UNMAP_TARGET] = r.args[i, 2]
        threads[t, k.T_UNMAP_SWAPS] = kind == Kind.SWAP_UNMAP
        if kind == Kind.SWAP_UNMAP:
            emit(out, count, i, Op.SWAP_OUT, threads[t, k.T_UNMAP_MM], r.args[i, 0] & ~4095, 1, r.args[i, 1], 0, 0)
    elif kind == Kind.RMAP_REMOVE_PMD:
        _huge_unmapped(r, i, t, threads, spaces, out, count)
    elif kind == Kind.HUGE_ANON_FAULT:
        threads[t, k.T_HUGE] = r.args[i, 0] >> 21
        _huge_zero_page(r, i, t, threads, spaces, out)
    elif kind == Kind.SNAPSHOT_PAGE:
        mm, state = _space_at(r, i, spaces, count), r.args[i, 2]
        if mm >= 0 and c.IS_PAGE <= state <= c.IS_SWAPPED:
            order = min(max(r.args[i, 3], 0), 9)
            emit(out, count, i, Op.SNAPSHOT, mm, r.args[i, 0] & ~4095, 1, r.args[i, 1] if state == c.IS_PAGE else -1, state, order)
    elif kind == Kind.HUGE_SPLIT:
        threads[t, k.T_SPLITTING] = i
    else:
        return False
    return True


@loop
def read_context(
    r: Rows, tids: Ints, layout: int, ksmd: int, threads: Ints, spaces: Spaces, groups: Ints, out: Ints, tasks: Ints, count: Ints
) -> None:
    """Rows -> memory events and task changes; `ksmd` is the number of that thread, -1 where it is not known.

    `count` tells how many of each, of address spaces and of GUP requests there are.
    """
    for i in range(len(r.head)):
        t = r.head[i, R_THREAD]
        if threads[t, k.T_SEEN] == 0:
            seen(t, tids[t], i, threads, tasks, count)
        _before(r, i, t, threads, out, count)
        if not _pages(r, i, t, ksmd, threads, spaces, out, tasks, count) and not about_tasks(r, i, t, threads, spaces, out, tasks, count):
            about_references(r, i, t, layout, threads, spaces, groups, out, count)
    for t in range(len(threads)):
        _let_go(t, threads, out)
