"""Raw events -> memory events: what context makes of an event, and that no value in a trace, however absurd, does harm."""

from __future__ import annotations

import tracemalloc
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.build import (
    BASE,
    CLONE_VM,
    FOLL_FORCE,
    FOLL_GET,
    FOLL_PIN,
    FOLL_REMOTE,
    FOLL_TOUCH,
    FOLL_WRITE,
    FORK_FLAGS,
    PAGE,
    PTE_SPECIAL,
    READ_FAULT,
    STACK,
    UNSHARE_FAULT,
    VMEMMAP,
    WRITE_FAULT,
    Machine,
    Recording,
    address,
    struct_page,
)
from tracetool.errors import TraceError
from tracetool.memory_events import MemoryEvents, Op, memory_events, with_tables
from tracetool.memory_events import codes as c
from tracetool.probes import PROBES
from tracetool.processes import processes
from tracetool.replay import Replay, rebuild
from tracetool.schema import VIA


def rows(events: MemoryEvents, *ops: Op) -> list[dict[str, Any]]:
    """The memory events of these operations, as dictionaries of the table and the frame that each names."""
    wanted = [op.name.lower() for op in ops]
    return events.table().with_row_index("row").filter(pl.col("op").cast(pl.String).is_in(wanted)).collect().to_dicts()


def only(events: MemoryEvents, *ops: Op) -> dict[str, Any]:
    found = rows(events, *ops)
    assert len(found) == 1
    return found[0]


# --- address spaces -------------------------------------------------------------------------------------------------------------------


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


# --- what a new page is for -----------------------------------------------------------------------------------------------------------


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
    m.event("rmap_remove", 10, mm=a.mm, page=struct_page(900))
    m.free(10, 901)
    m.event("rmap_remove", 10, mm=a.mm, page=struct_page(5))
    m.free(10, 5)
    assert [(row["op"], row["pfn"]) for row in rows(m.events(), Op.UNMAP, Op.FREE)] == [("unmap", 5), ("free", 5)]


# --- rmap_remove without an mm (5.10) -----------------------------------------------------------------------------------------------


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


# --- GUP ------------------------------------------------------------------------------------------------------------------------------


def flags_of(row: dict[str, Any]) -> tuple[int, str]:
    return row["flags"] & 0xFF, VIA[row["flags"] >> c.VIA_SHIFT]


def test_fast_gup_that_falls_back_to_the_slow_path_is_one_request() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    m.event("gup_fast", 10, start=BASE, nr_pages=2, flags=FOLL_GET | FOLL_WRITE)
    m.event("gup", 10, mm=a.mm, start=BASE, nr_pages=2, flags=FOLL_GET | FOLL_TOUCH | FOLL_WRITE)
    m.event("gup_done", 10, ret=2)
    m.event("gup_fast_done", 10, ret=2)
    request = rows(m.events(), Op.REF_GET)[-1]
    assert (request["address"], request["pages"], *flags_of(request)) == (BASE, 2, c.WRITE, "other")
    assert len(rows(m.events(), Op.REF_GET)) == 2, "that, and exec's"


def test_only_the_pages_that_gup_got_are_referenced() -> None:
    m = Machine()
    m.spawn(10)
    for ret in (3, 0, -14, 9):
        m.event("gup_fast", 10, start=BASE, nr_pages=8, flags=FOLL_GET)
        m.event("gup_fast_done", 10, ret=ret)
    assert [row["pages"] for row in rows(m.events(), Op.REF_GET) if row["address"] == BASE] == [3]


def test_gup_without_get_or_pin_takes_no_reference() -> None:
    """MAP_POPULATE and mlock only fault pages in."""
    m = Machine()
    a = m.spawn(10)
    m.event("gup", 10, mm=a.mm, start=BASE, nr_pages=2, flags=FOLL_TOUCH | FOLL_WRITE)
    m.event("gup_done", 10, ret=2)
    assert not [row for row in rows(m.events(), Op.REF_GET) if row["address"] == BASE]


OLD, NEW = 0, 1
#: FOLL_* bit by bit, before and since 6.3: (GET, PIN, FORCE, LONGTERM, TOUCH).
NUMBERS: Final = {OLD: (0x4, 0x40000, 0x10, 0x10000, 0x2), NEW: (0x2, 0x80000, 0x8, 0x100, 0x10000)}


@pytest.mark.parametrize("layout", [OLD, NEW])
@pytest.mark.parametrize(("named", "expected"), [(0, 0), (1, c.PIN), (2, c.FORCE), (3, c.LONGTERM)])
def test_foll_numbers_are_told_by_known_callers(layout: int, named: int, expected: int) -> None:
    """A slow GUP with FOLL_GET always has FOLL_TOUCH: that tells the numbers, even against the release that the metadata name."""
    bits = NUMBERS[layout]
    r = Recording()
    r.event("mm_fault", 10, mm=7, address=BASE, fault_flags=READ_FAULT, vm_flags=0, vm_ops=0)
    for flags in (bits[0] | bits[4], bits[named] | (bits[0] if named != 1 else 0) | bits[4]):
        r.event("gup", 10, mm=7, start=BASE, nr_pages=1, flags=flags)
        r.event("gup_done", 10, ret=1)
    misleading = "6.12.0" if layout == OLD else "5.10.0"
    assert rows(r.events(misleading), Op.REF_GET)[-1]["flags"] & 0xFF == expected


@pytest.mark.parametrize(("kernel", "pins"), [("5.10.0-26-amd64", 1), ("6.2.0", 1), ("6.3.0", 0), ("6.12.1", 0), (None, 0), ("Linux", 0)])
def test_foll_numbers_are_told_by_the_release_where_nothing_else_tells(kernel: str | None, pins: int) -> None:
    """0x40000 is FOLL_PIN up to 6.2 and neither FOLL_PIN nor FOLL_GET since."""
    r = Recording()
    r.event("gup", 10, mm=7, start=BASE, nr_pages=1, flags=0x40000)
    r.event("gup_done", 10, ret=1)
    events = r.events(kernel)
    assert len(rows(events, Op.REF_GET)) == pins
    assert any("FOLL" in note for note in events.notes) == (kernel in (None, "Linux"))


def test_vmsplice_gives_back_what_did_not_fit_into_the_pipe() -> None:
    m = Machine()
    m.spawn(10)
    m.event("sys_enter_vmsplice", 10, fd=4)
    m.event("gup_fast", 10, start=BASE, nr_pages=32, flags=FOLL_GET)
    m.event("gup_fast_done", 10, ret=32)
    m.event("sys_exit_vmsplice", 10, ret=16 * PAGE)
    events = m.events()
    got, put = rows(events, Op.REF_GET)[-1], rows(events, Op.REF_PUT)[-1]
    assert (got["pages"], flags_of(got)) == (32, (0, "vmsplice"))
    assert (put["arg"], put["pages"], put["flags"]) == (got["arg"], 16, c.EXACT | c.BY_GROUP)


def test_vmsplice_that_kept_all_or_nothing() -> None:
    m = Machine()
    m.spawn(10)
    for ret in (PAGE, 1, 0, -11):
        m.event("sys_enter_vmsplice", 10, fd=4)
        m.event("gup_fast", 10, start=BASE, nr_pages=1, flags=FOLL_GET)
        m.event("gup_fast_done", 10, ret=1)
        m.event("sys_exit_vmsplice", 10, ret=ret)
    events = m.events()
    groups = [row["arg"] for row in rows(events, Op.REF_GET) if row["address"] == BASE]
    given = [row["arg"] for row in rows(events, Op.REF_PUT) if row["arg"] in groups]
    assert given == groups[2:]


def test_references_of_process_vm_are_gone_when_the_call_returns() -> None:
    m = Machine()
    a, b = m.spawn(10), m.spawn(11)
    m.touch(b, address(9), 8)
    m.touch(a, address(0), 5)
    m.event("sys_enter_process_vm_readv", 11)
    m.event("gup", 11, mm=a.mm, start=BASE, nr_pages=1, flags=FOLL_PIN | FOLL_TOUCH | FOLL_REMOTE)
    m.event("gup_done", 11, ret=1)
    end = m.event("sys_exit_process_vm_readv", 11, ret=PAGE)
    events = m.events()
    got, put = rows(events, Op.REF_GET)[-1], rows(events, Op.REF_PUT)[-1]
    assert flags_of(got) == (c.PIN, "process_vm")
    assert got["mm"] == next(row["mm"] for row in rows(events, Op.MAP_NEW) if row["pfn"] == 5)
    assert (put["arg"], put["pages"], put["ts"]) == (got["arg"], 0, end)


def test_ptrace_drops_its_page_at_once() -> None:
    m = Machine()
    a, b = m.spawn(10), m.spawn(11)
    m.touch(a, address(0), 5)
    m.touch(b, address(0), 6)
    m.event("gup", 11, mm=a.mm, start=BASE, nr_pages=1, flags=FOLL_GET | FOLL_TOUCH | FOLL_REMOTE | FOLL_FORCE | FOLL_WRITE)
    m.event("gup_done", 11, ret=1)
    m.mark(11, "next")
    events = m.events()
    got, put = rows(events, Op.REF_GET)[-1], rows(events, Op.REF_PUT)[-1]
    assert flags_of(got) == (c.WRITE | c.FORCE, "ptrace")
    assert (put["arg"], put["row"]) == (got["arg"], only(events, Op.MARK)["row"] - 1)


def test_a_pin_of_a_thread_older_than_the_trace_is_no_exec() -> None:
    """Of such a thread the address space is not known; exec's GUP says FOLL_REMOTE, this one does not."""
    m = Machine()
    a = m.older(10)
    m.pin_begin(a, BASE)
    m.event("gup_done", 10, ret=1)
    m.event("sys_exit_io_uring_register", 10, ret=0)
    m.event("gup", 10, mm=a.mm, start=BASE, nr_pages=1, flags=FOLL_PIN | FOLL_TOUCH)
    m.event("gup_done", 10, ret=1)
    m.mark(10, "later")
    events = m.events()
    assert [flags_of(row)[1] for row in rows(events, Op.REF_GET)] == ["io_uring", "other"]
    assert not rows(events, Op.REF_PUT)


def test_a_pin_of_another_address_space_is_kept() -> None:
    """VFIO pins remote memory for good; ptrace and exec take FOLL_GET."""
    m = Machine()
    a, b = m.spawn(10), m.spawn(11)
    m.touch(a, address(0), 5)
    m.touch(b, address(0), 6)
    m.event("gup", 11, mm=a.mm, start=BASE, nr_pages=1, flags=FOLL_PIN | FOLL_TOUCH | FOLL_REMOTE | FOLL_WRITE)
    m.event("gup_done", 11, ret=1)
    m.mark(11, "next")
    events = m.events()
    taken = rows(events, Op.REF_GET)[-1]
    assert taken["flags"] & c.PIN
    assert not [row for row in rows(events, Op.REF_PUT) if row["arg"] == taken["arg"]]


# --- exec -----------------------------------------------------------------------------------------------------------------------------


def test_exec_takes_over_the_address_space_that_it_filled() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    b = m.spawn(10)
    m.dontneed(b, address(3), 6)
    events = m.events()
    before, after = rows(events, Op.EXEC)
    assert before["mm"] != after["mm"]
    assert only(events, Op.MADVISE)["mm"] == after["mm"]


def test_exec_of_another_thread_takes_the_address_space_along() -> None:
    """de_thread: the thread that called exec takes the leader's number."""
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    m.new_task(a, 12, CLONE_VM | 0x10000)
    new = m.mm()
    m.event("gup", 12, mm=new, start=STACK, nr_pages=1, flags=FOLL_WRITE | FOLL_TOUCH | FOLL_GET | FOLL_REMOTE)
    m.event("gup_done", 12, ret=1)
    m.event("sched_process_exec", 10, pid=10, old_pid=12)
    m.dontneed(a, address(0), None)
    events = m.events()
    assert only(events, Op.MADVISE)["mm"] == rows(events, Op.EXEC)[-1]["mm"] == rows(events, Op.REF_GET)[-1]["mm"]


# --- areas ----------------------------------------------------------------------------------------------------------------------------


def test_a_shrinking_heap_unmaps_what_lies_above_its_new_end() -> None:
    m = Machine()
    a = m.spawn(10)
    m.fault(a, BASE, READ_FAULT)
    for end in (0, BASE + 9 * PAGE, BASE + 100):
        m.event("sys_enter_brk", 10, brk=end)
        m.event("sys_exit_brk", 10, ret=end or BASE + PAGE)
    event = only(m.events(), Op.MUNMAP)
    assert (event["address"], event["pages"]) == (BASE + PAGE, 8)


def test_a_growing_heap_unmaps_nothing() -> None:
    m = Machine()
    m.spawn(10)
    for end in (BASE + PAGE, BASE + PAGE, BASE + 3 * PAGE - 5, BASE + 3 * PAGE - 9):
        m.event("sys_enter_brk", 10, brk=end)
        m.event("sys_exit_brk", 10, ret=end)
    assert not rows(m.events(), Op.MUNMAP)


def test_calls_that_fail_change_nothing() -> None:
    m = Machine()
    m.spawn(10)
    for call in ("munmap", "mprotect", "madvise", "mmap", "mremap"):
        fields = {"addr": BASE, "start": BASE, "len": PAGE, "len_in": PAGE, "old_len": PAGE, "new_len": PAGE, "behavior": 4, "prot": 1}
        m.event(f"sys_enter_{call}", 10, **fields)
        m.event(f"sys_exit_{call}", 10, ret=-22)
    assert not rows(m.events(), Op.MUNMAP, Op.MPROTECT, Op.MADVISE, Op.MMAP, Op.MREMAP)


def test_lengths_are_rounded_up_to_pages() -> None:
    m = Machine()
    m.spawn(10)
    m.event("sys_enter_munmap", 10, addr=BASE, len=PAGE + 1)
    m.event("sys_exit_munmap", 10, ret=0)
    assert only(m.events(), Op.MUNMAP)["pages"] == 2


def test_every_memory_event_points_back_at_its_raw_event() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    m.cow(a, address(0), 5, 6)
    m.fork(a, 11, [(BASE, 1)])
    source, events = m.source(), m.events()
    for row in events.table().collect().iter_rows(named=True):
        raw = source.table(row["source"])
        assert raw.column("ts")[row["source_row"]].as_py() == row["ts"]
        assert raw.column("tid")[row["source_row"]].as_py() == row["tid"]
    assert events.evidence([0, 10**9, -1]) == {0: (events.source_names[events.source[0]], int(events.ts[0]), int(events.source_row[0]))}


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


# --- foreign data -------------------------------------------------------------------------------------------------------------------------

WILD: Final = [0, 1, 2, 7, 511, 512, PAGE, BASE, BASE + PAGE, 1 << 40, (1 << 57) - PAGE, 1 << 57, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
               (1 << 64) - PAGE, VMEMMAP, VMEMMAP + 64, VMEMMAP - 64, FOLL_GET, FOLL_PIN, FORK_FLAGS, PTE_SPECIAL]  # fmt: skip
NAMES: Final = [probe.event for probe in PROBES]
FIELDS: Final = {
    probe.event: [name for name in (probe.mm, probe.other_mm, *probe.args, *(["vmemmap"] if probe.event == "fork_range" else [])) if name]
    for probe in PROBES
}
wild_events = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(-1, 3), st.lists(st.sampled_from(WILD), min_size=6, max_size=6)), max_size=40
)


def wild_recording(drawn: list[tuple[str, int, list[int]]]) -> Recording:
    r = Recording()
    for name, tid, values in drawn:
        fields: dict[str, int | str] = dict(zip(FIELDS[name], values, strict=False))
        for small in ("pid", "old_pid"):
            if small in fields:
                fields[small] = int(fields[small]) % 5
        r.event(name, tid, **fields)
    return r


def replay_all(r: Recording) -> None:
    """Everything that is made of raw events, in full."""
    events = r.events()
    history, people = rebuild(events), processes(events, r.source())
    assert events.table().collect().height == len(events)
    replay = Replay(history, people)
    replay.ownership.collect()
    replay.references.collect()
    replay.faults.collect()
    replay.pages_at(r.now)


@given(wild_events)
@example([("anon_new", 1, [VMEMMAP, BASE, 0, 0, 0, 0]), ("fork_range", 1, [1, 2, 3, 4, 5, 6])])
@example([("cow_fault", 1, [0, BASE, 1, 0, PTE_SPECIAL, 0]), ("cow_fault_done", 1, [8] * 6)])
@example([("mm_page_free", 1, [(1 << 63) - 1, 0, 0, 0, 0, 0]), ("anon_new", 1, [1, BASE, VMEMMAP, 0, 0, 0])])
def test_absurd_values_do_no_harm(drawn: list[tuple[str, int, list[int]]]) -> None:
    try:
        replay_all(wild_recording(drawn))
    except TraceError:
        pass


@pytest.mark.parametrize("kernel_address", [0xFFFF_8000_0000_0000, 1 << 57, (1 << 64) - PAGE])
def test_what_is_mapped_at_no_user_address_is_no_page_of_a_process(kernel_address: int) -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, kernel_address, 5)
    m.touch(a, address(0), 6)
    assert set(m.pages()) == {(10, address(0))}


def test_a_page_below_all_frames_is_none() -> None:
    """A `struct page` pointer below vmemmap names no frame: nothing else may be taken for it."""
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    m.fork(a, 11, [(BASE, 1)])
    m.event("anon_new", 10, mm=a.mm, address=address(1), page=VMEMMAP - 64)
    pages = m.pages()
    assert pages[10, address(0)]["pfn"] == 5
    assert (10, address(1)) not in pages or pages[10, address(1)]["pfn"] == -1


def test_a_field_of_the_wrong_type_is_an_error_that_names_it() -> None:
    r = Recording()
    r.event("anon_new", 10, mm=7, address="somewhere", page=struct_page(1))
    with pytest.raises(TraceError, match="address") as caught:
        r.events()
    assert caught.value.event == "anon_new"


def test_huge_lengths_and_orders_cost_no_memory() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    for length in (1 << 47, (1 << 63) - 1, (1 << 64) - 1):
        m.event("sys_enter_munmap", 10, addr=0, len=length)
        m.event("sys_exit_munmap", 10, ret=0)
        m.event("gup", 10, mm=a.mm, start=0, nr_pages=(1 << 40) - 1, flags=FOLL_GET | FOLL_TOUCH)
        m.event("gup_done", 10, ret=(1 << 40) - 1)
        m.event("unpin_pages", 10, page=struct_page(5), nr_pages=length)
        m.event("mm_page_free", 10, pfn=0, order=20)
        m.event("mm_page_free", 10, pfn=0, order=63)
        m.event("anon_add", 10, mm=a.mm, address=address(7), page=struct_page(9), nr=length, flags=0)
        m.event("rmap_remove", 10, mm=a.mm, page=struct_page(9), nr=length)
    tracemalloc.start()
    replay_all(m)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_positions_of_hand_made_tables_are_ordered_by_time_then_cpu() -> None:
    def table(ts: list[int], cpu: list[int]) -> pa.Table:
        return pa.table({"ts": pa.array(ts, pa.int64()), "cpu": pa.array(cpu, pa.int32()), "tid": pa.array([1] * len(ts), pa.int32())})

    source = with_tables({"gup_done": table([5, 7, 7], [0, 1, 0]), "print": table([7, 5], [0, 0])})
    assert source.positions("gup_done").tolist() == [0, 4, 2]
    assert source.positions("print").tolist() == [3, 1]
    assert np.array_equal(memory_events(source).ts, np.array([5, 7]))
