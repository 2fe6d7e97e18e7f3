"""The options of a trace.dat: what the recorder wrote down about the machine and the run.

An option is a u16 id, a u32 size and that many bytes: trace-cmd, lib/trace-cmd/include/private/trace-cmd-private.h for the ids,
lib/trace-cmd/trace-input.c (`handle_options`) for their contents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np

from .cursor import LONGEST_NAME, Cursor, text
from .errors import ParseError
from .metadata import ProcessMaps
from .timefix import ClockSamples, Numbers, TimeFix

#: More than any writer has options; keeps a damaged chain from being followed for ever.
MOST_OPTIONS: Final = 100_000
#: More mappings than a few hundred processes have; each takes many times its bytes in the file.
MOST_MAPS: Final = 1 << 18
#: Linux, NR_CPUS on the largest machines; all guests of a host together have no more than eight times as many.
_MOST_CPUS: Final = 8192
_MOST_VCPUS: Final = 8 * _MOST_CPUS


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


class Damage(NamedTuple):
    """What is missing of the metadata, where the rest can be read without it: byte of the file, and what is wrong there."""

    offset: int
    what: str


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest that was recorded together with this host.

    Attributes:
        name: of the guest.
        trace_id: as the guest's own file has it (`Options.trace_id`).
        vcpus: virtual CPU -> the host's thread that runs it.
    """

    name: str
    trace_id: int
    vcpus: Mapping[int, int]


@dataclass
class Options:
    """The options of a file, as they are met.

    Attributes:
        uname: "Linux HOST RELEASE MACHINE".
        writer: version of the trace-cmd that wrote the file.
        clock: name of the trace clock, where an option names it.
        has_clock: whether there was a TRACECLOCK option, even an empty one: v6 then stores the clock after the CPU table.
        times: how time stamps become nanoseconds (DATE, OFFSET, TIME_SHIFT, TSC2NSEC).
        cpus: number of CPUs.
        trace_id: number of this recording, by which those of host and guests name each other.
        peer_id: of a guest: number of the host's recording.
        guests: of a host: its guests.
        procmaps: one each process that was asked for.
        hooks: what `trace-cmd record -H` was asked to pair, as written.
        last_boot: instance -> what a buffer that outlived a boot says of the kernel that filled it.
        buffers: contents of the BUFFER options, and the CPU count that follows one whose count is its own (v6).
        texts: contents of the BUFFER_TEXT options (v7).
        sections: v7 section id -> byte offset of its header.
        stats: one row a CPUSTAT option.
        damage: what is damaged of the options.
        notes: what was skipped, for the user.
        stats_of: the buffer that further CPUSTAT options are about.
        last: id of the last option.
        taken: how many there were.
    """

    uname: str | None = None
    writer: str | None = None
    clock: str | None = None
    has_clock: bool = False
    times: TimeFix = field(default_factory=TimeFix)
    cpus: int | None = None
    trace_id: int | None = None
    peer_id: int | None = None
    guests: list[Guest] = field(default_factory=list)
    procmaps: list[ProcessMaps] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)
    last_boot: dict[str, str] = field(default_factory=dict)
    buffers: list[tuple[Cursor, int | None]] = field(default_factory=list)
    texts: list[Cursor] = field(default_factory=list)
    sections: dict[int, int] = field(default_factory=dict)
    stats: list[CpuStat] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stats_of: str = ""
    last: int = 0
    taken: int = 0

    def add(self, kind: int, body: Cursor) -> None:
        """Take in one option of id `kind`; what is unknown or damaged is noted and left out.

        Raises:
            ParseError: it is one too many.
        """
        self.taken += 1
        if self.taken > MOST_OPTIONS:
            raise body.error("the options have no end", "the file is damaged")
        try:
            self._take(kind, body)
        except ParseError as error:
            self.damage.append(Damage(error.offset or body.offset, f"option {kind} is damaged: {error.message}"))
        self.last = kind

    def _take(self, kind: int, body: Cursor) -> None:
        if Option.HEADER_INFO <= kind <= Option.CMDLINES:
            self.sections[kind] = body.u64("offset of a section")
        elif kind in _TAKEN_IN:
            _TAKEN_IN[kind](self, body)
        elif kind not in _LEFT_OUT:
            self.notes.append(f"unknown option {kind} at byte {body.offset} skipped ({body.left} bytes)")


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
    if shift is None or abs(options.times.shift_ns + shift * unit_ns) >= 1 << 62:
        options.notes.append(f"a time offset at byte {at} is not possible: {number[:40]!r}; not applied")
    else:
        options.times = replace(options.times, shift_ns=options.times.shift_ns + shift * unit_ns)


def _take_tsc(options: Options, body: Cursor) -> None:
    multiplier, shift = body.u32("clock multiplier"), body.u32("clock shift")
    # The u64 offset that follows is what the recorder's clock started from: trace-cmd reads it and does not use it, either.
    if shift > 63:
        options.notes.append(f"option TSC2NSEC has an impossible shift of {shift}: times are ticks of the clock")
    elif multiplier:
        options.times = replace(options.times, tsc=(multiplier, shift))


def _take_time_shift(options: Options, body: Cursor) -> None:
    """A guest's clock against its host's; trace-cmd applies it whether the host's file is read along or not."""
    options.peer_id = body.u64("trace id of the host")
    interpolate = bool(body.u32("flags of the time shift") & 1)
    cpus = body.count(4, 4, "CPUs of the time shift")
    if cpus > _MOST_CPUS:
        raise body.error(f"a guest of {cpus} CPUs is not possible")
    read = [_samples(body) for _ in range(cpus)]
    # Scalings without fractions are whole numbers: the fractions came later.
    fractions = [_numbers(body, times.size, "fractions") if body.left else np.zeros_like(times) for times, _, _ in read]
    if any((bits > 63).any() for bits in fractions):
        options.notes.append(f"option TIME_SHIFT at byte {body.offset} has impossible fractions: times are those of the guest's own clock")
        return
    host = tuple(ClockSamples.of(*three, bits) if bits.size else None for three, bits in zip(read, fractions, strict=True))
    options.times = replace(options.times, host=host, interpolate=interpolate)


def _samples(body: Cursor) -> tuple[Numbers, Numbers, Numbers]:
    count = body.count(4, 24, "samples of the time shift")
    return _numbers(body, count, "times"), _numbers(body, count, "offsets"), _numbers(body, count, "scalings")


def _numbers(body: Cursor, count: int, what: str) -> Numbers:
    block = body.take(8 * count, f"{what} of the time shift")
    return np.frombuffer(block, "<u8" if body.order == "little" else ">u8").astype(np.uint64)


def _take_trace_id(options: Options, body: Cursor) -> None:
    options.trace_id = body.u64("trace id")


def _take_guest(options: Options, body: Cursor) -> None:
    name, trace_id = body.string("name of a guest"), body.u64("trace id of a guest")
    count = body.count(4, 8, "CPUs of a guest")
    if count + sum(len(guest.vcpus) for guest in options.guests) > _MOST_VCPUS:
        raise body.error(f"a guest of {count} more CPUs is not possible", "the file is damaged")
    options.guests.append(Guest(name, trace_id, {entry[0]: entry[1] for entry in body.records("II", count, "CPUs of a guest")}))


def _take_procmaps(options: Options, body: Cursor) -> None:
    at = body.offset
    head, _, listed = text(body.rest()).partition("\n")
    process = re.match(r"([0-9a-f]{1,8}) [0-9a-f]{1,8} (.*)", head)
    left = MOST_MAPS - sum(len(process.maps) for process in options.procmaps)
    if process is None or listed.count("\n") > left:
        options.notes.append(f"option PROCMAPS at byte {at} is no list of mappings; skipped")
        return
    # All numbers are hexadecimal, the process, too: trace-cmd, tracecmd/trace-record.c, add_pid_maps; names may hold spaces.
    found = re.findall(r"^([0-9a-f]{1,16}) ([0-9a-f]{1,16}) (.+)$", listed, re.MULTILINE)
    maps = tuple((int(begin, 16), int(end, 16), file) for begin, end, file in found)
    options.procmaps.append(ProcessMaps(int(process[1], 16), process[2], maps))


def _take_hook(options: Options, body: Cursor) -> None:
    options.hooks.append(text(body.rest()))


def _take_last_boot(options: Options, body: Cursor) -> None:
    instance, _, told = text(body.rest()).partition(":")
    options.last_boot[instance] = told


def _take_text(options: Options, body: Cursor) -> None:
    options.texts.append(body)


def _take_stat(options: Options, body: Cursor) -> None:
    stat = text(body.rest()[:LONGEST_NAME])
    buffer = re.match(r"\s*Buffer: ([^\n]*)", stat)
    if buffer:
        options.stats_of = buffer[1].rstrip()
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
    Option.HOOK: _take_hook,
    Option.OFFSET: _take_offset,
    Option.CPUCOUNT: _take_cpus,
    Option.VERSION: _take_writer,
    Option.PROCMAPS: _take_procmaps,
    Option.TRACEID: _take_trace_id,
    Option.TIME_SHIFT: _take_time_shift,
    Option.GUEST: _take_guest,
    Option.TSC2NSEC: _take_tsc,
    Option.BUFFER_TEXT: _take_text,
    Option.LAST_BOOT_INFO: _take_last_boot,
}
#: Known, and of no use to the events (strings that describe sections, BTF, modules): not worth a note.
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
