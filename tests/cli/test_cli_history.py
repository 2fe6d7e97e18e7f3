"""`tracetool history`: the life of a frame and of an address of the mail's example."""

from __future__ import annotations

import csv
import io
import json

import pytest

from cli.command import run
from conftest import fixture_path
from tracetool.schema import HISTORY

MAIL = fixture_path("mail-6.1.dat")
#: P0 and P2 of the truth file, and B.
P0, P2, B, ADDRESS = 10653, 34407, 116, "0x7f8efcaf0000"


def test_the_story_of_an_address(capfd: pytest.CaptureFixture[str]) -> None:
    lines = run(capfd, "history", MAIL, "--pid", B, "--address", ADDRESS).out.splitlines()
    assert f"maps frame {P0:#x} at {ADDRESS}, shared by fork" in lines[1]
    assert f"writes {ADDRESS}: copied (reference)" in lines[2]
    assert any(f"gets frame {P2:#x} at {ADDRESS}, a copy" in line for line in lines)


@pytest.mark.parametrize("pfn", [str(P0), hex(P0)])
def test_the_life_of_a_frame_as_a_table(pfn: str, capfd: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(run(capfd, "history", MAIL, "--pfn", pfn, "--format", "csv").out)))
    assert list(rows[0]) == list(HISTORY)
    life = [(row["act"], row["pid"]) for row in rows if row["address"] == str(int(ADDRESS, 16))]
    assert life[:3] == [("touch", "115"), ("fork", "116"), ("get", "115")]
    assert {row["pfn"] for row in rows if not row["act"].startswith("decided")} == {str(P0)}


def test_under_a_policy(capfd: pytest.CaptureFixture[str]) -> None:
    out = run(capfd, "history", MAIL, "--pid", B, "--address", ADDRESS, "--policy", "mapcount", "--format", "jsonl").out
    acts = [json.loads(line)["act"] for line in out.splitlines()]
    assert acts[:2] == ["fork", "decided-reuse"]


@pytest.mark.parametrize("asked", [[], ["--pid", "115"], ["--address", ADDRESS]])
def test_half_a_question_is_refused(asked: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "history", MAIL, *asked)
    assert result.code == 2
    assert "--pfn PFN" in result.err


def test_what_is_not_known_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "history", MAIL, "--pid", 7, "--address", "0x1000")
    assert result.code == 1
    assert "nothing is known of address 0x1000, process 7" in result.err


def test_no_number_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "history", MAIL, "--pfn", "frame")
    assert result.code == 2
    assert "'frame' is no number" in result.err
