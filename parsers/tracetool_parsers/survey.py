"""A pass over all records that keeps none: how often each event comes, from when to when, and what is missing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .progress import stage
from .reading import Fix, most_events
from .ringbuffer import CUT_OFF, EVENTS, GAP, SOURCES, Ahead, Layout, scan
from .streams import Memory, Stream, Stretch
from .workers import spread

Array = npt.NDArray[Any]

#: Bytes that one thread looks at in one go.
_PIECE: Final = 1 << 24
_AHEAD: Final = 1 << 13


@dataclass(frozen=True, slots=True)
class Gap:
    """Events of a stream that are missing.

    Attributes:
        stream: number of the stream.
        source: as in the losses table.
        events: how many are missing, None where it is not known.
        offset: byte of the file; of compressed data that of the chunk.
        before, after: time of the last event before and of the first one after (ns), None where there is none.
    """

    stream: int
    source: str
    events: int | None
    offset: int
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is.

    Attributes:
        counts: int64, 65536 numbers: records of each event id.
        span: the least and the greatest time (ns), None without records.
        gaps: what is missing, stream by stream.
    """

    counts: Array
    span: tuple[int, int] | None
    gaps: tuple[Gap, ...]


@dataclass
class _Seen:
    """What was seen of some blocks of a stream; the first and last times are those of its first and last record."""

    counts: Array
    gaps: list[Gap]
    first: int | None = None
    last: int | None = None
    least: int | None = None
    greatest: int | None = None
    #: The gaps from this number on wait for the next record.
    waiting: int = 0


def survey(data: memoryview, streams: Sequence[Stream], layout: Layout, fix: Fix | None, threads: int) -> Survey:
    """Look at all records of the streams."""
    pieces = [(number, *blocks) for number, stream in enumerate(streams) for blocks in _pieces(stream)]
    size = sum(stream.bytes for stream in streams)
    places = [0] * len(pieces)
    with stage("counting events", size, "bytes", lambda: sum(places)):
        seen = spread(
            lambda at: _look(data, streams, layout, fix, places, at, *pieces[at]), range(len(pieces)), threads if size > _PIECE else 1
        )
    counts = np.zeros(EVENTS, np.int64)
    for each in seen:
        counts += each.counts
    gaps: list[Gap] = []
    for number, stream in enumerate(streams):
        gaps += _gaps(number, stream, [each for piece, each in zip(pieces, seen, strict=True) if piece[0] == number])
    least = [each.least for each in seen if each.least is not None]
    greatest = [each.greatest for each in seen if each.greatest is not None]
    return Survey(counts, (min(least), max(greatest)) if least else None, tuple(gaps))


def _pieces(stream: Stream) -> list[tuple[int, int]]:
    """Stretches of blocks, first..last, of about the same number of bytes."""
    count = max(stream.bytes // _PIECE, 1)
    return list(itertools.pairwise(stream.blocks * piece // count for piece in range(count + 1)))


def _look(
    data: memoryview,
    streams: Sequence[Stream],
    layout: Layout,
    fix: Fix | None,
    places: list[int],
    piece: int,
    number: int,
    first: int,
    last: int,
) -> _Seen:
    """Look at some blocks of a stream; how many bytes were looked at goes into `places`."""
    stream = streams[number]
    memory = Memory(data, (stream,))
    feed = memory.feed(0, stream, first, last)
    most = layout.most_records(min(stream.page_size, stream.bytes))
    room = max(most, min(_AHEAD, layout.most_records(stream.bytes)))
    ahead, state, found = Ahead.room(room), np.zeros(2, np.int64), np.empty(66 * GAP, np.int64)
    groups, items = np.zeros(EVENTS, np.int32), most_events(streams)
    seen = _Seen(np.zeros(EVENTS, np.int64), [])
    stretch: Stretch | None
    while (stretch := feed.more()) is not None:
        seen.gaps += [Gap(number, source, None, offset, seen.last, None) for source, offset in stretch.gaps]
        begin = stretch.begin
        while begin < stretch.end:
            where = (memory.words, begin, stretch.end, stream.page_size // 4, layout, groups, 1)
            page, records, gaps = scan.run(items, *where, seen.counts, state, ahead, 0, room, most, found)
            times = ahead.times[:records]
            if fix is not None:
                times = fix(times, stream)
            listed = found[: gaps * GAP].reshape(-1, GAP).tolist()
            placed = [(record, kind, lost, _offset(stream, memory, stretch, word)) for record, kind, lost, word in listed]
            _note(seen, times, placed, number)
            places[piece] += 4 * (page - begin)
            begin = page
    return seen


def _offset(stream: Stream, memory: Memory, stretch: Stretch, word: int) -> int:
    if memory.lasts:
        return word * 4
    ends = np.cumsum(stream.sizes)
    at = (stretch.place + word - stretch.begin) * 4
    return int(stream.offsets[min(int(np.searchsorted(ends, at, "right")), stream.blocks - 1)]) - 8


def _note(seen: _Seen, times: Array, gaps: list[tuple[int, int, int, int]], number: int) -> None:
    """Take in some records, and the gaps before them or among them."""
    if times.size:
        first = int(times[0])
        for at in range(seen.waiting, len(seen.gaps)):
            seen.gaps[at] = replace(seen.gaps[at], after=first)
        seen.waiting = len(seen.gaps)
        if seen.first is None:
            seen.first = first
        least, greatest = int(times.min()), int(times.max())
        seen.least = least if seen.least is None else min(least, seen.least)
        seen.greatest = greatest if seen.greatest is None else max(greatest, seen.greatest)
    for record, kind, events, offset in gaps:
        before = int(times[record - 1]) if record else seen.last
        after = int(times[record]) if record < times.size else None
        seen.gaps.append(Gap(number, SOURCES[kind], None if events < 0 else events, offset, before, after))
        if after is not None:
            seen.waiting = len(seen.gaps)
    if times.size:
        seen.last = int(times[-1])


def _gaps(number: int, stream: Stream, pieces: list[_Seen]) -> list[Gap]:
    """The gaps of a stream, with times that lie in another of its pieces, and with the break at its end."""
    last: int | None = None
    for piece in pieces:
        piece.gaps[:] = [gap if gap.before is not None else replace(gap, before=last) for gap in piece.gaps]
        last = piece.last if piece.last is not None else last
    following: int | None = None
    for piece in reversed(pieces):
        piece.gaps[:] = [gap if gap.after is not None else replace(gap, after=following) for gap in piece.gaps]
        following = piece.first if piece.first is not None else following
    gaps = [gap for piece in pieces for gap in piece.gaps]
    # The file may end between two sub-buffers: nothing in the words shows it.
    if stream.broken is not None and not any(gap.source == SOURCES[CUT_OFF] for gap in gaps):
        gaps.append(Gap(number, stream.broken, None, stream.broken_at, last, None))
    return gaps
