"""Rules, on tables handed in: each condition of a case on and off, what is certain, and what a trace may call clean."""

from __future__ import annotations

from typing import Any, Final

import polars as pl
import pytest

from tracetool.errors import UnknownName
from tracetool.rules import RULES, Evidence, Rule, findings, rule, verdict
from tracetool.rules.base import TRACED_RELEASES, traced_releases
from tracetool.schema import FAULTS, FINDINGS, OWNERSHIP, REFERENCES, Table, polars_schema

A, B = 0, 1
ADDRESS, ELSEWHERE = 0x1000, 0x2000
P0, P1 = 7, 8
PIDS: Final = {A: 100, B: 101}

#: A takes a read reference to P0 by vmsplice at event 10, released at event 30.
REFERENCE: Final[dict[str, Any]] = {
    "reference": 0, "page_id": P0, "pfn": 50, "mm": A, "pid": 100, "by_pid": 100, "comm": "a", "address": ADDRESS, "kind": "get",
    "access": "read", "longterm": False, "via": "vmsplice", "holder": None, "from_ns": 1000, "to_ns": 3000, "released": "exact",
    "from_event": 10, "to_event": 30,
}  # fmt: skip
#: At event 20 B writes P0 in place.
FAULT: Final[dict[str, Any]] = {
    "ts": 2000, "mm": B, "tid": 101, "pid": 101, "comm": "b", "address": ADDRESS, "page_before": P0, "page_after": P0, "pfn_before": 50,
    "pfn_after": 50, "decision": "reuse", "reason": "sole-owner", "mapcount": 1, "references": 1, "duration_ns": 5, "in_kernel": False,
    "event": 20, "pages": 1, "place": 3, "unsure": False,
}  # fmt: skip

MISSED, WRONG, CROSS, FORKED, UNNECESSARY = "missed-cow", "wrong-cow", "cross-write", "fork-after-pin", "unnecessary-copy"
#: At event 20 A's own store copies P0 to P1.
PARTING: Final[dict[str, Any]] = {"mm": A, "tid": 100, "pid": 100, "comm": "a", "decision": "copy", "page_after": P1, "pfn_after": 51}
#: From event 20 on B maps P0, too, by a fork of A.
STAY: Final[dict[str, Any]] = {
    "page_id": P0, "pfn": 50, "mm": B, "pid": 101, "comm": "b", "address": ADDRESS, "from_ns": 2000, "to_ns": 4000, "began": "fork",
    "ended": "exit", "order": 0, "from_event": 20, "to_event": 40,
}  # fmt: skip
WRITE: Final[dict[str, Any]] = {"access": "write"}
OPEN: Final[dict[str, Any]] = {"to_event": -1, "to_ns": None, "released": "unknown"}


def frame(table: Table, more: dict[str, pl.DataType | type[pl.DataType]], rows: list[dict[str, Any]]) -> pl.DataFrame:
    schema: dict[str, Any] = {**polars_schema(table), **more}
    return pl.DataFrame([{name: row[name] for name in schema} for row in rows], schema=schema)


def found(
    name: str,
    faults: list[dict[str, Any]],
    references: list[dict[str, Any]],
    traced: tuple[str, ...] = tuple(TRACED_RELEASES),
    stays: tuple[dict[str, Any], ...] = (),
) -> list[dict[str, Any]]:
    """The findings of one rule: rows are those above but for what is said of them."""
    evidence = Evidence(
        "some-policy",
        frame(FAULTS, {"place": pl.Int32, "unsure": pl.Boolean}, [FAULT | fault for fault in faults]),
        frame(REFERENCES, {"from_event": pl.Int32, "to_event": pl.Int32}, [REFERENCE | reference for reference in references]),
        frame(OWNERSHIP, {"from_event": pl.Int32, "to_event": pl.Int32}, [STAY | stay for stay in stays]),
        traced,
    )
    table = findings(RULES[name], evidence)
    assert table.schema == polars_schema(FINDINGS)
    return table.to_dicts()


# --- missed-cow -----------------------------------------------------------------------------------------------------------------------


def test_missed_cow() -> None:
    (case,) = found(MISSED, [{}], [{}])
    del case["summary"]
    assert case == {
        "id": "missed-cow-1@some-policy", "rule": MISSED, "policy": "some-policy", "certainty": "certain", "severity": "defect", "pid": 100,
        "comm": "a", "mm": A, "address": ADDRESS, "pfn": 50, "page_id": P0, "from_ns": 2000, "to_ns": 3000, "by_pid": 101,
        "via": "vmsplice", "area": None, "call_site": None, "fingerprint": None, "evidence": [10, 20, 30],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "reference"),
    [
        pytest.param({}, {"to_event": 15, "to_ns": 1500}, id="the reference was released before"),
        pytest.param({}, {"from_event": 25, "from_ns": 2500}, id="the reference was taken after"),
        pytest.param({}, WRITE, id="a write reference: its holder writes itself"),
        pytest.param({}, {"mm": B}, id="the writer's own reference"),
        pytest.param({}, {"page_id": P1}, id="a reference to another page"),
        pytest.param({}, {"page_id": None}, id="a reference to no known page"),
        pytest.param({"decision": "copy", "page_after": P1}, {}, id="the store copied"),
        pytest.param({"decision": "early-copy", "page_after": P1}, {}, id="fork copied"),
        pytest.param({"decision": "unshare", "page_after": P1}, {}, id="a pin unshared"),
        pytest.param({"decision": "zero-fill"}, {}, id="there was no page yet"),
        pytest.param({"decision": "none"}, {}, id="nothing was done"),
        pytest.param({"page_before": None}, {}, id="the page written is not known"),
    ],
)
def test_no_missed_cow(fault: dict[str, Any], reference: dict[str, Any]) -> None:
    assert found(MISSED, [fault], [reference]) == []


@pytest.mark.parametrize("decision", ["reuse", "in-place"])
@pytest.mark.parametrize("kind", ["get", "pin"])
@pytest.mark.parametrize("longterm", [False, True])
def test_any_store_in_place_under_any_read_reference_is_a_missed_cow(decision: str, kind: str, longterm: bool) -> None:
    (case,) = found(MISSED, [{"decision": decision}], [{"kind": kind, "longterm": longterm}])
    assert (case["severity"], case["certainty"]) == ("defect", "certain")


def test_the_address_of_the_writer_does_not_matter() -> None:
    assert len(found(MISSED, [{"address": ELSEWHERE}], [{}])) == 1


def test_a_process_that_only_took_the_reference_is_named_as_its_holder() -> None:
    """B reads A's memory with process_vm_readv, and C, A's child, writes."""
    (case,) = found(MISSED, [{"mm": 2, "pid": 102}], [{"by_pid": 101, "comm": "b"}])
    assert (case["pid"], case["comm"], case["mm"], case["by_pid"]) == (101, "b", A, 102)


# --- wrong-cow ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "severity"),
    [
        pytest.param(WRITE, "defect", id="write"),
        pytest.param(WRITE | {"longterm": True}, "defect", id="write, long-term"),
        pytest.param({"longterm": True}, "defect", id="read, long-term"),
        pytest.param({}, "info", id="read: the kernel promises nothing"),
    ],
)
@pytest.mark.parametrize("decision", ["copy", "unshare"])
def test_wrong_cow(decision: str, reference: dict[str, Any], severity: str) -> None:
    (case,) = found(WRONG, [PARTING | {"decision": decision}], [reference])
    assert (case["rule"], case["severity"], case["certainty"]) == (WRONG, severity, "certain")
    assert (case["pid"], case["by_pid"], case["address"], case["from_ns"], case["to_ns"]) == (100, 100, ADDRESS, 2000, 3000)


@pytest.mark.parametrize(
    ("fault", "reference"),
    [
        pytest.param({}, {"to_event": 15, "to_ns": 1500}, id="the reference was released before"),
        pytest.param({}, {"from_event": 25, "from_ns": 2500}, id="the reference was taken after"),
        pytest.param({"mm": B}, {}, id="another process got the copy"),
        pytest.param({}, {"mm": B}, id="a reference through another process's memory"),
        pytest.param({"address": ELSEWHERE}, {}, id="another address"),
        pytest.param({}, {"page_id": P1}, id="another page"),
        pytest.param({"decision": "reuse"}, {}, id="the store was in place"),
        pytest.param({"decision": "in-place"}, {}, id="the store needed no decision"),
        pytest.param({"decision": "early-copy"}, {}, id="the child got the copy"),
        pytest.param({"page_before": None}, {}, id="the page left is not known"),
    ],
)
def test_no_wrong_cow(fault: dict[str, Any], reference: dict[str, Any]) -> None:
    assert found(WRONG, [PARTING | fault], [WRITE | reference]) == []


def test_the_graver_of_two_references_makes_the_finding() -> None:
    """Of a short read reference, for which nothing is owed, and a write reference through the same page the latter counts."""
    for references in ([{}, WRITE], [WRITE, {}]):
        (case,) = found(WRONG, [PARTING], references)
        assert case["severity"] == "defect"


# --- what is certain ------------------------------------------------------------------------------------------------------------------

CASES: Final = [pytest.param(MISSED, {}, {}, id=MISSED), pytest.param(WRONG, PARTING, WRITE, id=WRONG)]


@pytest.mark.parametrize(("name", "fault", "reference"), CASES)
@pytest.mark.parametrize(
    ("more", "certainty"),
    [
        pytest.param({}, "certain", id="the release was seen"),
        pytest.param({"released": "at-latest"}, "possible", id="released at some time before that"),
        pytest.param(OPEN, "certain", id="held at the end, by an interface whose releases are seen"),
        pytest.param(OPEN | {"via": "io_uring"}, "certain", id="the same, io_uring"),
        pytest.param(OPEN | {"via": "other"}, "possible", id="held at the end, if nobody released it unseen"),
        pytest.param(OPEN | {"via": "direct-io"}, "possible", id="the same, O_DIRECT"),
    ],
)
def test_a_finding_is_certain_only_if_the_reference_is_known_to_be_held(
    name: str, fault: dict[str, Any], reference: dict[str, Any], more: dict[str, Any], certainty: str
) -> None:
    (case,) = found(name, [fault], [reference | more])
    assert case["certainty"] == certainty
    assert case["to_ns"] == (REFERENCE | more)["to_ns"]


@pytest.mark.parametrize(("name", "fault", "reference"), CASES)
def test_what_rests_on_unseen_accesses_is_possible(name: str, fault: dict[str, Any], reference: dict[str, Any]) -> None:
    (case,) = found(name, [fault | {"unsure": True}], [reference])
    assert case["certainty"] == "possible"


@pytest.mark.parametrize(("name", "fault", "reference"), CASES)
def test_a_finding_that_one_reference_proves_is_certain(name: str, fault: dict[str, Any], reference: dict[str, Any]) -> None:
    possible, certain = reference | OPEN | {"via": "other"}, reference
    for references in ([possible, certain], [certain, possible]):
        (case,) = found(name, [fault], references)
        assert case["certainty"] == "certain"


def test_interfaces_whose_releases_are_not_traced_are_not_trusted() -> None:
    assert not {"direct-io", "zerocopy", "kvm", "ptrace", "process_vm", "exec", "other"} & set(TRACED_RELEASES)


def test_a_release_that_no_probe_would_show_proves_nothing() -> None:
    """Without pipe_release a vmsplice reference that seems open may be long gone; one unpin probe is enough for pins."""
    assert traced_releases(["cow_fault", "gup"]) == ()
    assert traced_releases(["gup_put"]) == (), "gup_put is not replayed as a release"
    assert traced_releases(["pipe_release"]) == ("vmsplice",)
    assert set(traced_releases(["unpin_pages"])) == {"io_uring", "rdma", "vfio", "af_xdp"}
    for traced, certainty in ((("vmsplice",), "certain"), ((), "possible")):
        (case,) = found("missed-cow", [{}], [OPEN | {"via": "vmsplice"}], traced)
        assert case["certainty"] == certainty


# --- fork-after-pin and cross-write ---------------------------------------------------------------------------------------------------


def test_fork_after_pin() -> None:
    (case,) = found(FORKED, [], [WRITE | {"kind": "pin", "longterm": True, "via": "io_uring"}], stays=(STAY,))
    assert (case["severity"], case["certainty"], case["from_ns"], case["to_ns"]) == ("defect", "certain", 2000, 3000)
    assert (case["pid"], case["page_id"], case["evidence"]) == (100, P0, [10, 20, 30])
    assert "long-term write pin (io_uring)" in case["summary"]
    assert "process 101" in case["summary"]


def test_several_children_are_one_cause() -> None:
    later = {"mm": 2, "pid": 102, "from_event": 25, "from_ns": 2500}
    (case,) = found(FORKED, [], [WRITE], stays=(later, STAY))
    assert case["from_ns"] == 2000


@pytest.mark.parametrize(
    ("reference", "stay"),
    [
        ({"access": "read"}, {}),  # what is only read, fork may share
        (WRITE | {"to_event": 15}, {}),  # released before
        (WRITE | {"from_event": 21}, {}),  # taken after
        (WRITE | {"page_id": P1}, {}),
        (WRITE, {"began": "early-copy", "page_id": P1}),  # the child got a copy
        (WRITE, {"began": "before-trace", "from_event": -1}),
    ],
)
def test_no_fork_after_pin(reference: dict[str, Any], stay: dict[str, Any]) -> None:
    assert found(FORKED, [], [reference], stays=(stay,)) == []


def test_a_fork_while_a_reference_may_have_been_released_is_possible() -> None:
    (case,) = found(FORKED, [], [WRITE | OPEN | {"via": "direct-io"}], stays=(STAY,))
    assert case["certainty"] == "possible"


def test_cross_write() -> None:
    """B maps P0 since event 5 when A takes a write reference of it at 10."""
    (case,) = found(CROSS, [], [WRITE], stays=({"from_event": 5, "from_ns": 500},))
    assert (case["severity"], case["certainty"], case["from_ns"], case["to_ns"]) == ("defect", "certain", 1000, 3000)
    assert (case["pid"], case["by_pid"], case["evidence"]) == (100, 101, [10, 10, 30])


@pytest.mark.parametrize(
    ("reference", "stay"),
    [
        ({"access": "read"}, {}),
        (WRITE, {"mm": A}),  # its own
        (WRITE, {"to_event": 9}),  # no more
        (WRITE, {"from_event": 11}),  # not yet
        (WRITE, {"page_id": P1}),
    ],
)
def test_no_cross_write(reference: dict[str, Any], stay: dict[str, Any]) -> None:
    assert found(CROSS, [], [reference], stays=({"from_event": 5} | stay,)) == []


def test_a_store_that_only_the_policy_would_let_fault_is_a_possible_wrong_cow() -> None:
    (case,) = found(WRONG, [PARTING | {"decision": "unseen", "reason": "reference", "unsure": True}], [WRITE])
    assert case["certainty"] == "possible"
    assert "would get, if it wrote its page since, a copy" in case["summary"]


# --- unnecessary-copy -----------------------------------------------------------------------------------------------------------------

#: At event 20 A's store copies P0, which A alone maps and nobody references.
COPIED: Final[dict[str, Any]] = PARTING | {"references": 0}


@pytest.mark.parametrize("decision", ["copy", "unshare"])
@pytest.mark.parametrize(
    ("reason", "certainty"),
    [
        ("swap-cache", "certain"),
        ("lru-batch", "certain"),
        ("ksm", "certain"),
        ("unmapping", "certain"),
        ("large-page", "certain"),
        ("unknown", "possible"),
    ],
)
def test_unnecessary_copy(decision: str, reason: str, certainty: str) -> None:
    """Kernel.md's U: no other entry maps the page and no handle exists. It costs, and breaks nothing: no defect."""
    (case,) = found(UNNECESSARY, [COPIED | {"decision": decision, "reason": reason}], [])
    assert (case["severity"], case["certainty"], case["evidence"]) == ("info", certainty, [20])
    assert (case["pid"], case["by_pid"], case["address"], case["pfn"]) == (100, 100, ADDRESS, 50)
    assert (case["from_ns"], case["to_ns"]) == (2000, None)


def test_an_unnecessary_copy_that_rests_on_unseen_accesses_is_possible() -> None:
    (case,) = found(UNNECESSARY, [COPIED | {"reason": "lru-batch", "unsure": True}], [])
    assert case["certainty"] == "possible"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"reason": "another-mapping", "mapcount": 2}, id="another entry maps the page"),
        pytest.param({"reason": "another-mapping"}, id="another swap entry refers to it"),
        pytest.param({"reason": "swap-cache", "mapcount": 2}, id="in the swap cache, and another entry maps it"),
        pytest.param({"reason": "reference", "references": 1}, id="somebody references it"),
        pytest.param({"reason": "ksm", "references": 1}, id="merged by KSM, and somebody references it"),
        pytest.param({"reason": "ksm", "mapcount": 2}, id="merged by KSM with another page that is still mapped"),
        pytest.param({"reason": "not-anonymous"}, id="page cache"),
        pytest.param({"reason": "swap-cache", "decision": "reuse", "page_after": P0}, id="no copy"),
        pytest.param({"reason": "zero-page", "decision": "zero-fill", "page_before": None}, id="the zero page"),
        pytest.param({"reason": "pinned-at-fork", "decision": "early-copy"}, id="a copy that fork owed"),
        pytest.param({"reason": "unknown", "page_before": None}, id="the page copied is not known"),
    ],
)
def test_no_unnecessary_copy(fault: dict[str, Any]) -> None:
    assert found(UNNECESSARY, [COPIED | fault], []) == []


# --- one finding a page and cause -----------------------------------------------------------------------------------------------------


def test_one_finding_a_page_and_cause_the_first_in_time() -> None:
    (case,) = found(MISSED, [{"ts": 2500, "event": 25}, {}, {"ts": 2200, "event": 22}], [{}, {"reference": 1}])
    assert case["from_ns"] == 2000


@pytest.mark.parametrize(
    ("fault", "reference"),
    [
        pytest.param({"mm": 2}, {}, id="another writer"),
        pytest.param({"page_before": P1}, {"page_id": P1, "reference": 1}, id="another page"),
        pytest.param({}, {"mm": 2, "reference": 1}, id="another holder"),
        pytest.param({}, {"address": ELSEWHERE, "reference": 1}, id="another address of the holder"),
    ],
)
def test_another_cause_is_another_finding(fault: dict[str, Any], reference: dict[str, Any]) -> None:
    cases = found(MISSED, [{}, fault] if fault else [{}], [{}, reference] if reference else [{}])
    assert [case["id"] for case in cases] == ["missed-cow-1@some-policy", "missed-cow-2@some-policy"]


def test_findings_are_numbered_in_order_of_time() -> None:
    cases = found(MISSED, [{"page_before": P1, "ts": 2900, "event": 29}, {}], [{}, {"page_id": P1, "reference": 1}])
    assert [(case["id"][:12], case["from_ns"]) for case in cases] == [("missed-cow-1", 2000), ("missed-cow-2", 2900)]


# --- verdicts -------------------------------------------------------------------------------------------------------------------------


def needed(which: Rule) -> set[str]:
    """One name for each event that a rule needs."""
    return {need.split("|")[0] for need in which.needs}


def judged(cases: list[dict[str, Any]], without: set[str] | None = None, *, lost: bool = False, undetermined: int = 0) -> tuple[str, str]:
    table = pl.DataFrame([{**case} for case in cases], schema=polars_schema(FINDINGS))
    said, missing = verdict(RULES[MISSED], table, needed(RULES[MISSED]) - (without or set()), lost=lost, undetermined=undetermined)
    return said, "; ".join(missing)


DEFECT: Final[dict[str, Any]] = {"severity": "defect", "certainty": "certain"}
POSSIBLE: Final[dict[str, Any]] = {"severity": "defect", "certainty": "possible"}
INFO: Final[dict[str, Any]] = {"severity": "info", "certainty": "certain"}


def test_a_trace_with_everything_and_no_defect_is_clean() -> None:
    assert judged([]) == ("clean", "")
    assert judged([INFO]) == ("clean", "")


def test_one_certain_defect_is_a_defect_whatever_is_missing() -> None:
    assert judged([POSSIBLE, DEFECT], {"gup"}, lost=True, undetermined=3) == ("defect", "")


@pytest.mark.parametrize("name", sorted(needed(RULES[MISSED])))
def test_without_an_event_that_a_rule_needs_nothing_is_clean(name: str) -> None:
    said, missing = judged([], {name})
    assert said == "inconclusive"
    assert name in missing


@pytest.mark.parametrize(
    ("cases", "lost", "undetermined", "word"),
    [([], True, 0, "lost"), ([], False, 2, "older than the trace"), ([POSSIBLE], False, 0, "would settle")],
)
def test_what_makes_a_trace_inconclusive(cases: list[dict[str, Any]], lost: bool, undetermined: int, word: str) -> None:
    said, missing = judged(cases, lost=lost, undetermined=undetermined)
    assert said == "inconclusive"
    assert word in missing


def test_the_rules_there_are() -> None:
    assert set(RULES) == {MISSED, WRONG, CROSS, FORKED, UNNECESSARY}
    assert rule(MISSED).name == MISSED
    with pytest.raises(UnknownName) as caught:
        rule("missed_cow")
    assert MISSED in (caught.value.hint or "")
