"""What the loops that copy without testing each index test before: nothing is read or written outside, compiled or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tracetool_parsers import copying, gather, loops
from tracetool_parsers.ringbuffer import SPOT_SHIFT, Ahead
from tracetool_parsers.room import Columns, Plan, Wanted, room_for

LENGTH = 16


@pytest.fixture(autouse=True, params=["python", "compiled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACETOOL_LOOPS", request.param)


def spots_at(*starts: int) -> np.ndarray:
    return np.array([start << SPOT_SHIFT | LENGTH for start in starts], np.int64)


def copy(source: np.ndarray, skip: int, spots: np.ndarray, column: np.ndarray) -> None:
    first, last, _ = copying.reach(spots)
    copying.copy_words(source, skip, spots, first, last, column)


COPY = loops.loop(copy)


def test_words_are_copied() -> None:
    column = np.zeros(3, np.uint32)
    COPY.run(3, np.arange(10, dtype=np.uint32), 2, spots_at(1, 7, 4), column)
    assert column.tolist() == [3, 9, 6]


@pytest.mark.parametrize(
    ("spots", "skip", "rows"),
    [
        (spots_at(1, 8), 2, 2),
        (spots_at(1, 2), 9, 2),
        (spots_at(1, 2), -2, 2),
        (np.array([-1, 5], np.int64), 2, 2),
        (spots_at(1, 2, 3), 2, 2),
        (spots_at(1 << 40), 0, 1),
    ],
)
def test_words_outside_are_refused(spots: np.ndarray, skip: int, rows: int) -> None:
    column = np.zeros(rows, np.uint32)
    with pytest.raises(IndexError):
        COPY.run(3, np.arange(10, dtype=np.uint32), skip, spots, column)
    assert not column.any()


def pass_on(ahead: Ahead, stop: int, plan: Plan, columns: Columns) -> int:
    gather.check_plan(plan, columns)
    return gather.pass_on(ahead, 0, stop, 99, 0, 0, 0, plan, columns)


PASS = loops.loop(pass_on)


def found(groups: list[int]) -> Ahead:
    times = np.arange(len(groups), dtype=np.int64)
    return Ahead(spots_at(*range(len(groups))), times, np.array(groups, np.int32))


def room(rows: int, *, places: bool = False) -> tuple[Plan, Columns]:
    return room_for([Wanted(((8, 4),), varying=False)], [rows], buffers=False, places=places)


def test_records_are_passed_on_until_their_table_is_full() -> None:
    plan, columns = room(2)
    assert PASS.run(3, found([0, -1, 0, 0]), 4, plan, columns) == 3
    assert columns.times[:2].tolist() == [0, 2]


def changed(plan: Plan, name: str, value: int) -> Plan:
    return plan._replace(**{name: np.full(1, value, np.int64)})


@pytest.mark.parametrize(
    ("name", "value"), [("rows", -1), ("rows", 3), ("stops", 3), ("ends", 3), ("spots", -1), ("spots", 1), ("at_once", 3), ("copied", 1)]
)
def test_a_plan_without_room_is_refused(name: str, value: int) -> None:
    plan, columns = room(2)
    with pytest.raises(IndexError):
        PASS.run(3, found([0, 0, 0]), 3, changed(plan, name, value), columns)


@pytest.mark.parametrize("name", ["times", "cpus", "places"])
def test_a_column_that_is_too_short_is_refused(name: str) -> None:
    plan, columns = room(2, places=True)
    shorter: dict[str, Any] = {name: getattr(columns, name)[:1]}
    with pytest.raises(IndexError):
        PASS.run(3, found([0, 0, 0]), 3, plan, columns._replace(**shorter))


@pytest.mark.parametrize(("groups", "stop"), [([0, 1], 2), ([0, 0], 3)])
def test_records_that_were_not_found_are_refused(groups: list[int], stop: int) -> None:
    plan, columns = room(8)
    with pytest.raises(IndexError):
        PASS.run(3, found(groups), stop, plan, columns)
