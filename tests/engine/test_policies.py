"""Policies decide as the kernels did: whole decision tables, and the scenarios that were run on real kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import polars as pl
import pytest

from engine.build import BASE, FOLL_LONGTERM, READ_ONLY, READ_WRITE, UNSHARE_FAULT, WRITE_FAULT, Machine, Process, address
from tracetool.errors import UnknownName
from tracetool.policies import POLICIES, Page, Request, chosen, policy, reuse, tabulate
from tracetool.policies import facts as f
from tracetool.replay import Replay
from tracetool.schema import REASONS

M, F, C, X = "mapcount", "forced-cow", "page-count", "exclusive"

# What do_wp_page() and copy_page_range() do, by era, over all facts that can be true at once: a pinned page is referenced, one that another
# maps is not exclusive. Columns: mapped elsewhere, referenced, maybe pinned, mm has pinned, exclusive; a store under M, C, X; a fork
# under M, C, X. c: another mapping forces a copy, r: a reference does, p: fork copies what is pinned; -: reuse, or share.
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


@pytest.mark.parametrize(("name", "column"), [(M, 5), (C, 6), (X, 7)])
def test_stores(name: str, column: int) -> None:
    decided = {page: POLICIES[name].write_fault(page) for page in PAGES}
    assert {page: verdict.copy for page, verdict in decided.items()} == {
        page: row[column] != "-" for page, row in zip(PAGES, ROWS, strict=True)
    }
    for page, row in zip(PAGES, ROWS, strict=True):
        if row[column] != "-":
            assert decided[page].reason == REASON[row[column]]


@pytest.mark.parametrize(("name", "column"), [(M, 8), (C, 9), (X, 10)])
def test_forks(name: str, column: int) -> None:
    decided = {page: POLICIES[name].fork(page) for page in PAGES}
    assert {page: verdict.copy for page, verdict in decided.items()} == {
        page: row[column] != "-" for page, row in zip(PAGES, ROWS, strict=True)
    }
    assert {verdict.reason for verdict in decided.values() if verdict.copy} <= {"pinned-at-fork"}


@pytest.mark.parametrize("longterm", [False, True])
@pytest.mark.parametrize("pin", [False, True])
@pytest.mark.parametrize("name", [M, C, X])
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


@pytest.mark.parametrize("name", [M, F, C, X])
def test_lookup_tables_hold_what_the_predicates_say(name: str) -> None:
    tables = tabulate(POLICIES[name])
    bits = (f.MAPPED_ELSEWHERE, f.REFERENCED, f.MAYBE_PINNED, f.MM_HAS_PINNED, f.EXCLUSIVE)
    for page in PAGES:
        at = sum(bit for bit, true in zip(bits, page, strict=True) if true)
        for table, verdict in ((tables.write_fault, POLICIES[name].write_fault(page)), (tables.fork, POLICIES[name].fork(page))):
            assert (bool(table[at] & 1), REASONS[table[at] >> 1]) == (verdict.copy, verdict.reason)
        for pin in (False, True):
            request = at | (f.PIN if pin else 0)
            assert ("take", "unshare", "write")[tables.gup[request]] == POLICIES[name].gup(page, Request(pin, False))


def test_a_reason_that_does_not_exist_is_refused() -> None:
    odd = replace(POLICIES[M], write_fault=lambda page: reuse("whim"))
    with pytest.raises(ValueError, match="whim"):
        tabulate(odd)


def test_policies_by_name() -> None:
    assert policy(C).name == C
    with pytest.raises(UnknownName) as caught:
        policy("pagecount")
    assert C in (caught.value.hint or "")
    assert [p.name for p in chosen([])] == [p.name for p in chosen(["all"])] == [M, F, C, X]
    assert chosen(["none"]) == []
    assert [p.name for p in chosen([X, M, X])] == [X, M]


# --- scenarios that were run on real kernels --------------------------------------------------------------------------------------------

A, B, P0, P1, P2, P3 = 10, 11, 50, 51, 52, 53
AREA = [(BASE, 1)]


@dataclass
class Scenario:
    """One history, recorded either on a kernel that shares what it can (5.7) or on one that copies (the newest).

    `acts` names moments: (process, just before, just after).
    """

    copying: bool
    m: Machine = field(default_factory=Machine)
    acts: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def a(self) -> Process:
        process = self.m.spawn(A)
        self.m.touch(process, address(0), P0)
        return process

    def act(self, name: str, who: int, done: Callable[[], object]) -> None:
        before = self.m.mark(99, name)
        done()
        self.acts[name] = (who, before, self.m.mark(99, "after"))

    def write(self, name: str, p: Process, pfn: int, new: int | None) -> None:
        self.act(name, p.tid, lambda: self.m.cow(p, address(0), pfn, new))


def s1(s: Scenario) -> None:
    a = s.a()
    b = s.m.fork(a, B, AREA)
    s.m.vmsplice(a, address(0), P0)
    s.write("A.w", a, P0, P1)
    s.write("B.w", b, P0, P2 if s.copying else None)


def s1b(s: Scenario) -> None:
    a = s.a()
    b = s.m.fork(a, B, AREA)
    s.m.vmsplice(a, address(0), P0)
    s.write("B.w", b, P0, P1)
    s.write("A.w", a, P0, P2 if s.copying else None)


def s2(s: Scenario) -> None:
    a = s.a()
    s.m.exit(s.m.fork(a, B, AREA), [P0])
    s.m.vmsplice(a, address(0), P0)
    s.write("A.w", a, P0, P1 if s.copying else None)


def s3(s: Scenario) -> None:
    """Recorded on kernels that fault after mprotect: those before 6.1."""
    a = s.a()
    s.m.vmsplice(a, address(0), P0)
    s.m.mprotect(a, address(0), READ_ONLY)
    s.m.mprotect(a, address(0), READ_WRITE)
    s.write("A.w", a, P0, P1 if s.copying else None)


def s4(s: Scenario) -> None:
    a = s.a()
    s.m.vmsplice(a, address(0), P0)
    s.m.exit(s.m.fork(a, B, AREA), [P0])
    s.write("A.w", a, P0, P1 if s.copying else None)


def s6(s: Scenario) -> None:
    a = s.a()
    b = s.m.fork(a, B, AREA)
    s.write("A.w", a, P0, P1)
    s.write("B.w", b, P0, None)


def s7(s: Scenario) -> None:
    a = s.a()
    s.m.exit(s.m.fork(a, B, AREA), [P0])
    s.write("A.w", a, P0, None)


def s9(s: Scenario) -> None:
    """On a kernel that copies at fork neither store faults."""
    a = s.a()
    s.m.pin(a, address(0), P0)
    s.act("fork", B, lambda: s.m.fork(a, B, AREA, early={address(0): P2} if s.copying else None))
    if not s.copying:
        b = Process(B, s.m.mm() - 0xD80)
        s.write("A.w", a, P0, P1)
        s.write("B.w", b, P0, None)


def s9b(s: Scenario) -> None:
    a = s.a()
    b = s.m.fork(a, B, AREA)

    def pins() -> None:
        s.m.pin_begin(a, address(0))
        s.m.cow(a, address(0), P0, P1, flags=WRITE_FAULT & ~0x40)
        s.m.pin_end(a, P1)

    s.act("A.pin", A, pins)
    s.write("B.w", b, P0, None)


def s10(s: Scenario) -> None:
    """process_vm_readv of one's own shared page: the newest kernels unshare it for the pin."""
    a = s.a()
    s.m.fork(a, B, AREA)

    def pins() -> None:
        s.m.pin_begin(a, address(0), 0)
        if s.copying:
            s.m.cow(a, address(0), P0, P1, flags=UNSHARE_FAULT | 0x4)
        s.m.pin_end(a, P1 if s.copying else P0)

    s.act("A.pin", A, pins)


NEW, SAME = "NEW", "SAME"
# Under C what 5.10 did, under X what 6.1, 6.12, 6.18 and 7.3 did. No kernel of M was run: there, another mapping is all that counts.
# `gup` is what the first reference shows in the end: 1 the first contents, 5 A's store, 9 B's store. fork: is the child's page another
# than A's?
ORACLE: Final[dict[Callable[[Scenario], None], dict[str, dict[str, str | int]]]] = {
    s1: {C: {"A.w": NEW, "B.w": NEW, "gup": 1}, X: {"A.w": NEW, "B.w": NEW, "gup": 1}, M: {"A.w": NEW, "B.w": SAME, "gup": 9}},
    s1b: {C: {"B.w": NEW, "A.w": NEW, "gup": 1}, X: {"B.w": NEW, "A.w": NEW, "gup": 1}, M: {"B.w": NEW, "A.w": SAME, "gup": 5}},
    s2: {C: {"A.w": NEW, "gup": 1}, X: {"A.w": NEW, "gup": 1}, M: {"A.w": SAME, "gup": 5}},
    s3: {C: {"A.w": NEW, "gup": 1}, X: {"A.w": SAME, "gup": 5}, M: {"A.w": SAME, "gup": 5}},
    s4: {C: {"A.w": NEW, "gup": 1}, X: {"A.w": NEW, "gup": 1}, M: {"A.w": SAME, "gup": 5}},
    s6: {C: {"A.w": NEW, "B.w": SAME}, X: {"A.w": NEW, "B.w": SAME}, M: {"A.w": NEW, "B.w": SAME}},
    s7: {C: {"A.w": SAME}, X: {"A.w": SAME}, M: {"A.w": SAME}},
    s9: {
        C: {"fork": NEW, "A.w": SAME, "B.w": SAME},
        X: {"fork": NEW, "A.w": SAME, "B.w": SAME},
        M: {"fork": SAME, "A.w": NEW, "B.w": SAME},
    },
    s9b: {C: {"A.pin": NEW, "B.w": SAME}, X: {"A.pin": NEW, "B.w": SAME}, M: {"A.pin": NEW, "B.w": SAME}},
    s10: {C: {"A.pin": SAME}, X: {"A.pin": NEW}, M: {"A.pin": SAME}},
}


def page_of(replay: Replay, who: int, at: int) -> int:
    """The page that a process has at the test's address at a time."""
    rows = replay.stays.filter(
        pl.col("pid") == who, pl.col("address") == BASE, pl.col("from_ns") <= at, pl.col("to_ns").is_null() | (pl.col("to_ns") > at)
    )
    (page,) = rows["page_id"].to_list()
    return int(page)


def outcome(scenario: Scenario, replay: Replay) -> dict[str, str | int]:
    """Who got a new page, and what the first reference shows at last."""
    found: dict[str, str | int] = {}
    held = replay.reference_rows.filter(pl.col("via").cast(pl.String) != "exec")["page_id"].to_list()
    shown = 1
    for name, (who, before, after) in scenario.acts.items():
        was = page_of(replay, A if name == "fork" else who, before)
        now = page_of(replay, who, after)
        found[name] = SAME if was == now else NEW
        if name.endswith(".w") and held and now == held[0]:
            shown = 5 if who == A else 9
    return found | {"gup": shown}


@pytest.mark.parametrize("under", [M, C, X])
@pytest.mark.parametrize("copying", [False, True], ids=["recorded where pages are shared", "recorded where pages are copied"])
@pytest.mark.parametrize("scenario", list(ORACLE), ids=lambda scenario: scenario.__name__)
def test_scenarios_of_real_kernels(scenario: Callable[[Scenario], None], copying: bool, under: str) -> None:
    s = Scenario(copying)
    scenario(s)
    expected = ORACLE[scenario][under]
    found = outcome(s, s.m.replay(under))
    assert {name: value for name, value in found.items() if name in expected} == {
        name: value for name, value in expected.items() if name in s.acts or name == "gup"
    }


@pytest.mark.parametrize("copying", [False, True])
@pytest.mark.parametrize("scenario", list(ORACLE), ids=lambda scenario: scenario.__name__)
def test_the_recorded_outcome_is_that_of_the_recording(scenario: Callable[[Scenario], None], copying: bool) -> None:
    """The histories themselves are sound: what copied has a new frame, what did not kept its own."""
    s = Scenario(copying)
    scenario(s)
    replay = s.m.replay()
    assert (replay.history.unknown_unmaps, replay.history.healed) == (0, 0)
    copied = replay.faults.filter(pl.col("decision").cast(pl.String).is_in(["copy", "unshare", "early-copy"])).collect().height
    assert copied == list(outcome(s, replay).values()).count(NEW)


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
