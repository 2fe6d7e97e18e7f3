"""A new page waits in the LRU batch of its CPU, which holds a reference to it, until that is full or drained (kernel.md, section 1).

A writes to a new page, which mprotect() then makes read-only and writable again: up to 6.0 the next store meets a read-only entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from engine.build import BASE, DONTNEED, PAGE, READ_ONLY, READ_WRITE, Machine, Process, address, struct_page
from tracetool.agreement import UNDETERMINED, agreements
from tracetool.policies import policy
from tracetool.replay.deciding import BATCH_UNKNOWN

M, C, C2, X = "mapcount", "page-count", "page-count-5.18", "exclusive@5.19"
A, B, P0, P1 = 10, 11, 50, 51
SIZES: Final = pytest.mark.parametrize(("release", "size"), [("6.1.0", 15), ("6.8.1", 15), ("6.9.0", 31), ("6.12.9", 31)])


def drained(m: Machine, p: Process, cpu: int = 0) -> None:
    """munmap() drains the batch of its CPU."""
    was, m.cpu = m.cpu, cpu
    m.munmap(p, address(3000), None)
    m.cpu = was


def begun(known: bool = True) -> tuple[Machine, Process]:
    """A has its page; how full the batches of both CPUs were before is known or not."""
    m = Machine(batches=True)
    a = m.spawn(A)
    if known:
        for cpu in (0, 1):
            drained(m, a, cpu)
    m.touch(a, address(0), P0)
    return m, a


def stored(m: Machine, a: Process, new: int | None = None) -> None:
    """The store, as recorded."""
    m.mprotect(a, address(0), READ_ONLY)
    m.mprotect(a, address(0), READ_WRITE)
    m.cow(a, address(0), P0, new)


def decided(m: Machine, under: str) -> tuple[str, str]:
    """What the last store comes to, and why."""
    row: dict[str, Any] = m.replay(under).faults.collect().to_dicts()[-1]
    return row["decision"], row["reason"]


def others(m: Machine, p: Process, pages: int) -> None:
    """So many more pages are allocated and joined to the batch."""
    for number in range(pages):
        m.touch(p, address(100 + number), 0x400 + number)


def test_a_page_in_its_cpu_s_batch_is_copied_by_page_count_alone() -> None:
    """5.18 and 5.19 drain the batch first. 5.19 marks the page exclusive besides: that A's page was never shared."""
    m, a = begun()
    stored(m, a)
    assert {under: decided(m, under) for under in (M, C, C2, X)} == {
        M: ("reuse", "sole-owner"), C: ("copy", "lru-batch"), C2: ("reuse", "sole-owner"), X: ("reuse", "exclusive"),
    }  # fmt: skip


@SIZES
@pytest.mark.parametrize("missing", [0, 1])
def test_a_full_batch_is_emptied(release: str, size: int, missing: int) -> None:
    """15 pages up to 6.8, 31 since; the last that joins empties it."""
    m, a = begun()
    m.release = release
    others(m, a, size - 1 - missing)
    stored(m, a)
    assert decided(m, C) == (("copy", "lru-batch") if missing else ("reuse", "sole-owner"))


@SIZES
def test_a_full_batch_begins_anew(release: str, size: int) -> None:
    m = Machine(batches=True)
    m.release = release
    a = m.spawn(A)
    drained(m, a)
    others(m, a, size)
    m.touch(a, address(0), P0)
    others(m, a, 3)
    stored(m, a)
    assert decided(m, C) == ("copy", "lru-batch")


def exits(m: Machine, a: Process) -> None:
    m.exit(m.fork(a, B, [(BASE, 1)]), [P0])


def frees_in_batches(m: Machine, a: Process) -> None:
    m.event("mm_page_free_batched", a.tid, pfn=0x900)


def gets_a_huge_page(m: Machine, a: Process) -> None:
    """A larger page takes the whole batch along."""
    m.allocate(a.tid, 0x8A00, 9)


@pytest.mark.parametrize(
    ("drains", "empty"),
    [
        (exits, True),
        (lambda m, a: m.munmap(a, address(9), None), True),
        (lambda m, a: m.dontneed(a, address(9), None), True),
        (frees_in_batches, True),
        (gets_a_huge_page, True),
        (lambda m, a: m.event("sys_enter_madvise", a.tid, start=address(9), len_in=PAGE, behavior=DONTNEED + 10), False),
        (lambda m, a: m.mremap(a, address(8), address(9)), True),
        (lambda m, a: m.fork(a, B, []), False),
        (lambda m, a: m.free(a.tid, 0x900), False),
    ],
    ids=["exit", "munmap", "MADV_DONTNEED", "batched free", "huge page", "MADV_HUGEPAGE", "mremap, which unmaps", "fork", "free"],
)  # fmt: skip
def test_what_drains_a_batch(drains: Callable[[Machine, Process], Any], empty: bool) -> None:
    m, a = begun()
    drains(m, a)
    stored(m, a)
    assert (decided(m, C)[0] == "reuse") == empty


def test_what_drains_another_cpu_s_batch_does_not_drain_this_one() -> None:
    m, a = begun()
    drained(m, a, cpu=1)
    stored(m, a)
    assert decided(m, C) == ("copy", "lru-batch")


def shared_no_more(m: Machine, a: Process) -> None:
    """A's page is not exclusive any more, though nobody else maps it: B was forked, and wrote on CPU 1."""
    b = m.fork(a, B, [(BASE, 1)])
    m.cpu = 1
    m.cow(b, address(0), P0, P1)


@pytest.mark.parametrize(("cpu", "kept"), [(0, True), (1, False)])
def test_only_the_batch_of_one_s_own_cpu_is_drained(cpu: int, kept: bool) -> None:
    m, a = begun()
    shared_no_more(m, a)
    m.cpu = cpu
    m.cow(a, address(0), P0)
    for under in (C2, X, "exclusive@6.12", "exclusive"):
        assert decided(m, under) == (("reuse", "sole-owner") if kept else ("copy", "lru-batch")), under
    assert decided(m, M) == ("reuse", "sole-owner")
    assert decided(m, C) == ("copy", "lru-batch")


def test_a_batch_that_a_store_drained_is_empty_for_the_next() -> None:
    """B's store on CPU 0 drains the batch in which A's page waits, too; under 5.10 nothing drains it."""
    m, a = begun()
    m.touch(a, address(1), P1)
    b = m.fork(a, B, [(BASE, 2)])
    m.cow(b, address(0), P0, 0x90)
    m.cow(b, address(1), P1, 0x91)
    m.cow(a, address(1), P1)
    m.cpu = 1
    m.cow(a, address(0), P0)
    assert decided(m, C2) == ("reuse", "sole-owner")
    assert decided(m, C) == ("copy", "lru-batch")


def test_a_store_to_a_page_with_more_than_three_references_drains_nothing() -> None:
    """They give up first where two others map the page: 3 mappings and the batch."""
    m, a = begun()
    b, c = (m.fork(a, tid, [(BASE, 1)]) for tid in (B, B + 1))
    m.cow(b, address(0), P0, 0x90)
    m.cpu = 1
    m.cow(c, address(0), P0, 0x91)
    m.cow(a, address(0), P0)
    for under in (C2, X, "exclusive@6.12", "exclusive@7.3"):
        assert decided(m, under) == ("copy", "lru-batch"), under


@pytest.mark.parametrize(
    ("under", "drains"), [(C2, True), (X, True), ("exclusive@6.12", True), ("exclusive@7.2", True), ("exclusive@7.3", False)]
)
def test_a_store_to_a_page_that_one_other_maps_drains_its_batch_until_73(under: str, drains: bool) -> None:
    """B's store is copied either way; A's, on the other CPU, finds the page still in the batch or not. 7.3 as read looks first whether
    draining could help.
    """
    m, a = begun()
    b = m.fork(a, B, [(BASE, 1)])
    m.cow(b, address(0), P0, 0x90)
    m.cpu = 1
    m.cow(a, address(0), P0)
    assert decided(m, under) == (("reuse", "sole-owner") if drains else ("copy", "lru-batch"))


def test_a_copy_that_only_the_policy_makes_waits_in_a_batch_itself() -> None:
    """A's store copies under page-count only; the next store of A to the copy, after another mprotect, finds it in the batch."""
    m, a = begun()
    stored(m, a)
    stored(m, a)
    faults = m.replay(C).faults.collect()
    assert faults["reason"].to_list() == ["lru-batch", "lru-batch"]
    drained(m, a)
    stored(m, a)
    assert decided(m, C) == ("reuse", "sole-owner")


def test_how_full_a_batch_was_before_the_trace_is_not_known() -> None:
    """Before anything drains it the page may have left it: not judged, with that reason; what is likely is that it has."""
    m, a = begun(known=False)
    stored(m, a)
    (judged,) = agreements(m.history(), [policy(C)])
    assert judged.undetermined == 1
    assert judged.reasons == {UNDETERMINED[BATCH_UNKNOWN]: 1}
    row = m.replay(C).fault_rows.to_dicts()[-1]
    assert (row["decision"], row["unsure"]) == ("reuse", True)
    (judged,) = agreements(m.history(), [policy(M)])
    assert judged.undetermined == 0


def test_a_batch_that_was_full_once_is_still_not_known_until_it_is_drained() -> None:
    """15 pages are more than were missing; of the last of them it is not known which batch they are in."""
    m, a = begun(known=False)
    others(m, a, 20)
    m.mprotect(a, address(119), READ_ONLY)
    m.mprotect(a, address(119), READ_WRITE)
    m.cow(a, address(119), 0x400 + 19)
    stored(m, a)
    first, last = m.replay(C).fault_rows.to_dicts()[-2:]
    assert (first["decision"], first["unsure"]) == ("reuse", True)
    assert (last["decision"], last["unsure"]) == ("reuse", False)


def test_without_the_kind_of_an_allocation_nothing_is_said_of_batches() -> None:
    m = Machine()
    a = m.spawn(A)
    drained(m, a)
    m.touch(a, address(0), P0)
    stored(m, a)
    assert decided(m, C) == ("reuse", "sole-owner")


def test_a_recorded_copy_from_a_batch_is_told_as_such() -> None:
    m, a = begun()
    stored(m, a, P1)
    row = m.replay().faults.collect().to_dicts()[-1]
    assert (row["decision"], row["reason"]) == ("copy", "lru-batch")
    (judged,) = agreements(m.history(), [policy(C)])
    assert (judged.faults, judged.same, judged.contested, judged.contested_same) == (1, 1, 1, 1)


def test_a_page_in_a_batch_that_a_frame_of_another_life_was_in_is_not_in_it() -> None:
    """The frame was freed and allocated again after the batch had been drained; on the other CPU."""
    m, a = begun()
    m.event("sys_enter_munmap", A, addr=BASE, len=PAGE)
    m.event("rmap_remove", A, mm=a.mm, page=struct_page(P0))
    m.free(A, P0)
    m.event("sys_exit_munmap", A, ret=0)
    m.cpu = 1
    m.touch(a, address(0), P0)
    drained(m, a, cpu=1)
    m.cpu = 0
    stored(m, a)
    assert decided(m, C) == ("reuse", "sole-owner")
