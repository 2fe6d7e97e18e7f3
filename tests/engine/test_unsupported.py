"""What the replay leaves out is named, once for each kind, and nothing is invented where it is seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.build import BASE, PAGE, READ_FAULT, VM_ANON, WRITE_FAULT, Machine, Process, address

HUGETLB, UFFD_MISSING, TRIED = 0x400000, 0x200, 0x20


def fault(m: Machine, p: Process, flags: int, vm_flags: int, vm_ops: int = 0) -> int:
    return m.event("mm_fault", p.tid, mm=p.mm, address=BASE, fault_flags=flags, vm_flags=VM_ANON | vm_flags, vm_ops=vm_ops)


def madvise(m: Machine, p: Process, behavior: int) -> None:
    m.event("sys_enter_madvise", p.tid, start=BASE, len_in=PAGE, behavior=behavior)
    m.event("sys_exit_madvise", p.tid, ret=0)


def swap_fault(m: Machine, p: Process, pte: int) -> None:
    m.event("swap_fault", p.tid, mm=p.mm, address=BASE, fault_flags=READ_FAULT, pte=pte)


#: What happens, and the word that the note has for it.
CASES: dict[str, Callable[[Machine, Process], object]] = {
    "hugetlb": lambda m, p: fault(m, p, WRITE_FAULT, HUGETLB, 1),
    "userfaultfd": lambda m, p: fault(m, p, READ_FAULT, UFFD_MISSING),
    "device memory": lambda m, p: swap_fault(m, p, 25 << 59),
    "MADV_HWPOISON": lambda m, p: madvise(m, p, 100),
    "memory_failure_event": lambda m, p: m.event("memory_failure_event", p.tid, pfn=5, type=1, result=1),
}


@pytest.mark.parametrize("word", CASES)
def test_it_is_named_once(word: str) -> None:
    m = Machine()
    a = m.spawn(10)
    CASES[word](m, a)
    CASES[word](m, a)
    assert [note for note in m.events().notes if word in note].__len__() == 1
    assert m.pages() == {}


def test_nothing_is_named_without_cause() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, BASE, 5)
    madvise(m, a, 4)
    swap_fault(m, a, 1 << 59)
    assert not [note for note in m.events().notes if any(word in note for word in CASES)]


def test_the_note_says_how_often_and_since_when() -> None:
    m = Machine()
    a = m.spawn(10)
    first = fault(m, a, WRITE_FAULT, HUGETLB, 1)
    fault(m, a, WRITE_FAULT, HUGETLB, 1)
    (note,) = [note for note in m.events().notes if "hugetlb" in note]
    assert f"seen 2 times, first at {first} ns" in note


def test_a_fault_that_waits_for_userfaultfd_maps_nothing() -> None:
    m = Machine()
    a = m.spawn(10)
    fault(m, a, READ_FAULT, UFFD_MISSING)
    assert m.pages() == {}


def test_a_page_that_userfaultfd_copies_in_is_the_faulting_process_s() -> None:
    """mfill_atomic_install_pte maps it in the other thread."""
    m = Machine()
    a = m.spawn(10)
    m.spawn(20)
    fault(m, a, READ_FAULT, UFFD_MISSING)
    m.map_new(20, a.mm, BASE, 5)
    fault(m, a, READ_FAULT | TRIED, UFFD_MISSING)
    (row,) = m.pages().values()
    assert (row["pid"], row["pfn"], row["uncertain"]) == (10, 5, False)


def test_the_zero_page_that_userfaultfd_may_have_mapped_is_uncertain() -> None:
    m = Machine()
    a = m.spawn(10)
    fault(m, a, READ_FAULT, UFFD_MISSING)
    fault(m, a, READ_FAULT | TRIED, UFFD_MISSING)
    m.read_zero(a, address(1))
    found = m.pages()
    assert [(row["zero"], row["uncertain"]) for _, row in sorted(found.items())] == [(True, True), (True, False)]
