"""A finding as text, as a mail and as JSON: what every one of them says, and what a mailing list can take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

import tracetool
from conftest import fixture_path
from engine.build import BASE, Machine, address
from handmade import PATH, protected_while_pinned, trace_of
from tracetool.explaining import Explanation, explain
from tracetool.judging import found, replayed
from tracetool.policies import POLICIES
from tracetool.report import explain as report
from tracetool.synth import Plan, synthesise

A, B = 10, 11
P0, P1, P2 = 0x50, 0x51, 0x52
HOSTILE: Final = "a\x1b[2J\r\nFrom: \u202e\u00e9"


def mail(names: dict[int, str] | None = None) -> Explanation:
    """The mail's example under mapcount."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    b = m.fork(a, B, [(BASE, 1)])
    m.vmsplice(a, address(0), P0)
    m.cow(a, address(0), P0, P1)
    m.cow(b, address(0), P0, P2)
    m.pipe_release(A, P0)
    return explain(trace_of(m, names), "missed-cow-1@mapcount")


def one_line(text: str) -> str:
    return " ".join(text.split())


def fits(text: str, width: int) -> None:
    """Lines of that many columns, with nothing at their end, in a text that ends in one line break."""
    lines = text.split("\n")
    assert lines[-1] == ""
    assert lines[-2] != ""
    assert [line for line in lines if len(line) > width] == []
    assert [line for line in lines if line != line.rstrip()] == []


def test_text_tells_all_of_it() -> None:
    text = one_line(report.text(mail({A: "alpha"})))
    for said in (
        "missed-cow-1@mapcount: certain missed-cow under mapcount (defect)",
        f"A is alpha {A}",
        f"P0 is frame {P0:#x}",
        "A takes a read reference to P0 (vmsplice).",
        "A writes: P0 is copied to P1",
        "B writes P0 in place: nobody else maps P0, though A's reference still reads it. <- UNSAFE from here",
        "B writes: P0 is copied to P2",
        "A holds a read reference to P0 since",
        "A's reference reads what B wrote into P0",
        "Certain",
        "A kernel that breaks COW before it takes a read reference (5.8), or looks at references before it reuses a page",
        f"start={address(0):#x} nr_pages=0x1",
        "pipe_release at",
    ):
        assert said in text, said
    fits(report.text(mail()), 80)


def test_times_count_from_the_story_s_start_which_is_told_once() -> None:
    told = mail()
    begin = told.story.steps[0].ts
    head = report.text(told).split("\n\n")[0]
    assert one_line(head).count(f"{begin} ns") == 1
    assert "+0.000 µs" in report.text(told)
    taken = next(step.ts for step in told.story.steps if step.act == "reference")
    assert f"+{(taken - begin) / 1000:.3f} µs  A takes" in report.text(told)


def test_the_timeline_says_who_maps_what() -> None:
    text = report.text(mail())
    rows = text[text.index("Who maps what") :].split("\n\n")[0].splitlines()[1:]
    cells = [row.split("  <-")[0].split() for row in rows]
    assert cells[0] == ["A", "B", "references"]
    assert [row[2:] for row in cells[1:]] == [
        ["P0", ".", "."], ["P0", "P0", "."], ["P0", "P0", "A:P0"], ["P1", "P0", "A:P0"], ["P1", "P0", "A:P0"], ["P1", "P0", "."],
    ]  # fmt: skip
    assert [("UNSAFE" in row) for row in rows[1:]] == [False, False, False, False, True, False]


def test_what_is_possible_says_why_and_what_would_settle_it() -> None:
    text = one_line(report.text(explain(trace_of(protected_while_pinned()), "wrong-cow-1@page-count")))
    assert "Possible: the trace does not prove it." in text
    assert f"What would settle it: A store of A to {address(0):#x}" in text
    assert "The same, as far as the trace shows." in text


def test_a_mail_is_ascii_in_72_columns_with_a_subject_first() -> None:
    mailed = report.mail(mail({A: "alpha"}))
    fits(mailed, 72)
    assert mailed.isascii()
    first, second = mailed.split("\n")[:2]
    assert first == "Subject: missed-cow@mapcount: A's reference reads what B wrote into P0"
    assert second == ""
    for said in ("6.1.0-test", "mapcount", "missed-cow-1@mapcount", "+0.000 us", "gup_fast at", "pte="):
        assert said in mailed, said


def test_a_mail_names_the_trace_without_its_folder() -> None:
    mailed, text = report.mail(mail()), report.text(mail())
    assert "hand-made" in mailed
    assert "folder" not in mailed
    assert PATH in text


def test_foreign_names_reach_neither_a_terminal_nor_a_mail_as_they_are() -> None:
    told = mail({A: HOSTILE, B: HOSTILE})
    text, mailed = report.text(told), report.mail(told)
    for written in (text, mailed):
        assert "\x1b" not in written
        assert "\r" not in written
        assert "\u202e" not in written
        assert "\nFrom:" not in written
        assert "a\\x1b[2J" in written
    assert mailed.isascii()
    fits(mailed, 72)
    assert json.loads(report.to_json(told))["people"]["A"].startswith("a\x1b[2J\r\nFrom:"), "JSON gives what was recorded"


def test_very_long_foreign_texts_are_cut() -> None:
    told = mail({A: "x" * 5000})
    fits(report.mail(told), 72)
    assert len(report.mail(told)) < 60_000


def test_json_has_what_a_program_asks_for() -> None:
    told = mail({A: "alpha"})
    document = json.loads(report.to_json(told))
    assert document["schema_version"] == 1
    assert document["finding"]["id"] == "missed-cow-1@mapcount"
    assert (document["finding"]["from_ns"], document["finding"]["address"]) == (told.from_ns, hex(address(0)))
    assert [step["act"] for step in document["story"]] == ["map", "fork", "reference", "copy", "reuse", "release"]
    assert [record["event"] for record in document["records"]] == [
        "gup_fast", "gup_fast_done", "cow_fault", "cow_fault_done", "pipe_release",
    ]  # fmt: skip
    assert document["records"][0]["fields"]["start"] == hex(address(0))
    assert document["doubts"] == []
    assert document["people"] == {"A": f"alpha {A}", "B": document["people"]["B"]}
    assert any(step["page"] == "P2" for step in document["observed"])


@pytest.mark.parametrize("name", ["mail-5.10.dat", "mail-6.1.dat", "mail-6.12.dat", "mail-7.2.dat", "vmsplice_child-6.1.dat"])
def test_every_finding_of_a_recording_fits(name: str) -> None:
    trace = tracetool.open(fixture_path(name))
    for policy in ("observed", *POLICIES):
        for finding in found(trace, replayed(trace, policy))["id"].to_list():
            told = explain(trace, finding)
            fits(report.mail(told), 72)
            fits(report.text(told), 80)
            assert report.mail(told).isascii()


def test_every_finding_of_a_made_up_trace_fits(tmp_path: Path) -> None:
    synthesise(Plan("random", events=3_000, pages=6, references=0.4, policy="mapcount"), tmp_path / "trace.dat")
    trace = tracetool.open(tmp_path / "trace.dat")
    for policy in ("observed", "page-count", "forced-cow"):
        for finding in found(trace, replayed(trace, policy))["id"].head(8).to_list():
            told = explain(trace, finding)
            fits(report.mail(told), 72)
            fits(report.text(told), 80)
            json.loads(report.to_json(told))
