"""What there is at a moment: the index finds what a look at everything finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracetool.replay import moments
from tracetool.replay.moments import Moments

SPANS = st.lists(st.tuples(st.integers(-1, 60), st.one_of(st.just(-1), st.integers(0, 60))), max_size=40)


@pytest.mark.parametrize("most", [1, 4, 1024])
@given(spans=SPANS)
def test_all_that_is_there_is_found_in_order(most: int, spans: list[tuple[int, int]]) -> None:
    begin, end = np.array(spans, np.int32).reshape(-1, 2).T
    before, moments._MOMENTS = moments._MOMENTS, most  # type: ignore[misc]
    try:
        index = Moments(begin, end, 61)
    finally:
        moments._MOMENTS = before  # type: ignore[misc]
    for event in (-1, 0, 1, 7, 30, 59, 60, 100):
        there = [number for number, (first, last) in enumerate(spans) if first <= event and (last < 0 or last > event)]
        expected = [number for number in there if event < 61 or spans[number][1] < 0]
        assert index.at(event).tolist() == (expected if event < 61 else []), event


def test_what_lasts_for_ever_costs_no_more_than_a_few_notes_each() -> None:
    index = Moments(np.zeros(1000, np.int32), np.full(1000, -1, np.int32), 1_000_000)
    assert index._noted.size <= 4 * 1000
    assert index.at(999_999).size == 1000
