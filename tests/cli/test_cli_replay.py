"""`tracetool replay` on the recording of the mail's example."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import polars as pl
import pytest

from cli.command import run
from conftest import fixture_path

MAIL = fixture_path("mail-6.1.dat")


def test_one_screen_has_the_answer_the_worst_and_what_to_do_next(capfd: pytest.CaptureFixture[str]) -> None:
    out = run(capfd, "replay", MAIL).out
    assert len(out.splitlines()) <= 40
    assert max(len(line) for line in out.splitlines() if not line.startswith("  tracetool ")) <= 100
    told = " ".join(out.split())
    assert "1,258 events" in told
    assert "mapcount would have been unsafe with the same accesses" in told
    assert re.search(r"^mapcount +✖ defect +1 / 0 ", out, re.MULTILINE)
    assert re.search(r"^exclusive +✔ clean +0 / 0 ", out, re.MULTILINE)
    assert "✖ missed-cow-1@mapcount certain defect" in told
    assert "\x1b" not in out


def test_each_command_of_the_screen_runs(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = run(capfd, "replay", MAIL, "--policy", "mapcount").out
    commands = [shlex.split(line, comments=True) for line in out.splitlines() if line.startswith("  tracetool ")]
    assert [command[1] for command in commands] == ["explain", "replay", "replay", "history"]
    monkeypatch.chdir(tmp_path)
    for command in commands:
        assert run(capfd, *command[1:]).code == 0, command


def test_a_single_policy_is_told_step_by_step_with_its_records(capfd: pytest.CaptureFixture[str]) -> None:
    out = run(capfd, "replay", MAIL, "--policy", "mapcount").out
    assert len(out.splitlines()) <= 40
    told = " ".join(out.split())
    assert "A takes a read reference to P0 (vmsplice). [gup_fast_done]" in told
    assert re.search(r"B writes P0 in place: .* \[cow_fault\] <- UNSAFE \(missed-cow, certain\)", told)
    assert "A's reference to P0 is released. [pipe_release]" in told


def test_the_full_report_tells_the_story_of_the_mail(capfd: pytest.CaptureFixture[str]) -> None:
    out = run(capfd, "replay", MAIL, "--full").out
    assert "A is cowlab 115, B is cowlab 116" in out
    story = out[out.index("observed:") :]
    for act in ("A takes a read reference to P0 (vmsplice)", "A writes: P0 is copied to P1", "B writes: P0 is copied to P2"):
        assert act in " ".join(story.split())
    unsafe = " ".join(out[out.index("\nmapcount:") :].split())
    assert "B writes P0 in place" in unsafe
    assert "A's reference reads what B wrote into P0" in unsafe
    assert "page-count, page-count-5.18, exclusive: as observed." in out
    told = " ".join(out.split())
    assert re.search(r"The kernel's own policy: exclusive@6\.1 decides (\d+) of \1 decisions as the traced kernel did", told)
    assert "mainline of 6.1.0-53-amd64 has it, too." in told


def test_full_is_for_the_text(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "replay", MAIL, "--full", "--format", "junit")
    assert result.code == 2
    assert "leave it out" in result.err


def test_what_is_written_to_a_file_is_what_a_pipe_gets(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.txt"
    run(capfd, "replay", MAIL, "-o", report)
    assert report.read_text() == run(capfd, "replay", MAIL).out


def test_json_has_the_schema_of_the_documentation(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "replay", MAIL, "--json", "-")
    document = json.loads(result.out)
    assert document["schema_version"] == 1
    assert document["trace"]["format"] == "trace.dat v7"
    assert document["trace"]["kernel"] == "6.1.0-53-amd64"
    assert document["trace"]["events"] == 1258
    assert document["coverage"]["lost_events"] == 0
    assert [p["name"] for p in document["policies"]] == ["mapcount", "forced-cow", "page-count", "page-count-5.18", "exclusive"]
    assert (document["kernel"]["policy"], document["kernel"]["release"]) == ("exclusive@6.1", "6.1.0-53-amd64")
    assert set(document["observed"]) == {"cow_faults", "copies", "reuses", "early_copies", "zero_fills", "unshares", "splits"}
    found = [f for f in document["findings"] if f["severity"] == "defect"]
    assert [(f["rule"], f["policy"], f["certainty"], f["pid"], f["by_pid"]) for f in found] == [
        ("missed-cow", "mapcount", "certain", 115, 116)
    ]
    # The reference, B's fault and the release, by the records of the trace.
    assert [e["event"] for e in found[0]["evidence"]] == ["gup_fast_done", "cow_fault", "pipe_release"]


def test_a_policy_alone_is_replayed_alone(capfd: pytest.CaptureFixture[str]) -> None:
    document = json.loads(run(capfd, "replay", MAIL, "--policy", "page-count", "--json", "-").out)
    assert [p["name"] for p in document["policies"]] == ["page-count"]
    assert {f["policy"] for f in document["findings"]} <= {"observed", "page-count"}


def test_policies_of_versions_and_of_the_recording_itself(capfd: pytest.CaptureFixture[str]) -> None:
    document = json.loads(run(capfd, "replay", MAIL, "--policy", "exclusive@6.12", "--policy", "kernel", "--json", "-").out)
    assert [p["name"] for p in document["policies"]] == ["exclusive@6.12", "kernel"]
    of_kernel = document["policies"][1]
    assert of_kernel["checked_on"] == "as exclusive@6.1: 6.1"
    assert of_kernel["agreement"] == document["kernel"]["agreement"]


def test_no_policy_leaves_the_observed_replay(capfd: pytest.CaptureFixture[str]) -> None:
    document = json.loads(run(capfd, "replay", MAIL, "--policy", "none", "--json", "-").out)
    assert document["policies"] == []
    assert document["observed"]["cow_faults"] > 0


def test_fail_on_looks_at_what_was_recorded_and_at_policies_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "replay", MAIL, "--fail-on", "any").code == 0
    assert run(capfd, "replay", MAIL, "--policy", "mapcount", "--fail-on", "missed-cow").code == 3
    assert run(capfd, "replay", MAIL, "--policy", "mapcount", "--fail-on", "wrong-cow").code == 0
    assert run(capfd, "replay", MAIL, "--policy", "exclusive", "--fail-on", "missed-cow,wrong-cow").code == 0


def test_out_writes_every_table_as_parquet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tables"
    assert run(capfd, "replay", MAIL, "--out", folder).code == 0
    for replay in ("observed", "mapcount", "forced-cow", "page-count", "page-count-5.18", "exclusive"):
        for table in ("ownership", "references", "faults"):
            assert pl.read_parquet(folder / replay / f"{table}.parquet").height
    assert pl.read_parquet(folder / "memory_events.parquet").height
    assert pl.read_parquet(folder / "processes.parquet").height


def test_html_is_one_file_that_names_its_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.html"
    result = run(capfd, "replay", MAIL, "--html", report)
    assert result.code == 0
    assert f"report written to {report}" in result.err
    page = report.read_text(encoding="utf-8")
    assert "tracetool replay" in page
    assert len(page) < 2_500_000
