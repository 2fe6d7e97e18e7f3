"""Made-up traces as files: trace-cmd and the parsers read in them exactly what the machine did; the formats are those of Linux 6.1."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest

from conftest import fixture_path
from parsers.reports import fields_of, report, reported_losses
from synth.watched import Event, names_of, watched
from tracetool.synth import SCENARIOS, Plan, synthesise
from tracetool.synth.events import EVENTS, SILENT, formats, layouts
from tracetool.synth.making import Version
from tracetool.synth.packing import Buffers, Spools, finish, pack, texts_of
from tracetool_parsers import open_trace

trace_cmd = pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed: nothing to compare with")
VERSIONS: Final[tuple[Version, ...]] = ("v6", "v7", "v7-zstd")


#: Fields that trace-cmd prints as hexadecimal numbers without 0x.
BARE: Final = ("clone_flags", "__probe_ip", "__probe_func", "__probe_ret_ip")


def number(name: str, text: str) -> int:
    """A number as trace-cmd prints it, as the 64 bits it stands for."""
    return int(text, 16 if name in BARE else 0) % (1 << 64)


@trace_cmd
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_trace_cmd_prints_exactly_what_the_machine_did(scenario: str, version: Version, tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    made, events = watched(Plan(scenario, seed=7, events=2500, cpus=3, references=0.2), path, version)
    lines = report(path)
    assert made.events == len(lines) == len(events) >= 2500
    for event, line in zip(events, lines, strict=True):
        assert (line.ts, line.cpu, line.tid, line.event) == (event.ts, event.cpu, event.tid, event.name)
        assert line.comm == ("kworker/u6:0" if event.tid == 7 else f"synth-{scenario}")
    for event, line in list(zip(events, lines, strict=True))[:: max(1, len(events) // 1500)]:
        printed = fields_of(line, names_of(event))
        for (name, text), value in zip(printed.items(), event.values, strict=True):
            if isinstance(value, str):
                assert text == value
            elif name == "ip" and event.name == "print":
                assert text == "tracing_mark_write"
            else:
                # Narrow signed numbers are printed as such, all others as the bits that they are.
                assert number(name, text) == value % (1 << 64), (event, name)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_parsers_read_exactly_what_the_machine_did(version: Version, tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    _, events = watched(Plan("random", seed=3, events=4000, cpus=2), path, version)
    raw = open_trace(path)
    by_name: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_name[event.name].append(event)
    assert {name: len(rows) for name, rows in by_name.items()} == {name: count for name, count in raw.counts().items() if count}
    assert raw.losses.num_rows == 0
    for name, rows in by_name.items():
        table = raw.table(name)
        assert table.column("ts").to_pylist() == [event.ts for event in rows]
        assert table.column("tid").to_pylist() == [event.tid for event in rows]
        for place, field in enumerate(names_of(rows[0])):
            if field in table.column_names:
                read = [value if isinstance(value, str) else value % (1 << 64) for value in table.column(field).to_pylist()]
                meant = [value if isinstance(value, str) else value % (1 << 64) for value in (event.values[place] for event in rows)]
                assert [value.rstrip("\n") if isinstance(value, str) else value for value in read] == meant, (name, field)


def test_long_pauses_are_kept(tmp_path: Path) -> None:
    """Pauses that the 27 bits of a record's time cannot hold are in the trace."""
    _, events = watched(Plan("random", seed=1, events=12_000, cpus=1), tmp_path / "trace.dat", "v7")
    pauses = [after.ts - before.ts for before, after in itertools.pairwise(events)]
    assert min(pauses) > 0, "on one CPU"
    assert sum(pause >= 1 << 27 for pause in pauses) >= 1
    table = open_trace(tmp_path / "trace.dat").table("mm_fault")
    assert table.column("ts").to_pylist() == [event.ts for event in events if event.name == "mm_fault"]


def test_a_thread_runs_on_one_cpu_at_a_time_and_all_cpus_run(tmp_path: Path) -> None:
    _, events = watched(Plan("forkstorm", events=3000, cpus=4), tmp_path / "trace.dat")
    assert {event.cpu for event in events} == {0, 1, 2, 3}
    for cpu in range(4):
        times = [event.ts for event in events if event.cpu == cpu]
        assert times == sorted(set(times))
    # What a thread is in the middle of ends before it does anything else.
    inside: dict[int, int] = {}
    beside = 0
    for event in events:
        assert inside.get(event.tid, event.cpu) == event.cpu
        if event.name == "cow_fault":
            inside[event.tid] = event.cpu
        elif event.name == "cow_fault_done":
            del inside[event.tid]
        beside += len(inside) > 1
    assert beside > 5, "faults run beside each other"


@pytest.mark.parametrize("fixture", ["mail-6.1.dat", "random1-6.1.dat"])
def test_formats_are_those_of_linux_6_1(fixture: str, tmp_path: Path) -> None:
    synthesise(Plan("mail"), tmp_path / "trace.dat")
    recorded = open_trace(fixture_path(fixture)).formats()
    made = open_trace(tmp_path / "trace.dat").formats()
    assert {event.name for event in (*EVENTS.values(), *SILENT)} == set(made)
    # The imagined kernel takes no faults of its own; ftrace's own formats are many, and marks alone are used.
    assert {name for name, event in recorded.items() if event.system != "ftrace"} - set(made) <= {"page_fault_kernel"}
    shared = set(made) & set(recorded)
    assert len(shared) > 50
    for name in shared:
        ours, real = made[name], recorded[name]
        assert (ours.id, ours.system, ours.common, ours.fields) == (real.id, real.system, real.common, real.fields), name


def test_every_system_has_its_formats() -> None:
    assert {system: len(texts) for system, texts in formats().items()} == {
        "exceptions": 1, "ftrace": 1, "kmem": 3, "sched": 3, "syscalls": 20, "task": 2, "tracetool": 31,
    }  # fmt: skip


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("version", VERSIONS)
def test_same_seed_same_bytes(scenario: str, version: Version, tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        plan = Plan(scenario, seed=seed, events=1500, losses=0.2)
        synthesise(plan, tmp_path / name, version, truth=tmp_path / f"{name}.tsv" if name == "a" else None)
        digests.append(digest(tmp_path / name))
    assert digests[0] == digests[1], "asking for the truth changes nothing either"
    assert digests[0] != digests[2]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_compiled_and_uncompiled_loops_make_the_same_bytes(scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(scenario, seed=11, events=3000, losses=0.1, references=0.3)
    for way in ("python", "compiled"):
        monkeypatch.setenv("TRACETOOL_LOOPS", way)
        synthesise(plan, tmp_path / way, "v7", truth=tmp_path / f"{way}.tsv")
    assert (tmp_path / "python").read_bytes() == (tmp_path / "compiled").read_bytes()
    assert (tmp_path / "python.tsv").read_text() == (tmp_path / "compiled.tsv").read_text()


def test_nothing_is_left_beside_the_trace(tmp_path: Path) -> None:
    synthesise(Plan("mail"), tmp_path / "trace.dat", truth=tmp_path / "truth.tsv")
    assert sorted(os.listdir(tmp_path)) == ["trace.dat", "truth.tsv"]


def test_a_trace_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    path.write_text("precious")

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise(Plan("mail"), path, progress=stop)
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["trace.dat"]


def gaps(events: list[Event], kept: set[tuple[int, int]], cpu: int) -> list[tuple[int, int, int]]:
    """Of a CPU: itself, time after each run of lost events, how many they are."""
    found, lost = [], 0
    for event in (event for event in events if event.cpu == cpu):
        if (event.cpu, event.ts) not in kept:
            lost += 1
            continue
        if lost:
            found.append((cpu, event.ts, lost))
        lost = 0
    assert not lost, "the last sub-buffer is never lost"
    return found


@pytest.mark.parametrize(("version", "seed"), [("v6", 0), ("v7-zstd", 1)])
def test_losses_are_those_asked_for_and_told_as_the_kernel_tells_them(version: Version, seed: int, tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    made, events = watched(Plan("random", seed=seed, events=8000, losses=0.3), path, version)
    raw = open_trace(path)
    kept = {
        (cpu, ts)
        for name, count in raw.counts().items()
        if count
        for cpu, ts in zip(raw.table(name).column("cpu").to_pylist(), raw.table(name).column("ts").to_pylist(), strict=True)
    }
    assert made.events == len(kept)
    assert made.lost == len(events) - len(kept)
    assert 0.15 < made.lost / len(events) < 0.45
    meant = sorted(gap for cpu in (0, 1) for gap in gaps(events, kept, cpu))
    told = sorted((row["cpu"], row["to_ns"], row["events"]) for row in raw.losses.to_pylist() if row["to_ns"] is not None)
    assert [(cpu, after) for cpu, after, _ in meant] == [(cpu, after) for cpu, after, _ in told]
    # Where the sub-buffer has no room for the number, the kernel only says that there was a loss.
    assert all(said in (number_lost, None) for (_, _, number_lost), (_, _, said) in zip(meant, told, strict=True))
    assert raw.losses.num_rows == len(told) > 5, "the kernel's own counts add nothing"
    assert any(said for _, _, said in told)
    if shutil.which("trace-cmd"):
        printed = reported_losses(path)
        assert sorted((cpu, lost or 0) for cpu, lost in printed) == sorted((cpu, said or 0) for cpu, _, said in told)


def test_a_full_subbuffer_has_no_room_for_the_number_of_the_lost() -> None:
    """Of two sub-buffers the first is lost: the second says so, with the number only where 8 bytes are left."""
    import numpy as np

    for room, stored in ((True, True), (False, False)):
        layout = layouts()
        cpus = np.zeros((1, 7), np.int64)
        cpus[0, 1], cpus[0, 3], cpus[0, 4] = (4096 - 8 if room else 4096 - 4), 5, 123
        buffers = Buffers(np.zeros(64 * 4096, np.uint8), cpus, np.zeros(2, np.int64))
        assert finish.run(1, buffers) == 1
        commit = int.from_bytes(buffers.data[8:16].tobytes(), "little")
        assert commit & 0x7FFFFFF == (4096 - 8 if room else 4096 - 4) - 16
        assert commit >> 31 & 1
        assert (commit >> 30 & 1 == 1) is stored
        end = 16 + (commit & 0x7FFFFFF)
        assert int.from_bytes(buffers.data[end : min(end + 8, 4096)].tobytes(), "little") == (123 if stored else 0)
        assert pack.run(1, np.zeros((0, 11), np.int64), 0, 0, texts_of([]), layout, buffers) == 0


def test_spools_hold_more_than_their_areas(tmp_path: Path) -> None:
    """A CPU's sub-buffers are put away whenever its area is full, in their order."""
    import numpy as np

    with (tmp_path / "spool").open("w+b") as file:
        spools = Spools([file], 0.0, 1)
        rows = np.zeros((30_000, 11), np.int64)
        rows[:, 0], rows[:, 3] = 5, np.arange(30_000) * 10
        spools.add(rows, len(rows), texts_of([]), len(rows))
        spools.close(len(rows))
        data = b"".join(spools.blocks(0))
    assert spools.kept(0) == 30_000
    assert len(data) % 4096 == 0
    times = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 4096)]
    assert times == sorted(set(times))
    assert len(times) > 64
    # A record of rmap_remove is 36 bytes after a header of 4: 102 of them fill the 4080 bytes of a sub-buffer.
    assert len(times) == -(-30_000 // 102)
    assert int.from_bytes(data[8:16], "little") == 4080
