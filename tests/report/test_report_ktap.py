"""The report as KTAP, read back by the rules of the kernel's Documentation/dev-tools/ktap.rst."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from report import example
from tracetool.analysis import Analysis, Known, Verdict
from tracetool.report import ktap
from tracetool.rules import RULES

RESULT = re.compile(r"(ok|not ok) ([0-9]+)(?: ([^#]+?))?(?: # ?(?:(SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b ?)?(.*))?")


@dataclass
class Result:
    ok: bool
    name: str
    directive: str | None
    why: str
    diagnostics: list[str]
    subtests: list[Result] = field(default_factory=list)


def parsed(lines: Iterator[str], indent: str = "") -> list[Result]:
    """The tests of one level, from after its version line on; asserts what the specification asks of them."""
    plan = next(lines)
    assert re.fullmatch(rf"{indent}1\.\.[0-9]+", plan), plan
    wanted = int(plan.partition("..")[2])
    results: list[Result] = []
    diagnostics: list[str] = []
    subtests: list[Result] = []
    while len(results) < wanted:
        line = next(lines)
        assert line.startswith(indent), line
        line = line.removeprefix(indent)
        if line == "  KTAP version 1":
            subtests = parsed(lines, f"{indent}  ")
        elif line.startswith("#"):
            assert not line.startswith("# Subtest:")
            diagnostics.append(line.removeprefix("# "))
        else:
            match = RESULT.fullmatch(line)
            assert match, line
            assert int(match[2]) == len(results) + 1
            results.append(Result(match[1] == "ok", match[3] or "", match[4], match[5] or "", diagnostics, subtests))
            if any(not each.ok for each in subtests):
                assert not results[-1].ok, "a test fails if a subtest does"
            diagnostics, subtests = [], []
    return results


def read(analysis: Analysis) -> dict[str, Result]:
    lines = iter(ktap.render(analysis).splitlines())
    assert next(lines) == "KTAP version 1"
    results = parsed(lines)
    assert list(lines) == []
    return {each.name: each for each in results}


def test_a_policy_is_a_test_and_a_rule_a_case() -> None:
    tests = read(example.mail())
    assert list(tests) == ["observed", "mapcount", "page-count", "exclusive"]
    assert [case.name for case in tests["observed"].subtests] == list(RULES)


def test_a_certain_defect_is_not_ok_and_says_what_was_found_before() -> None:
    tests = read(example.mail())
    assert [name for name, test in tests.items() if not test.ok] == ["mapcount"]
    case = tests["mapcount"].subtests[0]
    assert not case.ok
    assert case.diagnostics == [
        "certain defect F1: cowlab 116 writes into P0 while the read reference of cowlab 115 (vmsplice) still reads it. [0123456789abcdef]",
        f"remedy: {RULES['missed-cow'].remedy}",
    ]
    assert all(each.ok and not each.diagnostics for each in tests["mapcount"].subtests[1:])


def test_what_the_trace_cannot_tell_is_skipped_with_what_is_missing() -> None:
    verdicts = (Verdict("missed-cow", "observed", "inconclusive", ("forks", "what was lost")), Verdict("wrong-cow", "observed", "clean"))
    test = read(example.mail(verdicts=verdicts))["observed"]
    assert (test.ok, test.directive) == (True, None)
    skipped, clean = test.subtests
    assert (skipped.ok, skipped.directive, skipped.why) == (True, "SKIP", "missing: forks; what was lost")
    assert (clean.ok, clean.directive) == (True, None)


def test_a_policy_of_which_nothing_can_be_told_is_skipped() -> None:
    verdicts = (Verdict("missed-cow", "observed", "inconclusive"), Verdict("wrong-cow", "observed", "inconclusive"))
    test = read(example.mail(verdicts=verdicts))["observed"]
    assert (test.ok, test.directive) == (True, "SKIP")


def test_a_possible_defect_fails_nothing_and_is_told() -> None:
    verdict = Verdict("missed-cow", "mapcount", "inconclusive", ("a release",))
    possible = example.mail(findings=example.findings(example.finding(certainty="possible")), verdicts=(verdict,))
    (case,) = read(possible)["mapcount"].subtests
    assert case.directive == "SKIP"
    assert case.diagnostics[0].startswith("possible defect F1: ")


def test_a_thousand_findings_are_not_all_listed() -> None:
    many = example.mail(findings=example.findings(*(example.finding(i, address=i * 0x4000) for i in range(1000))))
    case = read(many)["mapcount"].subtests[0]
    assert len(case.diagnostics) == 102
    assert case.diagnostics[-2] == "showing 100 of 1,000; --json has all"


def test_what_is_known_is_counted() -> None:
    assert "# Only what is new is told: 3 findings are known from base.json" in ktap.render(example.mail(known=Known("base.json", 3)))


@pytest.mark.parametrize("foreign", ["\nnot ok 1 x", "a\rb", "\x1b[2J", "# SKIP", "Subtest: x", "\u2028", "1..9", "\udcff"])
def test_a_trace_adds_no_lines_of_its_own(foreign: str) -> None:
    hostile = example.hostile(foreign)
    assert [(test.name, test.ok) for test in read(hostile).values()] == [(test.name, test.ok) for test in read(example.mail()).values()]


@settings(max_examples=20)
@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=40))
def test_no_foreign_string_breaks_it(foreign: str) -> None:
    hostile = example.hostile(foreign)
    named = replace(hostile, verdicts=(*hostile.verdicts, Verdict("missed-cow", foreign, "inconclusive", (foreign,))))
    lines = iter(ktap.render(named).split("\n"))
    assert next(lines) == "KTAP version 1"
    parsed(lines)
    assert list(lines) == [""]
