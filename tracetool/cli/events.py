"""`tracetool events`: the records of a trace, raw or as memory events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tracetool.cli.app import InputFormatOption, StrictOption, TraceFile, opened
from tracetool.cli.output import ForceOption, Format, FormatOption, OutputOption, write_frames, write_table
from tracetool.errors import Unusable

if TYPE_CHECKING:
    import polars as pl

    from tracetool_parsers import RawTrace

#: Rows of all events that are made at a time: their fields as JSON take many times their bytes.
ROWS: Final = 1 << 16


def run(
    trace: TraceFile,
    event: Annotated[
        str | None, typer.Option("--event", metavar="NAME", help="Only this event, a column a field.", show_default=False)
    ] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Memory events: what happened to which page.")] = False,
    form: FormatOption = Format.text,
    output: OutputOption = "-",
    force: ForceOption = False,
    input_format: InputFormatOption = None,
    strict: StrictOption = False,
) -> None:
    """The events of a trace in their order: all (with their fields as JSON), one kind (a column a field), or memory events.

    Example: tracetool events trace.dat --event cow_fault --format csv
    """
    if event and memory:
        raise Unusable("--event and --memory exclude each other", hint="memory events are of many kinds: filter their column `op`")
    recorded = opened(trace, input_format, strict)
    if memory:
        write_table(recorded.memory_events().collect(), form, output, force)
    elif event:
        write_table(recorded.events(event).collect(), form, output, force)
    else:
        write_frames(_all(recorded.raw), sum(recorded.raw.counts().values()), form, output, force)


def _all(raw: RawTrace) -> Iterator[pl.DataFrame]:
    """Every event, some rows at a time: ts, cpu, tid, comm, what else the format has, event, fields (a JSON object)."""
    import numpy as np
    import polars as pl

    from tracetool.export import ranked

    tables = raw.tables(positions=True)
    names = {"ts", "cpu", "tid", "comm"}.union(*(table.column_names for table in tables.values()))
    header = {name: kind for name, kind in _header().items() if name in names}
    empty = pl.DataFrame(schema={**header, "event": pl.String, "fields": pl.String, "position": pl.Int64})
    places = ranked({name: table.column("position").to_numpy() for name, table in tables.items()})
    end = sum(rows.size for rows in places.values())
    for begin in range(0, max(end, 1), ROWS):
        parts = [empty]
        for name, rows in places.items():
            first, last = np.searchsorted(rows, (begin, begin + ROWS)).tolist()
            if first < last:
                parts.append(_as_rows(name, pl.DataFrame(tables[name].slice(first, last - first)), header))
        yield pl.concat(parts).sort("position").drop("position")


def _header() -> dict[str, pl.DataType]:
    """The columns of raw tables that are no fields, and their types here."""
    import polars as pl

    return {
        "ts": pl.Int64(),
        "cpu": pl.Int32(),
        "tid": pl.Int32(),
        "comm": pl.String(),
        "buffer": pl.String(),
        "tgid": pl.Int32(),
        "callchain": pl.List(pl.UInt64()),
    }


def _as_rows(name: str, frame: pl.DataFrame, header: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Rows of one event among those of others."""
    import polars as pl

    own = [column for column in frame.columns if column not in header and column != "position"]
    columns = [pl.col(column) if column in frame.columns else pl.lit(None).alias(column) for column in header]
    fields = pl.struct(own).struct.json_encode() if own else pl.lit("{}")
    cast = [column.cast(kind) for column, kind in zip(columns, header.values(), strict=True)]
    return frame.select(*cast, pl.lit(name).alias("event"), fields.alias("fields"), pl.col("position").cast(pl.Int64))
