"""Which policy the traced kernel had, and how well each decides as it did: on recordings of real kernels, and on histories made by hand."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import tracetool
from conftest import FIXTURES, fixture_path, fixture_traces, traces_folder
from engine.build import BASE, READ_ONLY, READ_WRITE, UNSHARE_FAULT, Machine, address
from engine.scenarios import AREA, P0, P1, A, B, Scenario, s1, s4, s6, s7
from tracetool.agreement import LOST, UNDETERMINED, judge, of_recording
from tracetool.outcomes import Kernel
from tracetool.policies import POLICIES, of_kernel, policy
from tracetool.replay.deciding import BATCH_UNKNOWN, RELEASE_UNKNOWN
from tracetool.trace import Trace

#: What Debian's kernels of these versions have: kernel.md.
OWN: Final = {"5.10": "page-count", "6.1": "exclusive@6.1", "6.12": "exclusive@6.12", "7.2": "exclusive@7.2"}
TRANSITIONS: Final = sorted((FIXTURES / "transitions").glob("*.dat"))


@functools.cache
def opened(path: Path) -> Trace:
    return tracetool.open(path)


def recordings() -> list[Any]:
    """The recordings outside the project, each by kernel and scenario."""
    folder = traces_folder()
    paths = sorted(folder.glob("[5-7].*/*.dat")) if folder else []
    return [pytest.param(path, marks=pytest.mark.exhaustive, id=f"{path.parent.name}-{path.stem}") for path in paths]


def own(path: Path) -> str:
    version = path.parent.name if path.parent.name in OWN else path.stem.rsplit("-", 1)[1]
    return OWN[version]


FIXED: Final = [pytest.param(path, id=path.stem) for path in (*fixture_traces(), *TRANSITIONS)]


# --- recordings of real kernels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*FIXED, *recordings()])
def test_the_kernel_s_own_policy_is_named(path: Path) -> None:
    kernel = opened(path).kernel
    assert (kernel.policy, kernel.expected) == (own(path), own(path))
    assert kernel.text.startswith(f"{own(path)} decides {kernel.agreement.same:,} of {kernel.agreement.faults:,} decisions")
    assert kernel.text.endswith("has it, too")
    assert ("none of them tells it from" in kernel.text) == (kernel.telling == 0) == (not kernel.told_by)
    assert all(decision.because for decision in kernel.told_by)


@pytest.mark.parametrize("path", [*FIXED, *recordings()])
def test_it_decides_as_the_kernel_did(path: Path) -> None:
    """Every contested decision, and all but a few of the others; of those the report says what is likely."""
    trace = opened(path)
    asked = [policy("kernel"), policy(own(path))]
    by_kernel, by_name = trace.agreements(asked)
    assert by_kernel == by_name == trace.kernel.agreement
    assert by_kernel.faults > 2
    assert by_kernel.contested_same == by_kernel.contested
    assert by_kernel.same >= 0.99 * by_kernel.faults
    assert len(trace.kernel.disagreements) == by_kernel.faults - by_kernel.same
    assert all(decision.because for decision in trace.kernel.disagreements)


@pytest.mark.parametrize("path", [*FIXED, *recordings()])
def test_what_is_not_judged_is_counted_by_its_reason(path: Path) -> None:
    trace = opened(path)
    found = trace.agreements(list(POLICIES.values()))
    for agreement in found:
        assert sum(agreement.reasons.values()) == agreement.undetermined
        assert set(agreement.reasons) <= set(UNDETERMINED.values())
        assert agreement.contested_same <= agreement.contested <= agreement.faults
    assert len({agreement.faults + agreement.undetermined for agreement in found}) == 1


@pytest.mark.parametrize(
    ("name", "release", "contradicted"),
    [
        ("mail-6.1", "5.4.0-42-generic", True),  # a store to a page that only a reference holds was copied
        ("random3-6.1", "5.4.0-42-generic", False),  # here are none
        ("random3-6.1", "5.15.0-91-generic", True),  # exclusive pages were reused whatever held them
        ("random3-6.1", "6.12.9", False),
        ("mail-5.10", "5.4.0-42-generic", True),
        ("mail-5.10", "5.15.0-91-generic", False),
        ("mail-5.10", "6.12.9", False),  # one store alone tells references from mappings, and no more
    ],
)
def test_a_release_that_decisions_contradict_is_told(name: str, release: str, contradicted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tracetool.open(fixture_path(f"{name}.dat"))
    metadata = replace(trace.raw.metadata, kernel=release)
    monkeypatch.setattr(type(trace.raw), "metadata", property(lambda raw: metadata))
    kernel, mainline = trace.kernel, of_kernel(release)
    assert mainline is not None
    assert (kernel.release, kernel.expected) == (release, mainline.name)
    assert (kernel.policy != mainline.name) == contradicted
    said = f"mainline of {release} has {mainline.name}: a backport, or a mistake of this tool" if contradicted else "has it, too"
    assert kernel.text.endswith(said)
    assert kernel.agreement.same == kernel.agreement.faults


# --- histories made by hand -----------------------------------------------------------------------------------------------------------


def kernel_of(m: Machine, release: str | None = "6.1.0") -> Kernel:
    """The kernel of a history; its own policy is asked, too, where the release names one, as of every trace."""
    history, named = m.history(), of_kernel(release)
    return of_recording(history, judge(history, [named] if named else []), release)


def recorded(*scenarios: Any, copying: bool) -> Machine:
    s = Scenario(copying)
    for scenario in scenarios:
        scenario(s)
    return s.m


@pytest.mark.parametrize(
    ("release", "name"),
    [("4.19.0", "mapcount"), ("5.8.0", "forced-cow"), ("5.10.0-26-amd64", "page-count"), ("5.18.3", "page-count-5.18"),
     ("5.19.0", "exclusive@5.19"), ("6.12.9", "exclusive@6.12"), (None, "exclusive"), ("Linux", "exclusive")],
)  # fmt: skip
@pytest.mark.parametrize("scenario", [s6, s7])
def test_where_nothing_tells_policies_apart_the_release_does(scenario: Any, release: str | None, name: str) -> None:
    """Shared pages are copied by every kernel, and single ones reused."""
    kernel = kernel_of(recorded(scenario, copying=True), release)
    assert (kernel.policy, kernel.telling, kernel.told_by) == (name, 0, ())
    assert f"none of them tells it from {kernel.runner_up}" in kernel.text
    if name == "exclusive":
        assert kernel.expected is None
        assert kernel.text.endswith("the release of the kernel is not known")


def test_mappings_alone_are_told_from_references() -> None:
    """The mail: B's store to a page that only a reference holds."""
    assert kernel_of(recorded(s1, copying=True)).policy == "exclusive@6.1"
    assert kernel_of(recorded(s1, copying=False), "4.19.0").policy == "mapcount"
    kernel = kernel_of(recorded(s1, copying=False), "5.10.0")
    assert (kernel.policy, kernel.expected) == ("mapcount", "page-count")
    assert "mainline of 5.10.0 has page-count: a backport, or a mistake of this tool" in kernel.text


def test_the_decision_that_tells_is_named() -> None:
    """A read pin of a shared page unshares it, as since 5.19 (and 5.8, in its way); and a store to a page that only a reference holds is
    copied, as in 5.9 and later: both only since 5.19.
    """
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.touch(a, address(1), 0x60)
    b = m.fork(a, B, [(BASE, 2)])
    m.pin_begin(a, address(0), 0)
    unshared = m.cow(a, address(0), P0, P1, flags=UNSHARE_FAULT | 0x4)
    m.pin_end(a, P1)
    m.vmsplice(a, address(1), 0x60)
    m.cow(a, address(1), 0x60, 0x61)
    held = m.cow(b, address(1), 0x60, 0x62)
    kernel = kernel_of(m)
    assert (kernel.policy, kernel.agreement.faults, kernel.agreement.same, kernel.agreement.contested) == ("exclusive@6.1", 3, 3, 2)
    assert (kernel.runner_up_agreement.same, kernel.telling) == (2, 1)
    (told,) = kernel.told_by
    assert (told.ts, told.because) in ((unshared, "another-mapping"), (held, "reference"))
    assert f"1 decision tells it from {kernel.runner_up}" in kernel.text


def test_what_a_policy_does_not_explain_is_told_with_what_is_likely() -> None:
    """A kernel that copies a page which nothing holds: no policy does."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.exit(m.fork(a, B, AREA), [P0])
    at = m.cow(a, address(0), P0, P1)
    kernel = kernel_of(m)
    (odd,) = kernel.disagreements
    assert (odd.ts, odd.tid, odd.address, odd.copied) == (at, A, BASE, True)
    assert odd.because == "the LRU batch of another CPU, or a lock that was held"
    assert (kernel.agreement.faults, kernel.agreement.same, kernel.agreement.contested) == (1, 0, 0)


def test_a_store_in_place_where_all_would_have_copied_is_told() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.fork(a, B, AREA)
    m.cow(a, address(0), P0)
    (odd,) = kernel_of(m).disagreements
    assert (odd.copied, odd.because) == (False, "what seemed to hold the page had let go of it")


def test_contested_are_the_decisions_on_which_two_policies_differ() -> None:
    """S4 on a kernel that copies: by mappings A is alone, by references it is not. S6: all agree."""
    history = recorded(s4, copying=True).history()
    found = dict(zip(POLICIES, judge(history).agreements(list(POLICIES)), strict=True))
    assert {name: (a.contested, a.contested_same) for name, a in found.items()} == dict.fromkeys(POLICIES, (1, 1)) | dict.fromkeys(
        ("mapcount", "forced-cow"), (1, 0)
    )
    history = recorded(s6, copying=True).history()
    assert {a.contested for a in judge(history).agreements(list(POLICIES))} == {0}


def test_one_disagreement_does_not_cause_the_next() -> None:
    """S3 on 5.10: mapcount would have reused the page, which is then unmapped; every store after it is to the copy, as recorded."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.vmsplice(a, address(0), P0)
    for pfn, new in ((P0, P1), (P1, None), (P1, None)):
        m.mprotect(a, address(0), READ_ONLY)
        m.mprotect(a, address(0), READ_WRITE)
        m.cow(a, address(0), pfn, new)
    (agreement,) = judge(m.history()).agreements(["mapcount"])
    assert (agreement.faults, agreement.same) == (3, 2)


def loss(m: Machine) -> tuple[int, int]:
    """A millisecond in which events may be missing."""
    begin = m.now + 1
    m.now += 1_000_000
    return begin, m.now - 1


@pytest.mark.parametrize("when", ["before the page", "before the decision", "after the decision"])
def test_what_rests_on_lost_events_is_not_judged(when: str) -> None:
    """A fork or a reference may be among them."""
    m = Machine()
    a = m.spawn(A)
    lost = [loss(m)] if when == "before the page" else []
    m.touch(a, address(0), P0)
    m.exit(m.fork(a, B, AREA), [P0])
    lost += [loss(m)] if when == "before the decision" else []
    m.cow(a, address(0), P0)
    lost += [loss(m)] if when == "after the decision" else []
    judged = judge(m.history(), losses=np.array(lost, np.int64))
    for agreement in judged.agreements(list(POLICIES)):
        if when == "before the decision":
            assert (agreement.faults, agreement.undetermined, agreement.reasons) == (0, 1, {UNDETERMINED[LOST]: 1})
        else:
            assert (agreement.faults, agreement.same, agreement.undetermined) == (1, 1, 0)


def test_losses_that_overlap_are_looked_at_together() -> None:
    m = Machine()
    a = m.spawn(A)
    long = m.now + 1
    m.touch(a, address(0), P0)
    m.exit(m.fork(a, B, AREA), [P0])
    short = loss(m)
    m.cow(a, address(0), P0)
    for losses in ([(long, m.now), short], [short, (long, m.now)]):
        (agreement,) = judge(m.history(), losses=np.array(losses, np.int64)).agreements(["exclusive"])
        assert agreement.reasons == {UNDETERMINED[LOST]: 1}


def test_a_reference_that_may_have_been_released_leaves_the_decision_open() -> None:
    """Of O_DIRECT nothing tells the end of a reference: where references decide, it cannot be said; where only mappings do, it can."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.exit(m.fork(a, B, AREA), [P0])
    m.event("gup_fast", A, start=address(0), nr_pages=1, flags=4)
    m.event("gup_grab", A, page=0xFFD4_0000_0000_0000 + (P0 << 6), refs=1, flags=4)
    m.event("gup_fast_done", A, ret=1)
    m.mark(A, "io")
    m.cow(a, address(0), P0)
    found = dict(zip(POLICIES, judge(m.history()).agreements(list(POLICIES)), strict=True))
    assert found["page-count"].reasons == found["exclusive"].reasons == {UNDETERMINED[RELEASE_UNKNOWN]: 1}
    assert (found["mapcount"].faults, found["mapcount"].same) == (1, 1)


def test_every_reason_has_its_words() -> None:
    assert len(set(UNDETERMINED.values())) == len(UNDETERMINED)
    assert {BATCH_UNKNOWN, RELEASE_UNKNOWN, LOST} < set(UNDETERMINED)


def test_no_decision_tells_nothing() -> None:
    kernel = kernel_of(Machine())
    assert (kernel.agreement.faults, kernel.telling, kernel.disagreements) == (0, 0, ())
    assert kernel.policy == "exclusive@6.1"
