"""Huge pages: mapped whole, forked, split by a store, reused as a whole, unmapped as a whole or page by page, swapped out."""

from __future__ import annotations

import pytest

from engine.build import BASE, HEAD, HUGE_SIZE, PAGE, REUSED, SPLIT_UP, VM_ANON, WRITE_FAULT, Huge, Machine, Process, struct_page

#: What each kernel says when the mapping of a huge page is split or goes: see `Huge.split`, `Huge.unmap_huge`.
KERNELS = pytest.mark.parametrize("folios", [False, True], ids=["page_remove_rmap", "folio_remove_rmap_pmd"])


@pytest.fixture
def m() -> Huge:
    return Huge()


def stays(machine: Machine, p: Process) -> dict[int, tuple[int, int]]:
    """Page number -> frame and mapcount."""
    return {
        (at - BASE) // PAGE: (row["pfn"], row["mapcount"])
        for (pid, at), row in machine.pages().items()
        if pid == p.tid and at < BASE + HUGE_SIZE
    }


def whole(mapcount: int, first: int = 0) -> dict[int, tuple[int, int]]:
    return {n: (HEAD + n, mapcount) for n in range(first, 512)}


@pytest.mark.parametrize("order", [9, None])
def test_a_huge_page_is_512_pages(m: Huge, order: int | None) -> None:
    """What was allocated says so; without such a record, the fault that asked for a huge page and where it lies."""
    a = m.spawn(10)
    m.touch_huge(a, BASE + 5 * PAGE, order=order)
    assert stays(m, a) == whole(1)
    orders = m.replay().ownership.collect()
    assert sorted(orders["order"].unique().to_list()) == [0, 9]


def test_a_fallback_to_a_single_page_is_one(m: Huge) -> None:
    a = m.spawn(10)
    m.touch_huge(a, order=0)
    assert stays(m, a) == {0: (HEAD, 1)}


def test_the_last_allocation_of_a_frame_counts(m: Huge) -> None:
    a = m.spawn(10)
    m.touch_huge(a)
    m.munmap(a, BASE, None)
    m.unmap_huge(a)
    m.event("mm_page_free", a.tid, pfn=HEAD, order=9)
    m.touch(a, BASE + PAGE, HEAD)
    assert stays(m, a) == {1: (HEAD, 1)}


def test_a_folio_of_16_pages_is_mapped_at_once(m: Huge) -> None:
    a = m.spawn(10)
    m.fault(a, BASE, WRITE_FAULT)
    m.event("mm_page_alloc", a.tid, pfn=HEAD, order=4)
    m.event("anon_new", a.tid, mm=a.mm, address=BASE, page=struct_page(HEAD))
    assert stays(m, a) == {n: (HEAD + n, 1) for n in range(16)}


@KERNELS
def test_fork_shares_all_of_it_and_a_store_splits_the_mapping_of_one(folios: bool) -> None:
    m = Huge(folios)
    a = m.spawn(10)
    m.touch_huge(a)
    b = m.fork(a, 11, [(BASE, 512)])
    assert stays(m, b) == whole(2)
    m.huge_cow(b, BASE + 3 * PAGE, SPLIT_UP)
    m.cow(b, BASE + 3 * PAGE, HEAD + 3, 0x99)
    assert stays(m, b) == whole(2) | {3: (0x99, 1)}
    assert stays(m, a) == whole(2) | {3: (HEAD + 3, 1)}
    faults = m.replay().faults.collect()
    assert faults["decision"].to_list() == ["split", "copy"]
    assert faults["pfn_before"].to_list() == [HEAD + 3, HEAD + 3]
    assert faults["reason"].to_list() == ["another-mapping", "another-mapping"]


@KERNELS
def test_the_other_mapping_goes_as_one_and_the_store_reuses_all(folios: bool) -> None:
    m = Huge(folios)
    a = m.spawn(10)
    m.touch_huge(a)
    b = m.fork(a, 11, [(BASE, 512)])
    m.exit_huge(b)
    m.huge_cow(a, BASE + PAGE, REUSED)
    assert stays(m, a) == whole(1)
    assert stays(m, b) == {}
    assert m.replay().faults.collect()["decision"].to_list() == ["reuse"]


@KERNELS
def test_a_part_is_unmapped_after_the_split(folios: bool) -> None:
    m = Huge(folios)
    a = m.spawn(10)
    m.touch_huge(a)
    m.event("sys_enter_munmap", a.tid, addr=BASE, len=2 * PAGE)
    m.split(a)
    for n in range(2):
        m.event("rmap_remove", a.tid, mm=a.mm, page=struct_page(HEAD + n))
    m.event("sys_exit_munmap", a.tid, ret=0)
    assert stays(m, a) == whole(1, first=2)


def test_a_huge_page_is_swapped_out_page_by_page(m: Huge) -> None:
    """Linux 5.10: try_to_unmap_one once, for the head; then each page loses its mapping, which no mm is named with."""
    m = Huge(without=["rmap_remove.mm"])
    a = m.spawn(10)
    m.touch_huge(a)
    m.event("swap_unmap", 3, mm=a.mm, address=BASE, page=struct_page(HEAD))
    for n in range(512):
        m.event("rmap_remove", 3, page=struct_page(HEAD + n))
    m.event("mm_page_free", 3, pfn=HEAD, order=9)
    found = {key: row for key, row in m.pages().items() if key[1] >= BASE and key[1] < BASE + HUGE_SIZE}
    assert len(found) == 512
    assert all(row["swapped"] and row["pfn"] == 0 for row in found.values())


def test_an_unmap_after_reclaim_gave_up_is_no_swap(m: Huge) -> None:
    a = m.spawn(10)
    m.touch(a, BASE, 0x77)
    m.event("swap_unmap", a.tid, mm=a.mm, address=BASE, page=struct_page(0x77))
    m.munmap(a, BASE, 0x77)
    assert stays(m, a) == {}


def test_a_vmsplice_of_a_huge_page_takes_single_pages(m: Huge) -> None:
    a = m.spawn(10)
    m.touch_huge(a)
    m.vmsplice(a, BASE + 7 * PAGE, HEAD, 2)
    held = m.replay().references.collect().filter(via="vmsplice")
    assert sorted(held["pfn"].to_list()) == [HEAD + 7, HEAD + 8]


def test_a_trace_may_begin_inside_a_fault(m: Huge) -> None:
    """The fault's own event is missing; the COW fault says whose it is."""
    a = Process(10, m.mm())
    m.event("cow_fault", a.tid, mm=a.mm, address=BASE, vm_flags=VM_ANON, fault_flags=WRITE_FAULT, pte=0x5065)
    m.map_new(a.tid, a.mm, BASE, 0x99)
    m.event("rmap_remove", a.tid, mm=a.mm, page=struct_page(5))
    m.event("cow_fault_done", a.tid, ret=8)
    assert [(row["pid"], row["address"]) for row in m.replay().pages_at(m.now).to_dicts()] == [(10, f"{BASE:#x}")]


def test_pages_of_nobody_have_pid_minus_one(m: Huge) -> None:
    m.event("anon_new", 9, mm=m.mm(), address=BASE, page=struct_page(5))
    assert [(row["pid"], row["address"]) for row in m.replay().pages_at(m.now).to_dicts()] == [(-1, f"{BASE:#x}")]
