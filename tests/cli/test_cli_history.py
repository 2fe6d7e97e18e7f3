"""`tracetool history`: the life of a frame and of an address of the mail's example."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys

import pytest

from cli.command import run
from conftest import PROJECT, fixture_path
from tracetool.schema import HISTORY

MAIL = fixture_path("mail-6.1.dat")
#: P0 and P2 of the truth file, and B.
P0, P2, B, ADDRESS = 10653, 34407, 116, "0x7f8efcaf0000"


def test_the_story_of_an_address(capfd: pytest.CaptureFixture[str]) -> None:
    out = run(capfd, "history", MAIL, "--pid", B, "--address", ADDRESS).out
    assert re.search(r"^A cowlab 115 +.*P0", out, re.MULTILINE)
    assert f"P0 is frame {P0:#x}" in out
    assert f"P2 is frame {P2:#x}" in out
    lines = out[out.index("\nfrom ") + 1 :].splitlines()
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


def test_what_becomes_unsafe_is_in_the_drawing_and_in_the_story(capfd: pytest.CaptureFixture[str]) -> None:
    """B writes P0 in place (its second step) while A's reference is held."""
    out = run(capfd, "history", MAIL, "--pid", B, "--address", ADDRESS, "--policy", "mapcount").out
    drawing, _, told = out.partition("\n\nfrom ")
    rows = drawing.splitlines()
    unsafe = next(row for row in rows if row.startswith("✖ missed-cow"))
    at = unsafe.index("✖", 1)
    numbers = rows[next(n for n, row in enumerate(rows) if row.startswith("B cowlab 116")) - 1]
    assert numbers[at] == "2"
    held = next(row for row in rows if "reads P0 (vmsplice)" in row)
    assert held.index("╞") < at < held.index("╡")
    assert len(unsafe) - 1 == held.index("╡")
    assert "UNSAFE from here: missed-cow, certain" in told
    calm = run(capfd, "history", MAIL, "--pid", B, "--address", ADDRESS).out
    assert "✖" not in calm


def test_an_output_without_drawings_gets_ascii() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONPATH": os.pathsep.join((str(PROJECT), str(PROJECT / "parsers")))}
    command = [sys.executable, "-c", "from tracetool.cli import main; main()", "history", str(MAIL), "--pid", str(B), "--address", ADDRESS]
    out = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    assert out.isascii()
    assert b"[P0---" in out


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
