"""Intervals: what the spread of repeats says of a difference of means. A bootstrap, resampled by repeat, with a fixed seed.

What one resample draws, it draws for all rows: a repeat is taken, or left, as a whole. The plain percentiles of so few repeats are too
narrow (of two a side they miss the truth one time in three). Here deviations are scaled by sqrt(n / (n - 1)), as resampling knows no
spread but that around its own mean, and the interval is widened as Student's t widens a normal's, for the degrees of freedom that Welch
gives (for one sample: the expanded percentile interval of Hesterberg, "What Teachers Should Know About the Bootstrap", 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 4_000
SEED: Final = 0
#: Rows that are resampled at once: 16 MB.
_ROWS: Final = 512
#: Of Student's t the 97.5th percentile by degrees of freedom, and of the normal distribution.
_T: Final = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 8: 2.306, 10: 2.228, 15: 2.131, 30: 2.042}
_NORMAL: Final = 1.95996


@dataclass(frozen=True)
class Differences:
    """A row each: means of both sides, and after less before with the bounds of its 95 % interval, all float64.

    `low` and `high` are NaN where a side has one repeat: its spread is not known. Where no repeat of a side differs from another, the
    interval has no width: that is what the repeats say, not that they could not differ.
    """

    before: Floats
    after: Floats
    difference: Floats
    low: Floats
    high: Floats


def differences(before: Floats, after: Floats) -> Differences:
    """The differences of the means of two sets of repeats.

    Args:
        before: a row each thing that was measured, a column each repeat, at least one (float64, rows x repeats).
        after: the same rows, and repeats of their own.
    """
    means = before.mean(axis=1), after.mean(axis=1)
    difference = _without_rounding(means[1] - means[0], np.maximum(*np.abs(means)))
    low, high = np.full(len(difference), np.nan), np.full(len(difference), np.nan)
    sizes = before.shape[1], after.shape[1]
    if min(sizes) < 2:
        return Differences(*means, difference, low, high)
    deviations = [
        _without_rounding(side - mean[:, None], np.abs(mean)[:, None]) * np.sqrt(size / (size - 1))
        for side, mean, size in zip((before, after), means, sizes, strict=True)
    ]
    random = np.random.default_rng(SEED)
    weights = [random.multinomial(size, np.full(size, 1 / size), RESAMPLES).T / size for size in sizes]
    wider = _widened(before, after)
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    for start in range(0, len(difference), _ROWS):
        rows = slice(start, start + _ROWS)
        drawn = deviations[1][rows] @ weights[1] - deviations[0][rows] @ weights[0]
        bounds = np.quantile(drawn, tails, axis=1) * wider[rows]
        low[rows], high[rows] = difference[rows] + bounds
    return Differences(*means, difference, low, high)


def _without_rounding(values: Floats, of: Floats) -> Floats:
    """Differences of numbers as large as `of`, 0 where they are no more than the last bits of these."""
    return np.where(np.abs(values) > 1e-12 * of, values, 0.0)


def _widened(before: Floats, after: Floats) -> Floats:
    """How much wider than a normal's an interval is for so few repeats: Student's t, for each row's degrees of freedom."""
    errors = [side.var(axis=1, ddof=1) / side.shape[1] for side in (before, after)]
    total = errors[0] + errors[1]
    parts = sum(error**2 / (side.shape[1] - 1) for error, side in zip(errors, (before, after), strict=True))
    freedom = np.divide(total**2, parts, out=np.ones_like(total), where=parts > 0)
    return student(np.maximum(freedom, 1.0)) / _NORMAL


def student(freedom: Floats) -> Floats:
    """The 97.5th percentile of Student's t (float64); between the degrees of freedom of the table at most 3 % too large.

    Args:
        freedom: degrees of freedom, 1 or more (float64).
    """
    # Nearly straight in these coordinates; np.interp wants them to rise.
    inverse = np.array([0.0, *(1 / each for each in reversed(_T))])
    logarithm = np.log([_NORMAL, *reversed(_T.values())])
    quantile: Floats = np.exp(np.interp(1 / freedom, inverse, logarithm))
    return quantile
