"""GUP in the imagined kernel, and who uses it: vmsplice, io_uring's registered buffers, process_vm_readv and process_vm_writev.

The order of events is that of recordings of Linux 6.1 (mm/gup.c): the fast path takes what is present, anything else is the slow one's.
"""

from __future__ import annotations

from tracetool.policies import facts as f
from tracetool.synth import events as e
from tracetool.synth import kernel
from tracetool.synth import state as k
from tracetool.synth.state import Machine, address_of, emit, mm_of, page_of, run_on
from tracetool_parsers.loops import part

# FOLL_* up to v6.2: write, touch, get, longterm, remote, pin.
WRITE, TOUCH, GET, LONGTERM, REMOTE, PIN = 0x1, 0x2, 0x4, 0x10000, 0x2000, 0x40000
# FAULT_FLAG_* of a fault that GUP takes: may retry, killable; for another process; to write.
GUP_FLAGS, REMOTE_FLAG, WRITE_FLAG = 0x14, 0x80, 0x1
#: io_uring's kernel thread, which gives back what a dead ring had pinned.
KWORKER = 7
#: Pages of a registered buffer at most: what one action may do is bounded.
MOST_BUFFER = 256
REGISTER_BUFFERS, UNREGISTER_BUFFERS = 0, 1


@part
def _wanted_first(m: Machine, slot: int, page: int, flags: int) -> int:
    """What the policy wants before GUP reads what is there: 0 nothing, 1 an unshare, 2 what a store does."""
    entry = m.entries[slot * m.p[k.P_WIDTH] + page]
    if entry == 0 or entry & (k.WRITABLE | k.ZERO):
        return 0
    request = (f.PIN if flags & PIN else 0) | (f.LONGTERM if flags & LONGTERM else 0)
    return m.gup[kernel.facts_of(m, slot, entry >> k.FRAME_SHIFT) | request]


@part
def _slow(m: Machine, slot: int, page: int, flags: int) -> int:
    """__get_user_pages() for one page of a process: faults until it may be taken; returns its frame, -1 the zero page."""
    at = slot * m.p[k.P_WIDTH] + page
    fault = GUP_FLAGS | (REMOTE_FLAG if flags & REMOTE else 0)
    if flags & WRITE:
        if m.entries[at] & k.WRITABLE == 0:
            fault |= WRITE_FLAG
            emit(m, e.MM_FAULT, mm_of(slot), address_of(m, page), fault, kernel.area_flags(page), 0)
            kernel.write_fault(m, slot, page, fault)
    elif m.entries[at] == 0:
        emit(m, e.MM_FAULT, mm_of(slot), address_of(m, page), fault, kernel.area_flags(page), 0)
        m.entries[at] = k.PRESENT | k.ZERO | k.ACCESSED
    elif _wanted_first(m, slot, page, flags) == 2:
        fault |= WRITE_FLAG
        emit(m, e.MM_FAULT, mm_of(slot), address_of(m, page), fault, kernel.area_flags(page), 0)
        kernel.write_fault(m, slot, page, fault)
    elif _wanted_first(m, slot, page, flags):
        kernel.unshare_fault(m, slot, page, fault)
    frame = -1 if m.entries[at] & k.ZERO else m.entries[at] >> k.FRAME_SHIFT
    emit(m, e.GUP_GRAB_PAGE, page_of(frame), flags)
    return frame


@part
def _hold(m: Machine, frame: int, slot: int, pin: int) -> None:
    """Note a reference that outlives the call."""
    at = m.s[k.S_REFS]
    m.s[k.S_REFS] = at + 1
    m.refs[at, k.R_FRAME] = frame
    m.refs[at, k.R_HOLDER] = slot
    m.refs[at, k.R_PIN] = pin
    m.tasks[slot, k.T_HOLDS] += 1
    if frame >= 0:
        m.frames[frame, k.F_PINS if pin else k.F_GETS] += 1


@part
def _let_go(m: Machine, at: int) -> int:
    """Forget a reference; returns its frame, -1 the zero page."""
    frame, pin = m.refs[at, k.R_FRAME], m.refs[at, k.R_PIN]
    m.tasks[m.refs[at, k.R_HOLDER], k.T_HOLDS] -= 1
    if frame >= 0:
        m.frames[frame, k.F_PINS if pin else k.F_GETS] -= 1
    last = m.s[k.S_REFS] - 1
    m.s[k.S_REFS] = last
    for column in range(3):
        m.refs[at, column] = m.refs[last, column]
    return frame


@part
def _freed(m: Machine, frame: int) -> None:
    if frame >= 0 and kernel.give_back(m, frame):
        emit(m, e.PAGE_FREE, k.FIRST_PFN + frame)


@part
def splice(m: Machine, slot: int, page: int) -> None:
    """vmsplice(2) of a page: the pipe reads it until the page is taken out."""
    at = slot * m.p[k.P_WIDTH] + page
    emit(m, e.ENTER_VMSPLICE, 10)
    emit(m, e.GUP_FAST, address_of(m, page), 1, GET)
    entry = m.entries[at]
    if entry == 0 or entry & k.ZERO or _wanted_first(m, slot, page, GET):
        emit(m, e.GUP, mm_of(slot), address_of(m, page), 1, GET | TOUCH)
        frame = _slow(m, slot, page, GET | TOUCH)
        emit(m, e.GUP_DONE, 1)
    else:
        frame = entry >> k.FRAME_SHIFT
        emit(m, e.GUP_GRAB, page_of(frame), 1, GET)
    emit(m, e.GUP_FAST_DONE, 1)
    emit(m, e.EXIT_VMSPLICE, 4096)
    _hold(m, frame, slot, 0)


@part
def unsplice(m: Machine, at: int) -> None:
    """What a pipe holds is taken out of it, or the pipe is closed."""
    emit(m, e.PIPE_RELEASE, page_of(m.refs[at, k.R_FRAME]))
    _freed(m, _let_go(m, at))


@part
def register(m: Machine, slot: int, first: int, pages: int) -> None:
    """io_uring_register(2) of a buffer: a long-term write pin of its pages."""
    flags = WRITE | LONGTERM | PIN
    emit(m, e.ENTER_IO_URING, REGISTER_BUFFERS, k.STACK_AT + 0x420, 1)
    emit(m, e.GUP, mm_of(slot), address_of(m, first), pages, flags)
    m.tasks[slot, k.T_PINNED] = 1
    for page in range(first, first + pages):
        _hold(m, _slow(m, slot, page, flags), slot, 1)
    emit(m, e.GUP_DONE, pages)
    emit(m, e.EXIT_IO_URING, 0)
    m.tasks[slot, k.T_BUFFER] = pages


@part
def _unpin_all(m: Machine, slot: int) -> None:
    number = m.s[k.S_REFS]
    for n in range(number):
        at = number - 1 - n
        # What is moved into a place that is let go comes from behind it, and was looked at.
        if m.refs[at, k.R_HOLDER] == slot and m.refs[at, k.R_PIN]:
            frame = m.refs[at, k.R_FRAME]
            emit(m, e.UNPIN_PAGE, page_of(frame))
            emit(m, e.GUP_PUT, page_of(frame), 1, PIN)
            _freed(m, _let_go(m, at))
    m.tasks[slot, k.T_BUFFER] = 0


@part
def unregister(m: Machine, slot: int) -> None:
    """The buffer is given back by its process."""
    emit(m, e.ENTER_IO_URING, UNREGISTER_BUFFERS, 0, 0)
    _unpin_all(m, slot)
    emit(m, e.EXIT_IO_URING, 0)


@part
def write_remote(m: Machine, other: int, page: int) -> None:
    """process_vm_writev(2) of the running process to a page of another."""
    emit(m, e.ENTER_WRITEV, m.tasks[other, k.T_PID])
    _remote(m, other, page, PIN | REMOTE | TOUCH | WRITE)
    kernel.wrote(m, other, page)
    emit(m, e.EXIT_WRITEV, 4096)


@part
def read_remote(m: Machine, other: int, page: int) -> None:
    """process_vm_readv(2) of the running process from a page of another."""
    emit(m, e.ENTER_READV, m.tasks[other, k.T_PID])
    _remote(m, other, page, PIN | REMOTE | TOUCH)
    emit(m, e.EXIT_READV, 4096)


@part
def _remote(m: Machine, other: int, page: int, flags: int) -> None:
    """A page of another process is pinned, used, and given back."""
    emit(m, e.GUP, mm_of(other), address_of(m, page), 1, flags)
    m.tasks[other, k.T_PINNED] = 1
    frame = _slow(m, other, page, flags)
    emit(m, e.GUP_DONE, 1)
    emit(m, e.UNPIN_PAGES_DIRTY, 1, page_of(frame))
    emit(m, e.GUP_PUT, page_of(frame), 1, PIN)


@part
def die(m: Machine, slot: int) -> None:
    """What a process that is gone still held: its pipes are closed by itself at last, its ring by a kernel thread."""
    if m.tasks[slot, k.T_HOLDS] == 0:
        return
    number = m.s[k.S_REFS]
    for n in range(number):
        at = number - 1 - n
        if m.refs[at, k.R_HOLDER] == slot and m.refs[at, k.R_PIN] == 0:
            unsplice(m, at)
    if m.tasks[slot, k.T_HOLDS] > 0:
        m.s[k.S_TID] = KWORKER
        _unpin_all(m, slot)
        run_on(m, slot)
