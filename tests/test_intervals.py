"""Intervals of differences of means: they cover the truth as often as they say, and claim nothing where there is nothing to tell."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest

from tracetool.intervals import differences, student

PAIRS: Final = 100
#: Distributions of counts as runs have them: by chance, in bursts, nearly always the same.
COUNTS: Final = {
    "poisson": lambda random, mean, shape: random.poisson(mean, shape),
    "bursts": lambda random, mean, shape: random.negative_binomial(4, 4 / (4 + mean), shape),
    "binomial": lambda random, mean, shape: random.binomial(2 * mean, 0.5, shape),
}


def drawn(kind: str, seed: int, before: tuple[int, int], after: tuple[int, int], pairs: int = PAIRS) -> Any:
    """Pairs of sets of counts: (mean, size) of either side."""
    random = np.random.default_rng(seed)
    return [COUNTS[kind](random, mean, (pairs, size)).astype(np.float64) for mean, size in (before, after)]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("kind", COUNTS)
def test_the_interval_covers_the_true_difference_in_90_of_100_pairs_of_sets_of_8(kind: str, seed: int) -> None:
    told = differences(*drawn(kind, seed, (20, 8), (27, 8)))
    assert ((told.low <= 7) & (told.high >= 7)).sum() >= 90


@pytest.mark.parametrize("sizes", [(2, 2), (2, 5), (3, 3), (4, 4), (8, 8), (20, 20)])
def test_sets_of_one_kind_are_told_apart_once_in_twenty_at_most_however_few_repeats(sizes: tuple[int, int]) -> None:
    told = differences(*drawn("poisson", 5, (20, sizes[0]), (20, sizes[1]), pairs=4_000))
    assert ((told.low > 0) | (told.high < 0)).mean() < 0.075


@pytest.mark.parametrize("sizes", [(5, 8), (8, 8), (20, 20)])
def test_the_interval_is_no_wider_than_it_has_to_be(sizes: tuple[int, int]) -> None:
    told = differences(*drawn("poisson", 9, (20, sizes[0]), (27, sizes[1]), pairs=4_000))
    assert 0.925 < ((told.low <= 7) & (told.high >= 7)).mean() < 0.965


def test_a_clear_difference_is_shown() -> None:
    told = differences(*drawn("poisson", 6, (20, 8), (80, 8)))
    assert (told.low > 0).all()
    assert (told.high < 100).all()


def test_more_repeats_make_it_narrower() -> None:
    few, many = (differences(*drawn("poisson", 7, (20, size), (30, size))) for size in (4, 40))
    assert np.median(many.high - many.low) < np.median(few.high - few.low) / 3


def test_one_run_of_a_side_has_no_spread_and_so_no_interval() -> None:
    for before, after in (([[3.0]], [[5.0]]), ([[3.0]], [[5.0, 6.0]]), ([[3.0, 4.0]], [[5.0]])):
        told = differences(np.array(before), np.array(after))
        assert np.isnan([told.low[0], told.high[0]]).all()
        assert told.difference[0] == np.mean(after) - np.mean(before)


def test_runs_that_do_not_differ_have_an_interval_without_width() -> None:
    told = differences(np.full((2, 3), 16.0), np.array([[0.0] * 4, [16.0] * 4]))
    assert told.low.tolist() == told.high.tolist() == told.difference.tolist() == [-16.0, 0.0]


def test_the_last_bits_of_fractions_are_no_difference() -> None:
    """0.1 three times over has another mean, in its last bit, than 0.1 ten times over."""
    before, after = np.full((1, 3), 0.1), np.full((1, 10), 0.1)
    assert before.mean() != after.mean()
    told = differences(before, after)
    assert (told.difference[0], told.low[0], told.high[0]) == (0, 0, 0)


def test_a_row_is_told_the_same_whatever_stands_beside_it() -> None:
    before, after = drawn("bursts", 8, (20, 5), (25, 6), pairs=1_300)
    whole = differences(before, after)
    for row in (0, 511, 512, 1_299):
        alone = differences(before[row : row + 1], after[row : row + 1])
        assert (whole.low[row], whole.high[row]) == pytest.approx((alone.low[0], alone.high[0]))
    again = differences(before, after)
    assert np.array_equal(whole.low, again.low)
    assert np.array_equal(whole.high, again.high)


def test_the_bootstrap_sees_what_a_normal_interval_does_not() -> None:
    """Now and then a run has very much more: the interval reaches further up than down."""
    before, after = np.zeros((1, 8)), np.array([[1.0, 1, 1, 1, 1, 1, 1, 40]])
    told = differences(before, after)
    assert told.high[0] - told.difference[0] > 1.5 * (told.difference[0] - told.low[0])


def test_students_t_is_that_of_the_tables() -> None:
    """Tables of the 97.5th percentile, as any book has them, also where ours has none; in between never too small."""
    known = {1: 12.706, 2: 4.303, 5: 2.571, 7: 2.365, 9: 2.262, 12: 2.179, 20: 2.086, 60: 2.000, 120: 1.980}
    assert student(np.array(list(known), np.float64)) == pytest.approx(list(known.values()), abs=1e-3)
    assert student(np.array([1e12])) == pytest.approx(1.95996)
    freedom = np.linspace(1, 50, 500)
    assert (np.diff(student(freedom)) < 0).all()
