"""Times of faults: what is in one and is no part of it comes off, and nothing else."""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import Any, Final

import numpy as np
import polars as pl
import pytest

import tracetool
from conftest import fixture_path
from costs.recorded import COPY, REUSE, Event, kprobes, line_of, probing, run, times, trace_of
from engine.build import REUSED, Huge, Machine, address
from tracetool.costs import timing
from tracetool.costs.timing import FaultTimes, Timeline

RECORDINGS: Final = ["snapshot-6.1", "mail-5.10", "mail-6.12", "mail-7.2", "random1-6.1", "zap-6.1"]


# --- timelines by hand ----------------------------------------------------------------------------------------------------------------


def only(found: FaultTimes) -> dict[str, Any]:
    assert found.frame.height == 1
    row: dict[str, Any] = found.frame.to_dicts()[0]
    return row


def test_a_copy_with_four_events_in_it() -> None:
    """2500 ns from begin to end; three kprobes of 200 ns and a tracepoint of 100 ns come off."""
    found = times([*run(1_000_000, 7, *COPY), *probing(2_000_000, 200, 100)], [("cow_fault", 0, "copy")])
    row = only(found)
    assert (row["event"], row["tid"], row["decision"], row["huge"]) == (100, 7, "copy", False)
    assert (row["raw_ns"], row["kprobes"], row["tracepoints"], row["nested"]) == (2_500, 3, 1, 4)
    assert (row["within_ns"], row["preempted_ns"], row["probe_ns"], row["net_ns"]) == (0, 0, 3 * 200 + 100, 1_800)
    assert row["left_out"] is None
    assert found.corrected


def test_a_reuse_holds_nothing() -> None:
    row = only(times([*run(1_000_000, 7, *REUSE), *probing(2_000_000, 200, 100)], [("cow_fault", 0, "reuse")]))
    assert (row["raw_ns"], row["nested"], row["probe_ns"], row["net_ns"]) == (900, 0, 0, 900)


def test_events_within_faults_are_counted_by_kind() -> None:
    faults = [*run(1_000_000, 7, *COPY), *run(2_000_000, 7, *COPY[:4], (10, "mm_page_alloc"), *COPY[4:]), *run(3_000_000, 7, *REUSE)]
    found = times(faults, [("cow_fault", 0, "copy"), ("cow_fault", 1, "copy"), ("cow_fault", 2, "reuse")])
    assert sorted(found.nested.rows()) == [
        ("copy", "anon_new", 1.0),
        ("copy", "cow_copy", 1.0),
        ("copy", "mm_page_alloc", 1.5),
        ("copy", "rmap_remove", 1.0),
    ]


def test_the_cost_of_a_probe_is_the_shortest_median_between_two_of_its_kind() -> None:
    """Not the mean, which one interrupt spoils, and not that between events which the kernel works between."""
    events = [
        *probing(0, 200, 100, times=40),
        *run(1_000_000, 77, (0, "rmap_remove"), (900_000, "rmap_remove")),
        *run(3_000_000, 78, *[(3_000, "anon_new")] * 50),
    ]
    line = line_of(events)
    costs = timing.probe_costs(line, kprobes(line))
    assert {kind: cost.ns for kind, cost in costs.items()} == {"kprobe": 200, "tracepoint": 100}
    assert costs["kprobe"].between == "rmap_remove and rmap_remove"


@pytest.mark.parametrize("spans", [29, 30])
def test_too_few_spans_calibrate_nothing(spans: int) -> None:
    line = line_of(probing(0, 200, 100, times=spans + 1)[: spans + 1])
    assert ("kprobe" in timing.probe_costs(line, kprobes(line))) == (spans >= 30)


def test_spans_between_threads_and_cpus_calibrate_nothing() -> None:
    threads = [(100 * n, 0, n % 2, "rmap_remove") for n in range(100)]
    cpus = [(10_000_000 + 100 * n, n % 2, 5, "rmap_remove") for n in range(100)]
    line = line_of(cpus)
    # On its own CPU each of them is 200 ns after the last.
    assert timing.probe_costs(line, kprobes(line))["kprobe"].ns == 200
    line = line_of(threads)
    assert timing.probe_costs(line, kprobes(line)) == {}


def test_a_fault_within_a_fault_comes_off_with_its_events() -> None:
    """A huge page's fault holds a COW fault of 2500 ns with four events; its own are the two ends of that and one more."""
    events = run(0, 7, (0, "huge_cow_fault"), (1_000, "mm_page_alloc"), (50, "cow_fault"), *COPY[1:], (250, "huge_cow_fault_done"))
    found = times([*events, *probing(9_000_000, 200, 100)], [("huge_cow_fault", 0, "split"), ("cow_fault", 0, "copy")])
    outer, inner = found.frame.sort("event").to_dicts()
    assert (outer["raw_ns"], outer["within_ns"], outer["kprobes"], outer["tracepoints"]) == (3_800, 2_500, 2, 1)
    assert outer["net_ns"] == 3_800 - 2_500 - 2 * 200 - 100
    assert (outer["huge"], inner["huge"]) == (True, False)
    assert (inner["raw_ns"], inner["within_ns"], inner["nested"]) == (2_500, 0, 4)


def test_three_levels_come_off_once() -> None:
    events = run(
        0, 7,
        (0, "huge_cow_fault"), (100, "swap_fault"), (100, "cow_fault"), (1_000, "cow_fault_done"), (100, "swap_fault_done"),
        (100, "huge_cow_fault_done"),
    )  # fmt: skip
    outer = times(events, [("huge_cow_fault", 0, "split")]).frame.row(0, named=True)
    assert (outer["raw_ns"], outer["within_ns"], outer["nested"]) == (1_400, 1_200, 2)


def test_a_cow_fault_within_a_swap_fault_is_timed() -> None:
    events = run(0, 7, (0, "swap_fault"), (300, "cow_fault"), (700, "cow_fault_done"), (100, "swap_fault_done"))
    assert only(times(events, [("cow_fault", 0, "copy")]))["raw_ns"] == 700


def test_a_swap_fault_is_none_of_those_timed() -> None:
    """What the replay says of the fault that reads a page back is not about a COW fault."""
    events = run(0, 7, (0, "swap_fault"), (300, "cow_fault"), (700, "cow_fault_done"), (100, "swap_fault_done"))
    assert times(events, [("swap_fault", 0, "reuse")]).frame.height == 0


def test_an_end_of_the_next_thread_ends_no_fault() -> None:
    events = [*run(0, 7, (0, "cow_fault")), *run(500, 8, (0, "cow_fault_done")), *run(9_000, 8, *REUSE)]
    assert only(times(events, [("cow_fault", 0, "copy"), ("cow_fault", 1, "reuse")]))["event"] == 101


def test_ends_that_are_missing_spoil_no_other_fault() -> None:
    """The first end has no begin, the second begin no end; the third fault is whole, and is that of row 1."""
    events = [*run(0, 7, (0, "cow_fault_done")), *run(10_000, 7, (0, "cow_fault")), *run(20_000, 7, *REUSE)]
    row = only(times(events, [("cow_fault", 0, "copy"), ("cow_fault", 1, "reuse")]))
    assert (row["event"], row["decision"], row["raw_ns"]) == (101, "reuse", 900)


def test_threads_interleave_on_their_cpus() -> None:
    """An end of one thread does not end the fault of another."""
    events = [*run(0, 7, *COPY), *run(150, 8, *COPY, cpu=1), *run(225, 9, *REUSE, cpu=2)]
    found = times(events, [("cow_fault", 0, "copy"), ("cow_fault", 1, "copy"), ("cow_fault", 2, "reuse")])
    assert found.frame.sort("event").select("tid", "raw_ns", "nested").rows() == [(7, 2_500, 4), (8, 2_500, 4), (9, 900, 0)]
    assert found.frame["left_out"].null_count() == 3


SWITCHES: Final = pl.DataFrame(
    {"ts": [400, 900, 1_000, 1_600, 9_000], "prev_pid": [7, 8, 7, 8, 7], "next_pid": [8, 7, 8, 7, 0]},
    schema={"ts": pl.Int64, "prev_pid": pl.Int32, "next_pid": pl.Int32},
)


def test_preemption_that_the_scheduler_tells_comes_off() -> None:
    """Off the CPU from 400 to 900 and from 1000 to 1600, of a fault from 0 to 2500."""
    row = only(times(run(0, 7, *COPY), [("cow_fault", 0, "copy")], switches=SWITCHES))
    assert (row["preempted_ns"], row["net_ns"] + row["probe_ns"], row["left_out"]) == (1_100, 1_400, None)


def test_preemption_outside_a_fault_does_not() -> None:
    row = only(times(run(10_000, 7, *COPY), [("cow_fault", 0, "copy")], switches=SWITCHES))
    assert row["preempted_ns"] == 0


def test_a_switch_of_which_one_half_is_missing_takes_nothing_off() -> None:
    back_only = SWITCHES.filter(pl.col("next_pid") == 7)
    assert only(times(run(0, 7, *COPY), [("cow_fault", 0, "copy")], switches=back_only))["preempted_ns"] == 0


@pytest.mark.parametrize(
    ("others", "why"),
    [
        pytest.param([], None, id="alone"),
        pytest.param([(1_000, 0, 8, "mm_page_alloc")], "preempted", id="another thread ran on its CPU"),
        pytest.param([(1_000, 1, 8, "mm_page_alloc")], None, id="another thread ran on another CPU"),
        pytest.param([(2_501, 0, 8, "mm_page_alloc")], None, id="another thread ran after it"),
        pytest.param([(0, 1, 8, "mm_page_alloc")], "clock stood", id="another event at the time of its begin"),
        pytest.param([(2_500, 1, 8, "mm_page_alloc")], "clock stood", id="another event at the time of its end"),
    ],
)
def test_times_that_say_nothing_are_left_out(others: list[Event], why: str | None) -> None:
    found = times([*run(0, 7, *COPY), *others], [("cow_fault", 0, "copy")])
    assert only(found)["left_out"] == why
    assert found.of("copy").height == (why is None)


def test_a_fault_that_ends_on_another_cpu_was_preempted() -> None:
    events = [(0, 0, 7, "cow_fault"), (900, 1, 7, "cow_fault_done")]
    assert only(times(events, [("cow_fault", 0, "reuse")]))["left_out"] == "preempted"


@pytest.mark.parametrize(
    ("loss", "lost"),
    [((100, 200), True), ((-50, 0), True), ((2_500, 2_600), True), ((2_501, 3_000), False), ((-50, -1), False)],
)
def test_events_lost_within_a_fault(loss: tuple[int, int], lost: bool) -> None:
    losses = np.array([(-9_000, -8_000), loss, (9_000, 9_100)], np.int64)
    row = only(times(run(0, 7, *COPY), [("cow_fault", 0, "copy")], losses=losses))
    assert row["left_out"] == ("events lost" if lost else None)


def test_equal_times_of_a_coarse_clock_are_no_clock_that_stood() -> None:
    events = run(0, 7, (1_000_000, "cow_fault"), (0, "cow_copy"), (3_000, "cow_fault_done"), (0, "mm_page_free"))
    assert only(times(events, [("cow_fault", 0, "copy")]))["left_out"] is None


def test_no_events_at_all() -> None:
    assert times([], []).frame.height == 0


# --- whole traces ---------------------------------------------------------------------------------------------------------------------


def test_a_trace_of_known_times() -> None:
    """A copy and a reuse, of a process that forks; every event is 1000 ns after the one before."""
    m = Machine()
    parent = m.spawn(10)
    m.touch(parent, address(0), 0x2000)
    child = m.fork(parent, 11, [(address(0), 1)])
    m.cow(parent, address(0), 0x2000, 0x2001)
    m.cow(child, address(0), 0x2000)
    found = timing.fault_times(trace_of(m))
    rows = found.frame.select("tid", "decision", "reason", "raw_ns", "nested").rows()
    # cow_fault, mm_page_alloc, anon_new, rmap_remove, cow_fault_done; and cow_fault, cow_fault_done.
    assert rows == [(10, "copy", "another-mapping", 4_000, 3), (11, "reuse", "sole-owner", 1_000, 0)]


def test_a_huge_page_is_timed_apart_from_base_pages() -> None:
    m = Huge()
    parent = m.spawn(10)
    m.touch_huge(parent)
    m.fork(parent, 11, [(address(0), 512)])
    m.exit_huge(m.older(12))
    m.huge_cow(parent, address(0), REUSED)
    found = timing.fault_times(trace_of(m))
    assert found.frame["huge"].to_list() == [True]
    assert found.of(str(found.frame["decision"][0])).height == 0


def test_switches_are_read_from_the_trace() -> None:
    m = Machine()
    parent = m.spawn(10)
    m.touch(parent, address(0), 0x2000)
    m.fork(parent, 11, [(address(0), 1)])
    m.cow_begin(parent, address(0), 0x2000 << 12 | 0x65)
    m.event("sched_switch", 10, prev_pid=10, next_pid=11)
    m.event("sched_switch", 11, prev_pid=11, next_pid=10, later_ns=50_000)
    m.map_new(10, parent.mm, address(0), 0x2001)
    m.event("cow_fault_done", 10, ret=8)
    row = only(timing.fault_times(trace_of(m)))
    assert (row["raw_ns"], row["preempted_ns"], row["left_out"]) == (54_000, 50_000, None)


@functools.cache
def recorded(name: str) -> tuple[tracetool.Trace, Timeline, FaultTimes]:
    trace = tracetool.open(fixture_path(f"{name}.dat"))
    line = timing.timeline(trace)
    return trace, line, timing.fault_times(trace, line)


def paired_by_hand(trace: tracetool.Trace) -> dict[tuple[int, int], tuple[int, int, int]]:
    """(tid, begin) -> (end, events of the thread between, events of no probe among these): event by event, as a reader would."""
    every: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for ts, tid, event in zip(*(trace.raw.timeline().column(name).to_pylist() for name in ("ts", "tid", "event")), strict=True):
        every[tid].append((ts, event))
    found = {}
    for tid, events in every.items():
        begin: int | None = None
        within: list[str] = []
        for ts, event in events:
            if event == "cow_fault":
                begin, within = ts, []
            elif event == "cow_fault_done" and begin is not None:
                found[tid, begin] = ts, len(within), sum(each.startswith("mm_page") for each in within)
                begin = None
            else:
                within.append(event)
    return found


@pytest.mark.parametrize("name", RECORDINGS)
def test_recorded_faults_are_paired_as_by_hand(name: str) -> None:
    trace, _, found = recorded(name)
    expected = paired_by_hand(trace)
    faults = found.frame.filter(~pl.col("huge")).join(trace.replay().fault_rows.select("event", "ts"), on="event")
    rows = faults.select("tid", "ts", "raw_ns", "nested", "tracepoints").rows()
    assert {(tid, ts): (ts + raw, nested, tracepoints) for tid, ts, raw, nested, tracepoints in rows} == expected
    assert found.frame.height >= 10


@pytest.mark.parametrize("name", ["snapshot-6.1", "random1-6.1"])
def test_on_6_1_a_copy_holds_four_events_and_a_reuse_none(name: str) -> None:
    found = recorded(name)[2]
    # cow_copy, mm_page_alloc, anon_new, rmap_remove.
    assert found.of("copy")["nested"].median() == 4
    # What an interrupt frees is recorded in the fault that it interrupts.
    reuses = found.of("reuse")["nested"]
    assert (reuses == 0).sum() >= 0.95 * len(reuses)
    assert {event for decision, event, per in found.nested.rows() if decision == "copy" and per > 0.5} == {
        "cow_copy", "mm_page_alloc", "anon_new", "rmap_remove",
    }  # fmt: skip


@pytest.mark.parametrize("name", RECORDINGS)
def test_durations_are_those_of_the_replay(name: str) -> None:
    trace, _, found = recorded(name)
    replayed = trace.replay().fault_rows.select("event", "duration_ns").drop_nulls().unique("event")
    both = found.frame.join(replayed, on="event", how="inner")
    assert both.height == found.frame.height
    assert both["raw_ns"].to_list() == both["duration_ns"].to_list()


def test_events_of_a_text_are_known_by_name(tmp_path: Any) -> None:
    """A text has no formats: which of its events are kprobes is told by their names."""
    trace = recorded("snapshot-6.1")[0]
    kinds = dict(zip(trace.raw.formats(), timing.kinds_of(list(trace.raw.formats()), trace.raw.formats()), strict=True))
    by_name = dict(zip(kinds, timing.kinds_of(list(kinds), {}), strict=True))
    assert by_name == kinds
    assert kinds["rmap_remove"] == kinds["cow_fault_done"] == 1
    assert kinds["mm_page_alloc"] == kinds["sys_enter_mmap"] == 0
