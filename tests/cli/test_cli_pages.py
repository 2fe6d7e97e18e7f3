"""`tracetool pages`, `events` and `info` on the recording of the mail's example."""

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
from tracetool.schema import PAGES

MAIL = fixture_path("mail-6.1.dat")


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_pages_at_a_mark_are_those_of_the_kernel(capfd: pytest.CaptureFixture[str]) -> None:
    """The frames are those of the truth file: P0 = 10653, P1 = 34397, P2 = 34407."""
    found = rows(run(capfd, "pages", MAIL, "--at-mark", "ckpt-begin mail *", "--format", "csv").out)
    assert list(found[0]) == list(PAGES)
    at = {
        (row["mark"].split()[2], row["pid"]): (row["pfn"], row["mapcount"], row["references"])
        for row in found
        if row["address"] == "0x7f8efcaf0000"
    }
    assert at["born", "115"] == ("10653", "1", "0")
    assert at["forked", "115"] == at["forked", "116"] == ("10653", "2", "0")
    assert at["A-pinned", "115"] == ("10653", "2", "1")
    assert at["A-wrote", "115"] == ("34397", "1", "0")
    assert at["A-wrote", "116"] == ("10653", "1", "1")
    assert at["B-wrote", "116"] == ("34407", "1", "0")


def test_pages_of_one_process_at_a_time(capfd: pytest.CaptureFixture[str]) -> None:
    found = rows(run(capfd, "pages", MAIL, "--at", 6_228_100_000, "--pid", 116, "--format", "csv").out)
    assert {row["pid"] for row in found} == {"116"}
    assert [row["pfn"] for row in found if row["address"] == "0x7f8efcaf0000"] == ["10653"]


def test_pages_under_a_policy(capfd: pytest.CaptureFixture[str]) -> None:
    """Under mapcount B keeps P0."""
    found = rows(run(capfd, "pages", MAIL, "--at-mark", "ckpt-begin mail B-wrote*", "--policy", "mapcount", "--format", "csv").out)
    assert [row["pfn"] for row in found if row["pid"] == "116" and row["address"] == "0x7f8efcaf0000"] == ["10653"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet", "arrow"])
def test_every_format_holds_the_same_table(form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        "csv": pl.read_csv,
        "jsonl": pl.read_ndjson,
        "json": pl.read_json,
        "parquet": pl.read_parquet,
        "arrow": pl.read_ipc,
    }
    file = tmp_path / f"pages.{form}"
    assert run(capfd, "pages", MAIL, "--at", 6_228_100_000, "--format", form, "-o", file).code == 0
    frame = readers[form](file)
    assert frame.columns == list(PAGES)
    assert frame.filter(pl.col("address") == "0x7f8efcaf0000")["pfn"].to_list() == [10653, 10653]


def test_text_lines_up(capfd: pytest.CaptureFixture[str]) -> None:
    lines = run(capfd, "pages", MAIL, "--at", 6_228_100_000, "--pid", 116).out.splitlines()
    column = lines[0].index("address")
    assert all(line[column:].startswith("0x") for line in lines[1:])


def test_all_events_in_their_order(capfd: pytest.CaptureFixture[str]) -> None:
    found = rows(run(capfd, "events", MAIL, "--format", "csv").out)
    assert len(found) == 1258
    assert [int(row["ts"]) for row in found] == sorted(int(row["ts"]) for row in found)
    fault = next(row for row in found if row["event"] == "cow_fault")
    assert set(json.loads(fault["fields"])) == {"mm", "address", "vm_flags", "fault_flags", "pte"}


def test_one_event_has_a_column_a_field(capfd: pytest.CaptureFixture[str]) -> None:
    found = rows(run(capfd, "events", MAIL, "--event", "page_fault_user", "--format", "csv").out)
    assert len(found) == 45
    assert list(found[0]) == ["ts", "cpu", "tid", "comm", "address", "ip", "error_code"]


def test_memory_events_point_back_at_raw_events(capfd: pytest.CaptureFixture[str]) -> None:
    found = rows(run(capfd, "events", MAIL, "--memory", "--format", "csv").out)
    begin = [row for row in found if row["op"] == "cow_begin"]
    assert len(begin) == 19
    assert [int(row["source_row"]) for row in begin] == list(range(19))
    assert {row["source"] for row in begin} == {"cow_fault"}


def test_info_says_what_the_trace_is_and_can_tell(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "info", MAIL, "--check")
    assert result.code == 0
    for fact in ("trace.dat v7", "6.1.0-53-amd64", "global", "1258 of", "losses: none", "missed-cow: yes"):
        assert fact in result.out
