"""The loop that reads the context of every raw event: one pass over the rows, one small state a thread and an address space.

A kernel pointer to an mm names one address space until it is torn down; what comes after names another. A probe that names no mm
means that of the fault, teardown or system call that its thread is in. GUP is counted from its return, and what a system call gives
back at once is released here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tracetool.memory_events import codes as c
from tracetool.memory_events.codes import Op
from tracetool.memory_events.rows import R_KIND, R_MM, R_OLD_TASK, R_OTHER, R_TASK, R_THREAD, Rows
from tracetool.probes import Kind
from tracetool_parsers.loops import loop, part

Ints = npt.NDArray[Any]

PAGE_SHIFT = 12
#: Addresses of user space have at most 57 bits (5-level page tables).
ADDRESS_END = 1 << 57

# FAULT_FLAG_* as in include/linux/mm_types.h since v5.10; VM_SHARED; the special bit of an x86 PTE; CLONE_*
FAULT_WRITE, FAULT_USER, FAULT_REMOTE, FAULT_UNSHARE = 0x1, 0x40, 0x80, 0x400
VM_SHARED = 0x8
PTE_SPECIAL = 1 << 9
PTE_FRAME = (1 << 40) - 1
CLONE_VM, CLONE_THREAD = 0x100, 0x10000

VIA_OTHER, VIA_VMSPLICE, VIA_PROCESS_VM, VIA_IO_URING, VIA_PTRACE, VIA_EXEC = 0, 1, 2, 3, 10, 11


# What each thread is in the middle of, -1 where nothing: its address space and process; the fork it makes; exec's new address space; the
# fault, COW decision, swap fault, reclaim and teardown under way; GUP and system call under way, and what they have got so far.
(T_SEEN, T_MM, T_TGID, T_FORK_MM, T_FORK_POINTER, T_FORK_ROW, T_FORK_SRC, T_NEW_MM, T_FAULT, T_COW, T_SWAP_MM, T_SWAP_PAGE, T_UNMAP_MM,
 T_DYING, T_SLOW, T_FAST, T_CALL, T_FIRST_GROUP, T_INSTANT, T_GRABS, T_GRABBED) = range(21)  # fmt: skip
# GUP requests that got references: who asked, how many pages.
G_THREAD, G_PAGES = range(2)
# Memory events.
O_OP, O_MM, O_ADDRESS, O_PAGES, O_FRAME, O_FLAGS, O_ARG, O_ROW = range(8)
# Changes in a thread's life.
K_ROW, K_THREAD, K_TGID, K_MM, K_PARENT, K_HOW = range(6)
# counters
OUT, TASK, SPACE, GROUP = range(4)


class Spaces(NamedTuple):
    """By pointer: the address space that it names now, and whether that is being torn down; by address space: its heap's end, if it ran."""

    current: Ints
    dying: Ints
    heap_end: Ints
    ran: Ints


@part
def _emit(out: Ints, count: Ints, row: int, op: int, mm: int, address: int, pages: int, frame: int, flags: int, arg: int) -> int:
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
def _task(tasks: Ints, threads: Ints, count: Ints, row: int, thread: int, parent: int, how: int) -> None:
    at = count[TASK]
    count[TASK] = at + 1
    tasks[at, K_ROW] = row
    tasks[at, K_THREAD] = thread
    tasks[at, K_TGID] = threads[thread, T_TGID]
    tasks[at, K_MM] = threads[thread, T_MM]
    tasks[at, K_PARENT] = parent
    tasks[at, K_HOW] = how


@part
def _space(spaces: Spaces, count: Ints, pointer: int, unmaps: bool) -> int:
    """The address space that a pointer names; one torn down is only unmapped from, anything else is the next one's."""
    if pointer < 0:
        return -1
    if spaces.current[pointer] < 0 or (spaces.dying[pointer] != 0 and not unmaps):
        spaces.current[pointer] = count[SPACE]
        spaces.dying[pointer] = 0
        count[SPACE] += 1
    return spaces.current[pointer]


@part
def _span(start: int, length: int) -> int:
    """Pages of [start, start + length), 0 for a range that is no user memory; the kernel rounds lengths up."""
    if start < 0 or start >= ADDRESS_END or length <= 0:
        return 0
    return (min(length, ADDRESS_END - start) + 4095) >> PAGE_SHIFT


@part
def _batch(pages: int) -> int:
    """How many pages of a folio one rmap call is about: at most a page table's; kernels before 6.9 do not say, and mean one."""
    return pages if 0 < pages <= 512 else 1


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
    if vm_flags & VM_SHARED:
        bits |= c.SHARED
    return bits


@part
def _fault(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints, tasks: Ints, count: Ints) -> None:
    mm = _space(spaces, count, r.head[i, R_MM], False)
    bits = _access(r.args[i, 1], r.args[i, 2])
    if r.args[i, 3] == 0:
        bits |= c.ANON_AREA
    if bits & c.REMOTE == 0 and threads[t, T_MM] != mm:
        threads[t, T_MM] = mm
        _task(tasks, threads, count, i, t, -1, c.HOW_MM)
    if mm >= 0:
        spaces.ran[mm] |= bits & c.REMOTE == 0
    threads[t, T_FAULT] = _emit(out, count, i, Op.FAULT, mm, r.args[i, 0] & ~4095, 1, 0, bits, c.FAULT_NOTHING)


@part
def _followed(t: int, mm: int, what: int, threads: Ints, out: Ints) -> None:
    """The fault that the thread is in led to this: no zero page was mapped."""
    fault = threads[t, T_FAULT]
    if fault >= 0 and out[fault, O_MM] == mm and out[fault, O_ARG] == c.FAULT_NOTHING:
        out[fault, O_ARG] = what


@part
def _mapped(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints, count: Ints) -> None:
    mm = _space(spaces, count, r.head[i, R_MM], False)
    address = r.args[i, 0] & ~4095
    _followed(t, mm, c.FAULT_MAPPED, threads, out)
    if r.head[i, R_KIND] == Kind.ANON_ADD:
        _emit(out, count, i, Op.MAP_AGAIN, mm, address, _batch(r.args[i, 2]), r.args[i, 1], r.args[i, 3], 0)
        return
    what = c.TOUCH
    cow = threads[t, T_COW]
    if cow >= 0 and out[cow, O_MM] == mm and out[cow, O_ADDRESS] == address:
        what = c.IN_COW
    elif threads[t, T_FORK_ROW] >= 0 and threads[t, T_FORK_MM] == mm:
        what = c.IN_FORK
    elif threads[t, T_SWAP_MM] == mm and threads[t, T_SWAP_PAGE] == address:
        what = c.IN_SWAP
    _emit(out, count, i, Op.MAP_NEW, mm, address, 1, r.args[i, 1], 0, what)


@part
def _unmapped(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints, count: Ints) -> None:
    """A mapping goes. Before Linux 6.1 the probe has no mm: that of the reclaim, fault or teardown under way, else the thread's own."""
    mm = _space(spaces, count, r.head[i, R_MM], True)
    if r.head[i, R_MM] < 0:
        if threads[t, T_UNMAP_MM] >= 0:
            mm = threads[t, T_UNMAP_MM]
        elif threads[t, T_COW] >= 0:
            mm = out[threads[t, T_COW], O_MM]
        elif threads[t, T_DYING] >= 0:
            mm = threads[t, T_DYING]
        else:
            mm = threads[t, T_MM]
    threads[t, T_UNMAP_MM] = -1
    _emit(out, count, i, Op.UNMAP, mm, 0, _batch(r.args[i, 2]), r.args[i, 1], 0, 0)


@part
def _fork_range_done(r: Rows, i: int, t: int, threads: Ints, out: Ints, count: Ints) -> None:
    """fork holds the parent's mmap lock: the copy counts from its end, when early copies are already in place."""
    begin = threads[t, T_FORK_ROW]
    if begin < 0:
        return
    pages = _span(r.args[begin, 0], r.args[begin, 1] - r.args[begin, 0])
    if pages > 0:
        # Without an anon_vma there is nothing but page cache, which faults bring back: copy_page_range returns at once.
        flags = c.COPIED if r.args[begin, 3] != 0 else 0
        _emit(out, count, i, Op.FORK_RANGE, threads[t, T_FORK_MM], r.args[begin, 0], pages, 0, flags, threads[t, T_FORK_SRC])
    threads[t, T_FORK_ROW] = -1


@part
def _fork_range(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints, tasks: Ints, count: Ints) -> None:
    _fork_range_done(r, i, t, threads, out, count)
    source = _space(spaces, count, r.head[i, R_OTHER], False)
    pointer = r.head[i, R_MM]
    if pointer < 0:
        return
    if threads[t, T_FORK_POINTER] != pointer or spaces.dying[pointer] != 0:
        spaces.dying[pointer] = 1
        threads[t, T_FORK_POINTER] = pointer
        threads[t, T_FORK_MM] = _space(spaces, count, pointer, False)
        threads[t, T_FORK_SRC] = source
        _emit(out, count, i, Op.FORK, threads[t, T_FORK_MM], 0, 0, 0, 0, source)
        if threads[t, T_MM] != source:
            threads[t, T_MM] = source
            _task(tasks, threads, count, i, t, -1, c.HOW_MM)
    threads[t, T_FORK_ROW] = i


@part
def _new_task(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints, tasks: Ints, count: Ints) -> None:
    _fork_range_done(r, i, t, threads, out, count)
    child = r.head[i, R_TASK]
    _forget(threads, child)
    threads[child, T_SEEN] = 1
    if r.args[i, 1] & CLONE_VM:
        threads[child, T_MM] = threads[t, T_MM]
    else:
        threads[child, T_MM] = threads[t, T_FORK_MM]
        threads[t, T_FORK_POINTER] = -1
        threads[t, T_FORK_MM] = -1
    mm = threads[child, T_MM]
    if mm >= 0:
        spaces.ran[mm] = 1
    is_thread = r.args[i, 1] & CLONE_THREAD != 0
    threads[child, T_TGID] = threads[t, T_TGID] if is_thread else r.args[i, 0]
    _task(tasks, threads, count, i, child, t, c.HOW_THREAD if is_thread else c.HOW_FORK)


@part
def _forget(threads: Ints, t: int) -> None:
    for column in range(threads.shape[1]):
        threads[t, column] = -1
    threads[t, T_SEEN] = 0


@part
def _exec(r: Rows, i: int, threads: Ints, spaces: Spaces, tasks: Ints, count: Ints) -> None:
    """The process's only thread now is its leader; it runs on the address space that it filled with arguments before."""
    thread, old = r.head[i, R_TASK], r.head[i, R_OLD_TASK]
    threads[thread, T_MM] = threads[old, T_NEW_MM] if threads[old, T_NEW_MM] >= 0 else threads[thread, T_NEW_MM]
    threads[thread, T_NEW_MM] = -1
    if threads[thread, T_MM] >= 0:
        spaces.ran[threads[thread, T_MM]] = 1
    threads[thread, T_TGID] = r.args[i, 0]
    _task(tasks, threads, count, i, thread, -1, c.HOW_EXEC)


@part
def _gup_flags(flags: int, layout: int) -> int:
    """FOLL_* in the numbers of `layout` -> our bits, -1 when no reference is taken."""
    bits = flags & 1
    if layout == c.FOLL_OLD:
        get, pin, force, longterm = flags & 0x4, flags & 0x40000, flags & 0x10, flags & 0x10000
    elif layout == c.FOLL_NEW:
        get, pin, force, longterm = flags & 0x2, flags & 0x80000, flags & 0x8, flags & 0x100
    else:
        return -1
    if get == 0 and pin == 0:
        return -1
    if pin:
        bits |= c.PIN
    if force:
        bits |= c.FORCE
    if longterm:
        bits |= c.LONGTERM
    return bits


@part
def _gup_done(
    r: Rows, i: int, t: int, begin: int, mm: int, layout: int, threads: Ints, spaces: Spaces, groups: Ints, out: Ints, count: Ints
) -> None:
    """GUP returns: the first `got` pages from its start are referenced."""
    got, asked = r.args[i, 0], r.args[begin, 1]
    pages = _span(r.args[begin, 0], got << PAGE_SHIFT) if 0 < got <= asked < (1 << 40) else 0
    bits = _gup_flags(r.args[begin, 2], layout)
    if pages == 0 or bits < 0:
        return
    via = VIA_OTHER
    call = threads[t, T_CALL]
    if call >= 0 and r.head[call, R_KIND] == Kind.ENTER_VMSPLICE:
        via = VIA_VMSPLICE
    elif call >= 0 and r.head[call, R_KIND] == Kind.ENTER_PROCESS_VM:
        via = VIA_PROCESS_VM
    elif call >= 0 and r.head[call, R_KIND] == Kind.ENTER_IO_URING_REGISTER:
        via = VIA_IO_URING
    elif mm >= 0 and mm != threads[t, T_MM]:
        via = VIA_PTRACE if spaces.ran[mm] else VIA_EXEC
    group = count[GROUP]
    count[GROUP] = group + 1
    groups[group, G_THREAD] = t
    groups[group, G_PAGES] = pages
    flags = bits | via << c.VIA_SHIFT
    frame = threads[t, T_GRABBED] if pages == 1 and threads[t, T_GRABS] == 1 else -1
    address = r.args[begin, 0] & ~4095
    _emit(out, count, i, Op.GUP, mm, address, pages, -1, flags, group)
    _emit(out, count, i, Op.REF_GET, mm, address, pages, frame, flags, group)
    if threads[t, T_FIRST_GROUP] < 0:
        threads[t, T_FIRST_GROUP] = group
    # exec and access_remote_vm copy at once and drop the page before they do anything else.
    if via == VIA_PTRACE or via == VIA_EXEC:
        threads[t, T_INSTANT] = group


@part
def _release(row: int, group: int, keep: int, flags: int, out: Ints, count: Ints) -> None:
    _emit(out, count, row, Op.REF_PUT, -1, 0, keep, -1, flags | c.BY_GROUP, group)


@part
def _call_returns(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, groups: Ints, out: Ints, count: Ints) -> None:
    call, threads_mm, result = threads[t, T_CALL], threads[t, T_MM], r.args[i, 0]
    threads[t, T_CALL] = -1
    if call < 0:
        return
    kind, start, length = r.head[call, R_KIND], r.args[call, 0], r.args[call, 1]
    if kind == Kind.ENTER_VMSPLICE:
        # What GUP got beyond the pages that went into the pipe is put back before the call returns.
        _give_back(i, t, (result + 4095) >> PAGE_SHIFT if result > 0 else 0, c.EXACT, threads, groups, out, count)
    elif kind == Kind.ENTER_PROCESS_VM:
        _give_back(i, t, 0, 0, threads, groups, out, count)
    elif kind == Kind.ENTER_MMAP and _span(result, length) > 0:
        _emit(out, count, i, Op.MMAP, threads_mm, result & ~4095, _span(result, length), 0, r.args[call, 2], r.args[call, 3])
    elif kind == Kind.ENTER_BRK and threads_mm >= 0 and result > 0:
        before = spaces.heap_end[threads_mm]
        spaces.heap_end[threads_mm] = result
        first = (result + 4095) & ~4095
        if _span(first, before - first) > 0:
            _emit(out, count, i, Op.MUNMAP, threads_mm, first, _span(first, before - first), 0, 0, 0)
    elif kind == Kind.ENTER_MREMAP and result > 0 and _span(start, length) > 0:
        _emit(out, count, i, Op.MREMAP, threads_mm, start & ~4095, _span(start, length), 0, _span(start, r.args[call, 2]), result)
    elif result == 0 and _span(start, length) > 0:
        if kind == Kind.ENTER_MUNMAP:
            _emit(out, count, i, Op.MUNMAP, threads_mm, start & ~4095, _span(start, length), 0, 0, 0)
        elif kind == Kind.ENTER_MPROTECT:
            _emit(out, count, i, Op.MPROTECT, threads_mm, start & ~4095, _span(start, length), 0, r.args[call, 2], 0)
        elif kind == Kind.ENTER_MADVISE:
            _emit(out, count, i, Op.MADVISE, threads_mm, start & ~4095, _span(start, length), 0, r.args[call, 2], 0)


@part
def _give_back(i: int, t: int, keep: int, flags: int, threads: Ints, groups: Ints, out: Ints, count: Ints) -> None:
    """Of the references that this call took, `keep` pages stay, the rest is released."""
    first = threads[t, T_FIRST_GROUP]
    if first < 0:
        return
    for group in range(first, count[GROUP]):
        if groups[group, G_THREAD] == t:
            if keep < groups[group, G_PAGES]:
                _release(i, group, max(keep, 0), flags, out, count)
            keep -= groups[group, G_PAGES]
    threads[t, T_FIRST_GROUP] = -1


@part
def _before(r: Rows, i: int, t: int, threads: Ints, out: Ints, count: Ints) -> None:
    """What the thread's next event of any other kind shows to be over."""
    kind = r.head[i, R_KIND]
    if threads[t, T_INSTANT] >= 0:
        _release(i, threads[t, T_INSTANT], 0, 0, out, count)
        threads[t, T_INSTANT] = -1
    if threads[t, T_DYING] >= 0 and kind != Kind.RMAP_REMOVE and kind != Kind.PAGE_FREE:
        _emit(out, count, i, Op.EXIT, threads[t, T_DYING], 0, 0, 0, c.EXIT_DONE, 0)
        threads[t, T_DYING] = -1


@part
def _enter(i: int, t: int, threads: Ints) -> None:
    threads[t, T_CALL] = i
    threads[t, T_FIRST_GROUP] = -1
    threads[t, T_FAULT] = -1


@part
def _pages(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints, tasks: Ints, count: Ints) -> bool:
    """Faults and mappings: by far the most events."""
    kind = r.head[i, R_KIND]
    if kind == Kind.RMAP_REMOVE:
        _unmapped(r, i, t, threads, spaces, out, count)
    elif kind == Kind.PAGE_FREE:
        if 0 <= r.args[i, 1] <= 20:
            _emit(out, count, i, Op.FREE, -1, 0, 1 << r.args[i, 1], r.args[i, 0], 0, 0)
    elif kind == Kind.MM_FAULT:
        _fault(r, i, t, threads, spaces, out, tasks, count)
    elif kind == Kind.ANON_NEW or kind == Kind.ANON_ADD:
        _mapped(r, i, t, threads, spaces, out, count)
    elif kind == Kind.COW_FAULT:
        mm = _space(spaces, count, r.head[i, R_MM], False)
        bits = _access(r.args[i, 1], r.args[i, 2])
        if r.args[i, 3] & PTE_SPECIAL:
            bits |= c.ZERO_PAGE
        _followed(t, mm, c.FAULT_COW, threads, out)
        frame = (r.args[i, 3] >> PAGE_SHIFT) & PTE_FRAME
        threads[t, T_COW] = _emit(out, count, i, Op.COW_BEGIN, mm, r.args[i, 0] & ~4095, 1, frame, bits, 0)
    elif kind == Kind.COW_FAULT_DONE:
        cow = threads[t, T_COW]
        if cow >= 0:
            _emit(out, count, i, Op.COW_END, out[cow, O_MM], out[cow, O_ADDRESS], 1, 0, out[cow, O_FLAGS], r.args[i, 0])
        threads[t, T_COW] = -1
    elif kind == Kind.SWAP_FAULT:
        threads[t, T_SWAP_MM] = _space(spaces, count, r.head[i, R_MM], False)
        threads[t, T_SWAP_PAGE] = r.args[i, 0] & ~4095
        _followed(t, threads[t, T_SWAP_MM], c.FAULT_SWAP, threads, out)
        _emit(out, count, i, Op.SWAP_IN, threads[t, T_SWAP_MM], threads[t, T_SWAP_PAGE], 1, 0, _access(r.args[i, 1], 0), 0)
    elif kind == Kind.SWAP_FAULT_DONE:
        threads[t, T_SWAP_MM] = -1
    elif kind == Kind.SWAP_UNMAP or kind == Kind.MIGRATE_UNMAP:
        threads[t, T_UNMAP_MM] = _space(spaces, count, r.head[i, R_MM], True)
        if kind == Kind.SWAP_UNMAP:
            _emit(out, count, i, Op.SWAP_OUT, threads[t, T_UNMAP_MM], r.args[i, 0] & ~4095, 1, r.args[i, 1], 0, 0)
    else:
        return False
    return True


@part
def _tasks(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints, tasks: Ints, count: Ints) -> bool:
    """Processes and address spaces."""
    kind = r.head[i, R_KIND]
    if kind == Kind.FORK_RANGE:
        _fork_range(r, i, t, threads, spaces, out, tasks, count)
    elif kind == Kind.FORK_RANGE_DONE:
        _fork_range_done(r, i, t, threads, out, count)
    elif kind == Kind.NEW_TASK:
        _new_task(r, i, t, threads, spaces, out, tasks, count)
    elif kind == Kind.EXEC:
        _exec(r, i, threads, spaces, tasks, count)
        _emit(out, count, i, Op.EXEC, threads[r.head[i, R_TASK], T_MM], 0, 0, 0, 0, 0)
    elif kind == Kind.RENAME:
        _task(tasks, threads, count, i, r.head[i, R_TASK], -1, c.HOW_RENAME)
    elif kind == Kind.TASK_EXIT:
        _task(tasks, threads, count, i, r.head[i, R_TASK], -1, c.HOW_EXIT)
        threads[r.head[i, R_TASK], T_MM] = -1
    elif kind == Kind.MM_EXIT:
        mm = _space(spaces, count, r.head[i, R_MM], False)
        if mm >= 0:
            spaces.dying[r.head[i, R_MM]] = 1
        threads[t, T_DYING] = mm
        _emit(out, count, i, Op.EXIT, mm, 0, 0, 0, 0, 0)
    elif kind == Kind.TABLE_MOVE:
        mm = _space(spaces, count, r.head[i, R_MM], False)
        if mm != threads[t, T_MM]:
            threads[t, T_NEW_MM] = mm
        pages = _span(r.args[i, 0], r.args[i, 2])
        if pages > 0 and _span(r.args[i, 1], r.args[i, 2]) == pages:
            _emit(out, count, i, Op.MREMAP, mm, r.args[i, 0] & ~4095, pages, 0, c.TABLES_MOVED, r.args[i, 1] & ~4095)
    else:
        return False
    return True


@part
def _references(
    r: Rows, i: int, t: int, layout: int, threads: Ints, spaces: Spaces, groups: Ints, out: Ints, count: Ints
) -> None:
    """GUP, and the system calls that take and release references or change areas."""
    kind = r.head[i, R_KIND]
    if kind == Kind.GUP:
        threads[t, T_SLOW] = i
        if threads[t, T_FAST] < 0:
            threads[t, T_GRABS] = 0
        mm = _space(spaces, count, r.head[i, R_MM], False)
        if mm != threads[t, T_MM]:
            threads[t, T_NEW_MM] = mm
    elif kind == Kind.GUP_FAST:
        threads[t, T_FAST] = i
        threads[t, T_GRABS] = 0
    elif kind == Kind.GUP_GRAB:
        threads[t, T_GRABS] = max(threads[t, T_GRABS], 0) + 1
        threads[t, T_GRABBED] = r.args[i, 0]
    elif kind == Kind.GUP_DONE:
        # The slow path inside a fast one only continues it: the fast one's return counts both.
        if threads[t, T_SLOW] >= 0 and threads[t, T_FAST] < 0:
            begin = threads[t, T_SLOW]
            mm = _space(spaces, count, r.head[begin, R_MM], True)
            _gup_done(r, i, t, begin, mm, layout, threads, spaces, groups, out, count)
        threads[t, T_SLOW] = -1
    elif kind == Kind.GUP_FAST_DONE:
        if threads[t, T_FAST] >= 0:
            _gup_done(r, i, t, threads[t, T_FAST], threads[t, T_MM], layout, threads, spaces, groups, out, count)
        threads[t, T_FAST] = -1
    elif kind == Kind.UNPIN or kind == Kind.PIPE_RELEASE:
        pages = 1 if kind == Kind.PIPE_RELEASE else min(max(r.args[i, 1], 1), 1 << 20)
        flags = c.EXACT if kind == Kind.PIPE_RELEASE else c.EXACT | c.PIN
        _emit(out, count, i, Op.REF_PUT, -1, 0, pages, r.args[i, 0], flags, -1)
    elif kind == Kind.SYSCALL_EXIT:
        _call_returns(r, i, t, threads, spaces, groups, out, count)
    elif kind == Kind.MARK:
        _emit(out, count, i, Op.MARK, threads[t, T_MM], 0, 0, 0, 0, 0)
    elif kind >= Kind.ENTER_MMAP:
        _enter(i, t, threads)


@loop
def read_context(
    r: Rows, tids: Ints, layout: int, threads: Ints, spaces: Spaces, groups: Ints, out: Ints, tasks: Ints, count: Ints
) -> None:
    """Rows -> memory events and task changes. `count` tells how many of each, of address spaces and of GUP requests there are."""
    for i in range(len(r.head)):
        t = r.head[i, R_THREAD]
        if threads[t, T_SEEN] == 0:
            _forget(threads, t)
            threads[t, T_SEEN] = 1
            threads[t, T_TGID] = tids[t]
            _task(tasks, threads, count, i, t, -1, c.HOW_BEFORE)
        _before(r, i, t, threads, out, count)
        if not _pages(r, i, t, threads, spaces, out, tasks, count) and not _tasks(r, i, t, threads, spaces, out, tasks, count):
            _references(r, i, t, layout, threads, spaces, groups, out, count)


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
    gups = int(kinds[Kind.GUP_DONE] + kinds[Kind.GUP_FAST_DONE])

    def filled(rows: int, columns: int = 0, value: int = 0) -> Ints:
        return np.full((rows, columns) if columns else rows, value, np.int64)

    state = filled(threads, 21, -1)
    state[:, T_SEEN] = 0
    return State(
        threads=state,
        spaces=Spaces(filled(pointers, value=-1), filled(pointers), filled(lives), filled(lives)),
        groups=filled(gups, 2),
        out=filled(few + 5 * many, 8),
        tasks=filled(2 * (int(kinds[Kind.MM_FAULT]) + many) + threads, 6),
        count=filled(4),
    )


_ONE_EVENT = (
    Kind.RMAP_REMOVE, Kind.PAGE_FREE, Kind.MM_FAULT, Kind.ANON_NEW, Kind.ANON_ADD, Kind.COW_FAULT, Kind.COW_FAULT_DONE, Kind.MARK,
)  # fmt: skip
