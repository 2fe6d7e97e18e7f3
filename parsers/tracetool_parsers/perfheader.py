"""perf.data: what is known before the first event - attributes, event formats, features - and where the events lie.

A file begins with a header that names its parts; the features lie behind the events. What `perf record -o -` writes into a pipe has a
header of 16 bytes, and records instead of the parts. Layout: Linux, tools/perf/Documentation/perf.data-file-format.txt,
tools/perf/util/header.c (`perf_session__read_header`, `perf_event__process_feature`) and trace-event-read.c (`trace_report`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from .cursor import ByteOrder, Cursor, text
from .errors import ParseError
from .eventformat import EventFormat, parse_format
from .perfattrs import TYPE_TRACEPOINT, Attr, read_attr
from .sniff import TRACE_DAT_MAGIC

Mode = Literal["file", "pipe", "directory"]

#: First bytes in the byte order of the file.
MAGICS: Final[Mapping[bytes, ByteOrder]] = {b"PERFILE2": "little", b"2ELIFREP": "big"}
_PIPE_SIZE: Final = 16
_FILE_SIZE: Final = 104
_DAMAGED: Final = "the file is cut off or damaged; copy it again"

#: Features that are used: tools/perf/util/header.h.
TRACING_DATA: Final = 1
EVENT_DESC: Final = 12
COMPRESSED: Final = 27
_TEXTS: Final = {3: "hostname", 4: "release", 5: "perf version", 6: "machine", 8: "CPU", 9: "CPU id"}
_NRCPUS: Final = 7
_TOTAL_MEMORY: Final = 10
_CMDLINE: Final = 11
_SAMPLE_TIME: Final = 21
_CLOCK_DATA: Final = 29

#: Records that pipes have in place of the parts of a file: tools/lib/perf/include/perf/event.h.
HEADER_ATTR: Final = 64
HEADER_TRACING_DATA: Final = 66
FINISHED_ROUND: Final = 68
AUXTRACE: Final = 71
EVENT_UPDATE: Final = 78
HEADER_FEATURE: Final = 80
COMPRESSED_RECORD: Final = 81
COMPRESSED2_RECORD: Final = 83
_UPDATE_NAME: Final = 2


@dataclass(frozen=True, slots=True)
class Header:
    """What a perf.data says of itself.

    Attributes:
        mode: how it was written.
        order: of the bytes of all numbers.
        attrs: the recorded events.
        formats: of the tracepoints among them.
        begin, end: which bytes of the file are records.
        finished: whether the recorder came to its end: else nothing says where the records end, and features are missing.
        features: number -> the section's bytes.
        details: what the features say, for a user to read.
        notes: what is missing.
    """

    mode: Mode
    order: ByteOrder
    attrs: tuple[Attr, ...]
    formats: tuple[EventFormat, ...]
    begin: int
    end: int
    finished: bool = True
    truncated: bool = False
    details: Mapping[str, str] = field(default_factory=dict)
    compressed: bool = False
    notes: tuple[str, ...] = ()


def read_header(data: memoryview, path: str) -> Header:
    """The header of a perf.data whose bytes are `data`.

    Raises:
        ParseError: it is none, or its header, attributes or event formats are damaged.
    """
    order = MAGICS.get(bytes(data[:8]))
    if order is None:
        raise ParseError("is not a perf.data: unknown magic", path=path, offset=0, hint="files of perf before Linux 3.2 are not read")
    cursor = Cursor(data, path, at=8, order=order)
    size = cursor.u64("size of the header")
    if size == _PIPE_SIZE:
        return _read_pipe(cursor)
    if size != _FILE_SIZE:
        raise ParseError(f"a perf.data header of {size} bytes is not possible", path=path, offset=8, hint=_DAMAGED)
    return _read_file(cursor)


# --- files ------------------------------------------------------------------------------------------------------------------------


def _read_file(cursor: Cursor) -> Header:
    data, path, order = cursor.data, cursor.path, cursor.order
    attr_size, attrs_at, attrs_size = (cursor.u64("place of the attributes") for _ in range(3))
    begin, size = cursor.u64("offset of the events"), cursor.u64("size of the events")
    cursor.take(16, "event types")
    bits = [bit + 64 * i for i in range(4) for bit in _bits(cursor.u64("features"))]
    if begin > len(data):
        raise ParseError(f"events are said to be at byte {begin} of {len(data)}", path=path, offset=40, hint=_DAMAGED)
    attrs = tuple(_file_attrs(data, path, order, attr_size, attrs_at, attrs_size))
    # A recorder that was killed has left a size of 0 and no features.
    end = min(begin + size, len(data)) if size else len(data)
    header = Header("file", order, attrs, (), begin, end, finished=size > 0, truncated=begin + size > len(data))
    if not header.finished:
        return replace(header, notes=("the recorder was killed: nothing says what its events look like",))
    if header.truncated:
        return replace(header, notes=("the file is cut off before its features: nothing says what its events look like",))
    table = Cursor(data, path, at=end, order=order)
    places = [(bit, table.u64("place of a feature"), table.u64("size of a feature")) for bit in bits]
    return _with_features(header, {bit: _section(data, path, order, at, size) for bit, at, size in places})


def _bits(number: int) -> Iterator[int]:
    return (bit for bit in range(64) if number >> bit & 1)


def _section(data: memoryview, path: str, order: ByteOrder, at: int, size: int) -> Cursor:
    return Cursor(data, path, at=min(at, len(data)), end=min(at + size, len(data)), order=order)


def _file_attrs(data: memoryview, path: str, order: ByteOrder, entry: int, at: int, size: int) -> Iterator[Attr]:
    if not 80 <= entry <= 1 << 16 or at + size > len(data):
        raise ParseError(f"attributes of {entry} bytes at byte {at} are not possible", path=path, offset=16, hint=_DAMAGED)
    left = len(data)
    for i in range(size // entry):
        attr, _ = read_attr(Cursor(data, path, at=at + i * entry, end=at + (i + 1) * entry - 16, order=order))
        place = Cursor(data, path, at=at + (i + 1) * entry - 16, order=order)
        ids_at, ids_size = place.u64("place of ids"), place.u64("size of ids")
        # Two attributes share no ids: together they are no larger than the file.
        left -= ids_size
        if ids_at + ids_size > len(data) or left < 0:
            raise place.error(f"ids of {ids_size} bytes at byte {ids_at} are not possible", _DAMAGED)
        yield replace(attr, ids=_numbers(data[ids_at : ids_at + ids_size], order))


def _numbers(block: memoryview, order: ByteOrder) -> tuple[int, ...]:
    return tuple(int.from_bytes(block[i : i + 8], order) for i in range(0, len(block) // 8 * 8, 8))


# --- pipes ------------------------------------------------------------------------------------------------------------------------


def _read_pipe(cursor: Cursor) -> Header:
    data, order = cursor.data, cursor.order
    attrs: list[Attr] = []
    features: dict[int, Cursor] = {}
    names: dict[int, str] = {}
    while cursor.left >= 8:
        at = cursor.at
        kind, _, size = cursor.u32("type of a record"), cursor.u16("misc"), cursor.u16("size of a record")
        cursor.seek(at, "record")
        # The kernel's own records are events, and so is what comes between them.
        if kind < HEADER_ATTR or kind in (FINISHED_ROUND, AUXTRACE, COMPRESSED_RECORD, COMPRESSED2_RECORD) or not 8 <= size <= cursor.left:
            break
        record = cursor.part(size, "record")
        record.take(8, "header of a record")
        if kind == HEADER_ATTR:
            attr, used = read_attr(record)
            record.take(used, "attribute")
            attrs.append(replace(attr, ids=_numbers(record.rest(), order)))
        elif kind == HEADER_FEATURE and record.left >= 8:
            features.setdefault(record.u64("number of a feature"), record)
        elif kind == HEADER_TRACING_DATA:
            length = record.u32("size of the event formats")
            features[TRACING_DATA] = cursor.part(length + -length % 8, "event formats")
        elif kind == EVENT_UPDATE and record.left > 16 and record.u64("what is updated") == _UPDATE_NAME:
            names[record.u64("id")] = text(record.rest())
    named = tuple(replace(attr, name=next((names[number] for number in attr.ids if number in names), "")) for attr in attrs)
    return _with_features(Header("pipe", order, named, (), cursor.at, len(data)), features)


# --- features ---------------------------------------------------------------------------------------------------------------------


def _with_features(header: Header, features: Mapping[int, Cursor]) -> Header:
    attrs = header.attrs
    if EVENT_DESC in features:
        attrs = tuple(_named(attrs, _event_names(features[EVENT_DESC])))
    formats = tuple(_tracing_data(features[TRACING_DATA])) if TRACING_DATA in features else ()
    details, notes = _details(features)
    used = {attr.config for attr in attrs if attr.type == TYPE_TRACEPOINT}
    distinct = {event.id: event for event in reversed(formats) if event.id in used}
    return replace(
        header,
        attrs=attrs,
        formats=tuple(distinct.values()),
        details=details,
        compressed=COMPRESSED in features,
        notes=(*header.notes, *notes),
    )


def _event_names(cursor: Cursor) -> list[tuple[str, tuple[int, ...]]]:
    """Of each event the name that was asked for, and its ids."""
    count, size = cursor.count(4, 12, "event descriptions"), cursor.u32("size of an attribute")
    named = []
    for _ in range(count):
        cursor.take(size, "attribute")
        ids = cursor.u32("number of ids")
        name = text(cursor.sized(4, "name of an event"))
        named.append((name, _numbers(cursor.take(8 * ids, "ids"), cursor.order)))
    return named


def _named(attrs: Sequence[Attr], names: Sequence[tuple[str, tuple[int, ...]]]) -> Iterator[Attr]:
    by_id = {number: name for name, ids in names for number in ids}
    for i, attr in enumerate(attrs):
        by_place = names[i][0] if i < len(names) and not names[i][1] else attr.name
        yield replace(attr, name=next((by_id[number] for number in attr.ids if number in by_id), by_place))


def _tracing_data(cursor: Cursor) -> list[EventFormat]:
    """The formats of a block that begins like a trace.dat and has its own byte order."""
    at = cursor.offset
    if bytes(cursor.take(len(TRACE_DAT_MAGIC), "magic of the event formats")) != TRACE_DAT_MAGIC:
        raise ParseError("the event formats have an unknown magic", path=cursor.path, offset=at, hint=_DAMAGED)
    cursor.string("version of the event formats")
    cursor.order = "big" if cursor.integer(1, "byte order") else "little"
    long_size: Literal[4, 8] = 4 if cursor.integer(1, "size of long") == 4 else 8
    cursor.u32("page size")
    for _ in ("header_page", "header_event"):
        cursor.string("name of a header")
        cursor.sized(8, "description of a header")
    formats = _formats(cursor, long_size, "ftrace", cursor.count(4, 8, "ftrace formats"))
    for _ in range(cursor.count(4, 5, "event systems")):
        system = cursor.string("name of an event system")
        formats += _formats(cursor, long_size, system, cursor.count(4, 8, f"formats of {system}"))
    return formats


def _formats(cursor: Cursor, long_size: Literal[4, 8], system: str, count: int) -> list[EventFormat]:
    """`count` event formats of one system, each after its u64 length."""
    blocks = [(cursor.offset, text(cursor.sized(8, f"an event format of {system}"))) for _ in range(count)]
    return [parse_format(each, system, path=cursor.path, offset=at, long_size=long_size) for at, each in blocks if each.strip()]


def _details(features: Mapping[int, Cursor]) -> tuple[dict[str, str], tuple[str, ...]]:
    details: dict[str, str] = {}
    notes = []
    for number, cursor in features.items():
        try:
            details |= _detail(number, cursor)
        except ParseError as error:
            # They only tell a user more.
            notes.append(f"feature {number} is damaged: {error.message} at byte {error.offset}")
    return details, tuple(notes)


def _detail(number: int, cursor: Cursor) -> dict[str, str]:
    if number in _TEXTS:
        return {_TEXTS[number]: text(cursor.sized(4, _TEXTS[number]))}
    if number == _NRCPUS:
        return {"CPUs available": str(cursor.u32("CPUs")), "CPUs online": str(cursor.u32("CPUs"))}
    if number == _TOTAL_MEMORY:
        return {"memory": f"{cursor.u64('total memory')} kB"}
    if number == _CMDLINE:
        count = cursor.count(4, 4, "words of the command line")
        return {"command line": " ".join(text(cursor.sized(4, "word of the command line")) for _ in range(count))}
    if number == _SAMPLE_TIME:
        return {"first sample": str(cursor.u64("time")), "last sample": str(cursor.u64("time"))}
    if number == COMPRESSED:
        cursor.u32("version")
        kind, level, ratio = cursor.u32("codec"), cursor.u32("level"), cursor.u32("ratio")
        return {"compression": f"{'zstd' if kind == 1 else f'codec {kind}'} level {level}, ratio {ratio}"}
    if number == _CLOCK_DATA:
        cursor.take(8, "version and clock")
        wall, clock = cursor.u64("wall clock"), cursor.u64("trace clock")
        return {"wall clock minus trace clock": f"{wall - clock} ns"}
    return {}
