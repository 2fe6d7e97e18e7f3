"""What stands after the name of an event in a text trace, as fields: `key=value`, `key: value`, one value, or plain text.

Values hold anything, also what looks like another key: of a key that a line has twice, those count that stand in the order in which the
event usually has its keys, read from the right: numbers stand between names there, so a command name `x pid=5` stays one.
"""

from __future__ import annotations

from typing import Any, Final

import numpy.typing as npt

from .loops import index, part
from .textlines import CALL, ENTER, EXIT, MARKED, NAMED, STACK, after_spaces, is_digit, same, starts
from .textmemory import (
    ARGS_AT,
    EVENT_AT,
    EVENT_FIRST,
    EVENT_KIND,
    EVENT_LAST,
    EVENT_LENGTH,
    EVENT_STYLE,
    EVENT_USUAL,
    EVENT_WIDTH,
    EVENTS,
    FIELD_AT,
    FIELD_FLAGS,
    FIELD_LENGTH,
    FIELD_LINE,
    FIELD_MODE,
    FIELD_NEXT,
    FIELD_OFF,
    FIELD_PRESENT,
    FIELD_PREVIOUS,
    FIELDS,
    KIND,
    KNOWN,
    LINES,
    MOST_EVENTS,
    MOST_FIELDS,
    MOST_FIELDS_OF_ONE,
    NAME_AT,
    NAME_END,
    SLOTS,
    SPOT,
    TOKEN_AT,
    TOKEN_CLASS,
    TOKEN_END,
    TOKEN_FIELD,
    TOKEN_KEY,
    TOKEN_STOP,
    TOKEN_VALUE,
    USUAL,
    VALUE,
)
from .textnumbers import BARE, HEX_NUMBER, MOST_DIGITS, NUMBER, OTHER, SYMBOL, number_at, read_number

Array = npt.NDArray[Any]

#: The longest key.
MOST_KEY: Final = 64

#: How the text after an event's name is made.
KEYS: Final = 0
PAIRS: Final = 1
RETURNS: Final = 2
TEXT: Final = 3
WHOLE: Final = 4
ADDRESSES: Final = 5

#: Fields that no key names: in place of where their name lies.
ARGS: Final = -1
RET: Final = -2
BUF: Final = -3
PERIOD: Final = -4
FIRST: Final = -5
SECOND: Final = -6

_SPACE, _COMMA, _EQUALS, _COLON, _OPEN, _CLOSE, _QUOTE = 32, 44, 61, 58, 40, 41, 34
_ENTER: Final = tuple(b"sys_enter_")
_EXIT: Final = tuple(b"sys_exit_")
_PRINT: Final = tuple(b"print")
_IP: Final = tuple(b"ip=")
_BUF: Final = tuple(b" buf=")
_THEN: Final = tuple(b" ==>")
# Letters after the name of a perf event: tools/perf/Documentation/perf-list.txt, event modifiers.
_MODIFIERS: Final = tuple(b"ukhIGHpPSDWeb")


# --- names ----------------------------------------------------------------------------------------------------------------------------


@part
def hash_of(data: Array, at: int, end: int, seed: int) -> int:
    """A hash of bytes, 32 bits."""
    value = 2166136261 ^ seed
    if (end - at) & 1:
        value = (value ^ data[index(at)]) * 16777619 & 0xFFFFFFFF
        at += 1
    # By two: each step waits for the one before it.
    while at < end:
        value = (value ^ data[index(at)] ^ data[index(at + 1)] * 256) * 16777619 & 0xFFFFFFFF
        at += 2
    return value ^ value >> 15


@part
def event_of(data: Array, perf: int, memory: Array) -> int:
    """The number of the event that the line in `memory` names, -1 where there are too many."""
    if memory[KNOWN] >= 0:
        return int(memory[KNOWN])
    kind, at, end = memory[KIND], memory[NAME_AT], memory[NAME_END]
    if kind == MARKED or kind == CALL or kind == STACK:
        end = at
    mask = 2 * MOST_EVENTS - 1
    slot = hash_of(data, at, end, kind) & mask
    while memory[index(SLOTS + slot)]:
        event = memory[index(SLOTS + slot)] - 1
        if (
            memory[index(EVENT_KIND + event)] == kind
            and memory[index(EVENT_LENGTH + event)] == end - at
            and same(data, memory[index(EVENT_AT + event)], at, end - at)
        ):
            if kind == NAMED and memory[SPOT]:
                memory[index(memory[SPOT])] = event + 1
            return int(event)
        slot = slot + 1 & mask
    event = memory[EVENTS]
    if event == MOST_EVENTS:
        return -1
    memory[EVENTS] += 1
    memory[index(SLOTS + slot)] = event + 1
    memory[index(EVENT_AT + event)], memory[index(EVENT_LENGTH + event)], memory[index(EVENT_KIND + event)] = at, end - at, kind
    memory[index(EVENT_STYLE + event)] = style_of(data, at, end, kind, perf)
    return int(event)


@part
def style_of(data: Array, at: int, end: int, kind: int, perf: int) -> int:
    """How the text after the name of an event is made, told from the name."""
    if kind == ENTER or kind == EXIT:
        return PAIRS if kind == ENTER else RETURNS
    if kind == MARKED:
        return TEXT
    if kind != NAMED:
        return WHOLE
    if perf and is_sampled(data, at, end):
        return ADDRESSES
    colon = end - 1
    while colon >= at and data[colon] != _COLON:
        colon -= 1
    name = colon + 1
    if starts(data, name, end, _ENTER):
        return PAIRS
    if starts(data, name, end, _EXIT):
        return RETURNS
    return TEXT if end - name == len(_PRINT) and starts(data, name, end, _PRINT) else KEYS


@part
def is_sampled(data: Array, at: int, end: int) -> bool:
    """Whether a name of `perf script` is of no tracepoint, which has a system: `page-faults`, `cycles:u`."""
    for i in range(at, end):
        if data[i] == _COLON:
            for j in range(i + 1, end):
                if data[j] not in _MODIFIERS:
                    return False
            return end - i <= 4
    return True


@part
def count_usual(event: int, memory: Array) -> None:
    """Count the usual lines of an event, which had all of its fields, for each field."""
    lines = memory[EVENT_USUAL + event]
    if lines:
        memory[EVENT_USUAL + event] = 0
        field = memory[EVENT_FIRST + event]
        while field:
            memory[FIELD_PRESENT + field] += lines
            field = memory[FIELD_NEXT + field]


@part
def add_field(event: int, at: int, length: int, memory: Array) -> int:
    """A new field of an event, 0 where there are too many."""
    count_usual(event, memory)
    if memory[EVENT_WIDTH + event] == MOST_FIELDS_OF_ONE or memory[FIELDS] + 1 == MOST_FIELDS:
        return 0
    memory[FIELDS] += 1
    field = memory[FIELDS]
    memory[FIELD_AT + field], memory[FIELD_LENGTH + field], memory[FIELD_MODE + field] = at, length, NUMBER
    last = memory[EVENT_LAST + event]
    memory[FIELD_PREVIOUS + field] = last
    if last:
        memory[FIELD_NEXT + last] = field
    else:
        memory[EVENT_FIRST + event] = field
    memory[EVENT_LAST + event] = field
    memory[EVENT_WIDTH + event] += 1
    return int(field)


@part
def keyed(data: Array, event: int, at: int, end: int, expected: int, memory: Array) -> int:
    """The field of an event that a key names, which is mostly the one that is expected; 0 where it is none."""
    length = end - at
    field = expected or memory[index(EVENT_FIRST + event)]
    # Once round: from the one that is expected to the last, then from the first.
    for _ in range(memory[index(EVENT_WIDTH + event)]):
        if (
            memory[index(FIELD_AT + field)] >= 0
            and memory[index(FIELD_LENGTH + field)] == length
            and same(data, memory[index(FIELD_AT + field)], at, length)
        ):
            return 0 if memory[index(FIELD_OFF + field)] else int(field)
        field = memory[index(FIELD_NEXT + field)]
        if field == 0:
            field = memory[index(EVENT_FIRST + event)]
    return add_field(event, at, length, memory)


@part
def keyless(event: int, place: int, memory: Array) -> int:
    """The field of an event that has no key: `ARGS`, `RET`..."""
    field = memory[index(EVENT_FIRST + event)]
    while field:
        if memory[index(FIELD_AT + field)] == place:
            return int(field)
        field = memory[index(FIELD_NEXT + field)]
    return add_field(event, place, 0, memory)


# --- fields of a line -----------------------------------------------------------------------------------------------------------------


@part
def put(memory: Array, number: int, field: int, at: int, end: int) -> int:
    """Write a token without a key; how many there are then."""
    if field == 0:
        return number
    memory[index(TOKEN_FIELD + number)], memory[index(TOKEN_KEY + number)] = field, at
    memory[index(TOKEN_AT + number)], memory[index(TOKEN_END + number)], memory[index(TOKEN_STOP + number)] = at, end, -1
    return number + 1


@part
def split(data: Array, event: int, end: int, memory: Array) -> int:
    """Write the fields of the line in `memory`, which ends at `end`, beside it; how many they are."""
    at = after_spaces(data, memory[ARGS_AT], end)
    while end > at and data[index(end - 1)] == 13:
        end -= 1
    memory[USUAL] = 0
    style = memory[index(EVENT_STYLE + event)]
    if style == TEXT:
        return put(memory, 0, keyless(event, BUF, memory), text_of(data, memory[ARGS_AT], end, memory[index(EVENT_KIND + event)]), end)
    if style == PAIRS:
        return split_pairs(data, event, at, end, memory)
    if style == RETURNS and at < end and (is_digit(data[index(at)]) or data[index(at)] == 45):
        return put(memory, 0, keyless(event, RET, memory), at, end)
    if style == WHOLE:
        return put(memory, 0, keyless(event, ARGS, memory), at, end)
    if style == ADDRESSES:
        return split_addresses(data, event, at, end, memory)
    return split_keys(data, event, at, end, memory)


@part
def text_of(data: Array, at: int, end: int, kind: int) -> int:
    """Where the text of `trace_marker` starts: after `FUNCTION: ` or `ip=FUNCTION buf=`, which say who printed it."""
    if at < end and data[at] == _SPACE:
        at += 1
    if kind == MARKED:
        return at
    first = after_spaces(data, at, end)
    if starts(data, first, end, _IP):
        i = first
        while i < end:
            if starts(data, i, end, _BUF):
                return i + len(_BUF)
            i += 1
    for i in range(first, end):
        if data[i] == _COLON:
            return i + 2 if i + 1 < end and data[i + 1] == _SPACE else i + 1
        if data[i] == _SPACE:
            break
    return first


@part
def split_addresses(data: Array, event: int, at: int, end: int, memory: Array) -> int:
    """The fields of a sample of perf that is of no tracepoint: one or two addresses with their symbols."""
    number = 0
    i = at
    while i < end and number < 2:
        stop = i
        while stop < end and data[stop] != _SPACE:
            stop += 1
        if read_number(data, i, stop, HEX_NUMBER, memory) == OTHER:
            break
        number = put(memory, number, keyless(event, SECOND if number else FIRST, memory), i, stop)
        i = after_spaces(data, stop, end)
    if i < end and number == 0:
        return put(memory, 0, keyless(event, ARGS, memory), at, end)
    if i < end:
        memory[FIELD_FLAGS + memory[TOKEN_FIELD]] |= SYMBOL
    return number


@part
def split_pairs(data: Array, event: int, at: int, end: int, memory: Array) -> int:
    """The arguments of a system call: `key: value, key: value`, of tracefs up to `)`; in raw reports `key=value`."""
    if memory[index(EVENT_KIND + event)] == ENTER:
        while end > at and data[index(end - 1)] == _SPACE:
            end -= 1
        if end > at and data[index(end - 1)] == _CLOSE:
            end -= 1
    memory[LINES] += 1
    line = memory[LINES]
    number = 0
    expected = 0
    i = at
    while i < end and number < MOST_FIELDS_OF_ONE:
        stop = i
        while stop < end and is_key(data[index(stop)]):
            stop += 1
        if stop == i or stop >= end or data[index(stop)] != _COLON:
            if number == 0:
                return split_keys(data, event, at, end, memory)
            break
        field = keyed(data, event, i, stop, expected, memory) if stop - i <= MOST_KEY else 0
        value = after_spaces(data, stop + 1, end)
        stop = value
        while stop < end and data[index(stop)] != _COMMA:
            stop += 1
        if field and memory[index(FIELD_LINE + field)] != line:
            memory[index(FIELD_LINE + field)] = line
            number = put(memory, number, field, value, stop)
            expected = memory[index(FIELD_NEXT + field)]
        i = after_spaces(data, stop + 1, end)
    return number


@part
def is_key(byte: int) -> bool:
    """Whether it can be part of the name of a field."""
    return 97 <= byte <= 122 or byte == 95 or 65 <= byte <= 90 or 48 <= byte <= 57 or byte == 46


@part
def split_keys(data: Array, event: int, at: int, end: int, memory: Array) -> int:
    """Fields `key=value` with the text before the first; a key stands at the start or after a space."""
    number = 0
    expected = memory[index(EVENT_FIRST + event)]
    ordered = plain = quotes = True
    ended = unusual = 0
    i = at
    while i < end and number < MOST_FIELDS_OF_ONE:
        # Mostly the key that comes next: compared here, as a call takes longer than the comparison.
        stop = i + memory[index(FIELD_LENGTH + expected)]
        named = 0
        if (
            expected
            and stop < end
            and data[index(stop)] == _EQUALS
            and memory[index(FIELD_AT + expected)] >= 0
            and memory[index(FIELD_OFF + expected)] == 0
        ):
            named = memory[index(FIELD_AT + expected)] - i
            stop = i
            while data[index(stop)] == data[index(stop + named)] and data[index(stop)] != _EQUALS:
                stop += 1
        if stop > i and stop - i == memory[index(FIELD_LENGTH + expected)] and named:
            field = expected
        else:
            stop = i
            while stop < end and is_key(data[index(stop)]):
                stop += 1
            keys = i < stop < end and stop - i <= MOST_KEY and data[index(stop)] == _EQUALS and not is_digit(data[index(i)])
            field = keyed(data, event, i, stop, expected, memory) if keys else 0
            ordered = ordered and field == 0
        if field:
            plain = plain and (number == 0 or ended == i - 1)
            stop += 1
            memory[index(TOKEN_FIELD + number)], memory[index(TOKEN_KEY + number)], memory[index(TOKEN_AT + number)] = field, i, stop
            expected = memory[index(FIELD_NEXT + field)]
            ended = -1
            if quotes and stop < end and data[index(stop)] == _QUOTE:
                close = closing(data, stop + 1, end)
                quotes = close < end
                stop = close if quotes else stop
            elif memory[index(FIELD_MODE + field)] == NUMBER or memory[index(FIELD_MODE + field)] == HEX_NUMBER:
                found, value, stop = number_at(data, stop, end, memory[index(FIELD_MODE + field)])
                memory[index(TOKEN_CLASS + number)], memory[index(TOKEN_VALUE + number)] = found, value
                ended = stop if found != OTHER else -1
                unusual |= found & ~memory[index(FIELD_FLAGS + field)]
            memory[index(TOKEN_STOP + number)] = memory[index(TOKEN_END + number)] = ended
            number += 1
        while stop < end and data[index(stop)] != _SPACE:
            stop += 1
        i = stop + 1
        while i < end and data[index(i)] == _SPACE:
            i += 1
    if not ordered:
        number = in_order(event, number, memory)
    plain = plain and ordered and ended == end
    if not plain:
        bound(data, number, end, memory)
    first = memory[TOKEN_KEY] if number else end
    while first > at and data[index(first - 1)] == _SPACE:
        first -= 1
    # A probe's place, `(function+0x0/0x10)`, is the same in every row of its event.
    if first > at and not (data[index(at)] == _OPEN and data[index(first - 1)] == _CLOSE):
        return put(memory, number, keyless(event, ARGS, memory), at, first)
    if plain and unusual == 0 and number == memory[index(EVENT_WIDTH + event)]:
        memory[USUAL] = 1
    return number


@part
def closing(data: Array, at: int, end: int) -> int:
    """Where the quotation ends that starts before `at`: at the first quote before a space; `end` where it does not."""
    while at < end and not (data[index(at)] == _QUOTE and (at + 1 == end or data[index(at + 1)] == _SPACE)):
        at += 1
    return at


@part
def in_order(event: int, number: int, memory: Array) -> int:
    """Drop keys that are part of a value, which a line shows by having one twice; how many stay.

    From the right those stay that come in the order of the event's fields.
    """
    memory[LINES] += 1
    twice = False
    for place in range(number):
        field = memory[TOKEN_FIELD + place]
        twice = twice or memory[FIELD_LINE + field] == memory[LINES]
        memory[FIELD_LINE + field] = memory[LINES]
    if not twice:
        return number
    upto = number
    field = memory[EVENT_LAST + event]
    while field:
        for place in range(upto - 1, -1, -1):
            if memory[TOKEN_FIELD + place] == field:
                for between in range(place + 1, upto):
                    memory[TOKEN_FIELD + between] = 0
                upto = place
                break
        field = memory[FIELD_PREVIOUS + field]
    for between in range(upto):
        memory[TOKEN_FIELD + between] = 0
    kept = 0
    for place in range(number):
        if memory[TOKEN_FIELD + place]:
            for column in (TOKEN_FIELD, TOKEN_KEY, TOKEN_AT, TOKEN_CLASS, TOKEN_VALUE, TOKEN_STOP):
                memory[column + kept] = memory[column + place]
            kept += 1
    return kept


@part
def bound(data: Array, number: int, end: int, memory: Array) -> None:
    """Write where values end: before the space of the next key, and what separates besides."""
    for place in range(number):
        start = memory[index(TOKEN_AT + place)]
        stop = end
        if place + 1 < number:
            stop = max(memory[index(TOKEN_KEY + place + 1)] - 1, start)
            if stop > start and data[index(stop - 1)] == _COMMA:
                stop -= 1
            elif stop - start >= 4 and starts(data, stop - 4, stop, _THEN):
                stop -= 4
        if stop - start >= 2 and data[index(start)] == _QUOTE and data[index(stop - 1)] == _QUOTE:
            start, stop = start + 1, stop - 1
        memory[index(TOKEN_AT + place)], memory[index(TOKEN_END + place)] = start, stop


@part
def number_of(data: Array, token: int, mode: int, memory: Array) -> int:
    """The same for the value of a token, which mostly is known already."""
    if memory[index(TOKEN_STOP + token)] == memory[index(TOKEN_END + token)]:
        memory[VALUE] = memory[index(TOKEN_VALUE + token)]
        return int(memory[index(TOKEN_CLASS + token)])
    return read_number(data, memory[index(TOKEN_AT + token)], memory[index(TOKEN_END + token)], mode, memory)


@part
def class_of(data: Array, token: int, memory: Array) -> int:
    """What the value of a token is; `BARE` where it is a number if its digits are hexadecimal ones only."""
    if memory[index(TOKEN_END + token)] - memory[index(TOKEN_AT + token)] > MOST_DIGITS:
        return OTHER
    found = number_of(data, token, memory[index(FIELD_MODE + memory[index(TOKEN_FIELD + token)])], memory)
    if found == OTHER and read_number(data, memory[index(TOKEN_AT + token)], memory[index(TOKEN_END + token)], HEX_NUMBER, memory) != OTHER:
        return BARE
    return found
