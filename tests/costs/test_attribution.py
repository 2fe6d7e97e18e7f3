"""Why, who and where: sums equal the totals on every recording, and made-up histories come out as they were made up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Final

import polars as pl
import pytest

import tracetool
from conftest import every_recording, fixture_path
from engine.build import BASE, VM_ANON, WRITE_FAULT, Machine, address, struct_page
from timed import timed
from tracetool.costing import cost_report
from tracetool.costs import cost
from tracetool.costs.attribution import KEYS, by_fork, decisions, headline, summed
from tracetool.costs.forks import fork_of, forks
from tracetool.costs.prices import load
from tracetool.processes import processes
from tracetool.replay import Replay, rebuild
from tracetool.report.costs import render
from tracetool.trace import Trace

A, B, C = 10, 11, 12
AREA: Final = [(BASE, 4)]


class Made(Trace):
    """A trace that a machine made."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.__dict__["history"] = rebuild(machine.events())
        self.__dict__["processes"] = processes(machine.events(), machine.source())
        source = machine.source()
        named = {name: getattr(source, name) for name in ("counts", "formats", "table", "tables")}
        self.raw = SimpleNamespace(metadata=SimpleNamespace(maps=()), **named)  # type: ignore[assignment]

    def replayed(self) -> Replay:
        return Replay(self.history, self.processes)


def rows(machine: Machine) -> pl.DataFrame:
    made = Made(machine)
    return decisions(made, made.replayed())


@pytest.mark.parametrize("path", every_recording())
def test_sums_by_whatever_equal_the_totals(path: Path) -> None:
    trace = tracetool.open(path)
    for policy in ("observed", "mapcount", "page-count", "exclusive"):
        replay = trace.replay(policy)
        told, total = decisions(trace, replay), cost(replay)
        assert told.height > 0
        for key in (*KEYS, ("area", "file")):
            sums = summed(told, *([key] if isinstance(key, str) else key))
            counted = {name: sums[name].sum() for name in ("copies", "reuses", "zero_fills", "splits")}
            expected = {"copies": total.copied_pages, "reuses": total.reuses, "zero_fills": total.zero_fills, "splits": total.splits}
            assert counted == expected, (policy, key)
            assert sums["faults"].sum() == told.height
        of_forks = by_fork(told, forks(replay))
        counted_of_forks = told.filter(pl.col("fork").is_not_null(), pl.col("decision").is_in(["copy", "early-copy", "unshare"]))
        assert of_forks.select(pl.sum("parent_copies", "child_copies", "early_copies")).sum_horizontal().sum() == (
            counted_of_forks["pages"].sum()
        )


def test_redis_s_own_figure_of_its_first_save(traces: Path) -> None:
    """rdb_last_cow_size: the private dirty memory of the child that saves, as it saw it when it was done."""
    path = traces / "6.1" / "redis.dat"
    log = (traces / "6.1" / "redis.log").read_text().splitlines()
    (figure,) = [int(line.split(":")[1]) for line in log if line.startswith("rdb_last_cow_size:")]
    trace = tracetool.open(path)
    replay = trace.replay()
    saves = by_fork(decisions(trace, replay), forks(replay)).filter(pl.col("child_comm") == "redis-server", pl.col("copied") > 20)
    first = saves.row(0, named=True)
    assert first["copied"] * 4096 == pytest.approx(figure, rel=0.10)
    # The parent's own copies are a third of it.
    assert first["parent_copies"] * 4096 == pytest.approx(figure / 3, rel=0.10)


def test_what_forced_a_copy_and_whose_fork_it_was() -> None:
    """A forks B. A writes two pages of four, B writes one more; B is gone; A writes the last in place."""
    m = Machine()
    a = m.spawn(A)
    for number in range(4):
        m.touch(a, address(number), 50 + number)
    b = m.fork(a, B, AREA)
    m.cow(a, address(0), 50, 60)
    m.cow(a, address(1), 51, 61)
    m.cow(b, address(2), 52, 62)
    m.exit(b, [50, 51, 62, 53])
    m.cow(a, address(3), 53)
    told = rows(m)
    assert summed(told, "because").select("because", "copies", "reuses").rows() == [("another-mapping", 3, 0), ("sole-owner", 0, 1)]
    assert summed(told, "process").select("process", "copies").rows() == [(f"<...> {A}", 2), (f"prog {B}", 1)]
    (fork,) = by_fork(told, forks(Made(m).replayed())).to_dicts()
    assert (fork["pid"], fork["child_pid"], fork["shared_pages"], fork["parent_pages"]) == (A, B, 4, 5)
    assert (fork["parent_copies"], fork["child_copies"], fork["early_copies"], fork["child_zero_fills"]) == (2, 1, 0, 0)
    assert (fork["copied"], fork["share"]) == (3, 0.75)
    assert told["fork"].to_list() == [0, 0, 0, None], "A's last store comes after its child is gone"


def test_the_last_fork_that_lives_has_the_copy() -> None:
    """A forks B, then C; C is gone: what A copies now is for B again."""
    m = Machine()
    a = m.spawn(A)
    for number in range(3):
        m.touch(a, address(number), 50 + number)
    b = m.fork(a, B, AREA)
    c = m.fork(a, C, AREA)
    m.cow(a, address(0), 50, 60)
    m.exit(c, [50, 51, 52])
    m.cow(a, address(1), 51, 61)
    m.exit(b, [50, 51, 52])
    table = forks(Made(m).replayed())
    assert rows(m)["fork"].to_list() == [1, 0]
    assert table.select("child_pid").to_series().to_list() == [B, C]


def test_no_fork_no_number() -> None:
    empty = pl.DataFrame({"event": [], "mm": []}, schema={"event": pl.Int64, "mm": pl.Int32})
    m = Machine()
    m.touch(m.spawn(A), address(0), 50)
    assert fork_of(empty, forks(Made(m).replayed())).to_list() == []


@pytest.mark.parametrize(("holder", "because"), [("own", "a reference of its own"), ("other", "a reference of another process")])
def test_a_reference_that_forces_a_copy_is_named_with_whose_it_is(holder: str, because: str) -> None:
    """5.10: A's page is read-only (mprotect), and a pipe holds it: taken by A itself, or by the child that has since gone."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), 50)
    b = m.fork(a, B, AREA)
    m.vmsplice(a if holder == "own" else b, address(0), 50)
    m.exit(b, [50])
    m.cow(a, address(0), 50, 60)
    told = rows(m)
    assert told.select("because", "decision").rows() == [(because, "copy")]
    assert told["reference"].to_list() == [f"vmsplice get read by {'<...>' if holder == 'own' else 'prog'}"]
    assert headline(told) == (
        "1 copy: 1 needed (1 as somebody else references it); 0 only for something incidental"
        if holder == "other"
        else "1 copy: 0 needed; 1 only for something incidental"
    )


def test_copies_of_a_file_are_told_from_others_and_named() -> None:
    """Stores to two files' pages and to anonymous memory, all shared with a child; an escape in a path stays one for the terminal."""
    m = Machine()
    a = m.spawn(A)
    for number, path in ((0, "/usr/lib/libc.so.6"), (1, "/tmp/\x1b[31mred")):
        m.event("mmap2", A, pid=A, addr=address(number), len=4096, pgoff=0, filename=path)
    for number in range(3):
        m.fault(a, address(number), WRITE_FAULT, anonymous=number == 2)
        m.map_new(A, a.mm, address(number), 50 + number)
    m.fork(a, B, AREA)
    for number in range(3):
        m.fault(a, address(number), WRITE_FAULT, anonymous=number == 2)
        m.event("cow_fault", A, mm=a.mm, address=address(number), vm_flags=VM_ANON, fault_flags=WRITE_FAULT, pte=(50 + number) << 12 | 0x65)
        m.map_new(A, a.mm, address(number), 60 + number)
        m.event("rmap_remove", A, mm=a.mm, page=struct_page(50 + number))
        m.event("cow_fault_done", A, ret=8)
    report = cost_report(timed(m), [], load(None))
    told = {(row["area"], row["file"]): row["copies"] for row in report.replays[0].by("area").to_dicts()}
    assert told == {("file", "/usr/lib/libc.so.6"): 1, ("file", "/tmp/\x1b[31mred"): 1, ("anonymous", None): 1}
    text = render(report)
    assert "  file libc.so.6 " in text
    assert "/usr/lib" not in text
    assert "\x1b" not in text
    assert "red" in text


def test_where_a_store_came_from() -> None:
    told = decisions(trace := tracetool.open(fixture_path("mail-6.1.dat")), trace.replay())
    faults = trace.events("page_fault_user").collect()
    user = told.filter(pl.col("site").str.starts_with("0x"))
    assert user.height > 10
    assert set(user["site"]) <= {f"{ip:#x}" for ip in faults["ip"]}
    assert set(told["area"]) <= {"heap", "stack", "file", "anonymous"}, "every page had a fault in this trace"
