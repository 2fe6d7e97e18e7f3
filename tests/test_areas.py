"""Kinds of memory and the files behind them, on made-up histories: calls, faults, perf's records, trace-cmd's lists, and all together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from engine.build import BASE, PAGE, WRITE_FAULT, Machine, Process, address
from handmade import HandMade
from tracetool.schema import AREAS
from tracetool.trace import Trace
from tracetool.where.areas import areas
from tracetool.where.covering import last_over
from tracetool.where.maps import GENERATIONS, ancestors
from tracetool_parsers import RawTrace
from tracetool_parsers.metadata import ProcessMaps

A, B = 100, 107
PRIVATE, ANONYMOUS, STACK_LIKE = 0x2, 0x22, 0x20022


def trace_of(machine: Machine, maps: Iterable[ProcessMaps] = ()) -> Trace:
    raw = HandMade(machine, {}, [], [])
    raw.metadata = replace(raw.metadata, maps=tuple(maps))
    return Trace(cast(RawTrace, raw))


def call(m: Machine, p: Process, name: str, result: int, **arguments: int) -> None:
    m.event(f"sys_enter_{name}", p.tid, **arguments)
    m.event(f"sys_exit_{name}", p.tid, ret=result)


def mmap(m: Machine, p: Process, number: int, pages: int, flags: int = ANONYMOUS) -> None:
    call(m, p, "mmap", address(number), addr=0, len=pages * PAGE, prot=3, flags=flags)


def munmap(m: Machine, p: Process, number: int, pages: int) -> None:
    call(m, p, "munmap", 0, addr=address(number), len=pages * PAGE)


def mremap(m: Machine, p: Process, old: int, pages: int, new: int, new_pages: int) -> None:
    call(m, p, "mremap", address(new), addr=address(old), old_len=pages * PAGE, new_len=new_pages * PAGE, flags=1, new_addr=0)


def record(m: Machine, p: Process | int, number: int, pages: int, name: str, pgoff: int = 0, **more: int) -> None:
    tid = p if isinstance(p, int) else p.tid
    m.event("mmap2", tid, pid=tid, addr=address(number), len=pages * PAGE, pgoff=pgoff, filename=name, **more)


def told(trace: Trace, *points: tuple[int, int]) -> list[tuple[str, str | None]]:
    """Kind and file of pages (address space of a thread, number of a page) at the end of the trace."""
    spaces = {row["pid"]: row["mm"] for row in trace.processes.filter(pl.col("mm") >= 0).to_dicts()}
    rows = {"mm": [spaces[tid] for tid, _ in points], "address": [address(number) for _, number in points], "event": [None] * len(points)}
    found = areas(pl.DataFrame(rows, schema={"mm": pl.Int32, "address": pl.UInt64, "event": pl.Int64}), trace)
    assert set(found["area"]) <= set(AREAS)
    return found.rows()


@dataclass(frozen=True)
class History:
    """What happens to process A, and what page 0 then is, or the pages that are named."""

    what: str
    acts: Callable[[Machine, Process], Any]
    page: Mapping[int, tuple[str, str | None]]
    told_by_faults: bool = False


def file(path: str | None = None) -> tuple[str, str | None]:
    return "file", path


ANON, UNKNOWN = ("anonymous", None), ("unknown", None)


def several(*acts: Callable[[Machine, Process], Any]) -> Callable[[Machine, Process], None]:
    def all_of(m: Machine, p: Process) -> None:
        for act in acts:
            act(m, p)

    return all_of


HISTORIES = (
    History("nothing says", lambda m, p: None, {0: UNKNOWN}),
    History("MAP_ANONYMOUS", lambda m, p: mmap(m, p, 0, 4), {0: ANON, 3: ANON, 4: UNKNOWN}),
    History("a file", lambda m, p: mmap(m, p, 0, 4, PRIVATE), {0: file(), 3: file(), 4: UNKNOWN}),
    History("MAP_STACK", lambda m, p: mmap(m, p, 0, 4, STACK_LIKE), {2: ("stack", None)}),
    History(
        "the latest of two over each other",
        several(lambda m, p: mmap(m, p, 0, 8, PRIVATE), lambda m, p: mmap(m, p, 2, 2)),
        {1: file(), 2: ANON, 3: ANON, 4: file()},
    ),
    History(
        "unmapped, and mapped again in part",
        several(lambda m, p: mmap(m, p, 0, 8), lambda m, p: munmap(m, p, 0, 8), lambda m, p: mmap(m, p, 4, 1, PRIVATE)),
        {0: UNKNOWN, 4: file(), 5: UNKNOWN},
    ),
    History(
        "moved, twice, and shrunk on the way",
        several(lambda m, p: mmap(m, p, 0, 4, PRIVATE), lambda m, p: mremap(m, p, 0, 4, 100, 8), lambda m, p: mremap(m, p, 100, 8, 200, 2)),
        {0: UNKNOWN, 100: UNKNOWN, 200: file(), 201: file(), 202: UNKNOWN},
    ),
    History(
        "grown in its place",
        several(lambda m, p: mmap(m, p, 0, 2), lambda m, p: mremap(m, p, 0, 2, 0, 6)),
        {1: ANON, 5: ANON, 6: UNKNOWN},
    ),
    History("perf's record", lambda m, p: record(m, p, 0, 4, "/lib/x.so"), {0: file("/lib/x.so"), 4: UNKNOWN}),
    History("perf's record of anonymous memory", lambda m, p: record(m, p, 0, 4, "//anon"), {0: ANON}),
    History("perf's record of the heap", lambda m, p: record(m, p, 0, 4, "[heap]"), {0: ("heap", None)}),
    History("perf's record of a stack", lambda m, p: record(m, p, 0, 4, "[stack]"), {0: ("stack", None)}),
    History("perf's record of the kernel's own", lambda m, p: record(m, p, 0, 4, "[vvar]"), {0: UNKNOWN}),
    History(
        "a call after a record",
        several(lambda m, p: record(m, p, 0, 4, "/lib/x.so"), lambda m, p: mmap(m, p, 1, 1)),
        {0: file("/lib/x.so"), 1: ANON, 2: file("/lib/x.so")},
    ),
    History(
        "a record after a call",
        several(lambda m, p: mmap(m, p, 0, 4), lambda m, p: record(m, p, 1, 1, "/lib/x.so")),
        {0: ANON, 1: file("/lib/x.so")},
    ),
    History(
        "a file's call has the name of the record that came with it",
        several(
            lambda m, p: m.event("sys_enter_mmap", p.tid, addr=0, len=4 * PAGE, prot=5, flags=PRIVATE),
            lambda m, p: record(m, p, 0, 4, "/lib/x.so"),
            lambda m, p: m.event("sys_exit_mmap", p.tid, ret=address(0)),
        ),
        {0: file("/lib/x.so")},
    ),
    History(
        "but not that of an older one",
        several(
            lambda m, p: record(m, p, 0, 4, "/lib/x.so"), lambda m, p: mmap(m, p, 0, 4, PRIVATE), lambda m, p: mmap(m, p, 0, 4, PRIVATE)
        ),
        {0: file()},
    ),
    History(
        "what a record named is unmapped",
        several(lambda m, p: record(m, p, 0, 4, "/lib/x.so"), lambda m, p: munmap(m, p, 0, 1)),
        {0: UNKNOWN, 1: file("/lib/x.so")},
    ),
    History("records of a process that is not there", lambda m, p: record(m, 999, 0, 4, "/lib/x.so"), {0: UNKNOWN}),
    History(
        "an anonymous fault",
        lambda m, p: m.fault(p, address(0), WRITE_FAULT),
        {0: ANON, 1: UNKNOWN},
        told_by_faults=True,
    ),
    History("a fault of a file", lambda m, p: m.fault(p, address(0), WRITE_FAULT, anonymous=False), {0: file()}, told_by_faults=True),
    History(
        "the name of a file that the fault says there is",
        several(lambda m, p: record(m, p, 0, 2, "/bin/x"), lambda m, p: m.fault(p, address(0), WRITE_FAULT, anonymous=False)),
        {0: file("/bin/x")},
        told_by_faults=True,
    ),
    History(
        "a fault that says otherwise than a record",
        several(lambda m, p: record(m, p, 0, 2, "/bin/x"), lambda m, p: m.fault(p, address(0), WRITE_FAULT)),
        {0: ANON, 1: file("/bin/x")},
        told_by_faults=True,
    ),
    History(
        "a fault before the memory was unmapped",
        several(lambda m, p: m.fault(p, address(0), WRITE_FAULT), lambda m, p: munmap(m, p, 0, 2)),
        {0: UNKNOWN},
        told_by_faults=True,
    ),
)


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.what)
def test_what_is_told(history: History) -> None:
    m = Machine(without=() if history.told_by_faults else ["mm_fault.vm_ops"])
    a = m.spawn(A)
    history.acts(m, a)
    m.touch(a, BASE + (1 << 30), 0x2000)
    assert dict(zip(history.page, told(trace_of(m), *((A, page) for page in history.page)), strict=True)) == history.page


def test_a_child_has_what_its_parent_had_when_it_forked() -> None:
    m = Machine(without=["mm_fault.vm_ops"])
    a = m.spawn(A)
    mmap(m, a, 0, 4, PRIVATE)
    record(m, a, 50, 1, "/lib/x.so")
    b = m.fork(a, B, [(address(0), 4)])
    munmap(m, a, 0, 2)
    mmap(m, a, 10, 1)
    mmap(m, b, 3, 1)
    m.touch(b, address(3), 0x2000)
    trace = trace_of(m)
    assert told(trace, (A, 0), (A, 3), (A, 10)) == [UNKNOWN, file(), ANON]
    assert told(trace, (B, 0), (B, 3), (B, 10), (B, 50)) == [file(), ANON, UNKNOWN, file("/lib/x.so")]


def test_what_lies_where_stacks_are_is_what_a_call_says() -> None:
    """Without randomised addresses mappings begin 128 MiB below the end of user memory."""
    m = Machine()
    a = m.spawn(A)
    high = (0x7FFF_F7D0_0000 - BASE) // PAGE
    mmap(m, a, high, 4, PRIVATE)
    m.touch(a, address(high + 10), 0x51)
    trace = trace_of(m)
    assert told(trace, (A, high), (A, high + 10)) == [file(), ("stack", None)]


def test_a_chain_of_forks_takes_what_its_length_takes() -> None:
    """Each child forks the next one: pairs of all of them would be the square of that."""
    m = Machine()
    p = m.spawn(A)
    m.touch(p, address(0), 0x50)
    for number in range(3 * GENERATIONS):
        child = m.fork(p, 1000 + number, [(address(0), 1)])
        m.exit(p, [])
        p = child
    trace = trace_of(m)
    spaces = trace.replay().ownership.collect()["mm"].unique()
    line = ancestors(spaces, trace)
    assert line.height <= len(spaces) * (GENERATIONS + 1)
    farthest = line.group_by("mm").len()["len"].max()
    assert farthest == GENERATIONS + 1


def test_an_address_is_what_it_was_at_the_moment() -> None:
    """A store to a file's page; then anonymous memory lies there."""
    m = Machine(without=["mm_fault.vm_ops"])
    a = m.spawn(A)
    for flags, pfn in ((PRIVATE, 0x50), (ANONYMOUS, 0x51)):
        mmap(m, a, 0, 1, flags)
        m.touch(a, address(0), pfn)
        m.fork(a, A + pfn, [(address(0), 1)])
        m.cow(a, address(0), pfn, pfn + 0x100)
    trace = trace_of(m)
    rows = trace.replay().fault_rows.filter(pl.col("address") == address(0)).select("mm", "address", "event")
    assert areas(rows, trace)["area"].to_list() == ["file", "anonymous"]


def test_records_of_a_new_program_are_those_of_its_new_memory() -> None:
    """perf tells of the maps of a program before the first event in its new address space; the old one had others."""
    m = Machine(without=["mm_fault.vm_ops"])
    old = m.older(A)
    record(m, old, 0, 1, "/bin/sh")
    m.touch(old, address(5), 0x50)
    m.event("comm", A, pid=A, exec=1)
    record(m, old, 0, 1, "/bin/program")
    m.touch(m.spawn(A), address(6), 0x51)
    trace = trace_of(m)
    spaces = trace.processes.filter(pl.col("mm") >= 0)["mm"].unique(maintain_order=True).to_list()
    assert len(spaces) == 2
    rows = pl.DataFrame({"mm": spaces, "address": [address(0)] * 2, "event": [None] * 2}, schema_overrides={"event": pl.Int64})
    assert areas(rows, trace)["file"].to_list() == ["/bin/sh", "/bin/program"]


def test_maps_of_before_the_recording_have_the_time_0() -> None:
    m = Machine(without=["mm_fault.vm_ops"])
    m.now = -1_000
    record(m, A, 0, 1, "/bin/old")
    m.now = 1_000_000
    m.touch(m.older(A), address(5), 0x50)
    assert told(trace_of(m), (A, 0)) == [file("/bin/old")]


def test_lists_of_maps_tell_what_nothing_else_does() -> None:
    m = Machine(without=["mm_fault.vm_ops"])
    a = m.spawn(A)
    mmap(m, a, 1, 1)
    m.touch(a, address(5), 0x50)
    m.touch(m.fork(a, B, [(address(0), 4)]), address(6), 0x51)
    listed = (
        (address(0), address(3), "/bin/program"),
        (address(10), address(11), "[heap]"),
        (address(20), address(21), "[anon:arena]"),
        (address(30), address(29), "/backwards"),
    )
    trace = trace_of(m, [ProcessMaps(A, "/bin/program", listed), ProcessMaps(4242, "/bin/other", ((address(40), address(41), "/x"),))])
    expected = [file("/bin/program"), ANON, file("/bin/program"), UNKNOWN, ("heap", None), ANON, UNKNOWN]
    assert told(trace, *((A, page) for page in (0, 1, 2, 3, 10, 20, 40))) == expected
    assert told(trace, (B, 0), (B, 10)) == [file("/bin/program"), ("heap", None)]


def test_the_last_range_over_a_point_is_that_of_a_search_through_all() -> None:
    """Against the definition, on random ranges."""
    random = np.random.default_rng(7)
    for _ in range(100):
        ranges, points = (int(random.integers(0, 40)) for _ in range(2))
        mm, first = random.integers(0, 3, ranges), random.integers(0, 70, ranges)
        end = first + random.integers(0, 30, ranges)
        of, page, until = random.integers(0, 3, points), random.integers(0, 100, points), random.integers(-1, ranges + 1, points)
        found = last_over(
            pl.DataFrame({"mm": of, "page": page, "until": until}), pl.DataFrame({"mm": mm, "first": first, "end": end})
        ).to_list()
        for number in range(points):
            over = (np.arange(ranges) <= until[number]) & (mm == of[number]) & (first <= page[number]) & (page[number] < end)
            assert found[number] == (int(np.flatnonzero(over)[-1]) if over.any() else None)
