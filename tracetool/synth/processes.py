"""How processes of the imagined kernel begin and end: exec, fork, exit, as Linux 6.1 does it and with its events in its order.

Long work (fork and exit of many pages) is done piece by piece, and nothing else in between.
"""

from __future__ import annotations

from tracetool.synth import events as e
from tracetool.synth import kernel, references
from tracetool.synth import state as k
from tracetool.synth.state import Machine, emit, mm_of, page_of, run_on
from tracetool_parsers.loops import part

#: Work in progress.
NOTHING, FORKING, EXITING = 0, 1, 2
#: Pages of a piece of work.
PIECE = 1024
# clone(2): SETTID|CLEARTID as fork() asks for; what pthread_create() asks for.
CLONE_FORK, CLONE_THREAD = 0x1200000, 0x3D0F00
LAST_PID = 1 << 22
#: Texts by number: the program's name, that of the shell it was started by, its path.
COMM, SHELL, PATH = 0, 1, 2
#: Program text: page cache, of which fork copies nothing.
TEXT_AT, TEXT_END = 0x401000, 0x47D000
# Where exec builds a stack, and FOLL_* and FAULT_FLAG_* with which it does.
EXEC_STACK, EXEC_FOLL, EXEC_FAULT = 0xFFFFFFFFFFE000, 0x2007, 0x81


@part
def _next_pid(m: Machine) -> int:
    """Thread ids go round; those in use are passed over."""
    while True:
        pid = m.s[k.S_NEXT_PID]
        m.s[k.S_NEXT_PID] = pid + 1 if pid + 1 < LAST_PID else 300
        used = 0
        if pid < 1000 or m.s[k.S_WRAPPED]:
            m.s[k.S_WRAPPED] = 1
            for slot in range(m.p[k.P_SLOTS]):
                used |= m.tasks[slot, k.T_PID] == pid or m.tasks[slot, k.T_SECOND] == pid
        if not used:
            return pid


@part
def _new_process(m: Machine, cpu: int) -> int:
    """A place for a process that is about to begin."""
    m.s[k.S_SLOTS] -= 1
    slot = m.slots[m.s[k.S_SLOTS]]
    for column in range(8):
        m.tasks[slot, column] = 0
    m.tasks[slot, k.T_PID] = _next_pid(m)
    m.tasks[slot, k.T_CPU] = cpu
    m.live[m.s[k.S_LIVE]] = slot
    m.s[k.S_LIVE] += 1
    return slot


@part
def begin(m: Machine) -> int:
    """A shell's child becomes the workload's first process by exec, and maps its area."""
    slot = _new_process(m, 0)
    run_on(m, slot)
    mm = mm_of(slot)
    emit(m, e.GUP, mm, EXEC_STACK + 0xFEC, 1, EXEC_FOLL)
    emit(m, e.MM_FAULT, mm, EXEC_STACK + 0xFEC, EXEC_FAULT, 0x8118173, 0)
    m.tasks[slot, k.T_TABLE] = kernel.allocate(m, kernel.GFP_TABLE)
    stack = kernel.allocate(m, kernel.GFP_ZEROED)
    emit(m, e.ANON_NEW, page_of(stack), mm, EXEC_STACK)
    m.frames[stack, k.F_MAPCOUNT] = 1
    m.frames[stack, k.F_EXCLUSIVE] = 1
    m.entries[slot * m.p[k.P_WIDTH]] = stack << k.FRAME_SHIFT | k.PRESENT | k.WRITABLE | k.DIRTY | k.ACCESSED
    emit(m, e.GUP_GRAB_PAGE, page_of(stack), EXEC_FOLL)
    emit(m, e.GUP_DONE, 1)
    # The address space of the shell, which no process of ours has.
    emit(m, e.MM_EXIT, mm_of(m.p[k.P_SLOTS]))
    emit(m, e.RENAME, m.tasks[slot, k.T_PID], SHELL, COMM)
    emit(m, e.TABLE_MOVE, mm, EXEC_STACK, k.STACK_AT, 4096)
    emit(m, e.PROCESS_EXEC, PATH, m.tasks[slot, k.T_PID], m.tasks[slot, k.T_PID])
    size = (m.p[k.P_WIDTH] - 1) << 12
    emit(m, e.ENTER_MMAP, 0, size, 3, 0x22)
    emit(m, e.EXIT_MMAP, m.p[k.P_AREA])
    # MADV_NOHUGEPAGE: pages stay small.
    emit(m, e.ENTER_MADVISE, m.p[k.P_AREA], size, 15)
    emit(m, e.EXIT_MADVISE, 0)
    return slot


@part
def second_thread(m: Machine, slot: int) -> None:
    """The process starts a second thread."""
    m.tasks[slot, k.T_SECOND] = _next_pid(m)
    emit(m, e.NEW_TASK, m.tasks[slot, k.T_SECOND], COMM, CLONE_THREAD)
    emit(m, e.PROCESS_FORK, COMM, m.tasks[slot, k.T_PID], COMM, m.tasks[slot, k.T_SECOND])


@part
def fork(m: Machine, slot: int) -> int:
    """A process forks: `go_on` copies its page table and does the rest. Returns the child."""
    child = _new_process(m, (m.tasks[slot, k.T_CPU] + 1) % m.p[k.P_CPUS])
    emit(m, e.FORK_RANGE, mm_of(child), mm_of(slot), TEXT_AT, TEXT_END, k.VM_TEXT, 0, k.VMEMMAP)
    emit(m, e.FORK_RANGE_DONE, 0)
    _copy_begins(m, slot, child, m.p[k.P_AREA], m.p[k.P_WIDTH] - 1, k.VM_AREA, m.tasks[slot, k.T_ANON])
    m.tasks[child, k.T_ANON] = m.tasks[slot, k.T_ANON]
    m.tasks[child, k.T_TABLE] = kernel.allocate(m, kernel.GFP_TABLE)
    m.s[k.S_WORK] = FORKING
    m.s[k.S_WORKER] = slot
    m.s[k.S_CHILD] = child
    # Without an anon_vma copy_page_range() copies nothing: faults bring back what page cache or the zero page was there.
    m.s[k.S_CURSOR] = 1 if m.tasks[slot, k.T_ANON] else m.p[k.P_WIDTH]
    return child


@part
def _copy_begins(m: Machine, slot: int, child: int, start: int, pages: int, flags: int, anonymous: int) -> None:
    anon_vma = k.ANON_VMA_AT + slot * 0xD8 + (start & 0x40) if anonymous else 0
    emit(m, e.FORK_RANGE, mm_of(child), mm_of(slot), start, start + (pages << 12), flags, anon_vma, k.VMEMMAP)


@part
def _copy_entry(m: Machine, slot: int, child: int, page: int) -> None:
    """copy_present_pte(): the policy says whether the child shares the page or gets its copy now."""
    width = m.p[k.P_WIDTH]
    entry = m.entries[slot * width + page]
    if entry == 0 or entry & k.ZERO:
        m.entries[child * width + page] = entry & ~k.ACCESSED
        return
    frame = entry >> k.FRAME_SHIFT
    if m.fork[kernel.facts_of(m, slot, frame)] & 1:
        copy = kernel.allocate(m, kernel.GFP_COPY)
        m.contents[copy] = m.contents[frame]
        kernel.map_new(m, child, page, copy, k.PRESENT | k.WRITABLE | k.DIRTY)
        return
    m.frames[frame, k.F_MAPCOUNT] += 1
    m.frames[frame, k.F_EXCLUSIVE] = 0
    m.entries[slot * width + page] = entry & ~k.WRITABLE
    m.entries[child * width + page] = entry & ~(k.WRITABLE | k.ACCESSED)


@part
def _go_on_forking(m: Machine) -> None:
    slot, child, first, width = m.s[k.S_WORKER], m.s[k.S_CHILD], m.s[k.S_CURSOR], m.p[k.P_WIDTH]
    end = min(first + PIECE, width)
    for page in range(first, end):
        _copy_entry(m, slot, child, page)
    m.s[k.S_CURSOR] = end
    if end < width:
        return
    emit(m, e.FORK_RANGE_DONE, 0)
    _copy_begins(m, slot, child, k.STACK_AT, 1, k.VM_STACK, 1)
    _copy_entry(m, slot, child, 0)
    emit(m, e.FORK_RANGE_DONE, 0)
    emit(m, e.NEW_TASK, m.tasks[child, k.T_PID], COMM, CLONE_FORK)
    emit(m, e.PROCESS_FORK, COMM, m.tasks[slot, k.T_PID], COMM, m.tasks[child, k.T_PID])
    m.s[k.S_WORK] = NOTHING
    # Both return from fork(), and write to their stacks: the parent first, the child on its own CPU.
    kernel.store(m, slot, 0)
    run_on(m, child)
    kernel.store(m, child, 0)


@part
def leave(m: Machine, slot: int) -> None:
    """A process exits: `go_on` tears its memory down and does the rest."""
    if m.tasks[slot, k.T_SECOND]:
        m.s[k.S_TID] = m.tasks[slot, k.T_SECOND]
        emit(m, e.PROCESS_EXIT, COMM, m.tasks[slot, k.T_SECOND])
        m.s[k.S_TID] = m.tasks[slot, k.T_PID]
    emit(m, e.MM_EXIT, mm_of(slot))
    m.s[k.S_WORK] = EXITING
    m.s[k.S_WORKER] = slot
    m.s[k.S_CURSOR] = 1


@part
def _go_on_exiting(m: Machine) -> None:
    slot, first, width = m.s[k.S_WORKER], m.s[k.S_CURSOR], m.p[k.P_WIDTH]
    end = min(first + PIECE, width)
    kernel.zap(m, slot, first, end)
    m.s[k.S_CURSOR] = end
    if end < width:
        return
    kernel.zap(m, slot, 0, 1)
    table = m.tasks[slot, k.T_TABLE]
    m.free[m.s[k.S_FREE]] = table
    m.s[k.S_FREE] += 1
    emit(m, e.PAGE_FREE, k.FIRST_PFN + table)
    m.s[k.S_WORK] = NOTHING


@part
def _bury(m: Machine, slot: int) -> None:
    emit(m, e.PROCESS_EXIT, COMM, m.tasks[slot, k.T_PID])
    references.die(m, slot)
    for n in range(m.s[k.S_LIVE]):
        if m.live[n] == slot:
            m.live[n] = m.live[m.s[k.S_LIVE] - 1]
    m.s[k.S_LIVE] -= 1
    m.slots[m.s[k.S_SLOTS]] = slot
    m.s[k.S_SLOTS] += 1
    m.tasks[slot, k.T_PID] = 0
    m.tasks[slot, k.T_SECOND] = 0


@part
def go_on(m: Machine) -> None:
    """Do a piece of the work in progress."""
    if m.s[k.S_WORK] == FORKING:
        _go_on_forking(m)
        return
    _go_on_exiting(m)
    if m.s[k.S_WORK] == NOTHING:
        _bury(m, m.s[k.S_WORKER])
