"""The options of a trace.dat: what the recorder wrote down about the machine and the run.

An option is a u16 id, a u32 size and that many bytes: trace-cmd, lib/trace-cmd/include/private/trace-cmd-private.h for the ids,
lib/trace-cmd/trace-input.c (`handle_options`) for their contents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from .cursor import Cursor, text

#: More than any writer has options; keeps a damaged chain from being followed for ever.
MOST_OPTIONS: Final = 100_000


class Option(IntEnum):
    """Ids of options, and of the v7 sections that share the numbers."""

    DONE = 0
    DATE = 1
    CPUSTAT = 2
    BUFFER = 3
    TRACECLOCK = 4
    UNAME = 5
    HOOK = 6
    OFFSET = 7
    CPUCOUNT = 8
    VERSION = 9
    PROCMAPS = 10
    TRACEID = 11
    TIME_SHIFT = 12
    GUEST = 13
    TSC2NSEC = 14
    STRINGS = 15
    HEADER_INFO = 16
    FTRACE_EVENTS = 17
    EVENT_FORMATS = 18
    KALLSYMS = 19
    PRINTK = 20
    CMDLINES = 21
    BUFFER_TEXT = 22
    BTF_FILE = 23
    LAST_BOOT_INFO = 24
    MODULES_FILE = 25


@dataclass(frozen=True, slots=True)
class CpuStat:
    """What the kernel counted for one CPU of one buffer: tracefs `per_cpu/cpuN/stats`. All are numbers of events."""

    buffer: str
    cpu: int
    overrun: int
    commit_overrun: int
    dropped: int


@dataclass
class Options:
    """The options of a file that are of use, as they are met.

    Attributes:
        uname: "Linux HOST RELEASE MACHINE".
        writer: version of the trace-cmd that wrote the file.
        clock: name of the trace clock, where an option names it.
        has_clock: whether there was a TRACECLOCK option, even an empty one: v6 then stores the clock after the CPU table.
        shift_ns: nanoseconds to add to every time stamp (DATE, OFFSET).
        tsc: multiplier and shift that turn the clock's ticks into nanoseconds.
        cpus: number of CPUs.
        buffers: contents of the BUFFER options, and the CPU count that follows one whose count is its own (v6).
        sections: v7 section id -> byte offset of its header.
        stats: one row a CPUSTAT option.
        notes: what was skipped, for the user.
        stats_of: the buffer that further CPUSTAT options are about.
        last: id of the last option.
    """

    uname: str | None = None
    writer: str | None = None
    clock: str | None = None
    has_clock: bool = False
    shift_ns: int = 0
    tsc: tuple[int, int] | None = None
    cpus: int | None = None
    buffers: list[tuple[Cursor, int | None]] = field(default_factory=list)
    sections: dict[int, int] = field(default_factory=dict)
    stats: list[CpuStat] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stats_of: str = ""
    last: int = 0

    def add(self, kind: int, body: Cursor) -> None:
        """Take in one option of id `kind`; what is unknown is noted and left out.

        Raises:
            ParseError: the option is too short for its kind.
        """
        if Option.HEADER_INFO <= kind <= Option.CMDLINES:
            self.sections[kind] = body.u64("offset of a section")
        elif kind in _TAKEN_IN:
            _TAKEN_IN[kind](self, body)
        elif kind not in _LEFT_OUT:
            self.notes.append(f"unknown option {kind} at byte {body.offset} skipped ({body.left} bytes)")
        self.last = kind


def _take_uname(options: Options, body: Cursor) -> None:
    options.uname = text(body.rest()).strip() or None


def _take_writer(options: Options, body: Cursor) -> None:
    options.writer = text(body.rest()).strip() or None


def _take_clock(options: Options, body: Cursor) -> None:
    options.has_clock = True
    options.clock = chosen_clock(text(body.rest())) or options.clock


def _take_buffer(options: Options, body: Cursor) -> None:
    options.buffers.append((body, None))


def _take_cpus(options: Options, body: Cursor) -> None:
    cpus = body.u32("CPU count")
    # trace-cmd writes the count of an instance right after the instance, where it differs: trace-output.c, add_buffer_option_v6.
    if options.last == Option.BUFFER:
        options.buffers[-1] = options.buffers[-1][0], cpus
    else:
        options.cpus = cpus


def _take_date(options: Options, body: Cursor) -> None:
    _take_shift(options, body, 1000)


def _take_offset(options: Options, body: Cursor) -> None:
    _take_shift(options, body, 1)


def _take_shift(options: Options, body: Cursor, unit_ns: int) -> None:
    at, number = body.offset, text(body.rest())
    shift = _c_integer(number)
    if shift is None or abs(options.shift_ns + shift * unit_ns) >= 1 << 62:
        options.notes.append(f"a time offset at byte {at} is not possible: {number[:40]!r}; not applied")
    else:
        options.shift_ns += shift * unit_ns


def _take_tsc(options: Options, body: Cursor) -> None:
    options.tsc = body.u32("clock multiplier"), body.u32("clock shift")


def _take_time_shift(options: Options, body: Cursor) -> None:
    options.notes.append(f"option TIME_SHIFT at byte {body.offset} is not applied: times are those of the guest's own clock")


def _take_stat(options: Options, body: Cursor) -> None:
    stat = text(body.rest())
    buffer = re.match(r"\s*Buffer: (.*?)\s*$", stat)
    if buffer:
        options.stats_of = buffer[1]
        return
    numbers = {key.strip(): int(value) for key, value in re.findall(r"^([A-Za-z ]+): (\d{1,18})\s*$", stat, re.MULTILINE)}
    if "CPU" in numbers and numbers["CPU"] < 1 << 31:
        lost = (numbers.get(key, 0) for key in ("overrun", "commit overrun", "dropped events"))
        options.stats.append(CpuStat(options.stats_of, numbers["CPU"], *lost))


_TAKEN_IN: Final[Mapping[int, Callable[[Options, Cursor], None]]] = {
    Option.DATE: _take_date,
    Option.CPUSTAT: _take_stat,
    Option.BUFFER: _take_buffer,
    Option.TRACECLOCK: _take_clock,
    Option.UNAME: _take_uname,
    Option.OFFSET: _take_offset,
    Option.CPUCOUNT: _take_cpus,
    Option.VERSION: _take_writer,
    Option.TIME_SHIFT: _take_time_shift,
    Option.TSC2NSEC: _take_tsc,
}
#: Known, and of no use to the events: not worth a note.
_LEFT_OUT: Final = frozenset(Option) - frozenset(_TAKEN_IN)


def _c_integer(number: str) -> int | None:
    # As strtoll with base 0 reads it: 0x is hexadecimal, a leading 0 octal.
    match = re.match(r"\s*([+-]?)(0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,21}|[1-9]\d{0,18})(?![0-9a-fA-F])", number)
    if match is None:
        return None
    digits = match[2]
    base = 16 if digits[:2].lower() == "0x" else 8 if digits[0] == "0" else 10
    return int(digits, base) * (-1 if match[1] == "-" else 1)


def chosen_clock(listed: str) -> str | None:
    """The clock in use out of tracefs `trace_clock`, where it stands in brackets: "local [global] counter" -> "global"."""
    match = re.search(r"\[([^\]\s]{1,64})\]", listed)
    return match[1] if match else None
