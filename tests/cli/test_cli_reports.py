"""`tracetool replay --format`, `--baseline` and `--bisect`: what CI and `git bisect run` get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from cli.command import Result, run
from conftest import PROJECT, fixture_path
from report import example
from tracetool.analysis import Verdict
from tracetool.cli.bisect import judged

MAIL = fixture_path("mail-6.1.dat")
#: Of this recording, `mapcount` leaks for certain; what was recorded, and the other policies, are clean.
BAD = ("--policy", "mapcount")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline of the recording under mapcount, and of what was recorded."""
    path = tmp_path_factory.mktemp("base") / "base.json"
    command = [sys.executable, "-c", "from tracetool.cli import main; main()", "replay", str(MAIL), *BAD, "--json", str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(PROJECT), str(PROJECT / "parsers")))}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return path


def less(base: Path, folder: Path, rule: str) -> Path:
    """The baseline without what it says of a rule."""
    document = json.loads(base.read_text())
    document["findings"] = [found for found in document["findings"] if found["rule"] != rule]
    path = folder / "less.json"
    path.write_text(json.dumps(document))
    return path


# --- formats --------------------------------------------------------------------------------------------------------------------------


def test_junit_fails_where_a_policy_is_unsafe(capfd: pytest.CaptureFixture[str]) -> None:
    root = ET.fromstring(run(capfd, "replay", MAIL, *BAD, "--format", "junit").out)
    failed = [case.attrib for case in root.iter("testcase") if case.find("failure") is not None]
    assert failed == [{"classname": "tracetool.mapcount", "name": "missed-cow"}]


def test_sarif_has_a_result_for_each_finding(capfd: pytest.CaptureFixture[str]) -> None:
    (log,) = json.loads(run(capfd, "replay", MAIL, *BAD, "--format", "sarif").out)["runs"]
    assert sorted((r["ruleId"], r["properties"]["policy"], r["level"]) for r in log["results"]) == [
        ("missed-cow", "mapcount", "error"),
        ("wrong-cow", "mapcount", "note"),
        ("wrong-cow", "observed", "note"),
    ]
    assert len({r["partialFingerprints"]["tracetool/v1"] for r in log["results"]}) == 3


def test_ktap_is_what_the_kernel_s_tests_say(capfd: pytest.CaptureFixture[str]) -> None:
    lines = run(capfd, "replay", MAIL, *BAD, "--format", "ktap").out.splitlines()
    assert lines[:2] == ["KTAP version 1", "1..2"]
    assert [line for line in lines if "ok " in line and "#" not in line] == [
        "  ok 1 missed-cow", "  ok 2 wrong-cow", "  ok 3 cross-write", "  ok 4 fork-after-pin", "  ok 5 unnecessary-copy", "ok 1 observed",
        "  not ok 1 missed-cow", "  ok 2 wrong-cow", "  ok 3 cross-write", "  ok 4 fork-after-pin", "  ok 5 unnecessary-copy",
        "not ok 2 mapcount",
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["text", "junit", "sarif", "ktap"])
def test_a_report_goes_to_a_file_as_it_goes_to_the_terminal(form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report"
    shown = run(capfd, "replay", MAIL, *BAD, "--format", form).out
    written = run(capfd, "replay", MAIL, *BAD, "--format", form, "-o", path)
    assert (written.code, written.out) == (0, "")
    assert path.read_text() == shown
    assert run(capfd, "replay", MAIL, "--format", form, "--output", path).code == 1
    assert path.read_text() == shown
    assert run(capfd, "replay", MAIL, *BAD, "--format", form, "-o", path, "--force").code == 0


def test_json_and_a_report_go_side_by_side(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.xml"
    result = run(capfd, "replay", MAIL, *BAD, "--format", "junit", "-o", path, "--json", "-")
    assert json.loads(result.out)["schema_version"] == 1
    assert path.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "junit", "--json", "-"], "standard output is for one of JSON and junit"),
        (["--format", "xml"], "'xml' is not one of"),
        (["--json", "same", "-o", "same"], "would be written twice"),
        (["--html", "same", "--json", "same"], "would be written twice"),
        (["--bisect", "any", "--fail-on", "any"], "exclude each other"),
        (["--bisect", "missed-cows"], "did you mean 'missed-cow'"),
        (["--bisect", ","], "--bisect names no rule"),
        (["--bisect", "any", "--policy", "mapcounts"], "did you mean 'mapcount'"),
        (["--bisect", "any", "--redact"], "--redact is for the HTML report"),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_wrong(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(capfd, "replay", MAIL, *arguments)
    assert result.code == 2
    assert said in result.err
    assert list(tmp_path.iterdir()) == []


# --- baselines ------------------------------------------------------------------------------------------------------------------------


def compared(capfd: pytest.CaptureFixture[str], baseline: Path, *arguments: Any) -> Result:
    return run(capfd, "replay", MAIL, *BAD, "--baseline", baseline, *arguments)


def test_a_second_run_finds_nothing_new(base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = " ".join(compared(capfd, base).out.split())
    assert "No new findings: every rule is clean" in told
    assert f"3 findings are known from {base} and left out" in told.replace("base /", "base/")
    document = json.loads(compared(capfd, base, "--json", "-").out)
    assert document["findings"] == []
    assert document["baseline"] == {"path": str(base), "known": 3}


def test_another_recording_of_the_same_program_finds_nothing_new(base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for kernel in ("5.10", "6.12", "7.2"):
        result = run(capfd, "replay", fixture_path(f"mail-{kernel}.dat"), *BAD, "--baseline", base, "--fail-on", "any")
        assert (kernel, result.code) == (kernel, 0)
        assert "No new findings" in result.out


def test_what_is_new_is_told_in_every_format(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    older = less(base, tmp_path, "missed-cow")
    text = compared(capfd, older).out
    assert "\n1 new finding\n" in text
    assert "missed-cow-1@mapcount" in text
    assert "wrong-cow-1@" not in text
    assert "not ok 1 missed-cow" in compared(capfd, older, "--format", "ktap").out
    (log,) = json.loads(compared(capfd, older, "--format", "sarif").out)["runs"]
    assert [(r["ruleId"], r["baselineState"]) for r in log["results"]] == [("missed-cow", "new")]
    assert ET.fromstring(compared(capfd, older, "--format", "junit").out).attrib["failures"] == "1"
    assert ET.fromstring(compared(capfd, base, "--format", "junit").out).attrib["failures"] == "0"
    assert "not ok" not in compared(capfd, base, "--format", "ktap").out


def test_fail_on_and_bisect_look_at_what_is_new(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    older = less(base, tmp_path, "missed-cow")
    assert compared(capfd, base, "--fail-on", "any").code == 0
    assert compared(capfd, older, "--fail-on", "any").code == 3
    good = compared(capfd, base, "--bisect", "any")
    assert good.code == 0
    assert "(but for 3 known)" in good.err
    assert compared(capfd, older, "--bisect", "any").code == 1


def test_a_bad_baseline_is_told_before_the_trace_is_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "base.json"
    path.write_text('{"findings": [}')
    result = run(capfd, "replay", tmp_path / "no-such-trace.dat", "--baseline", path)
    assert result.code == 1
    assert result.err.splitlines() == [
        f"error: {path}: is no JSON: Expecting value (at byte 14)",
        "hint: --baseline takes what `tracetool replay TRACE --json FILE` wrote",
    ]


# --- bisect ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        pytest.param(["any"], 0, "bisect: good (exit 0): clean: missed-cow under observed, ", id="what was recorded is clean"),
        pytest.param(["any", *BAD], 1, "bisect: bad (exit 1): defect: missed-cow under mapcount", id="a policy that is named leaks"),
        pytest.param(["any", "--policy", "all"], 1, "bisect: bad (exit 1): defect: missed-cow under mapcount", id="all are named"),
        pytest.param(["wrong-cow,cross-write", *BAD], 0, "bisect: good (exit 0): clean: wrong-cow under observed, ", id="other rules"),
        pytest.param(["any", "--policy", "none"], 0, "bisect: good (exit 0)", id="no policy"),
    ],
)
def test_bisect_answers_by_its_exit_code_and_says_why(arguments: list[str], code: int, why: str, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "replay", MAIL, "--bisect", *arguments)
    assert result.code == code
    (line,) = result.err.splitlines()
    assert line.startswith(why)


@pytest.mark.parametrize(
    ("verdicts", "code", "why"),
    [
        pytest.param({("missed-cow", "observed"): "clean"}, 0, "good (exit 0): clean: missed-cow under observed", id="clean"),
        pytest.param(
            {("missed-cow", "observed"): "inconclusive", ("missed-cow", "mapcount"): "defect"},
            1, "bad (exit 1): defect: missed-cow under mapcount", id="a defect outweighs what cannot be told",
        ),
        pytest.param(
            {("missed-cow", "observed"): "clean", ("missed-cow", "mapcount"): "inconclusive"},
            125, "skip (exit 125): inconclusive: missed-cow under mapcount; missing: forks", id="what cannot be told outweighs clean",
        ),
        pytest.param(
            {("wrong-cow", "observed"): "defect", ("missed-cow", "exclusive"): "defect", ("missed-cow", "observed"): "clean"},
            0, "good (exit 0): clean: missed-cow under observed", id="other rules and policies are not looked at",
        ),
        pytest.param({}, 125, "skip (exit 125): there is no verdict of missed-cow", id="nothing was judged"),
    ],
)  # fmt: skip
def test_any_defect_is_bad_else_anything_open_is_skipped(verdicts: dict[tuple[str, str], Any], code: int, why: str) -> None:
    made = tuple(Verdict(*key, said, ("forks",) if said == "inconclusive" else ()) for key, said in verdicts.items())
    assert judged(example.mail(verdicts=made), ["missed-cow"], ["observed", "mapcount"]) == (code, f"bisect: {why}")


def test_a_trace_with_losses_cannot_be_called_good(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.dat"
    cut.write_bytes(MAIL.read_bytes()[:20_479])
    result = run(capfd, "replay", cut, "--bisect", "any")
    assert result.code == 125
    assert "bisect: skip (exit 125): inconclusive: missed-cow under observed, " in result.err
    assert "missing: the events that were lost" in result.err


def test_a_trace_that_cannot_be_read_cannot_be_tested(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    empty, cut, missing = tmp_path / "empty.dat", tmp_path / "cut.dat", tmp_path / "missing.dat"
    empty.touch()
    cut.write_bytes(MAIL.read_bytes()[:9_000])
    for path in (empty, cut, missing, tmp_path):
        plain = run(capfd, "replay", path)
        bisected = run(capfd, "replay", path, "--bisect", "any")
        assert (plain.code, bisected.code) == (1, 125)
        assert bisected.err == plain.err


def test_whatever_else_goes_wrong_is_not_called_bad(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    existing = run(capfd, "replay", MAIL, "--bisect", "any", "--json", base)
    assert existing.code == 125
    assert "exists already" in existing.err
    assert run(capfd, "replay", MAIL, "--bisect", "any", "--baseline", MAIL).code == 125

    def crash(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("tracetool.analysing.analyse", crash)
    crashed = run(capfd, "replay", MAIL, "--bisect", "any")
    assert crashed.code == 125
    assert "RuntimeError: a bug" in crashed.err


def test_nobody_needs_to_read_the_report() -> None:
    """A pipe that is closed is no answer: the exit code is."""
    code = "import sys\nfrom tracetool.cli import main\nsys.argv = ['tracetool', *sys.argv[1:]]\nmain()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(PROJECT), str(PROJECT / "parsers")))}
    for arguments, expected in ((BAD, 1), ((), 0)):
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-c", code, "replay", str(MAIL), *arguments, "--bisect", "any"]
        done = subprocess.run(command, env=environment, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
        os.close(write)
        assert done.returncode == expected, done.stderr
