"""The picture: where it puts bars, marks and warnings."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from report import example
from tracetool.analysis import Held, Story
from tracetool.report import figures, geometry, storyline

STORIES = example.mail().stories


def drawn(policy: int, kind: geometry.Spacing = "time") -> dict[str, Any]:
    found = example.mail()
    story = found.stories[policy]
    return figures.picture(story, found.stories, storyline.dangers(found, story), kind)


def numbers(values: Any) -> list[float]:
    """A column as plotly's JSON has it: a list, or a typed array in base64."""
    if isinstance(values, list):
        return [float(each) for each in values]
    column: list[float] = np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).astype(float).tolist()
    return column


def bars(figure: dict[str, Any], hatched: bool) -> dict[str, list[tuple[float, float]]]:
    """Begin and end of each bar in ms, by colour."""
    found: dict[str, list[tuple[float, float]]] = {}
    for trace in figure["data"]:
        if trace["type"] == "bar" and ("pattern" in trace["marker"]) == hatched:
            begin, length = numbers(trace["base"]), numbers(trace["x"])
            found[trace["marker"]["color"]] = [(round(b, 6), round(b + n, 6)) for b, n in zip(begin, length, strict=True)]
    return found


def test_each_stay_is_a_bar_in_the_colour_of_its_page() -> None:
    assert bars(drawn(0), hatched=False) == {
        "var(--page-0)": [(0, 4.996), (1.352, 5.936)],
        "var(--page-1)": [(4.996, 8.908)],
        "var(--page-2)": [(5.936, 6.83)],
    }


def test_under_mapcount_b_keeps_the_page_that_the_reference_reads() -> None:
    figure = drawn(1)
    assert bars(figure, hatched=False)["var(--page-0)"] == [(0, 4.996), (1.352, 6.83)]
    assert bars(figure, hatched=True) == {"var(--page-0)": [(4.251, 6.317)]}


def test_a_page_keeps_its_colour_under_every_policy() -> None:
    for policy in range(4):
        assert bars(drawn(policy), hatched=False)["var(--page-1)"] == [(4.996, 8.908)]


def test_the_unsafe_moment_is_a_word_a_shape_and_a_line() -> None:
    figure = drawn(1)
    warning = next(note for note in figure["layout"]["annotations"] if "unsafe" in note["text"])
    assert warning["text"] == "✖ unsafe: missed-cow"
    assert [round(shape["x0"], 6) for shape in figure["layout"]["shapes"]] == [5.936, 5.936]
    marks = next(trace for trace in figure["data"] if trace.get("mode") == "markers+text")
    assert [text for text, symbol in zip(marks["text"], marks["marker"]["symbol"], strict=True) if symbol == "octagon"] == ["5"]


def test_dangers_that_overlap_share_a_band() -> None:
    dangers = [
        storyline.Danger("missed-cow", "certain", example.START + ms * 1_000_000, end and example.START + end * 1_000_000)
        for ms, end in ((1, 3), (2, 4), (6, 7), (7, None))
    ]
    shapes = figures.picture(STORIES[1], STORIES, dangers, "time")["layout"]["shapes"]
    edge = geometry.axis(STORIES, "time").layout["range"][1]
    assert [(s["x0"], s["x1"]) for s in shapes if s["type"] == "rect"] == [(1, 4), (6, pytest.approx(edge))]


def test_a_safe_policy_has_no_warning() -> None:
    figure = drawn(2)
    assert not any("unsafe" in note["text"] for note in figure["layout"]["annotations"])
    assert not figure["layout"].get("shapes")


def test_an_arrow_leads_from_the_parent_to_the_child_at_the_fork() -> None:
    arrows = [note for note in drawn(0)["layout"]["annotations"] if note["showarrow"]]
    assert [(round(a["x"], 6), round(a["ax"], 6), a["ay"] > a["y"]) for a in arrows] == [(1.352, 1.352, True)]


def test_step_by_step_gives_each_moment_the_same_space() -> None:
    figure = drawn(0, "steps")
    assert bars(figure, hatched=False)["var(--page-0)"] == [(0, 3), (1, 4)]
    assert figure["layout"]["xaxis"]["ticktext"][:3] == ["+0.000", "+1.352", "+4.251"]


def test_crowded_moments_are_shown_step_by_step() -> None:
    assert geometry.spacing(STORIES) == "time"
    story = STORIES[0]
    near = replace(story.steps[4], ts=story.steps[3].ts + 1000)
    assert geometry.spacing([replace(story, steps=(*story.steps[:4], near, *story.steps[5:]))]) == "steps"


def test_what_has_no_end_is_drawn_to_the_edge() -> None:
    along = geometry.axis(STORIES, "time")
    begin, length = along.extent([replace(STORIES[0].stays[0], to_ns=None)])
    assert (begin + length).tolist() == pytest.approx([along.layout["range"][1]])


def test_nanoseconds_survive_a_clock_that_has_run_for_a_year() -> None:
    year = 365 * 86_400 * 10**9
    story = example.story("observed", copies=True)
    steps = tuple(replace(step, ts=step.ts + year) for step in story.steps)
    late = replace(story, steps=steps, stays=(), references=())
    along = geometry.axis([late], "time")
    assert along.place([year + example.START + 1])[0] == pytest.approx(1e-6)


def test_overlapping_references_lie_in_rows_of_their_own() -> None:
    def held(begin: int, end: int | None) -> Held:
        return Held("A", "P0", begin, end, "get", "read", "vmsplice", "exact")

    assert geometry.packed([held(0, 10), held(5, None), held(10, 20), held(12, 13), held(13, 30)]) == (0, 1, 0, 2, 2)


def test_lanes_do_not_overlap() -> None:
    found, height = geometry.lanes(STORIES[0])
    deepest = found["A"].top + geometry.REFERENCES + geometry.REFERENCE_ROW / 2
    assert deepest < found["B"].top + geometry.TITLE
    assert found["B"].top + geometry.STAYS < height


def test_the_picture_keeps_its_budgets_and_says_so() -> None:
    found = example.large(stays=2500, owners=50, rows=1)
    figure = figures.picture(found.stories[0], found.stories, (), "time")
    shown = sum(len(numbers(trace["x"])) for trace in figure["data"] if trace["type"] == "bar")
    assert 0 < shown <= geometry.BARS_SHOWN
    assert figures.left_out(found.stories[0]) == "showing 2,000 of 2,500 bars, showing 40 of 50 owners"
    assert figures.left_out(STORIES[0]) == ""


def test_tags_in_foreign_names_are_shown_not_obeyed() -> None:
    story: Story = example.hostile('<a href="http://x">\x1b').stories[0]
    figure = figures.picture(story, [story], (), "time")
    title = figure["layout"]["annotations"][0]["text"]
    assert title == "<b>A</b> &lt;a href=&quot;http://x&quot;&gt;\\x1b 115"


def test_a_story_without_steps_can_be_drawn() -> None:
    bare = replace(STORIES[0], steps=(), stays=(), references=())
    for kind in ("time", "steps"):
        assert figures.picture(bare, [bare], (), kind)["layout"]["xaxis"]["range"]
