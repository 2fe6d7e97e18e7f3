"""What the imagined machine consists of: page tables, page frames, references, processes; and rows of events, time and chance."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tracetool.policies import DecisionTables, tabulate
from tracetool.synth.plan import MOST_REFERENCES, Plan
from tracetool_parsers.loops import part

Ints = npt.NDArray[Any]

# Addresses as x86-64 has them; those above the range of int64 bit for bit.
VMEMMAP = 0xFFD4000000000000 - (1 << 64)
MM_AT, ANON_VMA_AT = 0xFF11000004850000 - (1 << 64), 0xFF11000008000000 - (1 << 64)
FIRST_PFN, ZERO_PFN = 0x8000, 0x330D
STACK_AT = 0x7FFC4D6D3000
VM_AREA, VM_STACK, VM_TEXT = 0x48100073, 0x100173, 0x8000075

# Page table entries: bits, then the frame; 0 is none.
PRESENT, WRITABLE, DIRTY, ACCESSED, ZERO = 1, 2, 4, 8, 16
FRAME_SHIFT = 5

# Scalars: state of chance (three), time (ns), events so far, rows in the block; processes alive, free frames, free slots, references;
# the next thread id and contents; the work in progress: what, whose, for whom, from where on; the scenario's step, page and process; a
# checkpoint that is due (label, process), and when the next one is; thread and CPU that run; whether all is to
# end; whether thread ids have gone round; rounds of the scenario; of the fault that another may overlap: when, on which CPU, whose,
# frames before and after.
(S_CHANCE, S_CHANCE2, S_JITTER, S_TIME, S_EVENTS, S_ROWS, S_LIVE, S_FREE, S_SLOTS, S_REFS, S_NEXT_PID, S_CONTENT, S_WORK, S_WORKER,
 S_CHILD, S_CURSOR, S_STEP, S_PAGE, S_OTHER, S_MARK, S_MARK_OF, S_MARK_AT, S_TID, S_CPU, S_ENDING, S_WRAPPED,
 S_ROUND, S_FAULT_FROM, S_FAULT_TO, S_FAULT_CPU, S_FAULT_OF, S_FAULT_OLD, S_FAULT_NEW) = range(33)  # fmt: skip
# Parameters: entries of a process, CPUs, events wanted, shares in a million, where the area begins, scenario, references at most, events
# between checkpoints, processes at most, whether mprotect gives write access back at once.
(P_WIDTH, P_CPUS, P_TARGET, P_STORES, P_REFERENCES, P_AREA, P_SCENARIO, P_MOST_REFS, P_MARK_EVERY, P_SLOTS,
 P_RESTORES) = range(11)  # fmt: skip
# Processes: pid (0: no process), second thread (0: none), CPU, whether its memory was ever pinned, whether its area has an anon_vma, frame
# of its page table, references that it holds, pages registered as a buffer.
T_PID, T_SECOND, T_CPU, T_PINNED, T_ANON, T_TABLE, T_HOLDS, T_BUFFER = range(8)
# References: frame (-1: the zero page), holder, whether a pin.
R_FRAME, R_HOLDER, R_PIN = range(3)
# Frames: mappings, FOLL_GET and FOLL_PIN references, exclusive.
F_MAPCOUNT, F_GETS, F_PINS, F_EXCLUSIVE = range(4)
#: Rows: kind, CPU, thread, time, arguments.
E_KIND, E_CPU, E_TID, E_TIME, E_FIRST = range(5)
ARGUMENTS = 7

#: Rows of a block, and those that one action fills at most.
BLOCK: Final = 1 << 16
MOST_ROWS = 1 << 14
#: Events between two checkpoints, at least.
LEAST_BETWEEN: Final = 50


class Machine(NamedTuple):
    """The state, as arrays: int64 but for `frames` (int32, columns F_*). `entries` is by process and page: page 0 is the stack's."""

    s: Ints
    p: Ints
    weights: Ints
    entries: Ints
    frames: Ints
    contents: Ints
    free: Ints
    tasks: Ints
    live: Ints
    slots: Ints
    refs: Ints
    rows: Ints
    write_fault: Ints
    fork: Ints
    gup: Ints


def new_machine(plan: Plan, scenario: int, weights: Ints) -> Machine:
    """A machine on which nothing runs yet."""
    width, processes = plan.area_pages + 1, plan.most_processes
    frames = processes * (width + 1) + MOST_REFERENCES + 8
    tables: DecisionTables = tabulate(plan.decisions)
    s = np.zeros(33, np.int64)
    # Two generators of L'Ecuyer, "Efficient and portable combined random number generators" (1988): products stay below 2**63.
    s[S_CHANCE], s[S_CHANCE2] = 1 + plan.seed % 2147483562, 1 + (plan.seed // 2147483562 + 12345) % 2147483398
    s[S_JITTER], s[S_TIME] = 1 + plan.seed % 2147483646, 6_200_000_000
    s[S_FREE], s[S_SLOTS], s[S_NEXT_PID], s[S_MARK], s[S_CONTENT] = frames, processes, 1000, -1, 1
    p = np.zeros(11, np.int64)
    p[P_WIDTH], p[P_CPUS], p[P_TARGET], p[P_SCENARIO], p[P_SLOTS] = width, plan.cpus, plan.target, scenario, processes
    p[P_STORES], p[P_REFERENCES] = round(plan.stores * 1_000_000), round(plan.reference_share * 1_000_000)
    p[P_AREA] = 0x7F0000000000 + plan.seed * 0x9E3779B1 % 0x7000000 * 0x1000
    p[P_MOST_REFS], p[P_RESTORES] = MOST_REFERENCES, int(plan.decisions.mprotect_restores)
    s[S_MARK_AT] = p[P_MARK_EVERY] = max(LEAST_BETWEEN, -(-plan.target // (plan.checkpoints + 1))) if plan.checkpoints else 1 << 62
    tasks = np.zeros((processes, 8), np.int64)
    return Machine(
        s=s,
        p=p,
        weights=weights,
        entries=np.zeros(processes * width, np.int64),
        frames=np.zeros((frames, 4), np.int32),
        contents=np.zeros(frames, np.int64),
        free=np.arange(frames, dtype=np.int64)[::-1].copy(),
        tasks=tasks,
        live=np.zeros(processes, np.int64),
        slots=np.arange(processes, dtype=np.int64)[::-1].copy(),
        refs=np.zeros((MOST_REFERENCES, 3), np.int64),
        rows=np.zeros((BLOCK, E_FIRST + ARGUMENTS), np.int64),
        write_fault=tables.write_fault,
        fork=tables.fork,
        gup=tables.gup,
    )


@part
def draw(m: Machine, below: int) -> int:
    """A number of chance from 0 up to `below`, which is at most 2**31."""
    first = m.s[S_CHANCE] * 40014 % 2147483563
    second = m.s[S_CHANCE2] * 40692 % 2147483399
    m.s[S_CHANCE] = first
    m.s[S_CHANCE2] = second
    return (first - second) % 2147483562 % below


@part
def chance(m: Machine, share: int) -> bool:
    """Whether something of that share, in a million, happens."""
    return draw(m, 1_000_000) < share


@part
def emit(m: Machine, kind: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0, g: int = 0) -> None:
    """An event of the running thread, a little after the one before."""
    m.s[S_JITTER] = m.s[S_JITTER] * 48271 % 2147483647
    m.s[S_TIME] += 150 + (m.s[S_JITTER] >> 20)
    at = m.s[S_ROWS]
    m.s[S_ROWS] = at + 1
    m.s[S_EVENTS] += 1
    m.rows[at, E_KIND] = kind
    m.rows[at, E_CPU] = m.s[S_CPU]
    m.rows[at, E_TID] = m.s[S_TID]
    m.rows[at, E_TIME] = m.s[S_TIME]
    m.rows[at, E_FIRST] = a
    m.rows[at, E_FIRST + 1] = b
    m.rows[at, E_FIRST + 2] = c
    m.rows[at, E_FIRST + 3] = d
    m.rows[at, E_FIRST + 4] = e
    m.rows[at, E_FIRST + 5] = f
    m.rows[at, E_FIRST + 6] = g


@part
def run_on(m: Machine, slot: int) -> None:
    """A process runs next: one of its threads, after a pause, at times on another CPU."""
    m.s[S_TIME] += 2_000 + draw(m, 40_000)
    if draw(m, 4096) == 0:
        # Longer than the 27 bits of a record can say.
        m.s[S_TIME] += 150_000_000 + draw(m, 300_000_000)
    if draw(m, 64) == 0:
        m.tasks[slot, T_CPU] = draw(m, m.p[P_CPUS])
    m.s[S_TID] = m.tasks[slot, T_PID]
    m.s[S_CPU] = m.tasks[slot, T_CPU]


@part
def run_second(m: Machine, slot: int) -> None:
    """The process's second thread runs instead, on the next CPU, where it has one."""
    if m.tasks[slot, T_SECOND] > 0 and draw(m, 3) == 0:
        m.s[S_TID] = m.tasks[slot, T_SECOND]
        m.s[S_CPU] = (m.tasks[slot, T_CPU] + 1) % m.p[P_CPUS]


@part
def mm_of(slot: int) -> int:
    """The `struct mm_struct *` of a process; the next process in its place gets the same."""
    return MM_AT + slot * 0x480


@part
def page_of(frame: int) -> int:
    """The `struct page *` of a frame; -1 is the zero page."""
    return VMEMMAP + 64 * (FIRST_PFN + frame if frame >= 0 else ZERO_PFN)


@part
def address_of(m: Machine, page: int) -> int:
    """Where a page of a process is."""
    return STACK_AT if page == 0 else m.p[P_AREA] + ((page - 1) << 12)
