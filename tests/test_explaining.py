"""One finding explained: the story of its page, who holds what, what either side sees, how sure, and the records as they were recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import tracetool
from conftest import fixture_path
from engine.build import (
    BASE,
    FOLL_GET,
    FOLL_PIN,
    FOLL_WRITE,
    PAGE,
    READ_ONLY,
    READ_WRITE,
    Machine,
    address,
    struct_page,
)
from handmade import protected_while_pinned, trace_of
from tracetool.errors import Unanswerable, UnknownEvent, UnknownName, Unusable
from tracetool.explaining import Explanation, explain
from tracetool.judging import found, replayed
from tracetool.policies import POLICIES
from tracetool.probes import BY_EVENT
from tracetool.rules.base import TRACED_RELEASES
from tracetool.synth import Plan, synthesise
from tracetool.trace import Trace

A, B, C = 10, 11, 12
NAMES: Final = {A: "alpha", B: "beta", C: "gamma"}
P0, P1, P2 = 0x50, 0x51, 0x52
AREA: Final = [(BASE, 4)]


@dataclass
class Mail:
    """The mail's example, as a kernel recorded it that counts references; the moments of its acts."""

    trace: Trace
    touched: int
    taken: int
    a_stores: int
    b_stores: int
    released: int


@pytest.fixture(scope="module")
def mail() -> Mail:
    m = Machine()
    a = m.spawn(A)
    touched = m.touch(a, address(0), P0)
    b = m.fork(a, B, AREA)
    taken = m.vmsplice(a, address(0), P0)
    a_stores = m.cow(a, address(0), P0, P1)
    b_stores = m.cow(b, address(0), P0, P2)
    released = m.pipe_release(A, P0)
    m.exit(b, [P2])
    return Mail(trace_of(m, NAMES), touched, taken, a_stores, b_stores, released)


def steps(told: Explanation) -> list[tuple[str, str, str]]:
    return [(step.owner, step.act, step.page) for step in told.story.steps]


# --- the mail's example ---------------------------------------------------------------------------------------------------------------


def test_the_mail_under_mapcount_tells_that_the_reference_reads_what_b_wrote(mail: Mail) -> None:
    told = explain(mail.trace, "missed-cow-1@mapcount")
    assert (told.rule, told.policy, told.certainty, told.severity) == ("missed-cow", "mapcount", "certain", "defect")
    assert told.harm.startswith("A's reference reads what B wrote into P0")
    assert told.sides[0] == told.harm
    assert told.sides[1].startswith("B reads its own store")
    assert told.people["A"] == f"alpha {A}"
    assert told.people["B"].endswith(f" {B}")
    assert told.story.pages == {"P0": f"frame {P0:#x}", "P1": f"frame {P1:#x}"}
    assert (told.from_ns, told.to_ns, told.address) == (mail.b_stores, mail.released, address(0))
    assert told.doubts == ()


def test_the_story_has_every_act_with_its_time(mail: Mail) -> None:
    told = explain(mail.trace, "missed-cow-1@mapcount")
    assert steps(told) == [
        ("A", "map", "P0"), ("A", "fork", "P0"), ("A", "reference", "P0"), ("A", "copy", "P1"), ("B", "reuse", "P0"),
        ("A", "release", "P0"), ("B", "exit", "P0"),
    ]  # fmt: skip
    times = {(step.owner, step.act): step.ts for step in told.story.steps}
    assert times["A", "map"] == mail.touched
    assert times["A", "reference"] == mail.taken
    assert times["A", "copy"] == mail.a_stores
    assert times["A", "release"] == mail.released
    assert told.act is not None
    assert (told.act.ts, told.act.owner) == (mail.b_stores, "B")


def test_who_holds_what_once_it_is_unsafe(mail: Mail) -> None:
    told = explain(mail.trace, "missed-cow-1@mapcount")
    held = {(each.owner, each.what, each.page): (each.how, each.to_ns) for each in told.holdings}
    assert set(held) == {("B", "maps", "P0"), ("A", "read reference", "P0")}
    assert held["A", "read reference", "P0"] == ("vmsplice, pipe fd 4", mail.released)
    assert held["B", "maps", "P0"][0] == "fork"
    assert told.bystanders == 0


def test_what_the_traced_kernel_did_instead(mail: Mail) -> None:
    told = explain(mail.trace, "missed-cow-1@mapcount")
    assert told.observed is not None
    assert ("B", "copy", "P2") in [(step.owner, step.act, step.page) for step in told.observed.steps]
    assert explain(mail.trace, "wrong-cow-1@observed").observed is None


def test_the_records_are_those_of_the_trace(mail: Mail) -> None:
    told = explain(mail.trace, "missed-cow-1@mapcount")
    by_role = {record.role: record for record in told.records if record.role not in ("asked for", "done")}
    store = by_role["the store"]
    assert (store.event, store.ts, store.tid, store.row) == ("cow_fault", mail.b_stores, B, 1)
    # B's page table entry names P0 and is not writable (bit 1).
    pte = int(store.fields["pte"], 16)
    assert (pte >> 12, pte & 2, store.fields["address"]) == (P0, 0, hex(address(0)))
    taken = by_role["the reference is taken"]
    assert (taken.event, taken.ts, taken.fields) == ("gup_fast_done", mail.taken, {"ret": "0x1"})
    released = by_role["it is released"]
    assert (released.event, released.ts, released.fields) == ("pipe_release", mail.released, {"page": hex(struct_page(P0))})


def test_a_record_of_an_end_comes_with_its_begin_and_the_other_way_round(mail: Mail) -> None:
    told = explain(mail.trace, "missed-cow-1@mapcount")
    assert [(record.event, record.role) for record in told.records] == [
        ("gup_fast", "asked for"),
        ("gup_fast_done", "the reference is taken"),
        ("cow_fault", "the store"),
        ("cow_fault_done", "done"),
        ("pipe_release", "it is released"),
    ]
    asked, done = told.records[0], told.records[3]
    assert asked.fields == {"start": hex(address(0)), "nr_pages": "0x1", "flags": hex(FOLL_GET)}
    assert (done.tid, done.row) == (B, 1)


def test_the_other_end_of_a_record_is_of_the_same_thread() -> None:
    """A and B ask for references at the same time."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    b = m.fork(a, B, AREA)
    asked = [m.event("gup_fast", tid, start=address(0), nr_pages=1, flags=FOLL_GET) for tid in (A, B)]
    for tid in (A, B):
        m.event("gup_fast_done", tid, ret=1)
    m.dontneed(a, address(0), P0)
    m.cow(b, address(0), P0)
    told = explain(trace_of(m, NAMES), "missed-cow-1@observed")
    (record,) = [record for record in told.records if record.role == "asked for"]
    assert (record.tid, record.ts) == (A, asked[0])


def test_every_step_has_its_record(mail: Mail) -> None:
    told = explain(mail.trace, "missed-cow-1@mapcount")
    there = {(record.event, record.row) for record in (*told.records, *told.background)}
    evidence = mail.trace.history.events.evidence([row for step in told.story.steps for row in step.evidence])
    assert {(event, row) for event, _, row in evidence.values()} <= there
    assert len(there) == len(told.records) + len(told.background), "none twice"


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.2"])
def test_the_recorded_mail(kernel: str) -> None:
    told = explain(tracetool.open(fixture_path(f"mail-{kernel}.dat")), "missed-cow-1@mapcount")
    assert told.harm.startswith("A's reference reads what B wrote into P0")
    assert (told.certainty, told.doubts) == ("certain", ())
    assert [record.event for record in told.records if record.role in ("the store", "it is released")] == ["cow_fault", "pipe_release"]


# --- other rules ----------------------------------------------------------------------------------------------------------------------


def test_a_write_pin_that_a_copy_parts_from_its_process() -> None:
    """What 5.10 does after mprotect: the pin keeps P0, the process goes on with P1."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.pin(a, address(0), P0)
    m.mprotect(a, address(0), READ_ONLY)
    m.mprotect(a, address(0), READ_WRITE)
    parted = m.cow(a, address(0), P0, P1)
    m.unpin(A, P0)
    told = explain(trace_of(m, NAMES), "wrong-cow-1@observed")
    assert (told.certainty, told.severity, told.from_ns) == ("certain", "defect", parted)
    assert told.sides[0].startswith("What is written through A's pin lands in P0")
    assert "it is lost to A" in told.sides[0]
    assert told.sides[1].startswith("A reads P1")
    assert {(each.what, each.page) for each in told.holdings} == {("maps", "P1"), ("long-term write pin", "P0")}


def test_a_store_that_the_trace_cannot_show_is_possible_and_says_what_would_settle_it() -> None:
    """A kernel that makes exclusive pages writable again at once; page-count would have faulted, and copied."""
    told = explain(trace_of(protected_while_pinned(), NAMES), "wrong-cow-1@page-count")
    assert told.certainty == "possible"
    (doubt,) = told.doubts
    assert "let A write there without a fault" in doubt.why
    assert f"A store of A to {address(0):#x}" in doubt.settles
    assert "would" in told.sides[0]
    assert told.act is not None
    assert "the trace cannot show one" in told.act.text


@pytest.mark.parametrize(("released", "said"), [(False, "whether it still was held then"), (True, "it may have been released before")])
def test_a_reference_whose_end_is_not_known_makes_a_finding_possible(released: bool, said: str) -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    b = m.fork(a, B, AREA)
    m.event("gup_fast", A, start=address(0), nr_pages=1, flags=FOLL_GET)
    m.event("gup_fast_done", A, ret=1)
    m.dontneed(a, address(0), P0)
    m.cow(b, address(0), P0, P1)
    if released:
        m.free(B, P0)
    told = explain(trace_of(m, NAMES), "missed-cow-1@mapcount")
    (doubt,) = told.doubts
    assert said in doubt.why
    assert "system call that took it" in doubt.settles


def test_what_was_not_recorded_of_a_release_is_named_with_its_probe() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    b = m.fork(a, B, AREA)
    m.vmsplice(a, address(0), P0)
    m.dontneed(a, address(0), P0)
    m.cow(b, address(0), P0, P1)
    (event,) = TRACED_RELEASES["vmsplice"]
    (doubt,) = explain(trace_of(m, NAMES, without=[event]), "missed-cow-1@mapcount").doubts
    assert event in doubt.settles
    assert BY_EVENT[event].site in doubt.settles
    assert explain(trace_of(m, NAMES), "missed-cow-1@mapcount").certainty == "certain", "held to the end of the trace"


def test_a_fork_under_a_pin_names_parent_and_child() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.pin(a, address(0), P0)
    m.fork(a, B, AREA, early={address(0): P1})
    m.unpin(A, P0)
    told = explain(trace_of(m, NAMES), "fork-after-pin-1@mapcount")
    assert told.harm.startswith("A and B share P0, which A's pin writes to")
    assert [record.event for record in told.records if record.role == "fork shares the page"] == ["fork_range_done"]
    assert {(each.owner, each.what) for each in told.holdings} == {("A", "maps"), ("B", "maps"), ("A", "long-term write pin")}
    assert told.observed is not None
    assert any(step.act == "copy" and "copies P0 to P1 for B at once" in step.text for step in told.observed.steps)


def test_a_write_reference_of_a_shared_page_names_who_sees_it() -> None:
    """FOLL_FORCE into a page that is not writable: taken without breaking COW."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.fork(a, B, AREA)
    m.event("gup", A, mm=a.mm, start=address(0), nr_pages=1, flags=FOLL_WRITE | FOLL_GET | 0x10)
    m.event("gup_done", A, ret=1)
    told = explain(trace_of(m, NAMES), "cross-write-1@observed")
    assert told.harm.startswith("B, which maps P0, possibly sees what is written through A's reference")


def test_a_reference_that_another_process_took_is_told_as_its() -> None:
    """C reads A's memory by process_vm_readv while B, A's child, writes."""
    m = Machine()
    a = m.spawn(A)
    m.spawn(C)
    m.touch(a, address(0), P0)
    b = m.fork(a, B, AREA)
    m.event("sys_enter_process_vm_readv", C)
    m.event("gup", C, mm=a.mm, start=address(0), nr_pages=1, flags=FOLL_PIN | 0x2002)
    m.event("gup_done", C, ret=1)
    m.dontneed(a, address(0), P0)
    m.cow(b, address(0), P0, P1)
    m.event("sys_exit_process_vm_readv", C, ret=PAGE)
    told = explain(trace_of(m, NAMES), "missed-cow-1@mapcount")
    taken = next(step for step in told.story.steps if step.act == "reference")
    assert taken.text == f"process {C} takes a read pin to A's P0 (process_vm)."
    assert told.harm.startswith(f"process {C}'s pin to A's memory possibly reads what B wrote into P0")
    (held,) = [each for each in told.holdings if each.what != "maps"]
    assert held.owner == f"process {C}"


def test_a_copy_that_nothing_called_for_costs_and_harms_nobody() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    b = m.fork(a, B, AREA)
    m.exit(b, [P0])
    m.cow(a, address(0), P0, P1)
    told = explain(trace_of(m, NAMES), "unnecessary-copy-1@observed")
    assert (told.severity, told.certainty) == ("info", "possible")
    assert told.harm.startswith("A gets a copy of P0, as far as the trace shows, for nothing")
    assert told.sides[1].startswith("Nobody sees anything wrong")
    (doubt,) = told.doubts
    assert "no event tells" in doubt.why
    assert [record.event for record in told.records] == ["cow_fault", "cow_fault_done"]


# --- large families -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd() -> Trace:
    """Of 100 children that share P0 one writes, while the parent's reference reads it and the parent maps it no more."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    children = [m.fork(a, 100 + number, AREA) for number in range(100)]
    m.vmsplice(a, address(0), P0)
    m.dontneed(a, address(0), P0)
    for child in children[:50]:
        m.exit(child, [P0])
    for number, child in enumerate(children[50:99]):
        m.cow(child, address(0), P0, 0x100 + number)
    m.cow(children[99], address(0), P0)
    m.pipe_release(A, P0)
    return trace_of(m, {A: "alpha"})


def test_of_a_large_family_the_parties_are_told(crowd: Trace) -> None:
    told = explain(crowd, "missed-cow-1@observed")
    assert told.people["A"] == f"alpha {A}"
    assert told.harm.startswith("A's reference reads what B wrote into P0")
    assert told.people["B"].endswith(f" {199}")
    assert {step.owner for step in told.story.steps} == {"A", "B"}
    assert told.left_out > 100
    assert told.bystanders == 0, "the 99 others have gone by then"
    assert told.act is not None
    assert "though A's reference still reads it" in told.act.text


def test_others_that_map_the_page_are_counted() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    for number in range(60):
        m.fork(a, 100 + number, AREA)
    m.vmsplice(a, address(0), P0)
    m.cow(a, address(0), P0, P1)
    told = explain(trace_of(m, NAMES), "wrong-cow-1@observed")
    assert told.bystanders == 60
    assert told.act is not None
    assert "Only" not in told.act.text, "the children keep P0, too"


# --- what is asked for ----------------------------------------------------------------------------------------------------------------


def test_an_unknown_finding_lists_those_that_there_are(mail: Mail) -> None:
    with pytest.raises(UnknownEvent) as failed:
        explain(mail.trace, "missed-cow-7@mapcount")
    assert failed.value.hint is not None
    assert "missed-cow-1@mapcount" in failed.value.hint
    assert failed.value.exit_code == 1


def test_where_there_are_none_it_says_why() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    with pytest.raises(Unanswerable) as clean:
        explain(trace_of(m), "missed-cow-1@exclusive")
    assert "none under 'exclusive'" in str(clean.value)
    assert clean.value.hint is not None
    assert "every rule is clean" in clean.value.hint
    with pytest.raises(Unanswerable) as unknown:
        explain(trace_of(m, without=["pipe_release", "mm_exit"]), "missed-cow-1@observed")
    assert unknown.value.hint is not None
    assert "the event mm_exit" in unknown.value.hint


def test_the_policy_is_the_ids_or_is_given(mail: Mail) -> None:
    assert explain(mail.trace, "missed-cow-1", "mapcount").id == "missed-cow-1@mapcount"
    assert explain(mail.trace, "wrong-cow-1").id == "wrong-cow-1@observed"
    assert explain(mail.trace, "wrong-cow-1@exclusive", "exclusive").policy == "exclusive"
    with pytest.raises(Unusable):
        explain(mail.trace, "wrong-cow-1@exclusive", "mapcount")
    with pytest.raises(UnknownName) as failed:
        explain(mail.trace, "wrong-cow-1@exclusif")
    assert failed.value.hint is not None
    assert "observed" in failed.value.hint


# --- every finding can be explained ---------------------------------------------------------------------------------------------------


def explained(trace: Trace, policy: str, most: int) -> int:
    """Explain findings of a policy, and hold what is told against the findings and the events; returns how many."""
    findings = found(trace, replayed(trace, policy)).head(most)
    events = trace.history.events
    for row in findings.iter_rows(named=True):
        told = explain(trace, row["id"])
        assert (told.id, told.rule, told.from_ns) == (row["id"], row["rule"], row["from_ns"])
        assert told.act is not None, row["id"]
        assert told.act.ts == row["from_ns"]
        assert (told.doubts == ()) is (row["certainty"] == "certain"), row["id"]
        if row["rule"] != "unnecessary-copy":
            assert any(each.what != "maps" for each in told.holdings), "the reference is held then"
        rows = {(events.source_names[events.source[event]], int(events.source_row[event])) for event in row["evidence"]}
        assert rows <= {(record.event, record.row) for record in told.records}
        assert all(record.ts in {row["from_ns"], row["to_ns"]} or record.ts <= told.trace.to_ns for record in told.records)
        assert [step.ts for step in told.story.steps] == sorted(step.ts for step in told.story.steps)
    return findings.height


@pytest.mark.parametrize("made", ["mapcount", "page-count", "exclusive"])
@pytest.mark.parametrize("scenario", ["random", "pins"])
def test_every_finding_of_made_up_traces(scenario: str, made: str, tmp_path: Path) -> None:
    synthesise(Plan(scenario, events=3_000, pages=8, references=0.4, policy=made), tmp_path / "trace.dat")
    trace = tracetool.open(tmp_path / "trace.dat")
    assert sum(explained(trace, policy, 10) for policy in ("observed", *POLICIES)) > 20


@pytest.mark.exhaustive
@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.2"])
def test_every_finding_of_the_recordings(kernel: str, traces: Path) -> None:
    files = sorted((traces / kernel).glob("*.dat"))
    assert sum(explained(tracetool.open(file), policy, 10) for file in files for policy in ("observed", *POLICIES)) > 10


@pytest.mark.exhaustive
def test_the_pins_that_5_10_parts(traces: Path) -> None:
    """The truth file of iouring_ro shows other frames than the pinned ones while the pins live: four pages."""
    trace = tracetool.open(traces / "5.10" / "iouring_ro.dat")
    for number in range(1, 5):
        told = explain(trace, f"wrong-cow-{number}@observed")
        assert (told.certainty, told.severity) == ("certain", "defect")
        assert told.sides[0] == "What is written through A's pin lands in P0 from then on: it is lost to A."
