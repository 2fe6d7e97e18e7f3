"""The observed replay: what memory events say happened to pages."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from engine.build import (
    BASE,
    FOLL_LONGTERM,
    FOLL_WRITE,
    PAGE,
    READ_FAULT,
    READ_ONLY,
    READ_WRITE,
    STACK,
    UNSHARE_FAULT,
    VMEMMAP,
    WRITE_FAULT,
    Machine,
    Process,
    address,
    references,
    struct_page,
)
from tracetool.replay import columns as k

A, B = 10, 11
AREA = [(BASE, 16)]
P0, P1, P2 = 50, 51, 52


def frames(m: Machine, at: int | None = None) -> dict[tuple[int, int], tuple[int, int]]:
    """(pid, number of the test's page) -> frame and mapcount; the zero page is (0, 0)."""
    return {(pid, (where - BASE) // PAGE): (row["pfn"], row["mapcount"]) for (pid, where), row in m.pages(at).items()}


def stays(m: Machine) -> list[tuple[int, int | None, str, str]]:
    """(pid, frame, how it began, how it ended) of each stay at the test's pages, in order."""
    rows = m.replay().stays.filter(pl.col("address") != STACK).sort("from_event", maintain_order=True)
    return [(row["pid"], row["pfn"], row["began"], row["ended"]) for row in rows.iter_rows(named=True)]


def faults(m: Machine) -> list[dict[str, Any]]:
    return m.replay().faults.collect().to_dicts()


@pytest.fixture
def m() -> Machine:
    return Machine()


@pytest.fixture
def a(m: Machine) -> Process:
    """A process with one page, P0."""
    process = m.spawn(A)
    m.touch(process, address(0), P0)
    return process


# --- pages come, are shared, copied and reused --------------------------------------------------------------------------------------------


def test_a_first_touch_is_a_page_of_its_own(m: Machine, a: Process) -> None:
    assert frames(m) == {(A, 0): (P0, 1)}
    row = m.pages()[A, address(0)]
    assert row["exclusive"]
    assert not row["zero"]
    assert not row["swapped"]
    assert (row["references"], row["pins"]) == (0, 0)


def test_nothing_is_mapped_before_it_is_touched(m: Machine, a: Process) -> None:
    moment = m.mark(A, "before")
    m.touch(a, address(1), P1)
    assert frames(m, moment) == {(A, 0): (P0, 1)}


def test_fork_shares_what_lies_in_the_copied_ranges(m: Machine, a: Process) -> None:
    m.touch(a, address(8), P1)
    m.touch(a, address(9), P2)
    m.fork(a, B, [(BASE, 1), (address(9), 1)])
    assert frames(m) == {(A, 0): (P0, 2), (B, 0): (P0, 2), (A, 8): (P1, 1), (A, 9): (P2, 2), (B, 9): (P2, 2)}
    assert not m.pages()[A, address(0)]["exclusive"]


def test_fork_of_an_area_without_anon_vma_shares_nothing(m: Machine, a: Process) -> None:
    child = m.older(B)
    m.fork_range(a, child, BASE, 1, anon_vma=0)
    m.new_task(a, B)
    assert frames(m) == {(A, 0): (P0, 1)}


def test_a_fork_in_the_middle_is_not_counted_yet(m: Machine, a: Process) -> None:
    """copy_page_range can be preempted: until it returns another CPU's view of the child is empty."""
    child = m.older(B)
    m.event("fork_range", A, mm=child.mm, src_mm=a.mm, start=BASE, end=BASE + PAGE, vm_flags=0x73, anon_vma=1, vmemmap=VMEMMAP)
    moment = m.mark(99, "on another CPU")
    m.event("fork_range_done", A, ret=0)
    events = m.events()
    shared = m.history().stays
    assert (shared[:, k.S_BEGAN] == k.FORK).sum() == 1
    assert events.ts[shared[shared[:, k.S_BEGAN] == k.FORK][0, k.S_FROM]] > moment


def test_a_copy_takes_the_writer_to_a_new_frame(m: Machine, a: Process) -> None:
    b = m.fork(a, B, AREA)
    m.cow(b, address(0), P0, P1)
    assert frames(m) == {(A, 0): (P0, 1), (B, 0): (P1, 1)}
    assert stays(m) == [(A, P0, "touch", "open"), (B, P0, "fork", "copied"), (B, P1, "copy", "open")]
    (fault,) = faults(m)
    assert (fault["decision"], fault["reason"], fault["mapcount"], fault["pid"]) == ("copy", "another-mapping", 2, B)
    assert (fault["pfn_before"], fault["pfn_after"]) == (P0, P1)


def test_a_reuse_changes_no_owner(m: Machine, a: Process) -> None:
    b = m.fork(a, B, AREA)
    m.cow(b, address(0), P0, P1)
    m.cow(a, address(0), P0)
    assert frames(m) == {(A, 0): (P0, 1), (B, 0): (P1, 1)}
    fault = faults(m)[-1]
    assert (fault["decision"], fault["pfn_before"], fault["pfn_after"], fault["mapcount"]) == ("reuse", P0, P0, 1)


def test_a_fault_lasts_from_its_begin_to_its_end(m: Machine, a: Process) -> None:
    b = m.fork(a, B, AREA)
    begin = m.cow(b, address(0), P0, P1)
    (fault,) = faults(m)
    assert (fault["ts"], fault["duration_ns"]) == (begin, m.now - begin)


@pytest.mark.parametrize("failure", [0x1, 0x2, 0x400, 0x800], ids=["OOM", "SIGBUS", "RETRY", "FALLBACK"])
def test_a_cow_fault_that_failed_decided_nothing(m: Machine, a: Process, failure: int) -> None:
    m.cow_begin(a, address(0), P0 << 12)
    m.event("cow_fault_done", A, ret=failure)
    assert [fault for fault in faults(m) if fault["decision"] in ("copy", "reuse")] == []
    assert frames(m) == {(A, 0): (P0, 1)}


def test_an_early_copy_at_fork_is_the_child_s_alone(m: Machine, a: Process) -> None:
    m.touch(a, address(1), P1)
    m.pin(a, address(0), P0)
    m.fork(a, B, AREA, early={address(0): P2})
    assert frames(m) == {(A, 0): (P0, 1), (B, 0): (P2, 1), (A, 1): (P1, 2), (B, 1): (P1, 2)}
    (fault,) = faults(m)
    assert (fault["decision"], fault["pfn_before"], fault["pfn_after"], fault["references"]) == ("early-copy", P0, P2, 1)


@pytest.mark.parametrize("under", ["mapcount", "page-count", "exclusive"])
def test_an_early_copy_of_a_page_older_than_the_trace_is_known_to_every_replay(m: Machine, under: str) -> None:
    m.fork(m.older(A), B, AREA, early={address(0): P2})
    assert frames(m) == {(B, 0): (P2, 1)}
    assert {key: row["pfn"] for key, row in m.pages(under=under).items()} == {(B, address(0)): P2}


def test_an_unshare_is_told_from_a_copy(m: Machine, a: Process) -> None:
    b = m.fork(a, B, AREA)
    m.cow(b, address(0), P0, P1, flags=UNSHARE_FAULT)
    (fault,) = faults(m)
    assert (fault["decision"], fault["pfn_after"]) == ("unshare", P1)


def test_protection_changes_no_owner() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.mprotect(a, address(0), READ_ONLY)
    m.mprotect(a, address(0), READ_WRITE)
    m.cow(a, address(0), P0)
    assert frames(m) == {(A, 0): (P0, 1)}
    assert faults(m)[-1]["decision"] == "reuse"


def test_a_write_gup_that_faults_is_a_decision_of_its_own() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.fork(a, B, AREA)
    m.pin_begin(a, address(0), FOLL_WRITE | FOLL_LONGTERM)
    m.cow(a, address(0), P0, P1, flags=WRITE_FAULT & ~0x40)
    m.pin_end(a, P1)
    (fault,) = faults(m)
    assert (fault["decision"], fault["in_kernel"]) == ("copy", True)
    assert {key: row["pins"] for key, row in m.pages().items()} == {(A, address(0)): 1, (B, address(0)): 0}


# --- the zero page ------------------------------------------------------------------------------------------------------------------------


def test_a_read_of_an_untouched_page_maps_the_zero_page(m: Machine, a: Process) -> None:
    m.read_zero(a, address(1))
    row = m.pages()[A, address(1)]
    assert (row["pfn"], row["zero"], row["mapcount"]) == (0, True, 0)


@pytest.mark.parametrize("anonymous", [True, False])
def test_only_anonymous_areas_read_zeroes(m: Machine, a: Process, anonymous: bool) -> None:
    m.fault(a, address(1), READ_FAULT, anonymous=anonymous)
    assert ((A, address(1)) in m.pages()) == anonymous


def test_a_read_of_a_page_that_is_there_changes_nothing(m: Machine, a: Process) -> None:
    m.read_zero(a, address(0))
    assert frames(m) == {(A, 0): (P0, 1)}


def test_a_write_where_the_zero_page_was_fills_a_new_page(m: Machine, a: Process) -> None:
    m.read_zero(a, address(1))
    m.zero_fill(a, address(1), P1)
    assert frames(m)[A, 1] == (P1, 1)
    (fault,) = faults(m)
    assert (fault["decision"], fault["pfn_before"], fault["pfn_after"]) == ("zero-fill", None, P1)
    assert stays(m)[1:] == [(A, None, "zero-page", "replaced"), (A, P1, "zero-fill", "open")]


def test_fork_shares_the_zero_page_and_a_write_parts_it(m: Machine, a: Process) -> None:
    m.read_zero(a, address(1))
    b = m.fork(a, B, AREA)
    m.zero_fill(b, address(1), P1)
    assert (m.pages()[A, address(1)]["zero"], frames(m)[B, 1]) == (True, (P1, 1))


# --- pages go -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["dontneed", "munmap"])
def test_unmapped_pages_are_gone(m: Machine, a: Process, call: str) -> None:
    b = m.fork(a, B, AREA)
    getattr(m, call)(a, address(0), P0)
    assert frames(m) == {(B, 0): (P0, 1)}
    assert stays(m) == [(A, P0, "touch", "unmapped"), (B, P0, "fork", "open")]
    m.cow(b, address(0), P0)
    assert faults(m)[-1]["reason"] == "sole-owner"


@pytest.mark.parametrize("call", ["dontneed", "munmap"])
def test_the_zero_page_goes_without_a_word(m: Machine, a: Process, call: str) -> None:
    m.read_zero(a, address(1))
    m.read_zero(a, address(3))
    getattr(m, call)(a, address(1), None, pages=2)
    assert set(frames(m)) == {(A, 0), (A, 3)}


def test_a_mapping_over_another_replaces_what_was_there(m: Machine, a: Process) -> None:
    m.read_zero(a, address(1))
    m.event("sys_enter_mmap", A, addr=address(1), len=PAGE, prot=3, flags=0x32)
    m.event("sys_exit_mmap", A, ret=address(1))
    assert set(frames(m)) == {(A, 0)}


def test_a_shrinking_mremap_drops_its_tail(m: Machine, a: Process) -> None:
    m.read_zero(a, address(1))
    m.read_zero(a, address(2))
    m.event("sys_enter_mremap", A, addr=BASE, old_len=3 * PAGE, new_len=2 * PAGE)
    m.event("sys_exit_mremap", A, ret=BASE)
    assert set(frames(m)) == {(A, 0), (A, 1)}


def test_a_growing_mremap_drops_nothing(m: Machine, a: Process) -> None:
    m.read_zero(a, address(1))
    m.event("sys_enter_mremap", A, addr=BASE, old_len=2 * PAGE, new_len=9 * PAGE)
    m.event("sys_exit_mremap", A, ret=BASE)
    assert set(frames(m)) == {(A, 0), (A, 1)}


def test_exit_lets_go_of_everything(m: Machine, a: Process) -> None:
    m.read_zero(a, address(1))
    b = m.fork(a, B, AREA)
    m.exit(a, [P0])
    assert frames(m) == {(B, 0): (P0, 1), (B, 1): (0, 0)}
    assert stays(m)[0] == (A, P0, "touch", "exit")
    m.exit(b, [])
    assert frames(m) == {}, "what no rmap_remove named is gone when the teardown is over"


def test_exec_leaves_the_old_address_space_behind(m: Machine, a: Process) -> None:
    m.spawn(A)
    m.event("mm_exit", A, mm=a.mm)
    m.event("rmap_remove", A, mm=a.mm, page=struct_page(P0))
    m.mark(A, "over")
    assert frames(m) == {}


# --- page tables move ---------------------------------------------------------------------------------------------------------------------


def test_a_move_takes_pages_and_zero_pages_along(m: Machine, a: Process) -> None:
    m.touch(a, address(1), P1)
    m.read_zero(a, address(2))
    m.event("table_move", A, mm=a.mm, old=BASE, new=address(100), len=2 * PAGE)
    m.event("table_move", A, mm=a.mm, old=address(2), new=address(200), len=PAGE)
    assert frames(m) == {(A, 100): (P0, 1), (A, 101): (P1, 1), (A, 200): (0, 0)}
    assert m.pages()[A, address(200)]["zero"]
    assert stays(m).count((A, P0, "touch", "moved")) == 1


@pytest.mark.parametrize("by", [-3, -1, 1, 3])
def test_a_move_by_less_than_its_length_keeps_every_page(m: Machine, by: int) -> None:
    """exec's shift_arg_pages: the stack moves within itself."""
    a = m.spawn(A)
    for number in range(4, 10):
        m.touch(a, address(number), P0 + number)
    m.event("table_move", A, mm=a.mm, old=address(4), new=address(4 + by), len=6 * PAGE)
    assert frames(m) == {(A, number + by): (P0 + number, 1) for number in range(4, 10)}
    assert m.history().healed == 0


def test_a_move_s_pages_are_shared_and_copied_at_their_new_place(m: Machine, a: Process) -> None:
    m.event("table_move", A, mm=a.mm, old=BASE, new=address(9), len=PAGE)
    b = m.fork(a, B, AREA)
    m.cow(b, address(9), P0, P1)
    assert frames(m) == {(A, 9): (P0, 1), (B, 9): (P1, 1)}


# --- lives of frames ----------------------------------------------------------------------------------------------------------------------


def test_a_frame_that_is_freed_and_used_again_is_another_page(m: Machine, a: Process) -> None:
    m.dontneed(a, address(0), P0)
    m.free(A, P0)
    m.touch(a, address(1), P0)
    ownership = m.replay().ownership.filter(pl.col("pfn") == P0).collect()
    assert ownership["page_id"].n_unique() == 2
    assert frames(m) == {(A, 1): (P0, 1)}


def test_a_frame_used_again_without_a_free_ends_what_was_there(m: Machine, a: Process) -> None:
    m.touch(a, address(1), P0)
    assert frames(m) == {(A, 1): (P0, 1)}
    assert m.history().healed == 1


def test_a_free_ends_mappings_and_references_that_were_missed(m: Machine, a: Process) -> None:
    m.vmsplice(a, address(0), P0)
    freed = m.free(A, P0)
    assert frames(m) == {}
    (reference,) = references(m)
    assert (reference["to_ns"], reference["released"]) == (freed, "at-latest")


def test_a_free_of_a_larger_block_ends_every_page_in_it(m: Machine, a: Process) -> None:
    m.touch(a, address(1), P0 + 1)
    m.touch(a, address(2), P0 + 4)
    m.event("mm_page_free", A, pfn=P0, order=2)
    assert frames(m) == {(A, 2): (P0 + 4, 1)}


# --- what is older than the trace ---------------------------------------------------------------------------------------------------------


def test_a_reused_page_nobody_saw_coming_was_there_before_the_trace(m: Machine) -> None:
    a = m.older(A)
    first = m.mark(A, "start")
    m.cow(a, address(0), P0)
    m.fork(a, B, AREA)
    assert frames(m, first) == {(A, 0): (P0, 1)}
    assert stays(m)[0] == (A, P0, "before-trace", "open")
    assert m.replay().ownership.collect()["from_ns"].to_list()[0] is None


def test_a_page_found_late_is_a_child_s_only_from_its_fork_on(m: Machine) -> None:
    a = m.older(A)
    m.cow(a, address(3), P2)
    before = m.mark(A, "before")
    b = m.fork(a, B, [(BASE, 2)])
    m.cow(b, address(0), P0)
    assert frames(m, before) == {(A, 3): (P2, 1)}
    assert frames(m)[B, 0] == (P0, 1)


def test_a_zero_page_found_late_does_not_hide_what_was_there_before(m: Machine) -> None:
    """Of a process older than the trace a read fault is not known to map the zero page; the write after it says so."""
    a = m.older(A)
    m.touch(a, address(0), P0)
    moment = m.mark(A, "touched")
    m.dontneed(a, address(0), P0)
    m.fault(a, address(0), READ_FAULT)
    m.zero_fill(a, address(0), P1)
    m.fork(a, B, [(address(9), 1)])
    assert frames(m, moment) == {(A, 0): (P0, 1)}
    assert frames(m) == {(A, 0): (P1, 1)}


def test_a_copy_of_an_unknown_page_says_so(m: Machine) -> None:
    a = m.older(A)
    m.cow(a, address(0), P0, P1)
    m.fork(a, B, [(address(9), 1)])
    (fault,) = faults(m)
    assert (fault["pfn_before"], fault["pfn_after"], fault["decision"]) == (None, P1, "copy")
    assert m.replay().undetermined["event"].to_list() == [fault["event"]]
    assert m.replay("exclusive").faults.collect()["decision"].to_list() == ["undetermined"]
    assert frames(m) == {(A, 0): (P1, 1)}


def test_a_file_page_in_a_known_process_is_copied(m: Machine, a: Process) -> None:
    """Every anonymous page of a process that the trace saw being made is known: what else is written is page cache."""
    m.fault(a, address(5), READ_FAULT, anonymous=False)
    m.cow(a, address(5), 900, P1)
    (fault,) = faults(m)
    assert (fault["decision"], fault["reason"], fault["pfn_before"]) == ("copy", "not-anonymous", None)
    assert frames(m)[A, 5] == (P1, 1)


def test_shared_mappings_are_none_of_cow_s_business(m: Machine, a: Process) -> None:
    m.cow(a, address(5), 900, shared=True)
    assert faults(m) == []
    assert set(frames(m)) == {(A, 0)}


# --- swap ---------------------------------------------------------------------------------------------------------------------------------


def test_a_page_is_swapped_out_and_comes_back(m: Machine, a: Process) -> None:
    m.event("swap_unmap", 99, mm=a.mm, address=address(0), page=struct_page(P0))
    m.event("rmap_remove", 99, mm=a.mm, page=struct_page(P0))
    row = m.pages()[A, address(0)]
    assert (row["pfn"], row["swapped"], row["mapcount"]) == (0, True, 0)
    m.free(99, P0)
    m.fault(a, address(0), READ_FAULT)
    m.event("swap_fault", A, mm=a.mm, address=address(0), fault_flags=READ_FAULT, pte=2)
    m.event("anon_add", A, mm=a.mm, address=address(0), page=struct_page(P1), nr=1, flags=0)
    m.event("swap_fault_done", A, ret=0)
    assert frames(m) == {(A, 0): (P1, 1)}


def test_fork_shares_swap_entries(m: Machine, a: Process) -> None:
    m.event("swap_unmap", 99, mm=a.mm, address=address(0), page=struct_page(P0))
    m.event("rmap_remove", 99, mm=a.mm, page=struct_page(P0))
    m.fork(a, B, AREA)
    assert {key: row["swapped"] for key, row in m.pages().items()} == {(A, address(0)): True, (B, address(0)): True}
