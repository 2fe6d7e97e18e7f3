"""Reading the tables that are asked for: streams are scanned a stretch ahead, merged and gathered, on one thread or several.

For several threads the trace is cut by time, and each reads its part of all streams. Records are in order within a part, and the parts
one after the other, because no stream goes back in time: where one does, the trace is read again, on one thread and with every record
in its place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .copying import PLACE, SHORT
from .gather import DONE, EMPTY, NEVER, Supply, gather, look
from .merge import Heads, join
from .progress import stage
from .ringbuffer import EVENTS, GAP, SPOT_SHIFT, STATE, WENT_BACK, Ahead, Layout
from .room import MOST_SHORT, Columns, Plan, Wanted, room_for
from .streams import Memory, Stream, Stretch
from .workers import spread

Array = npt.NDArray[Any]

#: Records of all streams that are looked ahead where somebody must see them first.
_SEEN: Final = 1 << 17
#: Rows that there is room for where there were more than was thought.
_LATER_ROWS: Final = 1 << 20
_LEAST_ROWS: Final = 64
#: Below this many bytes a part is not worth a thread.
_LEAST_PART: Final = 1 << 22
#: How many places of each stream are looked at to cut a trace into parts.
_SAMPLES: Final = 64

#: Times of a stream (int64, units of the clock) -> nanoseconds.
Fix = Callable[[Array, Stream], Array]


@dataclass(frozen=True, slots=True)
class Lot:
    """Rows that were read.

    Attributes:
        words: what the records lie in.
        plan, columns: where the rows are: those of table `t` up to row `plan.rows[t]`.
        begins: int64, for each table its first row.
        seen: int64, for each table the row from which on the records have not been looked at.
        short: how many short records were noted and not looked at.
    """

    words: Array
    plan: Plan
    columns: Columns
    begins: Array
    seen: Array
    short: int


class Collector(Protocol):
    """Who takes the rows of one part."""

    def look(self, lot: Lot) -> None:
        """Take from the records of rows that have not been looked at what is not in the columns: their words are given up."""
        ...

    def take(self, lot: Lot) -> None:
        """Take all rows, after a last look: their columns are given up."""
        ...


C = TypeVar("C", bound=Collector)


@dataclass(frozen=True, slots=True)
class Request:
    """What is read, of which data.

    Attributes:
        data: the file.
        streams: what the records are in.
        layout: how they lie.
        pid_at: the byte of a record where its thread is.
        wanted: what each table is to have.
        groups: int32, 65536 numbers: the table of each event, UNWANTED for none.
        rows: about how many rows each table will have.
        places: whether the place in the order is wanted.
        fix: how times become nanoseconds, None: they are.
    """

    data: memoryview
    streams: tuple[Stream, ...]
    layout: Layout
    pid_at: int
    wanted: tuple[Wanted, ...]
    groups: Array
    rows: tuple[int, ...]
    places: bool
    fix: Fix | None


def read(request: Request, collector: Callable[[], C], threads: int) -> tuple[list[tuple[C, int]], Array]:
    """Read what is asked for.

    Returns:
        for each part, in the order of time, who took its rows, and how many records came before it; and int64, 65536 numbers: how often
        each event was seen, zero only for those that do not occur.
    """
    times = [] if request.fix is not None else _cuts(request, threads)
    parts = [Part(request, collector(), since, until, share=len(times) + 1) for since, until in itertools.pairwise([None, *times, None])]
    size = sum(stream.bytes for stream in request.streams)
    with stage("reading", size, "bytes", lambda: sum(part.seen for part in parts)):
        spread(lambda part: part.run(), parts, len(parts))
    fits = all(one.nexts == other.firsts for one, other in itertools.pairwise(parts))
    if request.fix is None and (not fits or any(part.went_back for part in parts)):
        parts = [Part(request, collector(), None, None, share=1, keep=True)]
        with stage("reading again, in order", size, "bytes", lambda: parts[0].seen):
            parts[0].run()
    before = itertools.accumulate((part.records for part in parts), initial=0)
    taken = [(part.collector, count) for part, count in zip(parts, before, strict=False)]
    return taken, sum((part.counts for part in parts), np.zeros(EVENTS, np.int64))


class Part(Generic[C]):
    """The records of all streams from one time to another.

    Attributes:
        collector: who takes the rows.
        firsts, nexts: for each stream the word of the first record that was asked for, and of the next part's first; None for none.
    """

    def __init__(self, request: Request, collector: C, since: int | None, until: int | None, *, share: int, keep: bool = False) -> None:
        """Times `since` and `until` are in units of the clock, None for no bound; `share` is how many parts there are.

        With `keep` the records that nobody asked for are kept in their places: where time goes back they hold back what is behind them.
        """
        self.collector = collector
        streams = request.streams
        self.firsts: list[int | None] = [None] * len(streams)
        self.nexts: list[int | None] = [None] * len(streams)
        self._request = request
        self._since, self._until = since, until
        # Loops are compiled or not by the size of all that they will read.
        self._items = most_events(streams)
        self._memory = Memory(request.data, streams)
        blocks = [0 if since is None else block_at(request.data, stream, since) for stream in streams]
        self._feeds = [self._memory.feed(at, stream, blocks[at], stream.blocks) for at, stream in enumerate(streams)]
        self._stretches = [Stretch(0, 0, 0, ())] * len(streams)
        self._places = [int(stream.sizes[:block].sum()) for stream, block in zip(streams, blocks, strict=True)]
        self._supply = supply = _supply(request, held=request.fix is not None, keep=keep or request.fix is not None)
        self._ahead = Ahead.room(int(supply.rooms.max(initial=0)))
        self._heads = Heads.of(len(streams))
        self._state = np.zeros(2, np.int64)
        self._room(self._first_rows(share))

    @property
    def records(self) -> int:
        """How many records were passed on."""
        return int(self._state[PLACE])

    @property
    def seen(self) -> int:
        """About how many bytes have been looked at; may be asked while another thread reads."""
        words = [int(page) - one.begin + one.place for page, one in zip(self._supply.pages, self._stretches, strict=True)]
        return sum(max(4 * at - place, 0) for at, place in zip(words, self._places, strict=True))

    @property
    def went_back(self) -> bool:
        """Whether the time of a stream went back."""
        return bool(self._supply.states[WENT_BACK::STATE].any())

    @property
    def counts(self) -> Array:
        """How often each event was seen (int64, 65536 numbers), those at the ends that are of other parts included."""
        return self._supply.counts

    def run(self) -> None:
        """Read it all."""
        heads, memory = self._heads, self._memory
        for stream in range(len(self._request.streams)):
            if self._more(stream):
                join(self._ahead.times, heads, stream)
        until = NEVER if self._until is None else self._until
        why = EMPTY
        while why != DONE:
            given = (self._request.pid_at // 4, until, self._plan, self._columns, self._state)
            why = gather.run(self._items, memory.words, memory.pairs, self._supply, self._ahead, heads, *given)
            if why == EMPTY:
                self._more(int(heads.heap[0]))
            elif self._state[SHORT] >= MOST_SHORT:
                self._look()
            else:
                self._look()
                self.collector.take(self._lot())
                if why != DONE:
                    self._room(self._later_rows())
        for stream in heads.heap[: heads.size[0]].tolist():
            self.nexts[stream] = self._word_of(stream, int(heads.next[stream]))

    def _more(self, stream: int) -> bool:
        """Look ahead in a stream that has no records ahead; whether there are any."""
        supply, heads = self._supply, self._heads
        while True:
            if supply.pages[stream] >= supply.ends[stream]:
                if not self._memory.lasts:
                    self._look()
                stretch = self._feeds[stream].more()
                if stretch is None:
                    return False
                self._stretches[stream] = stretch
                supply.pages[stream], supply.ends[stream] = stretch.begin, stretch.end
            look.run(self._items, self._memory.words, supply, self._ahead, heads, stream)
            self._pass_by(stream, int(heads.next[stream]), int(heads.last[stream]))
            if heads.next[stream] < heads.last[stream]:
                return True

    def _pass_by(self, stream: int, first: int, last: int) -> None:
        """See records that were found: their times become nanoseconds, those before the first that was asked for are left out."""
        times = self._ahead.times[first:last]
        if self._request.fix is not None:
            times[:] = self._request.fix(times, self._request.streams[stream])
        if self._since is not None and self.firsts[stream] is None:
            late = times >= self._since
            self._heads.next[stream] = first + int(late.argmax()) if late.any() else last
            if late.any():
                self.firsts[stream] = self._word_of(stream, int(self._heads.next[stream]))

    def _word_of(self, stream: int, record: int) -> int:
        """The word of the stream where a record ahead starts."""
        stretch = self._stretches[stream]
        return (int(self._ahead.spots[record]) >> SPOT_SHIFT) - stretch.begin + stretch.place

    def _look(self) -> None:
        self.collector.look(self._lot())
        self._seen[:] = self._plan.rows
        self._state[SHORT] = 0

    def _lot(self) -> Lot:
        return Lot(self._memory.words, self._plan, self._columns, self._begins, self._seen, int(self._state[SHORT]))

    def _room(self, rows: Sequence[int]) -> None:
        several = len({stream.buffer for stream in self._request.streams}) > 1
        self._plan, self._columns = room_for(self._request.wanted, rows, buffers=several, places=self._request.places)
        self._begins, self._seen = self._plan.rows.copy(), self._plan.rows.copy()

    def _first_rows(self, share: int) -> list[int]:
        rows = self._request.rows
        return list(rows) if share == 1 else [int(count / share * 1.05) + _LEAST_ROWS for count in rows]

    def _later_rows(self) -> list[int]:
        """Room by how often each event came lately."""
        came = self._plan.rows - self._begins
        fair = _LATER_ROWS / 16 / came.size
        rows: list[int] = (np.maximum(came / came.sum() * _LATER_ROWS, fair).astype(np.int64) + _LEAST_ROWS).tolist()
        return rows


def _supply(request: Request, *, held: bool, keep: bool) -> Supply:
    """Streams of which nothing was read."""
    streams, layout = request.streams, request.layout
    names = list(dict.fromkeys(stream.buffer for stream in streams))
    most = np.array([layout.most_records(min(stream.page_size, stream.bytes)) for stream in streams], np.int64)
    # What somebody must see first is seen in large lots. Else a sub-buffer is enough: it stays in the processor's cache with its records.
    rooms = np.cumsum(np.maximum(most, _SEEN // max(len(streams), 1)) if held else most)
    return Supply(
        cpus=np.array([stream.cpu for stream in streams], np.int32),
        buffers=np.array([names.index(stream.buffer) for stream in streams], np.int32),
        pages=np.zeros(len(streams), np.int64),
        ends=np.zeros(len(streams), np.int64),
        strides=np.array([stream.page_size // 4 for stream in streams], np.int64),
        most=most,
        begins=np.concatenate([np.zeros(1, np.int64), rooms[:-1]]),
        rooms=rooms,
        states=np.zeros(STATE * len(streams), np.int64),
        layout=layout,
        groups=request.groups,
        keep=int(keep),
        counts=np.zeros(EVENTS, np.int64),
        gaps=np.empty(64 * GAP, np.int64),
        held=int(held),
    )


def most_events(streams: Sequence[Stream]) -> int:
    """About how many records the streams can hold."""
    return sum(stream.bytes for stream in streams) // 32


def _cuts(request: Request, threads: int) -> list[int]:
    """Times (units of the clock) that cut the trace into parts of about the same size, at most one part for each thread."""
    size = sum(stream.bytes for stream in request.streams)
    parts = min(threads, size // _LEAST_PART)
    if parts < 2:
        return []
    times, weights = [], []
    for stream in request.streams:
        step = max(stream.blocks // _SAMPLES, 1)
        for block in range(0, stream.blocks, step):
            time = stream.time_of(request.data, block)
            if time is not None and time < 1 << 62:
                times.append(time)
                weights.append(int(stream.sizes[block : block + step].sum()))
    order = np.argsort(times)
    reached = np.cumsum(np.array(weights)[order])
    wanted = [size * part // parts for part in range(1, parts)]
    chosen = np.minimum(np.searchsorted(reached, wanted), len(times) - 1)
    return sorted({times[at] for at in order[chosen].tolist()})


def block_at(data: memoryview, stream: Stream, time: int) -> int:
    """The last block of a stream that starts before a time (units of the clock), 0 where none does: before it nothing is as late."""
    low, high = 0, stream.blocks
    while high - low > 1:
        middle = (low + high) // 2
        start = stream.time_of(data, middle)
        if start is not None and start < time:
            low = middle
        else:
            high = middle
    return low
