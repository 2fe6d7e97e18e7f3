"""Parquet and Arrow files that `tracetool export` wrote, as a Source.

One table holds all events in the order of the trace: `ts`, `cpu`, `tid`, `comm`, what else the format had (`buffer`, `tgid`, `callchain`),
`event`, and for each event that occurs and has fields a struct column with them, null in the rows of other events. The schema metadata
say the rest: see `exportschema`. Only the columns that a question needs are read.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .errors import ParseError
from .eventformat import EventFormat, Field
from .exportschema import ALWAYS, EVENT, EVENT_TYPE, FORMATS_KEY, HEADER_TYPES, KEY, Description, Exported
from .inputs import TRUNCATED
from .losses import Loss, losses_table
from .metadata import Metadata
from .progress import stage
from .source import Source

#: Rows of a Parquet file that are decoded at a time.
_ROWS: Final = 1 << 16
#: What pyarrow raises at foreign bytes: its own errors, those of files, of codecs, of memory that a damaged length asks for, of text.
_FOREIGN: Final = (pa.ArrowException, OSError, MemoryError, ValueError, TypeError, KeyError, IndexError, OverflowError)

_DAMAGED: Final = "the file is cut off or damaged; export the trace again"
_EXPECTED: Final = "read is what `tracetool export --to parquet` (or arrow) wrote, with its schema metadata"

_ARROW_MAGIC: Final = b"ARROW1\0\0"


#: The fields of struct columns that are wanted, by column.
_Structs = Mapping[str, Sequence[str]]


class _File(NamedTuple):
    """A file of some kind: its schema, and its rows in pieces, with the header columns and fields of struct columns that are asked for."""

    kind: str
    schema: pa.Schema
    pieces: Callable[[Sequence[str], _Structs], Iterator[pa.RecordBatch]]


def open_exported(data: memoryview, path: str, *, strict: bool) -> ExportedTrace:
    """Open a Parquet file, or an Arrow IPC file or stream, that holds an exported trace.

    Args:
        data: the file.
        path: for messages.
        strict: whether a truncated Arrow file is an error.

    Raises:
        ParseError: it is damaged, or another program's.
    """
    buffer = pa.py_buffer(data)
    try:
        opened = _parquet(buffer) if bytes(data[:4]) == b"PAR1" else _arrow(buffer)
        described = opened.schema.metadata or {}
    except _FOREIGN as error:
        raise ParseError(f"cannot be read: {_said(error)}", path=path, offset=0, hint=_DAMAGED) from error
    if KEY not in described or FORMATS_KEY not in described:
        raise ParseError("holds no exported trace: its schema metadata describe none", path=path, offset=0, hint=_EXPECTED)
    try:
        description = Description.decoded(described)
        _check(opened.schema, description)
    except ValueError as error:
        raise ParseError(f"describes its events as no export does: {_said(error)}", path=path, offset=0, hint=_DAMAGED) from error
    trace = ExportedTrace(opened, description, path)
    if strict and trace.missing:
        hint = "without strict, what is whole is read and the rest is listed as lost"
        raise ParseError(f"{TRUNCATED}: {trace.missing} events are missing", path=path, offset=len(data), hint=hint)
    return trace


def _parquet(buffer: pa.Buffer) -> _File:
    import pyarrow.parquet as pq

    def opened() -> Any:
        return pq.ParquetFile(pa.BufferReader(buffer), pre_buffer=False)

    def pieces(header: Sequence[str], structs: _Structs) -> Iterator[pa.RecordBatch]:
        columns = [*header, *(f"{struct}.{field}" for struct, fields in structs.items() for field in fields)]
        file = opened()
        rows = 0
        for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
            rows += batch.num_rows
            yield batch
        # Of a struct whose fields hold fewer rows than the file states, Arrow gives as many as the shortest.
        if rows != file.metadata.num_rows:
            raise ValueError(f"its columns hold {rows} of {file.metadata.num_rows} rows")

    return _File("Parquet", opened().schema_arrow, pieces)


def _arrow(buffer: pa.Buffer) -> _File:
    """A file, or a stream. A file is a stream between its magic and its footer: one whose footer is gone is read as far as it goes."""
    if bytes(buffer[: len(_ARROW_MAGIC)]) != _ARROW_MAGIC:
        return _arrow_stream(buffer, "Arrow stream")
    try:
        schema = pa.ipc.open_file(pa.BufferReader(buffer)).schema
    except _FOREIGN:
        return _arrow_stream(buffer[len(_ARROW_MAGIC) :], "Arrow file")

    def pieces(header: Sequence[str], structs: _Structs) -> Iterator[pa.RecordBatch]:
        with pa.ipc.open_file(pa.BufferReader(buffer), options=_only(schema, header, structs)) as reader:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)

    return _File("Arrow file", schema, pieces)


def _arrow_stream(buffer: pa.Buffer, kind: str) -> _File:
    schema = pa.ipc.open_stream(pa.BufferReader(buffer)).schema
    whole = _whole_batches(buffer)

    def pieces(header: Sequence[str], structs: _Structs) -> Iterator[pa.RecordBatch]:
        with pa.ipc.open_stream(pa.BufferReader(buffer), options=_only(schema, header, structs)) as reader:
            for _ in range(whole):
                yield reader.read_next_batch()

    return _File(kind, schema, pieces)


def _whole_batches(buffer: pa.Buffer) -> int:
    """How many batches of a stream are there to their last byte."""
    whole = 0
    # The end is a StopIteration, or an error where the stream is cut inside a message.
    with contextlib.suppress(StopIteration, *_FOREIGN):
        reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(buffer))
        while True:
            whole += reader.read_next_message().type == "record batch"
    return whole


def _only(schema: pa.Schema, header: Sequence[str], structs: _Structs) -> pa.ipc.IpcReadOptions:
    return pa.ipc.IpcReadOptions(included_fields=sorted(schema.get_field_index(name) for name in (*header, *structs)))


def _check(schema: pa.Schema, description: Description) -> None:
    """Compare a file's columns with what it says of them; raises ValueError."""
    if len(set(schema.names)) < len(schema.names):
        raise ValueError("two columns have the same name")
    types = dict(zip(schema.names, schema.types, strict=True))
    headers = {name for event in description.events.values() for name in event.header}
    for name in (*ALWAYS, EVENT, *sorted(headers - set(ALWAYS))):
        if types.get(name) != (EVENT_TYPE if name == EVENT else HEADER_TYPES[name][0]):
            raise ValueError(f"the column {name!r} is missing or of another type")
    for name, event in description.events.items():
        if event.column is not None and types.get(event.column) != pa.struct(list(event.types.items())):
            raise ValueError(f"the column {event.column!r} does not hold the fields of {name!r}")


def _said(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


class _Surveyed(NamedTuple):
    """What one look at times and events tells: rows, how often each event occurs by number, least and greatest time."""

    rows: int
    counts: dict[int, int]
    span: tuple[int, int] | None


class ExportedTrace(Source):
    """An exported trace."""

    def __init__(self, opened: _File, description: Description, path: str) -> None:
        """Made by `open_exported`."""
        self._file = opened
        self._description = description
        self._path = path
        self._events = {event.format.id: event for event in description.events.values()}
        self._numbers = {name: event.format.id for name, event in description.events.items()}

    @property
    def metadata(self) -> Metadata:
        """As the trace was, but for its path and its format."""
        metadata = self._description.metadata
        details = {"exported from": metadata.format, **metadata.details}
        return replace(metadata, path=self._path, format=self._file.kind, details=details)

    @property
    def formats(self) -> Sequence[EventFormat]:
        """Every event that was exported and has a format."""
        return [event.format for event in self._events.values() if event.format.name]

    @property
    def losses(self) -> pa.Table:
        """As the trace's; what is missing from a truncated Arrow file is a row."""
        losses = self._description.losses
        if not self.missing:
            return losses
        after = self._survey.span[1] if self._survey.span else None
        return pa.concat_tables([losses, losses_table([Loss(-1, after, None, self.missing, TRUNCATED)])])

    @property
    def missing(self) -> int:
        """How many events the file states and does not hold."""
        return sum(self._description.counts.values()) - self._survey.rows

    def counts(self) -> Mapping[int, int]:
        """How often each event occurs."""
        return self._survey.counts

    def span(self) -> tuple[int, int] | None:
        """The least and the greatest time (ns)."""
        return self._survey.span

    def read(self, asked: Mapping[int, Sequence[Field]], *, positions: bool = False) -> dict[int, pa.Table]:
        """The tables of some events."""
        events = {number: self._events[number] for number in asked}
        schemas = {number: _schema(event, asked[number], positions) for number, event in events.items()}
        header = list(dict.fromkeys(name for event in events.values() for name in event.header))
        structs = {event.column: [field.column for field in asked[number]] for number, event in events.items() if event.column}
        parts: dict[int, list[pa.RecordBatch]] = {number: [] for number in asked}
        base = 0
        for batch, numbers in self._pieces(header, {column: fields for column, fields in structs.items() if fields}):
            for number, rows in _rows_by_number(numbers, list(asked)):
                arrays = _columns(batch, events[number], asked[number], rows)
                if positions:
                    arrays.append(pa.array(base + rows))
                parts[number].append(_batch(arrays, schemas[number]))
            base += batch.num_rows
        return {number: _table(batches, schemas[number]) for number, batches in parts.items()}

    def timeline(self) -> pa.Table:
        """All events: time, CPU, thread and which."""
        schema = pa.schema([("ts", pa.int64()), ("cpu", pa.int32()), ("tid", pa.int32()), ("event", pa.int32())])
        parts = []
        for batch, numbers in self._pieces(("ts", "cpu", "tid"), {}):
            columns = [batch.column(name) for name in ("ts", "cpu", "tid")]
            parts.append(pa.RecordBatch.from_arrays([*columns, pa.array(numbers.astype(np.int32))], schema=schema))
        return _table(parts, schema)

    @functools.cached_property
    def _survey(self) -> _Surveyed:
        rows = 0
        counts: Counter[int] = Counter()
        least, greatest = [], []
        for batch, numbers in self._pieces(("ts",), {}):
            rows += batch.num_rows
            found, times = np.unique(numbers, return_counts=True)
            counts.update(dict(zip(found.tolist(), times.tolist(), strict=True)))
            if batch.num_rows:
                ts = batch.column("ts").to_numpy()
                least.append(int(ts.min()))
                greatest.append(int(ts.max()))
        if rows > sum(self._description.counts.values()):
            raise ParseError(f"holds {rows} events, more than it states", path=self._path, offset=0, hint=_DAMAGED)
        if not least:
            return _Surveyed(rows, {}, None)
        # What perf makes up of the time before it recorded has the time 0: the trace starts later, and says when.
        stated = self._description.span
        begin = stated[0] if stated and min(least) <= stated[0] <= max(greatest) else min(least)
        return _Surveyed(rows, dict(sorted(counts.items())), (begin, max(greatest)))

    def _pieces(self, header: Sequence[str], structs: _Structs) -> Iterator[tuple[pa.RecordBatch, npt.NDArray[np.int64]]]:
        """The rows in pieces, and the event of each row by number (int64)."""
        rows = 0
        try:
            with stage("reading", sum(self._description.counts.values()), "events", lambda: rows):
                for batch in self._file.pieces([*dict.fromkeys((*header, EVENT))], structs):
                    # Arrow files hold offsets and indices as they are: one that points outside would be followed.
                    batch.validate(full=True)
                    for name in ("ts", "cpu", "tid", EVENT):
                        if name in batch.schema.names and batch.column(name).null_count:
                            raise ValueError(f"the column {name!r} has nulls")
                    event = batch.column(EVENT)
                    by_index = np.array([self._numbers[name] for name in event.dictionary.to_pylist()], np.int64)
                    yield batch, by_index[event.indices.to_numpy()]
                    rows += batch.num_rows
        except _FOREIGN as error:
            raise ParseError(f"cannot be read: {_said(error)}", path=self._path, offset=0, hint=_DAMAGED) from error


def _rows_by_number(numbers: npt.NDArray[np.int64], asked: Sequence[int]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """The rows of each event that is asked for and occurs, in order."""
    by_number = np.argsort(numbers, kind="stable")
    in_order = numbers[by_number]
    for number in asked:
        begin, end = np.searchsorted(in_order, (number, number + 1))
        if begin < end:
            yield number, by_number[begin:end]


def _columns(batch: pa.RecordBatch, event: Exported, fields: Sequence[Field], rows: npt.NDArray[np.int64]) -> list[pa.Array]:
    chosen = pa.array(rows)
    columns = [batch.column(name).take(chosen) for name in event.header]
    if not fields:
        return columns
    struct = batch.column(event.column)
    return columns + [struct.field(field.column).take(chosen) for field in fields]


def _schema(event: Exported, fields: Sequence[Field], positions: bool) -> pa.Schema:
    header = [(name, HEADER_TYPES[name][0]) for name in event.header]
    own = [(field.column, event.types[field.column]) for field in fields]
    return pa.schema([*header, *own, *([("position", pa.int64())] if positions else [])])


def _batch(arrays: Sequence[pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    # Parquet calls the elements of a list by another name than Arrow.
    cast = [array if array.type.equals(kind) else array.cast(kind) for array, kind in zip(arrays, schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(cast, schema=schema)


def _table(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches(batches, schema).unify_dictionaries().combine_chunks()
