"""What is written for Perfetto, read back with Perfetto's definitions, is what the replay says."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracetool
from conftest import FIXTURES, fixture_path
from engine.build import BASE, Machine, address
from engine.wild import wild_events, wild_recording
from export.perfettofile import Event, Read, read
from handmade import trace_of
from tracetool.errors import Unanswerable
from tracetool.export import perfetto, shown
from tracetool.export.perfetto import Written, abreast, export_perfetto, write
from tracetool.export.shown import ranges
from tracetool.policies import chosen
from tracetool.trace import Trace

A, B = 10, 11
P0, P1, P2 = 0x50, 0x51, 0x52


def written(trace: Trace, policies: Iterable[str] = (), **given: Any) -> tuple[Read, Written]:
    """What is written of a trace, read back."""
    file = io.BytesIO()
    told = write(trace, tracetool.analyse(trace, chosen(list(policies)) if policies else []), file, **given)
    found = read(file.getvalue())
    assert (told.slices, told.instants, told.counters) == (len(found.slices), len(found.instants), len(found.counters))
    assert told.tracks == len(found.tracks)
    return found, told


def mail() -> tuple[Machine, dict[str, int]]:
    """A and B share a page; A holds a read reference to it, then A writes, then B, on a kernel that counts references; times of all."""
    m, at = Machine(), {}
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    b = m.fork(a, B, [(BASE, 8)])
    m.vmsplice(a, address(0), P0)
    m.cow(a, address(0), P0, P1)
    at["a wrote"] = m.now
    m.cow(b, address(0), P0, P2)
    at["b wrote"] = m.now
    m.pipe_release(A, P0)
    at["released"] = m.now
    return m, at


def test_the_mail_is_told_on_the_track_of_its_page_family() -> None:
    machine, at = mail()
    found, told = written(trace_of(machine, {A: "alice"}))
    assert told.left_out == []
    family = next(track for track in found.tracks.values() if track.name.endswith(f"at {address(0):#x}") and track.name.startswith("page "))
    below = [each for each in found.slices if each.track.parent == family.uuid]
    frames: dict[str, list[tuple[int, bool]]] = {"alice 10": [], "prog 11": [], "references of alice 10": []}
    for each in below:
        frames[each.track.name.partition(" at ")[0]].append((each.notes["pfn"], each.end is None))
    # Who holds which frame, one after the other, and whether to the end of the trace.
    assert frames == {"alice 10": [(P0, False), (P1, True)], "prog 11": [(P0, False), (P2, True)], "references of alice 10": [(P0, False)]}
    (reference,) = (each for each in below if each.categories == ("reference",))
    assert reference.end == at["released"]
    assert reference.name.startswith("read page ")
    assert {reference.notes[name] for name in ("kind", "access", "via", "released")} == {"get", "read", "vmsplice", "exact"}
    decided = [each for each in found.instants if each.categories == ("decision", "family") and each.track.parent == family.uuid]
    assert [(each.name, each.notes["pfn_before"], each.notes["pfn_after"]) for each in decided] == [
        ("copy (another-mapping)", P0, P1),
        ("copy (reference)", P0, P2),
    ]
    first_a, first_b = (next(each for each in below if each.track.name.startswith(name)) for name in ("alice", "prog"))
    assert decided[0].ts < (first_a.end or 0) <= at["a wrote"]
    assert decided[1].ts < (first_b.end or 0) <= at["b wrote"]


def test_processes_have_their_decisions_and_counters() -> None:
    machine, _ = mail()
    found, _ = written(trace_of(machine, {A: "alice"}))
    processes = {track.pid: track.name for track in found.tracks.values() if track.pid is not None}
    # A child has the name that task_newtask gives it.
    assert processes == {A: "alice", B: "prog"}
    decided = [each for each in found.of("decision") if each.notes["pfn_before"] == P0]
    assert [found.path(each.track) for each in decided] == [("alice", "COW decisions (observed)"), ("prog", "COW decisions (observed)")]
    held = [value for _, track, value in found.counters if found.path(track) == ("alice", "references held")]
    assert held[-1] == 0
    assert max(held) == 1


@pytest.mark.parametrize("name", ["mail-6.1", "mail-7.2", "snapshot-6.1", "random1-6.1", "vmsplice_child-6.1", "transitions/thp_swap-6.12"])
def test_all_stays_references_and_decisions_are_there(name: str) -> None:
    trace = tracetool.open(fixture_path(f"{name}.dat"))
    found, told = written(trace, ["page-count"], families=1 << 40)
    crowded = [text for text in told.left_out if "places" in text]
    assert told.left_out == crowded == []
    first = (trace.raw.span() or (0, 0))[0]
    for policy in ("observed", "page-count"):
        replay = trace.replay(policy)
        root = f"page families ({policy})"
        below = [each for each in found.slices if found.path(each.track)[0] == root]
        for category, frame, columns in (
            ("ownership", replay.ownership.collect(), perfetto._STAY),
            ("reference", replay.references.collect().drop_nulls("page_id"), perfetto._REFERENCE),
        ):
            wanted = Counter(
                (first if row["from_ns"] is None else row["from_ns"], row["to_ns"], told_of(row, columns, row["from_ns"] is None))
                for row in frame.to_dicts()
            )
            assert wanted == Counter((each.ts, each.end, key(each)) for each in below if each.categories == (category,))
        faults = replay.faults.filter(~pl.col("decision").cast(pl.String).is_in(["none", "unseen", "in-place"])).collect()
        told_decisions = [each for each in found.of("decision") if found.path(each.track)[1] == f"COW decisions ({policy})"]
        assert Counter((row["ts"], told_of(row, perfetto._DECISION)) for row in faults.to_dicts()) == Counter(
            (each.ts, key(each)) for each in told_decisions
        )


def told_of(row: dict[str, Any], columns: Iterable[str], before_trace: bool = False) -> tuple[Any, ...]:
    said = {name: row[name] for name in columns if row[name] is not None} | ({"before_trace": True} if before_trace else {})
    return tuple(sorted(said.items()))


def key(event: Event) -> tuple[Any, ...]:
    return tuple(sorted(event.notes.items()))


def test_findings_are_instants() -> None:
    trace = tracetool.open(fixture_path("mail-6.1.dat"))
    analysis = tracetool.analyse(trace, chosen(["mapcount"]))
    found, _ = written(trace, ["mapcount"])
    wanted = Counter(analysis.findings.select("policy", "id", "summary", "from_ns").rows())
    for categories in (("finding",), ("finding", "family")):
        told = [each for each in found.instants if each.categories == categories]
        assert Counter((each.notes["policy"], each.notes["id"], each.notes["summary"], each.ts) for each in told) == wanted


def test_pages_mapped_are_those_of_every_moment() -> None:
    """The counter of a process, against a count of its stays at each moment."""
    trace = tracetool.open(fixture_path("random1-6.1.dat"))
    found, _ = written(trace)
    stays = trace.replay().ownership.collect()
    begin, end = stays["from_ns"].fill_null(0).to_numpy(), stays["to_ns"].fill_null(1 << 62).to_numpy()
    pids = stays["pid"].to_numpy()
    checked = 0
    for ts, track, value in found.counters:
        pid = found.tracks[track.parent].pid
        if track.name == "pages mapped (observed)":
            assert value == int(((pids == pid) & (begin <= ts) & (end > ts)).sum())
            checked += 1
    assert checked > 100


def test_only_the_families_that_tell_most_are_shown() -> None:
    trace = tracetool.open(fixture_path("snapshot-6.1.dat"))
    everything, _ = written(trace, families=1 << 40)
    few, told = written(trace, families=7)
    families = {track.name for track in few.tracks.values() if track.name.startswith("page ") and track.parent}
    assert len(families) == 7
    (text,) = told.left_out
    all_families = {track.name for track in everything.tracks.values() if track.name.startswith("page ") and track.parent}
    left = {int(name.split()[1]) for name in all_families - families}
    assert text.startswith(f"observed: {len(left)} of {len(all_families)} page families ({len(everything.slices) - len(few.slices)} stays)")
    # References are among what tells: their families stay.
    assert len(few.of("reference")) == len(everything.of("reference"))
    (about,) = (each for each in few.instants if each.categories == ("about",))
    assert about.notes["left_out_1"] == text
    assert (about.notes["clock"], about.notes["kernel"]) == ("global", trace.raw.metadata.kernel)
    # What is left out of the families is still among what the processes did.
    assert len(few.of("decision")) == len(everything.of("decision"))


def test_pages_that_are_left_out_are_named() -> None:
    assert ranges([5]) == "5"
    assert ranges([9, 1, 2, 3, 7]) == "1-3, 7, 9"
    assert ranges(range(0, 200, 2)).endswith("76, 78 and 60 more")


def test_one_process_only() -> None:
    trace = tracetool.open(fixture_path("random1-6.1.dat"))
    pid = 241
    stays = trace.replay().ownership.collect()
    assert pid in stays["pid"].to_list()
    found, _ = written(trace, pid=pid)
    family = trace.replay().family_of_page
    own = {int(family[page]) for page in stays.filter(pid=pid)["page_id"].to_list()}
    assert {int(family[each.notes["page_id"]]) for each in found.of("ownership")} == own
    with pytest.raises(Unanswerable, match="no page is known that process 7 mapped"):
        written(trace, pid=7)


def test_bounds_are_kept_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tracetool.open(fixture_path("random1-6.1.dat"))
    monkeypatch.setattr(shown, "PLACES_OF_FAMILY", 3)
    monkeypatch.setattr(shown, "DECISIONS", 20)
    monkeypatch.setattr(perfetto, "_PROCESSES", 4)
    monkeypatch.setattr(perfetto, "_POINTS", 5)
    found, told = written(trace)
    places = Counter(each.parent for each in found.tracks.values() if " at 0x" in each.name and not each.name.startswith("page "))
    assert max(places.values()) == 3
    assert len(found.of("decision")) == 20
    assert len({track.uuid for track in found.tracks.values() if track.pid is not None}) == 4
    points = Counter(track.uuid for _, track, _ in found.counters)
    assert max(points.values()) <= 11
    said = " ".join(told.left_out)
    for what in ("of 335 decisions: the last ones", "in families of more than 3 places", "processes: "):
        assert what in said
    monkeypatch.setattr(shown, "SLICES", 50)
    found, _ = written(trace)
    assert 0 < len(found.slices) <= 50


def test_holders_are_bounded_and_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes hold the page that they share, two of them are shown; the third one's counter tells of its reference."""
    machine = Machine()
    a = machine.spawn(A)
    machine.touch(a, address(0), P0)
    others = [machine.fork(a, tid, [(BASE, 8)]) for tid in (11, 12)]
    for each in (a, *others):
        machine.vmsplice(each, address(0), P0)
    trace = trace_of(machine)
    everything, told = written(trace)
    assert told.left_out == []
    holders = {track.name for track in everything.tracks.values() if track.name.startswith("references of ")}
    assert {name.split()[-1] for name in holders} == {"10", "11", "12"}
    monkeypatch.setattr(shown, "PLACES_OF_FAMILY", 2)
    found, told = written(trace)
    assert len([each for each in found.of("reference") if each.notes["via"] == "vmsplice"]) == 2
    assert any("1 references to families that more than 2 processes hold" in text for text in told.left_out)
    assert {found.tracks[track.parent].pid for _, track, _ in found.counters if track.name == "references held"} >= {10, 11, 12}


def test_findings_are_bounded_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "FINDINGS", 1)
    found, told = written(tracetool.open(fixture_path("mail-6.1.dat")), ["mapcount"])
    assert len(found.of("finding")) == 2
    assert told.left_out == ["mapcount: 1 of 2 findings: the last ones"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(0, 10)), max_size=40))
def test_lanes_hold_what_does_not_overlap(drawn: list[tuple[int, int, int]]) -> None:
    rows = sorted((group, begin, begin + length) for group, begin, length in drawn)
    columns = [np.array([row[i] for row in rows], np.int64) for i in range(3)]
    lane = np.zeros(len(rows), np.int64)
    group, begin, end = columns
    abreast.run(len(rows), group, begin, end, np.zeros(4, np.int64), lane)
    for one, other in itertools.combinations(range(len(rows)), 2):
        if rows[one][0] == rows[other][0] and lane[one] == lane[other] >= 0:
            assert rows[one][2] <= rows[other][1]
    for i, row in enumerate(rows):
        if lane[i] < 0:
            busy = [other for other in range(i) if rows[other][0] == row[0] and rows[other][2] > row[1] and lane[other] >= 0]
            assert len(busy) == 4


def test_lanes_are_the_same_compiled() -> None:
    rng = np.random.default_rng(1)
    group = np.sort(rng.integers(0, 5, 2000))
    begin = rng.integers(0, 1000, 2000)
    order = np.lexsort((begin, group))
    group, begin = group[order], begin[order]
    end = begin + rng.integers(0, 40, 2000)
    lanes = [np.zeros(2000, np.int64) for _ in range(2)]
    abreast.python(group, begin, end, np.zeros(8, np.int64), lanes[0])
    abreast.compiled(group, begin, end, np.zeros(8, np.int64), lanes[1])
    assert np.array_equal(lanes[0], lanes[1])
    assert (lanes[0] < 0).any()


@settings(max_examples=60)
@given(wild_events, st.sampled_from(["mapcount", "page-count", "exclusive"]))
def test_absurd_values_are_written_as_well(drawn: list[tuple[str, int, list[int]]], policy: str) -> None:
    recording = wild_recording(drawn)
    if not recording.source().counts():
        return
    written(trace_of(recording, {0: "a\x00b", 1: "<script>", 2: "ü" * 600}), [policy], families=1 << 40)


def test_a_trace_without_a_page_is_written() -> None:
    machine = Machine()
    machine.event("print", 7, buf="hello")
    found, told = written(trace_of(machine))
    assert (told.slices, told.left_out) == (0, [])
    assert [each.name for each in found.instants] == ["about this trace"]


def test_packets_are_written_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracetool.export.packets._AT_A_TIME", 100)
    trace = tracetool.open(fixture_path("random1-6.1.dat"))
    small = io.BytesIO()
    analysis = tracetool.analyse(trace, [])
    write(trace, analysis, small, families=1 << 40)
    monkeypatch.setattr("tracetool.export.packets._AT_A_TIME", 1 << 14)
    pieces: list[int] = []

    class Counting(io.BytesIO):
        def write(self, data: Any, /) -> int:
            pieces.append(len(data))
            return super().write(data)

    large = Counting()
    write(trace, analysis, large, families=1 << 40)
    assert read(large.getvalue()) == read(small.getvalue())
    assert len(pieces) < 30
    assert sum(pieces) > 100_000


def test_a_file_is_there_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(perfetto, "packets", full)
    with pytest.raises(OSError, match="No space"):
        export_perfetto(tracetool.open(FIXTURES / "mail-6.1.dat"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
