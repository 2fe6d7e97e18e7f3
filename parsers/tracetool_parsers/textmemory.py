"""What the loops over a text remember, in one array of int64: two arrays, the text and this, pass through all their functions.

Handed over one by one, arrays cost more than the work that is done on them: compiled code passes seven words for each.

The array has places for the line that is read, for counters, and for columns: `memory[EVENT_COUNT + event]` is how often an event occurs.
"""

from __future__ import annotations

import mmap
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Bounds on what is remembered of a text: no kernel has as many events (their ids are 16 bits), no event as many fields.
MOST_EVENTS: Final = 1 << 16
MOST_FIELDS: Final = 1 << 17
MOST_FIELDS_OF_ONE: Final = 256

# The line that is read: its time in ns, CPU, thread and process, from where to where its names lie, where the text after the name of the
# event starts, how the event is named, how many events a line of losses tells.
TS: Final = 0
CPU: Final = 1
TID: Final = 2
TGID: Final = 3
COMM_AT: Final = 4
COMM_END: Final = 5
NAME_AT: Final = 6
NAME_END: Final = 7
ARGS_AT: Final = 8
KIND: Final = 9
BUFFER_AT: Final = 10
BUFFER_END: Final = 11
PERIOD_AT: Final = 12
PERIOD_END: Final = 13
LOST: Final = 14
#: The number that was read last, its bits where it is one of 64 bits without a sign.
VALUE: Final = 15
#: Where the line starts.
LINE_AT: Final = 16

# How many events, fields (numbered from 1) and lines with keys there are.
EVENTS: Final = 17
FIELDS: Final = 18
LINES: Final = 19

# What is carried from line to line: the least and greatest time, -1 without events, the time of the event before, which event that is (-1:
# none that could go on), how many losses there are, the loss (from 1) that unreadable lines belong to, whether a process was told, the
# greatest CPU, lines that cannot be read and the first of them, how many events were read, and the buffer that a line of losses named.
FIRST_TS: Final = 20
LAST_TS: Final = 21
TS_BEFORE: Final = 22
EVENT_BEFORE: Final = 23
LOSSES: Final = 24
RUN: Final = 25
TGIDS: Final = 26
TOP_CPU: Final = 27
FOREIGN_LINES: Final = 28
FIRST_FOREIGN: Final = 29
POSITION: Final = 30
LOSS_BUFFER_AT: Final = 31
LOSS_BUFFER_END: Final = 32
#: The thread of the event before, and its place in the table of threads (0: none).
THREAD_BEFORE: Final = 33
THREAD_PLACE: Final = 34
#: The name of the row before: where it lies, its length and its number.
ROW_COMM_AT: Final = 35
ROW_COMM_LENGTH: Final = 36
ROW_COMM: Final = 37
#: The event that the line names, where `recognised` knew it, else -1; where the next line that looks so finds it, 0: nowhere.
KNOWN: Final = 38
SPOT: Final = 39
#: 1 where the line has all fields of its event, and each is a number of the kind that it was before.
USUAL: Final = 40

# The fields of the line: which, where the key starts, from where to where the value lies; what the number is that it starts with, that
# number, and where it ends. Three fields can come without a key.
_TOKENS: Final = MOST_FIELDS_OF_ONE + 3
TOKEN_FIELD: Final = 41
TOKEN_KEY: Final = TOKEN_FIELD + _TOKENS
TOKEN_AT: Final = TOKEN_KEY + _TOKENS
TOKEN_END: Final = TOKEN_AT + _TOKENS
TOKEN_CLASS: Final = TOKEN_END + _TOKENS
TOKEN_VALUE: Final = TOKEN_CLASS + _TOKENS
TOKEN_STOP: Final = TOKEN_VALUE + _TOKENS

# Columns lie no power of two apart: the same place of all of them would else be in the same set of the processor's cache, which holds
# eight of those.
_EVENTS_APART: Final = MOST_EVENTS + 72
_FIELDS_APART: Final = MOST_FIELDS + 72

# Events, numbered from 0: where the first name of each lies, how it is named, how the text after it is made, its first and last field, how
# many fields, how often it occurs, how many entries its call chains have; the group of rows that it goes to, -1: not asked for; how many
# usual lines it had that its fields do not count yet.
EVENT_AT: Final = TOKEN_STOP + _TOKENS
EVENT_LENGTH: Final = EVENT_AT + _EVENTS_APART
EVENT_KIND: Final = EVENT_LENGTH + _EVENTS_APART
EVENT_STYLE: Final = EVENT_KIND + _EVENTS_APART
EVENT_FIRST: Final = EVENT_STYLE + _EVENTS_APART
EVENT_LAST: Final = EVENT_FIRST + _EVENTS_APART
EVENT_WIDTH: Final = EVENT_LAST + _EVENTS_APART
EVENT_COUNT: Final = EVENT_WIDTH + _EVENTS_APART
EVENT_FRAMES: Final = EVENT_COUNT + _EVENTS_APART
EVENT_GROUP: Final = EVENT_FRAMES + _EVENTS_APART
EVENT_USUAL: Final = EVENT_GROUP + _EVENTS_APART

# Groups of rows: the first row, how many there are so far, where entries of call chains start, how many there are so far, whether fields
# are wanted.
GROUP_BASE: Final = EVENT_USUAL + _EVENTS_APART
GROUP_ROWS: Final = GROUP_BASE + _EVENTS_APART
GROUP_CHAIN: Final = GROUP_ROWS + _EVENTS_APART
GROUP_FRAMES: Final = GROUP_CHAIN + _EVENTS_APART
GROUP_ASKS: Final = GROUP_FRAMES + _EVENTS_APART

# Fields: where the first key of each lies (a negative number for one without), the neighbours among the fields of its event in the order
# in which they came, what its values are, how many rows have it, bytes of its values that are no numbers, the last line that has it, 1 if
# it is not taken for a field; how it is read, where its numbers or lengths of strings start, where its bytes start, how many there are so
# far, where is said which rows have it (-1: all).
FIELD_AT: Final = GROUP_ASKS + _EVENTS_APART
FIELD_LENGTH: Final = FIELD_AT + _FIELDS_APART
FIELD_NEXT: Final = FIELD_LENGTH + _FIELDS_APART
FIELD_PREVIOUS: Final = FIELD_NEXT + _FIELDS_APART
FIELD_FLAGS: Final = FIELD_PREVIOUS + _FIELDS_APART
FIELD_PRESENT: Final = FIELD_FLAGS + _FIELDS_APART
FIELD_BYTES: Final = FIELD_PRESENT + _FIELDS_APART
FIELD_LINE: Final = FIELD_BYTES + _FIELDS_APART
FIELD_OFF: Final = FIELD_LINE + _FIELDS_APART
FIELD_MODE: Final = FIELD_OFF + _FIELDS_APART
FIELD_COLUMN: Final = FIELD_MODE + _FIELDS_APART
FIELD_TEXT: Final = FIELD_COLUMN + _FIELDS_APART
FIELD_USED: Final = FIELD_TEXT + _FIELDS_APART
FIELD_VALID: Final = FIELD_USED + _FIELDS_APART

#: A hash table of events: their numbers, from 1.
SLOTS: Final = FIELD_VALID + _FIELDS_APART
#: The event that a name was whose first bytes look the same, from 1; 0: none.
SPOTS: Final = SLOTS + 2 * MOST_EVENTS
MOST_SPOTS: Final = 1 << 10
_SIZE: Final = SPOTS + MOST_SPOTS


def new_memory() -> Array:
    """Room for everything, all zero; the system makes pages only of what is written.

    Of the system itself: memory that was in use before would be filled with zeros, which takes 5 ms, longer than a short text.
    """
    pages = mmap.mmap(-1, 8 * _SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory = np.frombuffer(pages, np.int64)
    memory[[FIRST_TS, LAST_TS, TS_BEFORE, EVENT_BEFORE]] = -1
    return memory


def of_events(memory: Array, place: int) -> Array:
    """A column of all events that there are."""
    return memory[place : place + int(memory[EVENTS])]


def of_fields(memory: Array, place: int) -> Array:
    """A column of all fields that there are, by their numbers from 1."""
    return memory[place : place + int(memory[FIELDS]) + 1]
