"""Sub-buffers of a ring buffer -> where each record starts, how long it is, when it was made and of which event it is.

The layout is the kernel's (Linux, include/linux/ring_buffer.h and kernel/trace/ring_buffer.c: `struct buffer_data_page`,
`rb_event_length`): a sub-buffer is a u64 time stamp, a long `commit` with the number of bytes used and two flags of lost events, then
records of 4-byte words. Reading it is one pass over the words, in which every length is checked before it is used.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .eventformat import Common
from .loops import index, loop, part

Array = npt.NDArray[Any]

#: Flags and number in `commit`: Linux, kernel/trace/ring_buffer.c, RB_MISSED_EVENTS and RB_MISSED_STORED; libtraceevent, COMMIT_MASK.
MISSED: Final = 1 << 31
MISSED_STORED: Final = 1 << 30
COMMIT_MASK: Final = (1 << 27) - 1
_DELTA: Final = (1 << 27) - 1

#: Kinds of record in five bits of its header; 1..28 are data of as many words, 0 is data with its length in the next word.
PADDING: Final = 29
TIME_EXTEND: Final = 30
TIME_STAMP: Final = 31

#: What the pass found to be missing; the sources of the losses table.
FINE: Final = 0
FLAGGED: Final = 1
CUT_OFF: Final = 2
BAD_COMMIT: Final = 3
BAD_RECORD: Final = 4
BAD_TIME: Final = 5
SOURCES: Final = ("", "sub-buffer flag", "truncated file", "damaged sub-buffer", "damaged record", "damaged time stamp")

#: A gap takes four numbers: the record before which it is, its kind, how many events (-1: not known), the word of its sub-buffer.
GAP: Final = 4
#: A record's payload as one number: the word where it starts, shifted, and its bytes. No record is larger than a sub-buffer.
SPOT_SHIFT: Final = 21
SPOT_LENGTH: Final = (1 << SPOT_SHIFT) - 1
#: The group of an event that nobody asked for.
UNWANTED: Final = -1
EVENTS: Final = 1 << 16

#: Places in the state of a stream: the greatest time so far, whether time ever went back.
LATEST: Final = 0
WENT_BACK: Final = 1
STATE: Final = 2


class Layout(NamedTuple):
    """How a file's records lie.

    Attributes:
        type_at: byte of the u16 `common_type` in a record.
        least: bytes of the smallest possible record.
        long_words: words of a kernel's long, 1 or 2.
        swapped: 1 where the file is big endian, else 0.
    """

    type_at: int
    least: int
    long_words: int
    swapped: int

    @classmethod
    def of(cls, common: Common, long_size: int, order: str) -> Layout:
        """Of a file with such common fields, kernel and byte order."""
        return cls(common.type_at, common.size, long_size // 4, int(order == "big"))

    def most_records(self, page_size: int) -> int:
        """More records than a sub-buffer of so many bytes holds."""
        return page_size // 4 // (1 + (self.least + 3) // 4) + 1


class Ahead(NamedTuple):
    """Records that were found and not yet passed on: each stream has a stretch of these arrays.

    Attributes:
        spots: int64, where the payload is (SPOT_SHIFT).
        times: int64, time stamps.
        groups: int32, which of the tables asked for it belongs to, UNWANTED for none.
    """

    spots: Array
    times: Array
    groups: Array

    @classmethod
    def room(cls, records: int) -> Ahead:
        """Room for so many records."""
        return cls(np.empty(records, np.int64), np.empty(records, np.int64), np.empty(records, np.int32))


@part
def word(words: Array, at: int, swapped: int) -> int:
    """The word at `at` as a number that does not overflow: 64 bits wide when compiled."""
    value = words[index(at)] & 0xFFFFFFFF
    if swapped:
        value = (value >> 24) | ((value >> 8) & 0xFF00) | ((value << 8) & 0xFF0000) | ((value & 0xFF) << 24)
    return value  # type: ignore[no-any-return]


@part
def scan_page(
    words: Array,
    at: int,
    limit: int,
    time: int,
    layout: Layout,
    groups: Array,
    keep: int,
    counts: Array,
    state: Array,
    ahead: Ahead,
    event: int,
) -> tuple[int, int]:
    """Note the records of one sub-buffer, which lie in words[at:limit]; returns the next record's number and what is wrong."""
    swapped = layout.swapped
    least = layout.least
    type_word = layout.type_at >> 2
    # Of the two halves of a word the first byte's is the low one, in a big-endian file the high one.
    type_shift = ((layout.type_at & 2) ^ (2 if swapped else 0)) << 3
    latest = state[LATEST]
    fault = FINE
    while at < limit:
        head = word(words, at, swapped)
        if swapped:
            kind, delta = head >> 27, head & _DELTA
        else:
            kind, delta = head & 31, head >> 5
        if 0 < kind < PADDING:
            start, length = at + 1, kind << 2
            at = start + kind
        else:
            if kind == PADDING and delta == 0:
                break
            if at + 1 >= limit:
                fault = BAD_RECORD
                break
            second = word(words, at + 1, swapped)
            if kind == PADDING:
                # An event that was taken back; later deltas count from it. Its length may reach past the end: then it was the last.
                time += delta
                at += 1 + ((second + 3) >> 2)
                continue
            if kind >= TIME_EXTEND:
                extended = (second << 27) + delta
                # An absolute stamp has 59 bits; the five above are those of the sub-buffer's own.
                time = time + extended if kind == TIME_EXTEND else ((time >> 59) << 59) | extended
                if time >> 62:
                    fault = BAD_TIME
                    break
                at += 2
                continue
            start, length = at + 2, second - 4
            at = start + ((length + 3) >> 2)
        if length < least or at > limit:
            fault = BAD_RECORD
            break
        time += delta
        number = (word(words, start + type_word, swapped) >> type_shift) & 0xFFFF
        counts[index(number)] += 1
        if time < latest:
            state[WENT_BACK] = 1
        else:
            latest = time
        group = groups[index(number)]
        if group >= 0 or keep:
            ahead.spots[index(event)] = (start << SPOT_SHIFT) | length
            ahead.times[index(event)] = time
            ahead.groups[index(event)] = group
            event += 1
    state[LATEST] = latest
    return event, fault


@part
def scan_pages(
    words: Array,
    begin: int,
    end: int,
    stride: int,
    layout: Layout,
    groups: Array,
    keep: int,
    counts: Array,
    state: Array,
    ahead: Ahead,
    event: int,
    room: int,
    most: int,
    gaps: Array,
) -> tuple[int, int, int]:
    """Note the records of one stream, the sub-buffers of `stride` words in words[begin:end], as long as there is room.

    Records of events that have a group are written to `ahead` from number `event` on and before number `room`, those of all other events
    only where `keep` is 1; a sub-buffer holds at most `most`. Every record is counted in `counts`. At most two gaps a sub-buffer are
    written to `gaps`. A sub-buffer that is damaged is read up to the damage, and the next one after it.

    Returns:
        the word of the next sub-buffer, the number after the last record, the number of gaps.
    """
    swapped = layout.swapped
    gap = 0
    most_gaps = len(gaps) // GAP - 2
    header = 2 + layout.long_words
    page = begin
    while page < end and event + most <= room and gap <= most_gaps:
        stop = min(page + stride, end)
        fault = FINE
        if page + header > stop:
            fault = CUT_OFF
        else:
            high = 0 if swapped else 1
            top = word(words, page + high, swapped)
            time = word(words, page + 1 - high, swapped) | (top << 32)
            # `commit` is a long, and its flags are in the low 32 bits.
            commit = word(words, page + 2 + (layout.long_words - 1 if swapped else 0), swapped)
            first = page + header
            used = first + ((commit & COMMIT_MASK) >> 2)
            if commit & MISSED:
                lost = -1
                if commit & MISSED_STORED and used + layout.long_words <= stop:
                    # The kernel counts in a long; more than 31 bits of it are not a count.
                    lost = word(words, used + (layout.long_words - 1 if swapped else 0), swapped)
                    if layout.long_words == 2 and word(words, used + high, swapped) != 0:
                        lost = -1
                gaps[gap * GAP] = event
                gaps[gap * GAP + 1] = FLAGGED
                gaps[gap * GAP + 2] = lost
                gaps[gap * GAP + 3] = page
                gap += 1
            if top >> 30:
                fault = BAD_TIME
            elif used > page + stride:
                fault = BAD_COMMIT
            else:
                limit = min(used, stop)
                event, fault = scan_page(words, first, limit, time, layout, groups, keep, counts, state, ahead, event)
                if limit < used:
                    fault = CUT_OFF
        if fault != FINE:
            gaps[gap * GAP] = event
            gaps[gap * GAP + 1] = fault
            gaps[gap * GAP + 2] = -1
            gaps[gap * GAP + 3] = page
            gap += 1
        page += stride
    return min(page, end), event, gap


@loop
def scan(
    words: Array,
    begin: int,
    end: int,
    stride: int,
    layout: Layout,
    groups: Array,
    keep: int,
    counts: Array,
    state: Array,
    ahead: Ahead,
    event: int,
    room: int,
    most: int,
    gaps: Array,
) -> tuple[int, int, int]:
    """`scan_pages`, called from outside."""
    return scan_pages(words, begin, end, stride, layout, groups, keep, counts, state, ahead, event, room, most, gaps)
