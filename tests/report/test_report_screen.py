"""The report for a terminal in one screen."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from report import example
from tracetool.analysis import Analysis, Coverage, Known, Verdict
from tracetool.report import screen, terminal


def lines(analysis: Analysis, width: int | None = None) -> list[str]:
    return screen.render(analysis, width).splitlines()


def flowing(analysis: Analysis) -> str:
    return " ".join(screen.render(analysis).split())


def crowded() -> Analysis:
    """Many policies, notes, causes, and long sentences."""
    found = example.mail()
    policies = tuple(replace(found.policies[0], name=f"policy-{n}") for n in range(30))
    rows = [
        example.finding(n, pid=n, via="io_uring", call_site=f"{n:03x}", policy=f"policy-{n % 30}", summary="it is long " * 40)
        for n in range(60)
    ]
    notes = tuple(f"note {n} of what the trace lacks, told at some length" for n in range(20))
    verdicts = tuple(Verdict("missed-cow", f"policy-{n}", "defect") for n in range(30))
    return replace(
        found, policies=policies, findings=example.findings(*rows), coverage=Coverage(None, 5_000, {"mystery": 3}, notes), verdicts=verdicts
    )


def odd() -> dict[str, Analysis]:
    found = example.mail()
    lacking = (Verdict("missed-cow", "observed", "inconclusive", ("forks", "references older than the trace")),)
    return {
        "mail": found,
        "one policy": replace(found, policies=found.policies[:1], stories=found.stories[:2]),
        "nothing": example.nothing(),
        "crowded": crowded(),
        "cannot tell": example.mail(verdicts=lacking, findings=example.findings(), coverage=Coverage(7, 0)),
        "a long story": replace(found, policies=(), stories=(replace(found.stories[0], steps=found.stories[0].steps * 9),)),
    }


@pytest.mark.parametrize("name", odd())
def test_it_is_one_screen(name: str) -> None:
    told = lines(odd()[name])
    assert len(told) <= 40
    assert max(map(cell_len, (line for line in told if not line.startswith("  tracetool ")))) <= 100


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("name", odd())
def test_it_keeps_within_the_width(name: str, width: int) -> None:
    told = lines(odd()[name], width)
    assert max(map(cell_len, (line for line in told if not line.startswith("  tracetool ")))) <= width
    assert len(told) <= (44 if width >= 80 else 90)


def test_a_row_of_the_table_has_the_verdict_the_defects_and_the_costs() -> None:
    found = example.mail(observed_peak=16)
    row = {line.split()[0]: line.split()[1:] for line in lines(found) if re.match(r"[\w-]+ +[✔✖▲] ", line)}
    assert row["observed"] == ["✔", "clean", "0", "/", "0", "3", "-", "-", "-", "64", "KiB"]
    assert row["mapcount"] == ["✖", "defect", "1", "/", "0", "2", "0", "0", "0", "68", "KiB"]
    assert row["page-count"] == ["✔", "clean", "0", "/", "0", "3", "1", "4", "KiB", "2.00", "µs", "72", "KiB"]
    assert "its time is assumed" in flowing(found)


def test_assumed_and_measured_times_are_told_apart() -> None:
    found = example.mail()
    told = flowing(replace(found, policies=(*found.policies[:2], replace(found.policies[2], time="measured"))))
    assert "2.00 µs assumed" in told
    assert "2.00 µs measured" in told


def test_what_is_only_possible_is_inconclusive() -> None:
    found = example.mail(findings=example.findings(example.finding(certainty="possible")))
    told = lines(replace(found, verdicts=tuple(replace(v, verdict="clean") for v in found.verdicts)))
    assert any(re.match(r"mapcount +▲ inconclusive +0 / 1 ", line) for line in told)
    assert any("▲ F1  possible defect" in line for line in told)


def test_the_worst_of_each_cause_is_shown_and_the_rest_counted() -> None:
    same = [example.finding(n, pid=100 + n, policy=policy) for n, policy in enumerate(("mapcount", "page-count", "exclusive"))]
    other = [example.finding(10 + n, call_site=f"0{n}0") for n in range(9)]
    told = flowing(example.mail(findings=example.findings(*same, *other)))
    assert "12 findings of 10 causes" in told
    assert "2 more like it, under page-count, exclusive" in told
    shown = len(re.findall(r"✖ F\d+", told))
    assert 1 <= shown <= 5
    assert f"and {10 - shown} more causes: tracetool replay --full" in told


def test_coverage_is_two_lines_and_says_how_much_more_there_is() -> None:
    told = lines(crowded())
    begin = next(n for n, line in enumerate(told) if line.startswith("Coverage: "))
    end = told.index("", begin)
    assert end - begin <= 2
    assert re.search(r"and \d+ more \(--full\)", " ".join(told[begin:end]))
    assert "Coverage: no events lost." in flowing(example.mail())


def test_many_policies_are_counted() -> None:
    assert "22 more policies: --full" in flowing(crowded())


def test_a_long_story_is_told_around_the_unsafe_step() -> None:
    found = example.mail()
    story = found.stories[1]
    before = tuple(replace(story.steps[0], text=f"A touches it again, {n}.") for n in range(30))
    told = flowing(replace(found, policies=found.policies[:1], stories=(found.stories[0], replace(story, steps=(*before, *story.steps)))))
    assert "<- UNSAFE (missed-cow, certain)" in told
    assert re.search(r"and \d+ more steps: --full", told)


def test_an_empty_result_says_why_and_shows_no_table() -> None:
    told = flowing(example.nothing())
    assert "No COW fault in this trace" in told
    assert "No findings: every rule is clean" in told
    assert "policy verdict" not in told


def test_what_is_known_is_said() -> None:
    told = flowing(example.mail(known=Known("base.json", 3)))
    assert "1 new finding" in told
    assert "3 findings are known from base.json and left out" in told


def test_the_next_commands_can_be_pasted() -> None:
    found = example.mail()
    told = lines(replace(found, trace=replace(found.trace, path="my traces/" + "x" * 120 + ".dat")))
    assert f"  tracetool explain 'my traces/{'x' * 120}.dat' F1" in told
    assert any(
        line.startswith("  tracetool history ") and line.endswith(f"--address {example.ADDRESS:#x} --policy mapcount") for line in told
    )


def test_a_pipe_is_not_asked_for_again() -> None:
    found = example.mail()
    assert "tracetool explain TRACE F1" in flowing(replace(found, trace=replace(found.trace, path="-")))


@pytest.mark.parametrize("foreign", ["[red]x[/red]", "[link=file:///]", "\x1b[31m", "a\rb", ":smile:", "\u202e"])
def test_markup_and_control_characters_are_shown_not_obeyed(foreign: str) -> None:
    shown = foreign if foreign.isprintable() else foreign.encode("unicode_escape").decode()
    told = screen.render(example.hostile(foreign))
    assert told.startswith(shown)
    assert all(line.isprintable() for line in told.splitlines())
    assert "\x1b[31m" not in screen.render(example.hostile(foreign), color=True).replace("\x1b[1;31m", "")


@settings(max_examples=15)
@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=60))
def test_no_foreign_string_breaks_the_screen(foreign: str) -> None:
    assert all(line.isprintable() for line in screen.render(example.hostile(foreign)).split("\n"))


def test_colour_adds_codes_and_nothing_else() -> None:
    coloured = screen.render(example.mail(), color=True)
    assert "\x1b[1;31m" in coloured
    bare = [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", coloured).splitlines()]
    assert bare == lines(example.mail())


def test_in_ascii_it_is_as_wide() -> None:
    told = screen.render(example.mail(), ascii_only=True)
    assert told.isascii()
    assert list(map(len, told.splitlines())) == list(map(len, lines(example.mail())))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "colourful"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_terminals_that_want_them(environment: dict[str, str], colourful: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert terminal.is_colourful(Terminal()) is colourful
    assert not terminal.is_colourful(io.StringIO())


def test_an_encoding_without_drawings_is_noticed() -> None:
    assert terminal.draws(io.TextIOWrapper(io.BytesIO(), "utf-8"))
    assert not terminal.draws(io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert not terminal.draws(io.TextIOWrapper(io.BytesIO(), "latin-1"))


@pytest.mark.parametrize(
    "changes",
    [
        {"coverage": Coverage(7, 0)},
        {"coverage": Coverage(None, 0)},
        {"coverage": Coverage(0, 0, {"mystery": 1})},
        {"verdicts": (Verdict("missed-cow", "observed", "inconclusive"),)},
    ],
)
def test_info_is_named_where_the_trace_cannot_tell(changes: dict[str, Any]) -> None:
    assert "tracetool info traces/mail.dat" in flowing(example.mail(**changes))
    assert "tracetool info" not in flowing(example.mail(coverage=Coverage(0, 0, {}, ("a note",))))
