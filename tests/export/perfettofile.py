"""Reads a Perfetto trace with Perfetto's own definitions, under the rules of its trace processor, into slices, instants and counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

proto: Any = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")


@dataclass(frozen=True)
class Track:
    uuid: int
    name: str
    parent: int
    pid: int | None
    counter: bool


@dataclass
class Event:
    """A slice or an instant; `end` is None where the slice is open, and the same as `ts` of an instant."""

    ts: int
    end: int | None
    track: Track
    name: str
    categories: tuple[str, ...]
    notes: Mapping[str, Any]


@dataclass
class Read:
    tracks: dict[int, Track] = field(default_factory=dict)
    slices: list[Event] = field(default_factory=list)
    instants: list[Event] = field(default_factory=list)
    counters: list[tuple[int, Track, int]] = field(default_factory=list)

    def path(self, track: Track) -> tuple[str, ...]:
        """The names from the top of the tree to a track."""
        above = self.path(self.tracks[track.parent]) if track.parent else ()
        return (*above, track.name)

    def of(self, category: str) -> list[Event]:
        """Slices and instants of exactly that category."""
        return [each for each in (*self.slices, *self.instants) if each.categories == (category,)]


def read(data: bytes) -> Read:
    """Read a file; `AssertionError` for all that the trace processor would drop or count as an error."""
    trace = proto.Trace()
    assert trace.ParseFromString(data) == len(data)
    read = Read()
    interned: dict[str, dict[int, str]] | None = None
    timed: list[tuple[int, Any, dict[str, dict[int, str]]]] = []
    for packet in trace.packet:
        assert packet.trusted_packet_sequence_id == 1
        unknown = [name for name, _ in packet.ListFields() if name.number not in KNOWN]
        assert unknown == []
        if packet.sequence_flags & proto.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED:
            interned = {name: {} for name in LISTS}
        if packet.HasField("track_descriptor"):
            add_track(read, packet.track_descriptor)
        if packet.HasField("interned_data"):
            assert interned is not None
            intern(interned, packet.interned_data)
        if packet.HasField("track_event"):
            assert packet.sequence_flags & proto.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
            assert packet.HasField("timestamp")
            assert interned is not None
            assert packet.track_event.track_uuid in read.tracks, "its track is described before"
            timed.append((packet.timestamp, packet.track_event, interned))
    assert [ts for ts, _, _ in timed] == sorted(ts for ts, _, _ in timed)
    play(read, timed)
    return read


KNOWN = {8, 10, 11, 12, 13, 60, 87}
LISTS = ("event_categories", "event_names", "debug_annotation_names", "debug_annotation_string_values")


def add_track(read: Read, said: Any) -> None:
    assert said.uuid
    assert said.uuid not in read.tracks
    if said.HasField("parent_uuid"):
        assert said.parent_uuid in read.tracks
    pid = said.process.pid if said.HasField("process") else None
    name = said.process.process_name if said.HasField("process") else said.name
    read.tracks[said.uuid] = Track(said.uuid, name, said.parent_uuid, pid, said.HasField("counter"))


def intern(interned: dict[str, dict[int, str]], said: Any) -> None:
    for of in LISTS:
        for entry in getattr(said, of):
            # Number 0 is none, and a number never changes its meaning.
            assert entry.iid
            text = entry.str.decode() if of == "debug_annotation_string_values" else entry.name
            assert interned[of].setdefault(entry.iid, text) == text
    for of in LISTS:
        assert len(set(interned[of].values())) == len(interned[of])


def play(read: Read, timed: list[tuple[int, Any, dict[str, dict[int, str]]]]) -> None:
    """Slices of a track nest: an end closes the last one that is open."""
    open_slices: dict[int, list[Event]] = {}
    types = proto.TrackEvent
    for ts, event, interned in timed:
        track = read.tracks[event.track_uuid]
        assert track.counter == (event.type == types.TYPE_COUNTER)
        if event.type == types.TYPE_COUNTER:
            assert event.HasField("counter_value")
            read.counters.append((ts, track, event.counter_value))
        elif event.type == types.TYPE_SLICE_END:
            open_slices[track.uuid].pop().end = ts
        else:
            found = told(ts, track, event, interned)
            if event.type == types.TYPE_INSTANT:
                found.end = ts
                read.instants.append(found)
            else:
                assert event.type == types.TYPE_SLICE_BEGIN
                read.slices.append(found)
                open_slices.setdefault(track.uuid, []).append(found)
                assert len(open_slices[track.uuid]) == 1, "stays and references never lie in each other"


def told(ts: int, track: Track, event: Any, interned: dict[str, dict[int, str]]) -> Event:
    notes: dict[str, Any] = {}
    for note in event.debug_annotations:
        kind = note.WhichOneof("value")
        value = getattr(note, kind)
        notes[interned["debug_annotation_names"][note.name_iid]] = (
            interned["debug_annotation_string_values"][value] if kind == "string_value_iid" else value
        )
    assert len(notes) == len(event.debug_annotations)
    categories = tuple(interned["event_categories"][number] for number in event.category_iids)
    return Event(ts, None, track, interned["event_names"][event.name_iid], categories, notes)
