"""GUP, exec and system calls: what is referenced, through what, what is given back when, and which areas change."""

from __future__ import annotations

from typing import Any, Final

import pytest

from engine.build import (
    BASE,
    CLONE_VM,
    FOLL_FORCE,
    FOLL_GET,
    FOLL_PIN,
    FOLL_REMOTE,
    FOLL_TOUCH,
    FOLL_WRITE,
    PAGE,
    READ_FAULT,
    STACK,
    Machine,
    Recording,
    address,
    only,
    references,
    rows,
)
from tracetool.memory_events import Op
from tracetool.memory_events import codes as c
from tracetool.memory_events.rows import merge
from tracetool.schema import VIA


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
    r.release = "6.12.0" if layout == OLD else "5.10.0"  # misleads
    assert rows(r.events(), Op.REF_GET)[-1]["flags"] & 0xFF == expected


#: (event, flags) of GUP as recorded, with what it is.
SEEN_OLD: Final = [
    ("gup", 0x2007, "exec, 6.1"), ("gup", 0x2017, "exec, 5.10"), ("gup_fast", 0x4, "vmsplice"), ("gup", 0x42003, "process_vm_writev"),
    ("gup", 0x52003, "VFIO: FOLL_LONGTERM through another mm"), ("gup_fast", 0x50001, "RDMA"), ("gup_fast", 0x80004, "FOLL_FAST_ONLY"),
]  # fmt: skip
SEEN_NEW: Final = [
    ("gup", 0x50003, "exec"),
    ("gup_fast", 0x2, "vmsplice"),
    ("gup_fast", 0x80101, "io_uring, 6.12"),
    ("gup", 0x5000B, "poke"),
]


@pytest.mark.parametrize(
    ("event", "flags", "layout"),
    [pytest.param(event, flags, OLD, id=what) for event, flags, what in SEEN_OLD]
    + [pytest.param(event, flags, NEW, id=f"{what}, new numbers") for event, flags, what in SEEN_NEW],
)
def test_one_known_caller_is_enough(event: str, flags: int, layout: int) -> None:
    r = Recording()
    r.event(event, 10, mm=7, start=BASE, nr_pages=1, flags=flags)
    assert merge(r.source(), None).foll_layout == layout


@pytest.mark.parametrize(("kernel", "pins"), [("5.10.0-26-amd64", 1), ("6.2.0", 1), ("6.3.0", 0), ("6.12.1", 0), (None, 0), ("Linux", 0)])
def test_foll_numbers_are_told_by_the_release_where_nothing_else_tells(kernel: str | None, pins: int) -> None:
    """0x40000 is FOLL_PIN up to 6.2 and neither FOLL_PIN nor FOLL_GET since."""
    r = Recording()
    r.release = kernel
    r.event("gup", 10, mm=7, start=BASE, nr_pages=1, flags=0x40001)
    r.event("gup_done", 10, ret=1)
    events = r.events()
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
    m.event("gup", 10, mm=a.mm, start=BASE, nr_pages=1, flags=FOLL_PIN)
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


# --- exec ---------------------------------------------------------------------------------------------------------------------------------
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


# --- areas --------------------------------------------------------------------------------------------------------------------------------
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


#: A call, its arguments, and what its references are taken through and held by; whether they last.
CALLS: Final[list[tuple[str, dict[str, int], str, str | None, bool]]] = [
    ("vmsplice", {"fd": 4}, "vmsplice", "pipe fd 4", True),
    ("io_uring_register", {"fd": 5, "opcode": 0}, "io_uring", "ring fd 5, buffer 0", True),
    ("io_uring_register", {"fd": 5, "opcode": 16}, "io_uring", "ring fd 5", True),
    ("io_uring_enter", {"fd": 6}, "io_uring", "ring fd 6", True),
    ("io_submit", {"ctx_id": 77}, "direct-io", "aio context 77", True),
    ("pread64", {"fd": 3}, "direct-io", "fd 3", False),
    ("writev", {"fd": 3}, "direct-io", "fd 3", False),
    ("sendmsg", {"fd": 8}, "zerocopy", "socket fd 8", True),
    ("setsockopt", {"fd": 9, "optname": 4}, "af_xdp", "socket fd 9", True),
    ("ioctl", {"fd": 7, "cmd": 0xC0181B01}, "rdma", "fd 7", True),
    ("ioctl", {"fd": 7, "cmd": 0x3B71}, "vfio", "fd 7", True),
    ("ioctl", {"fd": 7, "cmd": 0xAE80}, "kvm", "fd 7", False),
    ("ioctl", {"fd": 7, "cmd": 0x5401}, "other", "fd 7", True),
    ("ptrace", {"pid": 11}, "ptrace", None, False),
    ("process_vm_readv", {"pid": 11}, "process_vm", None, False),
]


@pytest.mark.parametrize(("call", "arguments", "via", "holder", "lasts"), CALLS, ids=lambda value: str(value) if value else "")
def test_the_system_call_says_through_what_and_who_holds(
    call: str, arguments: dict[str, int], via: str, holder: str | None, lasts: bool
) -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    m.event(f"sys_enter_{call}", 10, **arguments)
    m.event("gup_fast", 10, start=BASE, nr_pages=1, flags=FOLL_GET)
    m.event("gup_fast_done", 10, ret=1)
    # vmsplice keeps what its return says; the others return what they like.
    end = m.event(f"sys_exit_{call}", 10, ret=PAGE)
    (taken,) = references(m)
    assert (taken["via"], taken["holder"]) == (via, holder)
    assert (taken["to_ns"], taken["released"]) == ((None, "unknown") if lasts else (end, "at-latest"))


def test_buffers_of_a_ring_are_numbered_and_their_first_byte_is_said() -> None:
    m = Machine()
    a = m.spawn(10)
    for number in range(3):
        m.touch(a, address(number), 5 + number)
    m.event("sys_enter_io_uring_register", 10, fd=5, opcode=15)
    for number, offset in enumerate((0, 0x10, 0)):
        m.event("gup", 10, mm=a.mm, start=address(number) + offset, nr_pages=1, flags=FOLL_PIN | FOLL_WRITE)
        m.event("gup_done", 10, ret=1)
    m.event("sys_exit_io_uring_register", 10, ret=0)
    assert [each["holder"] for each in references(m)] == [
        "ring fd 5, buffer 0", "ring fd 5, buffer 1, from byte 16 of its first page", "ring fd 5, buffer 2",
    ]  # fmt: skip


def test_a_reference_outside_of_system_calls_has_no_holder() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, BASE, 5)
    m.event("gup_fast", 10, start=BASE, nr_pages=1, flags=FOLL_PIN)
    m.event("gup_fast_done", 10, ret=1)
    (taken,) = references(m)
    assert (taken["via"], taken["holder"]) == ("other", None)
