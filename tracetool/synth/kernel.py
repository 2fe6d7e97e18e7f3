"""The imagined kernel: faults, copy-on-write, frames, as Linux 6.1 does it and with its events in its order (mm/memory.c).

What a write fault, a fork or GUP decides is the policy's; all else is the same under every policy.
"""

from __future__ import annotations

from tracetool.policies import facts as f
from tracetool.synth import events as e
from tracetool.synth import state as k
from tracetool.synth.state import Machine, address_of, emit, mm_of, page_of
from tracetool_parsers.loops import part

# __GFP_* of a movable user page: to be filled with a copy, zeroed; of a page table.
GFP_COPY, GFP_ZEROED, GFP_TABLE = 0x140CCA, 0x140DCA, 0x400DC0
# FAULT_FLAG_* (include/linux/mm_types.h): of a load and a store of a program; within a COW fault, which has the entry already.
LOAD_FLAGS, STORE_FLAGS, UNSHARE_FLAG, HAS_ENTRY = 0x254, 0x255, 0x400, 0x800
# VM_FAULT_WRITE, which do_wp_page() returned up to v6.1.
DONE_WRITE = 8
# x86: NX, soft-dirty, user, present; accessed; dirty; special.
X86_ENTRY, X86_ACCESSED, X86_DIRTY, X86_SPECIAL = (0x8000000000000805 - (1 << 64)), 0x20, 0x40, 0x200
CODE_AT = 0x401000


@part
def allocate(m: Machine, gfp: int) -> int:
    """A frame, the one that became free last."""
    m.s[k.S_FREE] -= 1
    frame = m.free[m.s[k.S_FREE]]
    # Nothing is movable: what is goes into an LRU batch, and this machine has none.
    emit(m, e.PAGE_ALLOC, k.FIRST_PFN + frame, gfp, 0)
    m.frames[frame, k.F_EXCLUSIVE] = 0
    return frame


@part
def give_back(m: Machine, frame: int) -> bool:
    """A mapping or reference is gone: whether it was the last, and the frame is free."""
    if m.frames[frame, k.F_MAPCOUNT] + m.frames[frame, k.F_GETS] + m.frames[frame, k.F_PINS] > 0:
        return False
    m.free[m.s[k.S_FREE]] = frame
    m.s[k.S_FREE] += 1
    return True


@part
def facts_of(m: Machine, slot: int, frame: int) -> int:
    """What a policy is asked about."""
    bits = 0
    if m.frames[frame, k.F_MAPCOUNT] > 1:
        bits |= f.MAPPED_ELSEWHERE
    if m.frames[frame, k.F_GETS] + m.frames[frame, k.F_PINS] > 0:
        bits |= f.REFERENCED
    if m.frames[frame, k.F_PINS] > 0:
        bits |= f.MAYBE_PINNED
    if m.tasks[slot, k.T_PINNED] != 0:
        bits |= f.MM_HAS_PINNED
    if m.frames[frame, k.F_EXCLUSIVE] != 0:
        bits |= f.EXCLUSIVE
    return bits


@part
def area_flags(page: int) -> int:
    """vm_flags of the area of a page."""
    return k.VM_STACK if page == 0 else k.VM_AREA


@part
def hardware_entry(entry: int) -> int:
    """A present read-only entry as x86 has it."""
    bits = X86_ENTRY
    if entry & k.ACCESSED:
        bits |= X86_ACCESSED
    if entry & k.DIRTY:
        bits |= X86_DIRTY
    if entry & k.ZERO:
        return bits | X86_SPECIAL | k.ZERO_PFN << 12
    return bits | (k.FIRST_PFN + (entry >> k.FRAME_SHIFT)) << 12


@part
def map_new(m: Machine, slot: int, page: int, frame: int, bits: int) -> None:
    """A new frame is mapped; what was there is still accounted for (the kernel unmaps it afterwards)."""
    m.entries[slot * m.p[k.P_WIDTH] + page] = frame << k.FRAME_SHIFT | bits
    m.frames[frame, k.F_MAPCOUNT] = 1
    m.frames[frame, k.F_EXCLUSIVE] = 1
    if page > 0:
        m.tasks[slot, k.T_ANON] = 1
    emit(m, e.ANON_NEW, page_of(frame), mm_of(slot), address_of(m, page))


@part
def write_fault(m: Machine, slot: int, page: int, flags: int) -> None:
    """A store, or GUP for one, meets an entry that is not writable: do_anonymous_page(), do_wp_page()."""
    at = slot * m.p[k.P_WIDTH] + page
    entry = m.entries[at]
    bits = k.PRESENT | k.WRITABLE | k.DIRTY | k.ACCESSED
    if entry == 0:
        map_new(m, slot, page, allocate(m, GFP_ZEROED), bits)
    elif entry & k.ZERO:
        _cow_begins(m, slot, page, entry, flags)
        emit(m, e.COW_COPY, mm_of(slot), address_of(m, page))
        map_new(m, slot, page, allocate(m, GFP_ZEROED), bits)
        emit(m, e.COW_FAULT_DONE, DONE_WRITE)
    elif break_cow(m, slot, page, flags, bits):
        emit(m, e.COW_FAULT_DONE, DONE_WRITE)
    else:
        m.entries[at] = entry | bits
        emit(m, e.COW_FAULT_DONE, DONE_WRITE)


@part
def unshare_fault(m: Machine, slot: int, page: int, flags: int) -> None:
    """GUP wants the page for its process alone, to read: the entry stays read-only."""
    emit(m, e.MM_FAULT, mm_of(slot), address_of(m, page), flags | UNSHARE_FLAG, area_flags(page), 0)
    break_cow(m, slot, page, flags | UNSHARE_FLAG, k.PRESENT | k.ACCESSED)
    emit(m, e.COW_FAULT_DONE, 0)


@part
def break_cow(m: Machine, slot: int, page: int, flags: int, bits: int) -> bool:
    """The policy decides about a present page: a copy is mapped with `bits` (True), or the page becomes the process's own."""
    entry = m.entries[slot * m.p[k.P_WIDTH] + page]
    old = entry >> k.FRAME_SHIFT
    _cow_begins(m, slot, page, entry, flags)
    if m.write_fault[facts_of(m, slot, old)] & 1 == 0:
        m.frames[old, k.F_EXCLUSIVE] = 1
        return False
    emit(m, e.COW_COPY, mm_of(slot), address_of(m, page))
    frame = allocate(m, GFP_COPY)
    m.contents[frame] = m.contents[old]
    map_new(m, slot, page, frame, bits)
    emit(m, e.RMAP_REMOVE, page_of(old), mm_of(slot), 0)
    m.frames[old, k.F_MAPCOUNT] -= 1
    if give_back(m, old):
        emit(m, e.PAGE_FREE, k.FIRST_PFN + old)
    return True


@part
def _cow_begins(m: Machine, slot: int, page: int, entry: int, flags: int) -> None:
    emit(m, e.COW_FAULT, mm_of(slot), address_of(m, page), area_flags(page), flags | HAS_ENTRY, hardware_entry(entry))


@part
def wrote(m: Machine, slot: int, page: int) -> None:
    """The page has other contents now."""
    frame = m.entries[slot * m.p[k.P_WIDTH] + page] >> k.FRAME_SHIFT
    m.s[k.S_CONTENT] += 1
    m.contents[frame] = m.s[k.S_CONTENT]


@part
def store(m: Machine, slot: int, page: int) -> None:
    """A program stores to a page; nothing is recorded where its entry is writable."""
    entry = m.entries[slot * m.p[k.P_WIDTH] + page]
    if entry & k.WRITABLE == 0:
        _access(m, slot, page, STORE_FLAGS, 7 if entry else 6)
        write_fault(m, slot, page, STORE_FLAGS)
    wrote(m, slot, page)


@part
def load(m: Machine, slot: int, page: int) -> None:
    """A program loads from a page: where none is, the zero page is mapped."""
    at = slot * m.p[k.P_WIDTH] + page
    if m.entries[at] == 0:
        _access(m, slot, page, LOAD_FLAGS, 4)
        m.entries[at] = k.PRESENT | k.ZERO
    m.entries[at] |= k.ACCESSED


@part
def _access(m: Machine, slot: int, page: int, flags: int, error: int) -> None:
    address = address_of(m, page) | (m.s[k.S_CONTENT] & 0x1FF) << 3
    emit(m, e.PAGE_FAULT_USER, address, CODE_AT + (page & 0xFFF), error)
    emit(m, e.MM_FAULT, mm_of(slot), address, flags, area_flags(page), 0)


@part
def zap(m: Machine, slot: int, first: int, end: int) -> None:
    """Pages `first` up to `end` are unmapped, then what nobody else has is freed: zap_pte_range(), tlb_finish_mmu()."""
    freed = 0
    for page in range(first, end):
        at = slot * m.p[k.P_WIDTH] + page
        entry = m.entries[at]
        m.entries[at] = 0
        if entry == 0 or entry & k.ZERO:
            continue
        frame = entry >> k.FRAME_SHIFT
        emit(m, e.RMAP_REMOVE, page_of(frame), mm_of(slot), 0)
        m.frames[frame, k.F_MAPCOUNT] -= 1
        if give_back(m, frame):
            freed += 1
    for n in range(m.s[k.S_FREE] - freed, m.s[k.S_FREE]):
        emit(m, e.PAGE_FREE, k.FIRST_PFN + m.free[n])
    for n in range(m.s[k.S_FREE] - freed, m.s[k.S_FREE]):
        emit(m, e.PAGE_FREE_BATCHED, k.FIRST_PFN + m.free[n])


@part
def protect(m: Machine, slot: int, page: int) -> None:
    """mprotect(2) of a page: read-only, then writable again.

    Where a policy has it so, what is exclusive and dirty becomes writable at once (v6.1: mm/mprotect.c, can_change_pte_writable());
    else the next store faults.
    """
    at = slot * m.p[k.P_WIDTH] + page
    emit(m, e.ENTER_MPROTECT, address_of(m, page), 4096, 1)
    m.entries[at] &= ~k.WRITABLE
    emit(m, e.EXIT_MPROTECT, 0)
    emit(m, e.ENTER_MPROTECT, address_of(m, page), 4096, 3)
    entry = m.entries[at]
    owned = entry & k.DIRTY and entry & k.ZERO == 0 and m.frames[entry >> k.FRAME_SHIFT, k.F_EXCLUSIVE]
    if owned and m.p[k.P_RESTORES]:
        m.entries[at] |= k.WRITABLE
    emit(m, e.EXIT_MPROTECT, 0)


@part
def discard(m: Machine, slot: int, page: int) -> None:
    """madvise(2) with MADV_DONTNEED."""
    emit(m, e.ENTER_MADVISE, address_of(m, page), 4096, 4)
    zap(m, slot, page, page + 1)
    emit(m, e.EXIT_MADVISE, 0)
