"""Before and after: groups of two traces, or sets of them, that belong together, and what differs: made up, by a machine, recorded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest

import tracetool
from conftest import fixture_path
from engine.build import BASE, PAGE, SPLIT_UP, STACK, Huge, Machine, address
from synth.watched import Event, names_of, watched
from timed import store, timed
from tracetool import before_after as module
from tracetool import fingerprints
from tracetool.before_after import BeforeAfter, before_after
from tracetool.costs import cost
from tracetool.costs.prices import load
from tracetool.errors import TraceError, Unanswerable, UnknownName, Unusable
from tracetool.schema import BEFORE_AFTER, polars_schema
from tracetool.synth import Plan
from tracetool.trace import Trace
from tracetool_parsers.losses import Loss

A, B, C = 10, 11, 12
SITE: Final = 0x401_79D
NAMES: Final = {A: "server", B: "server", C: "server"}


def written(
    copies: int, reuses: int = 0, *, shift: int = 0, base: int = 0x55_0000_0000, name: str = "server", child: int = B
) -> tuple[Machine, dict[int, str]]:
    """A forks a child. A writes `copies` pages that both map, then the child has gone and A writes `reuses` more.

    `shift` and `base` are where the random layout put memory (pages further up) and code; `child` is the child's pid.
    """
    m = Machine()
    a = m.spawn(A)
    pages = [address(shift + number) for number in range(copies + reuses)]
    for number, at in enumerate(pages):
        m.touch(a, at, 0x2000 + number)
    b = m.fork(a, child, [(pages[0] if pages else BASE, max(copies + reuses, 1))])
    for number, at in enumerate(pages[:copies]):
        store(m, a, at, 0x2000 + number, 0x4000 + number, base + SITE)
    m.exit(b, [0x2000 + number for number in range(copies + reuses)])
    for number, at in enumerate(pages[copies:], copies):
        store(m, a, at, 0x2000 + number, None, base + SITE)
    return m, {A: name, child: name}


def runs(*counts: tuple[int, int]) -> list[Trace]:
    """Repeats, each with its own layout."""
    return [
        timed(*written(copies, reuses, shift=100 * number, base=0x55_0000_0000 + 0x1000 * number))
        for number, (copies, reuses) in enumerate(counts)
    ]


def told(
    table: BeforeAfter, level: str = "call_site", *, because: bool = False, all_of: bool = False
) -> dict[tuple[Any, ...], tuple[float, float]]:
    """(program, area, call site, quantity, and, if wanted, because) -> before, after; costs and what is alike left out unless `all_of`."""
    rows = table.table.filter(pl.col("level") == level, pl.col("because").is_not_null() if because else pl.col("because").is_null())
    if not all_of:
        rows = rows.filter(pl.col("difference") != 0, ~pl.col("quantity").is_in(["copied_pages", "copied_bytes", "copied_ns", "decisions"]))
    keys = ["program", "area", "call_site", "quantity", *(["because"] if because else [])]
    return {tuple(row[:-2]): row[-2:] for row in rows.select(*keys, "before", "after").iter_rows()}


def one(table: BeforeAfter, quantity: str, level: str = "total", **others: Any) -> dict[str, Any]:
    """The one row of that quantity, whatever decided it."""
    rows = table.table.filter(pl.col("level") == level, pl.col("quantity") == quantity, pl.col("because").is_null())
    (row,) = rows.filter(pl.col(name) == value for name, value in others.items()).to_dicts() if others else rows.to_dicts()
    return row


# --- what belongs together ------------------------------------------------------------------------------------------------------------


def test_a_program_at_other_addresses_with_other_pids_is_the_same_group() -> None:
    before, after = timed(*written(3, 2)), timed(*written(5, 1, shift=7_000, base=0x7F_2222_2222_2000 - 0x200_2000, child=77))
    found = before_after([before], [after])
    assert told(found) == {("server", "anonymous", "79d", "copies"): (3, 5), ("server", "anonymous", "79d", "reuses"): (2, 1)}
    assert found.table["only"].drop_nulls().len() == 0


def test_another_place_in_a_page_of_code_is_another_group_and_each_is_told_as_being_on_one_side_only() -> None:
    found = before_after([timed(*written(3))], [timed(*written(3, base=0x55_0000_0001))])
    assert told(found) == {("server", "anonymous", "79d", "copies"): (3, 0), ("server", "anonymous", "79e", "copies"): (0, 3)}
    assert one(found, "copies", "call_site", call_site="79d")["only"] == "before"
    assert one(found, "copies", "call_site", call_site="79e")["only"] == "after"
    assert told(found, "area") == {}, "the program and its memory are the same"
    assert one(found, "copies", "area")["difference"] == 0


def test_numbers_in_names_of_programs_are_alike_and_other_names_are_not() -> None:
    found = before_after([timed(*written(3, name="worker-1"))], [timed(*written(4, name="worker-27"))])
    assert told(found) == {("worker-0", "anonymous", "79d", "copies"): (3, 4)}
    found = before_after([timed(*written(3, name="reader"))], [timed(*written(3, name="writer"))])
    assert told(found, "program") == {("reader", None, None, "copies"): (3, 0), ("writer", None, None, "copies"): (0, 3)}
    assert module.NUMBER == fingerprints._NUMBER


def test_kinds_of_memory_are_groups_of_their_own() -> None:
    def run(stack: int) -> Trace:
        m = Machine()
        a = m.spawn(A)
        m.event("sys_enter_mmap", A, addr=0, len=4 * PAGE, prot=3, flags=2)
        m.event("sys_exit_mmap", A, ret=address(0))
        places = [address(0), address(9), *(STACK - PAGE * (1 + number) for number in range(stack))]
        for number, at in enumerate(places):
            m.touch(a, at, 0x2000 + number)
        m.fork(a, B, [(at, 1) for at in places])
        for number, at in enumerate(places):
            store(m, a, at, 0x2000 + number, 0x4000 + number)
        return timed(m, NAMES)

    found = before_after([run(2)], [run(3)])
    copies = {key[1]: value for key, value in told(found, all_of=True).items() if key[3] == "copies"}
    assert copies == {"file": (1, 1), "anonymous": (1, 1), "stack": (2, 3)}


def test_what_only_one_side_can_tell_apart_is_told_apart_on_neither() -> None:
    """Without page_fault_user nobody knows which instruction stored; where that is so on one side, sites would be all on the other."""
    m, names = written(5)
    bare = Machine()
    bare._rows.update({name: rows for name, rows in m._rows.items() if name != "page_fault_user"})
    bare.now = m.now
    found = before_after([timed(*written(3))], [timed(bare, names)])
    assert found.generalised == {"call_site"}
    assert told(found) == {("server", "anonymous", "unknown", "copies"): (3, 5)}
    again = before_after([timed(bare, names)], [timed(bare, names)])
    assert again.generalised == frozenset()


@pytest.mark.parametrize("mapped", ["mmap", "brk"])
def test_areas_that_only_one_side_can_tell_are_unknown_on_both(mapped: str) -> None:
    """The other side has neither the call nor what faults say of areas."""

    def run(mapped: str) -> Trace:
        m = Machine(without=["mm_fault.vm_ops"])
        a = m.spawn(A)
        if mapped == "mmap":
            m.event("sys_enter_mmap", A, addr=0, len=4 * PAGE, prot=3, flags=0x22)
            m.event("sys_exit_mmap", A, ret=address(0))
        for end in (0, 4) if mapped == "brk" else ():
            m.event("sys_enter_brk", A, brk=address(end))
            m.event("sys_exit_brk", A, ret=address(end))
        m.touch(a, address(0), 0x2000)
        m.fork(a, B, [(address(0), 1)])
        m.vmsplice(a, address(0), 0x2000)
        store(m, a, address(0), 0x2000, 0x4000)
        return timed(m, NAMES)

    found = before_after([run(mapped)], [run("")])
    assert found.generalised == {"anonymous" if mapped == "mmap" else "heap"}
    assert told(found) == {}
    (finding,) = found.table.filter(pl.col("level") == "finding").to_dicts()
    assert (finding["before"], finding["after"], finding["area"], finding["fingerprint"]) == (1, 1, "unknown", None)


def test_a_heap_that_one_side_takes_for_other_anonymous_memory_is_unknown_on_both() -> None:
    """Faults say that it is anonymous; that it is the heap, only brk says."""

    def run(grown: bool) -> Trace:
        m = Machine()
        a = m.spawn(A)
        for end in (0, 4) if grown else ():
            m.event("sys_enter_brk", A, brk=address(end))
            m.event("sys_exit_brk", A, ret=address(end))
        m.touch(a, address(0), 0x2000)
        m.fork(a, B, [(address(0), 1)])
        store(m, a, address(0), 0x2000, 0x4000)
        return timed(m, NAMES)

    found = before_after([run(grown=True)], [run(grown=False)])
    assert found.generalised == {"heap"}
    assert told(found) == {}
    assert before_after([run(grown=False)], [run(grown=False)]).generalised == frozenset()


# --- what is counted ------------------------------------------------------------------------------------------------------------------


def test_every_kind_of_decision_is_counted_with_what_decided_it() -> None:
    def run(pinned: bool) -> Trace:
        m = Machine()
        a = m.spawn(A)
        for number in range(4):
            m.touch(a, address(number), 0x2000 + number)
        m.read_zero(a, address(5))
        if pinned:
            m.pin(a, address(0), 0x2000)
        m.fork(a, B, [(BASE, 6)], early={address(0): 0x3000} if pinned else {})
        m.zero_fill(a, address(5), 0x5000)
        m.cow(a, address(1), 0x2001, 0x4001)
        return timed(m, NAMES)

    found = before_after([run(pinned=False)], [run(pinned=True)])
    assert told(found, "program") == {("server", None, None, "early_copies"): (0, 1)}
    assert told(found, "program", because=True) == {("server", None, None, "early_copies", "pinned-at-fork"): (0, 1)}
    assert [one(found, name)["before"] for name in ("copies", "zero_fills", "early_copies", "decisions")] == [1, 1, 0, 2]
    assert [one(found, name)["after"] for name in ("copies", "zero_fills", "early_copies", "decisions")] == [1, 1, 1, 3]
    assert one(found, "early_copies")["only"] == "after"
    assert one(found, "copied_pages")["difference"] == 1
    assert one(found, "copied_bytes")["difference"] == PAGE


def test_a_huge_page_that_is_copied_as_a_whole_is_one_decision_about_all_its_pages() -> None:
    m = Huge()
    a = m.spawn(A)
    m.touch_huge(a)
    m.fork(a, B, [(BASE, 512)])
    m.huge_cow(a, BASE, SPLIT_UP)
    found = before_after([timed(*written(1))], [timed(m, NAMES)], "mapcount")
    assert (one(found, "copies")["after"], one(found, "decisions")["after"]) == (512, 1)
    assert (one(found, "copies")["before"], one(found, "decisions")["before"]) == (1, 1)


def test_a_total_has_a_row_of_every_quantity_also_where_nothing_happened() -> None:
    found = before_after([timed(*written(0))], [timed(*written(0))])
    totals = found.table.filter(pl.col("level") == "total")
    names = totals["quantity"].cast(pl.String).to_list()
    assert sorted(names) == sorted([*BEFORE_AFTER["quantity"].values, "findings"]), "findings by severity"
    assert totals["before"].sum() == totals["after"].sum() == 0
    assert found.table.filter(pl.col("level") != "total").height == 0


@pytest.mark.parametrize("policy", ["observed", "mapcount", "page-count", "kernel"])
def test_what_groups_count_adds_up_to_what_the_replay_counts(policy: str) -> None:
    paths = fixture_path("random1-6.1.dat"), fixture_path("snapshot-6.1.dat")
    found = before_after([paths[0]], [paths[1]], policy)
    assert found.policy == policy
    for side, path in zip(("before", "after"), paths, strict=True):
        counted = cost(tracetool.open(path).replay(policy))
        for level in ("total", "program", "area", "call_site"):
            rows = found.table.filter(pl.col("level") == level)
            for name in ("copies", "reuses", "early_copies", "unshares", "zero_fills", "splits"):
                own = rows.filter(pl.col("quantity") == name)
                sums = [own.filter(why)[side].sum() for why in (pl.col("because").is_null(), pl.col("because").is_not_null())]
                assert sums == [getattr(counted, name)] * 2, (level, name)
            assert rows.filter(pl.col("quantity") == "copied_pages")[side].sum() == counted.copied_pages
    assert dict(found.table.schema) == polars_schema(BEFORE_AFTER)


def test_the_other_way_round_is_the_same_mirrored() -> None:
    paths = [fixture_path("mail-5.10.dat")], [fixture_path("mail-6.1.dat")]
    there, back = before_after(*paths).table, before_after(paths[1], paths[0]).table
    keys = ["level", "program", "area", "call_site", "quantity", "because", "fingerprint", "severity"]
    joined = there.join(back, on=keys, nulls_equal=True, suffix="_back")
    assert joined.height == there.height == back.height
    assert joined.filter(pl.col("difference") != -pl.col("difference_back")).height == 0
    assert joined.filter(pl.col("before") != pl.col("after_back")).height == 0


def test_a_trace_and_itself_differ_in_nothing() -> None:
    path = fixture_path("random2-6.1.dat")
    table = before_after([path], [path]).table
    assert table.filter(pl.col("difference") != 0).height == 0
    assert table["only"].drop_nulls().len() == 0


# --- repeats --------------------------------------------------------------------------------------------------------------------------


def test_one_trace_a_side_tells_no_spread_and_has_no_interval() -> None:
    for before, after in ((runs((3, 0)), runs((9, 0))), (runs((3, 0), (3, 0)), runs((9, 0)))):
        found = before_after(before, after)
        assert not found.has_intervals
        assert found.table.select("low", "high", "shown").null_count().row(0) == (found.table.height,) * 3
        assert one(found, "copies")["difference"] == 6


def test_of_repeats_the_means_are_compared_and_their_spread_says_what_is_shown() -> None:
    found = before_after(runs((3, 4), (4, 6), (5, 5), (4, 5)), runs((9, 5), (10, 6), (11, 4), (10, 6)))
    copies, reuses = one(found, "copies", "call_site"), one(found, "reuses", "call_site")
    assert (copies["before"], copies["after"], copies["difference"]) == (4, 10, 6)
    assert 0 < copies["low"] < 6 < copies["high"] < 12
    assert copies["shown"] is True
    assert (reuses["before"], reuses["after"], reuses["difference"]) == (5, 5.25, 0.25)
    assert reuses["low"] < 0 < reuses["high"]
    assert reuses["shown"] is False
    assert (copies["before_traces"], copies["before_in"], copies["after_in"]) == (4, 4, 4)
    assert one(found, "copied_bytes")["low"] == pytest.approx(one(found, "copied_pages")["low"] * PAGE)
    assert one(found, "copies", "total")["low"] == pytest.approx(copies["low"])
    alike = one(found, "zero_fills")
    assert (alike["low"], alike["high"], alike["shown"]) == (0, 0, False)


def test_what_is_in_some_repeats_only_counts_as_none_in_the_others() -> None:
    found = before_after(runs((3, 0), (3, 0), (3, 0)), runs((3, 0), (3, 3), (3, 0)))
    reuses = one(found, "reuses", "call_site")
    assert (reuses["before"], reuses["after"], reuses["before_in"], reuses["after_in"]) == (0, 1, 0, 1)
    assert (reuses["only"], reuses["shown"]) == ("after", False)


def test_what_is_shown_comes_first_then_what_differs_most() -> None:
    def run(steady: int, wild: int) -> Trace:
        m = Machine()
        a = m.spawn(A)
        for number in range(steady + wild):
            m.touch(a, address(number), 0x2000 + number)
        m.fork(a, B, [(BASE, steady + wild)])
        for number in range(steady + wild):
            store(m, a, address(number), 0x2000 + number, 0x4000 + number, 0x401_111 if number < steady else 0x401_999)
        return timed(m, NAMES)

    found = before_after([run(2, 1), run(2, 30), run(2, 9)], [run(4, 40), run(4, 2), run(4, 31)])
    sites = found.table.filter(pl.col("level") == "call_site")["call_site"].unique(maintain_order=True)
    assert sites.to_list() == ["111", "999"]
    assert one(found, "copies", "call_site", call_site="999")["difference"] > 2


def test_the_same_question_has_the_same_answer() -> None:
    sides = (
        [fixture_path("random1-6.1.dat"), fixture_path("random2-6.1.dat")],
        [fixture_path("random3-6.1.dat"), fixture_path("zap-6.1.dat")],
    )
    assert before_after(*sides).table.equals(before_after(*sides).table)


# --- by second, by fork ---------------------------------------------------------------------------------------------------------------


def test_counts_can_be_those_of_a_second_or_of_a_fork() -> None:
    def run(forks: int, seconds: float) -> Trace:
        m, names = written(6)
        a = m.spawn(C)
        for number in range(forks - 1):
            m.fork(a, 100 + number, [(BASE, 1)])
        m.event("print", A, later_ns=round(seconds * 1e9) - (m.now - first(m)), buf="end")
        return timed(m, names | {C: "server"})

    def first(m: Machine) -> int:
        return min(int(row["ts"]) for rows in m._rows.values() for row in rows)

    before, after = run(forks=1, seconds=0.5), run(forks=3, seconds=2)
    by = {per: one(before_after([before], [after], per=per), "copies") for per in ("trace", "second", "fork")}
    assert {per: (row["before"], row["after"]) for per, row in by.items()} == {"trace": (6, 6), "second": (12, 3), "fork": (6, 2)}
    assert {per: row["per"] for per, row in by.items()} == {"trace": "trace", "second": "second", "fork": "fork"}


def test_findings_are_never_divided() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), 0x2000)
    m.fork(a, B, [(BASE, 1)])
    m.vmsplice(a, address(0), 0x2000)
    store(m, a, address(0), 0x2000, 0x4000)
    found = before_after([timed(m, NAMES)], [timed(m, NAMES)], per="second")
    finding = one(found, "findings", "finding")
    assert (finding["before"], finding["after"], finding["per"]) == (1, 1, "trace")


def test_what_is_none_divides_nothing() -> None:
    m = Machine()
    m.touch(m.spawn(A), address(0), 0x2000)
    with pytest.raises(Unanswerable, match="per fork"):
        before_after([timed(*written(1))], [timed(m)], per="fork")


# --- findings -------------------------------------------------------------------------------------------------------------------------


def mail(copies: bool, losses: Sequence[Loss] = ()) -> Trace:
    """The mail's example on a kernel that counts references (`copies`), or mappings."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), 0x50)
    b = m.fork(a, B, [(BASE, 8)])
    m.vmsplice(a, address(0), 0x50)
    store(m, a, address(0), 0x50, 0x51, 0x401_100)
    store(m, b, address(0), 0x50, 0x52 if copies else None, 0x401_200)
    m.pipe_release(A, 0x50)
    return timed(m, NAMES, losses)


def findings(found: BeforeAfter) -> dict[str, tuple[float, float, str | None]]:
    rows = found.table.filter(pl.col("level") == "finding", pl.col("severity") == "defect")
    return {row["rule"]: (row["before"], row["after"], row["only"]) for row in rows.to_dicts()}


def test_a_finding_that_a_kernel_no_longer_gives_is_gone_and_one_that_it_gives_is_new() -> None:
    found = before_after([mail(copies=False)], [mail(copies=True)])
    assert findings(found) == {"missed-cow": (1, 0, "before")}
    assert told(found) == {("prog", "anonymous", "200", "copies"): (0, 1), ("prog", "anonymous", "200", "reuses"): (1, 0)}
    assert told(found, because=True) == {
        ("prog", "anonymous", "200", "copies", "a reference of another process"): (0, 1),
        ("prog", "anonymous", "200", "reuses", "sole-owner"): (1, 0),
    }
    assert findings(before_after([mail(copies=True)], [mail(copies=False)])) == {"missed-cow": (0, 1, "after")}
    assert one(found, "findings", severity="defect")["difference"] == -1


def test_under_a_policy_both_sides_are_what_it_makes_of_them() -> None:
    found = before_after([mail(copies=False)], [mail(copies=True)], "mapcount")
    assert findings(found) == {"missed-cow": (1, 1, None)}
    assert told(found) == {}
    assert found.before[0].kernel.policy == "mapcount"
    assert found.after[0].kernel.policy != "mapcount"
    kernels = before_after([mail(copies=False)], [mail(copies=True)], "kernel")
    assert findings(kernels) == {"missed-cow": (1, 0, "before")}


def test_whether_a_side_could_have_shown_a_finding_is_known() -> None:
    found = before_after([mail(copies=False)], [mail(copies=True, losses=[Loss(0, 1, 2, 5, "ring-buffer", 0)])])
    (verdict,) = [each for each in found.after[0].verdicts if each.rule == "missed-cow"]
    assert verdict.verdict == "inconclusive"
    assert found.after[0].gaps == 1


def test_stores_that_only_the_policy_would_have_asked_about_are_counted_apart() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), 0x50)
    m.pin(a, address(0), 0x50)
    m.mprotect(a, address(0), 1)
    m.mprotect(a, address(0), 3)
    m.unpin(A, 0x50)
    found = before_after([timed(m, NAMES)], [timed(*written(1))], "page-count")
    assert (found.before[0].unseen, found.after[0].unseen) == (1, 0)
    assert one(found, "copies")["before"] == 0


# --- what it costs --------------------------------------------------------------------------------------------------------------------


def test_time_is_measured_only_where_every_trace_tells_the_price() -> None:
    """A copy of these traces takes 2 us more than a reuse: two more events."""
    both = [timed(*written(copies, 25), hypervisor="KVM") for copies in (25, 40)]
    found = before_after(both[:1], both[1:])
    assert found.time == "measured, uncorrected"
    assert len(found.copy_ns) == 2
    row = one(found, "copied_ns")
    assert (row["before"], row["after"]) == (25 * found.copy_ns[0], 40 * found.copy_ns[1])
    assert row["time"] == "measured, uncorrected"
    mixed = before_after(both[:1], [timed(*written(3, 25), hypervisor="KVM")])
    assert mixed.time == "assumed"
    assert set(mixed.copy_ns) == {load(None).extra_copy.value_ns}
    assert one(mixed, "copied_ns")["after"] == 3 * load(None).extra_copy.value_ns


def test_a_cost_table_of_one_s_own_is_used(tmp_path: Path) -> None:
    (tmp_path / "costs.toml").write_text("reuse_fault = 0\ncopy_fault = 12_345\n")
    found = before_after(runs((3, 0)), runs((5, 0)), prices=load(str(tmp_path / "costs.toml")))
    assert one(found, "copied_ns")["difference"] == 2 * 12_345


# --- wrong questions ------------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    trace = timed(*written(1))
    with pytest.raises(Unusable, match="no trace after"):
        before_after([trace], [])
    with pytest.raises(UnknownName):
        before_after([trace], [trace], "no-such")
    for several in ("all", "none"):
        with pytest.raises(Unusable, match="is not one"):
            before_after([trace], [trace], several)
    with pytest.raises(TraceError, match="No such file"):
        before_after([trace], [tmp_path / "missing.dat"])


# --- made by a machine ----------------------------------------------------------------------------------------------------------------


def machine_counts(events: Sequence[Event]) -> Counter[tuple[str, str]]:
    """(kind of decision, call site) -> how many, of what the imagined kernel did itself: no replay."""
    counts: Counter[tuple[str, str]] = Counter()
    instruction: dict[int, int] = {}
    copied: dict[int, bool] = {}
    begun: dict[int, dict[str, Any]] = {}
    for event in events:
        fields = dict(zip(names_of(event), event.values, strict=True))
        if event.name == "page_fault_user":
            instruction[event.tid] = int(fields["ip"])
        elif event.name == "cow_fault":
            begun[event.tid], copied[event.tid] = fields, False
        elif event.name == "cow_copy":
            copied[event.tid] = True
        elif event.name == "cow_fault_done":
            fault = begun.pop(event.tid)
            # FAULT_FLAG_USER, FAULT_FLAG_UNSHARE; a special entry is the zero page's.
            site = f"{instruction[event.tid] & 0xFFF:03x}" if fault["fault_flags"] & 0x40 else "kernel"
            if not copied[event.tid]:
                counts["reuses", site] += 1
            elif fault["pte"] & 0x200:
                counts["zero_fills", site] += 1
            else:
                counts["unshares" if fault["fault_flags"] & 0x400 else "copies", site] += 1
    return counts


@pytest.mark.parametrize(
    "plan",
    [{"scenario": "mail", "pages": 4, "events": 600}, {"scenario": "snapshot", "pages": 24, "events": 1500, "references": 0.2}],
    ids=["mail", "snapshot"],
)
def test_kernels_that_count_mappings_and_references_differ_as_the_machine_says(plan: dict[str, Any], tmp_path: Path) -> None:
    sides: dict[str, list[Counter[tuple[str, str]]]] = {}
    paths: dict[str, list[Path]] = {}
    for policy in ("mapcount", "page-count"):
        paths[policy] = [tmp_path / f"{policy}-{seed}.dat" for seed in range(1, 5)]
        seeds = enumerate(paths[policy], 1 if policy == "mapcount" else 11)
        sides[policy] = [machine_counts(watched(Plan(**plan, policy=policy, seed=seed), path)[1]) for seed, path in seeds]
    found = before_after(paths["mapcount"], paths["page-count"])
    quantities = ("copies", "reuses", "unshares", "zero_fills")
    expected = {
        key: tuple(sum(counts[key] for counts in side) / len(side) for side in sides.values())
        for key in {key for side in sides.values() for counts in side for key in counts}
    }
    rows = found.table.filter(pl.col("level") == "call_site", pl.col("quantity").is_in(quantities), pl.col("because").is_null())
    assert {(row["quantity"], row["call_site"]): (row["before"], row["after"]) for row in rows.to_dicts()} == expected
    for name in quantities:
        total = one(found, name)
        assert (total["before"], total["after"]) == tuple(
            math.fsum(values[side] for key, values in expected.items() if key[0] == name) for side in (0, 1)
        )
    # B's store after A's is the one that differs: a reuse there, a copy here, and a leak less.
    if plan["scenario"] == "mail":
        assert one(found, "copies")["shown"] is True
        assert one(found, "copies")["difference"] > 0
        leaks = found.table.filter(pl.col("rule") == "missed-cow")
        assert leaks.height > 0
        assert set(leaks["only"]) == {"before"}


# --- recorded -------------------------------------------------------------------------------------------------------------------------


def test_the_mail_on_5_10_and_6_1() -> None:
    """cow_copy, which the replay does not look at, counts the copies and zero-fills of either kernel."""
    paths = [fixture_path(f"mail-{kernel}.dat") for kernel in ("5.10", "6.1")]
    found = before_after(paths[:1], paths[1:])
    copied = [tracetool.open(path).raw.counts()["cow_copy"] for path in paths]
    assert [one(found, "copied_pages")[side] + one(found, "zero_fills")[side] for side in ("before", "after")] == copied
    assert findings(found) == {}
    (info,) = found.table.filter(pl.col("level") == "finding").to_dicts()
    assert (info["rule"], info["severity"], info["before"], info["after"]) == ("wrong-cow", "info", 1, 1), "on both, by its fingerprint"
    assert told(found)["trace-cmd", "anonymous", "c40", "copies"] == (1, 0), "the recorder's own"
    assert [run.kernel.policy for run in (*found.before, *found.after)] == ["page-count", "exclusive@6.1"]
    assert one(found, "copied_ns")["time"] == "assumed"


def recorded(traces: Path, name: str, policy: str = "observed") -> BeforeAfter:
    return before_after([traces / "5.10" / f"{name}.dat"], [traces / "6.1" / f"{name}.dat"], policy)


def test_pages_from_swap_are_copied_for_the_swap_cache_on_5_10_alone(traces: Path) -> None:
    found = recorded(traces, "swap")
    assert one(found, "copies")["difference"] == -16
    assert told(found, "total", because=True)[None, None, None, "copies", "swap-cache"] == (16, 0)
    first = found.table.filter(pl.col("level") == "call_site").row(0, named=True)
    assert (first["program"], first["area"], first["quantity"], first["difference"]) == ("cowlab", "anonymous", "copies", -16)
    assert first["only"] == "before"
    gone = one(found, "findings", "finding")
    assert (gone["rule"], gone["before"], gone["after"]) == ("unnecessary-copy", 16, 0)


def test_the_lost_pages_of_a_buffer_are_gone_on_6_1(traces: Path) -> None:
    """expected.tsv: 5.10 copies the four pages although only their pin is another reference."""
    lines = [line.split("\t") for line in (traces / "expected.tsv").read_text().splitlines()[1:]]
    expected = {
        kernel: next(
            int(pages) for kernels, scenarios, policy, _, _, pages, _ in lines
            if kernel in kernels.split() and "iouring_ro" in scenarios.split() and policy == "observed"
        )
        for kernel in ("5.10", "6.1")
    }  # fmt: skip
    found = recorded(traces, "iouring_ro")
    gone = one(found, "findings", "finding")
    assert (gone["rule"], gone["certainty"], gone["severity"], gone["only"]) == ("wrong-cow", "certain", "defect", "before")
    assert (gone["before"], gone["after"]) == (expected["5.10"], expected["6.1"]) == (4, 0)
    assert one(found, "copies")["difference"] == -4
    assert ("cowlab", "anonymous", gone["call_site"], "copies", "a reference of its own") in told(found, because=True)


def test_under_page_count_what_6_1_would_lose_is_possible(traces: Path) -> None:
    found = recorded(traces, "iouring_ro", "page-count")
    rows = found.table.filter(pl.col("level") == "finding").select("certainty", "before", "after").rows()
    assert sorted(rows) == [("certain", 4, 0), ("possible", 0, 4)]
