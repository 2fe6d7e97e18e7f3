"""The report for a terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from report import example
from tracetool.analysis import Agreement, Analysis, Coverage, Known, PolicyResult, RecordedDecision, Verdict
from tracetool.report import text
from tracetool.rules import RULES


def lines(analysis: Analysis, width: int | None = None) -> list[str]:
    return text.render(analysis, width).splitlines()


def flowing(analysis: Analysis) -> str:
    return " ".join(text.render(analysis).split())


def test_it_tells_what_was_traced_and_what_it_covers() -> None:
    told = flowing(example.mail())
    for fact in ("traces/mail.dat", "trace.dat 7", "kernel 5.10.0-35-amd64", "2 CPUs", "1,285 events in 39.6 ms", "no events lost"):
        assert fact in told


def test_losses_and_notes_are_told() -> None:
    told = flowing(example.mail(coverage=Coverage(12, 0, {"mystery": 3}, ("forks were not recorded",))))
    assert "Coverage: 12 events lost; " in told
    assert "mystery (3)" in told
    assert "; forks were not recorded." in told
    assert "tracetool info traces/mail.dat" in told


def test_each_policy_is_a_row_of_the_table() -> None:
    rows = {
        line.split()[0]: line.split()[1:] for line in lines(example.mail()) if line.startswith(("observed ", "mapcount ", "page-count "))
    }
    assert rows["observed"] == ["5", "3", "2", "0", "0", "-", "-", "-", "none"]
    assert rows["mapcount"] == ["5", "2", "3", "0", "0", "0", "0", "0", "1", "/", "0"]
    assert rows["page-count"] == ["5", "3", "2", "0", "0", "1", "4", "KiB", "2.00", "µs", "none"]


def test_each_policy_says_on_which_kernels_it_was_checked() -> None:
    policies = tuple(replace(p, checked_on="from source only" if p.name == "mapcount" else "5.10") for p in example.mail().policies)
    told = flowing(example.mail(policies=(*policies, replace(policies[0], name="new", checked_on=""))))
    assert "Checked on real kernels: mapcount: from source only page-count, exclusive: 5.10 new: not checked" in told


def test_the_kernel_s_own_policy_is_told_with_the_decisions_that_tell_it() -> None:
    told = flowing(example.mail())
    assert (
        "The kernel's own policy: page-count decides 5 of 5 decisions as the traced kernel did; 1 decision tells it from mapcount; "
        "mainline of 5.10.0-35-amd64 has it, too." in told
    )
    assert f"told by: thread 116 copied at {example.ADDRESS:#x} at +35.936 ms (reference)" in told
    assert "not judged: 2: the page is older than the trace" in told
    assert "otherwise:" not in told
    assert "The kernel's own policy" not in flowing(example.mail(kernel=None))


def test_only_what_is_older_than_the_trace_is_no_decision_of_a_policy() -> None:
    """What hangs on an LRU batch of unknown fill is not judged, but decided all the same: only the others fill the sum of COW faults."""
    reasons = {"the page is older than the trace": 1, "how full the LRU batch was when the trace began is not known": 4}
    policies = tuple(replace(p, agreement=Agreement(5, 5, 5, 1, 1, reasons)) for p in example.mail().policies)
    assert "decisions on pages older than the trace, which they cannot be asked (1)" in flowing(example.mail(policies=policies))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"telling": 0, "told_by": ()}, "none of them tells it from mapcount"),
        ({"telling": 7}, "7 decisions tell it from mapcount"),
        ({"release": None, "expected": None}, "the release of the kernel is not known"),
        ({"expected": "exclusive@6.1", "release": "6.1.0"}, "mainline of 6.1.0 has exclusive@6.1: a backport, or a mistake of this tool"),
    ],
)
def test_how_sure_the_kernel_s_own_policy_is(changes: dict[str, Any], words: str) -> None:
    assert words in flowing(example.mail(kernel=example.kernel(**changes)))


def test_decisions_that_its_own_policy_does_not_explain_are_told_and_counted() -> None:
    odd = RecordedDecision(example.A_WRITES, 115, example.ADDRESS, copied=False, because="nothing else held the page", event=40)
    told = flowing(example.mail(kernel=example.kernel(disagreements=(odd,) * 5)))
    assert told.count(f"otherwise: thread 115 wrote in place at {example.ADDRESS:#x}: nothing else held the page") == 3
    assert "and 2 more decisions that it would have made otherwise" in told


def test_certain_and_possible_defects_are_counted_apart() -> None:
    found = example.mail(findings=example.findings(example.finding(), *(example.finding(i, certainty="possible") for i in range(2, 5))))
    row = next(line for line in lines(found) if line.startswith("mapcount "))
    assert row.endswith(" 1 / 3")
    assert "defects: certain / possible" in flowing(found)


def test_what_cannot_be_told_is_not_called_clean() -> None:
    found = example.mail(verdicts=(Verdict("missed-cow", "observed", "inconclusive", ("forks", "references older than the trace")),))
    row = next(line for line in lines(found) if line.startswith("observed "))
    assert row.endswith("unclear")
    assert "it lacks forks; references older than the trace" in flowing(found)


def test_the_observed_story_is_told_in_full_and_a_policy_where_it_parts() -> None:
    told = flowing(example.mail())
    assert told.count("A forks B: both map P0") == 1
    assert "+5.936 ms B writes: P0 is referenced, so it is copied to P2." in told
    assert "mapcount: +5.936 ms B writes: only B maps P0" in told
    assert "<- UNSAFE (missed-cow, certain)" in told
    assert f"UNSAFE. {example.LEAK}" in told
    assert "page-count, exclusive: as observed." in told


def test_a_long_story_is_cut_and_says_so() -> None:
    found = example.mail()
    long = replace(found.stories[0], steps=found.stories[0].steps * 5)
    told = flowing(replace(found, stories=(long, *found.stories[1:])))
    assert "showing 20 of 40 steps" in told
    assert told.count("A forks B") == 3


def test_ten_findings_are_shown_and_the_rest_counted() -> None:
    told = flowing(example.mail(findings=example.findings(*(example.finding(i) for i in range(23)))))
    assert "23 findings, showing 10 of 23 (worst first)" in told
    assert told.count("certain missed-cow under mapcount (defect), +35.936 ms") == 10


def test_a_finding_says_its_remedy_and_its_fingerprint() -> None:
    told = flowing(example.mail())
    assert f"remedy: {RULES['missed-cow'].remedy}" in told
    assert "fingerprint: 0123456789abcdef" in told


def test_neighbours_are_told_together() -> None:
    pages = [example.finding(i, address=example.ADDRESS + i * 4096) for i in range(12)]
    told = flowing(example.mail(findings=example.findings(*pages, example.finding(20, address=0x1000))))
    assert "13 findings in 2 groups of neighbours" in told
    assert "F0 and 11 more certain missed-cow under mapcount (defect)" in told
    assert f"12 pages, {example.ADDRESS:#x} to {example.ADDRESS + 12 * 4096 - 1:#x}; one of them: cowlab 116 writes" in told
    assert told.count("certain missed-cow under mapcount (defect)") == 2


def test_what_is_known_is_counted_and_not_called_clean() -> None:
    some = flowing(example.mail(known=Known("base.json", 3)))
    assert "1 new finding" in some
    assert "3 findings are known from base.json and left out, also of the verdicts" in some
    none = flowing(example.nothing(known=Known("base.json", 1)))
    assert "No new findings: every rule is clean" in none
    assert "but for what was known" in none
    assert "1 finding is known from base.json and left out" in none


def test_an_empty_result_says_why_and_shows_no_table() -> None:
    told = flowing(example.nothing())
    assert "No COW fault in this trace" in told
    assert "No findings: every rule is clean" in told
    assert "faults copies" not in told


def test_the_next_commands_can_be_pasted() -> None:
    found = example.mail()
    told = lines(replace(found, trace=replace(found.trace, path="my traces/" + "x" * 90 + ".dat")))
    assert f"  tracetool pages 'my traces/{'x' * 90}.dat' --at {example.B_WRITES}" in told


@pytest.mark.parametrize("width", [None, 60, 120])
def test_lines_keep_within_the_width(width: int | None) -> None:
    assert max(map(cell_len, lines(example.mail(), width))) <= (width or 80)


def test_a_million_of_everything_fits_80_columns() -> None:
    many = 1_234_567
    big = PolicyResult(
        name="page-count-5.18", checked_on="", cow_faults=many, copies=many, reuses=many, early_copies=many, unshares=many, zero_fills=many,
        splits=many, extra_copies=many, extra_bytes=10**12, extra_ns=10**12, time="measured", peak_pages=many,
        agreement=Agreement(many, many, 0, 0, 0),
    )  # fmt: skip
    found = example.mail(policies=(big,), stories=(), observed=dict.fromkeys(("cow_faults", "copies", "reuses"), 10**9))
    assert max(map(cell_len, lines(found))) <= 80
    row = next(line for line in lines(found) if line.startswith("page-count-5.18"))
    assert row.split() == ["page-count-5.18", *["1.23M"] * 6, "931", "GiB", "1,000", "s", "unclear"]


@pytest.mark.parametrize("foreign", ["[red]x[/red]", "[link=file:///]", "\x1b[31m", "a\rb", ":smile:", "\u202e"])
def test_markup_and_control_characters_are_shown_not_obeyed(foreign: str) -> None:
    told = text.render(example.hostile(foreign))
    shown = foreign if foreign.isprintable() else foreign.encode("unicode_escape").decode()
    assert told.splitlines()[0] == shown
    assert all(line.isprintable() for line in told.splitlines())


@settings(max_examples=15)
@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=60))
def test_no_foreign_string_breaks_the_report(foreign: str) -> None:
    assert all(line.isprintable() for line in text.render(example.hostile(foreign)).split("\n"))


def test_colour_adds_codes_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("NO_COLOR", "1")
    coloured = text.render(example.mail(), color=True)
    assert "\x1b[1;31m" in coloured
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in text.render(example.mail())
