"""From a trace to what a report says: findings, agreement, costs and the story, on recordings of real kernels."""

from __future__ import annotations

import csv
import functools
from typing import Any, Final

import polars as pl
import pytest

import tracetool
from conftest import fixture_path, fixture_traces, truth_of
from engine.build import BASE, Machine, address
from tracetool.analysis import Analysis, PolicyResult, Story
from tracetool.costs import cost
from tracetool.policies import policy as policy_named
from tracetool.rules import RULES
from tracetool.schema import PAGE_SIZE

NAMES: Final = [path.stem for path in fixture_traces()]
MAILS: Final = [name for name in NAMES if name.startswith("mail-")]
POLICIES: Final = ("mapcount", "forced-cow", "page-count", "page-count-5.18", "exclusive")
A, B = 10, 11


@functools.cache
def analysed(name: str) -> Analysis:
    return tracetool.analyse(tracetool.open(fixture_path(f"{name}.dat")))


@functools.cache
def own(name: str) -> PolicyResult:
    """The policy of the recorded kernel: 5.10 counts references, all newer ones recorded mark pages exclusive, each in its way."""
    release = name.rpartition("-")[2]
    named = policy_named("page-count" if release == "5.10" else f"exclusive@{release}")
    (found,) = tracetool.analyse(fixture_path(f"{name}.dat"), [named]).policies
    return found


def result(name: str, policy: str) -> PolicyResult:
    (found,) = [each for each in analysed(name).policies if each.name == policy]
    return found


def defects(name: str, policy: str) -> list[dict[str, Any]]:
    found = analysed(name).findings.filter(pl.col("policy") == policy, pl.col("severity") == "defect")
    return found.to_dicts()


def truth(name: str) -> dict[tuple[str, int], int]:
    """What the kernel said: (checkpoint, pid) -> frame of the one page that `mail` is about."""
    with truth_of(fixture_path(f"{name}.dat")).open(encoding="ascii") as file:
        return {(row[1], int(row[2])): int(row[4]) for row in csv.reader(file, delimiter="\t") if row[1] != "RESULT"}


# --- findings -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_no_recorded_kernel_fails(name: str) -> None:
    """None of these kernels fails in these scenarios; the program itself said so in its RESULT lines."""
    assert defects(name, "observed") == []


@pytest.mark.parametrize("name", [*MAILS, "vmsplice_child-6.1"])
@pytest.mark.parametrize("policy", ["page-count", "exclusive"])
def test_policies_that_look_at_references_or_owners_leak_nothing(name: str, policy: str) -> None:
    assert defects(name, policy) == []


@pytest.mark.parametrize("name", MAILS)
def test_under_mapcount_the_reference_of_the_mail_reads_what_b_writes(name: str) -> None:
    """B's write reuses P0, which A's reference still reads."""
    (case,) = defects(name, "mapcount")
    frames = truth(name)
    parent, child = frames_pid(name)
    assert (case["rule"], case["certainty"], case["pid"], case["by_pid"]) == ("missed-cow", "certain", parent, child)
    assert case["pfn"] == frames["born", parent] == frames["B-before-write", child]


def frames_pid(name: str) -> tuple[int, int]:
    """The parent and the child of the mail, as the truth file numbers them."""
    (parent,) = {pid for label, pid in truth(name) if label == "born"}
    (child,) = {pid for label, pid in truth(name) if label == "B-wrote"}
    return parent, child


def test_under_mapcount_the_child_s_reference_reads_what_the_parent_writes() -> None:
    """vmsplice_child: the parent's write reuses the page that the child's reference reads."""
    (case,) = defects("vmsplice_child-6.1", "mapcount")
    assert (case["rule"], case["certainty"]) == ("missed-cow", "certain")
    parents = dict(tracetool.open(fixture_path("vmsplice_child-6.1.dat")).processes.select("pid", "parent").drop_nulls().iter_rows())
    assert parents[case["pid"]] == case["by_pid"]


@pytest.mark.parametrize("name", MAILS)
def test_evidence_names_raw_events_that_are_about_the_page(name: str) -> None:
    analysis = analysed(name)
    trace = tracetool.open(fixture_path(f"{name}.dat"))
    (case,) = defects(name, "mapcount")
    taken, store, released = (analysis.evidence[row] for row in case["evidence"])
    assert (taken[0], store[0], released[0]) == ("gup_fast_done", "cow_fault", "pipe_release")
    assert taken[1] < store[1] < released[1]
    raw = trace.events("cow_fault").collect().row(store[2], named=True)
    assert (raw["ts"], raw["address"], raw["pte"] >> 12 & 0xFF_FFFF_FFFF) == (store[1], case["address"], case["pfn"])


# --- verdicts -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAILS)
def test_verdicts_of_the_mail(name: str) -> None:
    said = {(each.rule, each.policy): each.verdict for each in analysed(name).verdicts}
    assert said["missed-cow", "mapcount"] == "defect"
    assert {said["missed-cow", policy] for policy in ("observed", *POLICIES[1:])} == {"clean"}
    assert {said[rule, policy] for rule in ("cross-write", "fork-after-pin") for policy in ("observed", *POLICIES)} == {"clean"}
    assert len(said) == len(analysed(name).verdicts) == len(RULES) * (1 + len(POLICIES))


# --- agreement ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_its_own_policy_decides_every_fault_as_the_kernel_did(name: str) -> None:
    agreement = own(name).agreement
    unknown = analysed(name).replays["observed"].undetermined
    assert agreement.undetermined == unknown.height
    assert set(unknown["comm"]) <= {"trace-cmd"}, "only the recorder is older than the trace"
    assert agreement.faults > 10
    assert agreement.same == agreement.faults
    assert agreement.contested_same == agreement.contested


@pytest.mark.parametrize("name", [*MAILS, "vmsplice_child-6.1"])
def test_mapcount_is_not_what_these_kernels_do(name: str) -> None:
    """One decision tells it from the kernel's: the store to a page that nobody else maps and somebody references."""
    agreement = result(name, "mapcount").agreement
    assert agreement.contested - agreement.contested_same == 1
    assert agreement.faults - agreement.same == 1


# --- costs ----------------------------------------------------------------------------------------------------------------------------


def raw_count(name: str, event: str, *keep: pl.Expr) -> int:
    trace = tracetool.open(fixture_path(f"{name}.dat"))
    return trace.events(event).filter(*keep).collect().height if event in trace.raw.event_names() else 0


@pytest.mark.parametrize("name", NAMES)
def test_every_cow_fault_is_counted(name: str) -> None:
    """do_wp_page was called that often for private memory."""
    assert analysed(name).observed["cow_faults"] == raw_count(name, "cow_fault", pl.col("vm_flags") & 8 == 0)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(("-5.10", "-6.1"))])
def test_every_copy_is_counted(name: str) -> None:
    """wp_page_copy was called that often: it copies pages and fills those where the zero page was. (Newer kernels inline it.)"""
    observed = analysed(name).observed
    assert observed["copies"] + observed["zero_fills"] + observed["unshares"] == raw_count(name, "cow_copy") > 0


@pytest.mark.parametrize("name", NAMES)
def test_costs_add_up(name: str) -> None:
    analysis = analysed(name)
    assert [each.name for each in analysis.policies] == list(POLICIES)
    base = result(name, "mapcount")
    for each in analysis.policies:
        older = each.agreement.reasons.get("the page is older than the trace", 0)
        assert each.cow_faults == each.copies + each.reuses + each.unshares + each.zero_fills + older
        copied = each.copies + each.early_copies + each.unshares
        assert each.extra_copies == copied - base.copies - base.early_copies - base.unshares
        assert each.extra_bytes == each.extra_copies * PAGE_SIZE
        assert each.extra_ns == each.extra_copies * 2_000
        assert each.extra_copies >= 0, "nothing shares more than mapcount, where no page is huge"
    unknown = analysis.replays["observed"].undetermined["decision"].cast(pl.String).to_list()
    assert own(name).cow_faults == analysis.observed["cow_faults"]
    for name_of_many, one in (("copies", "copy"), ("reuses", "reuse"), ("zero_fills", "zero-fill"), ("unshares", "unshare")):
        assert getattr(own(name), name_of_many) == analysis.observed[name_of_many] - unknown.count(one), one
    assert own(name).early_copies == analysis.observed["early_copies"]


@pytest.mark.parametrize("name", MAILS)
def test_the_mail_costs_one_copy_more_than_sharing(name: str) -> None:
    """Forced COW copies once as mapcount does, but for A's read reference instead of its store. 5.9 to 5.17 copy what waits in an LRU
    batch, too: the larger batches of newer kernels hold some of the program's own pages still. The newest drains only that of its own CPU,
    and only where it can help.
    """
    waiting = {
        each.name: analysed(name).replays[each.name].faults.collect().filter(decision="copy", reason="lru-batch").height
        for each in analysed(name).policies
    }
    assert (waiting["page-count"] > 0) == name.endswith(("-6.12", "-7.2"))
    assert waiting["exclusive"] <= waiting["page-count"]
    assert waiting["mapcount"] == waiting["forced-cow"] == waiting["page-count-5.18"] == own(name).extra_copies - 1 == 0
    assert {each.name: each.extra_copies - waiting[each.name] for each in analysed(name).policies} == {
        "mapcount": 0, "forced-cow": 0, "page-count": 1, "page-count-5.18": 1, "exclusive": 1,
    }  # fmt: skip


def test_peak_pages_are_those_mapped_at_the_fullest_moment() -> None:
    """A page of stack and four of its own; then two go, and one comes back."""
    m = Machine()
    a = m.spawn(A)
    for number in range(4):
        m.touch(a, address(number), 50 + number)
    for number in range(2):
        m.dontneed(a, address(number), 50 + number)
    m.touch(a, address(9), 60)
    assert cost(m.replay()).peak_pages == 5


@pytest.mark.parametrize("referenced", [False, True])
def test_a_page_that_only_a_reference_keeps_counts(referenced: bool) -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), 50)
    if referenced:
        m.vmsplice(a, address(0), 50)
    m.dontneed(a, address(0), 50)
    m.touch(a, address(1), 51)
    m.fork(a, B, [(BASE, 2)])
    assert cost(m.replay()).peak_pages == (3 if referenced else 2)


@pytest.mark.parametrize(("policy", "pages"), [("mapcount", 3), ("exclusive", 4)])
def test_pages_that_only_a_policy_makes_count(policy: str, pages: int) -> None:
    """The mail: stack, P0, A's P1, and where references count B's P2."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), 50)
    b = m.fork(a, B, [(BASE, 1)])
    m.vmsplice(a, address(0), 50)
    m.cow(a, address(0), 50, 51)
    m.cow(b, address(0), 50)
    assert cost(m.replay(policy)).peak_pages == pages


# --- the story ------------------------------------------------------------------------------------------------------------------------


def stories(name: str) -> dict[str, Story]:
    return {story.policy: story for story in analysed(name).stories}


@pytest.mark.parametrize("name", MAILS)
def test_the_story_of_the_mail_is_told_once_a_replay(name: str) -> None:
    told = stories(name)
    assert list(told) == ["observed", *POLICIES]
    assert {policy: story.safe for policy, story in told.items()} == {policy: policy != "mapcount" for policy in told}


@pytest.mark.parametrize("name", MAILS)
def test_the_people_and_pages_of_the_story(name: str) -> None:
    frames, (parent, child) = truth(name), frames_pid(name)
    story = stories(name)["observed"]
    assert story.owners == {"A": f"cowlab {parent}", "B": f"cowlab {child}"}
    expected = {"P0": frames["born", parent], "P1": frames["A-wrote", parent], "P2": frames["B-wrote", child]}
    assert story.pages == {page: f"frame {pfn:#x}" for page, pfn in expected.items()}
    assert len(stories(name)["mapcount"].pages) == 2


@pytest.mark.parametrize("name", MAILS)
def test_the_story_under_forced_cow(name: str) -> None:
    """A's read reference breaks COW: it is of A's own page from then on, and nobody else's store can reach it."""
    story = stories(name)["forced-cow"]
    steps = [(step.owner, step.act, step.page) for step in story.steps]
    (own,) = {page for owner, act, page in steps if act == "copy"}
    assert [step for step in steps if step[1] in ("copy", "reference", "reuse", "store")] == [
        ("A", "copy", own), ("A", "reference", own), ("A", "store", own), ("B", "reuse", "P0"),
    ]  # fmt: skip
    assert "wanted as for a store" in story.steps[2].text
    assert story.safe
    assert "what A itself has written" in story.outcome


@pytest.mark.parametrize("name", MAILS)
@pytest.mark.parametrize("policy", ["observed", *(name for name in POLICIES if name != "forced-cow")])
def test_the_steps_of_the_story(name: str, policy: str) -> None:
    """As in the mail: A and B share P0, A holds a reference to it, A writes, then B; who copies what is the policy's."""
    last = ("B", "reuse", "P0") if policy == "mapcount" else ("B", "copy", "P2")
    story = stories(name)[policy]
    steps = [(step.owner, step.act, step.page) for step in story.steps]
    assert steps[:6] == [
        ("A", "map", "P0"),
        ("A", "fork", "P0"),
        ("A", "reference", "P0"),
        ("A", "copy", "P1"),
        last,
        ("A", "release", "P0"),
    ]
    assert ("B", "exit", last[2]) in steps
    assert [step.ts for step in story.steps] == sorted(step.ts for step in story.steps)
    assert all(row in analysed(name).evidence for step in story.steps for row in step.evidence)


@pytest.mark.parametrize("name", MAILS)
@pytest.mark.parametrize("policy", ["observed", *(name for name in POLICIES if name != "forced-cow")])
def test_the_outcome_of_the_story(name: str, policy: str) -> None:
    """The reference shows B's data where pages are shared by the number of their mappings, else the first contents."""
    outcome = stories(name)[policy].outcome
    assert ("what B wrote" in outcome) == (policy == "mapcount")
    assert "P0" in outcome


@pytest.mark.parametrize("name", MAILS)
def test_the_picture_of_the_story(name: str) -> None:
    story = stories(name)["observed"]
    assert [(stay.owner, stay.page, stay.began, stay.ended) for stay in story.stays] == [
        ("A", "P0", "touch", "copied"), ("B", "P0", "fork", "copied"), ("A", "P1", "copy", "exit"), ("B", "P2", "copy", "exit"),
    ]  # fmt: skip
    (held,) = story.references
    assert (held.owner, held.page, held.kind, held.access, held.via, held.released) == ("A", "P0", "get", "read", "vmsplice", "exact")


def test_analysing_twice_says_the_same() -> None:
    trace = tracetool.open(fixture_path("mail-6.1.dat"))
    assert tracetool.analyse(trace).findings.equals(tracetool.analyse(trace).findings)


def test_only_the_policies_that_are_asked_for_are_replayed() -> None:
    from tracetool.policies import POLICIES as ALL

    analysis = tracetool.analyse(tracetool.open(fixture_path("mail-6.1.dat")), [ALL["exclusive"]])
    assert [each.name for each in analysis.policies] == ["exclusive"]
    assert list(analysis.replays) == ["observed", "exclusive"]
    assert (analysis.policies[0].extra_copies, analysis.policies[0].agreement) == (1, result("mail-6.1", "exclusive").agreement)
