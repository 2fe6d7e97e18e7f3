"""The first pass over a text trace: which events and fields it has, how often, when, and what was lost; nothing is kept of a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .loops import index, loop, part
from .losses import SCHEMA, Loss, losses_table
from .progress import stage
from .textfields import BUF, PERIOD, TEXT, class_of, count_usual, event_of, hash_of, keyless, put, split
from .textlines import EVENT, LOSS, MOST_CPUS, NOTHING, RECORD, UNTOLD, after_spaces, is_digit, read_line, same, starts
from .textmemory import (
    ARGS_AT,
    BUFFER_AT,
    BUFFER_END,
    COMM_AT,
    COMM_END,
    CPU,
    EVENT_BEFORE,
    EVENT_COUNT,
    EVENT_FRAMES,
    EVENT_STYLE,
    EVENT_USUAL,
    FIELD_BYTES,
    FIELD_FLAGS,
    FIELD_MODE,
    FIELD_PRESENT,
    FIRST_FOREIGN,
    FIRST_TS,
    FOREIGN_LINES,
    KIND,
    LAST_TS,
    LINE_AT,
    LOSSES,
    LOST,
    NAME_AT,
    NAME_END,
    PERIOD_AT,
    PERIOD_END,
    RUN,
    TGID,
    TGIDS,
    THREAD_BEFORE,
    THREAD_PLACE,
    TID,
    TOKEN_AT,
    TOKEN_CLASS,
    TOKEN_END,
    TOKEN_FIELD,
    TOKEN_STOP,
    TOP_CPU,
    TS,
    TS_BEFORE,
    USUAL,
    VALUE,
    new_memory,
    of_events,
)
from .textnumbers import BARE, DECIMAL, HEX_NUMBER, MOST_DIGITS, NUMBER, OTHER, STRING, read_number

Array = npt.NDArray[Any]

#: Text is looked at in windows of so many bytes, or of one line where that is longer.
WINDOW: Final = 1 << 20
#: Bytes of text that the interpreter reads in the time of one item of a loop.
BYTES_OF_ITEM: Final = 16
#: Different command names; further ones have none.
MOST_NAMES: Final = 1 << 19
#: Different names of buffers; of further ones the top one's counts.
MOST_BUFFERS: Final = 1 << 10
#: Different threads; of further ones no name is kept.
MOST_THREADS: Final = 1 << 18
_BYTES_OF_END: Final = 8
_FEWEST_LOSSES: Final = 1 << 10
#: No line that has an event is shorter: ` -1 [0] 1: e:` and a newline.
_LEAST_LINE: Final = 8

#: Why a row of the losses is one.
SOURCES: Final = ("lost line", "unreadable line", "truncated line")

#: What a line that is none of an event adds to the one before: text of a mark, an address of a call chain, a function of a stack.
TEXT_LINE: Final = 1
FRAME_LINE: Final = 2
STACK_LINE: Final = 3

_LOST_RECORD: Final = tuple(b"PERF_RECORD_LOST")
_LOST_WORD: Final = tuple(b"lost ")
_CALLER: Final = tuple(b"=> ")
_SPACE, _TAB = 32, 9


class Shape(NamedTuple):
    """How lines of a text begin.

    Attributes:
        prefix: bytes of the names of buffers before each line, 0 where there are none.
        width: bytes of the right-justified command names.
        perf: 1 where it is of perf.
    """

    prefix: int
    width: int
    perf: int


class Lost(NamedTuple):
    """Losses; all int64, one number each.

    Attributes:
        cpu: -1 where it is not known.
        events: -1 where it is not known.
        before, after: times of the events around it, -1 where there are none.
        source: index into `SOURCES`.
        earlier: the loss of the same CPU with no event between, from 1.
        offset: byte of the line.
    """

    cpu: Array
    events: Array
    before: Array
    after: Array
    source: Array
    earlier: Array
    offset: Array


@dataclass(frozen=True, slots=True)
class Survey:
    """What the first pass found.

    Attributes:
        memory: events and fields.
        windows: what `windows` yields; empty where that would take more than half of the bytes of the text.
        buffers: names of buffers.
        threads: names of threads.
        losses: rows of `losses.SCHEMA`.
        span: first and last time, None without events.
        tgids: whether a line tells a process.
        top_cpu: the greatest number of a CPU.
        foreign: how many lines cannot be read.
        first_foreign: byte offset of the first of them.
        cut: byte offset of a last line without an end, None where there is none.
    """

    memory: Array
    windows: Sequence[tuple[int, Array]]
    buffers: Array
    threads: Array
    losses: pa.Table
    span: tuple[int, int] | None
    tgids: bool
    top_cpu: int
    foreign: int
    first_foreign: int
    cut: int | None


def new_names(most: int) -> Array:
    """Room for so many different strings of a text, a power of two; `name_of` numbers them from 1.

    int64: how many there are, how many fit, a hash table of numbers, then `at << 12 | length` of each from 1.
    """
    names = np.zeros(3 * most + 3, np.int64)
    names[1] = most
    return names


def strings(data: Array, names: Array) -> list[str]:
    """The different strings, by number from 1 on; what is no UTF-8 is replaced."""
    first = 2 + 2 * int(names[1]) + 1
    places = names[first : first + int(names[0])].tolist()
    return [_text(data, place) for place in places]


def _text(data: Array, place: int) -> str:
    return data[place >> 12 : (place >> 12) + (place & 0xFFF)].tobytes().decode("utf-8", "replace")


def windows(data: Array) -> Iterator[tuple[int, Array]]:
    """Where lines start, and where each of a number of them ends (int64): at its newline. What follows the last newline is left out."""
    at, size = 0, WINDOW
    while at < data.size:
        stop = min(at + size, data.size)
        ends = np.flatnonzero(data[at:stop] == 10)
        if ends.size:
            ends += at
            yield at, ends
            at, size = int(ends[-1]) + 1, WINDOW
        elif stop == data.size:
            return
        else:
            size *= 2


def survey(data: Array, shape: Shape, written_over: int) -> Survey:
    """Read a text once.

    Args:
        data: uint8, the text.
        shape: of its lines.
        written_over: how many events were overwritten before the first.
    """
    memory, buffers, threads = new_memory(), new_names(room_for(data.size, MOST_BUFFERS)), new_threads(data.size)
    last, pending = np.full(MOST_CPUS, -1, np.int64), np.zeros(MOST_CPUS, np.int64)
    lost = Lost(*(np.zeros(_FEWEST_LOSSES, np.int64) for _ in Lost._fields))
    at, lines, kept = 0, 0, list[tuple[int, Array]]()
    with stage("reading", data.size, "bytes", lambda: at):
        for start, ends in windows(data):
            at, line = start, 0
            lines += ends.size
            if lines * _BYTES_OF_END * 2 <= data.size:
                kept.append((start, ends))
            while line < ends.size:
                line = scan.run(data.size // BYTES_OF_ITEM, data, at, ends, line, shape, memory, buffers, threads, last, pending, lost)
                if line < ends.size:
                    at = int(ends[line - 1]) + 1 if line else start
                    lost = Lost(*(np.concatenate([column, np.zeros_like(column)]) for column in lost))
            at = int(ends[-1]) + 1
    for event in np.flatnonzero(of_events(memory, EVENT_USUAL)).tolist():
        count_usual(event, memory)
    first, latest = int(memory[FIRST_TS]), int(memory[LAST_TS])
    cut = at if at < data.size else None
    losses = _losses(Lost(*(column[: int(memory[LOSSES])] for column in lost)), written_over, first, cut, int(memory[TS_BEFORE]))
    return Survey(
        memory,
        kept if lines * _BYTES_OF_END * 2 <= data.size else (),
        buffers,
        threads,
        losses,
        (first, latest) if first >= 0 else None,
        bool(memory[TGIDS]),
        int(memory[TOP_CPU]),
        int(memory[FOREIGN_LINES]),
        int(memory[FIRST_FOREIGN]),
        cut,
    )


def _losses(lost: Lost, written_over: int, first: int, cut: int | None, latest: int) -> pa.Table:
    """Rows of `losses.SCHEMA`: what was overwritten before the first event, what lines say, and a last line without an end."""
    begin, end = (first, latest) if first >= 0 else (None, None)
    sources = pa.DictionaryArray.from_arrays(pa.array(lost.source.astype(np.int32)), pa.array(SOURCES)).cast(pa.string())
    told = (pa.array(column, mask=column < 0) for column in (lost.before, lost.after, lost.events))
    lines = pa.table([pa.array(lost.cpu.astype(np.int32)), *told, sources, pa.array(lost.offset)], SCHEMA)
    head = losses_table([Loss(-1, None, begin, written_over, "overwritten")] if written_over else [])
    tail = losses_table([Loss(-1, end, None, 1, SOURCES[2], cut)] if cut is not None else [])
    return pa.concat_tables([head, lines, tail])


@part
def name_of(data: Array, at: int, end: int, names: Array) -> int:
    """The number of a string from 1, 0 where there are too many."""
    most = names[1]
    mask = 2 * most - 1
    slot = hash_of(data, at, end, 0) & mask
    while names[index(2 + slot)]:
        name = names[index(2 + slot)]
        place = names[index(2 + 2 * most + name)]
        if place & 0xFFF == end - at and same(data, place >> 12, at, end - at):
            return int(name)
        slot = slot + 1 & mask
    number = names[0] + 1
    if number > most:
        return 0
    names[0] = names[index(2 + slot)] = number
    names[index(2 + 2 * most + number)] = at << 12 | end - at
    return int(number)


def room_for(size: int, most: int) -> int:
    """How many names a text of so many bytes can have, a power of two, `most` at most."""
    return min(1 << (size // _LEAST_LINE).bit_length(), most)


def new_threads(size: int) -> Array:
    """Room for the different threads of a text of so many bytes; `thread_of` numbers them from 1.

    int64: how many there are, how many fit, a hash table of places, then for each place from 1 the thread, and after all of those
    `at << 12 | length` of its name.
    """
    most = room_for(size, MOST_THREADS)
    threads = np.zeros(4 * most + 2, np.int64)
    threads[1] = most
    return threads


@part
def thread_of(tid: int, threads: Array) -> int:
    """The place of a thread in the table of their names, 0 where there are too many.

    `threads`: made by `new_threads`.
    """
    most = threads[1]
    mask = 2 * most - 1
    slot = (tid * 2654435761 & 0xFFFFFFFF) >> 13 & mask
    while threads[index(2 + slot)]:
        place = threads[index(2 + slot)]
        if threads[index(1 + 2 * most + place)] == tid:
            return int(place)
        slot = slot + 1 & mask
    place = threads[0] + 1
    if place > most:
        return 0
    threads[0] = threads[index(2 + slot)] = place
    threads[index(1 + 2 * most + place)] = tid
    return int(place)


def thread_names(data: Array, threads: Array) -> dict[int, str]:
    """Thread id -> the last name that the text has for it."""
    count, most = int(threads[0]), int(threads[1])
    tids, places = (threads[start : start + count].tolist() for start in (2 + 2 * most, 2 + 3 * most))
    return {tid: _text(data, place) for tid, place in zip(tids, places, strict=True)}


@part
def read_frame(data: Array, at: int, end: int, memory: Array) -> bool:
    """Write the address that a line of a call chain starts with; False where it is no such line."""
    if at == end or (data[at] != _TAB and data[at] != _SPACE):
        return False
    while at < end and (data[at] == _TAB or data[at] == _SPACE):
        at += 1
    stop = at
    while stop < end and data[stop] != _SPACE:
        stop += 1
    return stop > at and stop - at <= 18 and read_number(data, at, stop, HEX_NUMBER, memory) != OTHER


@part
def note_loss(cpu: int, events: int, before: int, source: int, memory: Array, lost: Lost) -> int:
    """Write a loss; its number from 1."""
    place = memory[LOSSES]
    lost.cpu[place], lost.events[place], lost.before[place], lost.source[place] = cpu, events, before, source
    lost.after[place] = -1
    lost.earlier[place] = 0
    lost.offset[place] = memory[LINE_AT]
    memory[LOSSES] += 1
    return int(place + 1)


@part
def note_fields(data: Array, event: int, number: int, memory: Array) -> None:
    """Take note of the fields of a line: what their values are, and their size."""
    if memory[USUAL]:
        memory[index(EVENT_USUAL + event)] += 1
        return
    count_usual(event, memory)
    for token in range(number):
        field = memory[index(TOKEN_FIELD + token)]
        memory[index(FIELD_PRESENT + field)] += 1
        size = memory[index(TOKEN_END + token)] - memory[index(TOKEN_AT + token)]
        flags = memory[index(FIELD_FLAGS + field)]
        if flags & OTHER == 0:
            # Mostly a number that `split` has read; a call would take longer than to look.
            read = memory[index(TOKEN_STOP + token)] == memory[index(TOKEN_END + token)] and size <= MOST_DIGITS
            found = memory[index(TOKEN_CLASS + token)] if read else class_of(data, token, memory)
            if found & ~flags:
                memory[index(FIELD_FLAGS + field)] |= found
            if found == BARE:
                memory[index(FIELD_MODE + field)] = HEX_NUMBER
            if found != OTHER:
                continue
            # Rows before this one may be text, too.
            memory[index(FIELD_BYTES + field)] += MOST_DIGITS * memory[index(FIELD_PRESENT + field)]
            memory[index(FIELD_MODE + field)] = STRING
        memory[index(FIELD_BYTES + field)] += size


@part
def lost_samples(data: Array, end: int, memory: Array) -> int:
    """How many events a record of perf says are lost, -1 where it is no such record."""
    if memory[KIND] != RECORD or not starts(data, memory[NAME_AT], memory[NAME_END], _LOST_RECORD):
        return -1
    at = memory[ARGS_AT]
    while at < end and not starts(data, at, end, _LOST_WORD):
        at += 1
    stop = at + len(_LOST_WORD)
    at = stop
    while stop < end and is_digit(data[stop]):
        stop += 1
    return memory[VALUE] if stop > at and read_number(data, at, stop, NUMBER, memory) == DECIMAL else -1


@part
def note_event(
    data: Array, end: int, event: int, shape: Shape, memory: Array, buffers: Array, threads: Array, last: Array, pending: Array, lost: Lost
) -> None:
    """Take note of the line at `memory`, one of an event."""
    ts, cpu = memory[TS], memory[CPU]
    memory[index(EVENT_COUNT + event)] += 1
    memory[EVENT_BEFORE] = event
    if memory[FIRST_TS] < 0 or ts < memory[FIRST_TS]:
        memory[FIRST_TS] = ts
    memory[LAST_TS] = max(memory[LAST_TS], ts)
    if memory[TGID] != UNTOLD:
        memory[TGIDS] = 1
    if memory[TID] > 0:
        if memory[TID] != memory[THREAD_BEFORE]:
            memory[THREAD_BEFORE], memory[THREAD_PLACE] = memory[TID], thread_of(memory[TID], threads)
        if memory[THREAD_PLACE]:
            threads[index(1 + 3 * threads[1] + memory[THREAD_PLACE])] = memory[COMM_AT] << 12 | memory[COMM_END] - memory[COMM_AT]
    memory[TOP_CPU] = max(memory[TOP_CPU], cpu)
    if shape.prefix and memory[BUFFER_END] > memory[BUFFER_AT]:
        name_of(data, memory[BUFFER_AT], memory[BUFFER_END], buffers)
    if memory[RUN]:
        lost.after[index(memory[RUN] - 1)] = ts
        memory[RUN] = 0
    if cpu >= 0:
        place = pending[index(cpu)]
        while place:
            lost.after[index(place - 1)] = ts
            place = lost.earlier[index(place - 1)]
        pending[index(cpu)] = 0
        if shape.perf:
            events = lost_samples(data, end, memory)
            if events >= 0:
                lost.after[index(note_loss(cpu, events, last[index(cpu)], 0, memory, lost) - 1)] = ts
        last[index(cpu)] = ts
    memory[TS_BEFORE] = ts


@part
def continues(data: Array, at: int, end: int, event: int, perf: int, memory: Array) -> int:
    """Which part of the event before a line that is none of its own continues: `TEXT_LINE`, `FRAME_LINE`, `STACK_LINE`, or 0."""
    if event < 0:
        return 0
    if memory[index(EVENT_STYLE + event)] == TEXT:
        return TEXT_LINE
    if perf:
        return FRAME_LINE if read_frame(data, at, end, memory) else 0
    return STACK_LINE if starts(data, after_spaces(data, at, end), end, _CALLER) else 0


@part
def note_foreign(data: Array, at: int, end: int, shape: Shape, memory: Array, lost: Lost) -> None:
    """Take note of a line that is none of an event: it continues the one before, or cannot be read."""
    event = memory[EVENT_BEFORE]
    found = continues(data, at, end, event, shape.perf, memory)
    if found == TEXT_LINE:
        memory[FIELD_BYTES + keyless(event, BUF, memory)] += end - at + 1
    elif found == FRAME_LINE:
        memory[EVENT_FRAMES + event] += 1
    elif found == 0:
        if memory[FOREIGN_LINES] == 0:
            memory[FIRST_FOREIGN] = at
        memory[FOREIGN_LINES] += 1
        memory[EVENT_BEFORE] = -1
        if memory[RUN] == 0:
            before = memory[TS_BEFORE] if memory[FIRST_TS] >= 0 else -1
            memory[RUN] = note_loss(-1, 0, before, 1, memory, lost)
        lost.events[memory[RUN] - 1] += 1


@loop
def scan(
    data: Array,
    at: int,
    ends: Array,
    line: int,
    shape: Shape,
    memory: Array,
    buffers: Array,
    threads: Array,
    last: Array,
    pending: Array,
    lost: Lost,
) -> int:
    """Read lines from `line` on, which starts at `at`; the line that comes next: one before the last where `lost` is full."""
    while line < len(ends) and memory[LOSSES] + 1 < len(lost.cpu):
        end = ends[index(line)]
        memory[LINE_AT] = at
        found = read_line(data, at, end, shape.prefix, shape.width, shape.perf, memory)
        event = event_of(data, shape.perf, memory) if found == EVENT else -1
        if event >= 0:
            note_event(data, end, event, shape, memory, buffers, threads, last, pending, lost)
            number = split(data, event, end, memory)
            if memory[PERIOD_END] > memory[PERIOD_AT]:
                number = put(memory, number, keyless(event, PERIOD, memory), memory[PERIOD_AT], memory[PERIOD_END])
                memory[USUAL] = 0
            note_fields(data, event, number, memory)
        elif found == LOSS:
            cpu = memory[CPU]
            loss = note_loss(cpu, memory[LOST], last[index(cpu)], 0, memory, lost)
            lost.earlier[index(loss - 1)] = pending[index(cpu)]
            pending[index(cpu)] = loss
            memory[EVENT_BEFORE] = -1
            if memory[BUFFER_END] > memory[BUFFER_AT]:
                name_of(data, memory[BUFFER_AT], memory[BUFFER_END], buffers)
        elif found != NOTHING:
            note_foreign(data, at, end, shape, memory, lost)
        at = end + 1
        line += 1
    return line
