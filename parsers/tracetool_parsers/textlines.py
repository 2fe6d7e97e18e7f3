"""Lines of text traces: what each is, and what stands before its event; functions that the loops of `textscan` and `textread` call.

A line of tracefs is `COMM-PID [(TGID)] [CPU] FLAGS TIME: EVENT...` (Linux, kernel/trace/trace_output.c: `trace_print_context`), in
latency format `COMM-PID CPUFLAGS TIME: EVENT...` (`trace_print_lat_context`); `trace-cmd report` writes the same, after the name of the
buffer where there are several (trace-cmd, tracecmd/trace-read.c: `print_handle_file`). `perf script` writes
`COMM PID[/TID] [CPU] TIME: [PERIOD] EVENT...` (Linux, tools/perf/builtin-script.c: `perf_sample__fprintf_start`).

A command name may hold anything, even what looks like the rest of a line. All three right-justify it: where the column that it ends in
holds what must follow it, that column counts; else the first place of the line from which all the rest can be read.
"""

from __future__ import annotations

from typing import Any, Final

import numpy.typing as npt

from .loops import index, part
from .textmemory import (
    ARGS_AT,
    BUFFER_AT,
    BUFFER_END,
    COMM_AT,
    COMM_END,
    CPU,
    EVENT_AT,
    EVENT_LENGTH,
    KIND,
    KNOWN,
    LOST,
    MOST_SPOTS,
    NAME_AT,
    NAME_END,
    PERIOD_AT,
    PERIOD_END,
    SPOT,
    SPOTS,
    TGID,
    TID,
    TS,
)

Array = npt.NDArray[Any]

#: What a line is.
NOTHING: Final = 0
EVENT: Final = 1
LOSS: Final = 2
FOREIGN: Final = 3

#: How an event is named: by `name:`, or by the shape of its line.
NAMED: Final = 0
ENTER: Final = 1
EXIT: Final = 2
MARKED: Final = 3
CALL: Final = 4
STACK: Final = 5
RECORD: Final = 6

#: No thread and no process has this number; it stands for one that the line does not tell.
UNTOLD: Final = -(1 << 31)
#: CPUs are numbered below; Linux builds for at most 8192.
MOST_CPUS: Final = 1 << 16

# What stands before the event fits into so many bytes: the name of a buffer (255), a command name, numbers.
_MOST_HEAD: Final = 640
_MOST_NUMBER: Final = 1 << 31
_MOST_SECONDS: Final = 9_223_372_035

_NEWLINE, _SPACE, _DASH, _COLON, _HASH, _OPEN, _CLOSE, _SLASH = 10, 32, 45, 58, 35, 40, 41, 47
_MARK: Final = tuple(b"tracing_mark_write")
_SYS: Final = tuple(b"sys_")
_CPU: Final = tuple(b"CPU:")
_CPU_IS: Final = tuple(b"CPU ")
_CPUS: Final = tuple(b"cpus=")
_VERSION: Final = tuple(b"version = ")
_LOST: Final = tuple(b"LOST ")
_EVENTS: Final = tuple(b"EVENTS")
_ARROW: Final = tuple(b"-> ")
_CALLER: Final = tuple(b"<-")
_STACK: Final = tuple(b"<stack trace>")
_USER_STACK: Final = tuple(b"<user stack trace>")
_RECORD: Final = tuple(b"PERF_RECORD_")


@part
def starts(data: Array, at: int, end: int, word: tuple[int, ...]) -> bool:
    """Whether the bytes at `at` are that word."""
    if end - at < len(word):
        return False
    for i in range(len(word)):  # noqa: SIM110 - loops make no generators
        if data[index(at + i)] != word[i]:
            return False
    return True


@part
def same(data: Array, one: int, other: int, length: int) -> bool:
    """Whether the bytes at two places are equal."""
    for i in range(length):  # noqa: SIM110 - loops make no generators
        if data[index(one + i)] != data[index(other + i)]:
            return False
    return True


@part
def is_digit(byte: int) -> bool:
    """Whether it is 0..9."""
    return 48 <= byte <= 57


@part
def after_spaces(data: Array, at: int, end: int) -> int:
    """The first byte that is no space."""
    while at < end and data[index(at)] == _SPACE:
        at += 1
    return at


@part
def read_digits(data: Array, at: int, end: int, memory: Array, slot: int) -> int:
    """Write the decimal number at `at` to a slot of `memory`; where it ends, or -1 where none is, or one of 2^31 and more."""
    start = at
    value = 0
    while at < end and 48 <= data[index(at)] <= 57:
        value = value * 10 + (data[index(at)] - 48)
        at += 1
        if value >= _MOST_NUMBER:
            return -1
    memory[index(slot)] = value
    return at if at > start else -1


@part
def read_time(data: Array, at: int, end: int, memory: Array) -> int:
    """Write the time stamp at `at` (ns); where the event after it starts, or -1 where none is.

    `S.FRACTION: ` in seconds, `Nus+: ` in microseconds since the trace began, with a mark of delay (latency format), or `N: ` of a clock
    that counts something else, which is taken as it is.
    """
    start = at
    value = 0
    while at < end and 48 <= data[index(at)] <= 57:
        if at - start == 18:
            return -1
        value = value * 10 + (data[index(at)] - 48)
        at += 1
    if at == start or at >= end:
        return -1
    if data[index(at)] == 46:
        at += 1
        point = at
        fraction = 0
        while at < end and 48 <= data[index(at)] <= 57 and at - point < 9:
            fraction = fraction * 10 + (data[index(at)] - 48)
            at += 1
        if at == point or value > _MOST_SECONDS:
            return -1
        for _ in range(9 - (at - point)):
            fraction *= 10
        value = value * 1_000_000_000 + fraction
    elif at + 1 < end and data[index(at)] == 117 and data[index(at + 1)] == 115:
        if at - start > 15:
            return -1
        value *= 1000
        at += 2
        if at < end and data[index(at)] != _COLON:
            at += 1
    if at >= end or data[index(at)] != _COLON or (at + 1 < end and data[index(at + 1)] != _SPACE):
        return -1
    memory[TS] = value
    return at + 1


@part
def read_thread(data: Array, dash: int, end: int, memory: Array) -> int:
    """Write what follows a command name at its dash: `-PID [(TGID)] [CPU] [FLAGS] TIME: `; where the event starts, or -1."""
    at = read_digits(data, dash + 1, end, memory, TID)
    if at < 0 or at >= end or data[index(at)] != _SPACE:
        return -1
    at = after_spaces(data, at, end)
    memory[TGID] = UNTOLD
    if at < end and data[index(at)] == _OPEN:
        at = after_spaces(data, at + 1, end)
        if at < end and data[index(at)] == _DASH:
            while at < end and data[index(at)] == _DASH:
                at += 1
        else:
            at = read_digits(data, at, end, memory, TGID)
        if at < 0 or at >= end or data[index(at)] != _CLOSE:
            return -1
        at = after_spaces(data, at + 1, end)
    if at >= end:
        return -1
    bracket = data[index(at)] == 91
    at = read_digits(data, at + 1 if bracket else at, end, memory, CPU)
    if at < 0 or at >= end or memory[CPU] >= MOST_CPUS:
        return -1
    if bracket:
        if data[index(at)] != 93:
            return -1
        at += 1
    elif data[index(at)] == _SPACE:
        return -1
    else:
        # Latency format: flags follow the CPU without a space, and a time follows them.
        while at < end and data[index(at)] != _SPACE:
            at += 1
    at = after_spaces(data, at, end)
    found = read_time(data, at, end, memory)
    if found < 0 and bracket:
        while at < end and data[index(at)] != _SPACE:
            at += 1
        found = read_time(data, after_spaces(data, at, end), end, memory)
    return found


@part
def read_sampled(data: Array, space: int, end: int, memory: Array, width: int) -> int:
    """Write what follows a command name in `perf script`, at the space after it: ` PID[/TID] [CPU] TIME: `; where the event starts, or -1.

    `width`: how many bytes the first number has at least, with the spaces before it.
    """
    at = after_spaces(data, space + 1, end)
    negative = at < end and data[index(at)] == _DASH
    at = read_digits(data, at + 1 if negative else at, end, memory, TID)
    if at < 0 or at >= end or at - space - 1 < width:
        return -1
    if negative:
        memory[TID] = -memory[TID]
    memory[TGID] = UNTOLD
    if data[index(at)] == _SLASH:
        memory[TGID] = memory[TID]
        negative = at + 1 < end and data[index(at + 1)] == _DASH
        at = read_digits(data, at + 2 if negative else at + 1, end, memory, TID)
        if at < 0 or at >= end:
            return -1
        if negative:
            memory[TID] = -memory[TID]
    if data[index(at)] != _SPACE:
        return -1
    at = after_spaces(data, at, end)
    memory[CPU] = -1
    if at < end and data[index(at)] == 91:
        at = read_digits(data, at + 1, end, memory, CPU)
        if at < 0 or at >= end or data[index(at)] != 93 or memory[CPU] >= MOST_CPUS:
            return -1
        at = after_spaces(data, at + 1, end)
    return read_time(data, at, end, memory)


@part
def name_comm(data: Array, at: int, end: int, memory: Array) -> None:
    """Write where a command name lies, without the spaces that justify it."""
    memory[COMM_AT] = after_spaces(data, at, end)
    memory[COMM_END] = end


@part
def read_buffer(data: Array, at: int, end: int, memory: Array) -> bool:
    """Write the name of the buffer that a line of `trace-cmd report` starts with; False where no such name stands there."""
    first = after_spaces(data, at, end)
    memory[BUFFER_AT] = first
    memory[BUFFER_END] = first
    if first == end:
        return True
    memory[BUFFER_END] = end - 2
    return first < end - 2 and data[end - 2] == _COLON and data[end - 1] == _SPACE


@part
def read_context(data: Array, at: int, end: int, prefix: int, width: int, perf: int, memory: Array) -> int:
    """Write what stands before the event of a line; where the event starts, or -1 where the line is none of an event.

    `prefix` is the width of the names of buffers, `width` that of command names.
    """
    memory[BUFFER_AT] = memory[BUFFER_END] = at
    found = -1
    if perf:
        if at + width < end and data[index(at + width)] == _SPACE:
            name_comm(data, at, at + width, memory)
            found = read_sampled(data, at + width, end, memory, 7)
        for least in (7, 0):
            place = at + 1
            while found < 0 and place < end:
                # Of a run of spaces only the first can end a name: no other is tried, which would take the square of its length.
                if data[index(place)] == _SPACE and data[index(place - 1)] != _SPACE:
                    name_comm(data, at, place, memory)
                    found = read_sampled(data, place, end, memory, least)
                place += 1
        return found
    column = at + prefix + width
    if column < end and data[index(column)] == _DASH and read_buffer(data, at, at + prefix, memory):
        name_comm(data, at + prefix, column, memory)
        found = read_thread(data, column, end, memory)
    if found < 0:
        memory[BUFFER_AT] = memory[BUFFER_END] = at
        # The line after a loss has no name of a buffer.
        column = at + width
        if prefix and column < end and data[index(column)] == _DASH:
            name_comm(data, at, column, memory)
            found = read_thread(data, column, end, memory)
        place = at + 1
        while found < 0 and place + 1 < end:
            if data[index(place)] == _DASH and is_digit(data[index(place + 1)]):
                name_comm(data, at, place, memory)
                found = read_thread(data, place, end, memory)
            place += 1
        if found >= 0 and prefix and memory[COMM_END] > at + prefix and read_buffer(data, at, at + prefix, memory):
            name_comm(data, at + prefix, memory[COMM_END], memory)
        elif found >= 0:
            memory[BUFFER_AT] = memory[BUFFER_END] = at
    return found


@part
def read_name(data: Array, at: int, end: int, perf: int, memory: Array) -> bool:
    """Write where the name of the event lies, how it is named, and where the text after it starts; False where there is no name."""
    at = after_spaces(data, at, end)
    memory[PERIOD_AT] = memory[PERIOD_END] = at
    memory[KNOWN], memory[SPOT] = -1, 0
    if perf:
        digits = at
        while digits < end and is_digit(data[index(digits)]):
            digits += 1
        if at < digits < end and data[index(digits)] == _SPACE:
            memory[PERIOD_END] = digits
            at = after_spaces(data, digits, end)
        if starts(data, at, end, _RECORD):
            memory[KIND] = RECORD
            memory[NAME_AT] = at
            while at < end and (65 <= data[index(at)] <= 90 or data[index(at)] == 95 or is_digit(data[index(at)])):
                at += 1
            memory[NAME_END] = at
            memory[ARGS_AT] = at
            return True
    if recognised(data, at, end, memory):
        return True
    memory[NAME_AT] = at
    while (
        at < end
        and data[index(at)] != _SPACE
        and data[index(at)] != _OPEN
        and not (data[index(at)] == _COLON and (at + 1 == end or data[index(at + 1)] == _SPACE))
    ):
        at += 1
    memory[NAME_END] = at
    if at < end and data[index(at)] == _COLON and at > memory[NAME_AT]:
        memory[KIND] = NAMED
        if perf == 0 and at - memory[NAME_AT] == len(_MARK) and starts(data, memory[NAME_AT], at, _MARK):
            memory[KIND] = MARKED
        memory[ARGS_AT] = at + 1
        return True
    return read_unnamed(data, at, end, memory)


@part
def recognised(data: Array, at: int, end: int, memory: Array) -> bool:
    """Whether a name `name:` of an earlier line stands here, as mostly one does: then all is written, and need not be looked up."""
    if at + 16 >= end:
        return False
    look = data[index(at)] + data[index(at + 3)] * 5 + data[index(at + 8)] * 25 + data[index(at + 11)] * 125 + data[index(at + 14)] * 625
    memory[SPOT] = SPOTS + (look & MOST_SPOTS - 1)
    event = memory[index(memory[SPOT])] - 1
    if event < 0:
        return False
    length = memory[index(EVENT_LENGTH + event)]
    stop = at + length
    if stop + 1 >= end or data[index(stop)] != _COLON or data[index(stop + 1)] != _SPACE:
        return False
    if not same(data, memory[index(EVENT_AT + event)], at, length):
        return False
    memory[NAME_AT], memory[NAME_END], memory[ARGS_AT], memory[KIND], memory[KNOWN] = at, stop, stop + 1, NAMED, event
    return True


@part
def read_unnamed(data: Array, at: int, end: int, memory: Array) -> bool:
    """The same for events that tracefs prints without `name:`.

    System calls are `sys_NAME(ARGUMENTS)` and `sys_NAME -> VALUE` (Linux, kernel/trace/trace_syscalls.c), calls of functions
    `FUNCTION <-CALLER` and stacks `<stack trace>` (trace_output.c).
    """
    start = memory[NAME_AT]
    called = starts(data, start, end, _SYS)
    memory[ARGS_AT] = at
    if called and at < end and data[at] == _OPEN:
        memory[KIND] = ENTER
        memory[ARGS_AT] = at + 1
        return True
    if called and starts(data, at + 1, end, _ARROW):
        memory[KIND] = EXIT
        memory[ARGS_AT] = at + 4
        return True
    if starts(data, start, end, _STACK) or starts(data, start, end, _USER_STACK):
        memory[KIND] = STACK
        memory[NAME_END] = memory[ARGS_AT] = end
        return True
    if starts(data, at + 1, end, _CALLER):
        memory[KIND] = CALL
        memory[ARGS_AT] = start
        return True
    return False


@part
def read_loss(data: Array, at: int, end: int, memory: Array) -> bool:
    """Write CPU and number of a line `CPU:n [LOST n EVENTS]`, `CPU:n [n EVENTS DROPPED]`, without a number -1; False where it is none."""
    if not starts(data, at, end, _CPU):
        return False
    at = read_digits(data, at + 4, end, memory, CPU)
    if at < 0 or memory[CPU] >= MOST_CPUS or at + 2 >= end or data[at] != _SPACE or data[at + 1] != 91:
        return False
    at += 2
    if starts(data, at, end, _LOST):
        at += len(_LOST)
    memory[LOST] = -1
    if starts(data, at, end, _EVENTS):
        return True
    at = read_digits(data, at, end, memory, LOST)
    return at > 0 and starts(data, at + 1, end, _EVENTS)


@part
def read_line(data: Array, at: int, end: int, prefix: int, width: int, perf: int, memory: Array) -> int:
    """What the line `at`..`end` (without its newline) is; of an event and a loss everything is written to `memory`."""
    if at == end or data[index(at)] == _HASH:
        return NOTHING
    limit = min(end, at + _MOST_HEAD)
    found = read_context(data, at, limit, prefix, width, perf, memory)
    if found >= 0 and read_name(data, found, end, perf, memory):
        return EVENT
    memory[BUFFER_AT] = memory[BUFFER_END] = at
    if read_loss(data, at, limit, memory):
        return LOSS
    if prefix and at + prefix < limit and read_buffer(data, at, at + prefix, memory) and read_loss(data, at + prefix, limit, memory):
        return LOSS
    if starts(data, at, end, _CPUS) or starts(data, at, end, _VERSION) or starts(data, at, end, _CPU_IS):
        return NOTHING
    return FOREIGN
