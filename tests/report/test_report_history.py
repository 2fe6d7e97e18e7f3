"""A page's life as a drawing and as steps."""

from __future__ import annotations

import itertools
import re
from typing import Any

import polars as pl
import pytest

from engine.build import Machine, address
from report.example import ADDRESS, B_WRITES, RELEASE, mail
from tracetool.analysis import Held, Stay, Story
from tracetool.replay import OBSERVED
from tracetool.report import history
from tracetool.report.storyline import Danger
from tracetool.schema import FINDINGS, HISTORY, polars_schema
from tracetool.stories import tell_life
from tracetool.telling import Telling

UNSAFE = Danger("missed-cow", "certain", B_WRITES, RELEASE)


def told_by(story: Story) -> Telling:
    letters = dict(enumerate(story.owners))
    return Telling(story, letters, dict(story.owners), dict(enumerate(story.pages)), 0)


def steps_of(story: Story) -> pl.DataFrame:
    """The steps of a story as a life; the number of an address space is that of its letter."""
    numbers = {letter: number for number, letter in enumerate(story.owners)}
    rows: list[dict[str, Any]] = [
        {**dict.fromkeys(HISTORY), "ts": step.ts, "act": step.act, "mm": numbers[step.owner], "address": ADDRESS, "text": step.text}
        for step in story.steps
    ]
    return pl.DataFrame(rows, schema=polars_schema(HISTORY))


def drawn(story: Story, width: int = 80, **options: Any) -> tuple[list[str], list[str]]:
    """The lines of the drawing, and those of the steps."""
    drawing, _, told = history.text(steps_of(story), told_by(story), (UNSAFE,), width, **options).partition("\n\n")
    return drawing.splitlines(), told.splitlines()


def mapcount() -> Story:
    return mail().stories[1]


def column(rows: list[str], name: str, mark: str) -> int:
    return next(row for row in rows if row.startswith(name)).index(mark, len(name))


def many(owners: int) -> Story:
    stays = tuple(Stay(f"A{n}", "P0", n * 1000, 10**6 + n * 1000, "fork", "exit") for n in range(owners))
    held = tuple(Held("A0", "P0", n * 1000 + 500, 10**6, "pin", "write", "io_uring", "exact") for n in range(20))
    return Story("many", "observed", ADDRESS, {f"A{n}": f"x {n}" for n in range(owners)}, {"P0": "frame 0x1"}, stays, held, (), "", True)


def test_owners_pages_references_and_the_unsafe_stretch_are_drawn() -> None:
    rows, told = drawn(mapcount())
    lanes = [row for row in rows if re.match(r"[AB] cowlab", row)]
    assert [row[0] for row in lanes] == ["A", "B"]
    assert lanes[0].index("P0") < lanes[0].index("P1")
    assert "P2" not in lanes[1]
    begin, end = column(rows, "  reads P0 (vmsplice)", "╞"), column(rows, "  reads P0 (vmsplice)", "╡")
    assert begin < column(rows, "✖ missed-cow", "✖") < end
    assert any("UNSAFE from here: missed-cow, certain" in line for line in told)


def test_steps_are_numbered_where_they_are_drawn() -> None:
    rows, told = drawn(mapcount())
    marks = {row.split()[0]: previous for previous, row in itertools.pairwise(rows) if re.match(r"[AB] cowlab", row)}
    assert re.findall(r"\d+", marks["A"]) == ["1", "2", "3", "4", "6", "8"]
    assert re.findall(r"\d+", marks["B"]) == ["5", "7"]
    assert marks["B"].index("5") == column(rows, "✖ missed-cow", "✖")
    assert [line.split()[0] for line in told if re.match(r" +\d", line)] == [str(n) for n in range(1, 9)]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_columns_are_in_order_of_time_and_within_the_width(width: int) -> None:
    rows, told = drawn(mapcount(), width)
    assert max(map(len, rows)) <= width
    # Beside its time, a step keeps room for some words.
    assert max(map(len, told)) <= max(width, 44)
    times = next(n for n, row in enumerate(rows) if "┬" in row) + 1
    shown = [float(number) for number in re.findall(r"\d+\.\d+", rows[times])]
    assert shown == sorted(shown)
    assert shown[0] == 0
    for row in rows:
        numbers = re.findall(r"(?<= )\d+(?= |$)", row) if not re.match(r"\S", row) and "." not in row else []
        assert [int(n) for n in numbers] == sorted(int(n) for n in numbers)


def test_moments_at_a_distance_are_drawn_to_scale() -> None:
    axis = history._Axis([0, 500, 1000], 101)
    assert axis.to_scale
    assert [axis.column(ts) for ts in (0, 499, 500, 1000, 2000)] == [0, 0, 50, 100, 100]
    crowded = history._Axis([0, 1, 2, 1000], 31)
    assert not crowded.to_scale
    assert [crowded.column(ts) for ts in (0, 1, 2, 1000)] == [0, 10, 20, 30]


def test_more_moments_than_columns_stay_in_order() -> None:
    axis = history._Axis(range(1000), 20)
    columns = [axis.column(ts) for ts in range(1000)]
    assert columns == sorted(columns)
    assert (columns[0], columns[-1]) == (0, 19)


def test_many_owners_bars_and_steps_are_counted() -> None:
    story = many(40)
    rows = [{**dict.fromkeys(HISTORY), "ts": n, "act": "touch", "mm": 0, "address": ADDRESS, "text": f"step {n}"} for n in range(100)]
    out = history.text(pl.DataFrame(rows, schema=polars_schema(HISTORY)), told_by(story), [UNSAFE] * 9, 80)
    assert "and 34 more owners" in history.text(steps_of(story), told_by(story), (), 80)
    assert "and 17 more bars" in history.text(steps_of(story), told_by(story), (), 80)
    assert "and 60 more steps: --format csv" in out
    assert "and 6 more that are unsafe" in out
    assert len(out.splitlines()) < 100


def test_in_ascii_it_is_as_wide() -> None:
    (plain, _), (drawing, _) = drawn(mapcount(), ascii_only=True), drawn(mapcount())
    assert all(row.isascii() for row in plain)
    assert list(map(len, plain)) == list(map(len, drawing))


def test_what_goes_on_has_an_arrow() -> None:
    story = mapcount()
    open_ended = Story(**{**vars(story), "stays": (Stay("A", "P0", 5, None, "before-trace", "open"),)})
    rows, _ = drawn(open_ended)
    lane = next(row for row in rows if row.startswith("A cowlab"))
    assert "◀P0─" in lane
    assert lane.endswith("▶")


def test_names_of_processes_are_shown_not_obeyed() -> None:
    story = mapcount()
    rows, _ = drawn(Story(**{**vars(story), "owners": {"A": "\x1b[2J 1", "B": "[red]x 2"}}))
    assert any(row.startswith("A \\x1b[2J 1") for row in rows)
    assert any(row.startswith("B [red]x 2") for row in rows)


def test_without_a_family_the_steps_are_told() -> None:
    out = history.text(steps_of(mapcount()), None)
    assert out.startswith("from ")


def forks(children: int) -> Machine:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 0x50)
    for n in range(children):
        m.fork(a, 20 + n, [(address(0), 1)])
    return m


def test_a_family_that_is_too_large_is_drawn_without_its_kin() -> None:
    m = forks(3)
    replay = m.replay()
    assert replay.policy == OBSERVED
    page = replay.history_of(pfn=0x50)["page_id"][0]
    empty = pl.DataFrame(schema=polars_schema(FINDINGS))
    assert len(tell_life(replay, empty, [page]).story.owners) == 4
    assert len(tell_life(replay, empty, [page], most=2).story.stays) == 2
