"""A page's life for a terminal: owners as lanes, stays and references as bars along time, and beneath it the steps by their numbers."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracetool.analysis import Held, Stay, Story
from tracetool.foreign import printable
from tracetool.report.sections import Row, Section, cut, lines
from tracetool.report.storyline import Danger
from tracetool.report.terminal import PLAIN_WIDTH, SHAPES, in_ascii
from tracetool.report.words import counted, since, time_unit

if TYPE_CHECKING:
    import polars as pl

    from tracetool.telling import Telling

#: More is counted: steps that are told, lanes, bars in a lane of each kind, unsafe stretches, names in the legend.
STEPS_SHOWN: Final = 40
LANES_SHOWN: Final = 6
_BARS, _DANGERS, _NAMES = 3, 3, 12
#: Columns to the left of the drawing, and how far apart moments must be to be drawn to scale.
_GUTTER: Final = 24
_APART: Final = 3
_STAY, _HELD, _UNSAFE = "├─┤", "╞═╡", "✖▒▒"


def text(
    life: pl.DataFrame, telling: Telling | None, unsafe: Sequence[Danger] = (), width: int | None = None, *, ascii_only: bool = False
) -> str:
    """The life (`schema.HISTORY`) as lines of at most `width` columns (None: PLAIN_WIDTH).

    Args:
        life: the steps.
        telling: the pages' family, which is drawn; None: nothing is.
        unsafe: the stretches that are unsafe.
        width: columns.
        ascii_only: whether whatever is not ASCII is replaced.
    """
    width = width or PLAIN_WIDTH
    steps = _steps(life.head(STEPS_SHOWN), telling)
    start = next((step.ts for step in steps if step.ts is not None), 0)
    drawn: list[str] = []
    if telling is not None and telling.story.stays:
        drawn = [*_Drawing(telling.story, steps, unsafe, width).lines(), ""]
    end = max((step.ts for step in steps if step.ts is not None), default=start)
    told = [f"from {start} ns of the trace's clock:", *_told(steps, unsafe, start, end, width)]
    if life.height > STEPS_SHOWN:
        told.append(f"and {counted(life.height - STEPS_SHOWN, 'more step')}: --format csv (jsonl, parquet, ...) has all")
    whole = "\n".join([*drawn, *told]) + "\n"
    return in_ascii(whole) if ascii_only else whole


@dataclass(frozen=True)
class _Step:
    """A row of the life: its number, when (ns; None: before the trace), whose lane it is in, what is said."""

    number: int
    ts: int | None
    owner: str | None
    text: str


def _steps(life: pl.DataFrame, telling: Telling | None) -> list[_Step]:
    letters = telling.letters if telling else {}
    rows = enumerate(life.select("ts", "mm", "text").iter_rows(), 1)
    return [_Step(number, ts, letters.get(mm), said) for number, (ts, mm, said) in rows]


def _told(steps: Sequence[_Step], unsafe: Sequence[Danger], start: int, end: int, width: int) -> Iterator[str]:
    """The steps, and where it becomes unsafe among them."""
    rows = [((step.ts is not None, step.ts or 0), _numbered(step.number, step.ts, start, end), step.text) for step in steps]
    for danger in unsafe[:_DANGERS]:
        said = f"UNSAFE from here: {danger.rule}, {danger.certainty}"
        place = (True, danger.from_ns)
        at = next((number for number, row in enumerate(rows) if row[0] > place), len(rows))
        rows.insert(at, (place, f"{SHAPES['defect']} {since(danger.from_ns - start, end - start):>12}", said))
    yield from lines([Section("", tuple(Row(said, lead) for _, lead, said in rows))], width)


def _numbered(number: int, ts: int | None, start: int, end: int) -> str:
    return f"{number} {'before' if ts is None else since(ts - start, end - start):>12}"


class _Axis:
    """Columns of moments, in order of time: to scale, or evenly spaced where some would hide each other."""

    def __init__(self, moments: Iterable[int], columns: int) -> None:
        self.moments = sorted(set(moments))
        self.first, self.last = self.moments[0], self.moments[-1]
        room, span = columns - 1, max(self.last - self.first, 1)
        scaled = [(moment - self.first) * room // span for moment in self.moments]
        self.to_scale = all(later - earlier >= _APART for earlier, later in itertools.pairwise(scaled))
        most = max(len(self.moments) - 1, 1)
        self._columns = scaled if self.to_scale else [number * room // most for number in range(len(self.moments))]

    def column(self, ts: int) -> int:
        """The column of a moment; what lies outside is at the edge."""
        at = bisect.bisect_right(self.moments, ts) - 1
        return self._columns[max(at, 0)]


class _Drawing:
    """One drawing: lanes from top to bottom, then what is unsafe, then the times."""

    def __init__(self, story: Story, steps: Sequence[_Step], unsafe: Sequence[Danger], width: int) -> None:
        self._story, self._steps, self._unsafe = story, steps, unsafe
        self._gutter = min(_GUTTER, width // 3)
        self._width, self._columns = width, max(width - self._gutter - 1, 8)
        told = [step.ts for step in steps if step.ts is not None] or [stay.from_ns for stay in story.stays]
        self._from, self._to = min(told), max(told)
        dangers = [ts for danger in unsafe for ts in (danger.from_ns, danger.to_ns) if ts is not None]
        bars: Sequence[Stay | Held] = (*story.stays, *story.references)
        edges = [ts for bar in bars for ts in (bar.from_ns, bar.to_ns) if ts is not None and self._from <= ts <= self._to]
        self._axis = _Axis([*told, *dangers, *edges], self._columns - 1)

    def lines(self) -> Iterator[str]:
        owners = self._owners()
        for owner in owners:
            yield from self._lane(owner)
        further = len(self._story.owners) - len(owners)
        if further > 0:
            yield f"and {counted(further, 'more owner')}"
        for danger in self._unsafe[:_DANGERS]:
            yield self._row(f"{SHAPES['defect']} {danger.rule}", self._bar(danger.from_ns, danger.to_ns, _UNSAFE))
        if len(self._unsafe) > _DANGERS:
            yield f"and {len(self._unsafe) - _DANGERS} more that are unsafe"
        yield from self._times()
        yield from self._legend()

    def _owners(self) -> list[str]:
        """The owners that have steps, then others, in the order of the story; those that are never seen in this time are left out."""
        acting = {step.owner for step in self._steps}
        seen = [owner for owner in self._story.owners if owner in acting or any(self._is_seen(stay) for stay in self._stays(owner))]
        chosen = set(sorted(seen, key=lambda owner: owner not in acting)[:LANES_SHOWN])
        return [owner for owner in seen if owner in chosen]

    def _stays(self, owner: str) -> list[Stay]:
        return [stay for stay in self._story.stays if stay.owner == owner]

    def _is_seen(self, bar: Stay | Held) -> bool:
        return bar.from_ns <= self._axis.last and (bar.to_ns is None or bar.to_ns >= self._axis.first)

    def _lane(self, owner: str) -> Iterator[str]:
        yield from (self._row("", cells) for cells in self._marks(owner))
        rows: list[tuple[list[str], int | None]] = []
        left_out = 0
        for stay in filter(self._is_seen, self._stays(owner)):
            at = next((n for n, (_, until) in enumerate(rows) if until is not None and until <= stay.from_ns), len(rows))
            if at == _BARS:
                left_out += 1
                continue
            cells = rows[at][0] if at < len(rows) else [" "] * self._columns
            self._draw(cells, stay.from_ns, stay.to_ns, _STAY, stay.page)
            rows[at : at + 1] = [(cells, stay.to_ns)]
        name = f"{owner} {printable(self._story.owners[owner])}"
        for number, (cells, _) in enumerate(rows or [([" "] * self._columns, None)]):
            yield self._row("" if number else name, cells)
        held = [one for one in self._story.references if one.owner == owner and self._is_seen(one)]
        for one in held[:_BARS]:
            kind = "pin " if one.kind == "pin" else ""
            yield self._row(f"  {one.access}s {one.page} ({kind}{one.via})", self._bar(one.from_ns, one.to_ns, _HELD))
        left_out += max(len(held) - _BARS, 0)
        if left_out:
            yield f"  and {counted(left_out, 'more bar')}"

    def _marks(self, owner: str) -> list[list[str]]:
        """The numbers of an owner's steps, each at its moment; where two would touch, the later one is a row further up."""
        groups: dict[int, list[int]] = {}
        for step in self._steps:
            if step.owner == owner:
                groups.setdefault(0 if step.ts is None else self._axis.column(step.ts), []).append(step.number)
        rows: list[list[str]] = [[" "] * self._columns]
        for column, numbers in sorted(groups.items()):
            label = (
                f"{numbers[0]}-{numbers[-1]}"
                if len(numbers) > 1 and numbers[-1] - numbers[0] == len(numbers) - 1
                else ",".join(map(str, numbers))
            )
            begin = max(min(column, self._columns - len(label)), 0)
            free = next((row for row in rows if set(row[max(begin - 1, 0) : begin + len(label) + 1]) <= {" "}), None)
            if free is None:
                free = [" "] * self._columns
                rows.append(free)
            free[begin : begin + len(label)] = label[: self._columns - begin]
        return rows[::-1]

    def _bar(self, begin: int, end: int | None, ink: str) -> list[str]:
        cells = [" "] * self._columns
        self._draw(cells, begin, end, ink, "")
        return cells

    def _draw(self, cells: list[str], begin: int, end: int | None, ink: str, name: str) -> None:
        """A bar from `begin` to `end` (None: it goes on), with its name in it where there is room."""
        first = self._axis.column(begin)
        goes_on = end is None or end > self._axis.last
        last = self._columns - 1 if end is None or goes_on else self._axis.column(end)
        cells[first : last + 1] = ink[1] * (last + 1 - first)
        cells[last] = "▶" if goes_on else ink[2]
        cells[first] = "◀" if begin < self._axis.first else ink[0]
        if len(name) < last - first:
            cells[first + 1 : first + 1 + len(name)] = name

    def _times(self) -> Iterator[str]:
        """Times beneath their moments, as many as fit."""
        span = self._axis.last - self._axis.first
        unit, _ = time_unit(span)
        ticks, labels, free = [" "] * self._columns, [" "] * self._columns, 0
        for moment in self._axis.moments:
            column = self._axis.column(moment)
            label = since(moment - self._axis.first, span).removesuffix(f" {unit}").removeprefix("+")
            begin = max(min(column, self._columns - len(label)), 0)
            if begin >= free and len(label) <= self._columns:
                ticks[column] = "┬"
                labels[begin : begin + len(label)] = label
                free = begin + len(label) + 1
        yield self._row(f"{unit} from the first step", ticks)
        yield self._row("" if self._axis.to_scale else "(not to scale)", labels)

    def _legend(self) -> Iterator[str]:
        pages = [f"{page} is {frame}" for page, frame in self._story.pages.items()]
        more = f" and {len(pages) - _NAMES} more" if len(pages) > _NAMES else ""
        said = f"{'; '.join(pages[:_NAMES])}{more}."
        yield from lines([Section("", (Row(said, indent=-2),))], self._width)

    def _row(self, name: str, cells: Sequence[str]) -> str:
        return f"{cut(name, self._gutter):<{self._gutter}} {''.join(cells)}".rstrip()
