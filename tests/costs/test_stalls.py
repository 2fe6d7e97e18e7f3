"""How long fork and COW faults hold threads up: sums and ranks that can be worked out by hand."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

import numpy as np
import polars as pl
import pytest

import tracetool
from conftest import fixture_path
from costs.recorded import trace_of
from engine.build import CLONE_THREAD, CLONE_VM, Machine, address
from tracetool import schema
from tracetool.costs import prices, stalls, timing
from tracetool.costs.timing import FaultTimes, Hardware

MS: Final = 1_000_000
TABLE: Final = prices.load(None)
HARDWARE: Final = Hardware("hardware", "the test says so", real=True)
UNKNOWN: Final = Hardware("unknown", "the test says so", real=False)
NONE_TIMED: Final = FaultTimes(pl.DataFrame(schema={"event": pl.Int64}), pl.DataFrame())


def lives(*rows: tuple[int, int, str, int, int | None], mm: int = 0) -> pl.DataFrame:
    """Processes: (tid, pid, how, from_ns, to_ns)."""
    columns: dict[str, Any] = {name: [] for name in schema.PROCESSES}
    for tid, pid, how, from_ns, to_ns in rows:
        values = {"tid": tid, "pid": pid, "comm": f"c{pid}", "mm": mm, "parent": 1, "how": how, "from_ns": from_ns, "to_ns": to_ns}
        for name, value in values.items():
            columns[name].append(value)
    return pl.DataFrame(columns, schema=schema.polars_schema(schema.PROCESSES))


def faults(*rows: tuple[int, int, float, bool]) -> pl.DataFrame:
    """Faults: (ts, tid, ns, measured)."""
    return pl.DataFrame(rows, schema={"ts": pl.Int64, "tid": pl.Int32, "ns": pl.Float64, "measured": pl.Boolean}, orient="row")


# --- windows --------------------------------------------------------------------------------------------------------------------------


def windows(table: pl.DataFrame, processes: pl.DataFrame, span: tuple[int, int]) -> list[dict[str, Any]]:
    return stalls.cow_windows(table, processes, span).to_dicts()


def test_faults_are_summed_in_windows_of_100_ms() -> None:
    """Two in the first window, one in the third, of a thread that lives through four."""
    table = faults((5, 7, 10.0, True), (100 * MS - 1, 7, 20.0, True), (250 * MS, 7, 5.0, True))
    (row,) = windows(table, lives((7, 7, "before-trace", 0, None)), (0, 399 * MS))
    assert (row["tid"], row["pid"], row["comm"], row["faults"], row["windows"], row["hit"]) == (7, 7, "c7", 3, 4, 2)
    assert (row["total_ns"], row["worst_ns"], row["worst_from_ns"], row["time"]) == (35, 30, 0, "measured")
    # In order: 0, 0, 5, 30; half of them are at most 0, 99 % at most 30.
    assert (row["median_ns"], row["p99_ns"]) == (0, 30)


def test_windows_begin_where_the_trace_does() -> None:
    table = faults((1_050 * MS, 7, 10.0, True), (1_149 * MS, 7, 20.0, True), (1_150 * MS, 7, 40.0, True))
    (row,) = windows(table, lives((7, 7, "before-trace", 0, None)), (1_050 * MS, 1_250 * MS - 1))
    assert (row["windows"], row["hit"], row["worst_ns"], row["worst_from_ns"]) == (2, 2, 40, 1_150 * MS)


@pytest.mark.parametrize(("total", "hit"), [(1, 1), (2, 1), (3, 2), (100, 1), (100, 100), (101, 60), (1_000, 11), (1_000, 10), (7, 4)])
def test_ranks_are_those_of_all_windows(total: int, hit: int) -> None:
    """Against the nearest rank of the whole list, windows without a fault counted as 0."""
    taken = [float(n) for n in range(1, hit + 1)]
    table = faults(*((n * 100 * MS, 7, ns, True) for n, ns in enumerate(np.random.default_rng(hit).permutation(taken))))
    (row,) = windows(table, lives((7, 7, "before-trace", 0, None)), (0, total * 100 * MS - 1))
    every = [0.0] * (total - hit) + taken
    rank = {share: every[max(-(-total * share // 100), 1) - 1] for share in (50, 99)}
    assert (row["windows"], row["median_ns"], row["p99_ns"], row["worst_ns"]) == (total, rank[50], rank[99], hit)


def test_a_thread_lives_through_the_windows_between_its_begin_and_end() -> None:
    processes = lives((7, 7, "before-trace", 0, None), (8, 8, "fork", 150 * MS, 340 * MS), (9, 7, "thread", 910 * MS, None))
    table = faults((160 * MS, 8, 1.0, True), (950 * MS, 9, 2.0, True), (10, 7, 3.0, True))
    rows = {row["tid"]: row for row in windows(table, processes, (0, 1_000 * MS - 1))}
    assert {tid: row["windows"] for tid, row in rows.items()} == {7: 10, 8: 3, 9: 1}
    assert (rows[9]["pid"], rows[9]["comm"]) == (7, "c7")


def test_a_number_that_comes_back_is_another_thread() -> None:
    processes = lives((8, 8, "fork", 0, 100 * MS), (8, 8, "fork", 500 * MS, None))
    rows = windows(faults((10, 8, 1.0, True), (600 * MS, 8, 2.0, True)), processes, (0, 700 * MS))
    assert [(row["total_ns"], row["windows"]) for row in rows] == [(2, 3), (1, 2)]


def test_a_rename_and_an_exec_begin_no_other_thread() -> None:
    processes = lives((8, 8, "fork", 0, 100 * MS), (8, 8, "rename", 100 * MS, 300 * MS), (8, 8, "exec", 300 * MS, None))
    rows = windows(faults((10, 8, 1.0, True), (350 * MS, 8, 2.0, True)), processes, (0, 400 * MS - 1))
    assert [(row["total_ns"], row["windows"]) for row in rows] == [(3, 4)]


def test_a_thread_that_no_process_tells_of_counts_all_the_same() -> None:
    (row,) = windows(faults((10, 8, 1.0, True)), lives((7, 7, "before-trace", 0, None)), (0, 400 * MS - 1))
    assert (row["tid"], row["total_ns"], row["windows"]) == (8, 1, 4)


def test_a_window_with_a_fault_was_lived_in() -> None:
    """A thread frees its memory after it is said to have ended."""
    (row,) = windows(faults((10, 8, 1.0, True), (350 * MS, 8, 2.0, True)), lives((8, 8, "fork", 0, 50 * MS)), (0, 400 * MS - 1))
    assert (row["windows"], row["hit"], row["median_ns"], row["worst_ns"]) == (2, 2, 1, 2)


def test_what_is_partly_assumed_is_assumed() -> None:
    processes = lives((7, 7, "before-trace", 0, None), (8, 8, "before-trace", 0, None))
    rows = windows(faults((10, 7, 1.0, True), (20, 7, 1.0, False), (30, 8, 9.0, True)), processes, (0, MS))
    assert [(row["tid"], row["time"]) for row in rows] == [(8, "measured"), (7, "assumed")]


def test_no_faults_no_rows() -> None:
    assert windows(faults(), lives((7, 7, "before-trace", 0, None)), (0, MS)) == []


# --- COW faults of a trace ------------------------------------------------------------------------------------------------------------


def forked() -> tuple[Machine, Any, Any]:
    """A process with two pages forks; events are 1000 ns apart."""
    m = Machine()
    parent = m.spawn(10)
    m.touch(parent, address(0), 0x2000)
    m.touch(parent, address(1), 0x2001)
    return m, parent, m.fork(parent, 11, [(address(0), 2)])


def test_on_hardware_the_faults_own_times_are_summed() -> None:
    """Two copies of 4000 ns (three events in each), then a reuse of 1000 ns by the child."""
    m, parent, child = forked()
    m.cow(parent, address(0), 0x2000, 0x2100)
    m.cow(parent, address(1), 0x2001, 0x2101)
    m.cow(child, address(0), 0x2000)
    trace = trace_of(m)
    rows = stalls.cow_stalls(trace, trace.replay(), timing.fault_times(trace), TABLE, HARDWARE).to_dicts()
    assert [(row["tid"], row["faults"], row["worst_ns"], row["time"]) for row in rows] == [
        (10, 2, 8_000, "measured"),
        (11, 1, 1_000, "measured"),
    ]


def test_elsewhere_the_cost_table_counts() -> None:
    """2.9 us for a copy and 0.9 us for a reuse, whatever the trace's clock says."""
    m, parent, child = forked()
    m.cow(parent, address(0), 0x2000, 0x2100)
    m.cow(child, address(0), 0x2000)
    trace = trace_of(m)
    rows = stalls.cow_stalls(trace, trace.replay(), timing.fault_times(trace), TABLE, UNKNOWN).to_dicts()
    assert [(row["tid"], row["worst_ns"], row["time"]) for row in rows] == [(10, 2_900, "assumed"), (11, 900, "assumed")]


def test_copies_by_the_table_tell_the_cpus_of_other_threads() -> None:
    """A process of two threads on two CPUs: 1.5 us and 0.2 us more for its copy; its reuse and its child's copy tell nobody."""
    m, parent, child = forked()
    m.new_task(parent, 12, CLONE_VM | CLONE_THREAD)
    m.cow(parent, address(0), 0x2000, 0x2100)
    m.cow(child, address(1), 0x2001, 0x2101)
    m.cow(parent, address(1), 0x2001)
    trace = trace_of(m)
    rows = stalls.cow_stalls(trace, trace.replay(), timing.fault_times(trace), TABLE, UNKNOWN).to_dicts()
    assert [(row["tid"], row["worst_ns"]) for row in rows] == [(10, 2_900 + 1_700 + 900), (11, 2_900)]


def test_copies_whose_time_is_measured_hold_that_already() -> None:
    """20 copies of 4000 ns in a process of two threads, under a policy that copies, too."""
    m = Machine()
    parent = m.spawn(10)
    for number in range(20):
        m.touch(parent, address(number), 0x2000 + number)
    m.new_task(parent, 12, CLONE_VM | CLONE_THREAD)
    m.fork(parent, 11, [(address(0), 20)])
    for number in range(20):
        m.cow(parent, address(number), 0x2000 + number, 0x3000 + number)
    trace = trace_of(m)
    (row,) = stalls.cow_stalls(trace, trace.replay("mapcount"), timing.fault_times(trace), TABLE, HARDWARE).to_dicts()
    assert (row["worst_ns"], row["time"]) == (20 * 4_000, "measured")


def test_a_policys_decisions_are_priced_as_it_decides() -> None:
    """A page that a reference holds, written by its only owner: page-count copies where 6.1 wrote in place."""
    m, parent, child = forked()
    m.exit(child, [0x2000, 0x2001])
    m.vmsplice(parent, address(0), 0x2000)
    m.cow(parent, address(0), 0x2000)
    trace = trace_of(m)
    found = timing.fault_times(trace)
    worst = {
        policy: stalls.cow_stalls(trace, trace.replay(policy), found, TABLE, HARDWARE)["worst_ns"].to_list()
        for policy in ("page-count", "mapcount")
    }
    assert worst == {"page-count": [2_900], "mapcount": [900]}


def test_what_early_copies_take_is_part_of_fork() -> None:
    m = Machine()
    parent = m.spawn(10)
    m.touch(parent, address(0), 0x2000)
    m.pin(parent, address(0), 0x2000)
    m.fork(parent, 11, [(address(0), 1)], early={address(0): 0x2100})
    trace = trace_of(m)
    assert trace.replay().fault_rows["decision"].to_list() == ["early-copy"]
    assert stalls.cow_stalls(trace, trace.replay(), NONE_TIMED, TABLE, UNKNOWN)["total_ns"].to_list() == [0]


def test_medians_price_what_was_decided_often_enough() -> None:
    """20 copies of 4000 ns (made of events of 1000 ns) on hardware are the price of a copy; reuses stay the table's."""
    m = Machine()
    parent = m.spawn(10)
    for number in range(20):
        m.touch(parent, address(number), 0x2000 + number)
    m.fork(parent, 11, [(address(0), 20)])
    for number in range(20):
        m.cow(parent, address(number), 0x2000 + number, 0x3000 + number)
    found = timing.fault_times(trace_of(m))
    costs, measured = stalls.decision_costs(found, TABLE, HARDWARE)
    assert (costs["copy"], costs["reuse"], measured) == (4_000, 900, {"copy"})
    costs, measured = stalls.decision_costs(found, TABLE, UNKNOWN)
    assert (costs["copy"], costs["reuse"], measured) == (2_900, 900, set())


# --- threads of an address space ------------------------------------------------------------------------------------------------------


def test_threads_come_and_go() -> None:
    processes = pl.concat(
        [
            lives((7, 7, "before-trace", 100, None), (8, 7, "thread", 200, 500), (9, 7, "thread", 300, 400)),
            # Another address space, and a thread that is renamed in it.
            lives((20, 20, "fork", 150, 250), (20, 20, "rename", 250, None), mm=1),
            # The number of a thread that is older than the trace comes back.
            lives((30, 30, "before-trace", 100, 200), mm=2),
            lives((30, 30, "fork", 500, None), mm=3),
        ]
    )
    asked = [
        (0, 50, 1),
        (0, 199, 1),
        (0, 200, 2),
        (0, 350, 3),
        (0, 450, 2),
        (0, 600, 1),
        (1, 100, 0),
        (1, 250, 1),
        (1, 900, 1),
        (5, 900, 0),
        (2, 50, 1),
        (2, 300, 0),
        (3, 300, 0),
        (3, 600, 1),
    ]
    frame = pl.DataFrame(asked, schema={"mm": pl.Int32, "ts": pl.Int64, "threads": pl.Int64}, orient="row")
    for order in (frame, frame.reverse()):
        assert stalls.threads_at(order, processes).to_list() == order["threads"].to_list()


# --- fork -----------------------------------------------------------------------------------------------------------------------------


def test_the_areas_of_a_fork_are_summed() -> None:
    """Areas of 1000 and 31000 ns, 2000 ns apart: busy for 32000 ns, held up for 34000 ns."""
    m = Machine()
    parent = m.spawn(10)
    m.touch(parent, address(0), 0x2000)
    child = m.older(11)
    m.fork_range(parent, child, address(0), 1)
    fields: dict[str, int] = {"mm": child.mm, "src_mm": parent.mm, "start": address(9), "end": address(10), "vm_flags": 0, "anon_vma": 1}
    begin = m.event("fork_range", 10, later_ns=2_000, vmemmap=0, **fields)
    m.event("fork_range_done", 10, later_ns=31_000, ret=0)
    m.new_task(parent, 11)
    (row,) = stalls.fork_stalls(trace_of(m)).to_dicts()
    assert (row["tid"], row["pid"], row["child_pid"], row["areas"]) == (10, 10, 11, 2)
    assert (row["busy_ns"], row["span_ns"], row["from_ns"]) == (32_000, 34_000, begin - 3_000)


def test_forks_of_one_thread_are_told_apart() -> None:
    """By the child's memory, and, where that is at the same place again, by an area that does not lie behind the last."""
    m = Machine()
    parent = m.spawn(10)
    other = m.spawn(20)
    m.touch(parent, address(0), 0x2000)
    areas = [(address(0), 1), (address(8), 1)]
    first = m.fork(parent, 11, areas)
    m.fork(parent, 12, areas)
    m.fork(other, 21, areas)
    m.fork(parent, 13, areas, mm=first.mm)
    m.fork(parent, 14, areas, mm=first.mm)
    rows = stalls.fork_stalls(trace_of(m)).select("tid", "child_pid", "areas", "busy_ns", "span_ns").rows()
    assert rows == [(tid, child, 2, 2_000, 3_000) for tid, child in ((10, 11), (10, 12), (20, 21), (10, 13), (10, 14))]


def test_a_fork_is_told_by_its_childs_memory_alone() -> None:
    """One fails after its first area; of the next the first area lies behind that."""
    m = Machine()
    parent = m.spawn(10)
    m.touch(parent, address(0), 0x2000)
    m.fork_range(parent, m.older(11), address(0), 1)
    m.fork(parent, 12, [(address(5), 1)])
    assert stalls.fork_stalls(trace_of(m)).select("areas", "child_pid").rows() == [(1, None), (1, 12)]


def test_a_fork_that_failed_takes_no_other_forks_child() -> None:
    m = Machine()
    parent = m.spawn(10)
    m.touch(parent, address(0), 0x2000)
    m.fork_range(parent, m.older(11), address(0), 1)
    m.fork(parent, 12, [(address(0), 1)])
    assert stalls.fork_stalls(trace_of(m))["child_pid"].to_list() == [None, 12]


def test_an_area_whose_end_is_missing_counts_in_neither() -> None:
    m = Machine()
    parent = m.spawn(10)
    m.touch(parent, address(0), 0x2000)
    child = m.older(11)
    m.fork_range(parent, child, address(0), 1)
    m.event("fork_range", 10, mm=child.mm, src_mm=parent.mm, start=address(5), end=address(6), vm_flags=0, anon_vma=1, vmemmap=0)
    m.new_task(parent, 11)
    (row,) = stalls.fork_stalls(trace_of(m)).to_dicts()
    assert (row["areas"], row["busy_ns"], row["span_ns"], row["child_pid"]) == (2, 1_000, 1_000, 11)


def test_a_trace_without_forks() -> None:
    m = Machine()
    m.spawn(10)
    assert stalls.fork_stalls(trace_of(m)).height == 0
    assert stalls.fork_summary(stalls.fork_stalls(trace_of(m))).height == 0


def test_forks_are_ranked_by_process() -> None:
    spans = [(1, n) for n in range(1, 101)] + [(2, 500), (2, 7)]
    frame = pl.DataFrame({"pid": [pid for pid, _ in spans], "comm": ["a"] * 102, "span_ns": [ns for _, ns in spans]})
    rows = stalls.fork_summary(frame).select("pid", "forks", "median_ns", "p99_ns", "worst_ns").rows()
    assert rows == [(2, 2, 7, 500, 500), (1, 100, 50, 99, 100)]


@pytest.mark.parametrize("name", ["snapshot-6.1", "random1-6.1", "mail-7.2"])
def test_recorded_forks_are_summed_as_by_hand(name: str) -> None:
    """Area by area, in the order of the trace: a task_newtask of the thread ends its fork."""
    trace = tracetool.open(fixture_path(f"{name}.dat"))
    events = trace.raw.timeline()
    begun: dict[int, int] = {}
    areas: dict[int, list[tuple[int, int]]] = defaultdict(list)
    expected = []
    for ts, tid, event in zip(*(events.column(column).to_pylist() for column in ("ts", "tid", "event")), strict=True):
        if event == "fork_range":
            begun[tid] = ts
        elif event == "fork_range_done" and tid in begun:
            areas[tid].append((begun.pop(tid), ts))
        elif event == "task_newtask" and areas[tid]:
            done = areas.pop(tid)
            expected.append((done[0][0], tid, len(done), sum(end - begin for begin, end in done), done[-1][1] - done[0][0]))
    found = stalls.fork_stalls(trace).select("from_ns", "tid", "areas", "busy_ns", "span_ns").rows()
    assert found == sorted(expected)
    assert expected
    assert stalls.fork_stalls(trace)["child_pid"].null_count() == 0
