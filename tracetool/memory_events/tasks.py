"""Threads, processes and address spaces in the context loop: fork, exec, exit, and areas whose page tables move."""

from __future__ import annotations

from tracetool.memory_events import codes as c
from tracetool.memory_events import state as k
from tracetool.memory_events.codes import Op
from tracetool.memory_events.requests import moves_to
from tracetool.memory_events.rows import R_KIND, R_MM, R_OLD_TASK, R_OTHER, R_TASK, Rows
from tracetool.memory_events.state import Ints, Spaces, change, emit, space_of, span, span_to
from tracetool.probes import Kind
from tracetool_parsers.loops import part

CLONE_VM, CLONE_THREAD = 0x100, 0x10000


@part
def _fork_range_done(r: Rows, i: int, t: int, threads: Ints, out: Ints, count: Ints) -> None:
    """Fork holds the parent's mmap lock: the copy counts from its end, when early copies are already in place."""
    begin = threads[t, k.T_FORK_ROW]
    if begin < 0:
        return
    pages = span_to(r.args[begin, 0], r.args[begin, 1])
    if pages > 0:
        # Without an anon_vma there is nothing but page cache, which faults bring back: copy_page_range returns at once.
        flags = c.COPIED if r.args[begin, 3] != 0 else 0
        emit(out, count, i, Op.FORK_RANGE, threads[t, k.T_FORK_MM], r.args[begin, 0], pages, 0, flags, threads[t, k.T_FORK_SRC])
    threads[t, k.T_FORK_ROW] = -1


@part
def _fork_range(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints, tasks: Ints, count: Ints) -> None:
    _fork_range_done(r, i, t, threads, out, count)
    source = space_of(spaces, count, r.head[i, R_OTHER], False)
    pointer = r.head[i, R_MM]
    if pointer < 0:
        return
    if threads[t, k.T_FORK_POINTER] != pointer or spaces.dying[pointer] != 0:
        spaces.dying[pointer] = 1
        threads[t, k.T_FORK_POINTER] = pointer
        threads[t, k.T_FORK_MM] = space_of(spaces, count, pointer, False)
        threads[t, k.T_FORK_SRC] = source
        if source >= 0:
            spaces.area[threads[t, k.T_FORK_MM]] = spaces.area[source]
        emit(out, count, i, Op.FORK, threads[t, k.T_FORK_MM], 0, 0, 0, 0, source)
        if threads[t, k.T_MM] != source:
            threads[t, k.T_MM] = source
            change(tasks, threads, count, i, t, -1, c.HOW_MM)
    threads[t, k.T_FORK_ROW] = i


@part
def _new_task(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints, tasks: Ints, count: Ints) -> None:
    _fork_range_done(r, i, t, threads, out, count)
    child = r.head[i, R_TASK]
    _forget(threads, child)
    threads[child, k.T_SEEN] = 1
    if r.args[i, 1] & CLONE_VM:
        threads[child, k.T_MM] = threads[t, k.T_MM]
    else:
        threads[child, k.T_MM] = threads[t, k.T_FORK_MM]
        threads[t, k.T_FORK_POINTER] = -1
        threads[t, k.T_FORK_MM] = -1
    mm = threads[child, k.T_MM]
    if mm >= 0:
        spaces.ran[mm] = 1
    is_thread = r.args[i, 1] & CLONE_THREAD != 0
    threads[child, k.T_TGID] = threads[t, k.T_TGID] if is_thread else r.args[i, 0]
    change(tasks, threads, count, i, child, t, c.HOW_THREAD if is_thread else c.HOW_FORK)


@part
def _forget(threads: Ints, t: int) -> None:
    """A thread that starts, or is seen for the first time, is in the middle of nothing."""
    for column in range(threads.shape[1]):
        threads[t, column] = -1
    threads[t, k.T_SEEN] = 0


@part
def seen(t: int, tid: int, row: int, threads: Ints, tasks: Ints, count: Ints) -> None:
    """A thread that is older than the trace is met for the first time; for all that is known, it is its process's first."""
    _forget(threads, t)
    threads[t, k.T_SEEN] = 1
    threads[t, k.T_TGID] = tid
    change(tasks, threads, count, row, t, -1, c.HOW_BEFORE)


@part
def _there_before(r: Rows, i: int, threads: Ints, spaces: Spaces, out: Ints, tasks: Ints, count: Ints) -> None:
    """A thread that is older than the trace, as a snapshot lists it; where the snapshot is whole, so is what it says of its memory."""
    thread, mm = r.head[i, R_TASK], space_of(spaces, count, r.head[i, R_MM], False)
    _forget(threads, thread)
    threads[thread, k.T_SEEN] = 1
    threads[thread, k.T_TGID] = r.args[i, 1]
    threads[thread, k.T_MM] = mm
    change(tasks, threads, count, i, thread, -1, c.HOW_BEFORE)
    if mm >= 0:
        spaces.ran[mm] = 1
        if r.args[i, 2]:
            emit(out, count, i, Op.SNAPSHOT, mm, 0, 0, -1, c.WHOLE, 0)


@part
def _exec(r: Rows, i: int, threads: Ints, spaces: Spaces, tasks: Ints, count: Ints) -> None:
    """The process's only thread now is its leader; it runs on the address space that it filled with arguments before."""
    thread, old = r.head[i, R_TASK], r.head[i, R_OLD_TASK]
    threads[thread, k.T_MM] = threads[old, k.T_NEW_MM] if threads[old, k.T_NEW_MM] >= 0 else threads[thread, k.T_NEW_MM]
    threads[thread, k.T_NEW_MM] = -1
    if threads[thread, k.T_MM] >= 0:
        spaces.ran[threads[thread, k.T_MM]] = 1
    threads[thread, k.T_TGID] = r.args[i, 0]
    change(tasks, threads, count, i, thread, -1, c.HOW_EXEC)


@part
def about_tasks(r: Rows, i: int, t: int, threads: Ints, spaces: Spaces, out: Ints, tasks: Ints, count: Ints) -> bool:
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
        emit(out, count, i, Op.EXEC, threads[r.head[i, R_TASK], k.T_MM], 0, 0, 0, 0, 0)
    elif kind == Kind.RENAME:
        if threads[r.head[i, R_TASK], k.T_SEEN] == 0:
            seen(r.head[i, R_TASK], r.args[i, 0], i, threads, tasks, count)
        change(tasks, threads, count, i, r.head[i, R_TASK], -1, c.HOW_RENAME)
    elif kind == Kind.TASK_EXIT:
        change(tasks, threads, count, i, r.head[i, R_TASK], -1, c.HOW_EXIT)
        threads[r.head[i, R_TASK], k.T_MM] = -1
    elif kind == Kind.SNAPSHOT_TASK:
        _there_before(r, i, threads, spaces, out, tasks, count)
    elif kind == Kind.MM_EXIT:
        mm = space_of(spaces, count, r.head[i, R_MM], False)
        if mm >= 0:
            spaces.dying[r.head[i, R_MM]] = 1
        threads[t, k.T_DYING] = mm
        emit(out, count, i, Op.EXIT, mm, 0, 0, 0, 0, 0)
    elif kind == Kind.TABLE_MOVE:
        mm = space_of(spaces, count, r.head[i, R_MM], False)
        if mm != threads[t, k.T_MM]:
            threads[t, k.T_NEW_MM] = mm
        pages, call = span(r.args[i, 0], r.args[i, 2]), threads[t, k.T_CALL]
        if call >= 0 and r.head[call, R_KIND] == Kind.ENTER_MREMAP and threads[t, k.T_MAPPED] == 0:
            moves_to(r, i, call, mm, r.args[i, 1], out, count)
            threads[t, k.T_MAPPED] = 1
        if pages > 0 and span(r.args[i, 1], r.args[i, 2]) == pages:
            emit(out, count, i, Op.MREMAP, mm, r.args[i, 0] & ~4095, pages, 0, c.TABLES_MOVED, r.args[i, 1] & ~4095)
    else:
        return False
    return True
