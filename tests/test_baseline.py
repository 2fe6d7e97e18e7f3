"""Baselines: what an earlier run had is known, counted by fingerprint; what cannot be one says what it is instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from report import example
from tracetool.baseline import Baseline, read_baseline
from tracetool.errors import ParseError, TraceError
from tracetool.report.json import render

ONE, OTHER = "1" * 16, "2" * 16


def new(before: list[dict[str, Any]], now: list[dict[str, Any]], tmp_path: Path) -> list[str]:
    """The ids of what is new, by way of the file that an earlier run wrote."""
    path = tmp_path / "base.json"
    path.write_text(render(example.mail(findings=example.findings(*before))))
    return read_baseline(str(path)).new(example.findings(*now))["id"].to_list()


def case(number: int, fingerprint: str = ONE, **changes: Any) -> dict[str, Any]:
    """A finding; the later of two has the greater number."""
    return example.finding(number, fingerprint=fingerprint, from_ns=number, **changes)


POSSIBLE = {"certainty": "possible"}


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        pytest.param([], [case(1)], ["F1"], id="an empty baseline knows nothing"),
        pytest.param([case(9)], [case(1)], [], id="known, whatever else is another"),
        pytest.param([case(9)], [case(1, OTHER)], ["F1"], id="another fingerprint"),
        pytest.param([case(8), case(9)], [case(1), case(2), case(3)], ["F3"], id="two known, three there: one is new, the latest"),
        pytest.param([case(8), case(9)], [case(1)], [], id="less than before"),
        pytest.param([], [case(3), case(1), case(2, OTHER)], ["F3", "F1", "F2"], id="the order stays"),
        pytest.param([case(8, **POSSIBLE)], [case(1, **POSSIBLE), case(2)], ["F2"], id="the certain one is new"),
        pytest.param([case(8)], [case(1), case(2, **POSSIBLE)], ["F2"], id="the possible one is new"),
        pytest.param([case(8)], [case(1, **POSSIBLE), case(2)], ["F1"], id="the possible one is new, though earlier"),
        pytest.param([case(8, **POSSIBLE)], [case(1)], [], id="its certainty is no part of a fingerprint"),
        pytest.param([case(8, severity="info")] * 2, [case(1), case(2, **POSSIBLE), case(3)], ["F3"], id="the gravest and latest is new"),
    ],
)
def test_what_is_new(before: list[dict[str, Any]], now: list[dict[str, Any]], expected: list[str], tmp_path: Path) -> None:
    assert new(before, now, tmp_path) == expected


def test_nothing_is_new_where_nothing_was_found() -> None:
    assert Baseline("base.json", {(ONE, "defect", "certain"): 1}).new(example.findings()).height == 0


def results(**changes: Any) -> str:
    return json.dumps(json.loads(render(example.mail())) | changes)


@pytest.mark.parametrize(
    ("content", "what", "offset"),
    [
        pytest.param("", "is no JSON", 0, id="empty"),
        pytest.param('{"findings": [}', "is no JSON", 14, id="broken"),
        pytest.param('{"ä": [}', "is no JSON", 8, id="broken after a letter of two bytes"),
        pytest.param(b'{"a": "\xff"}', "not UTF-8", 7, id="not UTF-8"),
        pytest.param("[" * 100_000, "is no JSON", None, id="too deep"),
        pytest.param("9" * 10_000, "is no JSON", None, id="too long a number"),
        pytest.param("[]", "no results of a replay", None, id="a list"),
        pytest.param("{}", "no results of a replay", None, id="other JSON"),
        pytest.param(results(findings={}), "no results of a replay", None, id="findings are no list"),
        pytest.param(results(schema_version=99), "another version (schema_version 99, here 1)", None, id="a newer version"),
        pytest.param(results(findings=[7]), "finding 0 (from 0) has no fingerprint", None, id="a finding is no object"),
        pytest.param(results(findings=[{"rule": "missed-cow"}]), "has no fingerprint", None, id="an older version"),
        pytest.param(results(findings=[{"fingerprint": "\ud800"}]), "has no fingerprint", None, id="no fingerprint of ours"),
        pytest.param(results(findings=[{"fingerprint": ONE, "severity": 3}]), "the severity 3", None, id="no severity"),
        pytest.param(results(findings=[{"fingerprint": ONE, "severity": []}]), "the severity []", None, id="no word"),
        pytest.param(results(baseline={"path": "x", "known": 2}), "was itself written with --baseline", None, id="new findings only"),
    ],
)
def test_what_is_no_baseline_says_what_it_is(content: str | bytes, what: str, offset: int | None, tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ParseError) as raised:
        read_baseline(str(path))
    assert what in str(raised.value)
    assert str(raised.value).startswith(f"{path}: ")
    assert raised.value.offset == offset
    assert raised.value.hint


def test_a_baseline_that_had_nothing_to_leave_out_is_one(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    path.write_text(results(baseline={"path": "x", "known": 0}))
    assert sum(read_baseline(str(path)).counts.values()) == 1


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"missing\.json: cannot be read: No such file") as raised:
        read_baseline(str(tmp_path / "missing.json"))
    assert "--baseline" in str(raised.value.hint)
