"""The picture: the life of a page family over time, one lane an owner, as plotly figures in plain JSON values.

Colours are CSS variables (`var(--ink)`): the page resolves them when it draws, so that the picture follows light and dark.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from tracetool.analysis import Held, Stay, Step, Story
from tracetool.foreign import printable
from tracetool.report.geometry import (
    BARS_SHOWN,
    LANES_SHOWN,
    MARKS,
    REFERENCE_ROW,
    REFERENCES,
    STAYS,
    STEPS_SHOWN,
    TITLE,
    Axis,
    Lane,
    Spacing,
    axis,
    lanes,
)  # fmt: skip
from tracetool.report.storyline import COLOURS, Danger, danger_of, leaks, page_names

_ROW_PIXELS: Final = 44
# More would hide each other; the steps name every one.
_WARNINGS_SHOWN: Final = 4
_ABOVE, _BELOW = 36, 58
_SYMBOLS: Final = {"fork": "diamond", "copy": "square", "reuse": "hexagon", "store": "triangle-down", "swap": "pentagon"}
#: Acts whose own names would leave their neighbours no room.
_WORDS: Final = {"reference": "take", "release": "drop"}
#: As wide as half a mark.
_CLEAR: Final = "\u00a0" * 4


def picture(story: Story, stories: Sequence[Story], unsafe: Sequence[Danger], kind: Spacing) -> dict[str, Any]:
    """One story as a figure (`data`, `layout`); `stories` are those that share its axis and its colours.

    At most BARS_SHOWN bars, STEPS_SHOWN marks and LANES_SHOWN lanes are drawn: see `left_out`.
    """
    along = axis(stories, kind)
    places, height = lanes(story)
    stays = [stay for stay in story.stays[:BARS_SHOWN] if stay.owner in places]
    held = [one for one in story.references[: BARS_SHOWN - len(stays)] if one.owner in places]
    depths = _depths(held, places)
    traces: list[dict[str, Any]] = []
    for i, page in enumerate(page_names(stories)):
        if bars := [stay for stay in stays if stay.page == page]:
            traces.append(_stay_bars(bars, i % COLOURS, places, along))
        if found := [pair for pair in zip(held, depths, strict=True) if pair[0].page == page]:
            traces.append(_reference_bars(found, i % COLOURS, along))
    steps = [(number, step) for number, step in enumerate(story.steps[:STEPS_SHOWN], 1) if step.owner in places]
    traces += _marks(steps, places, along, unsafe)
    deep, read = dict(zip(held, depths, strict=True)), leaks(story, unsafe)[:_WARNINGS_SHOWN]
    notes = [*_titles(story, places), *_labels(deep, [one for _, one in read], along), *_forks(story, stays, places, along)]
    notes += [*_leaks(read, deep, places, along), *_warnings(unsafe, along)]
    return {"data": traces, "layout": {**_layout(along, height), "annotations": notes, "shapes": _bands(unsafe, along)}}


def left_out(story: Story) -> str:
    """What the picture and its list of steps do not show, in words; empty where it shows everything."""
    bars, owners = len(story.stays) + len(story.references), len(story.owners)
    told = [f"showing {BARS_SHOWN:,} of {bars:,} bars"] if bars > BARS_SHOWN else []
    told += [f"showing {STEPS_SHOWN:,} of {len(story.steps):,} steps"] if len(story.steps) > STEPS_SHOWN else []
    told += [f"showing {LANES_SHOWN:,} of {owners:,} owners"] if owners > LANES_SHOWN else []
    return ", ".join(told)


def _depths(held: Sequence[Held], places: dict[str, Lane]) -> list[float]:
    rows = {owner: iter(lane.rows) for owner, lane in places.items()}
    return [places[one.owner].top + REFERENCES + REFERENCE_ROW * next(rows[one.owner]) for one in held]


def _stay_bars(bars: Sequence[Stay], colour: int, places: dict[str, Lane], along: Axis) -> dict[str, Any]:
    begin, length = along.extent(bars)
    return {
        "type": "bar", "orientation": "h", "base": _short(begin), "x": _short(length), "width": 0.62,
        "y": [round(-places[bar.owner].top - STAYS, 3) for bar in bars],
        "text": [_shown(bar.page) for bar in bars], "textposition": "inside", "insidetextanchor": "middle", "textangle": 0,
        "textfont": {"color": f"var(--on-page-{colour})", "size": 15},
        # Outlines would cover bars of a pixel or two.
        "marker": {"color": f"var(--page-{colour})", "line": {"color": "var(--ink)", "width": 1 if len(bars) < 100 else 0}},
        "hoverinfo": "text",
        "hovertext": [f"{_shown(b.owner)} maps {_shown(b.page)}<br>began: {_shown(b.began)}, ended: {_shown(b.ended)}" for b in bars],
    }  # fmt: skip


def _reference_bars(found: Sequence[tuple[Held, float]], colour: int, along: Axis) -> dict[str, Any]:
    held = [one for one, _ in found]
    begin, length = along.extent(held)
    # Hatched: whoever holds a reference reaches the page past every page table.
    fill = f"var(--page-{colour})"
    pattern = {"shape": "/", "fillmode": "replace", "fgcolor": fill, "bgcolor": "var(--paper)", "size": 7, "solidity": 0.5}
    return {
        "type": "bar", "orientation": "h", "base": _short(begin), "x": _short(length), "width": 0.26,
        "y": [round(-depth, 3) for _, depth in found],
        "marker": {"color": fill, "line": {"color": "var(--ink)", "width": 1}, "pattern": pattern},
        "hoverinfo": "text", "hovertext": [f"{_reaches(one)}<br>{_shown(one.kind)}; end: {_shown(one.released)}" for one in held],
    }  # fmt: skip


def _marks(steps: Sequence[tuple[int, Step]], places: dict[str, Lane], along: Axis, unsafe: Sequence[Danger]) -> list[dict[str, Any]]:
    x = _short(along.place([step.ts for _, step in steps]))
    y = [round(-places[step.owner].top - MARKS, 3) for _, step in steps]
    bad = [danger_of(step, unsafe) is not None for _, step in steps]
    symbols = ["octagon" if b else _SYMBOLS.get(step.act, "circle") for b, (_, step) in zip(bad, steps, strict=True)]
    fill = ["var(--danger)" if b else "var(--paper)" for b in bad]
    numbers = {
        "type": "scatter", "x": x, "y": y, "mode": "markers+text", "text": [str(number) for number, _ in steps], "cliponaxis": False,
        "textfont": {"size": 12, "color": ["var(--on-danger)" if b else "var(--ink)" for b in bad]},
        "marker": {"size": 22, "symbol": symbols, "color": fill, "line": {"color": "var(--ink)", "width": 1.2}, "opacity": 1},
        "hoverinfo": "text", "hovertext": [_shown(step.text) for _, step in steps],
    }  # fmt: skip
    # A trace of its own, so that a narrow page can leave the words out.
    words = {
        "type": "scatter", "x": x, "y": [each if b else round(each + 0.42, 3) for each, b in zip(y, bad, strict=True)], "mode": "text",
        "text": [_shown(_WORDS.get(step.act, step.act)) + _CLEAR * b for b, (_, step) in zip(bad, steps, strict=True)],
        # What is unsafe has an arrow above it.
        "textposition": ["middle left" if b else "middle center" for b in bad], "textfont": {"size": 12, "color": "var(--soft)"},
        "hoverinfo": "skip", "meta": "words", "cliponaxis": False,
    }  # fmt: skip
    return [numbers, words]


def _titles(story: Story, places: dict[str, Lane]) -> list[dict[str, Any]]:
    return [
        _note(f"<b>{_shown(owner)}</b> {_shown(story.owners[owner])}", 14, x=0, xref="paper", xanchor="left", y=-lane.top - TITLE)
        for owner, lane in places.items()
    ]


def _labels(depths: dict[Held, float], read: Collection[Held], along: Axis) -> Iterable[dict[str, Any]]:
    """What each reference does, beneath its bar; of those that are `read` beside it, out of the way of the arrow, where there is room."""
    begin, length = along.extent(list(depths))
    left, right = along.layout["range"]
    for (one, depth), x, width in zip(depths.items(), begin.tolist(), length.tolist(), strict=True):
        if one in read and x > left + (right - left) * 0.35:
            yield _note(_reaches(one), 12, x=x, xanchor="right", xshift=-4, y=-depth, yanchor="middle")
        else:
            yield _note(
                _reaches(one), 12, y=-depth - 0.16, yanchor="top", bgcolor="var(--paper)", borderpad=0, **along.beside(x, x + width)
            )


def _forks(story: Story, stays: Sequence[Stay], places: dict[str, Lane], along: Axis) -> list[dict[str, Any]]:
    """An arrow from the parent's bar to each stay that a fork began."""
    forks = [step for step in story.steps if step.act == "fork" and step.owner in places]
    arrows = []
    for stay in stays:
        parent = min(forks, key=lambda step: abs(step.ts - stay.from_ns), default=None)
        if parent is None or parent.owner == stay.owner or stay.began not in {"fork", "early-copy"}:
            continue
        x = along.place([stay.from_ns]).item()
        tail, head = -places[parent.owner].top - STAYS - 0.31, -places[stay.owner].top - STAYS + 0.31
        arrows.append({
            "x": x, "y": head, "ax": x, "ay": tail, "axref": "x", "ayref": "y", "xref": "x", "yref": "y",
            "text": "", "showarrow": True, "arrowhead": 2, "arrowwidth": 1.5, "arrowcolor": "var(--ink)",
        })  # fmt: skip
    return arrows


def _leaks(read: Sequence[tuple[Step, Held]], depths: dict[Held, float], places: dict[str, Lane], along: Axis) -> Iterable[dict[str, Any]]:
    """An arrow from each store to the reference whose holder reads it, though it should not."""
    for step, held in read:
        if held not in depths or step.owner not in places:
            continue
        x = along.place([step.ts]).item()
        up = 1 if -depths[held] > -places[step.owner].top else -1
        tail = -places[step.owner].top - (MARKS - 0.28 if up > 0 else STAYS + 0.31)
        head = -depths[held] - 0.13 * up
        yield {
            "x": x, "y": head, "ax": x, "ay": tail, "axref": "x", "ayref": "y", "xref": "x", "yref": "y",
            "text": "", "showarrow": True, "arrowhead": 2, "arrowwidth": 3, "arrowcolor": "var(--danger)",
        }  # fmt: skip
        told = f"{_shown(step.owner)}'s store is read here"
        yield _note(told, 12, "var(--danger)", y=(head + tail) / 2, bgcolor="var(--paper)", xshift=6, **along.beside(x, x))


def _warnings(unsafe: Sequence[Danger], along: Axis) -> list[dict[str, Any]]:
    style = {"bgcolor": "var(--danger)", "borderpad": 4, "y": 1.0, "yref": "paper", "yanchor": "bottom"}
    named = unsafe[:_WARNINGS_SHOWN]
    begins = along.place([danger.from_ns for danger in named]).tolist()
    return [
        _note(f"✖ unsafe: {_shown(danger.rule)}", 13, "var(--on-danger)", **style, **along.beside(x, x))
        for danger, x in zip(named, begins, strict=True)
    ]


def _bands(unsafe: Sequence[Danger], along: Axis) -> list[dict[str, Any]]:
    # Dangers that overlap share a band: laid over each other they would turn opaque.
    bands: list[tuple[int, int]] = []
    for danger in unsafe:
        begin, end = danger.from_ns, along.end if danger.to_ns is None else danger.to_ns
        if bands and begin <= bands[-1][1]:
            begin, end = bands[-1][0], max(end, bands.pop()[1])
        bands.append((begin, end))
    tall = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    red = {"type": "rect", "fillcolor": "var(--danger)", "opacity": 0.16, "line": {"width": 0}}
    dashed = {"type": "line", "line": {"color": "var(--danger)", "width": 2, "dash": "dash"}}
    shapes = []
    for first, last in (along.place(band).tolist() for band in bands):
        shapes += [{**tall, **red, "x0": first, "x1": last}, {**tall, **dashed, "x0": first, "x1": first}]
    return shapes


def _note(text: str, size: int, colour: str = "var(--ink)", **where: Any) -> dict[str, Any]:
    return {"text": text, "showarrow": False, "font": {"size": size, "color": colour}, **where}


def _short(places: Iterable[float]) -> list[float]:
    # A picture is some thousand pixels wide.
    return [round(float(place), 6) for place in places]


def _reaches(one: Held) -> str:
    return f"{'reads' if one.access == 'read' else 'writes'} {_shown(one.page)} via {_shown(one.via)}"


def _shown(foreign: str) -> str:
    # plotly takes tags in any text for markup.
    return html.escape(printable(foreign))


def _layout(along: Axis, rows: float) -> dict[str, Any]:
    clear = "rgba(0,0,0,0)"
    lines = {"showgrid": True, "gridcolor": "var(--line)", "zeroline": False, "ticks": "outside", "tickcolor": "var(--line)"}
    return {
        "template": "none", "height": round(rows * _ROW_PIXELS) + _ABOVE + _BELOW, "margin": {"l": 8, "r": 8, "t": _ABOVE, "b": _BELOW},
        "barmode": "overlay", "showlegend": False, "hovermode": "closest", "dragmode": False, "uniformtext": {"minsize": 9, "mode": "hide"},
        "paper_bgcolor": clear, "plot_bgcolor": clear, "font": {"color": "var(--ink)", "family": "system-ui, sans-serif", "size": 13},
        "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--ink)", "font": {"color": "var(--ink)"}},
        "modebar": {"bgcolor": clear, "color": "var(--soft)", "activecolor": "var(--ink)"},
        "xaxis": {**lines, **along.layout},
        "yaxis": {"visible": False, "fixedrange": True, "range": [-rows, 0]},
    }  # fmt: skip
