"""What lasts from one event to another, indexed so that what there is at a moment is found without looking at everything."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[Any]

#: Moments at which is noted what there is, at most.
_MOMENTS: Final = 1024
#: Notes for each thing, at most: where much lasts long, there are fewer moments.
_NOTES: Final = 4


class Moments:
    """Things that last: of each the event by which it begins (-1: before all), and the one by which it ends (-1: never).

    At moments spread evenly over the events it is noted what there is; between them, only what begins is looked at.
    """

    def __init__(self, begin: Ints, end: Ints, events: int) -> None:
        """Both int32 or int64, one a thing; `events` is how many events there are."""
        self._end = np.where(end < 0, events, end).astype(np.int64)
        self._begin = begin.astype(np.int64)
        self._in_order = np.argsort(self._begin, kind="stable")
        self._begins = self._begin[self._in_order]
        moments = _MOMENTS
        while moments > 1 and self._notes(moments, events)[1].sum() > _NOTES * begin.size:
            moments //= 2
        first, times = self._notes(moments, events)
        self._step = -(-max(events, 1) // moments)
        noted = np.repeat(np.arange(begin.size), times)
        counted = np.arange(noted.size) - np.repeat(np.cumsum(times) - times, times)
        moment = np.repeat(first, times) + counted
        by_moment = np.argsort(moment, kind="stable")
        self._noted = noted[by_moment]
        self._ends = np.searchsorted(moment[by_moment], np.arange(moments + 1))

    def _notes(self, moments: int, events: int) -> tuple[Ints, Ints]:
        """For each thing the first moment at which it is there, and at how many; moment m is after event m * step."""
        step = -(-max(events, 1) // moments)
        first = np.maximum(-(-self._begin // step), 0)
        last = np.minimum((self._end - 1) // step, moments - 1)
        return first, np.maximum(last - first + 1, 0)

    def at(self, event: int) -> Ints:
        """Numbers of the things that are there after an event, in their order."""
        moment = min(max(event, 0) // self._step, self._ends.size - 2)
        noted = self._noted[self._ends[moment] : self._ends[moment + 1]] if event >= 0 else self._in_order[:0]
        begun = moment * self._step if event >= 0 else -2
        later = self._in_order[slice(*np.searchsorted(self._begins, (begun, event), side="right"))]
        found = np.concatenate([noted, later])
        there: Ints = np.sort(found[(self._begin[found] <= event) & (self._end[found] > event)])
        return there
