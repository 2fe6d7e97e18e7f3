"""Pages from swap, what holds them, and pages that KSM merged: what each policy makes of a store to them (kernel.md, section 2)."""

from __future__ import annotations

from typing import Any, Final

import polars as pl
import pytest

from engine.build import BASE, KSWAPD, READ_ONLY, READ_WRITE, Machine, Process, address
from engine.scenarios import page_of
from tracetool.policies import POLICIES

M, F, C, C2, X1, X2, X = "mapcount", "forced-cow", "page-count", "page-count-5.18", "exclusive@6.1", "exclusive@6.12", "exclusive"
ALL: Final = (*POLICIES, X1, X2)
A, B, P0, COPY, READ = 10, 11, 50, 60, 0x400


def swapped(m: Machine | None = None) -> tuple[Machine, Process]:
    """A's page is in swap."""
    m = m or Machine()
    a = m.spawn(A)
    m.munmap(a, address(3000), None)
    m.touch(a, address(0), P0)
    m.swap_out(KSWAPD, P0, [(a, address(0))])
    m.free(KSWAPD, P0)
    return m, a


def read_ahead(a_reads: bool = True) -> tuple[Machine, Process]:
    """A's page is read from a device that needs reading ahead, and so into the swap cache."""
    m, a = swapped(Machine(batches=True))
    if a_reads:
        m.swap_in(a, address(0), READ, write=False, read=8)
        # The batch that it waits in is emptied.
        m.munmap(a, address(3000), None)
    return m, a


def decisions(m: Machine, under: str) -> list[tuple[str, str]]:
    rows: list[dict[str, Any]] = m.replay(under).faults.collect().to_dicts()
    return [(row["decision"], row["reason"]) for row in rows]


def last(m: Machine, under: str) -> tuple[str, str]:
    """What the last store comes to, and why."""
    return decisions(m, under)[-1]


# --- the swap cache -------------------------------------------------------------------------------------------------------------------


def test_a_page_in_the_swap_cache_is_copied_by_page_count_alone() -> None:
    m, a = read_ahead()
    m.cow(a, address(0), READ, COPY)
    assert {under: last(m, under) for under in ALL} == {
        M: ("reuse", "sole-owner"), F: ("reuse", "sole-owner"), C: ("copy", "swap-cache"), C2: ("reuse", "sole-owner"),
        X1: ("reuse", "exclusive"), X2: ("in-place", "writable"), X: ("in-place", "writable"),
    }  # fmt: skip


@pytest.mark.parametrize("gone", [False, True])
def test_another_swap_entry_is_another_owner(gone: bool) -> None:
    """A and B have an entry each; A reads the page back, and B's entry is there still or gone when A writes."""
    m, a = swapped()
    b = m.fork(a, B, [(BASE, 1)])
    m.swap_in(a, address(0), READ, write=False)
    if gone:
        m.exit(b, [])
    m.cow(a, address(0), READ, COPY)
    for under in ALL:
        if not gone:
            assert last(m, under) == ("copy", "another-mapping"), under
        elif under == C:
            assert last(m, under) == ("copy", "swap-cache")
        else:
            assert last(m, under) == ("reuse", "sole-owner"), under


def test_owners_of_two_entries_find_the_same_page() -> None:
    m, a = swapped()
    b = m.fork(a, B, [(BASE, 1)])
    m.swap_in(a, address(0), READ, write=False)
    m.swap_in(b, address(0), READ, write=False)
    for under in ALL:
        replay = m.replay(under)
        assert page_of(replay, A, m.now) == page_of(replay, B, m.now)
        assert m.pages(under=under)[A, BASE]["mapcount"] == 2


@pytest.mark.parametrize("under", ALL)
def test_a_store_reads_a_page_back_for_its_only_owner(under: str) -> None:
    """Nobody copies: mappings and entries are one, the page is in no swap cache or leaves it, or the entry says whose it is."""
    m, a = read_ahead(a_reads=False)
    m.swap_in(a, address(0), READ, write=True, read=8, then=COPY)
    replay = m.replay(under)
    assert [row for row in decisions(m, under) if row[0] in ("copy", "unshare")] == []
    assert replay.ownership.filter(pl.col("to_ns").is_null(), pl.col("address") == BASE).collect()["pfn"].to_list() == [READ]


@pytest.mark.parametrize("under", ALL)
def test_a_store_that_reads_back_what_another_has_in_swap_is_a_copy(under: str) -> None:
    m, a = swapped()
    m.fork(a, B, [(BASE, 1)])
    m.swap_in(a, address(0), READ, write=True, exclusive=True)
    assert last(m, under) == ("copy", "another-mapping")


def test_an_entry_that_fork_copied_is_nobody_s_own() -> None:
    """6.12 maps what is its owner's own writable at once, also for a read; after a fork the next store has to look."""
    m, a = swapped(Machine(batches=True))
    m.exit(m.fork(a, B, [(BASE, 1)]), [])
    m.swap_in(a, address(0), READ, write=False, read=8)
    m.munmap(a, address(3000), None)
    m.cow(a, address(0), READ)
    for under in (X1, X2, X):
        assert last(m, under) == ("reuse", "sole-owner"), under


def test_a_page_read_into_no_swap_cache_is_its_owner_s_own() -> None:
    """The same from a device that reads no more than it is asked for. The newest kernels go by the entry alone."""
    m, a = swapped(Machine(batches=True))
    m.exit(m.fork(a, B, [(BASE, 1)]), [])
    m.swap_in(a, address(0), READ, write=False, read=1)
    m.munmap(a, address(3000), None)
    m.cow(a, address(0), READ)
    assert [last(m, under) for under in (X1, X2, X)] == [("reuse", "exclusive"), ("in-place", "writable"), ("reuse", "sole-owner")]


def test_a_referenced_page_that_was_swapped_out_comes_back_as_itself() -> None:
    """The reference keeps it in the swap cache. Where pages are marked exclusive the entry says so, and the store goes where the reference
    reads; where references count it is copied.
    """
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.vmsplice(a, address(0), P0)
    m.swap_out(KSWAPD, P0, [(a, address(0))])
    m.swap_in(a, address(0), P0, write=False)
    m.cow(a, address(0), P0, COPY)
    assert {under: last(m, under) for under in ALL} == {
        M: ("reuse", "sole-owner"), F: ("reuse", "sole-owner"), C: ("copy", "reference"), C2: ("copy", "reference"),
        X1: ("reuse", "exclusive"), X2: ("in-place", "writable"), X: ("in-place", "writable"),
    }  # fmt: skip


@pytest.mark.parametrize("copying", [False, True])
def test_a_referenced_page_from_swap_leaks_where_its_entries_are_counted(copying: bool) -> None:
    """Section 3: B reads a shared page back, references and unmaps it; A writes. Until 5.17 swap-in looked at entries alone."""
    m, a = swapped()
    b = m.fork(a, B, [(BASE, 1)])
    m.swap_in(b, address(0), READ, write=False)
    m.vmsplice(b, address(0), READ)
    m.munmap(b, address(0), READ)
    if copying:
        m.swap_in(a, address(0), READ, write=True, then=COPY)
    else:
        m.swap_in(a, address(0), READ, write=True, exclusive=True)
    leaks = {}
    for under in ALL:
        replay = m.replay(under)
        (held,) = replay.reference_rows.filter(pl.col("via").cast(pl.String) == "vmsplice")["page_id"].to_list()
        leaks[under] = held == page_of(replay, A, m.now)
    assert leaks == dict.fromkeys(ALL, False) | dict.fromkeys((M, C), True)


# --- KSM ------------------------------------------------------------------------------------------------------------------------------


def merged(m: Machine) -> Process:
    """A has one page at two addresses."""
    a = m.spawn(A)
    for number in range(2):
        m.touch(a, address(number), P0 + number)
    m.ksm_merge(a, address(1), P0 + 1, P0)
    m.free(4000, P0 + 1)
    return a


def test_what_ksm_merged_is_copied_whoever_else_has_it() -> None:
    m = Machine()
    a = merged(m)
    m.cow(a, address(1), P0, COPY)
    assert {last(m, under) for under in ALL} == {("copy", "another-mapping")}


def test_what_ksm_merged_is_copied_when_nobody_else_has_it_but_by_mapcount() -> None:
    """Up to 5.8 reuse_ksm_page() took it back where nothing else referred to it."""
    m = Machine()
    a = merged(m)
    m.munmap(a, address(0), P0)
    m.mark(A, "flushed")
    m.cow(a, address(1), P0, COPY)
    assert {under: last(m, under) for under in ALL} == dict.fromkeys(ALL, ("copy", "ksm")) | dict.fromkeys((M, F), ("reuse", "sole-owner"))


def test_what_ksm_merged_and_somebody_references_is_copied_by_mapcount_too() -> None:
    m = Machine()
    a = merged(m)
    m.munmap(a, address(0), P0)
    m.mark(A, "flushed")
    m.vmsplice(a, address(1), P0)
    m.cow(a, address(1), P0, COPY)
    assert decisions(m, M) == [("copy", "ksm")]


def test_what_mapcount_took_back_from_ksm_is_a_page_like_others() -> None:
    """reuse_ksm_page() makes it anonymous again: from then on references do not matter."""
    m = Machine()
    a = merged(m)
    m.munmap(a, address(0), P0)
    m.mark(A, "flushed")
    m.cow(a, address(1), P0)
    m.vmsplice(a, address(1), P0)
    m.mprotect(a, address(1), READ_ONLY)
    m.mprotect(a, address(1), READ_WRITE)
    m.cow(a, address(1), P0)
    assert decisions(m, M) == [("reuse", "sole-owner"), ("reuse", "sole-owner")]
