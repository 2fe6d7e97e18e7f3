"""Numbers of records to the rows of their table, many rows at once."""

from __future__ import annotations

from typing import Any, Final

import numpy.typing as npt

from .loops import guarded, part
from .ringbuffer import SPOT_LENGTH, SPOT_SHIFT
from .room import Columns, Plan

Array = npt.NDArray[Any]

#: Numbers that the loop carries from one call to the next: the place in the order of the trace, and how many records were short.
PLACE: Final = 0
SHORT: Final = 1
#: No record is as far.
_FAR: Final = (1 << 63) - 1


@part
def copy_numbers(words: Array, pairs: Array, pid_word: int, plan: Plan, columns: Columns, group: int, state: Array) -> None:
    """Copy the numbers of a table's rows that were passed on since the last time, column by column.

    Many rows at once, because the processor guesses well how a long loop goes on, and badly how many numbers the next record has.
    """
    begin, end = plan.copied[group], plan.rows[group]
    if begin == end:
        return
    spots = columns.spots[plan.spots[group] + begin : plan.spots[group] + end]
    first, last, least = reach(spots)
    copy_words(words, pid_word, spots, first, last, columns.tids[begin:end])
    if least >= plan.needs[group]:
        for copy in range(plan.first[group], plan.split[group]):
            base = plan.bases[copy]
            copy_words(pairs, plan.skips[copy], spots, first, last, columns.doubles[base + begin : base + end])
        for copy in range(plan.split[group], plan.last[group]):
            base = plan.bases[copy]
            copy_words(words, plan.skips[copy], spots, first, last, columns.singles[base + begin : base + end])
    else:
        for row in range(begin, end):
            copy_row(words, pairs, plan, columns, group, row, spots[row - begin], state)
    if not plan.varying[group]:
        # Where its records are need not be known any more: the next take their place.
        plan.spots[group] -= end - begin
    plan.copied[group] = end
    plan.stops[group] = min(end + plan.at_once[group], plan.ends[group])


@guarded
def reach(spots: Array) -> tuple[int, int, int]:
    """Where the first and the last of some records start, and the bytes of the shortest."""
    first, last, least = _FAR, 0, SPOT_LENGTH
    for row in range(len(spots)):
        first = min(first, spots[row])
        last = max(last, spots[row])
        least = min(least, spots[row] & SPOT_LENGTH)
    return first >> SPOT_SHIFT, last >> SPOT_SHIFT, least


@guarded
def copy_words(source: Array, skip: int, spots: Array, first: int, last: int, column: Array) -> None:
    """Copy from each record the word, or double word, that is so many words after its start; `first` and `last` are what `reach` says.

    Raises:
        IndexError: one of them is not in `source`, or the column has not as many rows as there are records.
    """
    if len(column) != len(spots) or first < 0 or skip < 0 or last + skip >= len(source):
        raise IndexError("records outside the data")
    for row in range(len(spots)):
        column[row] = source[(spots[row] >> SPOT_SHIFT) + skip]


@part
def copy_row(words: Array, pairs: Array, plan: Plan, columns: Columns, group: int, row: int, spot: int, state: Array) -> None:
    """Copy the numbers of one record, or note that it is too short for them: then they are 0."""
    start = spot >> SPOT_SHIFT
    whole = (spot & SPOT_LENGTH) >= plan.needs[group]
    for copy in range(plan.first[group], plan.split[group]):
        columns.doubles[plan.bases[copy] + row] = pairs[start + plan.skips[copy]] if whole else 0
    for copy in range(plan.split[group], plan.last[group]):
        columns.singles[plan.bases[copy] + row] = words[start + plan.skips[copy]] if whole else 0
    if not whole:
        short = state[SHORT]
        columns.short[2 * short] = row
        columns.short[2 * short + 1] = spot
        state[SHORT] = short + 1
