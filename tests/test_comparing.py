"""Where two policies part: decision by decision on hand-made histories, and against a slow count on made-up ones."""

from __future__ import annotations

import itertools
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
    READ_FAULT,
    READ_ONLY,
    READ_WRITE,
    REMOTE_FAULT,
    UNSHARE_FAULT,
    Machine,
    Process,
    address,
)
from handmade import protected_while_pinned, trace_of
from tracetool.comparing import Comparison, compare, groups, kinds
from tracetool.errors import UnknownName, Unusable
from tracetool.judging import found
from tracetool.replay import Replay
from tracetool.schema import COMPARISON, polars_schema
from tracetool.synth import Plan, synthesise
from tracetool.trace import Trace

A, B, C = 10, 11, 12
P0, P1, P2 = 0x50, 0x51, 0x52
AREA: Final = [(BASE, 8)]


def said(comparison: Comparison) -> list[tuple[Any, ...]]:
    """Access, process, page number, and both decisions of each difference."""
    number = (pl.col("address") - BASE) // 4096
    columns = ("access", "pid", number, "decision_a", "decision_b")
    return comparison.differences.select(*columns).rows()


def mail() -> Machine:
    """The mail's example on a kernel that counts references."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    b = m.fork(a, B, AREA)
    m.vmsplice(a, address(0), P0)
    m.cow(a, address(0), P0, P1)
    m.cow(b, address(0), P0, P2)
    m.pipe_release(A, P0)
    return m


# --- what is a difference -------------------------------------------------------------------------------------------------------------


def test_the_mail_has_one_difference_and_the_leak_follows_from_it() -> None:
    told = compare(trace_of(mail()), "mapcount", "page-count")
    (row,) = told.differences.to_dicts()
    assert (row["access"], row["pid"], row["address"], row["certainty"]) == ("store", B, address(0), "certain")
    assert (row["policy_a"], row["decision_a"], row["reason_a"]) == ("mapcount", "reuse", "sole-owner")
    assert (row["policy_b"], row["decision_b"], row["reason_b"]) == ("page-count", "copy", "reference")
    assert (row["mapcount_a"], row["references_a"], row["pfn_a"], row["pfn_b"]) == (1, 1, P0, P0)
    assert (row["findings_a"], row["findings_b"]) == (["missed-cow-1@mapcount"], [])
    assert (row["copies_later"], row["differences_later"]) == (0, 0)
    assert (told.compared, told.undetermined, told.copies) == (2, 0, (1, 2))
    assert told.alike.rows() == [("copy", "another-mapping", 1)]


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.2"])
def test_the_recorded_mail_has_one_difference(kernel: str) -> None:
    """But for what waits in an LRU batch, which page-count copies, too: that is nobody's reference."""
    told = compare(tracetool.open(fixture_path(f"mail-{kernel}.dat")), "mapcount", "page-count")
    (row,) = told.differences.filter(pl.col("reason_b").cast(pl.String) != "lru-batch").to_dicts()
    assert (row["decision_a"], row["decision_b"], row["findings_a"]) == ("reuse", "copy", ["missed-cow-1@mapcount"])


def test_the_other_way_round_is_the_same_mirrored() -> None:
    trace = trace_of(mail())
    (one,), (other,) = (compare(trace, *names).differences.to_dicts() for names in itertools.permutations(("mapcount", "page-count")))
    for name in ("policy", "decision", "reason", "page", "pfn", "mapcount", "references", "findings"):
        assert (one[f"{name}_a"], one[f"{name}_b"]) == (other[f"{name}_b"], other[f"{name}_a"])


def test_a_copy_that_only_one_side_has_to_make_is_a_difference() -> None:
    """forced-cow copies for the read reference; then A writes its own page in place, and B is left alone with P0."""
    told = compare(trace_of(mail()), "mapcount", "forced-cow")
    assert said(told) == [("gup", A, 0, None, "copy"), ("store", A, 0, "copy", "in-place")]
    first, second = told.differences.to_dicts()
    assert (first["copies_later"], first["differences_later"]) == (-1, 1)
    assert (second["copies_later"], second["differences_later"]) == (0, 0)


def test_an_early_copy_at_fork_is_a_difference() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.pin(a, address(0), P0)
    m.fork(a, B, AREA, early={address(0): P1})
    m.unpin(A, P0)
    told = compare(trace_of(m), "mapcount", "exclusive")
    assert [row[-2:] for row in said(told)] == [("none", "early-copy")]
    assert told.differences["access"].to_list() == ["fork"]
    assert told.differences["findings_a"].to_list() == [["fork-after-pin-1@mapcount"]]


def test_a_page_that_a_read_pin_unshares_is_a_difference_of_gup() -> None:
    """6.1: process_vm_readv of a page that fork shared copies it for the pin."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.fork(a, B, AREA)
    m.event("gup", A, mm=a.mm, start=address(0), nr_pages=1, flags=FOLL_PIN)
    m.cow(a, address(0), P0, P1, flags=(READ_FAULT | REMOTE_FAULT | UNSHARE_FAULT) & ~1)
    m.event("gup_done", A, ret=1)
    assert said(compare(trace_of(m), "mapcount", "exclusive")) == [("gup", A, 0, None, "unshare")]
    assert said(compare(trace_of(m), "observed", "exclusive")) == []


def test_writing_in_place_with_or_without_a_decision_is_no_difference() -> None:
    """5.10 asks again after mprotect, exclusive has made the entry writable: both write in place."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.mprotect(a, address(0), READ_ONLY)
    m.mprotect(a, address(0), READ_WRITE)
    m.cow(a, address(0), P0)
    trace = trace_of(m)
    decisions = {name: trace.replay(name).fault_rows["decision"].cast(pl.String).to_list() for name in ("mapcount", "exclusive")}
    assert decisions == {"mapcount": ["reuse"], "exclusive": ["in-place"]}
    assert compare(trace, "mapcount", "exclusive").differences.height == 0


def test_stores_that_a_policy_would_have_faulted_on_are_possible_differences() -> None:
    told = compare(trace_of(protected_while_pinned()), "mapcount", "page-count")
    assert said(told) == [("protect", A, 0, None, "unseen")]
    assert told.differences["certainty"].to_list() == ["possible"]
    assert told.differences["findings_b"].to_list() == [["wrong-cow-1@page-count"]]
    assert told.copies == (0, 0)


def test_pages_older_than_the_trace_are_counted_apart() -> None:
    m = mail()
    older = m.older(C)
    m.cow(older, address(5), 0x70, 0x71)
    told = compare(trace_of(m), "mapcount", "page-count")
    assert (told.undetermined, told.compared, told.differences.height) == (1, 2, 1)
    observed = compare(trace_of(m), "observed", "page-count")
    assert (observed.undetermined, observed.differences.height) == (1, 0)
    assert observed.copies == (2, 2), "of decisions that both can tell"
    mirrored = compare(trace_of(m), "page-count", "observed")
    assert (mirrored.undetermined, mirrored.differences.height) == (1, 0)


def test_nothing_decided_is_nothing_compared() -> None:
    m = Machine()
    m.touch(m.spawn(A), address(0), P0)
    told = compare(trace_of(m, without=["cow_fault"]), "mapcount", "page-count")
    assert (told.compared, told.undetermined, told.differences.height) == (0, 0, 0)
    assert "cow_fault" in told.missing
    assert dict(told.differences.schema) == polars_schema(COMPARISON)


def test_two_policies_are_two() -> None:
    trace = trace_of(mail())
    with pytest.raises(Unusable):
        compare(trace, "mapcount", "mapcount")
    with pytest.raises(UnknownName) as failed:
        compare(trace, "mapcount", "pagecount")
    assert failed.value.hint is not None
    assert "page-count" in failed.value.hint
    assert "observed" in failed.value.hint


# --- what follows ---------------------------------------------------------------------------------------------------------------------


def test_what_follows_is_counted_within_the_family_only() -> None:
    """Two pages; of each B is left alone with a page that A references, and writes it twice, a fork between."""
    m = Machine()
    a = m.spawn(A)
    for number in (0, 2):
        m.touch(a, address(number), 0x100 + number)
    b = m.fork(a, B, AREA)
    for number in (0, 2):
        m.vmsplice(a, address(number), 0x100 + number)
        m.cow(a, address(number), 0x100 + number, 0x200 + number)
        m.cow(b, address(number), 0x100 + number, 0x300 + number)
    c = m.fork(b, C, AREA)
    m.vmsplice(b, address(2), 0x302)
    m.cow(b, address(2), 0x302, 0x402)
    m.cow(c, address(2), 0x302, 0x502)
    told = compare(trace_of(m), "mapcount", "page-count")
    assert [row[:3] for row in said(told)] == [("store", B, 0), ("store", B, 2), ("store", C, 2)]
    assert told.differences["differences_later"].to_list() == [0, 1, 0]
    assert told.differences["copies_later"].to_list() == [0, 1, 0]
    assert [len(ids) for ids in told.differences["findings_a"].to_list()] == [1, 3, 2]


# --- neighbours -----------------------------------------------------------------------------------------------------------------------


def shared_and_left(m: Machine, pages: tuple[int, ...], children: int) -> list[Process]:
    """A's pages, which so many children map alone from then on, while A's references read them."""
    a = m.spawn(A)
    for number in pages:
        m.touch(a, address(number), 0x100 + number)
    forked = [m.fork(a, B + number, AREA) for number in range(children)]
    for number in pages:
        m.vmsplice(a, address(number), 0x100 + number)
        m.cow(a, address(number), 0x100 + number, 0x200 + number)
    return forked


def test_neighbours_of_two_processes_are_told_apart() -> None:
    m = Machine()
    b, c = shared_and_left(m, (0, 1), 2)
    m.dontneed(c, address(0), 0x100)
    m.dontneed(b, address(1), 0x101)
    stores = [m.cow(b, address(0), 0x100, 0x300), m.cow(c, address(1), 0x101, 0x301)]
    table = groups(compare(trace_of(m), "mapcount", "page-count").differences)
    assert table.select("pid", "first", "pages", "from_ns").rows() == [(B, address(0), 1, stores[0]), (C, address(1), 1, stores[1])]


def test_neighbours_of_one_kind_are_one_group() -> None:
    m = Machine()
    (b,) = shared_and_left(m, (0, 1, 2, 4), 1)
    times = {number: m.cow(b, address(number), 0x100 + number, 0x400 + number) for number in (2, 0, 4, 1)}
    told = compare(trace_of(m), "mapcount", "page-count")
    table = groups(told.differences)
    assert table.select("first", "last", "pages", "count", "from_ns", "to_ns").rows() == [
        (address(0), address(2), 3, 3, times[2], times[1]),
        (address(4), address(4), 1, 1, times[4], times[4]),
    ]
    assert [len(ids) for ids in table["findings_a"].to_list()] == [3, 1]
    assert kinds(told.differences)["count"].to_list() == [4]
    assert table["count"].sum() == told.differences.height


# --- against a slow count -------------------------------------------------------------------------------------------------------------

COPIED: Final = {"copy", "early-copy", "unshare", "zero-fill"}


def outcome(row: dict[str, Any] | None) -> str:
    if row is None or row["decision"] in ("reuse", "in-place", "none"):
        return "in place"
    return "copied" if row["decision"] in COPIED else str(row["decision"])


def slowly(trace: Trace, a: str, b: str) -> tuple[list[dict[str, Any]], int]:
    """The differences, one by one, and how many decisions were compared."""
    sides = [trace.replay(a), trace.replay(b)]
    rows = [{(row["event"], row["place"]): row for row in side.fault_rows.iter_rows(named=True)} for side in sides]
    told: list[dict[str, Any]] = []
    compared = 0
    for key in sorted({*rows[0], *rows[1]}):
        one, other = rows[0].get(key), rows[1].get(key)
        if "undetermined" in (outcome(one), outcome(other)):
            continue
        compared += 1
        if outcome(one) != outcome(other) or (outcome(one) == "copied" and one and other and one["decision"] != other["decision"]):
            page = next(row["page_before"] for row in (one, other) if row is not None and row["page_before"] is not None)
            side = sides[0] if one is not None and one["page_before"] is not None else sides[1]
            told.append({"key": key, "family": root(side, page), "a": one and one["decision"], "b": other and other["decision"]})
    for row in told:
        later = [sum(pages for family, event, pages in copies(side) if family == row["family"] and event > row["key"][0]) for side in sides]
        row["copies_later"] = later[1] - later[0]
        row["differences_later"] = sum(1 for each in told if each["family"] == row["family"] and each["key"] > row["key"])
    return told, compared


def root(side: Replay, page: int) -> int:
    return int(side.family_of_page[page])


def copies(side: Replay) -> list[tuple[int, int, int]]:
    rows = side.fault_rows.filter(pl.col("decision").cast(pl.String).is_in(["copy", "early-copy", "unshare"]))
    columns = rows.select("page_before", "event", "pages").drop_nulls()
    return [(root(side, page), event, pages) for page, event, pages in columns.iter_rows()]


@pytest.mark.parametrize("scenario", ["random", "pins", "snapshot"])
@pytest.mark.parametrize(("a", "b"), [("observed", "mapcount"), ("mapcount", "exclusive"), ("forced-cow", "page-count")])
def test_a_slow_count_says_the_same(scenario: str, a: str, b: str, tmp_path: Path) -> None:
    synthesise(Plan(scenario, events=1_500, pages=6, processes=6, references=0.4), tmp_path / "trace.dat")
    trace = tracetool.open(tmp_path / "trace.dat")
    told = compare(trace, a, b)
    slow, compared = slowly(trace, a, b)
    assert told.compared == compared > 20
    columns = ("event", "family", "decision_a", "decision_b", "copies_later", "differences_later")
    assert told.differences.select(columns).rows() == [
        (row["key"][0], row["family"], row["a"], row["b"], row["copies_later"], row["differences_later"]) for row in slow
    ]
    assert told.differences["ts"].is_sorted()
    assert groups(told.differences)["count"].sum() == told.differences.height


@pytest.mark.parametrize("scenario", ["random", "pins"])
def test_findings_that_follow_are_of_one_side_in_that_family_from_then_on(scenario: str, tmp_path: Path) -> None:
    synthesise(Plan(scenario, events=1_500, pages=6, processes=6, references=0.4), tmp_path / "trace.dat")
    trace = tracetool.open(tmp_path / "trace.dat")
    told = compare(trace, "mapcount", "page-count")
    sides = {"a": trace.replay("mapcount"), "b": trace.replay("page-count")}
    cases = {side: found(trace, replay).to_dicts() for side, replay in sides.items()}
    same = {side: {(row["rule"], row["mm"], row["address"], row["from_ns"]) for row in rows} for side, rows in cases.items()}
    assert told.differences.height
    for row in told.differences.iter_rows(named=True):
        for side, other in (("a", "b"), ("b", "a")):
            expected = {
                case["id"]
                for case in cases[side]
                if (case["rule"], case["mm"], case["address"], case["from_ns"]) not in same[other]
                and root(sides[side], case["page_id"]) == row["family"]
                and case["from_ns"] >= row["ts"]
            }
            assert set(row[f"findings_{side}"]) == expected
    assert any(row["findings_a"] for row in told.differences.iter_rows(named=True))


def test_the_counts_are_those_of_the_agreement() -> None:
    """A recorded kernel compared with its own policy: no difference, of as many decisions as agree."""
    trace = tracetool.open(fixture_path("random1-6.1.dat"))
    agreement = tracetool.analyse(trace).policies[-1].agreement
    told = compare(trace, "observed", "exclusive")
    assert agreement.same == agreement.faults
    assert told.differences.height == 0
    assert told.undetermined == agreement.undetermined


@pytest.mark.exhaustive
@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.2"])
def test_the_mails_of_the_recordings(kernel: str, traces: Path) -> None:
    told = compare(tracetool.open(traces / kernel / "mail.dat"), "mapcount", "page-count")
    (row,) = told.differences.filter(pl.col("reason_b").cast(pl.String) != "lru-batch").to_dicts()
    assert (row["access"], row["findings_a"], row["findings_b"]) == ("store", ["missed-cow-1@mapcount"], [])


@pytest.mark.exhaustive
def test_the_pins_of_the_recordings(traces: Path) -> None:
    """Four pages under a write pin: mapcount shares them with the child, page-count does not."""
    told = compare(tracetool.open(traces / "6.1" / "iouring.dat"), "mapcount", "page-count")
    early = told.differences.filter(pl.col("decision_b") == "early-copy")
    assert early.height == 4
    assert all(any(name.startswith("fork-after-pin") for name in ids) for ids in early["findings_a"].to_list())


def test_a_get_reference_never_forces_an_early_copy() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.event("gup_fast", A, start=address(0), nr_pages=1, flags=FOLL_GET)
    m.event("gup_fast_done", A, ret=1)
    m.fork(a, B, AREA)
    assert said(compare(trace_of(m), "mapcount", "exclusive")) == []
