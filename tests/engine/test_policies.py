"""Policies decide as the kernels did: whole decision tables, and the scenarios that were run on real kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import polars as pl
import pytest

from engine.build import BASE, FOLL_LONGTERM, Machine, address
from engine.scenarios import (
    AREA,
    NEW,
    P0,
    P2,
    P3,
    SAME,
    A,
    B,
    HugeScenario,
    Scenario,
    outcome,
    page_of,
    s1,
    s1b,
    s2,
    s3,
    s4,
    s6,
    s7,
    s9,
    s9b,
    s10,
    told_and_expected,
)
from tracetool.policies import POLICIES, Page, Request, SwapIn, policy, reuse, tabulate
from tracetool.policies import facts as f
from tracetool.schema import REASONS

M, F, C, C2, X = "mapcount", "forced-cow", "page-count", "page-count-5.18", "exclusive"

# What do_wp_page() and copy_page_range() do, by era, over the facts that every page has and that can be true at once: a pinned page is
# referenced, one that another maps is not exclusive. Columns: mapped elsewhere, referenced, maybe pinned, mm has pinned, exclusive; a store
# under M, C and C', X; a fork under M, C and C', X. c: another mapping forces a copy, r: a reference does, p: fork copies what is pinned;
# -: reuse, or share. (What else can hold a page: tests/engine/test_policy_facts.py.)
TABLE: Final = """
    0 0 0 0 0   - - -   - - -
    0 0 0 0 1   - - -   - - -
    0 0 0 1 0   - - -   - - -
    0 0 0 1 1   - - -   - - -
    0 1 0 0 0   - r r   - - -
    0 1 0 0 1   - r -   - - -
    0 1 0 1 0   - r r   - - -
    0 1 0 1 1   - r -   - - -
    0 1 1 0 0   - r r   - - -
    0 1 1 0 1   - r -   - - -
    0 1 1 1 0   - r r   - p -
    0 1 1 1 1   - r -   - p p
    1 0 0 0 0   c c c   - - -
    1 0 0 1 0   c c c   - - -
    1 1 0 0 0   c c c   - - -
    1 1 0 1 0   c c c   - - -
    1 1 1 0 0   c c c   - - -
    1 1 1 1 0   c c c   - p -
"""
REASON: Final = {"c": "another-mapping", "r": "reference", "p": "pinned-at-fork"}
ROWS: Final = [line.split() for line in TABLE.strip().splitlines()]
PAGES: Final = [Page(*(bit == "1" for bit in row[:5])) for row in ROWS]


def test_the_table_has_every_state_that_can_be() -> None:
    possible = {
        Page(bool(n & 1), bool(n & 2), bool(n & 4), bool(n & 8), bool(n & 16))
        for n in range(32)
        if not (n & 4 and not n & 2) and not (n & 1 and n & 16)
    }
    assert set(PAGES) == possible
    assert len(PAGES) == len(possible)


@pytest.mark.parametrize(("name", "column"), [(M, 5), (C, 6), (C2, 6), (X, 7)])
def test_stores(name: str, column: int) -> None:
    decided = {page: POLICIES[name].write_fault(page) for page in PAGES}
    assert {page: verdict.copy for page, verdict in decided.items()} == {
        page: row[column] != "-" for page, row in zip(PAGES, ROWS, strict=True)
    }
    for page, row in zip(PAGES, ROWS, strict=True):
        if row[column] != "-":
            assert decided[page].reason == REASON[row[column]]


@pytest.mark.parametrize(("name", "column"), [(M, 8), (C, 9), (C2, 9), (X, 10)])
def test_forks(name: str, column: int) -> None:
    decided = {page: POLICIES[name].fork(page) for page in PAGES}
    assert {page: verdict.copy for page, verdict in decided.items()} == {
        page: row[column] != "-" for page, row in zip(PAGES, ROWS, strict=True)
    }
    assert {verdict.reason for verdict in decided.values() if verdict.copy} <= {"pinned-at-fork"}


@pytest.mark.parametrize("longterm", [False, True])
@pytest.mark.parametrize("pin", [False, True])
@pytest.mark.parametrize("name", [M, C, C2, X])
def test_read_references(name: str, pin: bool, longterm: bool) -> None:
    """Only since 5.19, and only a pin of a page that is not exclusive, does a read reference unshare."""
    for page in PAGES:
        unshares = name == X and pin and not page.exclusive
        assert POLICIES[name].gup(page, Request(pin, longterm)) == ("unshare" if unshares else "take")


def test_forced_cow_decides_as_mapcount_but_for_read_references() -> None:
    """5.8: whatever is asked for, a read reference breaks COW as a store does."""
    for page in PAGES:
        assert policy(F).write_fault(page) == policy(M).write_fault(page)
        assert policy(F).fork(page) == policy(M).fork(page)
        assert {policy(F).gup(page, Request(pin, longterm)) for pin in (False, True) for longterm in (False, True)} == {"write"}


@pytest.mark.parametrize("name", [*POLICIES, "exclusive@6.1", "exclusive@6.12", "linux-7.3"])
def test_lookup_tables_hold_what_the_predicates_say(name: str) -> None:
    """Of every page that can be, whatever is true of it."""
    asked = policy(name)
    tables = tabulate(asked)
    for at, page in f._all_pages():
        verdicts = [(tables.write_fault, asked.write_fault(page)), (tables.fork, asked.fork(page))]
        if page.large:
            verdicts.append((tables.huge, asked.huge_write_fault(page)))
        for table, verdict in verdicts:
            assert (bool(table[at] & 1), REASONS[table[at] >> 1]) == (verdict.copy, verdict.reason), page
        for pin in (False, True):
            request = at | (f.PIN if pin else 0)
            assert ("take", "unshare", "write")[tables.gup[request]] == asked.gup(page, Request(pin, False))
        for store in (False, True):
            fault = at | (f.STORE if store else 0) | f.FRESH
            said = asked.swap_in(page, SwapIn(store, exclusive=False, fresh=True))
            assert ("shared", "exclusive", "writable")[tables.swap_in[fault]] == said


def test_facts_are_bits_and_bits_are_facts() -> None:
    for at, page in f._all_pages():
        assert f.bits_of(page) == at
        assert f.page_of(at) == page


def test_a_reason_that_does_not_exist_is_refused() -> None:
    odd = replace(POLICIES[M], write_fault=lambda page: reuse("whim"))
    with pytest.raises(ValueError, match="whim"):
        tabulate(odd)


# --- scenarios that were run on real kernels, under policies that none of them had ------------------------------------------------------

# tests/engine/test_section7.py has those of the kernels themselves. `gup` is what the first reference shows in the end: 1 the first
# contents, 5 A's store, 9 B's store. fork: is the child's page another than A's? Under M another mapping is all that counts; under F a
# read reference is taken as a store is written: of A's own copy, which A's store does not leave; C' decides of these as C does.
ORACLE: Final[dict[Callable[[Scenario], None], dict[str, dict[str, str | int]]]] = {
    s1: {
        M: {"A.w": NEW, "B.w": SAME, "gup": 9},
        F: {"A.w": SAME, "B.w": SAME, "gup": 5},
        C2: {"A.w": NEW, "B.w": NEW, "gup": 1},
    },
    s1b: {
        M: {"B.w": NEW, "A.w": SAME, "gup": 5},
        F: {"B.w": SAME, "A.w": SAME, "gup": 5},
        C2: {"B.w": NEW, "A.w": NEW, "gup": 1},
    },
    s2: {M: {"A.w": SAME, "gup": 5}, F: {"A.w": SAME, "gup": 5}, C2: {"A.w": NEW, "gup": 1}},
    s3: {M: {"A.w": SAME, "gup": 5}, F: {"A.w": SAME, "gup": 5}, C2: {"A.w": NEW, "gup": 1}},
    s4: {M: {"A.w": SAME, "gup": 5}, F: {"A.w": SAME, "gup": 5}, C2: {"A.w": NEW, "gup": 1}},
    s6: {M: {"A.w": NEW, "B.w": SAME}, F: {"A.w": NEW, "B.w": SAME}, C2: {"A.w": NEW, "B.w": SAME}},
    s7: {M: {"A.w": SAME}, F: {"A.w": SAME}, C2: {"A.w": SAME}},
    s9: {
        M: {"fork": SAME, "A.w": NEW, "B.w": SAME},
        F: {"fork": SAME, "A.w": NEW, "B.w": SAME},
        C2: {"fork": NEW, "A.w": SAME, "B.w": SAME},
    },
    s9b: {M: {"A.pin": NEW, "B.w": SAME}, F: {"A.pin": NEW, "B.w": SAME}, C2: {"A.pin": NEW, "B.w": SAME}},
    s10: {M: {"A.pin": SAME}, F: {"A.pin": NEW}, C2: {"A.pin": SAME}},
}


@pytest.mark.parametrize("under", [M, F, C2])
@pytest.mark.parametrize("copying", [False, True], ids=["recorded where pages are shared", "recorded where pages are copied"])
@pytest.mark.parametrize("scenario", list(ORACLE), ids=lambda scenario: scenario.__name__)
def test_scenarios_of_real_kernels(scenario: Callable[[Scenario], None], copying: bool, under: str) -> None:
    s = Scenario(copying)
    scenario(s)
    found, expected = told_and_expected(s, ORACLE[scenario][under], under)
    assert found == expected


@pytest.mark.parametrize("copying", [False, True])
@pytest.mark.parametrize("of", [Scenario, HugeScenario])
@pytest.mark.parametrize("scenario", list(ORACLE), ids=lambda scenario: scenario.__name__)
def test_the_recorded_outcome_is_that_of_the_recording(
    scenario: Callable[[Scenario], None], of: Callable[[bool], Scenario], copying: bool
) -> None:
    """The histories themselves are sound: what copied has a new frame, what did not kept its own."""
    s = of(copying)
    scenario(s)
    replay = s.m.replay()
    assert (replay.history.unknown_unmaps, replay.history.healed) == (0, 0)
    copied = replay.faults.filter(pl.col("decision").cast(pl.String).is_in(["copy", "unshare", "early-copy"])).collect()
    here = copied.filter(pl.col("address") == BASE).height
    assert here == list(outcome(s.acts.items(), replay).values()).count(NEW)
    assert copied.height - here in (0, 511)


# --- what only a policy makes -------------------------------------------------------------------------------------------------------------


def test_a_page_that_only_a_policy_makes_has_no_frame() -> None:
    s = Scenario(copying=False)
    s1(s)
    pages = s.m.pages(under=C)
    assert pages[B, BASE]["pfn"] == -1
    assert pages[B, BASE]["mapcount"] == 1
    fault = s.m.replay(C).faults.collect().to_dicts()[-1]
    assert (fault["decision"], fault["reason"], fault["pfn_before"], fault["pfn_after"]) == ("copy", "reference", P0, None)
    assert fault["page_after"] is not None


def test_a_copy_that_the_recorded_kernel_made_too_has_its_frame() -> None:
    s = Scenario(copying=True)
    s1(s)
    assert s.m.pages(under=C)[B, BASE]["pfn"] == P2


def test_a_store_that_a_policy_needs_no_fault_for_is_in_place() -> None:
    s = Scenario(copying=False)
    s9(s)
    decisions = s.m.replay(X).faults.select(pl.col("decision").cast(pl.String)).collect()["decision"].to_list()
    assert decisions == ["early-copy", "in-place", "in-place"]


def test_a_write_reference_faults_where_the_policy_left_the_entry_read_only() -> None:
    """Recorded: fork copied the pinned page for the child, a second pin needed no fault. Where fork shares, the second pin breaks COW."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.pin(a, address(0), P0)
    m.fork(a, B, AREA, early={address(0): P2})
    m.pin(a, address(0), P0)
    replay = m.replay(M)
    first, second = replay.reference_rows.filter(pl.col("via").cast(pl.String) == "io_uring")["page_id"].to_list()
    assert first == page_of(replay, B, m.now)
    assert second == page_of(replay, A, m.now) != first
    assert m.pages(under=M)[B, BASE]["mapcount"] == 1
    assert [row["decision"] for row in replay.faults.collect().to_dicts() if row["decision"] != "none"] == ["copy"]


def test_a_write_reference_to_a_page_of_its_own_takes_it_as_it_is() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.pin(a, address(0), P0)
    m.pin(a, address(0), P0)
    for name in (M, C, X):
        replay = m.replay(name)
        assert replay.faults.collect().height == 0
        assert m.pages(under=name)[A, BASE]["pins"] == 2


def test_what_a_policy_shares_may_have_been_written_unseen() -> None:
    """Fork copied early, so the parent's stores after it did not fault: where fork shares, what follows is not certain."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.pin(a, address(0), P0)
    b = m.fork(a, B, AREA, early={address(0): P2})
    m.fork(b, 12, AREA)
    m.cow(b, address(0), P2, P3)
    row = m.replay(M).fault_rows.filter(pl.col("decision").cast(pl.String) == "copy").to_dicts()[-1]
    assert row["unsure"]
    assert not m.replay(C).fault_rows["unsure"].any()


def test_a_user_s_policy_is_replayed_like_any() -> None:
    never = replace(POLICIES[M], name="never-reuse", write_fault=lambda page: f.copy("lock"))
    s = Scenario(copying=False)
    s7(s)
    fault: dict[str, Any] = s.m.replay(never).faults.collect().to_dicts()[-1]
    assert (fault["decision"], fault["reason"]) == ("copy", "lock")


@pytest.mark.parametrize("longterm", [0, FOLL_LONGTERM])
def test_a_read_pin_of_an_exclusive_page_unshares_nothing(longterm: int) -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.pin(a, address(0), P0, longterm)
    assert m.replay(X).faults.collect().height == 0
    assert m.pages(under=X)[A, BASE]["pins"] == 1
