"""Messages that are written by columns are those that protobuf itself writes one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.perfettofile import proto
from tracetool.export import packets, wire

signed = st.integers(-(1 << 63), (1 << 63) - 1)
unsigned = st.integers(0, (1 << 64) - 1)


@given(st.lists(st.tuples(unsigned, signed, st.one_of(st.none(), st.text(max_size=40))), min_size=1, max_size=30))
def test_fields_are_what_protobuf_writes(rows: list[tuple[int, int, str | None]]) -> None:
    wanted = b""
    for pointer, number, text in rows:
        note = proto.DebugAnnotation(name_iid=7)
        note.pointer_value = pointer
        other = proto.DebugAnnotation(int_value=number)
        event = proto.TrackEvent(type=3, debug_annotations=[note, other], **({} if text is None else {"name": text}))
        wanted += proto.Trace(packet=[proto.TracePacket(track_event=event)]).SerializeToString()
    count = len(rows)
    present = np.array([text is not None for _, _, text in rows])
    iid = wire.constant(wire.encoded(packets.ANNOTATION_NAME_IID, 7), count)
    pointers = wire.integer(packets.POINTER_VALUE, np.array([row[0] for row in rows], np.uint64))
    numbers = wire.integer(packets.INT_VALUE, np.array([row[1] for row in rows], np.int64))
    event = [
        # Protobuf writes fields in the order of their numbers.
        wire.message(packets.DEBUG_ANNOTATIONS, [iid, pointers]),
        wire.message(packets.DEBUG_ANNOTATIONS, [numbers]),
        wire.constant(wire.encoded(packets.TYPE, 3), count),
        wire.text(23, pl.Series([row[2] for row in rows], dtype=pl.String), present),
    ]
    made = wire.message(packets.PACKET, [wire.message(packets.TRACK_EVENT, event)])
    assert made.flat().tobytes() == wanted
    assert made.sizes().sum() == len(wanted)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1 << 20)), max_size=60))
def test_messages_of_several_shapes_keep_their_order(rows: list[tuple[int, int]]) -> None:
    """Each shape is another field; which messages are of it is told by their places."""
    wanted = b"".join(wire.encoded(1 + shape, value) for shape, value in rows)
    shapes, values = np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.int64)
    parts = [(np.flatnonzero(shapes == shape), wire.integer(1 + shape, values[shapes == shape])) for shape in range(3)]
    assert wire.interleaved(parts, len(rows)).tobytes() == wanted


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("Trace", {"packet": packets.PACKET}),
        (
            "TracePacket",
            {
                "timestamp": packets.TIMESTAMP,
                "trusted_packet_sequence_id": packets.TRUSTED_PACKET_SEQUENCE_ID,
                "track_event": packets.TRACK_EVENT,
                "interned_data": packets.INTERNED_DATA,
                "sequence_flags": packets.SEQUENCE_FLAGS,
                "track_descriptor": packets.TRACK_DESCRIPTOR,
                "first_packet_on_sequence": packets.FIRST_PACKET_ON_SEQUENCE,
            },
        ),
        (
            "TrackEvent",
            {
                "category_iids": packets.CATEGORY_IIDS,
                "debug_annotations": packets.DEBUG_ANNOTATIONS,
                "type": packets.TYPE,
                "name_iid": packets.NAME_IID,
                "track_uuid": packets.TRACK_UUID,
                "counter_value": packets.COUNTER_VALUE,
            },
        ),
        (
            "DebugAnnotation",
            {
                "name_iid": packets.ANNOTATION_NAME_IID,
                "bool_value": packets.BOOL_VALUE,
                "int_value": packets.INT_VALUE,
                "pointer_value": packets.POINTER_VALUE,
                "string_value_iid": packets.STRING_VALUE_IID,
            },
        ),
        (
            "InternedData",
            {
                "event_categories": packets.EVENT_CATEGORIES,
                "event_names": packets.EVENT_NAMES,
                "debug_annotation_names": packets.DEBUG_ANNOTATION_NAMES,
                "debug_annotation_string_values": packets.DEBUG_ANNOTATION_STRING_VALUES,
            },
        ),
        ("EventName", {"iid": packets.IID, "name": packets.INTERNED}),
        ("EventCategory", {"iid": packets.IID, "name": packets.INTERNED}),
        ("DebugAnnotationName", {"iid": packets.IID, "name": packets.INTERNED}),
        ("InternedString", {"iid": packets.IID, "str": packets.INTERNED}),
        (
            "TrackDescriptor",
            {
                "uuid": packets.UUID,
                "name": packets.TRACK_NAME,
                "process": packets.PROCESS,
                "parent_uuid": packets.PARENT_UUID,
                "counter": packets.COUNTER_DESCRIPTOR,
                "child_ordering": packets.CHILD_ORDERING,
                "sibling_order_rank": packets.SIBLING_ORDER_RANK,
            },
        ),
        ("ProcessDescriptor", {"pid": packets.PID, "process_name": packets.PROCESS_NAME}),
        ("CounterDescriptor", {"unit": packets.UNIT}),
    ],
)
def test_numbers_of_fields_are_those_of_perfettos_definitions(message: str, fields: dict[str, int]) -> None:
    known: dict[str, Any] = getattr(proto, message).DESCRIPTOR.fields_by_name
    assert {name: known[name].number for name in fields} == fields


def test_values_of_enumerations_are_those_of_perfettos_definitions() -> None:
    event = proto.TrackEvent
    assert (packets.SLICE_BEGIN, packets.SLICE_END) == (event.TYPE_SLICE_BEGIN, event.TYPE_SLICE_END)
    assert (packets.INSTANT, packets.COUNTER) == (event.TYPE_INSTANT, event.TYPE_COUNTER)
    assert packets.EXPLICIT == proto.TrackDescriptor.EXPLICIT
    assert packets.UNIT_COUNT == proto.CounterDescriptor.UNIT_COUNT
    assert packets.STATE_CLEARED == proto.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
    assert packets.NEEDS_STATE == proto.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
