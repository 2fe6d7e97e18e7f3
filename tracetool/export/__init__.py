"""Writes a trace as one Parquet or Arrow file that other programs read, and that reads back equal.

One table in the order of the trace: `ts`, `cpu`, `tid`, `comm`, what else the format has (`buffer`, `tgid`, `callchain`), `event`, and for
each event a struct column with its fields, null in the rows of other events. What the trace says of itself, its losses and the formats of
its events are in the schema metadata: see `tracetool_parsers.exportschema`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracetool.export.files import whole
from tracetool_parsers import RawTrace
from tracetool_parsers.eventformat import HEADER_COLUMNS, EventFormat
from tracetool_parsers.exportschema import ALWAYS, EVENT, HEADER_TYPES, Description, describe

Target = Literal["parquet", "arrow"]

#: Rows of a batch, which is a row group: as many as about this many bytes hold, null or not.
_BATCH_BYTES: Final = 1 << 28
_MOST_ROWS: Final = 1 << 20
_LEAST_ROWS: Final = 1 << 14


@dataclass(frozen=True, slots=True)
class Exporting:
    """A trace on its way out.

    Attributes:
        tables: of all events that are written, by name, with all fields.
        places: for each of them the rows of the file that hold its rows, ascending: int64.
        columns: the struct column of each event that has one, by name.
        header: the columns that all rows have, in the order of the file.
        schema: of the file.
    """

    tables: Mapping[str, pa.Table]
    places: Mapping[str, npt.NDArray[np.int64]]
    columns: Mapping[str, str]
    header: pa.Table
    schema: pa.Schema


def export(raw: RawTrace, path: str | os.PathLike[str], to: Target, events: Sequence[str] | None = None) -> int:
    """Write a trace to a file, which is in its place only once all is written; returns the number of events.

    Args:
        raw: the trace.
        path: the file.
        to: "parquet", or "arrow" for an Arrow IPC file; both compressed with zstd.
        events: names of those to write; None: all, with the formats of those that never occur.

    Raises:
        UnknownEvent: the trace has no event of such a name.
        OSError: the file cannot be written.
    """
    exporting = prepare(raw, events)
    with whole(path) as beside, open(beside, "xb") as file:
        write(exporting, file, to)
    return int(exporting.header.num_rows)


def prepare(raw: RawTrace, events: Sequence[str] | None = None) -> Exporting:
    """Decode what is to be written; raises UnknownEvent."""
    formats = _formats(raw, events)
    fields = {name: None if form is None else _all_columns(form) for name, form in formats.items()}
    read = raw.tables(fields, positions=True)
    places = ranked({name: table.column("position").to_numpy() for name, table in read.items() if table.num_rows})
    tables = {name: _without_position(table).unify_dictionaries().combine_chunks() for name, table in read.items()}
    columns = _struct_columns(tables, formats)
    header = _header(tables, places)
    metadata = raw.metadata
    if events is not None:
        metadata = replace(metadata, notes=(*metadata.notes, f"exported were only the events {', '.join(tables)}"))
    counts = {name: table.num_rows for name, table in tables.items() if table.num_rows}
    description = Description(metadata, raw.losses, describe(formats, tables, columns), counts, _span(raw, header.column("ts")))
    structs = [(column, pa.struct([tables[name].schema.field(own) for own in _own(tables[name])])) for name, column in columns.items()]
    schema = pa.schema([*header.schema, *(pa.field(*struct) for struct in structs)], metadata=description.encoded())
    return Exporting(tables, places, columns, header, schema)


def write(exporting: Exporting, file: IO[bytes], to: Target) -> None:
    """Write the file to an open one, which needs not be seekable."""
    if to == "parquet":
        with pq.ParquetWriter(file, exporting.schema, compression="zstd") as writer:
            for batch in batches(exporting):
                writer.write_batch(batch, row_group_size=max(1, batch.num_rows))
        return
    with pa.ipc.new_file(file, exporting.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        for batch in batches(exporting):
            writer.write_batch(batch)


def batches(exporting: Exporting) -> Iterator[pa.RecordBatch]:
    """The rows of the file, some at a time, in the order of the trace."""
    leaves = sum(max(1, kind.num_fields) for kind in exporting.schema.types)
    size = min(_MOST_ROWS, max(_LEAST_ROWS, _BATCH_BYTES // (8 * leaves)))
    for begin in range(0, exporting.header.num_rows, size):
        header = exporting.header.slice(begin, size).combine_chunks()
        arrays = [column.chunk(0) for column in header.columns]
        arrays += [_struct(exporting, name, begin, header.num_rows) for name in exporting.columns]
        yield pa.RecordBatch.from_arrays(arrays, schema=exporting.schema)


def _struct(exporting: Exporting, name: str, begin: int, rows: int) -> pa.StructArray:
    """The struct column of one event over some rows of the file."""
    places = exporting.places[name]
    first, last = np.searchsorted(places, (begin, begin + rows))
    here = np.full(rows, -1, np.int64)
    here[places[first:last] - begin] = np.arange(first, last)
    others = pa.array(here < 0)
    chosen = pa.array(here, mask=here < 0)
    kind = exporting.schema.field(exporting.columns[name]).type
    table = exporting.tables[name]
    fields = [_one(table.column(field.name).take(chosen)) for field in kind]
    return pa.StructArray.from_arrays(fields, fields=list(kind), mask=others)


def _one(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined


def _span(raw: RawTrace, times: pa.ChunkedArray) -> tuple[int, int] | None:
    """The least and greatest time of some events; those that lie outside the trace's own span count in none."""
    span = raw.span()
    within = times.filter(pc.and_(pc.greater_equal(times, span[0]), pc.less_equal(times, span[1]))) if span else times[:0]
    found = pc.min_max(within)
    return (found["min"].as_py(), found["max"].as_py()) if len(within) else None


def _formats(raw: RawTrace, events: Sequence[str] | None) -> dict[str, EventFormat | None]:
    """The formats of the events that are written, by name; None for those that the trace has none of."""
    known = raw.formats()
    if events is None:
        return {**known, **{name: None for name in raw.counts() if name not in known}}
    full = {form.full_name: name for name, form in known.items()}
    return {full.get(name, name): known.get(full.get(name, name)) for name in events}


def _all_columns(form: EventFormat) -> list[str]:
    return list(dict.fromkeys(field.column for field in (*form.common, *form.fields)))


def _without_position(table: pa.Table) -> pa.Table:
    return table.select([name for name in table.column_names if name != "position"])


def _own(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if name not in HEADER_COLUMNS]


def ranked(positions: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, npt.NDArray[np.int64]]:
    """Positions (int64, of several tables, by name) without the gaps that other events leave: 0, 1, 2, ... in the order of the trace."""
    joined = np.concatenate([np.zeros(0, np.int64), *positions.values()])
    ranks = np.empty(joined.size, np.int64)
    ranks[np.argsort(joined, kind="stable")] = np.arange(joined.size)
    ends = np.cumsum([places.size for places in positions.values()])
    return dict(zip(positions, np.split(ranks, ends[:-1]), strict=True)) if positions else {}


def _struct_columns(tables: Mapping[str, pa.Table], formats: Mapping[str, EventFormat | None]) -> dict[str, str]:
    """A column name for each event that occurs and has fields: its own, `system:event` where that is taken."""
    # DuckDB takes names that differ in case alone for the same.
    taken = {*HEADER_TYPES, EVENT}
    columns = {}
    for name, table in tables.items():
        form = formats[name]
        if form is None or not table.num_rows or not _own(table):
            continue
        column = name if name.casefold() not in taken else form.full_name
        while column.casefold() in taken:
            column += "_"
        taken.add(column.casefold())
        columns[name] = column
    return columns


def _header(tables: Mapping[str, pa.Table], places: Mapping[str, npt.NDArray[np.int64]]) -> pa.Table:
    """The columns that all rows have, in the order of the file; null where an event's table has no such column."""
    present = [name for name in HEADER_TYPES if name in ALWAYS or any(name in table.column_names for table in tables.values())]
    schema = pa.schema([(name, HEADER_TYPES[name][0]) for name in present])
    joined = pa.concat_tables([schema.empty_table(), *(_header_of(table, schema) for table in tables.values())])
    order = np.empty(joined.num_rows, np.int64)
    order[np.concatenate([np.zeros(0, np.int64), *places.values()])] = np.arange(joined.num_rows)
    codes = np.repeat(np.arange(len(tables), dtype=np.int32), [table.num_rows for table in tables.values()])[order]
    event = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(list(tables), pa.string()))
    return joined.unify_dictionaries().combine_chunks().take(pa.array(order)).append_column(EVENT, event)


def _header_of(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table.column(name).cast(kind) if name in table.column_names else pa.nulls(table.num_rows, kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.table(columns, schema=schema)
