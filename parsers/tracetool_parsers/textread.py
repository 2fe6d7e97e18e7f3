"""The second pass over a text trace: the columns of the events that are asked for, each written once into room of its final size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .loops import index, loop, part
from .progress import stage
from .strings import chunks_of, joined, strings_of
from .textfields import BUF, PERIOD, event_of, keyless, number_of, put, split
from .textlines import EVENT, LOSS, NOTHING, read_line, same
from .textmemory import (
    BUFFER_AT,
    BUFFER_END,
    COMM_AT,
    COMM_END,
    CPU,
    EVENT_BEFORE,
    EVENT_COUNT,
    EVENT_FRAMES,
    EVENT_GROUP,
    FIELD_COLUMN,
    FIELD_MODE,
    FIELD_TEXT,
    FIELD_USED,
    FIELD_VALID,
    GROUP_ASKS,
    GROUP_BASE,
    GROUP_CHAIN,
    GROUP_FRAMES,
    GROUP_ROWS,
    LOSS_BUFFER_AT,
    LOSS_BUFFER_END,
    PERIOD_AT,
    PERIOD_END,
    POSITION,
    ROW_COMM,
    ROW_COMM_AT,
    ROW_COMM_LENGTH,
    TGID,
    TID,
    TOKEN_AT,
    TOKEN_END,
    TOKEN_FIELD,
    TOKEN_STOP,
    TOKEN_VALUE,
    TS,
    VALUE,
    of_events,
    of_fields,
)
from .textnumbers import OTHER, STRING, UNASKED
from .textscan import (
    BYTES_OF_ITEM,
    FRAME_LINE,
    MOST_NAMES,
    TEXT_LINE,
    Shape,
    Survey,
    continues,
    name_of,
    new_names,
    room_for,
    strings,
    windows,
)

Array = npt.NDArray[Any]

_KINDS: Final = (np.int64, np.int64, np.int32, np.uint8, np.bool_)


@dataclass(frozen=True, slots=True)
class Column:
    """A field that is wanted.

    Attributes:
        field: its number.
        mode: `NUMBER`, `HEX_NUMBER` or `STRING`.
        unsigned: whether the number has no sign.
        room: bytes that a string column needs at most.
        whole: whether every row has it.
    """

    field: int
    mode: int
    unsigned: bool
    room: int
    whole: bool


class Header(NamedTuple):
    """The columns that all events have; an array is empty where its column is not wanted."""

    ts: Array
    cpu: Array
    tid: Array
    comm: Array
    tgid: Array
    buffer: Array
    event: Array
    position: Array
    frames: Array


class Room(NamedTuple):
    """Where fields are written: numbers and entries of chains (int64), lengths of strings (int32), their bytes, who has one (bool)."""

    numbers: Array
    chain: Array
    lengths: Array
    bytes: Array
    valid: Array


@dataclass(frozen=True, slots=True)
class Wanted:
    """One event that is asked for: its number, and the fields that are wanted."""

    event: int
    columns: Sequence[Column]


@dataclass(frozen=True, slots=True)
class Read:
    """What was read: the header of all rows, the first row of each group, its columns, and the names that the header counts."""

    header: Header
    bases: list[int]
    columns: list[list[pa.Array | pa.ChunkedArray]]
    chains: list[pa.Array]
    names: list[str]


def read_rows(
    data: Array,
    shape: Shape,
    survey: Survey,
    wanted: Sequence[Wanted],
    *,
    together: bool = False,
    positions: bool = False,
    chains: bool = False,
) -> Read:
    """Read the events that are asked for.

    Args:
        data: uint8, the text.
        shape: of its lines.
        survey: what the first pass found.
        wanted: the events, each once.
        together: whether all rows are one group, in the order of the text, without columns.
        positions: whether the place of each row among all events is wanted.
        chains: whether call chains are wanted.
    """
    memory = survey.memory
    room = _plan(memory, wanted, together=together, chains=chains)
    total = sum(int(memory[EVENT_COUNT + each.event]) for each in wanted)
    header = _header(total, survey, together=together, positions=positions, chains=chains)
    names = new_names(room_for(data.size, MOST_NAMES))
    start = 0
    with stage("decoding", data.size, "bytes", lambda: start):
        for start, ends in survey.windows or windows(data):
            collect.run(data.size // BYTES_OF_ITEM, data, start, ends, shape, memory, survey.buffers, names, header, room)
    bases = [int(memory[GROUP_BASE + group]) for group in range(1 if together else len(wanted))]
    columns, made = [], []
    for group, each in enumerate(wanted):
        rows = int(memory[EVENT_COUNT + each.event])
        columns.append([_column(column, rows, memory, room) for column in each.columns])
        if chains:
            made.append(_chain(int(memory[GROUP_CHAIN + group]), header.frames[bases[group] :][:rows], room.chain))
    return Read(header, bases, columns, made, strings(data, names))


def _plan(memory: Array, wanted: Sequence[Wanted], *, together: bool, chains: bool) -> Room:
    """Write to the memory where what goes, and make room for it."""
    of_events(memory, EVENT_GROUP)[:] = -1
    of_fields(memory, FIELD_MODE)[:] = UNASKED
    for place in (GROUP_BASE, GROUP_ROWS, GROUP_CHAIN, GROUP_FRAMES, GROUP_ASKS):
        memory[place : place + max(len(wanted), 1)] = 0
    memory[[POSITION, LOSS_BUFFER_AT, LOSS_BUFFER_END]] = 0
    memory[[EVENT_BEFORE, ROW_COMM_LENGTH]] = -1
    row = numbers = lengths = texts = valid = frames = 0
    for group, each in enumerate(wanted):
        memory[EVENT_GROUP + each.event] = 0 if together else group
        rows = int(memory[EVENT_COUNT + each.event])
        if not together:
            memory[GROUP_BASE + group], memory[GROUP_CHAIN + group], memory[GROUP_ASKS + group] = row, frames, len(each.columns)
        row += rows
        frames += int(memory[EVENT_FRAMES + each.event]) if chains else 0
        for one in each.columns:
            text = one.mode == STRING
            memory[FIELD_MODE + one.field], memory[FIELD_TEXT + one.field], memory[FIELD_USED + one.field] = one.mode, texts, 0
            memory[FIELD_COLUMN + one.field] = lengths if text else numbers
            memory[FIELD_VALID + one.field] = -1 if one.whole else valid
            numbers, lengths = numbers + (0 if text else rows), lengths + (rows if text else 0)
            texts, valid = texts + (one.room if text else 0), valid + (0 if one.whole else rows)
    return Room(*(np.zeros(size, kind) for size, kind in zip((numbers, frames, lengths, texts, valid), _KINDS, strict=True)))


def _header(total: int, survey: Survey, *, together: bool, positions: bool, chains: bool) -> Header:
    def rows(wanted: bool, kind: type = np.int32) -> Array:
        return np.zeros(total if wanted else 0, kind)

    several = bool(survey.buffers[0]) and not together
    return Header(
        rows(True, np.int64),
        rows(True),
        rows(True),
        rows(not together),
        rows(survey.tgids and not together),
        rows(several),
        rows(together),
        rows(positions, np.int64),
        rows(chains),
    )


def _column(column: Column, rows: int, memory: Array, room: Room) -> pa.Array | pa.ChunkedArray:
    start, valid = int(memory[FIELD_COLUMN + column.field]), int(memory[FIELD_VALID + column.field])
    present = None if valid < 0 else room.valid[valid : valid + rows]
    if column.mode != STRING:
        values = room.numbers[start : start + rows]
        return pa.array(values.view(np.uint64) if column.unsigned else values, mask=None if present is None else ~present)
    text = int(memory[FIELD_TEXT + column.field])
    packed = room.bytes[text : text + int(memory[FIELD_USED + column.field])]
    return _strings(room.lengths[start : start + rows], packed, present)


def _strings(lengths: Array, packed: Array, present: Array | None) -> pa.Array | pa.ChunkedArray:
    """Strings that lie one after the other."""
    chunks = []
    at = 0
    for rows in chunks_of(lengths):
        offsets = np.zeros(lengths[rows].size + 1, np.int32)
        np.cumsum(lengths[rows], out=offsets[1:])
        size = int(offsets[-1])
        chunks.append(strings_of(offsets, packed[at : at + size], None if present is None else ~present[rows]))
        at += size
    return joined(chunks, pa.string())


def _chain(start: int, frames: Array, chain: Array) -> pa.Array:
    offsets = np.zeros(frames.size + 1, np.int32)
    np.cumsum(frames, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(chain[start : start + int(offsets[-1])].view(np.uint64)))


@part
def comm_of(data: Array, names: Array, memory: Array) -> int:
    """The number of the command name of the line in `memory`, which mostly is that of the row before."""
    at, length = memory[COMM_AT], memory[COMM_END] - memory[COMM_AT]
    if length != memory[ROW_COMM_LENGTH] or not same(data, memory[ROW_COMM_AT], at, length):
        memory[ROW_COMM_AT], memory[ROW_COMM_LENGTH] = at, length
        memory[ROW_COMM] = name_of(data, at, at + length, names)
    return int(memory[ROW_COMM])


@part
def write_text(data: Array, field: int, row: int, at: int, end: int, memory: Array, room: Room) -> None:
    """Write bytes of a string, after those that the row has."""
    to = memory[index(FIELD_TEXT + field)] + memory[index(FIELD_USED + field)] - at
    for i in range(at, end):
        room.bytes[index(to + i)] = data[index(i)]
    room.lengths[index(memory[index(FIELD_COLUMN + field)] + row)] += end - at
    memory[index(FIELD_USED + field)] += end - at


@part
def write_fields(data: Array, event: int, row: int, end: int, memory: Array, room: Room) -> None:
    """Write the values that are wanted of the line in `memory`."""
    number = split(data, event, end, memory)
    if memory[PERIOD_END] > memory[PERIOD_AT]:
        number = put(memory, number, keyless(event, PERIOD, memory), memory[PERIOD_AT], memory[PERIOD_END])
    for token in range(number):
        field = memory[index(TOKEN_FIELD + token)]
        mode = memory[index(FIELD_MODE + field)]
        if mode == UNASKED:
            continue
        if mode == STRING:
            write_text(data, field, row, memory[index(TOKEN_AT + token)], memory[index(TOKEN_END + token)], memory, room)
        elif memory[index(TOKEN_STOP + token)] == memory[index(TOKEN_END + token)]:
            room.numbers[index(memory[index(FIELD_COLUMN + field)] + row)] = memory[index(TOKEN_VALUE + token)]
        elif number_of(data, token, mode, memory) != OTHER:
            room.numbers[index(memory[index(FIELD_COLUMN + field)] + row)] = memory[VALUE]
        else:
            continue
        if memory[index(FIELD_VALID + field)] >= 0:
            room.valid[index(memory[index(FIELD_VALID + field)] + row)] = True


@part
def write_more(data: Array, at: int, end: int, perf: int, memory: Array, frames: Array, room: Room) -> None:
    """Write what a line that is none of an event adds to the one before."""
    event = memory[EVENT_BEFORE]
    found = continues(data, at, end, event, perf, memory)
    if found == 0:
        memory[EVENT_BEFORE] = -1
        return
    group = memory[EVENT_GROUP + event]
    if group < 0:
        return
    if found == TEXT_LINE:
        field = keyless(event, BUF, memory)
        if memory[FIELD_MODE + field]:
            # From the newline before it.
            write_text(data, field, memory[GROUP_ROWS + group] - 1, at - 1, end, memory, room)
    elif found == FRAME_LINE and len(frames):
        room.chain[memory[GROUP_CHAIN + group] + memory[GROUP_FRAMES + group]] = memory[VALUE]
        memory[GROUP_FRAMES + group] += 1
        frames[memory[GROUP_BASE + group] + memory[GROUP_ROWS + group] - 1] += 1


@loop
def collect(
    data: Array, at: int, ends: Array, shape: Shape, memory: Array, buffers: Array, names: Array, header: Header, room: Room
) -> None:
    """Write the rows of lines, the first of which starts at `at`."""
    for line in range(len(ends)):
        end = ends[index(line)]
        found = read_line(data, at, end, shape.prefix, shape.width, shape.perf, memory)
        event = event_of(data, shape.perf, memory) if found == EVENT else -1
        if event >= 0:
            memory[EVENT_BEFORE] = event
            if memory[LOSS_BUFFER_END]:
                # The line after that of a loss has no name of a buffer.
                memory[BUFFER_AT], memory[BUFFER_END] = memory[LOSS_BUFFER_AT], memory[LOSS_BUFFER_END]
                memory[LOSS_BUFFER_END] = 0
            group = memory[index(EVENT_GROUP + event)]
            if group >= 0:
                row = memory[index(GROUP_ROWS + group)]
                memory[index(GROUP_ROWS + group)] += 1
                place = memory[index(GROUP_BASE + group)] + row
                header.ts[index(place)], header.cpu[index(place)], header.tid[index(place)] = memory[TS], memory[CPU], memory[TID]
                if len(header.comm):
                    header.comm[index(place)] = comm_of(data, names, memory)
                if len(header.tgid):
                    header.tgid[index(place)] = memory[TGID]
                if len(header.buffer) and memory[BUFFER_END] > memory[BUFFER_AT]:
                    header.buffer[index(place)] = name_of(data, memory[BUFFER_AT], memory[BUFFER_END], buffers)
                if len(header.event):
                    header.event[index(place)] = event
                if len(header.position):
                    header.position[index(place)] = memory[POSITION]
                if memory[index(GROUP_ASKS + group)]:
                    write_fields(data, event, row, end, memory, room)
            memory[POSITION] += 1
        elif found == LOSS:
            memory[EVENT_BEFORE] = -1
            memory[LOSS_BUFFER_AT], memory[LOSS_BUFFER_END] = memory[BUFFER_AT], memory[BUFFER_END]
        elif found != NOTHING:
            write_more(data, at, end, shape.perf, memory, header.frames, room)
        at = end + 1
