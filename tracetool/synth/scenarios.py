"""What the processes do: scripts for `mail` and `snapshot`, actions by weight for the others."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tracetool.synth import kernel, processes, references
from tracetool.synth import state as k
from tracetool.synth.plan import Plan
from tracetool.synth.state import BLOCK, MOST_ROWS, Machine, chance, draw, run_on, run_second
from tracetool_parsers.loops import loop, part

MAIL, SNAPSHOT, PINS, FORKSTORM, RANDOM = range(5)
#: In the order of their numbers.
NAMES: Final = ("mail", "snapshot", "pins", "forkstorm", "random")
#: Checkpoints by scenario, in the order of their numbers; "k" comes again and again.
LABELS: Final = {
    "mail": ("born", "forked", "A-pinned", "A-wrote", "B-before-write", "B-wrote", "A-released", "A-end"),
    "snapshot": ("loaded", "forked", "saved", "child-gone", "written"),
}
BORN, FORKED, A_PINNED, A_WROTE, B_BEFORE_WRITE, B_WROTE, A_RELEASED, A_END = range(8)
LOADED, SNAPSHOT_FORKED, SAVED, CHILD_GONE, WRITTEN = range(5)
# Steps of the mail, each for all pages in turn, and of a database.
A_TOUCHES, A_FORKS, BOTH_MAP, A_REFERS, A_WRITES, B_LOOKS, B_WRITES, A_RELEASES, B_EXITS, A_LOOKS = range(10)
LOADS, FORKS, BOTH_RUN, SAVES, OLDEST_EXITS, IS_GONE, WRITES = range(7)
#: A checkpoint of all processes.
EVERYBODY = -1

# Why the loop stopped: the block of rows is full, a checkpoint is due, all processes are gone.
FULL, MARKED, FINISHED = 0, 1, 2

# Actions by weight.
ACCESS, FORK, EXIT, DISCARD, PROTECT, SPLICE, UNSPLICE, REGISTER, UNREGISTER, READ, WRITE = range(11)
#: Weights of the first five, and of the six that concern references, in thousandths of their share.
_WEIGHTS: Final = {
    "pins": ((930, 25, 25, 10, 10), (100, 100, 400, 300, 50, 50)),
    "forkstorm": ((770, 120, 100, 10, 0), (350, 350, 50, 50, 100, 100)),
    "random": ((883, 30, 27, 30, 30), (350, 350, 50, 50, 100, 100)),
}


def weights_of(plan: Plan) -> npt.NDArray[Any]:
    """Weights of the actions, summed up, int64; of a scenario that has a script: none."""
    plain, referring = _WEIGHTS.get(plan.scenario, ((1, 0, 0, 0, 0), (0,) * 6))
    share = round(plan.reference_share * 1000)
    return np.cumsum([*(each * (1000 - share) for each in plain), *(each * share for each in referring)]).astype(np.int64)


@part
def _some_page(m: Machine) -> int:
    return 1 + draw(m, m.p[k.P_WIDTH] - 1)


@part
def _checkpoint(m: Machine, label: int, of: int) -> None:
    """A moment worth checking: in the first round, and later every so many events."""
    if m.p[k.P_MARK_EVERY] < 1 << 62 and (m.s[k.S_ROUND] == 0 or m.s[k.S_EVENTS] >= m.s[k.S_MARK_AT]):
        m.s[k.S_MARK] = label
        m.s[k.S_MARK_OF] = of


@part
def _next_step(m: Machine) -> None:
    m.s[k.S_STEP] += 1
    m.s[k.S_PAGE] = 1


@part
def _next_page(m: Machine) -> bool:
    """Whether there is one."""
    m.s[k.S_PAGE] += 1
    return m.s[k.S_PAGE] < m.p[k.P_WIDTH]


@part
def _round_ends(m: Machine, step: int) -> None:
    m.s[k.S_ROUND] += 1
    m.s[k.S_STEP] = step
    m.s[k.S_PAGE] = 1
    if m.s[k.S_EVENTS] >= m.p[k.P_TARGET]:
        m.s[k.S_ENDING] = 1


@part
def _mail(m: Machine, a: int) -> None:
    """The mail's example, for each page: A and B share it, A takes a read reference and writes, then B writes; who sees what?"""
    step, b, page = m.s[k.S_STEP], m.s[k.S_OTHER], m.s[k.S_PAGE]
    run_on(m, b if step == B_LOOKS or step == B_WRITES or step == B_EXITS else a)
    if step == A_FORKS:
        m.s[k.S_OTHER] = processes.fork(m, a)
        _next_step(m)
    elif step == BOTH_MAP:
        _checkpoint(m, FORKED, a)
        _next_step(m)
    elif step == B_LOOKS:
        _checkpoint(m, B_BEFORE_WRITE, b)
        _next_step(m)
    elif step == B_EXITS:
        processes.leave(m, b)
        _next_step(m)
    elif step == A_LOOKS:
        _checkpoint(m, A_END, a)
        _round_ends(m, A_TOUCHES)
    else:
        if step == A_REFERS:
            references.splice(m, a, page)
        elif step == A_RELEASES:
            references.unsplice(m, 0)
        else:
            kernel.store(m, b if step == B_WRITES else a, page)
        if not _next_page(m):
            _checkpoint(m, _label_after(step), b if step == B_WRITES else a)
            _next_step(m)


@part
def _label_after(step: int) -> int:
    if step == A_TOUCHES:
        return BORN
    if step == A_REFERS:
        return A_PINNED
    if step == A_WRITES:
        return A_WROTE
    return B_WROTE if step == B_WRITES else A_RELEASED


@part
def _oldest_child(m: Machine, root: int) -> int:
    oldest = -1
    for n in range(m.s[k.S_LIVE]):
        slot = m.live[n]
        if slot != root and (oldest < 0 or m.tasks[slot, k.T_PID] < m.tasks[oldest, k.T_PID]):
            oldest = slot
    return oldest


@part
def _serve(m: Machine, root: int) -> None:
    """What the database does while a child saves: it stores, and hands pages to the network without copying them."""
    run_on(m, root)
    if chance(m, m.p[k.P_STORES]):
        kernel.store(m, root, _some_page(m))
    if chance(m, m.p[k.P_REFERENCES]) and m.s[k.S_REFS] < m.p[k.P_MOST_REFS]:
        references.splice(m, root, _some_page(m))
    elif m.s[k.S_REFS] > 0 and chance(m, 2 * m.p[k.P_REFERENCES]):
        references.unsplice(m, draw(m, m.s[k.S_REFS]))


@part
def _snapshot(m: Machine, root: int) -> None:
    """A database loads its pages, then again and again forks a child that reads them all, and writes on meanwhile and afterwards."""
    step = m.s[k.S_STEP]
    if step == LOADS:
        run_on(m, root)
        kernel.store(m, root, m.s[k.S_PAGE])
        if not _next_page(m):
            _checkpoint(m, LOADED, root)
            _next_step(m)
    elif step == FORKS:
        run_on(m, root)
        m.s[k.S_OTHER] = processes.fork(m, root)
        _next_step(m)
    elif step == BOTH_RUN:
        _checkpoint(m, SNAPSHOT_FORKED, EVERYBODY)
        _next_step(m)
    elif step == SAVES:
        run_on(m, m.s[k.S_OTHER])
        kernel.load(m, m.s[k.S_OTHER], m.s[k.S_PAGE])
        _serve(m, root)
        if not _next_page(m):
            _checkpoint(m, SAVED, EVERYBODY)
            _next_step(m)
    elif step == OLDEST_EXITS:
        _next_step(m)
        if m.s[k.S_LIVE] == m.p[k.P_SLOTS]:
            child = _oldest_child(m, root)
            run_on(m, child)
            processes.leave(m, child)
    elif step == IS_GONE:
        _checkpoint(m, CHILD_GONE, EVERYBODY)
        _next_step(m)
    else:
        _serve(m, root)
        if not _next_page(m):
            _checkpoint(m, WRITTEN, EVERYBODY)
            _round_ends(m, FORKS)


@part
def _action(m: Machine) -> int:
    """An action by its weight."""
    at, action = draw(m, m.weights[WRITE]), ACCESS
    while at >= m.weights[action]:
        action += 1
    return action


@part
def _frame(m: Machine, slot: int, page: int) -> int:
    """The frame of a page: -1 none, or the zero page."""
    entry = m.entries[slot * m.p[k.P_WIDTH] + page]
    return -1 if entry == 0 or entry & k.ZERO else entry >> k.FRAME_SHIFT


@part
def _access(m: Machine, slot: int, page: int) -> None:
    """A store or load. A fault may run beside the one just before it, of another process on another CPU, where they share no frame: then
    either order of their events gives the same.
    """
    beside = m.s[k.S_TIME] == m.s[k.S_FAULT_TO] and m.s[k.S_FAULT_OF] != slot and draw(m, 2) == 0
    run_on(m, slot)
    run_second(m, slot)
    old, rows = _frame(m, slot, page), m.s[k.S_ROWS]
    beside = beside and m.s[k.S_CPU] != m.s[k.S_FAULT_CPU] and (old < 0 or (old != m.s[k.S_FAULT_OLD] and old != m.s[k.S_FAULT_NEW]))
    start = m.s[k.S_FAULT_FROM] + 200 + draw(m, 2000) if beside else m.s[k.S_TIME]
    m.s[k.S_TIME] = start
    if chance(m, m.p[k.P_STORES]):
        kernel.store(m, slot, page)
    else:
        kernel.load(m, slot, page)
    if beside:
        m.s[k.S_TIME] = max(m.s[k.S_TIME], m.s[k.S_FAULT_TO])
        m.s[k.S_FAULT_TO] = -1
    elif m.s[k.S_ROWS] > rows:
        m.s[k.S_FAULT_FROM] = start
        m.s[k.S_FAULT_TO] = m.s[k.S_TIME]
        m.s[k.S_FAULT_CPU] = m.s[k.S_CPU]
        m.s[k.S_FAULT_OF] = slot
        m.s[k.S_FAULT_OLD] = old
        m.s[k.S_FAULT_NEW] = _frame(m, slot, page)


@part
def _mixed(m: Machine, root: int) -> None:
    """Any process does anything; of a server with pinned buffers only the first forks and refers."""
    action = _action(m)
    slot = m.live[draw(m, m.s[k.S_LIVE])]
    if m.p[k.P_SCENARIO] == PINS and action != ACCESS and action != EXIT:
        slot = root
    page = _some_page(m)
    if action == ACCESS:
        _access(m, slot, page)
        return
    run_on(m, slot)
    if action == FORK:
        if m.s[k.S_LIVE] < m.p[k.P_SLOTS]:
            processes.fork(m, slot)
    elif action == EXIT:
        if slot != root:
            processes.leave(m, slot)
    elif action == DISCARD:
        kernel.discard(m, slot, page)
    elif action == PROTECT:
        kernel.protect(m, slot, page)
    else:
        _refer(m, action, slot, page)


@part
def _refer(m: Machine, action: int, slot: int, page: int) -> None:
    """Take or drop references."""
    held = m.s[k.S_REFS]
    if action == SPLICE:
        if held < m.p[k.P_MOST_REFS]:
            references.splice(m, slot, page)
    elif action == UNSPLICE:
        at = draw(m, held) if held > 0 else 0
        if held > 0 and m.refs[at, k.R_PIN] == 0:
            run_on(m, m.refs[at, k.R_HOLDER])
            references.unsplice(m, at)
    elif action == REGISTER:
        pages = min(1 + draw(m, references.MOST_BUFFER), m.p[k.P_WIDTH] - page)
        if m.tasks[slot, k.T_BUFFER] == 0 and held + pages <= m.p[k.P_MOST_REFS]:
            references.register(m, slot, page, pages)
    elif action == UNREGISTER:
        if m.tasks[slot, k.T_BUFFER] > 0:
            references.unregister(m, slot)
    else:
        other = m.live[draw(m, m.s[k.S_LIVE])]
        if other != slot and action == READ:
            references.read_remote(m, other, page)
        elif other != slot:
            references.write_remote(m, other, page)


@part
def _act(m: Machine) -> None:
    scenario = m.p[k.P_SCENARIO]
    if m.s[k.S_LIVE] == 0:
        root = processes.begin(m)
        m.s[k.S_PAGE] = 1
        if scenario == PINS:
            processes.second_thread(m, root)
        return
    root = m.live[0]
    if scenario == MAIL:
        _mail(m, root)
    elif scenario == SNAPSHOT:
        _snapshot(m, root)
    elif m.s[k.S_EVENTS] >= m.p[k.P_TARGET]:
        m.s[k.S_ENDING] = 1
    elif m.s[k.S_EVENTS] >= m.s[k.S_MARK_AT]:
        m.s[k.S_ROUND] += 1
        _checkpoint(m, 0, EVERYBODY)
    else:
        _mixed(m, root)


@loop
def advance(m: Machine) -> int:
    """Fill the block of rows; returns why it stopped (FULL, MARKED, FINISHED)."""
    m.s[k.S_ROWS] = 0
    while m.s[k.S_ROWS] + MOST_ROWS <= BLOCK:
        if m.s[k.S_WORK] != processes.NOTHING:
            processes.go_on(m)
        elif m.s[k.S_MARK] >= 0:
            return MARKED
        elif m.s[k.S_ENDING] == 0:
            _act(m)
        elif m.s[k.S_LIVE] == 0:
            return FINISHED
        else:
            last = m.live[m.s[k.S_LIVE] - 1]
            run_on(m, last)
            processes.leave(m, last)
    return FULL
