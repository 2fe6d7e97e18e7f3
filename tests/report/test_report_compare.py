"""Where two policies part, for a terminal: the summary first, then kinds, then the decisions, neighbours together."""

from __future__ import annotations

import tracetool
from conftest import fixture_path
from engine.build import BASE, Machine, address
from handmade import trace_of
from tracetool.comparing import Comparison, compare
from tracetool.report import compare as report

A, B, C = 10, 11, 12
HOSTILE = "b\x1b[2J\n"


def left_alone(pages: int, gap: int = 1, name: str = "prog") -> Comparison:
    """B is left alone with so many pages that A's references read, and writes them."""
    m = Machine()
    a = m.spawn(A)
    numbers = [number * gap for number in range(pages)]
    for number in numbers:
        m.touch(a, address(number), 0x1000 + number)
    b = m.fork(a, B, [(BASE, pages * gap)])
    m.event("task_rename", B, pid=B, oldcomm="prog", newcomm=name)
    for number in numbers:
        m.vmsplice(a, address(number), 0x1000 + number)
        m.cow(a, address(number), 0x1000 + number, 0x4000 + number)
    for number in numbers:
        m.cow(b, address(number), 0x1000 + number, 0x8000 + number)
    return compare(trace_of(m), "mapcount", "page-count")


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_the_summary_comes_first() -> None:
    lines = report.text(left_alone(3)).splitlines()
    assert lines[0] == "mapcount (a) and page-count (b)"
    assert "3 of 6 decisions differ." in lines[2]
    assert "Pages copied: 3 by mapcount, 6 by page-count (+3)." in lines[3]
    assert "Findings of mapcount alone that follow: missed-cow-1@mapcount (certain)" in lines[4]


def test_neighbours_are_one_row_and_what_follows_is_told() -> None:
    text = one_line(report.text(left_alone(3)))
    assert f"stores to 3 pages from {address(0):#x} to {address(2):#x}, until" in text
    assert "(finds 1 mapping, 1 reference)" in text
    assert text.count("mapcount: reuse (sole-owner) -> page-count: copy (reference)") == 2, "as a kind, and as a group"
    assert "missed-cow-3@mapcount (certain) only under mapcount; as many copies; no further difference." in text


def test_many_groups_are_cut_and_the_cut_is_told() -> None:
    text = report.text(left_alone(60, gap=2))
    assert f"showing {report.GROUPS} of 60 groups" in one_line(text)
    assert text.count("Afterwards:") == report.GROUPS
    assert max(map(len, text.splitlines())) <= 80


def test_foreign_names_are_escaped() -> None:
    text = report.text(left_alone(1, name=HOSTILE))
    assert "\x1b" not in text
    assert "b\\x1b[2J\\n" in text


def test_a_copy_that_one_side_need_not_make_is_told_as_what_it_does_instead() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), 0x50)
    m.pin(a, address(0), 0x50)
    m.fork(a, B, [(BASE, 1)], early={address(0): 0x51})
    text = one_line(report.text(compare(trace_of(m), "observed", "mapcount")))
    assert "fork: observed: early-copy (pinned-at-fork) -> mapcount: shares the page" in text


def test_no_difference_says_what_was_compared() -> None:
    told = compare(tracetool.open(fixture_path("mail-6.1.dat")), "page-count", "exclusive")
    text = one_line(report.text(told))
    assert told.differences.height == 0
    assert f"decide all {told.compared} decisions alike: 8 copy (another-mapping)" in text
    assert "1 decision about pages older than the trace, which no policy can be asked" in text


def test_no_decision_says_why() -> None:
    m = Machine()
    m.touch(m.spawn(A), address(0), 0x50)
    assert "no traced process wrote to a page that it shared" in report.why_none(compare(trace_of(m), "mapcount", "exclusive"))
    lacking = report.why_none(compare(trace_of(m, without=["cow_fault"]), "mapcount", "exclusive"))
    assert "It does not record cow_fault" in lacking


def test_undetermined_decisions_alone_are_no_difference_that_can_be_told() -> None:
    m = Machine()
    m.cow(m.older(C), address(0), 0x50, 0x51)
    assert "No difference that could be told: 1 decision about pages older" in report.why_none(
        compare(trace_of(m), "mapcount", "exclusive")
    )
