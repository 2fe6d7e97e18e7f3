"""Perfetto's trace packets: tracks, and slices, instants and counters on them, with strings interned.

The numbers of fields are those of Perfetto's `protos/perfetto/trace`; the tests hold them against the definitions in its own package.
All packets are of one sequence, and time stamps are nanoseconds of the trace's clock, whichever that is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool.export import wire
from tracetool.export.wire import Cells

Ints = npt.NDArray[Any]

SLICE_BEGIN, SLICE_END, INSTANT, COUNTER = 1, 2, 3, 4

#: Field numbers, by message.
PACKET: Final = 1  # Trace
TIMESTAMP, TRUSTED_PACKET_SEQUENCE_ID, TRACK_EVENT, INTERNED_DATA, SEQUENCE_FLAGS, TRACK_DESCRIPTOR = 8, 10, 11, 12, 13, 60  # TracePacket
FIRST_PACKET_ON_SEQUENCE: Final = 87
CATEGORY_IIDS, DEBUG_ANNOTATIONS, TYPE, NAME_IID, TRACK_UUID, COUNTER_VALUE = 3, 4, 9, 10, 11, 30  # TrackEvent
ANNOTATION_NAME_IID, BOOL_VALUE, INT_VALUE, POINTER_VALUE, STRING_VALUE_IID = 1, 2, 4, 7, 17  # DebugAnnotation
EVENT_CATEGORIES, EVENT_NAMES, DEBUG_ANNOTATION_NAMES, DEBUG_ANNOTATION_STRING_VALUES = 1, 2, 3, 29  # InternedData
IID, INTERNED = 1, 2  # EventCategory, EventName, DebugAnnotationName, InternedString
UUID, TRACK_NAME, PROCESS, PARENT_UUID, COUNTER_DESCRIPTOR, CHILD_ORDERING, SIBLING_ORDER_RANK = 1, 2, 3, 5, 8, 11, 12  # TrackDescriptor
PID, PROCESS_NAME = 1, 6  # ProcessDescriptor
UNIT, UNIT_COUNT = 3, 2  # CounterDescriptor
EXPLICIT: Final = 3  # TrackDescriptor.ChildTracksOrdering
STATE_CLEARED, NEEDS_STATE = 1, 2  # TracePacket.SequenceFlags

_SEQUENCE: Final = 1
#: Packets that are made at a time, and bytes of the longest string: together they bound the memory that takes.
_AT_A_TIME: Final = 1 << 14
_LONGEST: Final = 400


@dataclass
class Tracks:
    """Descriptors of tracks, gathered; each gets its number (uuid) when it is added."""

    frames: list[pl.DataFrame] = field(default_factory=list)
    count: int = 0

    def add(
        self,
        names: pl.Series,
        parent: Ints | int | None = None,
        *,
        pids: pl.Series | None = None,
        counters: bool = False,
        ordered: bool = False,
    ) -> Ints:
        """Add tracks of these names and return their numbers (uint64, ascending).

        Args:
            names: one a track; of a process its name.
            parent: the track above each, or above all.
            pids: where the tracks are those of processes.
            counters: whether they are counters.
            ordered: whether tracks below them are shown in the order in which they were added.
        """
        rows = len(names)
        # 0 would be Perfetto's own default track.
        numbers = np.arange(self.count + 1, self.count + 1 + rows, dtype=np.uint64)
        self.count += rows
        above = np.zeros(rows, np.uint64)
        if parent is not None:
            above[:] = parent
        self.frames.append(
            pl.DataFrame(
                {
                    "uuid": numbers,
                    "parent": above,
                    "name": names.fill_null("?").cast(pl.String),
                    "pid": pl.Series([None] * rows, dtype=pl.Int64) if pids is None else pids.cast(pl.Int64),
                    "counter": np.full(rows, counters),
                    "ordered": np.full(rows, ordered),
                }
            )
        )
        return numbers

    def packets(self) -> Iterator[bytes]:
        """Their packets."""
        for frame in self.frames:
            for part in frame.iter_slices(_AT_A_TIME):
                yield _descriptors(part).flat().tobytes()


def _descriptors(frame: pl.DataFrame) -> Cells:
    rows = frame.height
    uuid, parent = frame["uuid"].to_numpy(), frame["parent"].to_numpy()
    is_process = frame["pid"].is_not_null().to_numpy()
    name = _clipped(frame["name"])
    process = [wire.integer(PID, frame["pid"].fill_null(0).to_numpy()), wire.text(PROCESS_NAME, name)]
    unit = wire.constant(wire.encoded(UNIT, UNIT_COUNT), rows)
    descriptor = [
        wire.integer(UUID, uuid),
        wire.text(TRACK_NAME, name, ~is_process),
        wire.message(PROCESS, process, is_process),
        wire.integer(PARENT_UUID, parent, parent > 0),
        wire.message(COUNTER_DESCRIPTOR, [unit], frame["counter"].to_numpy()),
        wire.integer(CHILD_ORDERING, np.full(rows, EXPLICIT), frame["ordered"].to_numpy()),
        # Numbers ascend within each parent.
        wire.integer(SIBLING_ORDER_RANK, uuid, parent > 0),
    ]
    of_sequence = wire.constant(wire.encoded(TRUSTED_PACKET_SEQUENCE_ID, _SEQUENCE), rows)
    return wire.message(PACKET, [of_sequence, wire.message(TRACK_DESCRIPTOR, descriptor)])


@dataclass(frozen=True)
class Events:
    """Events of one type that say the same things.

    Attributes:
        type: SLICE_BEGIN, SLICE_END, INSTANT or COUNTER.
        ts: int64, ns of the trace's clock.
        place: int64; of events of one track at one time, the lower comes first.
        track: uint64, the number of its track.
        categories: what they are, for filters.
        name: a string each; None for ends and counters.
        values: of counters: int64.
        notes: what each says beside its name: strings, Booleans and integers; null where it does not.
        pointers: the notes that are shown in hexadecimal.
    """

    type: int
    ts: Ints
    place: Ints
    track: Ints
    categories: tuple[str, ...] = ()
    name: pl.Series | None = None
    values: Ints | None = None
    notes: Mapping[str, pl.Series] = field(default_factory=dict)
    pointers: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.ts)


def packets(tracks: Tracks, events: Sequence[Events]) -> Iterator[bytes]:
    """The whole file, some packets at a time: tracks, the strings, then all events by time."""
    first = [
        wire.encoded(TRUSTED_PACKET_SEQUENCE_ID, _SEQUENCE),
        wire.encoded(SEQUENCE_FLAGS, STATE_CLEARED),
        wire.encoded(FIRST_PACKET_ON_SEQUENCE, 1),
    ]
    yield wire.encoded(PACKET, b"".join(first))
    yield from tracks.packets()
    present = [group for group in events if len(group)]
    interned = _Interned(present)
    yield from interned.packets()
    if not present:
        return
    kind = np.repeat(np.arange(len(present)), [len(group) for group in present])
    row = np.concatenate([np.arange(len(group)) for group in present])
    order = np.lexsort((np.concatenate([group.place for group in present]), np.concatenate([group.ts for group in present])))
    known = [interned.of(group) for group in present]
    for begin in range(0, len(order), _AT_A_TIME):
        chosen = order[begin : begin + _AT_A_TIME]
        kinds, rows = kind[chosen], row[chosen]
        parts = []
        for number in np.unique(kinds):
            places = np.flatnonzero(kinds == number)
            parts.append((places, _encoded(present[number], known[number], rows[places])))
        yield wire.interleaved(parts, len(chosen)).tobytes()


@dataclass(frozen=True)
class _Note:
    """A note of a group of events: the number of its name, the field of its values, the values as numbers, and where there are some."""

    name: int
    field: int
    values: Ints
    present: Ints


@dataclass(frozen=True)
class _Known:
    """Interned numbers of a group of events: of its categories and its names; its notes."""

    categories: list[int]
    names: Ints | None
    notes: list[_Note]


class _Interned:
    """The strings of all events with their numbers, from 1 on in each of Perfetto's four lists."""

    def __init__(self, events: Sequence[Events]) -> None:
        texts = [note for group in events for note in group.notes.values() if note.dtype == pl.String]
        self._lists = {
            EVENT_CATEGORIES: _distinct([pl.Series(group.categories, dtype=pl.String) for group in events]),
            EVENT_NAMES: _distinct([group.name for group in events if group.name is not None]),
            DEBUG_ANNOTATION_NAMES: _distinct([pl.Series(list(group.notes), dtype=pl.String) for group in events]),
            DEBUG_ANNOTATION_STRING_VALUES: _distinct(texts),
        }

    def of(self, events: Events) -> _Known:
        """The numbers of what these events say."""
        categories = self._numbers(EVENT_CATEGORIES, pl.Series(events.categories, dtype=pl.String))
        names = None if events.name is None else self._numbers(EVENT_NAMES, events.name)
        notes = [self._note(name, note, name in events.pointers) for name, note in events.notes.items()]
        return _Known([int(each) for each in categories], names, notes)

    def _note(self, name: str, note: pl.Series, pointer: bool) -> _Note:
        number, present = int(self._numbers(DEBUG_ANNOTATION_NAMES, pl.Series([name]))[0]), note.is_not_null().to_numpy()
        if note.dtype == pl.String:
            return _Note(number, STRING_VALUE_IID, self._numbers(DEBUG_ANNOTATION_STRING_VALUES, note), present)
        if note.dtype == pl.Boolean:
            return _Note(number, BOOL_VALUE, note.fill_null(False).to_numpy().astype(np.int64), present)
        return _Note(number, POINTER_VALUE if pointer else INT_VALUE, note.fill_null(0).to_numpy(), present)

    def _numbers(self, of: int, values: pl.Series) -> Ints:
        """The number of each string, 0 for null."""
        asked = pl.DataFrame({"text": _clipped(values)})
        found = asked.join(self._lists[of], on="text", how="left", maintain_order="left")
        numbers: Ints = found["iid"].fill_null(0).to_numpy()
        return numbers

    def packets(self) -> Iterator[bytes]:
        """Packets that say which number is which string."""
        before = wire.encoded(TRUSTED_PACKET_SEQUENCE_ID, _SEQUENCE) + wire.encoded(SEQUENCE_FLAGS, NEEDS_STATE)
        for of, frame in self._lists.items():
            for part in frame.iter_slices(_AT_A_TIME):
                entries = [wire.integer(IID, part["iid"].to_numpy()), wire.text(INTERNED, part["text"])]
                data = wire.message(of, entries).flat().tobytes()
                yield wire.encoded(PACKET, before + wire.encoded(INTERNED_DATA, data))


def _distinct(texts: Sequence[pl.Series]) -> pl.DataFrame:
    """Every string once, with its number."""
    parts = [pl.DataFrame({"text": _clipped(each).unique(maintain_order=True).drop_nulls()}) for each in texts]
    frame = pl.concat([pl.DataFrame(schema={"text": pl.String}), *parts]).unique(maintain_order=True)
    return frame.with_row_index("iid", offset=1).with_columns(pl.col("iid").cast(pl.UInt64))


def _clipped(texts: pl.Series) -> pl.Series:
    return texts.cast(pl.String).str.slice(0, _LONGEST)


def _encoded(events: Events, known: _Known, rows: Ints) -> Cells:
    """The packets of some events of a group."""
    count = len(rows)
    fixed = wire.encoded(TYPE, events.type) + b"".join(wire.encoded(CATEGORY_IIDS, number) for number in known.categories)
    inside = [wire.constant(fixed, count), wire.integer(TRACK_UUID, events.track[rows])]
    if known.names is not None:
        inside.append(wire.integer(NAME_IID, known.names[rows]))
    if events.values is not None:
        inside.append(wire.integer(COUNTER_VALUE, events.values[rows]))
    for note in known.notes:
        value = wire.integer(note.field, note.values[rows])
        name = wire.constant(wire.encoded(ANNOTATION_NAME_IID, note.name), count)
        inside.append(wire.message(DEBUG_ANNOTATIONS, [name, value], note.present[rows]))
    of_sequence = wire.encoded(TRUSTED_PACKET_SEQUENCE_ID, _SEQUENCE) + wire.encoded(SEQUENCE_FLAGS, NEEDS_STATE)
    packet = [wire.integer(TIMESTAMP, events.ts[rows]), wire.constant(of_sequence, count), wire.message(TRACK_EVENT, inside)]
    return wire.message(PACKET, packet)
