"""The streams are merged, and each record goes straight to the next row of its table.

A record is passed on a moment after it was found, and its numbers are copied a moment later, while it is in the processor's cache; what is
written stays where it is.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy.typing as npt

from .copying import PLACE, SHORT, copy_numbers
from .loops import guarded, loop, part
from .merge import Heads, leave, rival_of, sift
from .ringbuffer import STATE, Ahead, Layout, scan_pages
from .room import MOST_SHORT, Columns, Plan

Array = npt.NDArray[Any]

#: Why the loop came back: all is done, a stretch has ended, a table has no room, too many short records.
DONE: Final = 0
EMPTY: Final = 1
FULL: Final = 2
#: No time is as late.
NEVER: Final = (1 << 63) - 1


class Supply(NamedTuple):
    """Where the records of the streams come from: what is left of the stretch of each, and how it is scanned.

    Attributes:
        cpus, buffers: int32, for each stream its CPU and the number of its buffer.
        pages, ends: int64, the word of the next sub-buffer to scan, and the one after the last.
        strides, most: int64, words of a sub-buffer, and how many records are in one at most.
        begins, rooms: int64, the stretch of `Ahead` that is the stream's.
        states: int64, the scan's state of each stream, `ringbuffer.STATE` numbers for each.
        layout, groups, keep, counts, gaps: as of `ringbuffer.scan_pages`.
        held: 1 where somebody must see the records that were found before they are passed on.
    """

    cpus: Array
    buffers: Array
    pages: Array
    ends: Array
    strides: Array
    most: Array
    begins: Array
    rooms: Array
    states: Array
    layout: Layout
    groups: Array
    keep: int
    counts: Array
    gaps: Array
    held: int


@part
def look_ahead(words: Array, supply: Supply, ahead: Ahead, heads: Heads, stream: int) -> None:
    """Find the next records of a stream in what is left of its stretch; none where there are none."""
    begin = supply.begins[stream]
    heads.next[stream] = heads.last[stream] = begin
    state = supply.states[STATE * stream : STATE * stream + STATE]
    while supply.pages[stream] < supply.ends[stream] and heads.last[stream] == begin:
        supply.pages[stream], heads.last[stream], _ = scan_pages(
            words,
            supply.pages[stream],
            supply.ends[stream],
            supply.strides[stream],
            supply.layout,
            supply.groups,
            supply.keep,
            supply.counts,
            state,
            ahead,
            begin,
            supply.rooms[stream],
            supply.most[stream],
            supply.gaps,
        )


@loop
def look(words: Array, supply: Supply, ahead: Ahead, heads: Heads, stream: int) -> None:
    """`look_ahead`, called from outside."""
    look_ahead(words, supply, ahead, heads, stream)


@part
def check_plan(plan: Plan, columns: Columns) -> None:
    """Raise an IndexError where a plan has a place that is not in the columns."""
    rows = len(columns.times)
    for group in range(len(plan.rows)):
        copied, spots, end = plan.copied[group], plan.spots[group], plan.ends[group]
        # What is kept of each record takes a place for each row, what is kept for a while those of the rows that are copied at once.
        last = spots + (end if plan.varying[group] else copied + plan.at_once[group])
        in_order = 0 <= copied <= plan.rows[group] <= plan.stops[group] <= min(end, copied + plan.at_once[group])
        if not in_order or end > rows or spots + copied < 0 or last > len(columns.spots):
            raise IndexError("a plan without room")
    several, placed = len(columns.buffers) > 0, len(columns.places) > 0
    if len(columns.cpus) < rows or (several and len(columns.buffers) < rows) or (placed and len(columns.places) < rows):
        raise IndexError("columns without room")


@guarded
def pass_on(ahead: Ahead, record: int, stop: int, latest: int, cpu: int, buffer: int, place: int, plan: Plan, columns: Columns) -> int:
    """Pass on records of one stream as long as they are not later than `latest` and there is room for them, which `check_plan` has seen.

    Returns:
        the first record that was not passed on.
    """
    times, groups, spots = ahead.times, ahead.groups, ahead.spots
    if record < 0 or not stop <= len(times) == len(groups) == len(spots):
        raise IndexError("records that were not found")
    tables = len(plan.rows)
    several, placed = len(columns.buffers) > 0, len(columns.places) > 0
    while record < stop and times[record] <= latest:
        group = groups[record]
        if group >= 0:
            if group >= tables:
                raise IndexError("a table that is not in the plan")
            row = plan.rows[group]
            if row >= plan.stops[group]:
                break
            columns.spots[plan.spots[group] + row] = spots[record]
            columns.times[row] = times[record]
            columns.cpus[row] = cpu
            if several:
                columns.buffers[row] = buffer
            if placed:
                columns.places[row] = place
            plan.rows[group] = row + 1
        place += 1
        record += 1
    return record


@loop
def gather(
    words: Array,
    pairs: Array,
    supply: Supply,
    ahead: Ahead,
    heads: Heads,
    pid_word: int,
    until: int,
    plan: Plan,
    columns: Columns,
    state: Array,
) -> int:
    """Pass on the records of the streams in the order of the trace, those before the time `until` (units of the clock).

    It comes back when all is done: DONE; when no records are left in the stretch of a stream, the first of the heap: EMPTY; when a table
    has no room, or too many records are short: FULL. The first stream of the heap may have got new records since the last call, or none:
    then it has ended.
    """
    check_plan(plan, columns)
    times = ahead.times
    heap, following, lasts = heads.heap, heads.next, heads.last
    if heads.size[0]:
        if following[heap[0]] == lasts[heap[0]]:
            leave(times, heads)
        else:
            sift(times, heads)
    why = DONE
    while heads.size[0]:
        stream = heap[0]
        record, stop = following[stream], lasts[stream]
        if until != NEVER and times[record] >= until:
            break
        # One stream goes on as long as it is before its nearest rival: records of one CPU come in runs.
        rival = rival_of(times, heads)
        latest = NEVER if rival < 0 else times[following[rival]] - (0 if stream < rival else 1)
        if until != NEVER:
            latest = min(latest, until - 1)
        passed = pass_on(ahead, record, stop, latest, supply.cpus[stream], supply.buffers[stream], state[PLACE], plan, columns)
        following[stream] = passed
        state[PLACE] += passed - record
        if passed == stop:
            if not supply.held:
                look_ahead(words, supply, ahead, heads, stream)
            if following[stream] == lasts[stream]:
                why = EMPTY
                break
        elif times[passed] <= latest:
            group = ahead.groups[passed]
            copy_numbers(words, pairs, pid_word, plan, columns, group, state)
            if plan.rows[group] == plan.ends[group] or state[SHORT] >= MOST_SHORT:
                why = FULL
                break
            continue
        sift(times, heads)
    for group in range(len(plan.rows)):
        copy_numbers(words, pairs, pid_word, plan, columns, group, state)
    return why
