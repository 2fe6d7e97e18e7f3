"""A small picture of a page family, as SVG that needs no script: owners as lanes, references as hatched bars, steps as numbered marks.

It has the geometry of the large picture (`geometry`); colours are classes of the style sheet, so that it follows light, dark and print.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from tracetool.foreign import printable
from tracetool.report.geometry import MARKS, REFERENCE_ROW, REFERENCES, STAYS, TITLE, Axis, Lane, axis, lanes
from tracetool.report.storyline import COLOURS, Danger, danger_of, leaks, page_names

if TYPE_CHECKING:
    from markupsafe import Markup

    from tracetool.analysis import Held, Stay, Step, Story

_WIDTH: Final = 640
_ROW: Final = 30
_TOP, _BOTTOM, _SIDE = 22, 22, 12
#: More would be illegible at that size; the text beside it tells all.
_BARS, _MARKS, _LANES = 80, 40, 8
#: About how wide a letter is.
_LETTER: Final = 7
_UNDER: Final = 0.31
_SYMBOLS: Final = {"fork": "diamond", "copy": "square"}


def sketch(story: Story, unsafe: Sequence[Danger], act: Step | None = None) -> Markup:
    """The picture as an `<svg>`; what has no place in it is left to the text beside it. `act` is the step that it is about."""
    from markupsafe import Markup

    return Markup("").join(_Sketch(story, unsafe, act).parts())


class _Sketch:
    """One picture: the places of its lanes and moments, and its elements."""

    def __init__(self, story: Story, unsafe: Sequence[Danger], act: Step | None) -> None:
        self._story, self._unsafe, self._act = story, unsafe, act
        self._axis: Axis = axis([story], "steps")
        places, height = lanes(story)
        self._places: dict[str, Lane] = dict(list(places.items())[:_LANES])
        if len(places) > _LANES:
            height = list(places.values())[_LANES].top
        self._height = round(height * _ROW) + _TOP + _BOTTOM
        self._pages = page_names([story])
        self._depths: dict[Held, float] = {}

    def parts(self) -> Iterator[Markup]:
        from markupsafe import Markup

        yield Markup('<svg class="sketch" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            _WIDTH, self._height, f"Who maps what: {printable(self._story.outcome)}"
        )
        yield from self._bands()
        for owner, lane in self._places.items():
            named = f"{owner} {printable(self._story.owners[owner])}"
            yield Markup('<text class="who" x="2" y="{}">{}</text>').format(self._y(lane.top + TITLE), named[: _WIDTH // _LETTER])
        for stay in self._story.stays[:_BARS]:
            if stay.owner in self._places:
                yield self._stay(stay)
        yield from self._references()
        yield from self._arrows()
        yield from self._leaks()
        for number, step in enumerate(self._story.steps[:_MARKS], 1):
            if step.owner in self._places:
                yield self._mark(number, step)
        yield Markup("</svg>")

    def _x(self, ts: int | None) -> float:
        left, right = self._axis.layout["range"]
        place: float = self._axis.place([self._axis.end if ts is None else ts]).item()
        share: float = (place - left) / (right - left)
        return round(_SIDE + share * (_WIDTH - 2 * _SIDE), 1)

    def _y(self, row: float) -> float:
        return round(_TOP + row * _ROW, 1)

    def _page(self, page: str) -> int:
        return self._pages.index(page) % COLOURS

    def _stay(self, stay: Stay) -> Markup:
        from markupsafe import Markup

        begin, end = self._x(stay.from_ns), self._x(stay.to_ns)
        page, lane = self._page(stay.page), self._places[stay.owner]
        bar = Markup('<rect class="p{}" x="{}" y="{}" width="{}" height="18"/>').format(
            page, begin, self._y(lane.top + STAYS - _UNDER), round(max(end - begin, 1), 1)
        )
        if end - begin < _LETTER * (len(stay.page) + 1):
            return bar
        name = Markup('<text class="t{}" x="{}" y="{}">{}</text>')
        return bar + name.format(page, round((begin + end) / 2, 1), self._y(lane.top + STAYS + 0.15), printable(stay.page))

    def _references(self) -> Iterator[Markup]:
        from markupsafe import Markup

        rows = {owner: iter(lane.rows) for owner, lane in self._places.items()}
        for one in self._story.references[:_BARS]:
            if one.owner not in rows:
                continue
            depth = self._places[one.owner].top + REFERENCES + REFERENCE_ROW * next(rows[one.owner])
            self._depths[one] = depth
            begin, end = self._x(one.from_ns), self._x(one.to_ns)
            yield Markup('<rect class="p{} held" x="{}" y="{}" width="{}" height="8"/>').format(
                self._page(one.page), begin, self._y(depth - 0.13), round(max(end - begin, 1), 1)
            )
            right = begin > _WIDTH * 0.6
            yield Markup('<text class="via" x="{}" y="{}"{}>{}</text>').format(
                end if right else begin, self._y(depth + 0.46), Markup(' text-anchor="end"') if right else "", _reaches(one)
            )

    def _arrows(self) -> Iterator[Markup]:
        from markupsafe import Markup

        forks = [step for step in self._story.steps if step.act == "fork" and step.owner in self._places]
        for stay in self._story.stays[:_BARS]:
            parent = min(forks, key=lambda step: abs(step.ts - stay.from_ns), default=None)
            if parent is None or parent.owner == stay.owner or stay.owner not in self._places or stay.began not in {"fork", "early-copy"}:
                continue
            x = self._x(stay.from_ns)
            tail, head = (self._y(self._places[owner].top + STAYS) for owner in (parent.owner, stay.owner))
            down = 1 if head > tail else -1
            yield Markup('<path class="fork" d="M{0} {1}V{2}m-4 {3}l4 {4}l4 {3}"/>').format(
                x, tail + 9 * down, head - 9 * down, -6 * down, 6 * down
            )

    def _leaks(self) -> Iterator[Markup]:
        """From each store to the reference whose holder reads it, though it should not."""
        from markupsafe import Markup

        for step, held in leaks(self._story, self._unsafe):
            if held not in self._depths or step.owner not in self._places:
                continue
            x, tail, head = self._x(step.ts), self._y(self._places[step.owner].top + STAYS), self._y(self._depths[held])
            down = 1 if head > tail else -1
            yield Markup('<path class="leak" d="M{0} {1}V{2}m-5 {3}l5 {4}l5 {3}"/>').format(
                x, tail + 9 * down, head - 5 * down, -7 * down, 7 * down
            )
            right = x > _WIDTH * 0.6
            yield Markup('<text class="warn" x="{}" y="{}"{}>{}\'s store is read here</text>').format(
                x - 7 if right else x + 7, round((head + tail) / 2 + 4, 1), Markup(' text-anchor="end"') if right else "", step.owner
            )

    def _mark(self, number: int, step: Step) -> Markup:
        from markupsafe import Markup

        x, y = self._x(step.ts), self._y(self._places[step.owner].top + MARKS)
        bad = danger_of(step, self._unsafe) is not None
        state = "bad" if bad else "here" if step == self._act else "step"
        if bad:
            shape = Markup('<path class="bad" d="M{} {}h8l6 6v8l-6 6h-8l-6-6v-8z"/>').format(x - 4, y - 10)
        elif _SYMBOLS.get(step.act) == "diamond":
            shape = Markup('<path class="{}" d="M{} {}l10 10l-10 10l-10-10z"/>').format(state, x, y - 10)
        elif _SYMBOLS.get(step.act) == "square":
            shape = Markup('<rect class="{}" x="{}" y="{}" width="17" height="17"/>').format(state, round(x - 8.5, 1), y - 8.5)
        else:
            shape = Markup('<circle class="{}" cx="{}" cy="{}" r="9"/>').format(state, x, y)
        return shape + Markup('<text class="n {}" x="{}" y="{}">{}</text>').format(state, x, round(y + 4, 1), number)

    def _bands(self) -> Iterator[Markup]:
        from markupsafe import Markup

        if not self._unsafe:
            return
        begin = min(danger.from_ns for danger in self._unsafe)
        ends = [danger.to_ns for danger in self._unsafe]
        first, last = self._x(begin), self._x(None if None in ends else max(end for end in ends if end is not None))
        yield Markup('<rect class="unsafe" x="{}" y="0" width="{}" height="{}"/>').format(
            first, round(max(last - first, 1), 1), self._height
        )
        yield Markup('<path class="edge" d="M{} 0V{}"/>').format(first, self._height)
        right = first > _WIDTH * 0.6
        words = "✖ unsafe: " + ", ".join(dict.fromkeys(danger.rule for danger in self._unsafe))
        yield Markup('<text class="warn" x="{}" y="14"{}>{}</text>').format(
            first - 4 if right else first + 4, Markup(' text-anchor="end"') if right else "", words
        )


def _reaches(one: Held) -> str:
    return f"{'reads' if one.access == 'read' else 'writes'} {printable(one.page)} via {printable(one.via)}"
