"""What a user sees when something cannot be read or done: one line `error:`, a `hint:`, an exit code, no traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.command import run
from conftest import fixture_path
from tracetool.policies import POLICIES

MAIL = fixture_path("mail-6.1.dat")


def test_input_that_cannot_be_read_is_told_in_one_line_with_a_hint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    empty, text, cut = tmp_path / "empty.dat", tmp_path / "text.dat", tmp_path / "cut.dat"
    empty.touch()
    text.write_text("hello\n")
    cut.write_bytes(MAIL.read_bytes()[:9_000])
    told = {
        tmp_path / "missing.dat": "No such file",
        tmp_path: "directory",
        empty: "empty",
        text: "text file",
        cut: "past the end",
    }
    for path, what in told.items():
        result = run(capfd, "replay", path)
        lines = result.err.splitlines()
        assert result.code == 1
        assert result.out == ""
        assert len(lines) == 2, result.err
        assert lines[0].startswith(f"error: {path}: ")
        assert what in lines[0]
        assert lines[1].startswith("hint: ")


@pytest.mark.parametrize("size", [0, 1, 9, 10, 100, 5_000, 9_000])
def test_a_truncated_trace_names_the_byte(size: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.dat"
    cut.write_bytes(MAIL.read_bytes()[:size])
    result = run(capfd, "replay", cut)
    assert result.code == 1
    assert "Traceback" not in result.err
    assert "byte" in result.err.splitlines()[0] or "empty" in result.err.splitlines()[0]


@pytest.mark.parametrize("size", [12_288, 20_479])
def test_a_trace_that_is_cut_inside_its_events_is_read_unless_strict(size: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.dat"
    cut.write_bytes(MAIL.read_bytes()[:size])
    assert run(capfd, "info", "--check", cut).code == 3
    result = run(capfd, "replay", "--strict", cut)
    assert result.code == 1
    assert "(at byte" in result.err


def test_a_file_that_is_no_trace_names_the_byte(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(bytes(range(256)) * 8)
    result = run(capfd, "info", other)
    assert result.code == 1
    assert "at byte 0" in result.err


def test_an_unknown_policy_lists_those_that_there_are(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "replay", MAIL, "--policy", "pagecount")
    assert result.code == 2
    assert "did you mean 'page-count'?" in result.err
    listed = result.err[result.err.index("there is:") :]
    for name in (*POLICIES, "kernel", "exclusive@VERSION", "linux-VERSION"):
        assert name in listed


def test_an_unknown_rule_lists_those_that_there_are(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "replay", MAIL, "--fail-on", "missed")
    assert result.code == 2
    assert "missed-cow" in result.err


def test_an_unknown_event_names_the_nearest(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "events", MAIL, "--event", "cow_falt")
    assert result.code == 1
    assert "did you mean 'cow_fault'?" in result.err


def test_a_mark_that_nobody_wrote_lists_some_that_there_are(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "pages", MAIL, "--at-mark", "nothing*")
    assert result.code == 1
    assert "ckpt-begin mail born pid=115" in result.err


def test_a_process_that_is_not_there_lists_those_that_are(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "pages", MAIL, "--at", 6_229_000_000, "--pid", 4)
    assert result.code == 1
    assert "115" in result.err
    assert "116" in result.err


def test_a_moment_before_the_trace_says_when_it_was_recorded(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "pages", MAIL, "--at", 1)
    assert result.code == 1
    assert "6200671677" in result.err


def test_pages_wants_exactly_one_moment(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "pages", MAIL).code == 2
    assert run(capfd, "pages", MAIL, "--at", 1, "--at-mark", "*").code == 2


def test_files_are_not_overwritten_unasked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.html"
    report.write_text("mine")
    result = run(capfd, "replay", MAIL, "--html", report)
    assert result.code == 1
    assert "--force" in result.err
    assert report.read_text() == "mine"


def test_a_folder_with_files_is_not_written_into_unasked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    result = run(capfd, "replay", MAIL, "--out", tmp_path)
    assert result.code == 1
    assert "--force" in result.err


def test_a_folder_that_is_missing_is_told_before_the_work(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "replay", MAIL, "--json", tmp_path / "none" / "x.json")
    assert result.code == 2
    assert "no folder" in result.err


def test_control_characters_of_a_path_do_not_reach_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "replay", tmp_path / "a\x1b[2Jb.dat")
    assert result.code == 1
    assert "\x1b" not in result.err
    assert "\\x1b[2J" in result.err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import subprocess
    import sys

    monkeypatch.delenv("TRACETOOL_DEBUG", raising=False)
    command = [sys.executable, "-c", "from tracetool.cli import main; main()", "--debug", "info", str(tmp_path / "missing.dat")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_a_reader_that_has_had_enough_is_no_error() -> None:
    import subprocess
    import sys

    command = f"{sys.executable} -c 'from tracetool.cli import main; main()' events {MAIL} --format csv | head -1"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, env={**os.environ})
    assert result.stdout.startswith("ts,cpu,tid,comm,event,fields")
    assert result.stderr == ""
