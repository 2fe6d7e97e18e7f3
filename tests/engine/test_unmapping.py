"""A thread holds what it has unmapped until it frees all of it (mm/mmu_gather.c): until then a store by the last owner is not alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from engine.build import BASE, Machine, Process, address, struct_page
from tracetool.policies import POLICIES

M, F, C, C2, X = "mapcount", "forced-cow", "page-count", "page-count-5.18", "exclusive"
A, B, P0, COPY = 10, 11, 50, 60
HELD: Final = {M: "reuse", F: "reuse", C: "copy", C2: "copy", X: "copy"}
LET_GO: Final = dict.fromkeys(HELD, "reuse")


def begun(pages: int = 1) -> tuple[Machine, Process, Process]:
    """A and B map the same pages."""
    m = Machine()
    a = m.spawn(A)
    for number in range(pages):
        m.touch(a, address(number), P0 + number)
    return m, a, m.fork(a, B, [(BASE, pages)])


def unmaps(m: Machine, p: Process, pfn: int) -> None:
    m.event("rmap_remove", p.tid, mm=p.mm, page=struct_page(pfn))


def last(m: Machine) -> dict[str, str]:
    """What the last store comes to under each policy."""
    return {under: m.replay(under).faults.collect()["decision"].to_list()[-1] for under in POLICIES}


def reason(m: Machine, under: str) -> str:
    row: dict[str, Any] = m.replay(under).faults.collect().to_dicts()[-1]
    return str(row["reason"])


def test_a_page_that_another_is_just_unmapping_is_held_by_it() -> None:
    m, a, b = begun()
    m.event("mm_exit", B, mm=b.mm)
    unmaps(m, b, P0)
    m.cow(a, address(0), P0, COPY)
    assert last(m) == HELD
    assert {reason(m, under) for under in (C, C2, X)} == {"unmapping"}
    row = m.replay().faults.collect().to_dicts()[-1]
    assert (row["decision"], row["reason"]) == ("copy", "unmapping")


@pytest.mark.parametrize(
    "lets_go",
    [
        lambda m, b: m.free(b.tid, 0x900),
        lambda m, b: m.mark(b.tid, "next"),
        lambda m, b: m.event("sys_exit_munmap", b.tid, ret=0),
        lambda m, b: m.fault(b, address(5), 0x254),
    ],
    ids=["it frees", "it goes on", "the call returns", "its next fault"],
)
def test_what_it_does_next_shows_that_it_has_let_go(lets_go: Callable[[Machine, Process], Any]) -> None:
    m, a, b = begun()
    m.event("sys_enter_munmap", B, addr=BASE, len=4096)
    unmaps(m, b, P0)
    lets_go(m, b)
    m.cow(a, address(0), P0)
    assert last(m) == LET_GO


def test_what_others_do_shows_nothing() -> None:
    m, a, b = begun()
    m.event("sys_enter_munmap", B, addr=BASE, len=4096)
    unmaps(m, b, P0)
    m.free(A, 0x900)
    m.mark(99, "another")
    m.cow(a, address(0), P0, COPY)
    assert last(m) == HELD


def test_pages_are_let_go_of_in_the_order_of_their_unmapping() -> None:
    """B frees a page of its own, unmapped before what it shares with A, while it goes on: the shared one it has still."""
    m, a, b = begun()
    m.touch(b, address(1), 0x70)
    m.event("mm_exit", B, mm=b.mm)
    unmaps(m, b, 0x70)
    unmaps(m, b, P0)
    m.free(B, 0x70)
    m.cow(a, address(0), P0, COPY)
    m.free(B, 0x901)
    assert last(m) == HELD


def test_the_last_free_lets_go_of_all() -> None:
    """The same, but nothing is freed after it."""
    m, a, b = begun()
    m.touch(b, address(1), 0x70)
    m.event("mm_exit", B, mm=b.mm)
    unmaps(m, b, 0x70)
    unmaps(m, b, P0)
    m.free(B, 0x70)
    m.cow(a, address(0), P0)
    assert last(m) == LET_GO


def test_a_page_unmapped_before_one_that_is_freed_is_let_go_of_too() -> None:
    m, a, b = begun()
    m.touch(b, address(1), 0x70)
    m.event("mm_exit", B, mm=b.mm)
    unmaps(m, b, P0)
    unmaps(m, b, 0x70)
    m.free(B, 0x70)
    m.cow(a, address(0), P0)
    m.free(B, 0x901)
    assert last(m) == LET_GO


def test_a_copy_holds_nothing_back() -> None:
    """wp_page_copy() lets go of the page that it leaves at once: the other store finds it alone."""
    m, a, b = begun()
    m.cow(b, address(0), P0, COPY)
    m.cow(a, address(0), P0)
    assert last(m) == LET_GO
