"""`tracetool compare` of two traces, or of two sets: how they are named, every format, and what is told where they are named wrongly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from cli.command import run
from conftest import fixture_path
from tracetool.cli.compare import with_repeated
from tracetool.schema import BEFORE_AFTER

OLD, NEW = fixture_path("mail-5.10.dat"), fixture_path("mail-6.1.dat")
SETS = [fixture_path(f"mail-{kernel}.dat") for kernel in ("5.10", "6.1", "6.12", "7.2")]


def test_two_traces_are_before_and_after(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "compare", OLD, NEW)
    assert result.code == 0
    told = " ".join(result.out.split())
    assert told.startswith("Before and after: what the kernels did before 1 trace (mail-5.10.dat)")
    assert "after 1 trace (mail-6.1.dat)" in told
    assert run(capfd, "compare", OLD, "--with", NEW).out == result.out


@pytest.mark.parametrize("place", ["last", "between", "first"])
def test_all_that_stand_after_with_are_after(place: str, capfd: pytest.CaptureFixture[str]) -> None:
    """As a shell writes them for `before*.dat --with after*.dat`."""
    options = ["--policy", "page-count"]
    words = {
        "last": [*SETS[:2], "--with", *SETS[2:], *options],
        "between": [*SETS[:2], "--with", SETS[2], *options, SETS[3]],
        "first": [*options, *SETS[:2], "--with", *SETS[2:]],
    }
    told = " ".join(run(capfd, "compare", *words[place]).out.split())
    assert "under page-count before 2 traces (mail-5.10.dat and mail-6.1.dat)" in told
    assert "after 2 traces (mail-6.12.dat and mail-7.2.dat)" in told
    assert "95 % bootstrap interval" in told


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a b", "a b"),
        ("a --with b c", "a --with=b --with=c"),
        ("a --with=b c", "a --with=b --with=c"),
        ("a --with b --policy p c --force d", "a --with=b --policy p --with=c --force --with=d"),
        ("a --with b --policy=p c", "a --with=b --policy=p --with=c"),
        ("a --with b --with c", "a --with=b --with=c"),
        ("a --with - b -o -", "a --with=- --with=b -o -"),
        ("a -o --with b", "a -o --with b"),
        ("a --with -- -b.dat", "a --with=-b.dat"),
        ("-- a --with b", "-- a --with b"),
        ("a --with", "a --with"),
        ("a --with --force", "a --force --with"),
    ],
)
def test_how_words_are_read(words: str, expected: str) -> None:
    assert with_repeated(words.split(), {"--policy", "-o", "--with"}) == expected.split()


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet", "arrow"])
def test_every_format_holds_the_same_table(form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        "csv": lambda path: pl.read_csv(path, infer_schema_length=None),
        "jsonl": lambda path: pl.read_ndjson(path, infer_schema_length=None),
        "json": lambda path: pl.read_json(path, infer_schema_length=None),
        "parquet": pl.read_parquet,
        "arrow": pl.read_ipc,
    }
    file = tmp_path / f"table.{form}"
    assert run(capfd, "compare", OLD, NEW, "--format", form, "-o", file).code == 0
    frame = readers[form](file)
    assert frame.columns == list(BEFORE_AFTER)
    first = frame.row(0, named=True)
    assert (first["level"], first["quantity"], first["before"], first["after"], first["difference"]) == ("total", "copies", 12, 11, -1)
    assert (first["low"], first["shown"], first["per"]) == (None, None, "trace")


def test_counts_by_fork_and_prices_of_one_s_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "costs.toml").write_text("reuse_fault = 0\ncopy_fault = 7_000\n")
    told = " ".join(run(capfd, "compare", OLD, NEW, "--per", "fork", "--costs", tmp_path / "costs.toml").out.split())
    assert "In all, each fork" in told
    assert "One more copy is taken for 7.00 µs" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "compare wants a trace"),
        ([OLD], "compare wants two policies, not 0, or two traces"),
        ([OLD, "--policy", "mapcount"], "compare wants two policies, not 1, or two traces"),
        (SETS[:3], "3 traces, and nothing says which of them are before and which after"),
        (["--with", OLD, NEW], "compare wants a trace before --with"),
        ([OLD, NEW, "--policy", "mapcount", "--policy", "page-count"], "as observed or under one policy, not 2"),
        ([OLD, "--with", NEW, "--policy", "mapcount", "--policy", "page-count"], "as observed or under one policy, not 2"),
        ([OLD, NEW, "--policy", "pagecount"], "no policy 'pagecount'"),
        ([OLD, NEW, "--policy", "all"], "policy 'all' is not one"),
        ([OLD, OLD], "is named twice"),
        ([OLD, NEW, "--with", SETS[2], OLD.parent / ".." / "fixtures" / OLD.name], "is named twice"),
        (["-", "-"], "is named twice"),
        ([OLD, "--policy", "mapcount", "--policy", "page-count", "--per", "fork"], "are about several traces"),
    ],
)
def test_wrong_usage_is_told_with_a_hint(words: list[str | Path], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "compare", *words)
    assert result.code == 2
    assert result.out == ""
    error, hint = result.err.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")


def test_with_wants_a_trace(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "compare", OLD, "--with")
    assert result.code == 2
    assert "--with" in result.err


def test_files_are_not_overwritten_unasked_nor_read_in_vain(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine"
    file.write_text("mine")
    assert run(capfd, "compare", tmp_path / "missing.dat", NEW, "-o", file).code == 1
    assert "exists already" in run(capfd, "compare", OLD, NEW, "-o", file).err
    assert file.read_text() == "mine"
    assert run(capfd, "compare", OLD, NEW, "-o", file, "--force").code == 0
    assert file.read_text().startswith("Before and after")


def test_one_side_may_come_through_a_pipe_or_be_damaged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.dat"
    cut.write_bytes(NEW.read_bytes()[:20_479])
    told = " ".join(run(capfd, "compare", OLD, cut).out.split())
    assert "Events were lost after, in 1 trace" in told
    assert run(capfd, "compare", OLD, cut, "--strict").code == 1
    shutil.copy(OLD, tmp_path / "copy.dat")
    assert "copies 12 -> 12" in run(capfd, "compare", OLD, tmp_path / "copy.dat").out, "another file, of the same contents"
