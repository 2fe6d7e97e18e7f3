"""What an exported trace says of itself: the schema metadata of the Parquet or Arrow file that `tracetool export` writes.

Two keys, both JSON. `tracetool`: schema version, units, the trace's metadata, losses, counts and span. `tracetool.formats`: every event
with its fields and the types of their columns, also the events that never occur.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, TypeVar

import pyarrow as pa

from .eventformat import HEADER_COLUMNS, EventFormat, Field
from .losses import SCHEMA, Loss, losses_table
from .metadata import Metadata, ProcessMaps

T = TypeVar("T")

SCHEMA_VERSION: Final = 1
KEY: Final = b"tracetool"
FORMATS_KEY: Final = b"tracetool.formats"

#: Columns that come before the structs, with their units; those that all tables have come first.
HEADER_TYPES: Final[Mapping[str, tuple[pa.DataType, str]]] = {
    "ts": (pa.int64(), "ns of the trace clock"),
    "cpu": (pa.int32(), "number of the CPU, -1: not known"),
    "tid": (pa.int32(), "thread id"),
    "comm": (pa.dictionary(pa.int32(), pa.string()), "name of the thread"),
    "buffer": (pa.dictionary(pa.int32(), pa.string()), "ring buffer instance, empty: the top one"),
    "tgid": (pa.int32(), "process id"),
    "callchain": (pa.list_(pa.uint64()), "instruction addresses, the innermost first"),
}
ALWAYS: Final = ("ts", "cpu", "tid", "comm")
#: The column that names each row's event.
EVENT: Final = "event"
EVENT_TYPE: Final = pa.dictionary(pa.int32(), pa.string())

_PLAIN: Final = {
    str(kind): kind
    for kind in (
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.bool_(), pa.float32(), pa.float64(), pa.string(), pa.binary(), pa.null()),
        pa.dictionary(pa.int32(), pa.string()),
    )
}
_LIST: Final = re.compile(r"list<\w+: (.*)>")


def type_named(name: str) -> pa.DataType:
    """The Arrow type that prints as `name`: numbers, strings, dictionaries of strings, and lists of those.

    Raises:
        ValueError: it is another one.
    """
    inside = _LIST.fullmatch(name)
    if inside:
        return pa.list_(_plain(inside[1]))
    return _plain(name)


def _plain(name: str) -> pa.DataType:
    if name not in _PLAIN:
        raise ValueError(f"no column has the type {name[:40]!r}")
    return _PLAIN[name]


@dataclass(frozen=True, slots=True)
class Exported:
    """One event of an exported trace.

    Attributes:
        format: of its records; of an event without one only the id counts.
        column: the struct column that holds its fields; None where it has no field or never occurs.
        header: which of `HEADER_TYPES` its table has.
        types: of the columns of `format.common` and `format.fields`, by column.
    """

    format: EventFormat
    column: str | None
    header: tuple[str, ...]
    types: Mapping[str, pa.DataType]


@dataclass(frozen=True, slots=True)
class Description:
    """All that the schema metadata say.

    Attributes:
        metadata: of the trace that was exported.
        losses: the table of `losses.SCHEMA`.
        events: every event, by the name that rows have in the column `event`.
        counts: of the events that are in the file.
        span: of those; it may leave out what was made up of the time before the trace.
    """

    metadata: Metadata
    losses: pa.Table
    events: Mapping[str, Exported]
    counts: Mapping[str, int]
    span: tuple[int, int] | None

    def encoded(self) -> dict[bytes, bytes]:
        """As schema metadata."""
        about = {
            "schema_version": SCHEMA_VERSION,
            "layout": "rows in the order of the trace; each event has a struct column of its own, null in the rows of other events",
            "units": {name: unit for name, (_, unit) in HEADER_TYPES.items()},
            "metadata": asdict(replace(self.metadata, cmdlines=dict(self.metadata.cmdlines), details=dict(self.metadata.details))),
            "losses": self.losses.to_pylist(),
            "events": sum(self.counts.values()),
            "counts": self.counts,
            "span": self.span,
        }
        formats = [
            {
                "event": name,
                "column": event.column,
                "header": event.header,
                "types": {column: str(kind) for column, kind in event.types.items()},
                **asdict(event.format),
            }
            for name, event in self.events.items()
        ]
        return {KEY: json.dumps(about, default=int).encode(), FORMATS_KEY: json.dumps(formats, default=int).encode()}

    @classmethod
    def decoded(cls, encoded: Mapping[bytes, bytes]) -> Description:
        """Out of schema metadata, which are foreign.

        Raises:
            ValueError: they are not what `encoded` gives.
        """
        try:
            about, formats = (json.loads(encoded[key]) for key in (KEY, FORMATS_KEY))
            if about["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema version {about['schema_version']!r} is not {SCHEMA_VERSION}")
            counts = {_is(str, name): _is(int, count) for name, count in about["counts"].items()}
            losses = losses_table([Loss(*(row[name] for name in SCHEMA.names)) for row in about["losses"]])
            events = {_is(str, event["event"]): _event(event) for event in formats}
            if len({event.format.id for event in events.values()}) < len(events):
                raise ValueError("two events have the same number")
            span = None if about["span"] is None else (_is(int, about["span"][0]), _is(int, about["span"][1]))
            return cls(_metadata(about["metadata"]), losses, events, counts, span)
        except (KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError, pa.ArrowException) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def describe(formats: Mapping[str, EventFormat | None], tables: Mapping[str, pa.Table], columns: Mapping[str, str]) -> dict[str, Exported]:
    """The events of a trace, by name.

    Args:
        formats: of all events that are exported; None for `unknown:ID`.
        tables: their tables with all fields.
        columns: the struct columns of those that occur and have fields.
    """
    events = {}
    for name, table in tables.items():
        form = formats[name] or EventFormat("", "", int(name.removeprefix("unknown:")), (), (), "")
        header = tuple(column for column in HEADER_TYPES if column in table.column_names)
        types = {column: table.schema.field(column).type for column in table.column_names if column not in HEADER_COLUMNS}
        events[name] = Exported(form, columns.get(name), header, types)
    return events


def _event(event: Mapping[str, Any]) -> Exported:
    common, own = (tuple(_field(field) for field in event[name]) for name in ("common", "fields"))
    form = EventFormat(
        _is(str, event["system"]), _is(str, event["name"]), _is(int, event["id"]), common, own, _is(str, event["print_format"])
    )
    types = {_is(str, column): type_named(_is(str, name)) for column, name in event["types"].items()}
    header = tuple(name for name in HEADER_TYPES if name in event["header"])
    column = None if event["column"] is None else _is(str, event["column"])
    if {field.column for field in (*common, *own)} != set(types) or not set(ALWAYS) <= set(header):
        raise ValueError(f"the columns of {form.name!r} are not those of its fields")
    return Exported(form, column, header, types)


def _field(field: Mapping[str, Any]) -> Field:
    name, column, kind = (_is(str, field[what]) for what in ("name", "column", "type"))
    offset, size, element = (_is(int, field[what]) for what in ("offset", "size", "element"))
    if field["place"] not in ("here", "data_loc", "rel_loc", "rest") or column in HEADER_COLUMNS:
        raise ValueError(f"no field is at {field['place']!r}, or called {column!r}")
    return Field(name, column, kind, offset, size, _is(bool, field["signed"]), field["place"], element)


def _metadata(stated: Mapping[str, Any]) -> Metadata:
    texts = {
        name: None if stated[name] is None else _is(str, stated[name]) for name in ("kernel", "uname", "clock", "writer", "hypervisor")
    }
    return Metadata(
        path=_is(str, stated["path"]),
        format=_is(str, stated["format"]),
        cpus=_is(int, stated["cpus"]),
        codec=_is(str, stated["codec"]),
        page_size=_is(int, stated["page_size"]),
        buffers=tuple(_is(str, name) for name in stated["buffers"]),
        cmdlines={int(tid): _is(str, name) for tid, name in stated["cmdlines"].items()},
        notes=tuple(_is(str, note) for note in stated["notes"]),
        maps=tuple(map(_maps, stated.get("maps", ()))),
        details={_is(str, what): _is(str, value) for what, value in stated["details"].items()},
        **texts,
    )


def _maps(stated: Mapping[str, Any]) -> ProcessMaps:
    listed = tuple((_is(int, begin), _is(int, end), _is(str, file)) for begin, end, file in stated["maps"])
    return ProcessMaps(_is(int, stated["pid"]), _is(str, stated["name"]), listed)


def _is(kind: type[T], value: Any) -> T:
    if type(value) is not kind:
        raise ValueError(f"expected {kind.__name__}, found {str(value)[:40]!r}")
    return value
