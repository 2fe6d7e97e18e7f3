"""What becomes of pages besides faults and forks: calls that change areas, reclaim, migration, merging, and huge pages of zeros."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.build import (
    BASE,
    FOLL_REMOTE,
    FOLL_TOUCH,
    KSMD,
    KSWAPD,
    PAGE,
    READ_FAULT,
    VM_ANON,
    WRITE_FAULT,
    Machine,
    Process,
    Recording,
    address,
    pages_of,
    struct_page,
)
from tracetool.memory_events import memory_events
from tracetool.processes import processes
from tracetool.replay import Replay, rebuild

A, B = 10, 11
AREA = [(BASE, 16)]
P0, P1, P2, P3 = 50, 51, 52, 53
MADV_FREE, DONTNEED, DONTNEED_LOCKED = 8, 4, 24
ANONYMOUS, FIXED, POPULATE = 0x22, 0x10, 0x8000
HUGE = 512


@pytest.fixture
def m() -> Machine:
    return Machine()


@pytest.fixture
def a(m: Machine) -> Process:
    """A process with one page, P0."""
    process = m.spawn(A)
    m.touch(process, address(0), P0)
    return process


def mapped(m: Machine) -> dict[tuple[int, int], str | int]:
    """(pid, number of the page) -> its frame, "zero" or "swapped"."""
    return {
        (pid, (at - BASE) // PAGE): "zero" if row["zero"] else "swapped" if row["swapped"] else row["pfn"]
        for (pid, at), row in m.pages().items()
    }


def madvise(m: Machine, p: Process, first: int, pages: int, behavior: int, ret: int = 0) -> None:
    m.event("sys_enter_madvise", p.tid, start=address(first), len_in=pages * PAGE, behavior=behavior)
    m.event("sys_exit_madvise", p.tid, ret=ret)


def mmap(m: Machine, p: Process, at: int, pages: int, flags: int = ANONYMOUS) -> None:
    m.event("sys_enter_mmap", p.tid, addr=at, len=pages * PAGE, prot=3, flags=flags)
    m.event("sys_exit_mmap", p.tid, ret=at)


def swapped(m: Machine, *owners: Process) -> None:
    """P0 is swapped out and its frame freed."""
    m.swap_out(KSWAPD, P0, [(p, address(0)) for p in owners])
    m.free(KSWAPD, P0)


# -- calls that change areas


def test_mmap_that_populates_keeps_the_zero_pages_that_it_maps(m: Machine, a: Process) -> None:
    """The area is filled before mmap returns; what was there before goes."""
    m.read_zero(a, address(1))
    m.event("sys_enter_mmap", A, addr=address(0), len=3 * PAGE, prot=1, flags=ANONYMOUS | FIXED | POPULATE)
    m.event("rmap_remove", A, mm=a.mm, page=struct_page(P0))
    m.event("gup", A, mm=a.mm, start=address(0), nr_pages=3, flags=FOLL_TOUCH)
    for number in (0, 2):
        m.read_zero(a, address(number))
    m.event("gup_done", A, ret=2)
    m.event("sys_exit_mmap", A, ret=address(0))
    assert mapped(m) == {(A, 0): "zero", (A, 2): "zero"}


def test_mremap_to_a_fixed_address_clears_all_of_where_it_moves_to(m: Machine, a: Process) -> None:
    """Also where the area that moves has holes."""
    for number in (4, 5):
        m.read_zero(a, address(number))
    m.event("sys_enter_mremap", A, addr=address(0), old_len=2 * PAGE, new_len=2 * PAGE, flags=3)
    m.event("table_move", A, mm=a.mm, old=address(0), new=address(4), len=2 * PAGE)
    m.event("sys_exit_mremap", A, ret=address(4))
    assert mapped(m) == {(A, 4): P0}


def test_mremap_of_which_only_the_call_is_seen_moves_pages(m: Machine, a: Process) -> None:
    """On Debian's 5.10 move_page_tables is inlined into move_vma."""
    m.read_zero(a, address(5))
    m.event("sys_enter_mremap", A, addr=address(0), old_len=2 * PAGE, new_len=4 * PAGE, flags=3)
    m.event("sys_exit_mremap", A, ret=address(4))
    assert mapped(m) == {(A, 4): P0}


def test_mremap_in_place_moves_nothing(m: Machine, a: Process) -> None:
    m.event("sys_enter_mremap", A, addr=address(0), old_len=PAGE, new_len=4 * PAGE, flags=1)
    m.event("sys_exit_mremap", A, ret=address(0))
    assert mapped(m) == {(A, 0): P0}


@pytest.mark.parametrize(("behavior", "ret", "left"), [(DONTNEED, -12, 0), (DONTNEED_LOCKED, 0, 0), (DONTNEED, -22, 2), (14, 0, 2)])
def test_madvise_over_holes_does_its_work(m: Machine, a: Process, behavior: int, ret: int, left: int) -> None:
    for number in (1, 2):
        m.read_zero(a, address(number))
    madvise(m, a, 1, 8, behavior, ret)
    assert list(mapped(m).values()).count("zero") == left


def test_of_a_page_mapped_at_several_addresses_the_call_s_own_goes(m: Machine, a: Process) -> None:
    for number in (1, 2, 3):
        m.touch(a, address(number), P0 + number)
    for number in (1, 2, 3):
        m.ksm_merge(a, address(number), P0 + number, P0)
    m.munmap(a, address(1), P0)
    assert mapped(m) == {(A, 0): P0, (A, 2): P0, (A, 3): P0}
    m.munmap(a, address(0), P0)
    assert mapped(m) == {(A, 2): P0, (A, 3): P0}


@pytest.mark.parametrize(("call", "left"), [({"new_len": PAGE, "new_addr": address(2)}, 3), ({"new_len": PAGE, "old_len": 2 * PAGE}, 3)])
def test_mremap_unmaps_where_it_moves_to_or_what_it_cuts_off(m: Machine, a: Process, call: dict[str, int], left: int) -> None:
    """Of a merged page at several addresses that is the one that goes."""
    for number in (1, 2, 3):
        m.touch(a, address(number), P0 + number)
        m.ksm_merge(a, address(number), P0 + number, P0)
    m.event("sys_enter_mremap", A, **({"addr": address(1), "old_len": PAGE, "flags": 3} | call))
    m.event("rmap_remove", A, mm=a.mm, page=struct_page(P0))
    assert sorted(at for _, at in mapped(m)) == [0, 1, left]


# -- reclaim


def test_reclaim_drops_what_madv_free_gave_up(m: Machine, a: Process) -> None:
    madvise(m, a, 0, 1, MADV_FREE)
    assert mapped(m) == {(A, 0): P0}
    swapped(m, a)
    assert mapped(m) == {}


def test_a_page_written_to_after_madv_free_is_swapped_at_the_second_attempt(m: Machine, a: Process) -> None:
    """The first finds it dirty and leaves it where it is."""
    madvise(m, a, 0, 1, MADV_FREE)
    m.event("swap_unmap", KSWAPD, mm=a.mm, address=address(0), page=struct_page(P0))
    m.mark(1, "between")
    assert mapped(m) == {(A, 0): P0}
    swapped(m, a)
    assert mapped(m) == {(A, 0): "swapped"}


def test_madv_free_gives_up_no_page_that_somebody_shares(m: Machine, a: Process) -> None:
    b = m.fork(a, B, AREA)
    madvise(m, a, 0, 1, MADV_FREE)
    swapped(m, a, b)
    assert mapped(m) == {(A, 0): "swapped", (B, 0): "swapped"}


def test_madv_free_frees_what_is_in_swap(m: Machine, a: Process) -> None:
    b = m.fork(a, B, AREA)
    swapped(m, a, b)
    madvise(m, a, 0, 1, MADV_FREE)
    assert mapped(m) == {(B, 0): "swapped"}


def old_machine() -> Machine:
    """Of 5.10: unmaps name no address space."""
    return Machine(without=["rmap_remove.mm"])


def test_munlock_on_the_way_to_munmap_swaps_nothing() -> None:
    """Before 5.14 it goes through try_to_unmap_one, in every space that maps the page."""
    m = old_machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    b = m.fork(a, B, AREA)
    m.event("sys_enter_munmap", A, addr=address(0), len=PAGE)
    for p in (a, b):
        m.event("swap_unmap", A, mm=p.mm, address=address(0), page=struct_page(P0))
    m.event("rmap_remove", A, page=struct_page(P0))
    m.event("sys_exit_munmap", A, ret=0)
    assert mapped(m) == {(B, 0): P0}


def test_munlock_in_a_teardown_ends_no_teardown() -> None:
    m = old_machine()
    a = m.spawn(A)
    for number in range(3):
        m.touch(a, address(number), P0 + number)
    b = m.fork(a, B, AREA)
    m.event("mm_exit", B, mm=b.mm)
    m.event("gup_grab_page", B, page=struct_page(P1), flags=0xC)
    m.event("swap_unmap", B, mm=a.mm, address=address(1), page=struct_page(P1))
    for number in range(3):
        m.event("rmap_remove", B, page=struct_page(P0 + number))
    m.event("sched_process_exit", B, pid=B)
    assert mapped(m) == {(A, number): P0 + number for number in range(3)}


def test_reclaim_by_a_thread_in_the_middle_of_something_else_is_reclaim() -> None:
    m = old_machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    b = m.spawn(B)
    m.fault(b, address(0), WRITE_FAULT)
    m.event("swap_unmap", B, mm=a.mm, address=address(0), page=struct_page(P0))
    m.event("rmap_remove", B, page=struct_page(P0))
    assert mapped(m) == {(A, 0): "swapped"}


# -- faults that the thread has left behind


def test_a_page_mapped_later_nearby_is_not_what_a_fault_led_to(m: Machine, a: Process) -> None:
    """The read of page 1 mapped the zero page; that page 2 comes back from migration later on the same thread has nothing to do with it."""
    m.touch(a, address(2), P2)
    m.read_zero(a, address(1))
    m.event("migrate_unmap", A, mm=a.mm, address=address(2), page=struct_page(P2))
    m.event("rmap_remove", A, mm=a.mm, page=struct_page(P2))
    m.map_again(A, a.mm, address(2), P3)
    assert mapped(m) == {(A, 0): P0, (A, 1): "zero", (A, 2): P3}


# -- migration


def test_a_page_that_migrates_has_another_frame(m: Machine, a: Process) -> None:
    b = m.fork(a, B, AREA)
    for p in (a, b):
        m.event("migrate_unmap", KSWAPD, mm=p.mm, address=address(0), page=struct_page(P0))
        m.event("rmap_remove", KSWAPD, mm=p.mm, page=struct_page(P0))
    for p in (a, b):
        m.map_again(KSWAPD, p.mm, address(0), P1)
    m.free(KSWAPD, P0)
    found = m.pages()
    assert {key: (row["pfn"], row["mapcount"], row["ksm"]) for key, row in found.items()} == {
        (A, BASE): (P1, 2, False), (B, BASE): (P1, 2, False),
    }  # fmt: skip
    stays = m.replay().ownership.collect()
    assert stays["ended"].cast(str).to_list().count("migrated") == 2
    assert stays["began"].cast(str).to_list().count("migration") == 2


def test_a_migration_that_fails_changes_nothing(m: Machine, a: Process) -> None:
    m.event("migrate_unmap", KSWAPD, mm=a.mm, address=address(0), page=struct_page(P0))
    m.event("rmap_remove", KSWAPD, mm=a.mm, page=struct_page(P0))
    m.map_again(KSWAPD, a.mm, address(0), P0)
    assert mapped(m) == {(A, 0): P0}
    assert m.replay().ownership.collect()["to_ns"].null_count() == 2, "that, and exec's stack"


def huge(m: Machine, p: Process, at: int, pfn: int) -> None:
    """A huge page is touched."""
    m.fault(p, at, WRITE_FAULT)
    m.event("mm_page_alloc", p.tid, pfn=pfn, order=9)
    m.event("anon_new", p.tid, mm=p.mm, address=at, page=struct_page(pfn))


HUGE_AT = BASE & ~0x1FFFFF


@pytest.mark.parametrize("succeeds", [True, False])
def test_a_huge_page_migrates_as_one_without_a_word_of_where_to(m: Machine, a: Process, succeeds: bool) -> None:
    """Since 6.7 folio_add_anon_rmap_pmd maps it, which no probe sees: what was allocated for it tells, unless that is what is freed."""
    huge(m, a, HUGE_AT + 0x200000, 4 * HUGE)
    m.event("mm_page_alloc", KSWAPD, pfn=8 * HUGE, order=9)
    m.event("migrate_unmap", KSWAPD, mm=a.mm, address=HUGE_AT + 0x200000, page=struct_page(4 * HUGE))
    m.event("rmap_remove_pmd", KSWAPD, mm=a.mm, page=struct_page(4 * HUGE))
    m.event("mm_page_free", KSWAPD, pfn=4 * HUGE if succeeds else 8 * HUGE, order=9)
    found = {row["pfn"] for (_, at), row in m.pages().items() if at >= HUGE_AT + 0x200000}
    first = (8 if succeeds else 4) * HUGE
    assert found == set(range(first, first + HUGE))


def test_pages_of_nothing_but_zeros_go_when_a_huge_page_is_taken_apart(m: Machine, a: Process) -> None:
    """try_to_map_unused_to_zeropage: their frames are freed, and nothing maps them again."""
    at = HUGE_AT + 0x200000
    huge(m, a, at, 4 * HUGE)
    m.event("migrate_unmap", KSWAPD, mm=a.mm, address=at, page=struct_page(4 * HUGE))
    m.event("huge_split", KSWAPD, mm=a.mm, address=at)
    m.event("rmap_remove_pmd", KSWAPD, mm=a.mm, page=struct_page(4 * HUGE))
    m.event("anon_add", KSWAPD, mm=a.mm, address=at + PAGE, page=struct_page(4 * HUGE + 1), nr=1, flags=0)
    for number in range(HUGE):
        if number != 1:
            m.free(KSWAPD, 4 * HUGE + number)
    rows = {(where - at) // PAGE: row for (_, where), row in m.pages().items() if where >= at}
    assert rows.pop(1)["pfn"] == 4 * HUGE + 1
    assert len(rows) == HUGE - 1
    assert all(row["zero"] for row in rows.values())


# -- zero pages


def read_huge(m: Machine, p: Process, at: int) -> None:
    m.fault(p, at, READ_FAULT)
    m.event("huge_anon_fault", p.tid, mm=p.mm, address=at)


@pytest.mark.parametrize(
    ("cut", "pages"),
    [
        (None, HUGE),
        (("munmap", 0, 4), 1),
        (("mprotect", 0, 4), 1),
        (("munmap", 2 * HUGE, 4), HUGE),
        (("mprotect", 0, 4 * HUGE), HUGE),
    ],
)
def test_a_read_of_an_untouched_huge_area_maps_the_huge_zero_page(
    m: Machine, a: Process, cut: tuple[str, int, int] | None, pages: int
) -> None:
    """If the area reaches over all of it."""
    at = HUGE_AT + 0x20000000
    mmap(m, a, at, 4 * HUGE)
    if cut:
        call, first, length = cut
        named = {"munmap": {"addr": at + first * PAGE, "len": length * PAGE}}.get(
            call, {"start": at + first * PAGE, "len": length * PAGE, "prot": 1}
        )
        m.event(f"sys_enter_{call}", A, **named)
        m.event(f"sys_exit_{call}", A, ret=0)
    read_huge(m, a, at + 5 * PAGE)
    assert sum(row["zero"] for row in m.pages().values()) == pages


def test_a_child_knows_the_areas_of_its_parent(m: Machine, a: Process) -> None:
    at = HUGE_AT + 0x20000000
    mmap(m, a, at, HUGE)
    b = m.fork(a, B, [(at, HUGE)])
    read_huge(m, b, at)
    assert sum(row["zero"] for row in m.pages().values()) == HUGE


def test_file_mappings_have_no_huge_zero_page(m: Machine, a: Process) -> None:
    at = HUGE_AT + 0x20000000
    mmap(m, a, at, HUGE, flags=2)
    read_huge(m, a, at)
    assert sum(row["zero"] for row in m.pages().values()) == 1


def with_names(recording: Recording, cmdlines: dict[int, str]) -> Replay:
    """The observed replay, with the names that a trace saves."""
    source: Any = recording.source()
    source.metadata = SimpleNamespace(cmdlines=cmdlines)
    events = memory_events(source, "6.1.0")
    return Replay(rebuild(events), processes(events, source))


@pytest.mark.parametrize(("name", "left"), [("ksmd", "zero"), ("oom_reaper", None)])
def test_ksm_replaces_pages_of_zeros_by_the_zero_page(m: Machine, a: Process, name: str, left: str | None) -> None:
    """With use_zero_pages: one mapping goes, and nothing says what came."""
    m.event("rmap_remove", KSMD, mm=a.mm, page=struct_page(P0))
    rows = pages_of(with_names(m, {KSMD: name}), m.now)
    assert [row["zero"] for key, row in rows.items() if key == (A, BASE)] == ([True] if left else [])


def test_what_ksm_merges_into_a_page_is_not_the_zero_page(m: Machine, a: Process) -> None:
    m.touch(a, address(1), P1)
    m.ksm_merge(a, address(1), P1, P0)
    rows = pages_of(with_names(m, {KSMD: "ksmd"}), m.now)
    assert {key: (row["pfn"], row["mapcount"], row["ksm"]) for key, row in rows.items()} == {
        (A, address(0)): (P0, 2, True), (A, address(1)): (P0, 2, True),
    }  # fmt: skip


def test_a_poke_into_another_process_still_faults_there(m: Machine, a: Process) -> None:
    """FOLL_REMOTE outside of system calls that are known: the fault is of the memory that it is about."""
    b = m.spawn(B)
    m.event("gup", B, mm=a.mm, start=address(1), nr_pages=1, flags=FOLL_REMOTE | FOLL_TOUCH)
    m.event("mm_fault", B, mm=a.mm, address=address(1), fault_flags=READ_FAULT | 0x80, vm_flags=VM_ANON, vm_ops=0)
    m.event("gup_done", B, ret=1)
    assert mapped(m) == {(A, 0): P0, (A, 1): "zero"}
    assert b.mm != a.mm
