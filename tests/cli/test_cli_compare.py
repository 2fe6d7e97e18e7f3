"""`tracetool compare` on the recording of the mail's example."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from cli.command import run
from conftest import fixture_path
from tracetool.schema import COMPARISON

MAIL = fixture_path("mail-6.1.dat")
BOTH = ("--policy", "mapcount", "--policy", "page-count")


def test_the_one_difference_of_the_mail(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "compare", MAIL, *BOTH)
    told = " ".join(result.out.split())
    assert result.code == 0
    assert "1 of 18 decisions differs" in told
    assert "cowlab 116 stores to 0x7f8efcaf0000" in told
    assert "mapcount: reuse (sole-owner) -> page-count: copy (reference)" in told
    assert "missed-cow-1@mapcount (certain) only under mapcount" in told


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet", "arrow"])
def test_every_format_holds_the_same_table(form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        "csv": pl.read_csv,
        "jsonl": pl.read_ndjson,
        "json": pl.read_json,
        "parquet": pl.read_parquet,
        "arrow": pl.read_ipc,
    }
    file = tmp_path / f"differences.{form}"
    assert run(capfd, "compare", MAIL, *BOTH, "--format", form, "-o", file).code == 0
    frame = readers[form](file)
    assert frame.columns == list(COMPARISON)
    (row,) = frame.to_dicts()
    assert (row["decision_a"], row["reason_a"], row["decision_b"], row["reason_b"]) == ("reuse", "sole-owner", "copy", "reference")
    found = json.loads(row["findings_a"]) if form == "csv" else row["findings_a"]
    assert found == ["missed-cow-1@mapcount"]


def test_observed_is_one_too(capfd: pytest.CaptureFixture[str]) -> None:
    rows = list(
        csv.DictReader(io.StringIO(run(capfd, "compare", MAIL, "--policy", "observed", "--policy", "mapcount", "--format", "csv").out))
    )
    assert [(row["policy_a"], row["decision_a"], row["decision_b"]) for row in rows] == [("observed", "copy", "reuse")]


def test_no_difference_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    alike = ("--policy", "page-count", "--policy", "exclusive")
    text = run(capfd, "compare", MAIL, *alike)
    assert text.code == 0
    assert "No difference" in text.out
    table = run(capfd, "compare", MAIL, *alike, "--format", "csv")
    assert table.code == 0
    assert table.out.splitlines() == [",".join(COMPARISON)]
    assert "decide all 18 decisions alike" in table.err


@pytest.mark.parametrize(
    "names", [(), ("mapcount",), ("mapcount", "mapcount"), ("mapcount", "page-count", "exclusive"), ("mapcount", "pagecount")]
)
def test_other_than_two_policies_is_wrong_usage(names: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "compare", MAIL, *(word for name in names for word in ("--policy", name)))
    assert result.code == 2
    assert result.out == ""
    assert result.err.splitlines()[0].startswith("error: ")
    assert result.err.splitlines()[1].startswith("hint: ")


def test_files_are_not_overwritten_unasked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine"
    file.write_text("mine")
    assert run(capfd, "compare", MAIL, *BOTH, "-o", file).code == 1
    assert file.read_text() == "mine"
    assert run(capfd, "compare", MAIL, *BOTH, "-o", file, "--force").code == 0


def test_help_ends_in_an_example(capfd: pytest.CaptureFixture[str]) -> None:
    assert "Example: tracetool compare" in run(capfd, "compare", "--help").out
