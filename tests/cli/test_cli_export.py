"""`tracetool export` writes one file that reads back as the trace it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.command import run
from conftest import fixture_path

MAIL = fixture_path("mail-6.1.dat")


@pytest.mark.parametrize("to", ["parquet", "arrow"])
def test_what_is_exported_is_read_by_every_verb(to: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    result = run(capfd, "export", MAIL, "--to", to, "-o", out)
    assert (result.code, result.out) == (0, "")
    assert result.err == f"1258 events written to {out}\n"
    for arguments in (
        ["events", "--format", "csv"],
        ["events", "--memory", "--format", "csv"],
        ["pages", "--at-mark", "*", "--format", "csv"],
    ):
        verb, *options = arguments
        assert run(capfd, verb, out, *options).out == run(capfd, verb, MAIL, *options).out, arguments


def test_other_programs_read_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "export", MAIL, "--to", "parquet", "-o", tmp_path / "p").code == 0
    assert run(capfd, "export", MAIL, "--to", "arrow", "-o", tmp_path / "a").code == 0
    frame = pl.read_parquet(tmp_path / "p")
    assert frame.height == 1258
    assert frame["ts"].is_sorted()
    assert pa.ipc.open_file(tmp_path / "a").read_all().num_rows == 1258
    faults = frame.filter(pl.col("event") == "cow_fault").select(pl.col("cow_fault").struct.field("address"))
    listed = run(capfd, "events", MAIL, "--event", "cow_fault", "--format", "csv").out.splitlines()
    at = listed[0].split(",").index("address")
    assert faults["address"].to_list() == [int(line.split(",")[at]) for line in listed[1:]]


def test_only_some_events(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(capfd, "export", MAIL, "--to", "arrow", "-o", out, "--event", "cow_fault", "--event", "print").code == 0
    table = pa.ipc.open_file(out).read_all()
    assert set(table.column("event").to_pylist()) == {"cow_fault", "print"}
    assert "exported were only the events cow_fault, print" in run(capfd, "info", out).out


def test_an_event_that_is_not_there_names_the_nearest(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "export", MAIL, "--to", "arrow", "-o", tmp_path / "out", "--event", "cow_falt")
    assert result.code == 1
    assert "did you mean 'cow_fault'?" in result.err
    assert list(tmp_path.iterdir()) == []


def test_files_are_not_overwritten_unasked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    result = run(capfd, "export", MAIL, "--to", "parquet", "-o", out)
    assert result.code == 1
    assert "--force" in result.err
    assert out.read_text() == "mine"
    assert run(capfd, "export", MAIL, "--to", "parquet", "-o", out, "--force").code == 0
    assert out.read_bytes()[:4] == b"PAR1"


def test_a_folder_that_is_missing_is_told_before_the_work(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "export", MAIL, "--to", "parquet", "-o", tmp_path / "none" / "out")
    assert result.code == 2
    assert "no folder" in result.err


@pytest.mark.parametrize("to", ["parquet", "arrow"])
def test_it_is_written_to_standard_output(to: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from tracetool.cli import main; main()", "export", str(MAIL), "--to", to, "-o", "-"]
    out.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    table = pq.read_table(out) if to == "parquet" else pa.ipc.open_file(out).read_all()
    assert table.num_rows == 1258


def test_a_target_that_does_not_exist_lists_those_that_do(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "export", MAIL, "--to", "excel", "-o", tmp_path / "out")
    assert result.code == 2
    assert all(target in result.err for target in ("parquet", "arrow", "duckdb", "perfetto"))


def test_a_database_is_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    duckdb = pytest.importorskip("duckdb")
    out = tmp_path / "out.duckdb"
    arguments = ("export", MAIL, "--to", "duckdb", "-o", out, "--policy", "mapcount", "--event", "cow_fault")
    assert run(capfd, *arguments).err == f"11 tables written to {out}\n"
    with duckdb.connect(str(out), read_only=True) as database:
        assert database.sql("select policies from metadata").fetchall() == [(["observed", "mapcount"],)]
        assert database.sql("select count(*) from events.cow_fault").fetchall() == [(19,)]
    assert run(capfd, *arguments).code == 1
    assert run(capfd, *arguments, "--force").code == 0
    assert [each.name for each in tmp_path.iterdir()] == ["out.duckdb"]


def test_a_missing_package_is_named_with_what_to_install(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    result = run(capfd, "export", MAIL, "--to", "duckdb", "-o", tmp_path / "out")
    assert result.code == 1
    assert "duckdb, which is not installed" in result.err
    assert "hint: pip install 'tracetool[duckdb]'" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_trace_for_perfetto_is_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.pftrace"
    result = run(capfd, "export", MAIL, "--to", "perfetto", "-o", out)
    assert result.code == 0
    assert result.err.startswith("44 slices, ")
    # 40 stays and 4 references, of which none is left out.
    assert "left out" not in result.err
    few = run(capfd, "export", MAIL, "--to", "perfetto", "-o", out, "--families", "3", "--policy", "page-count", "--force")
    assert "left out: observed: 13 of 16 page families (30 stays): pages " in few.err
    assert "left out: page-count: 13 of 16 page families " in few.err


def test_a_trace_for_perfetto_goes_through_a_pipe(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", "from tracetool.cli import main; main()", "export", str(MAIL), "--to", "perfetto", "-o", "-"]
    piped = subprocess.run(command, capture_output=True, check=True).stdout
    assert run(capfd, "export", MAIL, "--to", "perfetto", "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out").read_bytes() == piped


def test_a_process_without_pages_is_told_with_those_that_have_some(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "export", MAIL, "--to", "perfetto", "-o", tmp_path / "out", "--pid", "7")
    assert result.code == 1
    assert "no page is known that process 7 mapped" in result.err
    assert "115, 116" in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "arrow", "--policy", "mapcount"], "which know no policy"),
        (["--to", "perfetto", "--event", "cow_fault"], "holds no raw events"),
        (["--to", "duckdb", "--pid", "7"], "are for perfetto"),
        (["--to", "parquet", "--families", "7"], "are for perfetto"),
    ],
)
def test_options_that_make_no_sense_together(arguments: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "export", MAIL, "-o", tmp_path / "out", *arguments)
    assert result.code == 2
    assert message in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_database_needs_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "export", MAIL, "--to", "duckdb", "-o", "-")
    assert result.code == 2
    assert "name a file with --output" in result.err
