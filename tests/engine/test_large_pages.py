"""Huge pages, and parts of larger pages: what each policy makes of a store to them (kernel.md, sections 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import polars as pl
import pytest

from engine.build import BASE, HEAD, PAGE, READ_ONLY, READ_WRITE, REUSED, SPLIT_UP, Huge, Process, address, struct_page
from engine.scenarios import (
    NEW,
    P1,
    P2,
    SAME,
    A,
    B,
    HugeScenario,
    Scenario,
    outcome,
    page_of,
    s1,
    s1b,
    s2,
    s3,
    s4,
    s6,
    s7,
    s9,
    s9b,
    s10,
    told_and_expected,
)
from tracetool.costs import cost
from tracetool.policies import POLICIES

M, F, C, C2 = "mapcount", "forced-cow", "page-count", "page-count-5.18"
X1, X2, X3, X = "exclusive@6.1", "exclusive@6.12", "exclusive@6.15", "exclusive"
ALL: Final = (*POLICIES, X1, X2, X3)

# As in tests/engine/test_policies.py, of huge pages; what kernels that were run did with them is in tests/engine/test_section7.py. M copies
# all of a huge page for the first writer, and the other owner has the old one alone; the others split its mapping, and both map all parts
# but one. C' counts references to all of it, where C still counted mappings.
ORACLE: Final[dict[Callable[[Scenario], None], dict[str, dict[str, str | int]]]] = {
    s1: {
        M: {"A.w": NEW, "B.w": SAME, "gup": 9},
        F: {"A.w": SAME, "B.w": NEW, "gup": 5},
        C2: {"A.w": NEW, "B.w": NEW, "gup": 1},
    },
    s1b: {
        M: {"B.w": NEW, "A.w": SAME, "gup": 5},
        F: {"B.w": NEW, "A.w": SAME, "gup": 5},
        C2: {"B.w": NEW, "A.w": NEW, "gup": 1},
    },
    s2: {M: {"A.w": SAME, "gup": 5}, F: {"A.w": SAME, "gup": 5}, C2: {"A.w": NEW, "gup": 1}},
    s3: {M: {"A.w": SAME, "gup": 5}, F: {"A.w": SAME, "gup": 5}, C2: {"A.w": NEW, "gup": 1}},
    s4: {M: {"A.w": SAME, "gup": 5}, F: {"A.w": SAME, "gup": 5}, C2: {"A.w": NEW, "gup": 1}},
    s6: {M: {"A.w": NEW, "B.w": SAME}, F: {"A.w": NEW, "B.w": NEW}, C2: {"A.w": NEW, "B.w": NEW}},
    s7: {M: {"A.w": SAME}, F: {"A.w": SAME}, C2: {"A.w": SAME}},
    s9: {
        M: {"fork": SAME, "A.w": NEW, "B.w": SAME},
        F: {"fork": SAME, "A.w": NEW, "B.w": NEW},
        C2: {"fork": NEW, "A.w": SAME, "B.w": SAME},
    },
    s9b: {M: {"A.pin": NEW, "B.w": SAME}, F: {"A.pin": NEW, "B.w": NEW}, C2: {"A.pin": NEW, "B.w": NEW}},
    s10: {M: {"A.pin": SAME}, F: {"A.pin": NEW}, C2: {"A.pin": SAME}},
}


@pytest.mark.parametrize("under", [M, F, C2])
@pytest.mark.parametrize("copying", [False, True], ids=["recorded where pages are shared", "recorded where pages are copied"])
@pytest.mark.parametrize("scenario", list(ORACLE), ids=lambda scenario: scenario.__name__)
def test_scenarios_under_policies_that_were_not_run(scenario: Callable[[Scenario], None], copying: bool, under: str) -> None:
    s = HugeScenario(copying)
    scenario(s)
    found, expected = told_and_expected(s, ORACLE[scenario][under], under)
    assert found == expected


@pytest.mark.parametrize(
    ("first", "shown"),
    [
        ("fork", {M: 9, F: 1, C: 9, C2: 1, X1: 1, X2: 1, X3: 1, X: 1}),
        ("reference", {M: 9, F: 9, C: 9, C2: 1, X1: 1, X2: 1, X3: 1, X: 1}),
    ],
)
@pytest.mark.parametrize("copying", [False, True])
def test_a_huge_page_leaks_where_mappings_decide_of_it(first: str, shown: dict[str, int], copying: bool) -> None:
    """Section 3: A takes a read reference, and unmaps all of the page; B writes it. 5.10 still left huge pages to mappings."""
    s = HugeScenario(copying)
    a = s.a()
    if first == "fork":
        b = s.fork(a)
    s.m.vmsplice(a, BASE, HEAD)
    if first == "reference":
        b = s.fork(a)
    s.m.event("sys_enter_munmap", A, addr=BASE, len=512 * PAGE)
    s.m.unmap_huge(a)
    s.m.event("sys_exit_munmap", A, ret=0)
    s.write("B.w", b, P1 if copying else None)
    assert {under: outcome(s.acts.items(), s.m.replay(under))["gup"] for under in shown} == shown


# --- mapped as one --------------------------------------------------------------------------------------------------------------------


def decisions(m: Huge, under: str) -> list[tuple[str, str]]:
    rows: list[dict[str, Any]] = m.replay(under).faults.collect().to_dicts()
    return [(row["decision"], row["reason"]) for row in rows]


def test_up_to_57_all_of_a_huge_page_is_copied_since_then_its_mapping_is_split() -> None:
    s = HugeScenario(copying=True)
    s6(s)
    for under in ALL:
        faults = s.m.replay(under).faults.collect()
        of_a = faults.filter(pl.col("pid") == A)
        if under == M:
            assert of_a.select(pl.col("decision").cast(pl.String), "pages").rows()[0] == ("copy", 512)
        else:
            assert of_a.select(pl.col("decision").cast(pl.String), "pages").rows() == [("split", 1), ("copy", 1)]


def test_the_copy_of_a_huge_page_counts_as_copies_of_all_its_pages() -> None:
    """A's store copies 512 pages under mapcount, B's none; where the mapping is split each copies one."""
    s = HugeScenario(copying=True)
    s6(s)
    costs = {under: cost(s.m.replay(under)) for under in ALL}
    assert (costs[M].copied_pages, costs[M].splits) == (512, 0)
    assert {(costs[under].copied_pages, costs[under].splits) for under in ALL if under != M} == {(2, 2)}
    assert costs[X].beyond(costs[M]) == (2 - 512, (2 - 512) * PAGE, (2 - 512) * 2_000)


def test_a_huge_page_that_was_copied_as_one_is_a_page_of_its_own_in_every_part() -> None:
    s = HugeScenario(copying=True)
    s6(s)
    pages = s.m.pages(under=M)
    assert {pages[A, BASE + n * PAGE]["mapcount"] for n in range(512)} == {1}
    assert {pages[B, BASE + n * PAGE]["mapcount"] for n in range(512)} == {1}
    assert {pages[B, BASE + n * PAGE]["pfn"] for n in range(512)} == set(range(HEAD, HEAD + 512))
    for under in (F, C, C2, X):
        pages = s.m.pages(under=under)
        assert [pages[A, BASE + n * PAGE]["mapcount"] for n in range(512)] == [1] + [2] * 511


def test_fork_copies_every_part_of_a_pinned_huge_page() -> None:
    s = HugeScenario(copying=True)
    s9(s)
    for under in ALL:
        early = s.m.replay(under).faults.filter(pl.col("decision").cast(pl.String) == "early-copy").collect().height
        assert early == (0 if under in (M, F) else 512)


@pytest.mark.parametrize("under", [M, C, C2])
def test_what_was_unshared_for_a_read_pin_is_left_as_it_is_by_policies_that_do_not(under: str) -> None:
    """6.1 split the mapping and copied a part before process_vm_readv took it: kernels before 5.19 take it as it is."""
    s = HugeScenario(copying=True)
    s10(s)
    assert decisions(s.m, under) == []
    assert s.m.pages(under=under)[A, BASE]["mapcount"] == 2


# --- mapped part by part --------------------------------------------------------------------------------------------------------------


def parts(parts_left: int = 511, copying: bool = True) -> tuple[Huge, Process]:
    """A and B share a huge page; A writes to its first part, and so maps it page by page; B exits. A has the rest alone, and it is marked
    exclusive to nobody. Of the rest A unmaps all but so many.
    """
    m = Huge()
    a = m.spawn(A)
    m.touch_huge(a)
    b = m.fork(a, B, [(BASE, 512)])
    m.huge_cow(a, BASE, SPLIT_UP)
    m.cow(a, BASE, HEAD, P1)
    m.exit_huge(b)
    if parts_left < 511:
        gone = 511 - parts_left
        m.event("sys_enter_munmap", A, addr=BASE + (parts_left + 1) * PAGE, len=gone * PAGE)
        for n in range(parts_left + 1, 512):
            m.event("rmap_remove", A, mm=a.mm, page=struct_page(HEAD + n))
        m.event("sys_exit_munmap", A, ret=0)
    return m, a


def test_a_part_that_one_process_maps_with_others() -> None:
    """Since 5.9 references to any part count, and each mapping is one; 6.12 looks no further; 6.15 finds all of them to be A's."""
    m, a = parts()
    m.cow(a, address(1), HEAD + 1, P2)
    assert {under: decisions(m, under)[-1] for under in ALL} == {
        M: ("in-place", "writable"), F: ("reuse", "sole-owner"), C: ("copy", "large-page"), C2: ("copy", "large-page"),
        X1: ("copy", "large-page"), X2: ("copy", "large-page"), X3: ("reuse", "sole-owner"), X: ("reuse", "sole-owner"),
    }  # fmt: skip


def test_a_reference_to_one_part_is_one_to_all() -> None:
    m, a = parts()
    m.vmsplice(a, address(7), HEAD + 7)
    m.cow(a, address(1), HEAD + 1, P2)
    for under in (C, C2, X1, X3, X):
        assert decisions(m, under)[-1] == ("copy", "reference"), under
    assert decisions(m, X2)[-1][0] == "copy"


def test_the_last_part_is_counted_like_a_page_of_4_kib_but_since_612() -> None:
    """6.12 never looks, and 6.15 gives up a larger page of which nothing else is in use."""
    m, a = parts(1)
    m.cow(a, address(1), HEAD + 1, P2)
    assert {under: decisions(m, under)[-1] for under in ALL if under != M} == {
        F: ("reuse", "sole-owner"), C: ("reuse", "sole-owner"), C2: ("reuse", "sole-owner"),
        X1: ("reuse", "sole-owner"), X2: ("copy", "large-page"), X3: ("copy", "large-page"), X: ("copy", "large-page"),
    }  # fmt: skip


def test_another_owner_of_another_part_is_an_owner_of_it_all() -> None:
    """B has left its mapping of the part that A writes to, and maps the others: nobody but mapcount of 5.7 and 5.8 looks at one part alone,
    and they look at the part that is shared most.
    """
    m = Huge()
    a = m.spawn(A)
    m.touch_huge(a)
    b = m.fork(a, B, [(BASE, 512)])
    m.huge_cow(a, BASE, SPLIT_UP)
    m.cow(a, BASE, HEAD, P1)
    m.huge_cow(b, address(1), SPLIT_UP)
    m.cow(b, address(1), HEAD + 1, P2)
    m.cow(a, address(1), HEAD + 1, 0x77)
    for under in ALL:
        if under != M:
            assert decisions(m, under)[-1][0] == "copy", under


def test_pages_that_were_split_apart_are_pages_like_others() -> None:
    """A part is freed by itself: the larger page is no more, and each counts for itself."""
    m, a = parts()
    m.event("sys_enter_munmap", A, addr=address(511), len=PAGE)
    m.event("rmap_remove", A, mm=a.mm, page=struct_page(HEAD + 511))
    m.free(A, HEAD + 511)
    m.event("sys_exit_munmap", A, ret=0)
    m.cow(a, address(1), HEAD + 1)
    for under in (F, C, C2, X1, X2, X3, X):
        assert decisions(m, under)[-1] == ("reuse", "sole-owner"), under


@pytest.mark.parametrize("under", [X1, X2, X3, X])
def test_a_part_that_is_exclusive_is_reused_whatever_refers_to_it(under: str) -> None:
    """Nothing was shared: an unmap of two pages split the mapping."""
    m = Huge()
    a = m.spawn(A)
    m.touch_huge(a)
    m.event("sys_enter_munmap", A, addr=address(510), len=2 * PAGE)
    m.split(a)
    for n in (510, 511):
        m.event("rmap_remove", A, mm=a.mm, page=struct_page(HEAD + n))
    m.event("sys_exit_munmap", A, ret=0)
    m.vmsplice(a, address(7), HEAD + 7)
    m.mprotect(a, address(7), READ_ONLY)
    m.mprotect(a, address(7), READ_WRITE)
    m.cow(a, address(7), HEAD + 7, P2)
    assert decisions(m, under)[-1][0] in ("reuse", "in-place")
    assert decisions(m, C2)[-1] == ("copy", "reference")


@pytest.mark.parametrize(
    ("under", "copied"), [(M, False), (F, False), (C, False), (C2, True), (X1, False), (X2, False), (X3, False), (X, False)]
)
def test_a_huge_page_that_a_pin_protects_is_its_owner_s(under: str, copied: bool) -> None:
    """Section 3, "GET-W/PIN-W, no fork; PTE write-protected, A writes": only 5.18 loses what the device writes."""
    m = Huge()
    a = m.spawn(A)
    m.touch_huge(a)
    m.pin(a, BASE, HEAD)
    before = m.mark(A, "before")
    m.mprotect(a, BASE, READ_ONLY, 512)
    m.mprotect(a, BASE, READ_WRITE, 512)
    m.huge_cow(a, BASE, REUSED)
    replay = m.replay(under)
    assert (page_of(replay, A, before) != page_of(replay, A, m.now)) == copied
