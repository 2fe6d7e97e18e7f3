"""What is written is whole or not there, and never takes the place of what was read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli.command import run
from conftest import fixture_path

MAIL = fixture_path("mail-6.1.dat")


@pytest.fixture(name="trace")
def trace_fixture(tmp_path: Path) -> Path:
    """A recording that could be lost."""
    return Path(shutil.copy(MAIL, tmp_path / "trace.dat"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay", "TRACE", "-o", "OUT"),
        ("replay", "TRACE", "--html", "OUT"),
        ("replay", "TRACE", "--json", "OUT"),
        ("explain", "TRACE", "missed-cow-1@mapcount", "-o", "OUT"),
        ("suspect", "TRACE", "--pid", "115", "--address", "0x7f8efcaf0000", "-o", "OUT"),
        ("cost", "TRACE", "-o", "OUT"),
        ("events", "TRACE", "--format", "csv", "-o", "OUT"),
        ("pages", "TRACE", "--at", "6229420599", "-o", "OUT"),
        ("history", "TRACE", "--pid", "115", "--address", "0x7f8efcaf0000", "-o", "OUT"),
        ("export", "TRACE", "--to", "parquet", "-o", "OUT"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("linked", [False, True], ids=["itself", "by a link"])
def test_a_recording_is_not_overwritten_by_what_is_made_of_it(
    trace: Path, arguments: tuple[str, ...], linked: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    out = trace
    if linked:
        out = trace.with_name("link")
        out.symlink_to(trace)
    names = {"TRACE": trace, "OUT": out}
    result = run(capfd, *(names.get(each, each) for each in arguments), "--force")
    assert result.code == 2
    assert "is what is read, and would be lost" in result.err
    assert trace.read_bytes() == MAIL.read_bytes()


def test_a_baseline_is_not_overwritten_by_what_is_new(trace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    known = trace.with_name("known.json")
    run(capfd, "replay", trace, "--json", known)
    before = known.read_bytes()
    assert run(capfd, "replay", trace, "--baseline", known, "--json", known, "--force").code == 2
    assert known.read_bytes() == before
    # Another command may write what an earlier one has read.
    assert run(capfd, "replay", trace, "--json", known, "--force").code == 0


def test_what_cannot_be_written_is_named_and_nothing_half_is_left(trace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    full = run(capfd, "replay", trace, "--json", "/dev/full")
    assert (full.code, full.err) == (1, "error: /dev/full: No space left on device\n")
    run(capfd, "replay", trace, "--html", trace.with_name("report.html"), "--json", trace.with_name("results.json"))
    assert sorted(path.name for path in trace.parent.iterdir()) == ["report.html", "results.json", "trace.dat"]
    folder = run(capfd, "replay", trace, "--html", trace.parent, "--force")
    assert (folder.code, "is a folder" in folder.err) == (2, True)


def test_tables_of_another_trace_do_not_stay(trace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = trace.with_name("tables")
    assert run(capfd, "replay", trace, "--out", out).code == 0
    (out / "observed" / "mine.txt").write_text("mine")
    assert run(capfd, "replay", trace, "--policy", "mapcount", "--out", out, "--force").code == 0
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"observed", "mapcount", "report.saved"}
    assert (out / "observed" / "mine.txt").read_text() == "mine"


def test_options_that_would_do_nothing_are_refused(trace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for options in (
        ("--by", "because", "--policy", "mapcount", "--policy", "page-count"),
        ("--scale", "1GiB", "--by", "fork"),
        ("--scale", "1GiB", "--format", "csv"),
    ):
        result = run(capfd, "cost", trace, *options)
        assert (result.code, result.out) == (2, ""), options
        assert "hint: " in result.err


@pytest.mark.parametrize("body", ["return None", "return 1 / 0", "raise SystemExit(7)"])
def test_a_policy_that_fails_is_named(trace: Path, body: str, capfd: pytest.CaptureFixture[str]) -> None:
    own = trace.with_name("own.py")
    own.write_text(f"import tracetool\n\n@tracetool.policy\ndef strange(page):\n    {body}\n")
    result = run(capfd, "replay", trace, "--policy", f"{own}:strange")
    assert result.code == 2
    assert result.err.startswith(f"error: policy {own}:strange: it fails for a page: ")
