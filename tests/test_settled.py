"""A story is called safe only where the trace would show what is unsafe."""

from __future__ import annotations

from engine.build import Machine, address
from handmade import trace_of
from tracetool.analysing import analyse
from tracetool.report import html, json, screen, text
from tracetool.trace import Trace


def recorded(*without: str) -> Trace:
    """A process shares a page with its child, and both store to it."""
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 0x50)
    b = m.fork(a, 11, [(address(0), 1)])
    m.cow(a, address(0), 0x50, 0x51)
    m.cow(b, address(0), 0x50)
    return trace_of(m, without=without)


def test_with_everything_recorded_it_is_safe() -> None:
    trace = recorded()
    analysis = analyse(trace)
    assert all(story.settled for story in analysis.stories)
    assert "✔ safe" in html.render(analysis)


def test_without_an_event_of_gup_it_is_not_settled() -> None:
    trace = recorded("gup_fast")
    analysis = analyse(trace)
    assert {story.standing for story in analysis.stories} == {"inconclusive"}
    page = html.render(analysis)
    assert "▲ not settled" in page
    assert "✔ safe</span>" not in page
    for told in (text.render(analysis), screen.render(analysis), page):
        assert "No reference was held" not in told
    assert "not settled. Nothing unsafe is in the trace, but it lacks the event gup_fast." in " ".join(text.render(analysis).split())
    assert not any(story["settled"] for story in json.to_dict(analysis)["stories"])
