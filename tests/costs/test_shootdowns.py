"""TLB shootdowns of each policy, and what those beyond mapcount take: by the cost table, beside the time of the copies."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from engine.build import CLONE_THREAD, CLONE_VM, Machine, address
from timed import timed
from tracetool.costing import cost_report
from tracetool.costs.prices import load
from tracetool.policies import policy
from tracetool.report.costs import render

A, B, C, THREAD = 10, 11, 12, 13


def history(threads: int) -> Machine:
    """A forks B, which takes a reference to page 0 and is gone, and C, for which fork copies A's pinned page 2; A stores to 0 and 1.

    Page 0 has nothing but a reference of another process: mapcount reuses it, page-count copies it. Page 1 C maps: both copy.
    """
    m = Machine()
    a = m.spawn(A)
    for number in range(threads - 1):
        m.new_task(a, THREAD + number, CLONE_VM | CLONE_THREAD)
    for number in range(3):
        m.touch(a, address(number), 0x50 + number)
    b = m.fork(a, B, [(address(0), 1)])
    m.vmsplice(b, address(0), 0x50)
    m.exit(b, [0x50])
    m.pin(a, address(2), 0x52)
    c = m.fork(a, C, [(address(1), 2)], early={address(2): 0x62})
    m.cow(a, address(0), 0x50, 0x60)
    m.cow(a, address(1), 0x51, 0x61)
    m.touch(c, address(9), 0x70)
    return m


def rows(threads: int, cpus: int = 4) -> dict[str, dict[str, object]]:
    trace = timed(history(threads), cpus=cpus)
    report = cost_report(trace, [policy("mapcount"), policy("page-count")], load(None))
    return {row["policy"]: row for row in report.policies().to_dicts()}


def test_a_copy_more_in_a_process_of_three_threads_tells_two_more_cpus() -> None:
    told = rows(threads=3)
    assert [told[name]["tlb_shootdowns"] for name in ("observed", "mapcount", "page-count")] == [2, 1, 2]
    assert [told[name]["extra_tlb_shootdowns"] for name in ("observed", "mapcount", "page-count")] == [1, 0, 1]
    # 1.5 us, and 0.2 us for each of the two CPUs besides the copier's own.
    assert [told[name]["extra_tlb_ns"] for name in ("observed", "mapcount", "page-count")] == [1900, 0, 1900]
    assert {row["tlb_time"] for row in told.values()} == {"assumed"}


def test_copies_of_fork_tell_nobody() -> None:
    told = rows(threads=3)
    assert (told["observed"]["early_copies"], told["observed"]["copies"], told["observed"]["tlb_shootdowns"]) == (1, 2, 2)


def test_no_more_cpus_are_told_than_there_are() -> None:
    assert rows(threads=5, cpus=2)["page-count"]["extra_tlb_ns"] == 1700


def test_a_process_of_one_thread_tells_nobody() -> None:
    told = rows(threads=1)
    assert [told["page-count"][name] for name in ("tlb_shootdowns", "extra_tlb_shootdowns", "extra_tlb_ns")] == [0, 0, 0]
    assert told["page-count"]["extra_copies"] == 2, "page 0, and page 2 at fork, which mapcount shares"


def test_the_time_of_copies_is_without_that_of_shootdowns() -> None:
    assert rows(threads=3)["page-count"]["extra_ns"] == rows(threads=1)["page-count"]["extra_ns"] == 2 * 2000


def test_the_terminal_says_that_it_is_assumed_and_by_whom() -> None:
    report = cost_report(timed(history(3), cpus=4), [policy("page-count")], load(None))
    text = render(report)
    assert "TLB time: assumed, to be added to time: 1.50 µs, and 200 ns for each CPU besides its own" in text
    assert "secondary sources" in text
    # A measured copy has its shootdowns in it.
    measured = replace(report, price=replace(report.price, time="measured"))
    assert "not to be added" in render(measured)
    assert measured.policies().select(pl.col("tlb_time").unique()).item() == "assumed, within extra_ns"
