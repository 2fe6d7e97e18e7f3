"""Raw events -> memory events: what the context of an event makes of it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from engine.build import (
    BASE,
    CLONE_VM,
    PAGE,
    PTE_SPECIAL,
    READ_FAULT,
    STACK,
    UNSHARE_FAULT,
    WRITE_FAULT,
    Machine,
    Recording,
    address,
    only,
    rows,
    struct_page,
)
from tracetool.memory_events import Op, memory_events, with_tables
from tracetool.memory_events import codes as c
from tracetool.replay import rebuild

# --- address spaces -----------------------------------------------------------------------------------------------------------------------


def test_a_pointer_used_again_after_teardown_names_another_address_space() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    m.exit(a, [5])
    b = m.spawn(11, mm=a.mm)
    m.touch(b, address(0), 6)
    first, second = (row["mm"] for row in rows(m.events(), Op.MAP_NEW) if row["address"] == address(0))
    assert first != second


def test_unmaps_during_teardown_belong_to_the_address_space_that_goes() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    m.exit(a, [5])
    events = m.events()
    assert only(events, Op.UNMAP)["mm"] == rows(events, Op.MAP_NEW)[-1]["mm"]


def test_teardown_is_over_at_the_threads_next_event() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    m.event("mm_exit", 10, mm=a.mm)
    m.event("rmap_remove", 10, mm=a.mm, page=struct_page(5))
    m.free(10, 5)
    end = m.mark(10, "done")
    began, over = rows(m.events(), Op.EXIT)
    assert (began["flags"], over["flags"], over["ts"]) == (0, c.EXIT_DONE, end)


def test_a_fork_to_a_pointer_seen_before_is_a_new_address_space_even_if_its_end_was_not_seen() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    old = m.spawn(12)
    child = m.fork(a, 11, [(BASE, 1)], mm=old.mm)
    m.fault(child, address(0), READ_FAULT)
    events = m.events()
    assert only(events, Op.FORK)["mm"] not in {row["mm"] for row in rows(events, Op.MAP_NEW)}
    assert rows(events, Op.FAULT)[-1]["mm"] == only(events, Op.FORK)["mm"]


def test_null_pointers_name_no_address_space() -> None:
    r = Recording()
    r.event("mm_fault", 10, mm=0, address=BASE, fault_flags=READ_FAULT, vm_flags=0, vm_ops=0)
    r.event("mm_fault", 10, mm=7, address=BASE, fault_flags=READ_FAULT, vm_flags=0, vm_ops=0)
    assert [row["mm"] for row in rows(r.events(), Op.FAULT)] == [-1, 0]


# --- fork ---------------------------------------------------------------------------------------------------------------------------------


def test_a_fork_counts_at_the_end_of_each_range() -> None:
    m = Machine()
    a = m.spawn(10)
    m.fork(a, 11, [(BASE, 3)])
    event = only(m.events(), Op.FORK_RANGE)
    assert (event["address"], event["pages"], event["flags"]) == (BASE, 3, c.COPIED)
    assert event["source"] == "fork_range_done"


def test_a_range_without_anon_vma_is_not_copied() -> None:
    m = Machine()
    a, child = m.spawn(10), m.older(11)
    m.fork_range(a, child, BASE, 3, anon_vma=0)
    assert only(m.events(), Op.FORK_RANGE)["flags"] == 0


def test_parent_and_child_of_a_fork() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    child = m.fork(a, 11, [(BASE, 1), (BASE + 8 * PAGE, 1)])
    m.touch(child, address(1), 6)
    events = m.events()
    fork = only(events, Op.FORK)
    (mine,) = [row["mm"] for row in rows(events, Op.MAP_NEW) if row["address"] == address(0)]
    (its,) = [row["mm"] for row in rows(events, Op.MAP_NEW) if row["address"] == address(1)]
    assert (fork["arg"], fork["mm"]) == (mine, its)
    assert [row["mm"] for row in rows(events, Op.FORK_RANGE)] == [its, its]


def test_an_early_copy_is_the_childs_and_comes_before_the_range_counts() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    m.fork(a, 11, [(BASE, 1)], early={address(0): 6})
    events = m.events()
    early = rows(events, Op.MAP_NEW)[-1]
    fork = only(events, Op.FORK_RANGE)
    assert (early["pfn"], early["arg"], early["mm"]) == (6, c.IN_FORK, fork["mm"])
    assert early["row"] < fork["row"]


def test_a_thread_forks_nothing() -> None:
    m = Machine()
    a = m.spawn(10)
    m.event("task_newtask", 10, pid=11, comm_field="t", clone_flags=CLONE_VM)
    m.touch(m.older(11).__class__(11, a.mm), address(0), 5)
    events = m.events()
    assert not rows(events, Op.FORK)
    assert len({row["mm"] for row in rows(events, Op.MAP_NEW)}) == 1


# --- what a new page is for ---------------------------------------------------------------------------------------------------------------


def test_a_new_page_inside_a_cow_fault_is_the_copy() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    m.cow(a, address(0), 5, 6)
    m.touch(a, address(1), 7)
    events = [row for row in rows(m.events(), Op.MAP_NEW) if row["address"] != STACK]
    assert [(row["pfn"], row["arg"]) for row in events] == [(5, c.TOUCH), (6, c.IN_COW), (7, c.TOUCH)]


def test_a_new_page_inside_a_swap_fault_is_swapped_in() -> None:
    m = Machine()
    a = m.spawn(10)
    m.fault(a, address(0), READ_FAULT)
    m.event("swap_fault", 10, mm=a.mm, address=address(0), fault_flags=READ_FAULT, pte=2)
    m.event("anon_new", 10, mm=a.mm, address=address(0), page=struct_page(6))
    m.event("swap_fault_done", 10, ret=0)
    m.touch(a, address(0), 7)
    assert [row["arg"] for row in rows(m.events(), Op.MAP_NEW)][-2:] == [c.IN_SWAP, c.TOUCH]


def test_two_threads_are_each_in_their_own_fault() -> None:
    m = Machine()
    a, b = m.spawn(10), m.spawn(11)
    m.cow_begin(a, address(0), 5 << 12)
    m.touch(b, address(0), 7)
    m.event("anon_new", 10, mm=a.mm, address=address(0), page=struct_page(6))
    assert [(row["pfn"], row["arg"]) for row in rows(m.events(), Op.MAP_NEW)][-2:] == [(7, c.TOUCH), (6, c.IN_COW)]


# --- faults -------------------------------------------------------------------------------------------------------------------------------


def faults(m: Machine) -> list[int]:
    """What came of the faults at addresses of the test's pages."""
    return [row["arg"] for row in rows(m.events(), Op.FAULT) if row["address"] < STACK]


def test_a_fault_knows_what_came_of_it() -> None:
    m = Machine()
    a = m.spawn(10)
    m.read_zero(a, address(0))
    m.touch(a, address(1), 5)
    m.cow(a, address(1), 5, 6)
    m.fault(a, address(2), READ_FAULT)
    m.event("swap_fault", 10, mm=a.mm, address=address(2), fault_flags=READ_FAULT, pte=2)
    assert faults(m) == [c.FAULT_NOTHING, c.FAULT_MAPPED, c.FAULT_COW, c.FAULT_SWAP]


def test_a_page_mapped_elsewhere_by_no_fault_is_not_what_came_of_the_last_one() -> None:
    """UFFDIO_COPY maps new pages of the thread's own memory, and no mm_fault comes before."""
    m = Machine()
    a = m.spawn(10)
    m.read_zero(a, address(0))
    m.event("anon_new", 10, mm=a.mm, address=address(5000), page=struct_page(5))
    assert faults(m) == [c.FAULT_NOTHING]


def test_access_bits() -> None:
    m = Machine()
    a = m.spawn(10)
    m.fault(a, address(0) + 123, WRITE_FAULT)
    m.fault(a, address(0), READ_FAULT, anonymous=False, shared=True)
    m.fault(a, address(0), UNSHARE_FAULT)
    found = [row for row in rows(m.events(), Op.FAULT) if row["address"] < STACK]
    assert [row["flags"] for row in found] == [c.WRITE | c.USER | c.ANON_AREA, c.USER | c.SHARED, c.UNSHARE | c.ANON_AREA]
    assert {row["address"] for row in found} == {address(0)}


def test_a_cow_fault_names_the_frame_of_its_entry_or_the_zero_page() -> None:
    m = Machine()
    a = m.spawn(10)
    m.cow_begin(a, address(0), (5 << 12) | 0x8000_0000_0000_0865)
    m.cow_begin(a, address(1), (5 << 12) | PTE_SPECIAL)
    first, second = rows(m.events(), Op.COW_BEGIN)
    assert (first["pfn"], first["flags"] & c.ZERO_PAGE) == (5, 0)
    assert second["flags"] & c.ZERO_PAGE


def test_unmaps_and_frees_of_pages_that_are_never_anonymous_are_left_out() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    m.free(10, 901)
    m.event("rmap_remove", 10, mm=a.mm, page=struct_page(900))
    m.event("rmap_remove", 10, mm=a.mm, page=struct_page(5))
    m.free(10, 900)
    m.free(10, 5)
    assert [(row["op"], row["pfn"]) for row in rows(m.events(), Op.UNMAP, Op.FREE)] == [("unmap", 5), ("free", 5)]


def test_the_last_free_after_an_unmap_stays_whatever_it_frees() -> None:
    """A thread holds what it has unmapped until it frees it (mm/mmu_gather.c): with the last of its frees it has let go of all."""
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    m.event("rmap_remove", 10, mm=a.mm, page=struct_page(5))
    m.free(10, 901)
    m.free(11, 903)
    m.free(10, 902)
    m.mark(10, "next")
    m.free(10, 904)
    found = [(row["op"], row["pfn"], row["flags"]) for row in rows(m.events(), Op.UNMAP, Op.FREE)]
    assert found == [("unmap", 5, 0), ("free", 902, c.FREES_LAST)]


def test_the_last_free_of_each_round_of_unmaps_stays() -> None:
    """A thread that unmaps much frees now and then; a trace may end before it goes on."""
    m = Machine()
    a = m.spawn(10)
    for number in range(2):
        m.touch(a, address(number), 5 + number)
    for number in range(2):
        m.event("rmap_remove", 10, mm=a.mm, page=struct_page(5 + number))
        m.free(10, 900)
        m.free(10, 901)
    found = [(row["op"], row["pfn"], row["flags"]) for row in rows(m.events(), Op.UNMAP, Op.FREE)]
    assert found == [("unmap", 5, 0), ("free", 901, c.FREES_LAST), ("unmap", 6, 0), ("free", 901, c.FREES_LAST)]


# --- rmap_remove without an mm (5.10) -----------------------------------------------------------------------------------------------------


@pytest.fixture
def old() -> Machine:
    return Machine(without=["rmap_remove.mm"])


def test_an_unmap_without_mm_is_the_threads_own(old: Machine) -> None:
    a = old.spawn(10)
    old.touch(a, address(0), 5)
    old.dontneed(a, address(0), 5)
    events = old.events()
    assert only(events, Op.UNMAP)["mm"] == rows(events, Op.FAULT)[-1]["mm"]


def test_an_unmap_without_mm_inside_another_process_s_cow_fault_is_that_process_s(old: Machine) -> None:
    """process_vm_writev by B: the COW fault is A's."""
    a, b = old.spawn(10), old.spawn(11)
    old.touch(b, address(1), 4)
    old.touch(a, address(0), 5)
    old.event("cow_fault", 11, mm=a.mm, address=address(0), vm_flags=0x73, fault_flags=0x81, pte=5 << 12)
    old.event("anon_new", 11, mm=a.mm, address=address(0), page=struct_page(6))
    old.event("rmap_remove", 11, page=struct_page(5))
    events = old.events()
    assert only(events, Op.UNMAP)["mm"] == only(events, Op.COW_BEGIN)["mm"] != rows(events, Op.FAULT)[-2]["mm"]


def test_an_unmap_without_mm_after_the_exit_of_the_thread_is_of_the_teardown(old: Machine) -> None:
    a = old.spawn(10)
    old.touch(a, address(0), 5)
    old.exit(a, [5])
    events = old.events()
    assert only(events, Op.UNMAP)["mm"] == rows(events, Op.EXIT)[0]["mm"]


def test_an_unmap_without_mm_by_reclaim_is_of_the_page_table_that_is_walked(old: Machine) -> None:
    a = old.spawn(10)
    old.touch(a, address(0), 5)
    old.event("swap_unmap", 77, mm=a.mm, address=address(0), page=struct_page(5))
    old.event("rmap_remove", 77, page=struct_page(5))
    events = old.events()
    assert only(events, Op.UNMAP)["mm"] == only(events, Op.SWAP_OUT)["mm"] >= 0


# --- frames -------------------------------------------------------------------------------------------------------------------------------


def test_frames_are_numbered_by_allocations_where_no_fork_tells() -> None:
    r = Recording()
    for number in range(3):
        r.event("mm_page_alloc", 10, pfn=50 + 3 * number, order=0)
        r.event("anon_new", 10, mm=7, address=address(number), page=struct_page(50 + 3 * number))
    events = r.events()
    assert events.known_frames.tolist() == [50, 53, 56]
    assert not [note for note in events.notes if "frames" in note]


def test_without_any_hint_frames_are_counted_from_the_lowest_and_a_note_says_so() -> None:
    r = Recording()
    for pfn in (53, 50):
        r.event("anon_new", 10, mm=7, address=address(pfn), page=struct_page(pfn))
    events = r.events()
    assert events.known_frames.tolist() == [0, 3]
    assert [note for note in events.notes if "frames are numbered" in note]


def test_no_events_give_no_memory_events() -> None:
    for source in (with_tables({}), with_tables({"anon_new": pa.table({"ts": pa.array([], pa.int64()), "cpu": [], "tid": []})})):
        events = memory_events(source)
        assert len(events) == 0
        assert events.table().collect().height == 0
        assert len(rebuild(events).stays) == 0
