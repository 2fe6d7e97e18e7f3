"""Before and after, for a terminal: what the sides are, the totals, groups and findings by what they differ in; nothing claimed unshown."""

from __future__ import annotations

import pytest

from conftest import fixture_path
from engine.build import BASE, Machine, address
from timed import store, timed
from tracetool.before_after import before_after
from tracetool.report import before_after as report
from tracetool.trace import Trace
from tracetool_parsers.losses import Loss

A, B = 10, 11
HOSTILE = "b\x1b[2J\n"


def run(*sites: int, reuse: bool = False, name: str = "server", **others: object) -> Trace:
    """A writes a page, shared with B, by as many stores of each site as it is given; `reuse`: B has gone by then."""
    m = Machine()
    a = m.spawn(A)
    for number in range(len(sites)):
        m.touch(a, address(number), 0x2000 + number)
    b = m.fork(a, B, [(BASE, max(len(sites), 1))])
    m.event("task_rename", A, pid=A, oldcomm="prog", newcomm=name)
    if reuse:
        m.exit(b, [0x2000 + number for number in range(len(sites))])
    for number, site in enumerate(sites):
        store(m, a, address(number), 0x2000 + number, None if reuse else 0x4000 + number, 0x401_000 + site)
    return timed(m, {A: name, B: "child"}, **others)  # type: ignore[arg-type]


def leaky(copies: bool, losses: list[Loss] | None = None) -> Trace:
    """The mail's example, safe (`copies`) or not."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), 0x50)
    b = m.fork(a, B, [(BASE, 1)])
    m.vmsplice(a, address(0), 0x50)
    store(m, a, address(0), 0x50, 0x51)
    store(m, b, address(0), 0x50, 0x52 if copies else None)
    m.pipe_release(A, 0x50)
    return timed(m, {A: "server", B: "child"}, losses or [])


def told(before: list[Trace], after: list[Trace], **others: object) -> str:
    """The text on one line."""
    return one_line(report.text(before_after(before, after, **others)))  # type: ignore[arg-type]


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_the_two_sides_come_first_then_the_totals() -> None:
    text = report.text(before_after([fixture_path("mail-5.10.dat")], [fixture_path("mail-6.1.dat")]))
    lines = text.splitlines()
    assert lines[0] == "Before and after: what the kernels did"
    assert lines[1].startswith("  before  1 trace (mail-5.10.dat), kernel 5.10.0-")
    flat = one_line(text)
    assert "(decides as page-count or page-count-5.18); 36.1 ms, 1 fork, 1,284 events" in flat, "no decision tells these two apart"
    assert "after 1 trace (mail-6.1.dat), kernel 6.1.0-53-amd64 (decides as exclusive@6.1 or page-count)" in flat
    assert "-1 copies 12 -> 11: unknown 1 -> 0" in flat
    headings = [line for line in lines if line and not line.startswith(" ")]
    assert headings == [
        "Before and after: what the kernels did",
        "In all",
        "By program and kind of memory, the largest difference first",
        "By call site, the largest difference first",
        "Cost",
    ]
    assert max(map(len, lines)) <= 80


def test_one_trace_a_side_says_that_it_tells_no_spread() -> None:
    text = told([run(1)], [run(1, 1)])
    assert "One trace a side tells no spread" in text
    assert "interval is given" in text
    assert "copies 1 -> 2: another-mapping 1 -> 2" in text
    assert "95 %" not in text
    assert "not shown" not in text
    assert "A side of one trace tells no spread" in told([run(1), run(1)], [run(1, 1)])


def test_repeats_have_intervals_and_what_they_do_not_show_is_told_as_not_shown() -> None:
    before = [run(*[1] * steady, *[2] * wild) for steady, wild in ((4, 1), (5, 9), (4, 3))]
    after = [run(*[1] * steady, *[2] * wild) for steady, wild in ((9, 8), (10, 1), (9, 5))]
    text = told(before, after)
    assert "tells no spread" not in text
    assert "In brackets: the 95 % bootstrap interval of a difference of means. Of the 2 by call site about 0.1 would leave out 0" in text
    assert "server, anonymous, 001: copies 4.33 -> 9.33 (+" in text
    assert "server, anonymous, 002" not in text
    assert "not shown: 1 more group whose intervals include 0" in text


def test_a_difference_that_all_repeats_have_alike_says_so() -> None:
    assert "copies 1 -> 3 (no trace of a side differs)" in told([run(1), run(1)], [run(1, 1, 1)] * 2)


def test_what_is_on_one_side_only_is_told_as_such() -> None:
    text = told([run(1, 2)], [run(1, 3)])
    assert "-1 server, anonymous, 002, only before: copies 1 -> 0" in text
    assert "+1 server, anonymous, 003, only after: copies 0 -> 1" in text
    assert "alike: 1 group" in text
    sets = told([run(1, 2), run(1, 2)], [run(1), run(1)])
    assert "server, anonymous, 002, only before: copies 1 -> 0 (no trace of a side differs)" in sets


def test_findings_gone_and_new_are_named_with_what_makes_them_the_same() -> None:
    gone, new = told([leaky(copies=False)], [leaky(copies=True)]), told([leaky(copies=True)], [leaky(copies=False)])
    line = "missed-cow (certain defect) of server in anonymous memory, at instruction ...79d through vmsplice"
    assert f"Findings gone -1 {line}: 1 -> 0 [" in gone
    assert f"Findings new +1 {line}: 0 -> 1 [" in new
    assert "Findings new" not in gone
    assert "-1 defects found 1 -> 0" in gone
    repeats = told([leaky(copies=False), leaky(copies=True)], [leaky(copies=True), leaky(copies=True)])
    assert "0.5 -> 0 (not shown: " in repeats
    assert "in 1 of 2 before, 0 of 2 after" in repeats


def test_a_finding_that_may_only_be_unseen_is_told_as_not_settled() -> None:
    lost = [Loss(0, 1, 2, 5, "ring-buffer", 0)]
    text = told([leaky(copies=False)], [leaky(copies=True, losses=lost)])
    assert "missed-cow is not settled after, in 1 trace: missing are the events that were lost" in text
    assert "Events were lost after, in 1 trace: what is counted there is too little." in text
    # Settled is what the side that lacks it says, not the side that has it.
    assert "not settled" not in told([leaky(copies=False, losses=lost)], [leaky(copies=True)])


def test_what_was_not_recorded_on_one_side_is_told_before_any_difference() -> None:
    text = told([run(1)], [run(1, without=["pipe_release", "gup_fast"])])
    assert "Not recorded after: gup_fast." in text
    assert "What is recorded on one side only shows as a difference." in text


def test_a_side_of_two_kernels_is_a_mixture() -> None:
    text = told([run(1, kernel="5.10.0"), run(1, kernel="6.1.0")], [run(1)])
    assert "The traces before are of 2 kernels: their means are of a mixture." in text


def test_many_groups_are_cut_and_the_cut_is_told() -> None:
    text = report.text(before_after([run(*range(1, 60))], [run()]))
    assert f"showing {report.SITES} of 59" in one_line(text)
    assert text.count("only before: copies 1 -> 0") == report.SITES


def test_foreign_names_are_escaped() -> None:
    text = report.text(before_after([run(1, name=HOSTILE)], [run(1)]))
    assert "\x1b" not in text
    assert "b\\x1b[0J\\n" in text, "numbers in names are told as 0"


def test_the_cost_says_what_its_times_are() -> None:
    assumed = told([run(1)], [run(1, 1)])
    assert "+1 pages copied 1 -> 2" in assumed
    assert "+4 KiB the same in bytes 4 KiB -> 8 KiB" in assumed
    assert "+2.00 µs in time, assumed 2.00 µs -> 4.00 µs" in assumed
    assert "One more copy is taken for 2.00 µs." in assumed
    second = told([run(1)], [run(1, 1)], per="fork")
    assert "In all, each fork" in second
    assert "Cost, each fork" in second


def test_measured_prices_are_told_of_either_side() -> None:
    def both(copies: int) -> Trace:
        m = Machine()
        a = m.spawn(A)
        for number in range(copies + 25):
            m.touch(a, address(number), 0x2000 + number)
        b = m.fork(a, B, [(BASE, copies + 25)])
        for number in range(copies):
            store(m, a, address(number), 0x2000 + number, 0x4000 + number)
        m.exit(b, [0x2000 + number for number in range(copies + 25)])
        for number in range(copies, copies + 25):
            store(m, a, address(number), 0x2000 + number, None)
        return timed(m, {A: "server"}, hypervisor="KVM")

    text = told([both(25)], [both(40)])
    assert "in time, measured, uncorrected" in text
    assert "One more copy before: " in text
    assert "One more copy after: " in text
    mixed = told([both(25)], [run(1)])
    assert "1 of 2 traces would tell another, but only one price makes times comparable" in mixed


@pytest.mark.parametrize("sides", [([], []), ([1], [])])
def test_nothing_decided_is_told(sides: tuple[list[int], list[int]]) -> None:
    text = told([run(*sides[0])], [run(*sides[1])])
    assert ("No COW decision in any of the traces." in text) is (sides == ([], []))
