"""`tracetool explain`: a finding of the mail's example, as a story, a mail and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.command import run
from conftest import fixture_path

MAIL = fixture_path("mail-6.1.dat")
LEAK = "missed-cow-1@mapcount"


def test_the_story_of_the_mail(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "explain", MAIL, LEAK)
    told = " ".join(result.out.split())
    assert result.code == 0
    assert result.err == ""
    assert "A is cowlab 115 and B is cowlab 116" in told
    assert "A's reference reads what B wrote into P0" in told
    # P0 of the truth file.
    assert f"P0 is frame {10653:#x}" in told


def test_as_a_mail(capfd: pytest.CaptureFixture[str]) -> None:
    out = run(capfd, "explain", MAIL, LEAK, "--format", "mail").out
    lines = out.splitlines()
    assert lines[0].startswith("Subject: missed-cow@mapcount: A's reference reads what B wrote into P0")
    assert out.isascii()
    assert max(map(len, lines)) <= 72
    assert [line for line in lines if line != line.rstrip()] == []
    assert "mail-6.1.dat" in out
    assert str(MAIL.parent) not in out


def test_as_json_into_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "finding.json"
    assert run(capfd, "explain", MAIL, LEAK, "--format", "json", "-o", file).code == 0
    document = json.loads(file.read_text())
    replayed = json.loads(run(capfd, "replay", MAIL, "--policy", "mapcount", "--json", "-").out)
    (same,) = [each for each in replayed["findings"] if each["id"] == LEAK]
    assert {key: same[key] for key in ("rule", "policy", "from_ns", "to_ns", "address", "summary")} == {
        key: document["finding"][key] for key in ("rule", "policy", "from_ns", "to_ns", "address", "summary")
    }
    proof = {(record["event"], record["ts"], record["row"]) for record in document["records"]}
    assert {(each["event"], each["ts"], each["row"]) for each in same["evidence"]} <= proof
    second = run(capfd, "explain", MAIL, LEAK, "--format", "json", "-o", file)
    assert second.code == 1
    assert "--force" in second.err


def test_the_policy_may_be_named_apart(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "explain", MAIL, "missed-cow-1", "--policy", "mapcount").out == run(capfd, "explain", MAIL, LEAK).out
    conflict = run(capfd, "explain", MAIL, LEAK, "--policy", "exclusive")
    assert conflict.code == 2
    assert "hint:" in conflict.err


def test_every_id_that_replay_prints_is_understood(capfd: pytest.CaptureFixture[str]) -> None:
    ids = [each["id"] for each in json.loads(run(capfd, "replay", MAIL, "--json", "-").out)["findings"]]
    assert len(ids) > 2
    for name in ids:
        assert run(capfd, "explain", MAIL, name).out.startswith(f"{name}: ")


def test_an_unknown_id_lists_those_that_there_are(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "explain", MAIL, "missed-cow-2@mapcount")
    assert result.code == 1
    assert result.out == ""
    assert f"did you mean '{LEAK}'?" in result.err
    assert "wrong-cow-1@mapcount" in result.err


def test_where_there_is_none_it_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "explain", MAIL, "missed-cow-1@forced-cow")
    assert result.code == 1
    assert "there are none under 'forced-cow'" in result.err
    assert "hint:" in result.err


def test_an_unknown_policy_is_wrong_usage(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "explain", MAIL, "missed-cow-1@mapcuont")
    assert result.code == 2
    assert "did you mean 'mapcount'?" in result.err


def test_help_ends_in_an_example(capfd: pytest.CaptureFixture[str]) -> None:
    assert "Example: tracetool explain" in run(capfd, "explain", "--help").out
