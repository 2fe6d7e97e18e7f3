"""From a symptom: when copy-on-write is the cause, when it is ruled out, and what is missing when neither can be said."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest

import tracetool
from conftest import fixture_path
from engine.build import (
    BASE,
    FOLL_GET,
    FOLL_PIN,
    FOLL_WRITE,
    PAGE,
    READ_FAULT,
    STACK,
    VM_ANON,
    VMEMMAP,
    Machine,
    Process,
    address,
)
from handmade import trace_of
from tracetool.errors import Unanswerable, Unusable
from tracetool.memory_events import codes as c
from tracetool.schema import HISTORY, polars_schema
from tracetool.suspecting import CAUSE, LIKELY, OPEN, RULED_OUT, Suspicion, suspect
from tracetool_parsers.losses import Loss

A, B, C = 10, 11, 12
P0, P1, P2, P3 = 0x50, 0x51, 0x52, 0x53
AREA: Final = [(BASE, 4)]


@pytest.fixture
def m() -> Machine:
    return Machine()


def asked(m: Machine, pid: int = A, number: int = 0, at: int | None = None, **trace: Any) -> Suspicion:
    return suspect(trace_of(m, {A: "alpha", B: "beta"}, **trace), pid, address(number), at)


def shared(m: Machine) -> tuple[Process, Process]:
    """A and its child B share P0."""
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    return a, m.fork(a, B, AREA)


def pinned_and_parted(m: Machine) -> Process:
    """A's own pin keeps P0; A goes on with P1."""
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.pin(a, address(0), P0)
    m.cow(a, address(0), P0, P1)
    return a


# --- ruled out ------------------------------------------------------------------------------------------------------------------------


def test_a_page_that_nobody_else_knows_is_ruled_out(m: Machine) -> None:
    m.touch(m.spawn(A), address(0), P0)
    told = asked(m)
    assert told.verdict == RULED_OUT
    assert told.missing == ()
    assert any("No other process mapped it" in why for why in told.because)
    assert (told.others.height, told.references.height, told.stores.height) == (0, 0, 0)


def test_sharing_that_every_store_ends_by_a_copy_is_ruled_out(m: Machine) -> None:
    a, b = shared(m)
    stored = m.cow(b, address(0), P0, P1)
    m.cow(a, address(0), P0)
    told = asked(m)
    assert told.verdict == RULED_OUT
    assert any("Others stored to it while it was mapped there (once), and were given copies" in why for why in told.because)
    assert told.stores.select("ts", "pid", "decision", "shared").rows() == [(stored, B, "copy", True)]
    assert told.others.select("pid", "pfn", "began").rows() == [(B, P0, "fork")]


def test_anothers_store_to_what_one_has_left_is_no_store_to_it(m: Machine) -> None:
    a, b = shared(m)
    m.cow(a, address(0), P0, P1)
    m.cow(b, address(0), P0)
    told = asked(m)
    assert told.verdict == RULED_OUT
    assert told.stores.select("pid", "decision", "shared").rows() == [(B, "reuse", False)]


def test_a_read_reference_of_another_changes_nothing(m: Machine) -> None:
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.event("sys_enter_process_vm_readv", C)
    m.event("gup", C, mm=a.mm, start=address(0), nr_pages=1, flags=FOLL_PIN)
    m.event("gup_done", C, ret=1)
    m.event("sys_exit_process_vm_readv", C, ret=PAGE)
    told = asked(m)
    assert told.verdict == RULED_OUT
    assert told.references["by_pid"].to_list() == [C]


def test_the_zero_page_holds_zeros(m: Machine) -> None:
    m.read_zero(m.spawn(A), address(0))
    told = asked(m)
    assert told.verdict == RULED_OUT
    assert any("zeros" in why for why in told.because)


def test_a_copy_for_nothing_is_no_wrong_data(m: Machine) -> None:
    a, b = shared(m)
    m.exit(b, [P0])
    m.cow(a, address(0), P0, P1)
    told = asked(m)
    assert told.findings["rule"].to_list() == ["unnecessary-copy"]
    assert (told.verdict, told.missing) == (RULED_OUT, ())


# --- the cause ------------------------------------------------------------------------------------------------------------------------


def test_a_certain_defect_of_its_own_is_the_cause(m: Machine) -> None:
    pinned_and_parted(m)
    m.unpin(A, P0)
    told = asked(m)
    assert told.verdict == CAUSE
    assert told.findings["id"].to_list() == ["wrong-cow-1@observed"]
    assert told.because[0].startswith("wrong-cow-1@observed (certain defect): alpha 10 wrote its page and got a copy")


def test_a_possible_defect_is_the_likely_cause(m: Machine) -> None:
    """Whether the write reference was still held is not known."""
    a, _ = shared(m)
    m.event("gup", A, mm=a.mm, start=address(0), nr_pages=1, flags=FOLL_WRITE | FOLL_GET | 0x10)
    m.event("gup_done", A, ret=1)
    told = asked(m, B)
    assert told.verdict == LIKELY
    assert "cross-write-1@observed (possible defect)" in told.because[0]


def test_a_defect_that_harms_another_is_told_so(m: Machine) -> None:
    """B's store reaches A's reference: A is harmed by it, what B reads is its own."""
    a, b = shared(m)
    m.vmsplice(a, address(0), P0)
    m.cow(a, address(0), P0, P1)
    m.cow(b, address(0), P0)
    assert asked(m).verdict == CAUSE
    told = asked(m, B)
    assert told.verdict == LIKELY
    assert any("harms the holder of the reference" in why for why in told.because)


def test_a_store_in_place_to_what_another_maps_is_the_cause(m: Machine) -> None:
    """A kernel that does not work: no rule speaks of it, as no reference is held."""
    a, b = shared(m)
    stored = m.cow(b, address(0), P0)
    told = asked(m)
    assert told.verdict == CAUSE
    assert told.findings.height == 0
    assert f"{B} wrote frame {P0:#x} in place" in told.because[0]
    assert f"{(stored - told.trace.from_ns) / 1e6:+,.3f} ms" in told.because[0]
    assert a.tid == A


def test_what_is_intruded_upon_before_it_is_copied_is_inherited(m: Machine) -> None:
    """B writes P0 in place while A maps it; A copies it to P1, and C, A's child, shares that."""
    a, b = shared(m)
    m.cow(b, address(0), P0)
    m.cow(a, address(0), P0, P1)
    m.fork(a, C, AREA)
    assert asked(m, C).verdict == CAUSE


# --- what is missing ------------------------------------------------------------------------------------------------------------------


def test_a_page_older_than_the_trace(m: Machine) -> None:
    older = m.older(A)
    m.cow(older, address(0), P0)
    m.fork(older, B, AREA)
    told = asked(m)
    assert told.verdict == OPEN
    assert [f"frame {P0:#x} is older" in what for what in told.missing] == [True]


def test_a_copy_of_what_is_older_than_the_trace(m: Machine) -> None:
    m.cow(m.older(A), address(0), P0, P1)
    told = asked(m)
    assert told.verdict == OPEN
    assert any("a page older than the trace" in what or "is older" in what for what in told.missing)


def test_what_a_whole_snapshot_lists_is_known(m: Machine) -> None:
    a = m.older(A)
    m.event("snapshot_task", 1, pid=A, tgid=A, mm=a.mm, whole=1, vmemmap=VMEMMAP)
    m.event("snapshot_page", 1, mm=a.mm, address=address(0), pfn=P0, state=c.IS_PAGE, order=0)
    m.cow(a, address(0), P0)
    assert asked(m).verdict == RULED_OUT


@pytest.mark.parametrize("without", ["cow_fault_done", "gup", "fork_range", "mm_exit"])
def test_an_event_that_was_not_recorded(m: Machine, without: str) -> None:
    m.event("mm_fault", A, mm=1 << 40, address=address(0), fault_flags=0x255, vm_flags=VM_ANON, vm_ops=0)
    m.map_new(A, 1 << 40, address(0), P0)
    told = asked(m, without=[without])
    assert told.verdict == OPEN
    assert without in told.missing[0]


def test_losses_count_in_the_life_of_the_page_only(m: Machine) -> None:
    a = m.spawn(A)
    before = m.now
    m.now += 10_000
    born = m.touch(a, address(0), P0)
    m.now += 10_000
    middle = m.now
    m.now += 10_000
    m.munmap(a, address(0), P0)
    m.now += 10_000
    after = m.now
    m.mark(A, "end")
    loss = {
        "before": Loss(0, before + 1, before + 9, 5, "overwritten"),
        "in": Loss(1, middle + 1, middle + 9, None, "overwritten"),
        "after": Loss(0, after + 1, after + 9, 5, "overwritten"),
        "unbounded": Loss(-1, None, None, None, "overwritten"),
    }
    verdicts = {when: asked(m, losses=[each]).verdict for when, each in loss.items()}
    assert verdicts == {"before": RULED_OUT, "in": OPEN, "after": RULED_OUT, "unbounded": OPEN}
    assert asked(m, at=born + 1, losses=[loss["in"]]).verdict == RULED_OUT, "it was seen before events were lost"
    (what,) = asked(m, losses=[loss["in"]]).missing
    assert "an unknown number of events of CPU 1" in what
    assert "overwritten" in what


def test_what_another_writes_through_a_reference(m: Machine) -> None:
    a = m.spawn(A)
    born = m.touch(a, address(0), P0)
    m.event("sys_enter_process_vm_writev", C)
    m.event("gup", C, mm=a.mm, start=address(0), nr_pages=1, flags=FOLL_WRITE | FOLL_PIN)
    m.event("gup_done", C, ret=1)
    m.event("sys_exit_process_vm_writev", C, ret=PAGE)
    told = asked(m)
    assert told.verdict == OPEN
    (what,) = told.missing
    assert f"{C} wrote through its write pin (process_vm)" in what
    assert asked(m, at=m.now).verdict == OPEN
    assert asked(m, at=born).verdict == RULED_OUT, "it was seen before that"


def test_what_a_process_writes_through_a_reference_of_its_own_is_its_own(m: Machine) -> None:
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.pin(a, address(0), P0)
    assert asked(m).verdict == RULED_OUT


def test_what_is_read_through_a_short_reference_may_be_older(m: Machine) -> None:
    """The mail on a kernel that works: an info finding about A's own reference, and none about B."""
    a, b = shared(m)
    m.vmsplice(a, address(0), P0)
    m.cow(a, address(0), P0, P1)
    m.cow(b, address(0), P0, P2)
    told = asked(m)
    assert told.verdict == OPEN
    assert [what.startswith("Whether the data were read through the reference of wrong-cow-1@observed") for what in told.missing] == [True]
    assert asked(m, B).verdict == RULED_OUT


def test_what_userfaultfd_brings(m: Machine) -> None:
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.dontneed(a, address(0), P0)
    m.event("mm_fault", A, mm=a.mm, address=address(0), fault_flags=READ_FAULT, vm_flags=VM_ANON | 0x200, vm_ops=0)
    assert any("userfaultfd" in what for what in asked(m).missing)


# --- which moment ---------------------------------------------------------------------------------------------------------------------


def test_a_moment_takes_what_its_contents_come_from(m: Machine) -> None:
    """The pinned page is parted; then the address is unmapped, and a new page touched there."""
    a = pinned_and_parted(m)
    parted = m.now
    m.munmap(a, address(0), P1)
    gone = m.now
    new = m.touch(a, address(0), P3)
    assert asked(m).verdict == CAUSE
    assert asked(m, at=parted).verdict == CAUSE
    told = asked(m, at=new)
    assert told.verdict == RULED_OUT
    assert told.stays["pfn"].to_list() == [P3]
    with pytest.raises(Unanswerable) as failed:
        asked(m, at=gone)
    assert failed.value.hint is not None
    assert str(new) in failed.value.hint


def test_before_the_act_nothing_is_wrong_yet(m: Machine) -> None:
    a = m.spawn(A)
    born = m.touch(a, address(0), P0)
    m.pin(a, address(0), P0)
    m.cow(a, address(0), P0, P1)
    assert asked(m, at=born).verdict == RULED_OUT
    assert asked(m, at=m.now).verdict == CAUSE


def test_a_time_may_be_since_the_start_of_the_trace(m: Machine) -> None:
    pinned_and_parted(m)
    first = asked(m).trace.from_ns
    for moment in range(first, m.now + 1, 1_000):
        told: list[str] = []
        for at in (moment, moment - first):
            try:
                told.append(asked(m, at=at).verdict)
            except Unanswerable as error:
                told.append(str(error))
        assert told[0] == told[1]


@pytest.mark.parametrize("at", [-1, 10**15])
def test_a_time_outside_the_trace_is_refused(m: Machine, at: int) -> None:
    m.touch(m.spawn(A), address(0), P0)
    with pytest.raises((Unanswerable, Unusable)):
        asked(m, at=at)


def test_pages_moved_by_swap_keep_their_past(m: Machine) -> None:
    """P0 is intruded upon, swapped out and comes back as P3."""
    a, b = shared(m)
    m.cow(b, address(0), P0)
    m.exit(b, [P0])
    m.swap_out(4001, P0, [(a, address(0))])
    m.swap_in(a, address(0), P3, write=False)
    assert asked(m, at=m.now).verdict == CAUSE


# --- who and where --------------------------------------------------------------------------------------------------------------------


def test_the_lifeline_is_that_of_the_address_and_its_pages(m: Machine) -> None:
    a, b = shared(m)
    m.vmsplice(a, address(0), P0)
    m.cow(a, address(0), P0, P1)
    m.cow(b, address(0), P0, P2)
    m.pipe_release(A, P0)
    told = asked(m)
    assert told.lifeline.select("act", "pid", "pfn").rows() == [
        ("touch", A, P0), ("fork", B, P0), ("get", A, P0), ("decided-copy", A, P1), ("copied", A, P0), ("copy", A, P1),
        ("decided-copy", B, P2), ("copied", B, P0), ("release", A, P0),
    ]  # fmt: skip
    assert dict(told.lifeline.schema) == polars_schema(HISTORY)
    assert told.lifeline["event"].is_sorted()


def test_another_life_of_the_frame_is_not_told(m: Machine) -> None:
    a = m.spawn(A)
    m.touch(a, address(1), P0)
    m.munmap(a, address(1), P0)
    m.free(A, P0)
    m.touch(a, address(0), P0)
    assert asked(m).lifeline.select("act", "address").rows() == [("touch", address(0))]


def test_an_address_inside_the_page(m: Machine) -> None:
    m.touch(m.spawn(A), address(0), P0)
    assert suspect(trace_of(m), A, address(0) + 0x123).address == address(0)


def test_a_thread_on_the_memory_of_another_process_reads_the_same(m: Machine) -> None:
    """CLONE_VM without CLONE_THREAD: two processes, one memory."""
    a = pinned_and_parted(m)
    m.new_task(a, C, flags=0x100)
    m.fault(Process(C, a.mm), address(1), READ_FAULT)
    told = asked(m, C)
    assert (told.verdict, told.others.height) == (CAUSE, 0)


def test_what_is_not_there_names_what_is_near(m: Machine) -> None:
    m.touch(m.spawn(A), address(2), P0)
    with pytest.raises(Unanswerable) as failed:
        asked(m, number=0)
    assert failed.value.hint is not None
    assert hex(address(2)) in failed.value.hint
    with pytest.raises(Unanswerable) as failed:
        asked(m, pid=99)
    assert failed.value.hint is not None
    assert str(A) in failed.value.hint
    with pytest.raises(Unusable):
        suspect(trace_of(m), A, 1 << 63)


def test_memory_that_exec_builds_is_not_that_of_before(m: Machine) -> None:
    m.touch(m.spawn(A), address(0), P0)
    assert suspect(trace_of(m), A, STACK).stays["began"].to_list() == ["touch"]


# --- recordings -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.2"])
def test_the_recorded_mail(kernel: str) -> None:
    """No kernel recorded fails here: what B reads is its own; A may have read through its reference, which keeps P0."""
    trace = tracetool.open(fixture_path(f"mail-{kernel}.dat"))
    (reference,) = trace.replay().reference_rows.filter(pl.col("via").cast(pl.String) == "vmsplice").to_dicts()
    (child,) = set(trace.processes.filter(pl.col("parent") == reference["pid"])["pid"].to_list()) - {reference["pid"]}
    assert suspect(trace, reference["pid"], reference["address"]).verdict == OPEN
    assert suspect(trace, child, reference["address"]).verdict == RULED_OUT


@pytest.mark.exhaustive
def test_the_pins_that_5_10_parts(traces: Path) -> None:
    trace = tracetool.open(traces / "5.10" / "iouring_ro.dat")
    pins = trace.replay().reference_rows.filter(pl.col("via").cast(pl.String) == "io_uring")
    assert pins.height == 4
    for pid, at in pins.select("pid", "address").rows():
        told = suspect(trace, pid, at)
        assert (told.verdict, told.findings.height) == (CAUSE, 1)
    newer = tracetool.open(traces / "6.1" / "iouring_ro.dat")
    pins = newer.replay().reference_rows.filter(pl.col("via").cast(pl.String) == "io_uring")
    assert {suspect(newer, pid, at).verdict for pid, at in pins.select("pid", "address").rows()} == {RULED_OUT}


@pytest.mark.exhaustive
@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.2"])
def test_no_recording_but_that_one_has_a_cause(kernel: str, traces: Path) -> None:
    """expected.tsv: none of these kernels fails elsewhere."""
    for file in sorted((traces / kernel).glob("*.dat")):
        if (kernel, file.stem) == ("5.10", "iouring_ro"):
            continue
        trace = tracetool.open(file)
        stays = trace.replay().stays.filter(pl.col("pid").is_not_null()).select("pid", "address").unique(maintain_order=True)
        for pid, at in stays.gather_every(max(stays.height // 12, 1)).rows():
            assert suspect(trace, pid, at).verdict in (RULED_OUT, OPEN), (file.stem, pid, hex(at))
