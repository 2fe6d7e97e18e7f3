"""Options of a trace.dat: what they say, and that times are turned as trace-cmd turns them."""

from __future__ import annotations

import contextlib
import shutil
import struct
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.reports import report
from parsers.writer import PING_FORMAT, Instance, Trace, data, ping, pings, subbuffer
from tracetool_parsers import ParseError
from tracetool_parsers.metadata import ProcessMaps
from tracetool_parsers.options import CpuStat, Guest
from tracetool_parsers.timefix import ClockSamples, TimeFix
from tracetool_parsers.tracedat import Recording, read_recording
from tracetool_parsers.writing import cpu_stats

needs_trace_cmd = pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed: nothing to compare with")

Sample = tuple[int, int, int]


def recording(trace: Trace, version: str = "v7") -> Recording:
    return read_recording(memoryview(trace.write(version)), "trace.dat")


def with_options(*options: tuple[int, bytes]) -> Recording:
    trace = pings(subbuffer(10, data(ping(1))))
    trace.options = options
    return recording(trace)


def time_shift(interpolate: int, cpus: Sequence[Sequence[Sample]], fractions: Sequence[Sequence[int]] | None = None) -> bytes:
    """The contents of a TIME_SHIFT option; a sample is a time, an offset and a scaling."""
    body = struct.pack("<QII", 0x1234, interpolate, len(cpus))
    for samples in cpus:
        body += struct.pack("<I", len(samples))
        for place, layout in enumerate("QqQ"):
            body += struct.pack(f"<{len(samples)}{layout}", *(sample[place] for sample in samples))
    for bits in fractions or ():
        body += struct.pack(f"<{len(bits)}Q", *bits)
    return body


TSC = (14, struct.pack("<IIQ", 3, 1, 5))
SHIFTED = [
    [(12, time_shift(0, [[(0, 100, 1)]]))],
    [(12, time_shift(1, [[(1000, 100, 1), (3000, -300, 1)], [(3000, 10, 3), (1000, 17, 2)]]))],
    [(12, time_shift(0, [[(1000, 100, 3), (2000, 200, 5), (3000, 300, 7)]], [[1, 2, 3]]))],
    [(12, time_shift(1, [[(1000, 100, 3), (2000, -7, 5), (3000, 300, 7), (3300, 0, 7)], [(1, 2, 3)]], [[1, 2, 3, 0], [5]]))],
    [(12, time_shift(1, [[(1000, 5, 1), (1000, 9, 1), (2000, 8, 1)], [(7, -900, 1)]]))],
    [TSC, (12, time_shift(0, [[(0, 100, 1)]])), (7, b"7\0")],
    [(12, time_shift(0, [[(0, 100, 1)]])), (1, b"-0x1\0"), TSC],
    [(14, struct.pack("<IIQ", 0, 1, 0))],
    [(14, struct.pack("<IIQ", 2100000000, 31, 0))],
]


@needs_trace_cmd
@pytest.mark.parametrize("version", ["v6", "v7"])
@pytest.mark.parametrize("options", SHIFTED)
def test_times_are_turned_as_trace_cmd_turns_them(tmp_path: Path, version: str, options: list[tuple[int, bytes]]) -> None:
    ticks = [900, 1000, 1001, 1500, 2000, 2500, 3000, 3001, 3500, 70000]
    records = [data(ping(tick), tick - before) for before, tick in zip([900, *ticks], ticks, strict=False)]
    page = subbuffer(900, *records)
    trace = Trace([Instance({0: [page], 1: [page]}), Instance({0: [page]}, name="small")], {"test": [PING_FORMAT]}, options=options)
    path = tmp_path / "trace.dat"
    path.write_bytes(trace.write(version))
    times = recording(trace, version).times
    printed = report(path)
    assert len(printed) == 3 * len(ticks)
    fixed = [times.apply(np.array(ticks), cpu).tolist() for cpu in range(2)]
    fixed.append(times.apply(np.array(ticks), 0, top=False).tolist())
    assert sorted((line.ts, line.cpu, line.args) for line in printed) == sorted(
        (time % (1 << 64), cpu, f"value={tick}")
        for cpu, some in zip((0, 1, 0), fixed, strict=True)
        for tick, time in zip(ticks, some, strict=True)
    )


small = st.integers(0, 1 << 20)


@given(
    st.lists(st.tuples(small, st.integers(-(1 << 20), 1 << 20), st.integers(1, 1 << 64 - 1), st.integers(0, 63)), min_size=2, max_size=5),
    st.lists(st.integers(0, 1 << 40), min_size=1, max_size=5),
    st.booleans(),
)
def test_a_host_clock_is_exact(samples: list[tuple[int, int, int, int]], ticks: list[int], interpolate: bool) -> None:
    given = {time: rest for time, *rest in reversed(samples)}
    ordered = sorted((time, *rest) for time, rest in given.items())
    if len(ordered) < 2:
        return
    columns = [np.array([number % (1 << 64) for number in column], np.uint64) for column in zip(*samples, strict=True)]
    fixed = TimeFix((ClockSamples.of(*columns),), interpolate=interpolate).apply(np.array(ticks), 0).tolist()
    for tick, time in zip(ticks, fixed, strict=True):
        place = max(i for i in range(len(ordered) - 1) if i == 0 or ordered[i][0] <= tick)
        (start, offset, scaling, bits), (end, after, *_) = ordered[place], ordered[place + 1]
        if interpolate:
            grown = (tick - start) * (after - offset) + (end - start) // 2
            offset += abs(grown) // (end - start) * (1 if grown >= 0 else -1)
        assert (time - ((tick * scaling >> bits) + offset)) % (1 << 64) == 0


@given(st.integers(0, (1 << 62) - 1), st.integers(1, (1 << 32) - 1), st.integers(0, 63))
def test_ticks_are_multiplied_exactly(ticks: int, multiplier: int, shift: int) -> None:
    (time,) = TimeFix(tsc=(multiplier, shift)).apply(np.array([ticks]), 0).tolist()
    assert (time - (ticks * multiplier >> shift)) % (1 << 64) == 0


def test_a_long_column_is_turned_like_its_parts() -> None:
    ticks = np.arange(100_000) * 12345
    fix = TimeFix(
        (ClockSamples.of(*(np.array(column, np.uint64) for column in ((0, 10**9), (5, 10**6), (3, 2), (1, 0)))),), True, (7, 2), 9
    )
    whole = fix.apply(ticks, 0)
    assert whole.size == ticks.size
    assert whole[::997].tolist() == fix.apply(ticks[::997], 0).tolist()


def test_nothing_to_do_is_trivial() -> None:
    times = np.array([1, 2])
    assert with_options().times.trivial
    assert with_options().times.apply(times, 0) is times
    assert with_options((12, time_shift(0, [[], []]))).times.trivial
    for options in SHIFTED[:7]:
        assert not with_options(*options).times.trivial


def test_a_cpu_of_which_nothing_was_measured_keeps_its_times() -> None:
    times = with_options((12, time_shift(0, [[], [(0, 5, 1)]]))).times
    assert [times.apply(np.array([7]), cpu).tolist() for cpu in (0, 1, 2, -1)] == [[7], [12], [7], [7]]


@pytest.mark.parametrize(
    ("option", "note"),
    [
        ((14, struct.pack("<IIQ", 3, 64, 0)), "impossible shift of 64"),
        ((12, time_shift(0, [[(0, 5, 1)]], [[64]])), "impossible fractions"),
        ((10, b"nothing\n1 2 a\n\0"), "no list of mappings"),
    ],
)
def test_what_is_not_possible_is_noted_and_left_out(option: tuple[int, bytes], note: str) -> None:
    read = with_options(option)
    assert [note in each for each in read.notes] == [True]
    assert read.times.trivial
    assert read.procmaps == ()


@pytest.mark.parametrize(
    "option",
    [
        (12, time_shift(0, [[(0, 5, 1)]])[:-1]),
        (12, struct.pack("<QII", 0, 0, 1 << 31)),
        (12, struct.pack("<QIII", 0, 0, 1, 1 << 31)),
        (13, b"guest\0" + struct.pack("<QI", 1, 1 << 29)),
        (13, b"guest"),
        (11, b"\0\0\0\0"),
        (14, b"\0\0\0\0"),
    ],
)
@pytest.mark.parametrize("version", ["v6", "v7"])
def test_an_option_that_is_too_short_is_damage_with_its_place(version: str, option: tuple[int, bytes]) -> None:
    trace = pings(subbuffer(10, data(ping(1))))
    trace.options = [option, (7, b"5\0")]
    content = trace.write(version)
    read = read_recording(memoryview(content), "trace.dat")
    (damage,) = read.damage
    at = content.index(struct.pack("<HI", option[0], len(option[1])) + option[1]) + 6
    assert at <= damage.offset <= at + len(option[1])
    assert damage.what.startswith(f"option {option[0]} is damaged: ")
    assert read.notes == (f"{damage.what} (at byte {damage.offset})",)
    assert read.times == TimeFix(shift_ns=5)


@pytest.mark.parametrize("version", ["v6", "v7"])
def test_what_the_options_say(version: str) -> None:
    trace = pings(subbuffer(10, data(ping(1))))
    trace.instances[0].stats = [cpu_stats(0, overrun=3, commit_overrun=1)]
    trace.instances.append(Instance({0: [subbuffer(10, data(ping(1)))]}, name="small", stats=[cpu_stats(0, dropped=4)]))
    trace.options = [
        (6, b"sched_switch,prev_pid\0"),
        (10, b"1f 2 /usr/bin/some program\n400000 40c000 /usr/bin/some program\n7f0000001000 7f0000002000 /lib/l.so\n\0"),
        (11, struct.pack("<Q", 0xFEDCBA9876543210)),
        (13, b"guest one\0" + struct.pack("<QIIIII", 77, 2, 0, 1234, 1, 1235)),
        (24, b"boot_mapped:39000000\t[kernel]\n\0"),
        (15, b"?"),
        (23, bytes(8)),
        (25, bytes(8)),
    ]
    read = recording(trace, version)
    assert read.hooks == ("sched_switch,prev_pid",)
    maps = ((0x400000, 0x40C000, "/usr/bin/some program"), (0x7F0000001000, 0x7F0000002000, "/lib/l.so"))
    assert read.procmaps == (ProcessMaps(0x1F, "/usr/bin/some program", maps),)
    assert read.trace_id == 0xFEDCBA9876543210
    assert read.guests == (Guest("guest one", 77, {0: 1234, 1: 1235}),)
    assert read.last_boot == {"boot_mapped": "39000000\t[kernel]\n"}
    assert read.stats == (CpuStat("", 0, 3, 1, 0), CpuStat("small", 0, 0, 0, 4))
    assert read.peer_id is None
    assert read.notes == ()


def test_the_host_of_a_guest_is_known() -> None:
    assert with_options((12, time_shift(0, [[(0, 5, 1)]]))).peer_id == 0x1234


@pytest.mark.parametrize("version", ["v6", "v7"])
def test_long_texts_are_read_at_once(version: str) -> None:
    """Patterns that look back over what they matched would take hours."""
    trace = pings(subbuffer(10, data(ping(1))))
    blank, word = b" " * (1 << 20), b"a" * (1 << 20)
    trace.options = [(2, b"\nBuffer: " + blank + b"x"), (2, b"CPU: 1\n" + word), (10, word), (10, b"1 1 a\n" + blank), (4, word), (7, word)]
    read = recording(trace, version)
    assert read.stats[-1] == CpuStat("", 1, 0, 0, 0)
    damaged = trace.write("v6").replace(b"\tfield: u64 timestamp", b"\tfield:" + word)
    with pytest.raises(ParseError):
        read_recording(memoryview(damaged), "trace.dat")


def bounded(content: bytes) -> Recording | None:
    """The recording, None for an error; and no more memory than 4 times the file and 64 MiB."""
    read = None
    tracemalloc.start()
    with contextlib.suppress(ParseError):
        read = read_recording(memoryview(content), "trace.dat")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(content) + (64 << 20)
    return read


def test_many_buffers_cannot_name_one_large_table() -> None:
    trace = pings(subbuffer(10, data(ping(1))))
    trace.cpu_count = 4000
    content = trace.write("v6")
    table = content.index(b"flyrecord\0")
    # Every option names that table; they take the place of a text of their size.
    option = struct.pack("<HIQ", 3, 10, table) + b"b\0"
    trace.options = [(6, bytes(len(option) * 2000 - 6))]
    placed = trace.write("v6")
    moved = struct.pack("<HIQ", 3, 10, placed.index(b"flyrecord\0")) + b"b\0"
    hook = struct.pack("<HI", 6, len(option) * 2000 - 6) + bytes(len(option) * 2000 - 6)
    assert placed.count(hook) == 1
    assert bounded(placed.replace(hook, moved * 2000)) is None


@pytest.mark.parametrize("version", ["v6", "v7"])
@pytest.mark.parametrize(
    "options",
    [
        [(10, b"1 ffffff a\n" + b"1 2 a\n" * 300_000)] * 2,
        [(10, b"1 ffffff a\n" + b"1 2 a\n" * 200_000)],
        [(13, b"g\0" + struct.pack("<QI", 1, 65_000) + b"".join(struct.pack("<II", n, n) for n in range(65_000)))] * 9,
        [(12, time_shift(1, [[(n, n, n) for n in range(100_000)]] * 9))],
        [(12, struct.pack("<QII", 0, 0, 8192) + bytes(4 * 8192))],
        [(12, struct.pack("<QII", 0, 0, 3_000_000) + bytes(12_000_000))],
    ],
)
def test_no_option_takes_more_memory_than_the_file_allows(version: str, options: list[tuple[int, bytes]]) -> None:
    trace = pings(subbuffer(10, data(ping(1))))
    trace.options = options
    assert bounded(trace.write(version)) is not None


@pytest.mark.parametrize("version", ["v6", "v7"])
def test_options_without_an_end_are_refused_or_damage(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracetool_parsers.options.MOST_OPTIONS", 100)
    trace = pings(subbuffer(10, data(ping(1))))
    trace.options = [(99, b"")] * 100
    content = trace.write(version)
    if version == "v6":
        with pytest.raises(ParseError, match="have no end"):
            recording(trace, version)
    else:
        read = read_recording(memoryview(content), "trace.dat")
        assert {"have no end" in damage.what for damage in read.damage} == {True}
        assert [buffer.name for buffer in read.buffers] == [""]


def test_many_command_lines_take_no_more_memory_than_the_file_allows() -> None:
    trace = pings(subbuffer(10, data(ping(1))))
    trace.cmdlines = "".join(f"{tid} a\n" for tid in range(300_000))
    assert bounded(trace.write("v6")) is not None
