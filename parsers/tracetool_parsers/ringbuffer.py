"""Sub-buffers of a ring buffer -> where each record starts, how long it is, when it was made and of which event it is.

The layout is the kernel's (Linux, include/linux/ring_buffer.h and kernel/trace/ring_buffer.c: `struct buffer_data_page`,
`rb_event_length`): a sub-buffer is a u64 time stamp, a word `commit` with the number of bytes used and two flags of lost events, then
records of 4-byte words. Reading it is one pass over the words, in which every length is checked before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .eventformat import Common
from .loops import loop, part
from .streams import Stream

Array = npt.NDArray[Any]

#: Words before the first record: time stamp, commit.
HEADER_WORDS: Final = 4
#: Flags and number in `commit`: Linux, kernel/trace/ring_buffer.c, RB_MISSED_EVENTS and RB_MISSED_STORED; libtraceevent, COMMIT_MASK.
MISSED: Final = 1 << 31
MISSED_STORED: Final = 1 << 30
COMMIT_MASK: Final = (1 << 27) - 1

#: Kinds of record in the low 5 bits of its header; 1..28 are data of as many words, 0 is data with its length in the next word.
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

#: More than a sub-buffer holds.
MOST_LENGTH: Final = (1 << 31) - 1

#: A gap takes four numbers: the event before which it is, its kind, how many events (-1: not known), the word of its sub-buffer.
GAP: Final = 4


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that are missing before event number `event` of a stream (counted over all streams).

    Attributes:
        stream: number of the stream.
        event: the first event after the gap; the end of the stream where there is none.
        source: as in the losses table.
        events: how many are missing, None where it is not known.
        offset: byte offset in the file.
    """

    stream: int
    event: int
    source: str
    events: int | None
    offset: int


class Found(NamedTuple):
    """The records of all streams, one stream after the other, each in file order; what the loops pass on.

    Attributes:
        starts: uint32 (int64 where there are more than 16 GiB of words), the word where a record's payload starts.
        lengths: int32, bytes of payload.
        times: int64, time stamps.
        ids: uint16, `common_type`.
        counts: int64, 65536 numbers: records of each id.
        shortest: int32, 65536 numbers: the least length of the records of each id.
    """

    starts: Array
    lengths: Array
    times: Array
    ids: Array
    counts: Array
    shortest: Array

    def first(self, events: int) -> Found:
        """The first so many records, not copied."""
        return Found(self.starts[:events], self.lengths[:events], self.times[:events], self.ids[:events], self.counts, self.shortest)


@dataclass(frozen=True, slots=True)
class Records:
    """What a pass over all streams found.

    Attributes:
        found: the records; their times are in units of the trace clock.
        bounds: int64, for each stream its first record, and the number of records at the end.
        gaps: what is missing, in the order of the records.
    """

    found: Found
    bounds: Array
    gaps: tuple[Gap, ...]


def scan_streams(words: Array, streams: tuple[Stream, ...], common: Common) -> Records:
    """Find all records of the streams.

    Args:
        words: uint32, the bytes that the streams lie in.
        streams: which words, of which CPU.
        common: where a record has its event id.
    """
    # A record is a header word and at least the common fields: no stream holds more records than this.
    room = sum((stream.end - stream.begin) // (1 + (common.size + 3) // 4) for stream in streams)
    start = np.uint32 if words.size < 1 << 32 else np.int64
    found = Found(
        starts=np.empty(room, start),
        lengths=np.empty(room, np.int32),
        times=np.empty(room, np.int64),
        ids=np.empty(room, np.uint16),
        counts=np.zeros(1 << 16, np.int64),
        shortest=np.full(1 << 16, MOST_LENGTH, np.int32),
    )
    bounds, gaps = [0], list[Gap]()
    for number, stream in enumerate(streams):
        pages = -(-(stream.end - stream.begin) // stream.stride)
        missing = np.empty(2 * GAP * pages, np.int64)
        stretch = (stream.begin, stream.end, stream.stride)
        event, gap = scan.run(room // 4, words, *stretch, common.type_at, common.size, bounds[-1], found, missing)
        gaps += _gaps(number, stream, event, missing[: GAP * gap].reshape(-1, GAP).tolist())
        bounds.append(event)
    return Records(found.first(bounds[-1]), np.array(bounds, np.int64), tuple(gaps))


def _gaps(number: int, stream: Stream, end: int, found: list[list[int]]) -> list[Gap]:
    gaps = [
        Gap(number, event, SOURCES[kind], None if events < 0 else events, stream.offset_of(word)) for event, kind, events, word in found
    ]
    # The file may end between two sub-buffers: nothing in the words shows it.
    if stream.broken is not None and not any(kind == CUT_OFF for _, kind, _, _ in found):
        gaps.append(Gap(number, end, stream.broken, None, stream.broken_at))
    return gaps


@part
def word(words: Array, at: int) -> int:
    """The word at `at` as a number that does not overflow: 64 bits wide when compiled."""
    return words[at] & 0xFFFFFFFF  # type: ignore[no-any-return]


@part
def scan_page(
    words: Array,
    at: int,
    limit: int,
    time: int,
    type_at: int,
    least: int,
    event: int,
    found: Found,
) -> tuple[int, int]:
    """Note the records of one sub-buffer, which lie in words[at:limit]; returns the next event's number and what is wrong."""
    while at < limit:
        head = word(words, at)
        kind, delta = head & 31, head >> 5
        if kind == PADDING and delta == 0:
            return event, FINE
        if kind == 0 or kind >= PADDING:
            if at + 1 >= limit:
                return event, BAD_RECORD
            second = word(words, at + 1)
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
                return event, BAD_TIME
            at += 2
            continue
        if kind == 0:
            length, start = second - 4, at + 2
        else:
            length, start = kind * 4, at + 1
        at = start + ((length + 3) >> 2)
        if length < least or at > limit:
            return event, BAD_RECORD
        time += delta
        number = (word(words, start + (type_at >> 2)) >> ((type_at & 2) * 8)) & 0xFFFF
        found.starts[event] = start
        found.lengths[event] = length
        found.times[event] = time
        found.ids[event] = number
        found.counts[number] += 1
        found.shortest[number] = min(found.shortest[number], length)
        event += 1
    return event, FINE


@loop
def scan(
    words: Array,
    begin: int,
    end: int,
    stride: int,
    type_at: int,
    least: int,
    event: int,
    found: Found,
    gaps: Array,
) -> tuple[int, int]:
    """Note the records of one stream, the sub-buffers of `stride` words in words[begin:end].

    Records are written from number `event` on; at most two gaps a sub-buffer are written to `gaps`. A sub-buffer that is damaged is
    read up to the damage, and the next one after it.

    Returns:
        the number after the last event, and the number of gaps.
    """
    gap = 0
    for page in range(begin, end, stride):
        stop = min(page + stride, end)
        fault = FINE
        if page + HEADER_WORDS > stop:
            fault = CUT_OFF
        else:
            time = word(words, page) | (word(words, page + 1) << 32)
            commit = word(words, page + 2)
            first = page + HEADER_WORDS
            used = first + ((commit & COMMIT_MASK) >> 2)
            if commit & MISSED:
                lost = -1
                if commit & MISSED_STORED and used + 2 <= stop:
                    # The kernel counts in a long; more than 31 bits of it are not a count.
                    lost = word(words, used) if word(words, used + 1) == 0 else -1
                gaps[gap * GAP] = event
                gaps[gap * GAP + 1] = FLAGGED
                gaps[gap * GAP + 2] = lost
                gaps[gap * GAP + 3] = page
                gap += 1
            if word(words, page + 1) >> 30:
                fault = BAD_TIME
            elif used > page + stride:
                fault = BAD_COMMIT
            else:
                limit = min(used, stop)
                event, fault = scan_page(words, first, limit, time, type_at, least, event, found)
                if limit < used:
                    fault = CUT_OFF
        if fault != FINE:
            gaps[gap * GAP] = event
            gaps[gap * GAP + 1] = fault
            gaps[gap * GAP + 2] = -1
            gaps[gap * GAP + 3] = page
            gap += 1
    return event, gap
