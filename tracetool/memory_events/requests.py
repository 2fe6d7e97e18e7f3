"""GUP and system calls in the context loop: what is referenced, through what, and what is given back when."""

from __future__ import annotations

from tracetool.memory_events import codes as c
from tracetool.memory_events import state as k
from tracetool.memory_events.codes import Op
from tracetool.memory_events.rows import R_KIND, R_MM, R_VIA, Rows
from tracetool.memory_events.state import Ints, Spaces, change_area, emit, is_one_area, space_of, span, span_to
from tracetool.probes import Kind
from tracetool.schema import VIA
from tracetool_parsers.loops import part

VIA_OTHER, VIA_VMSPLICE, VIA_PTRACE, VIA_EXEC = (VIA.index(name) for name in ("other", "vmsplice", "ptrace", "exec"))
VIA_RDMA, VIA_VFIO, VIA_KVM = (VIA.index(name) for name in ("rdma", "vfio", "kvm"))
#: The type of an ioctl's number (bits 8..15): include/uapi/rdma/rdma_user_ioctl_cmds.h, linux/vfio.h, linux/kvm.h.
IOCTL_RDMA, IOCTL_VFIO, IOCTL_KVM = 0x1B, ord(";"), 0xAE

#: MAP_PRIVATE, MAP_ANONYMOUS
ANONYMOUS_PRIVATE = 0x22
ENOMEM = -12
MADV_DONTNEED, MADV_DONTNEED_LOCKED = 4, 24
#: GUP of more pages than this (8 TiB) is no GUP: numbers of pages within a request are 32 bits wide.
MOST_PAGES = 1 << 31
#: FOLL_REMOTE: the memory of another process, or of a program that is about to run.
FOLL_REMOTE_OLD, FOLL_REMOTE_NEW = 0x2000, 0x40000


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
def _interface(r: Rows, call: int) -> int:
    """Through what a system call takes references."""
    if call < 0:
        return VIA_OTHER
    if r.head[call, R_KIND] == Kind.ENTER_IOCTL:
        kind = (r.args[call, 1] >> 8) & 0xFF
        return VIA_RDMA if kind == IOCTL_RDMA else VIA_VFIO if kind == IOCTL_VFIO else VIA_KVM if kind == IOCTL_KVM else VIA_OTHER
    return r.head[call, R_VIA]


@part
def _gup_done(
    r: Rows, i: int, t: int, begin: int, mm: int, layout: int, threads: Ints, spaces: Spaces, groups: Ints, out: Ints, count: Ints
) -> None:
    """GUP returns: the first `got` pages from its start are referenced."""
    got, asked = r.args[i, 0], r.args[begin, 1]
    pages = span(r.args[begin, 0], got << k.PAGE_SHIFT) if 0 < got <= asked < MOST_PAGES else 0
    bits = _gup_flags(r.args[begin, 2], layout)
    if pages == 0 or bits < 0:
        return
    call = threads[t, k.T_CALL]
    via = _interface(r, call)
    remote = r.args[begin, 2] & (FOLL_REMOTE_OLD if layout == c.FOLL_OLD else FOLL_REMOTE_NEW)
    if via == VIA_OTHER and mm >= 0 and remote and bits & c.PIN == 0:
        # exec writes the arguments of a program that does not run yet.
        via = VIA_EXEC if spaces.ran[mm] == 0 and bits & c.WRITE else VIA_PTRACE
    group = count[k.GROUP]
    count[k.GROUP] = group + 1
    groups[group, k.G_THREAD] = t
    groups[group, k.G_PAGES] = pages
    groups[group, k.G_CALL] = call
    groups[group, k.G_START] = r.args[begin, 0]
    groups[group, k.G_NUMBER] = threads[t, k.T_REQUESTS]
    threads[t, k.T_REQUESTS] += 1
    flags = bits | via << c.VIA_SHIFT
    frame = threads[t, k.T_GRABBED] if pages == 1 and threads[t, k.T_GRABS] == 1 else -1
    address = r.args[begin, 0] & ~4095
    emit(out, count, i, Op.GUP, mm, address, pages, -1, flags, group)
    emit(out, count, i, Op.REF_GET, mm, address, pages, frame, flags, group)
    if threads[t, k.T_FIRST_GROUP] < 0:
        threads[t, k.T_FIRST_GROUP] = group
    # exec and access_remote_vm copy at once and drop the page before they do anything else.
    if via == VIA_PTRACE or via == VIA_EXEC:
        threads[t, k.T_INSTANT] = group


@part
def _held_before(r: Rows, i: int, t: int, spaces: Spaces, groups: Ints, out: Ints, count: Ints) -> None:
    """A reference that is older than the trace, as a snapshot lists it; its flags are those of this table."""
    mm, pages = space_of(spaces, count, r.head[i, R_MM], False), span(r.args[i, 0], r.args[i, 1] << k.PAGE_SHIFT)
    flags = r.args[i, 2]
    if pages == 0 or r.args[i, 1] >= MOST_PAGES or not 0 <= flags >> c.VIA_SHIFT < len(VIA):
        return
    group = count[k.GROUP]
    count[k.GROUP] = group + 1
    groups[group, k.G_THREAD] = t
    groups[group, k.G_PAGES] = pages
    groups[group, k.G_CALL] = -1
    groups[group, k.G_START] = r.args[i, 0]
    emit(out, count, i, Op.REF_GET, mm, r.args[i, 0] & ~4095, pages, -1, flags, group)


@part
def give_back(row: int, group: int, keep: int, flags: int, out: Ints, count: Ints) -> None:
    """The references of a request are released, from page number `keep` on."""
    emit(out, count, row, Op.REF_PUT, -1, 0, keep, -1, flags | c.BY_GROUP, group)


@part
def _call_returns(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, groups: Ints, out: Ints, count: Ints) -> None:
    call, threads_mm, result = threads[t, k.T_CALL], threads[t, k.T_MM], r.args[i, 0]
    threads[t, k.T_CALL] = -1
    if call < 0:
        return
    kind, start, length = r.head[call, R_KIND], r.args[call, 0], r.args[call, 1]
    if kind == Kind.ENTER_VMSPLICE:
        # What GUP got beyond the pages that went into the pipe is put back before the call returns.
        kept = (min(result, k.ADDRESS_END) + 4095) >> k.PAGE_SHIFT if result > 0 else 0
        _call_gives_back(i, t, kept, c.EXACT, threads, groups, out, count)
    elif kind == Kind.ENTER_BORROWS or (kind == Kind.ENTER_IOCTL and _interface(r, call) == VIA_KVM):
        # KVM maps what it gets into the guest and drops the reference: mmu notifiers tell it when the page goes.
        _call_gives_back(i, t, 0, 0, threads, groups, out, count)
    elif kind == Kind.ENTER_MMAP and span(result, length) > 0:
        what = k.AREA_ANONYMOUS if r.args[call, 3] & ANONYMOUS_PRIVATE == ANONYMOUS_PRIVATE else k.AREA_OTHER
        change_area(spaces, count, threads_mm, result >> k.PAGE_SHIFT, span(result, length), what)
        if threads[t, k.T_MAPPED] == 0:
            _maps(r, i, call, threads_mm, result, out, count)
    elif kind == Kind.ENTER_BRK and threads_mm >= 0 and 0 < result < k.ADDRESS_END:
        before = spaces.heap_end[threads_mm]
        spaces.heap_end[threads_mm] = result
        first = (result + 4095) & ~4095
        if span_to(first, before) > 0:
            emit(out, count, i, Op.MUNMAP, threads_mm, first, span_to(first, before), 0, 0, 0)
    elif kind == Kind.ENTER_MREMAP and result > 0 and span(start, length) > 0:
        first, new = start >> k.PAGE_SHIFT, span(start, r.args[call, 2])
        one = threads_mm >= 0 and is_one_area(spaces, threads_mm, first, first + span(start, length))
        change_area(spaces, count, threads_mm, first, span(start, length), k.AREA_OTHER)
        change_area(spaces, count, threads_mm, result >> k.PAGE_SHIFT, new, k.AREA_ANONYMOUS if one else k.AREA_OTHER)
        if result != start and threads[t, k.T_MAPPED] == 0:
            # Where move_page_tables is inlined, as into move_vma of Debian's 5.10, only the call says that pages moved.
            moves_to(r, i, call, threads_mm, result, out, count)
            moved = min(span(start, length), new)
            emit(out, count, i, Op.MREMAP, threads_mm, start & ~4095, moved, 0, c.TABLES_MOVED, result & ~4095)
        emit(out, count, i, Op.MREMAP, threads_mm, start & ~4095, span(start, length), 0, new, result)
    elif kind == Kind.ENTER_MADVISE and (result == 0 or result == ENOMEM) and span(start, length) > 0:
        # -ENOMEM: done, but for holes in the range (mm/madvise.c, `madvise_walk_vmas`).
        behavior = MADV_DONTNEED if r.args[call, 2] == MADV_DONTNEED_LOCKED else r.args[call, 2]
        emit(out, count, i, Op.MADVISE, threads_mm, start & ~4095, span(start, length), 0, behavior, 0)
    elif result == 0 and span(start, length) > 0:
        first, pages = start >> k.PAGE_SHIFT, span(start, length)
        if kind == Kind.ENTER_MUNMAP:
            change_area(spaces, count, threads_mm, first, pages, k.AREA_OTHER)
            emit(out, count, i, Op.MUNMAP, threads_mm, start & ~4095, span(start, length), 0, 0, 0)
        elif kind == Kind.ENTER_MPROTECT:
            change_area(spaces, count, threads_mm, first, pages, k.AREA_PROTECTED)
            emit(out, count, i, Op.MPROTECT, threads_mm, start & ~4095, span(start, length), 0, r.args[call, 2], 0)


@part
def _maps(r: Rows, i: int, call: int, mm: int, start: int, out: Ints, count: Ints) -> None:
    """What was there is gone."""
    emit(out, count, i, Op.MMAP, mm, start & ~4095, span(start, r.args[call, 1]), 0, r.args[call, 2], r.args[call, 3])


@part
def moves_to(r: Rows, i: int, call: int, mm: int, to: int, out: Ints, count: Ints) -> None:
    """All of the range that mremap moves to is unmapped before anything moves."""
    if span(to, r.args[call, 2]) > 0:
        emit(out, count, i, Op.MUNMAP, mm, to & ~4095, span(to, r.args[call, 2]), 0, 0, 0)


@part
def _call_gives_back(i: int, t: int, keep: int, flags: int, threads: Ints, groups: Ints, out: Ints, count: Ints) -> None:
    """Of the references that this call took, `keep` pages stay, the rest is released."""
    first = threads[t, k.T_FIRST_GROUP]
    if first < 0:
        return
    for group in range(first, count[k.GROUP]):
        if groups[group, k.G_THREAD] == t:
            if keep < groups[group, k.G_PAGES]:
                give_back(i, group, max(keep, 0), flags, out, count)
            keep -= groups[group, k.G_PAGES]
    threads[t, k.T_FIRST_GROUP] = -1


@part
def _enter(i: int, t: int, threads: Ints) -> None:
    threads[t, k.T_CALL] = i
    threads[t, k.T_REQUESTS] = 0
    threads[t, k.T_MAPPED] = 0
    threads[t, k.T_FIRST_GROUP] = -1
    threads[t, k.T_FAULT] = -1


@part
def about_references(r: Rows, i: int, t: int, layout: int, threads: Ints, spaces: Spaces, groups: Ints, out: Ints, count: Ints) -> None:
    """GUP, and the system calls that take and release references or change areas."""
    kind = r.head[i, R_KIND]
    if kind == Kind.GUP:
        threads[t, k.T_SLOW] = i
        if threads[t, k.T_FAST] < 0:
            threads[t, k.T_GRABS] = 0
        mm = space_of(spaces, count, r.head[i, R_MM], False)
        if mm != threads[t, k.T_MM]:
            threads[t, k.T_NEW_MM] = mm
        call = threads[t, k.T_CALL]
        if (
            call >= 0
            and r.head[call, R_KIND] == Kind.ENTER_MMAP
            and threads[t, k.T_MAPPED] == 0
            and span(r.args[i, 0], r.args[call, 1]) > 0
        ):
            # MAP_POPULATE, MAP_LOCKED: the new area is filled before mmap returns.
            threads[t, k.T_MAPPED] = 1
            _maps(r, i, call, mm, r.args[i, 0], out, count)
    elif kind == Kind.GUP_FAST:
        threads[t, k.T_FAST] = i
        threads[t, k.T_GRABS] = 0
    elif kind == Kind.GUP_GRAB:
        threads[t, k.T_GRABS] = max(threads[t, k.T_GRABS], 0) + 1
        threads[t, k.T_GRABBED] = r.args[i, 0]
    elif kind == Kind.GUP_DONE:
        # The slow path inside a fast one only continues it: the fast one's return counts both.
        if threads[t, k.T_SLOW] >= 0 and threads[t, k.T_FAST] < 0:
            begin = threads[t, k.T_SLOW]
            mm = space_of(spaces, count, r.head[begin, R_MM], True)
            _gup_done(r, i, t, begin, mm, layout, threads, spaces, groups, out, count)
        threads[t, k.T_SLOW] = -1
    elif kind == Kind.GUP_FAST_DONE:
        if threads[t, k.T_FAST] >= 0:
            _gup_done(r, i, t, threads[t, k.T_FAST], threads[t, k.T_MM], layout, threads, spaces, groups, out, count)
        threads[t, k.T_FAST] = -1
    elif kind == Kind.UNPIN or kind == Kind.PIPE_RELEASE:
        pages = 1 if kind == Kind.PIPE_RELEASE else min(max(r.args[i, 1], 1), 1 << 20)
        flags = c.EXACT | VIA_VMSPLICE << c.VIA_SHIFT if kind == Kind.PIPE_RELEASE else c.EXACT | c.PIN
        call = threads[t, k.T_CALL]
        if kind == Kind.UNPIN and call >= 0 and r.head[call, R_KIND] == Kind.ENTER_BORROWS:
            # What such a call took it gives back itself; a longer pin of the same page stays.
            flags |= r.head[call, R_VIA] << c.VIA_SHIFT
        emit(out, count, i, Op.REF_PUT, -1, 0, pages, r.args[i, 0], flags, -1)
    elif kind == Kind.SYSCALL_EXIT:
        _call_returns(r, i, t, threads, spaces, groups, out, count)
    elif kind == Kind.MARK:
        emit(out, count, i, Op.MARK, threads[t, k.T_MM], 0, 0, 0, 0, 0)
    elif kind == Kind.SNAPSHOT_REFERENCE:
        _held_before(r, i, t, spaces, groups, out, count)
    elif kind >= Kind.ENTER_MMAP:
        _enter(i, t, threads)
