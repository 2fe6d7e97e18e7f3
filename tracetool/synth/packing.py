"""Rows of events -> sub-buffers of each CPU, as the kernel's ring buffer has them; some are lost on request.

Layout: Linux, kernel/trace/ring_buffer.c (rb_update_event, ring_buffer_read_page) and include/linux/ring_buffer.h.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tracetool.synth import events as e
from tracetool.synth import state as k
from tracetool.synth.events import Layouts
from tracetool_parsers.loops import loop, part
from tracetool_parsers.writing import PAGE

Ints = npt.NDArray[Any]

#: Sub-buffers of a CPU that are filled before they are put away.
AREA: Final = 64
HEADER = 16
# Flags of a sub-buffer's length: events were lost before it; their number follows the data.
MISSED, MISSED_STORED = 1 << 31, 1 << 30
DELTA_BITS = 27
TIME_EXTEND = 30
#: Records longer than this say so in the word after their header.
MOST_SHORT = 112

# State of a CPU: where its sub-buffer begins, bytes in it, time of its last event, its events; events lost since the last that is kept,
# events kept, events lost in all.
C_START, C_USED, C_TIME, C_EVENTS, C_MISSED, C_KEPT, C_LOST = range(7)


class Buffers(NamedTuple):
    """`data` uint8 (CPU, AREA sub-buffers), `cpus` int64 (CPU, columns C_*), `loss` int64: the share lost in a million, state of chance."""

    data: Ints
    cpus: Ints
    loss: Ints


class Texts(NamedTuple):
    """Texts that rows name by number: `data` uint8, `first` int64 (text: its slice of `data`)."""

    data: Ints
    first: Ints


def texts_of(texts: Sequence[str]) -> Texts:
    """Texts as arrays."""
    coded = [text.encode() for text in texts]
    return Texts(np.frombuffer(b"".join(coded) or b"\0", np.uint8), np.cumsum([0, *map(len, coded)]).astype(np.int64))


@part
def _number(data: Ints, at: int, size: int, value: int) -> None:
    for n in range(size):
        data[at + n] = value >> 8 * n & 0xFF


@part
def _text(data: Ints, at: int, room: int, texts: Texts, number: int) -> int:
    """Write a text, at most `room` bytes of it; returns how many."""
    first = texts.first[number]
    size = min(texts.first[number + 1] - first, room)
    for n in range(size):
        data[at + n] = texts.data[first + n]
    return size


@part
def _tail(row: Ints, i: int, kind: int, texts: Texts, layout: Layouts) -> int:
    """Bytes of the text at the end of a record, its NUL counted; of a mark also the newline."""
    for field in range(layout.first[kind], layout.first[kind + 1]):
        how = layout.fields[field, e.L_HOW]
        if how == e.FAR_TEXT or how == e.TAIL:
            number = row[i, k.E_FIRST + layout.fields[field, e.L_ARGUMENT]]
            return texts.first[number + 1] - texts.first[number] + (2 if how == e.TAIL else 1)
    return 0


@part
def _fields(b: Buffers, base: int, rows: Ints, i: int, texts: Texts, layout: Layouts) -> None:
    """The record itself: what all events have, then the fields of its kind. The sub-buffer is empty where nothing is written."""
    kind, data = rows[i, k.E_KIND], b.data
    _number(data, base, 2, layout.number[kind])
    _number(data, base + 4, 4, rows[i, k.E_TID])
    for field in range(layout.first[kind], layout.first[kind + 1]):
        place, size = base + layout.fields[field, e.L_OFFSET], layout.fields[field, e.L_SIZE]
        argument, how = layout.fields[field, e.L_ARGUMENT], layout.fields[field, e.L_HOW]
        value = layout.fields[field, e.L_VALUE] if argument < 0 else rows[i, k.E_FIRST + argument]
        if how == e.NUMBER:
            _number(data, place, size, value)
        elif how == e.TEXT:
            _text(data, place, 15, texts, value)
        elif how == e.FAR_TEXT:
            length = _text(data, base + layout.size[kind], PAGE, texts, value)
            _number(data, place, 4, (length + 1) << 16 | layout.size[kind])
        else:
            length = _text(data, place, PAGE, texts, value)
            data[place + length] = 10


@part
def _close(b: Buffers, cpu: int, may_lose: bool) -> None:
    """A sub-buffer is full: it is kept, or lost, which the next one kept says."""
    start = b.cpus[cpu, C_START]
    base, size = cpu * AREA * PAGE + start, b.cpus[cpu, C_USED] - HEADER
    b.loss[1] = b.loss[1] * 48271 % 2147483647
    if may_lose and b.loss[1] % 1_000_000 < b.loss[0]:
        for n in range(base, base + HEADER + size):
            b.data[n] = 0
        b.cpus[cpu, C_MISSED] += b.cpus[cpu, C_EVENTS]
        b.cpus[cpu, C_LOST] += b.cpus[cpu, C_EVENTS]
    else:
        commit = size
        if b.cpus[cpu, C_MISSED] > 0:
            commit |= MISSED
            if HEADER + size + 8 <= PAGE:
                commit |= MISSED_STORED
                _number(b.data, base + HEADER + size, 8, b.cpus[cpu, C_MISSED])
        _number(b.data, base + 8, 8, commit)
        b.cpus[cpu, C_START] = start + PAGE
        b.cpus[cpu, C_KEPT] += b.cpus[cpu, C_EVENTS]
        b.cpus[cpu, C_MISSED] = 0
    b.cpus[cpu, C_USED] = 0
    b.cpus[cpu, C_EVENTS] = 0


@part
def _room(b: Buffers, cpu: int, time: int, size: int) -> int:
    """Bytes that a record of `size` bytes (a multiple of 4) takes in the CPU's sub-buffer, what must stand before it included."""
    extended = (time - b.cpus[cpu, C_TIME]) >> DELTA_BITS != 0
    before = HEADER if b.cpus[cpu, C_USED] == 0 else 8 if extended else 0
    return before + (4 if size <= MOST_SHORT else 8) + size


@part
def _record(b: Buffers, cpu: int, rows: Ints, i: int, size: int, texts: Texts, layout: Layouts) -> None:
    """Append a record of `size` bytes, which fits; the first of a sub-buffer has its time from the header."""
    time, base = rows[i, k.E_TIME], cpu * AREA * PAGE
    at = base + b.cpus[cpu, C_START] + b.cpus[cpu, C_USED]
    if b.cpus[cpu, C_USED] == 0:
        _number(b.data, at, 8, time)
        b.cpus[cpu, C_TIME] = time
        at += HEADER
    delta = time - b.cpus[cpu, C_TIME]
    if delta >> DELTA_BITS:
        _number(b.data, at, 4, TIME_EXTEND | (delta & (1 << DELTA_BITS) - 1) << 5)
        _number(b.data, at + 4, 4, delta >> DELTA_BITS)
        at += 8
        delta = 0
    if size <= MOST_SHORT:
        _number(b.data, at, 4, size >> 2 | delta << 5)
        at += 4
    else:
        _number(b.data, at, 4, delta << 5)
        _number(b.data, at + 4, 4, size + 4)
        at += 8
    _fields(b, at, rows, i, texts, layout)
    b.cpus[cpu, C_USED] = at + size - base - b.cpus[cpu, C_START]
    b.cpus[cpu, C_TIME] = time
    b.cpus[cpu, C_EVENTS] += 1


@loop
def pack(rows: Ints, first: int, end: int, texts: Texts, layout: Layouts, b: Buffers) -> int:
    """Append rows to the sub-buffers of their CPUs; returns the row before which room must be made, or `end`."""
    for i in range(first, end):
        cpu, kind = rows[i, k.E_CPU], rows[i, k.E_KIND]
        size = (layout.size[kind] + _tail(rows, i, kind, texts, layout) + 3) & ~3
        if b.cpus[cpu, C_USED] + _room(b, cpu, rows[i, k.E_TIME], size) > PAGE:
            _close(b, cpu, True)
        if b.cpus[cpu, C_START] == AREA * PAGE:
            return i
        _record(b, cpu, rows, i, size, texts, layout)
    return end


@loop
def finish(b: Buffers) -> int:
    """Close every CPU's last sub-buffer, which is never lost: only a later one could tell."""
    for cpu in range(len(b.cpus)):
        if b.cpus[cpu, C_USED] > 0:
            _close(b, cpu, False)
    return len(b.cpus)


class Spools:
    """Sub-buffers of every CPU, put away in `files`, one a CPU, until the trace is written."""

    def __init__(self, files: Sequence[IO[bytes]], losses: float, seed: int) -> None:
        self._layout = e.layouts()
        self._cpus = cpus = len(files)
        state = np.zeros((cpus, 7), np.int64)
        self._buffers = Buffers(
            np.zeros(cpus * AREA * PAGE, np.uint8), state, np.array([round(losses * 1_000_000), 1 + seed % 2147483646], np.int64)
        )
        self._files = files

    def add(self, rows: Ints, number: int, texts: Texts, items: int) -> None:
        """Append the first `number` rows; `items` (how many there will be in all) decides how the loop runs."""
        done = 0
        while (done := pack.run(items, rows, done, number, texts, self._layout, self._buffers)) < number:
            self._put_away()

    def close(self, items: int) -> None:
        """No more rows will come."""
        # The last sub-buffer has its place: an area is left full only until the next row wants one.
        finish.run(items, self._buffers)
        self._put_away()

    def _put_away(self) -> None:
        """Move what is complete to the files, what is not to the front."""
        data = self._buffers.data.reshape(self._cpus, AREA * PAGE)
        for cpu, file in enumerate(self._files):
            start, used = (int(n) for n in self._buffers.cpus[cpu, :2])
            if start:
                file.write(data[cpu, :start].tobytes())
                rest = data[cpu, start : start + used].copy()
                data[cpu] = 0
                data[cpu, :used] = rest
                self._buffers.cpus[cpu, C_START] = 0

    def blocks(self, cpu: int) -> Iterator[bytes]:
        """What was put away of a CPU."""
        file = self._files[cpu]
        file.seek(0)
        while block := file.read(AREA * PAGE):
            yield block

    def kept(self, cpu: int) -> int:
        """Events of a CPU that are in the trace."""
        return int(self._buffers.cpus[cpu, C_KEPT])

    def lost(self, cpu: int) -> int:
        """Events of a CPU that are not."""
        return int(self._buffers.cpus[cpu, C_LOST])
