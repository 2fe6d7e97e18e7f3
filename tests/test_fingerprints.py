"""Fingerprints: the same for the same program, whatever pids, frames, addresses and times a run has; another where the cause is another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracetool
from conftest import fixture_path
from engine.build import BASE, FOLL_LONGTERM, FOLL_WRITE, PAGE, Machine, Process, address
from tracetool.analysing import analyse
from tracetool.policies import policy
from tracetool.schema import AREAS, FINDINGS
from tracetool.trace import Trace
from tracetool_parsers.losses import SCHEMA as LOSSES
from tracetool_parsers.raw import RawTrace

USER, KERNEL = 0x255, 0x215  # FAULT_FLAG_USER and without


def recorded(machine: Machine) -> Trace:
    """What a machine said, as an opened trace."""
    source = machine.source()
    metadata = SimpleNamespace(
        path="made.dat", format="trace.dat v7", kernel="6.1.0", clock="global", cpus=1, notes=(), cmdlines={}, maps=()
    )
    raw = SimpleNamespace(
        metadata=metadata,
        losses=LOSSES.empty_table(),
        formats=source.formats,
        counts=source.counts,
        table=source.table,
        tables=source.tables,
        span=lambda: (1_000_000, machine.now),
    )
    return Trace(cast("RawTrace", raw))


def found(machine: Machine, under: str = "mapcount", rule: str = "missed-cow") -> list[dict[str, Any]]:
    """The findings of one rule under one policy."""
    findings = analyse(recorded(machine), [policy(under)]).findings
    return findings.filter(policy=under, rule=rule).to_dicts()


def store(machine: Machine, p: Process, at: int, pfn: int, new: int | None, ip: int, flags: int = USER) -> None:
    """An instruction at `ip` stores to a shared page."""
    machine.event("page_fault_user", p.tid, address=at + 8, ip=ip, error_code=7)
    machine.cow(p, at, pfn, new, flags=flags)


def unrecorded(machine: Machine, p: Process, at: int, pfn: int, new: int | None, ip: int) -> None:
    """The same, where page_fault_user is not recorded."""
    machine.cow(p, at, pfn, new)


def named(machine: Machine, tid: int, name: str) -> None:
    machine.event("task_rename", tid, pid=tid, oldcomm="prog", newcomm=name)


def leak(
    *,
    tid: int = 100,
    at: int = BASE,
    pages: int = 1,
    pfn: int = 0x2000,
    ip: int = 0x5555_5555_5BB9,
    names: tuple[str, str] = ("holder", "writer"),
    before: Callable[[Machine, Process], None] | None = None,
    store: Callable[[Machine, Process, int, int, int | None, int], None] = store,
    later: int = 0,
) -> Machine:
    """The leak of the mail on each of some pages: A forks B, takes a read reference, parts by a store; B then stores in place."""
    machine = Machine()
    machine.now += later
    a = machine.spawn(tid)
    named(machine, tid, names[0])
    if before:
        before(machine, a)
    for number in range(pages):
        machine.touch(a, at + number * PAGE, pfn + number)
    b = machine.fork(a, tid + 7, [(at, pages)])
    named(machine, b.tid, names[1])
    for number in range(pages):
        page, frame = at + number * PAGE, pfn + number
        machine.vmsplice(a, page, frame)
        store(machine, a, page, frame, 0x9000 + number, 0x7000_0000_0C95)
        store(machine, b, page, frame, None, ip)
    return machine


def only(machine: Machine) -> dict[str, Any]:
    (finding,) = found(machine)
    return finding


@settings(max_examples=10)
@given(st.integers(2, 3000), st.integers(0, 1 << 20), st.integers(0, 1 << 30), st.integers(0x1001, 1 << 20), st.integers(0, 10**15))
def test_another_run_of_a_program_has_the_same_fingerprint(tid: int, slide: int, code: int, pfn: int, later: int) -> None:
    """Processes, addresses (of code, too), frames and times differ from run to run."""
    # Frames of its own: stacks lie below 0x1000, copies from 0x9000 on.
    frame = pfn if not 0x8F00 <= pfn <= 0x9100 else 0x20_0000
    other = only(leak(tid=tid, at=BASE + slide * PAGE, ip=0x5555_0000_0BB9 + code * PAGE, pfn=frame, later=later))
    assert other["pid"] == tid
    assert other["fingerprint"] == only(leak())["fingerprint"]


def made(call: str, arguments: dict[str, int], result: int) -> Callable[[Machine, Process], None]:
    def before(machine: Machine, p: Process) -> None:
        machine.event(f"sys_enter_{call}", p.tid, **arguments)
        machine.event(f"sys_exit_{call}", p.tid, ret=result)

    return before


def grown(low: int, high: int) -> Callable[[Machine, Process], None]:
    def before(machine: Machine, p: Process) -> None:
        made("brk", {"brk": 0}, low)(machine, p)
        made("brk", {"brk": high}, high)(machine, p)

    return before


def mapped(flags: int) -> Callable[[Machine, Process], None]:
    return made("mmap", {"addr": 0, "len": 4 * PAGE, "prot": 3, "flags": flags}, BASE)


MAPPED, OF_A_FILE = mapped(0x22), mapped(0x2)


def test_what_makes_another_cause_makes_another_fingerprint() -> None:
    others = {
        "instruction": leak(ip=0x5555_5555_5BBA),
        "holder": leak(names=("other", "writer")),
        "writer": leak(names=("holder", "other")),
        "area": leak(before=OF_A_FILE),
        "no instruction": leak(store=unrecorded),
    }
    fingerprints = {name: only(machine)["fingerprint"] for name, machine in others.items()} | {"first": only(leak())["fingerprint"]}
    assert len(set(fingerprints.values())) == len(fingerprints), fingerprints
    assert all(len(each) == 16 and int(each, 16) >= 0 for each in fingerprints.values())


def test_rule_and_policy_make_another_fingerprint() -> None:
    findings = analyse(recorded(leak())).findings
    keys = findings.select("rule", "policy").rows()
    assert len(set(keys)) == len(keys) > 1
    assert findings["fingerprint"].n_unique() == len(keys)


def test_the_kind_of_reference_makes_another_fingerprint() -> None:
    def shared(flags: int) -> dict[str, Any]:
        machine = Machine()
        a = machine.spawn(100)
        machine.touch(a, address(0), 0x2000)
        machine.pin(a, address(0), 0x2000, flags)
        machine.fork(a, 107, [(address(0), 1)])
        (finding,) = found(machine, rule="fork-after-pin")
        assert (finding["via"], finding["call_site"]) == ("io_uring", "kernel")
        return finding

    assert shared(FOLL_WRITE)["fingerprint"] != shared(FOLL_WRITE | FOLL_LONGTERM)["fingerprint"]


def test_numbers_in_the_names_of_threads_do_not_count() -> None:
    pools = (only(leak(names=("iou-wrk-158", "worker-1"))), only(leak(names=("iou-wrk-2047", "worker-22"))))
    assert pools[0]["comm"] != pools[1]["comm"]
    assert pools[0]["fingerprint"] == pools[1]["fingerprint"]


def test_two_findings_with_one_fingerprint_stay_two() -> None:
    findings = found(leak(pages=3))
    assert [row["address"] for row in findings] == [BASE, BASE + PAGE, BASE + 2 * PAGE]
    assert len({row["fingerprint"] for row in findings}) == 1


# --- where the store came from --------------------------------------------------------------------------------------------------------


def test_a_call_site_is_the_place_in_its_page_of_code() -> None:
    assert only(leak(ip=0x5555_5555_500A))["call_site"] == "00a"


def test_a_store_of_the_kernel_has_no_instruction_of_the_program() -> None:
    by_kernel = leak(store=lambda machine, p, at, pfn, new, ip: store(machine, p, at, pfn, new, ip, flags=KERNEL))
    assert only(by_kernel)["call_site"] == "kernel"


def test_a_fault_for_another_page_tells_nothing_of_this_one() -> None:
    def lost(machine: Machine, p: Process, at: int, pfn: int, new: int | None, ip: int) -> None:
        """The page_fault_user of the store is lost; that of an earlier fault for the same page is there, and one for another after it."""
        machine.event("page_fault_user", p.tid, address=at, ip=0xAAA, error_code=4)
        machine.event("page_fault_user", p.tid, address=at + PAGE, ip=ip, error_code=4)
        machine.cow(p, at, pfn, new)

    assert only(leak(store=lost))["call_site"] == "unknown"


def test_a_fault_of_another_thread_tells_nothing_of_this_one() -> None:
    def other(machine: Machine, p: Process, at: int, pfn: int, new: int | None, ip: int) -> None:
        machine.event("page_fault_user", p.tid + 1, address=at, ip=ip, error_code=4)
        machine.cow(p, at, pfn, new)

    assert only(leak(store=other))["call_site"] == "unknown"


def test_a_fault_within_the_same_microsecond_does_not_hide_the_instruction() -> None:
    """Texts have times in microseconds: two faults and what follows from the first can have one time stamp."""

    def at_once(machine: Machine, p: Process, at: int, pfn: int, new: int | None, ip: int) -> None:
        machine.event("page_fault_user", p.tid, address=at, ip=ip, error_code=7)
        machine.event("page_fault_user", p.tid, later_ns=0, address=at + PAGE, ip=0xAAA, error_code=7)
        machine.now -= 2_000
        machine.cow(p, at, pfn, new)

    assert only(leak(store=at_once))["call_site"] == "bb9"


# --- what kind of memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "before", "area"),
    [
        pytest.param(BASE, None, "anonymous", id="by the fault alone"),
        pytest.param(BASE, MAPPED, "anonymous", id="in anonymous memory"),
        pytest.param(BASE + 3 * PAGE, OF_A_FILE, "file", id="the last page of a file's mapping"),
        pytest.param(BASE + 4 * PAGE, OF_A_FILE, "anonymous", id="beyond it"),
        pytest.param(0x5555_0000_1000, grown(0x5555_0000_0000, 0x5555_0000_2000), "heap", id="in the heap, before fork"),
        pytest.param(0x5555_0000_2000, grown(0x5555_0000_0000, 0x5555_0000_2000), "anonymous", id="beyond the heap"),
        pytest.param(0x7FFC_1234_5000, None, "stack", id="below the end of user memory"),
        pytest.param(0x7FFA_1234_5000, None, "anonymous", id="where mappings begin"),
    ],
)
def test_the_kind_of_memory(at: int, before: Callable[[Machine, Process], None] | None, area: str) -> None:
    assert only(leak(at=at, before=before))["area"] == area
    assert area in AREAS


def test_what_a_parent_made_before_fork_is_its_child_s_too() -> None:
    machine = Machine()
    a, at = machine.spawn(100), 0x5555_0000_1000
    grown(0x5555_0000_0000, 0x5555_0000_2000)(machine, a)
    machine.touch(a, at, 0x2000)
    b = machine.fork(a, 107, [(at, 1)])
    machine.vmsplice(b, at, 0x2000)
    store(machine, b, at, 0x2000, 0x9000, 0xC95)
    store(machine, a, at, 0x2000, None, 0xBB9)
    finding = only(machine)
    assert (finding["pid"], finding["by_pid"], finding["area"]) == (107, 100, "heap")


# --- recordings -----------------------------------------------------------------------------------------------------------------------


def fingerprints(path: Path) -> list[tuple[str, str, str]]:
    findings = tracetool.analyse(path).findings
    assert list(findings.columns) == list(FINDINGS)
    assert findings["fingerprint"].null_count() == 0
    # What holds a page by the way is the kernel's, not the program's.
    findings = findings.filter(pl.col("rule") != "unnecessary-copy")
    return sorted(findings.select("policy", "rule", "fingerprint").rows())


def test_one_program_on_four_kernels_has_the_same_fingerprints() -> None:
    first, *others = [fingerprints(fixture_path(f"mail-{kernel}.dat")) for kernel in ("5.10", "6.1", "6.12", "7.2")]
    assert [rule for policy, rule, _ in first if policy == "mapcount"] == ["missed-cow", "wrong-cow"]
    assert all(other == first for other in others)


@pytest.mark.parametrize("scenario", ["mail", "iouring", "vmsplice_child"])
def test_recordings_of_one_scenario_agree(scenario: str, traces: Path) -> None:
    first, *others = [
        [row for row in fingerprints(traces / kernel / f"{scenario}.dat") if row[0] == "mapcount"]
        for kernel in ("5.10", "6.1", "6.12", "7.2")
    ]
    assert first
    assert all(other == first for other in others)


def test_the_four_pages_of_a_buffer_have_one_fingerprint_each(traces: Path) -> None:
    findings = tracetool.analyse(traces / "5.10" / "iouring_ro.dat").findings.filter(policy="observed")
    assert findings.height == 4
    assert findings["fingerprint"].n_unique() == 1
    assert findings.select(pl.col("via", "area").unique()).row(0) == ("io_uring", "anonymous")
