"""References in the observed replay: taken by whom, to what, and released when, as well as that is known."""

from __future__ import annotations

import pytest

from engine.build import (
    BASE,
    FOLL_GET,
    FOLL_PIN,
    FOLL_WRITE,
    PAGE,
    Machine,
    Process,
    address,
    references,
)

A, B = 10, 11
AREA = [(BASE, 16)]
P0, P1, P2 = 50, 51, 52


@pytest.fixture
def m() -> Machine:
    return Machine()


@pytest.fixture
def a(m: Machine) -> Process:
    """A process with one page, P0."""
    process = m.spawn(A)
    m.touch(process, address(0), P0)
    return process


def test_a_vmsplice_reference(m: Machine, a: Process) -> None:
    held = m.vmsplice(a, address(0), P0)
    row = m.pages()[A, address(0)]
    assert (row["references"], row["pins"]) == (1, 0)
    end = m.pipe_release(A, P0)
    assert m.pages()[A, address(0)]["references"] == 0
    (reference,) = references(m)
    said = (reference["kind"], reference["access"], reference["longterm"], reference["via"], reference["released"])
    assert said == ("get", "read", False, "vmsplice", "exact")
    assert (reference["pfn"], reference["pid"], reference["by_pid"]) == (P0, A, A)
    assert (reference["from_ns"], reference["to_ns"]) == (held, end)


def test_a_pin(m: Machine, a: Process) -> None:
    m.pin(a, address(0), P0)
    row = m.pages()[A, address(0)]
    assert (row["references"], row["pins"]) == (0, 1)
    m.unpin(A, P0)
    assert m.pages()[A, address(0)]["pins"] == 0
    (reference,) = references(m)
    kind = (reference["kind"], reference["access"], reference["longterm"], reference["via"], reference["released"])
    assert kind == ("pin", "write", True, "io_uring", "exact")


def test_a_reference_that_nothing_releases_is_open_and_unknown(m: Machine, a: Process) -> None:
    m.event("gup_fast", A, start=address(0), nr_pages=1, flags=FOLL_GET | FOLL_WRITE)
    m.event("gup_fast_done", A, ret=1)
    (reference,) = references(m)
    assert (reference["to_ns"], reference["released"], reference["via"]) == (None, "unknown", "other")


def test_process_vm_holds_its_pages_no_longer_than_the_call(m: Machine, a: Process) -> None:
    b = m.spawn(B)
    m.event("sys_enter_process_vm_readv", B)
    m.event("gup", B, mm=a.mm, start=address(0), nr_pages=1, flags=0x42002)
    m.event("gup_done", B, ret=1)
    end = m.event("sys_exit_process_vm_readv", b.tid, ret=PAGE)
    (reference,) = references(m)
    holder = (reference["pid"], reference["by_pid"], reference["via"])
    assert holder == (A, B, "process_vm")
    assert (reference["to_ns"], reference["released"]) == (end, "at-latest")


def test_an_unpin_inside_the_call_is_the_exact_release(m: Machine, a: Process) -> None:
    m.spawn(B)
    m.event("sys_enter_process_vm_readv", B)
    m.event("gup", B, mm=a.mm, start=address(0), nr_pages=1, flags=0x42002)
    m.event("gup_done", B, ret=1)
    end = m.unpin(B, P0)
    m.event("sys_exit_process_vm_readv", B, ret=PAGE)
    (reference,) = references(m)
    assert (reference["to_ns"], reference["released"]) == (end, "exact")


def test_each_release_ends_one_reference_the_oldest_of_its_kind(m: Machine, a: Process) -> None:
    m.vmsplice(a, address(0), P0)
    m.pin(a, address(0), P0)
    m.vmsplice(a, address(0), P0)
    unpinned = m.unpin(A, P0)
    released = m.pipe_release(A, P0)
    assert [(r["kind"], r["to_ns"]) for r in references(m)] == [("get", released), ("pin", unpinned), ("get", None)]


def test_a_pipe_drops_no_reference_that_something_else_took(m: Machine, a: Process) -> None:
    m.event("sys_enter_process_vm_readv", A)
    m.event("gup_fast", A, start=address(0), nr_pages=1, flags=FOLL_GET)
    m.event("gup_fast_done", A, ret=1)
    m.vmsplice(a, address(0), P0)
    m.pipe_release(A, P0)
    assert [(r["via"], r["to_ns"] is None) for r in references(m)] == [("process_vm", True), ("vmsplice", False)]


def test_a_release_of_many_pages_ends_those_of_the_request(m: Machine, a: Process) -> None:
    for number in range(1, 4):
        m.touch(a, address(number), P0 + number)
    m.event("sys_enter_io_uring_register", A, fd=5, opcode=0)
    m.event("gup", A, mm=a.mm, start=address(0), nr_pages=4, flags=0x50001)
    m.event("gup_done", A, ret=4)
    m.event("sys_exit_io_uring_register", A, ret=0)
    m.unpin(A, P0 + 1, pages=2)
    assert [row["pins"] for row in m.pages().values()] == [1, 0, 0, 1]


def test_vmsplice_keeps_only_what_fits_into_the_pipe(m: Machine, a: Process) -> None:
    m.touch(a, address(1), P1)
    m.event("sys_enter_vmsplice", A, fd=4)
    m.event("gup_fast", A, start=address(0), nr_pages=2, flags=FOLL_GET)
    m.event("gup_fast_done", A, ret=2)
    m.event("sys_exit_vmsplice", A, ret=PAGE)
    assert [row["references"] for row in m.pages().values()] == [1, 0]


def test_a_reference_outlives_the_mapping_and_the_process(m: Machine, a: Process) -> None:
    m.spawn(B)
    m.vmsplice(a, address(0), P0)
    m.exit(a, [P0])
    end = m.pipe_release(B, P0)
    (reference,) = references(m)
    assert (reference["pid"], reference["to_ns"], reference["released"]) == (A, end, "exact")


def test_a_reference_moves_with_no_page(m: Machine, a: Process) -> None:
    """The copy that A gets is not referenced: the holder keeps the page that it took."""
    m.fork(a, B, AREA)
    m.vmsplice(a, address(0), P0)
    m.cow(a, address(0), P0, P1)
    counted = {key: row["references"] for key, row in m.pages().items()}
    assert counted == {(A, address(0)): 0, (B, address(0)): 1}


def pinned_by(m: Machine, a: Process, requests: list[tuple[int, int]]) -> None:
    """Pages 0 to 5 with frames 60 to 65, pinned by these requests: (first page, pages)."""
    for number in range(1, 6):
        m.touch(a, address(number), 60 + number)
    for first, pages in requests:
        m.event("gup", A, mm=a.mm, start=address(first), nr_pages=pages, flags=FOLL_PIN | FOLL_WRITE)
        m.event("gup_done", A, ret=pages)


@pytest.mark.parametrize(
    ("requests", "released", "left"),
    [
        # A buffer pinned piece by piece is released at once,
        ([(1, 2), (3, 2), (5, 1)], 5, []),
        ([(1, 2), (3, 2), (5, 1)], 3, [4, 5]),
        # but not beyond where a request goes on: another buffer is another's to release.
        ([(1, 2), (4, 2)], 4, [4, 5]),
        ([(1, 2), (2, 2)], 4, [2, 3]),
    ],
)
def test_a_release_goes_on_into_the_requests_that_go_on(
    m: Machine, a: Process, requests: list[tuple[int, int]], released: int, left: list[int]
) -> None:
    pinned_by(m, a, requests)
    m.unpin(A, 61, released)
    held = [(each["address"] - BASE) // PAGE for each in references(m) if each["to_ns"] is None]
    assert sorted(held) == left


def test_a_release_does_not_go_on_into_what_another_thread_asked_for(m: Machine, a: Process) -> None:
    pinned_by(m, a, [(1, 2)])
    m.new_task(a, 12, 0x10100)
    m.event("gup", 12, mm=a.mm, start=address(3), nr_pages=1, flags=FOLL_PIN | FOLL_WRITE)
    m.event("gup_done", 12, ret=1)
    m.unpin(A, 61, 3)
    assert [each["released"] for each in references(m)] == ["exact", "exact", "unknown"]
