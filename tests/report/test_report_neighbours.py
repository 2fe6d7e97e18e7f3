"""Findings of one cause on pages side by side, taken together."""

from __future__ import annotations

from typing import Any

import pytest

from report import example
from tracetool.report.neighbours import Neighbours, neighbours, together

PAGE = 4096


def groups(*rows: dict[str, Any]) -> list[Neighbours]:
    return list(neighbours(together(example.findings(*rows))))


def at(page: int, number: int | None = None, **changes: Any) -> dict[str, Any]:
    return example.finding(page if number is None else number, address=example.ADDRESS + page * PAGE, **changes)


def names(*rows: dict[str, Any]) -> list[str]:
    return [each.name for each in groups(*rows)]


def test_pages_side_by_side_are_one_in_any_order() -> None:
    (buffer,) = groups(at(2), at(0), at(1), at(3))
    assert (buffer.count, buffer.low, buffer.first["id"]) == (4, example.ADDRESS, "F2")
    assert buffer.where == f"4 pages, {example.ADDRESS:#x} to {example.ADDRESS + 4 * PAGE - 1:#x}; one of them: "


def test_a_gap_parts() -> None:
    assert names(at(0), at(1), at(3), at(4), at(5)) == ["F0 and 1 more", "F3 and 2 more"]


@pytest.mark.parametrize(
    "change",
    [
        {"rule": "wrong-cow"}, {"policy": "observed"}, {"pid": 7}, {"pid": None}, {"by_pid": 7}, {"mm": 7}, {"certainty": "possible"},
        {"severity": "info"}, {"via": "io_uring"}, {"via": None},
    ],
    ids=str,
)  # fmt: skip
def test_another_cause_parts(change: dict[str, Any]) -> None:
    assert names(at(0), at(1, **change), at(2)) == ["F0", "F1", "F2"]


def test_another_page_frame_or_time_or_instruction_does_not() -> None:
    (both,) = groups(at(0), at(1, pfn=7, page_id=8, from_ns=9, to_ns=None, fingerprint="f" * 16, call_site="fff"))
    assert both.count == 2
    assert set(both.fingerprints) == {"0123456789abcdef", "f" * 16}


def test_what_happens_to_a_page_again_has_neighbours_of_its_own() -> None:
    assert names(at(0, 1), at(1, 2), at(0, 3), at(1, 4)) == ["F1 and 1 more", "F3 and 1 more"]


def test_an_address_that_is_not_known_has_no_neighbours() -> None:
    assert names(at(0), example.finding(5, address=None), example.finding(6, address=None), at(1)) == ["F0 and 1 more", "F5", "F6"]


def test_the_last_page_of_all_and_the_first_are_no_neighbours() -> None:
    last = example.finding(1, address=(1 << 64) - PAGE)
    assert names(last, example.finding(2, address=0)) == ["F1", "F2"]
    (top,) = groups(example.finding(3, address=(1 << 64) - 2 * PAGE), last)
    assert top.count == 2


def test_nothing_has_no_neighbours() -> None:
    assert groups() == []


def test_no_finding_is_lost() -> None:
    rows = [at(i * 3 % 50, i, policy=("observed", "mapcount")[i % 2]) for i in range(200)]
    assert sum(each.count for each in groups(*rows)) == 200
