"""What may be asked for: parameters in their ranges; anything else is a clear error, on the command line, too."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import tracetool
from cli.command import run
from conftest import PROJECT
from synth.watched import names_of, watched
from tracetool.errors import TraceError, UnknownName, Unusable
from tracetool.synth import SCENARIOS, Plan, synthesise
from tracetool_parsers import open_trace


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("seed", -1), ("processes", 1), ("processes", 5000), ("pages", 0), ("pages", 1 << 40), ("write_rate", -0.1), ("write_rate", 1.1),
        ("write_rate", float("nan")), ("references", 2.0), ("losses", 1.0), ("losses", -0.5), ("events", 0), ("events", 100_000_001),
        ("cpus", 0), ("cpus", 65), ("checkpoints", -1), ("checkpoints", 1001),
    ],
)  # fmt: skip
def test_a_parameter_out_of_its_range_is_an_error_that_says_the_range(parameter: str, value: Any) -> None:
    with pytest.raises(Unusable) as refused:
        Plan("random", **{parameter: value})
    assert f"--{parameter.replace('_', '-')} {value}" in str(refused.value)
    assert re.search(r"\d to [\d.]", refused.value.hint or "")


def test_too_many_pages_together_are_refused() -> None:
    with pytest.raises(Unusable, match="2000 processes of 5000 pages"):
        Plan("random", processes=2000, pages=5000)


def test_the_mail_has_two_processes() -> None:
    with pytest.raises(Unusable, match="two processes"):
        Plan("mail", processes=3)


@pytest.mark.parametrize(("scenario", "policy"), [("nail", "exclusive"), ("mail", "exklusive")])
def test_an_unknown_name_is_an_error_with_the_nearest(scenario: str, policy: str) -> None:
    with pytest.raises(UnknownName) as refused:
        Plan(scenario, policy=policy)
    assert ("mail" if scenario == "nail" else "exclusive") in (refused.value.hint or "")
    assert isinstance(refused.value, TraceError)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(
    "extreme",
    [
        {"processes": 2, "pages": 1},
        {"write_rate": 0.0, "references": 0.0},
        {"write_rate": 1.0, "references": 0.9},
        {"cpus": 64, "checkpoints": 0},
        {"seed": (1 << 63) - 1, "losses": 0.9},
        {"seed": 0, "checkpoints": 1000},
    ],
    ids=str,
)
def test_the_ends_of_the_ranges_give_traces(scenario: str, extreme: dict[str, Any], tmp_path: Path) -> None:
    made = synthesise(Plan(scenario, **{"events": 1200, **extreme}), tmp_path / "trace.dat")
    assert made.events + made.lost >= 1200
    assert made.processes >= 2
    raw = open_trace(tmp_path / "trace.dat")
    assert sum(raw.counts().values()) == made.events
    assert (raw.losses.num_rows > 0) == (made.lost > 0)


def test_the_parameters_show(tmp_path: Path) -> None:
    def counted(**parameters: Any) -> dict[str, int]:
        plan = Plan("random", **{"events": 6000, "checkpoints": 3, **parameters})
        synthesise(plan, tmp_path / "trace.dat")
        return tracetool.open(tmp_path / "trace.dat").raw.counts()

    plain = counted()
    assert counted(references=0.8)["gup"] > 2 * plain["gup"]
    assert counted(references=0.0).get("gup_fast", 0) == 0
    reads = counted(write_rate=0.0, references=0.0)
    # Where nobody stores, only the stacks after a fork are written.
    assert reads["cow_fault"] == 2 * reads["task_newtask"]
    assert plain["print"] >= 6, "two marks a process and checkpoint"
    synthesise(Plan("random", pages=7, processes=3, events=6000), tmp_path / "trace.dat")
    trace = tracetool.open(tmp_path / "trace.dat")
    areas = trace.events("mm_fault").filter(pl.col("vm_flags") == 0x48100073).select(pl.col("address") // 4096).unique().collect()
    assert areas.height == 7


def test_checkpoints_are_marks_and_truth_of_the_same_moments(tmp_path: Path) -> None:
    path, truth = tmp_path / "trace.dat", tmp_path / "truth.tsv"
    made = synthesise(Plan("forkstorm", events=5000, pages=9, checkpoints=12), path, truth=truth)
    marks = [text.split() for text in tracetool.open(path).marks()["text"].to_list()]
    begun, ended = ([mark for mark in marks if mark[0] == f"ckpt-{which}"] for which in ("begin", "end"))
    assert made.checkpoints == len({mark[2] for mark in begun}) == 12
    assert [mark[:4] for mark in begun] == [["ckpt-begin", *mark[1:4]] for mark in ended]
    told: dict[tuple[str, str], list[int]] = {}
    for line in truth.read_text().splitlines():
        scenario, label, pid, address, *rest = line.split("\t")
        assert (scenario, len(rest)) == ("forkstorm", 6)
        told.setdefault((label, pid), []).append(int(address, 16))
    assert list(told) == [(mark[2], mark[3].removeprefix("pid=")) for mark in begun]
    for mark in ended:
        start = int(mark[4].removeprefix("addr="), 16)
        assert mark[5] == "pages=9"
        assert told[mark[2], mark[3].removeprefix("pid=")] == [start + 4096 * page for page in range(9)]


def test_the_events_verb_shows_what_was_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.dat"
    made, events = watched(Plan("pins", events=800), path)
    shown = run(capfd, "events", path, "--format", "jsonl").out.splitlines()
    assert len(shown) == made.events == len(events)
    for line, event in zip(map(json.loads, shown), events, strict=True):
        assert (line["ts"], line["cpu"], line["tid"], line["event"]) == (event.ts, event.cpu, event.tid, event.name)
        fields = json.loads(line["fields"])
        own = {name: value for name, value in zip(names_of(event), event.values, strict=True) if name in fields}
        assert len(own) >= 1
        for name, value in own.items():
            told = fields[name].rstrip("\n") if isinstance(fields[name], str) else fields[name] % (1 << 64)
            assert told == (value if isinstance(value, str) else value % (1 << 64)), (event, name)


def test_a_second_thread_belongs_to_its_process(tmp_path: Path) -> None:
    synthesise(Plan("pins", events=3000), tmp_path / "trace.dat")
    processes = tracetool.open(tmp_path / "trace.dat").processes
    thread = processes.filter(pl.col("how") == "thread").row(0, named=True)
    assert thread["pid"] == 1000
    assert thread["tid"] == 1001
    faults = tracetool.open(tmp_path / "trace.dat").events("mm_fault").collect()
    assert faults.filter(pl.col("tid") == 1001).height > 0


def test_the_command_makes_a_trace_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, truth = tmp_path / "trace.dat", tmp_path / "truth.tsv"
    result = run(capfd, "synth", "mail", "-o", path, "--truth", truth, "--file-version", "6", "--policy", "page-count")
    assert result.code == 0
    assert result.err == ""
    assert re.fullmatch(rf"{re.escape(str(path))}: \d+ events, 2 threads, 8 checkpoints, 0 events lost\n", result.out)
    assert open_trace(path).metadata.kernel == "6.1.0-synth"
    assert truth.read_text().startswith("mail\tborn\t1000\t0x7f")


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["nail"], "no scenario 'nail'", "mail"),
        (["mail", "--policy", "foo"], "no policy 'foo'", "exclusive"),
        (["mail", "--losses", "2"], "--losses 2.0 is out of range", "0.0 to 0.9"),
        (["mail", "--file-version", "5"], "--file-version 5 does not exist", "6 or 7"),
        (["mail", "--file-version", "6", "--compression", "zstd"], "version 6 knows no compression", "none"),
    ],
)
def test_wrong_usage_is_told_in_a_line_with_a_hint(
    arguments: list[str], error: str, hint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = run(capfd, "synth", *arguments, "-o", tmp_path / "trace.dat")
    assert result.code == 2
    assert result.err.startswith(f"error: {error}")
    assert hint in result.err.partition("hint: ")[2]
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.dat"
    path.write_text("precious")
    refused = run(capfd, "synth", "mail", "-o", path)
    assert (refused.code, path.read_text()) == (1, "precious")
    assert "--force" in refused.err
    assert run(capfd, "synth", "mail", "-o", path, "--force").code == 0
    assert path.read_bytes()[:10] == b"\x17\x08Dtracing"[:10]


@pytest.mark.parametrize("arguments", [["-o", "-"], ["-o", "trace.dat", "--truth", "trace.dat"]])
def test_a_trace_needs_a_file_of_its_own(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(capfd, "synth", "mail", *arguments)
    assert result.code == 2
    assert "hint: name" in result.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_regular_file_is_left_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Not even with --force: a device is not to be replaced by a file."""
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (pipe, folder):
        result = run(capfd, "synth", "mail", "-o", path, "--force")
        assert result.code == 2
        assert f"{path} is no regular file" in result.err
    assert pipe.is_fifo()
    assert sorted(tmp_path.iterdir()) == [folder, pipe]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "trace.dat")
    synthesise(Plan("mail"), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "trace.dat").read_bytes()[3:10] == b"tracing"


def test_help_imports_no_library_and_names_every_scenario(capfd: pytest.CaptureFixture[str]) -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom tracetool.cli import main\nsys.argv = ['tracetool', 'synth', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print([name for name in ('numpy', 'numba', 'polars', 'pyarrow') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT).stdout
    assert shown.splitlines()[-1] == "[]"
    assert "Example: tracetool synth" in shown
    for scenario in SCENARIOS:
        assert scenario in shown


def test_the_page_tells_of_every_scenario_and_option(capfd: pytest.CaptureFixture[str]) -> None:
    page = (PROJECT / "docs" / "synth.md").read_text()
    shown = run(capfd, "synth", "--help").out
    options = set(re.findall(r"^  (?:-o, )?(--[a-z-]+)", shown, flags=re.MULTILINE)) - {"--help"}
    assert len(options) == 15
    for name in (*SCENARIOS, *options):
        assert f"`{name}`" in page or f"`{name} " in page, name
    for name, scenario in SCENARIOS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        cells = [cell.strip() for cell in row.split("|")[3:8]]
        assert cells == [
            str(scenario.processes), str(scenario.pages), f"{scenario.write_rate:g}", f"{scenario.references:g}", f"{scenario.events:,}",
        ]  # fmt: skip
