"""`tracetool suspect` on the recording of the mail's example."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from cli.command import run
from conftest import fixture_path
from tracetool.schema import HISTORY

MAIL = fixture_path("mail-6.1.dat")
ADDRESS = "0x7f8efcaf0000"
#: A and B of the truth file.
A, B = 115, 116


def verdict(capfd: pytest.CaptureFixture[str], *more: object, pid: int = B) -> str:
    out = run(capfd, "suspect", MAIL, "--pid", pid, "--address", ADDRESS, "--format", "json", *more).out
    return str(json.loads(out)["verdict"])


def test_what_b_reads_is_ruled_out(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "suspect", MAIL, "--pid", B, "--address", ADDRESS)
    assert result.code == 0
    assert " ".join(result.out.split()).startswith(f"Wrong data at {ADDRESS} of process {B} (cowlab), at any time: ruled out")
    assert "Everything that happened to it" in result.out


def test_a_may_have_read_through_its_reference(capfd: pytest.CaptureFixture[str]) -> None:
    assert verdict(capfd, pid=A) == "cannot be ruled out"
    out = run(capfd, "suspect", MAIL, "--pid", A, "--address", ADDRESS).out
    assert "wrong-cow-1@observed" in out


def test_a_moment_on_the_clock_or_since_the_start(capfd: pytest.CaptureFixture[str]) -> None:
    """Before A wrote, it had P0 alone with B: nothing is found about it yet."""
    first, moment = 6_200_671_677, 6_228_100_000
    assert verdict(capfd, "--at", moment, pid=A) == verdict(capfd, "--at", moment - first, pid=A) == "ruled out"


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "arrow"])
def test_as_a_table_it_is_the_lifeline(form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        "csv": pl.read_csv,
        "jsonl": pl.read_ndjson,
        "parquet": pl.read_parquet,
        "arrow": pl.read_ipc,
    }
    file = tmp_path / f"life.{form}"
    assert run(capfd, "suspect", MAIL, "--pid", B, "--address", ADDRESS, "--format", form, "-o", file).code == 0
    frame = readers[form](file)
    assert frame.columns == list(HISTORY)
    assert frame["act"].cast(pl.String).to_list()[:3] == ["touch", "fork", "get"]


def test_what_is_not_known_names_what_is_near(capfd: pytest.CaptureFixture[str]) -> None:
    address = run(capfd, "suspect", MAIL, "--pid", B, "--address", "0x7f8efcaf1000")
    assert address.code == 1
    assert ADDRESS in address.err
    process = run(capfd, "suspect", MAIL, "--pid", 7, "--address", ADDRESS)
    assert process.code == 1
    assert str(A) in process.err
    moment = run(capfd, "suspect", MAIL, "--pid", B, "--address", ADDRESS, "--at", 1)
    assert moment.code == 1
    assert "something was" in moment.err
    late = run(capfd, "suspect", MAIL, "--pid", B, "--address", ADDRESS, "--at", 10**12)
    assert late.code == 1
    assert "6200671677" in late.err


@pytest.mark.parametrize(
    "arguments", [["--pid", B], ["--address", ADDRESS], ["--pid", B, "--address", "here"], ["--pid", B, "--address", -1]]
)
def test_half_a_question_is_wrong_usage(arguments: list[object], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "suspect", MAIL, *arguments).code == 2


def test_help_ends_in_an_example(capfd: pytest.CaptureFixture[str]) -> None:
    assert "Example: tracetool suspect" in run(capfd, "suspect", "--help").out
