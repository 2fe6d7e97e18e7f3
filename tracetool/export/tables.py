"""The tables of a trace and of its replays for other programs: sorted by time, and saying what every column is, in which unit.

A table becomes an Arrow table with metadata: of each field `meaning` and, where it has one, `unit`; of the schema one JSON text under the
key `tracetool.table`: which table of which replay of which trace, its clock, kernel and schema version, units, and what it is sorted by.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tracetool import schema
from tracetool.analysis import Analysis
from tracetool.replay import Replay
from tracetool.trace import Trace

#: The key of the schema metadata. (An exported trace has `tracetool`, and is another thing.)
KEY: Final = b"tracetool.table"

#: The time that each table is sorted by; what was before the trace, null, comes first. Rows of the memory events are named by their
#: numbers, and are in the order of the trace as they are.
SORTED_BY: Final[Mapping[str, str]] = {
    "memory_events": "ts",
    "processes": "from_ns",
    "losses": "from_ns",
    "ownership": "from_ns",
    "references": "from_ns",
    "faults": "ts",
    "findings": "from_ns",
}


#: The tables of which every replay has its own.
OF_REPLAY: Final = ("ownership", "references", "faults")


@dataclass(frozen=True)
class Named:
    """A table with its name in `schema.TABLES`, and the replay it is of (None: of all, or of none)."""

    name: str
    frame: pl.DataFrame
    replay: str | None = None


def of_trace(trace: Trace) -> Iterator[Named]:
    """The tables that no replay has a say in: memory events, processes, losses."""
    yield Named("memory_events", trace.memory_events().collect())
    yield Named("processes", _sorted("processes", trace.processes))
    lost = pl.from_arrow(trace.raw.losses)
    assert isinstance(lost, pl.DataFrame)
    yield Named("losses", _sorted("losses", lost))


def of_replay(replay: Replay) -> Iterator[Named]:
    """The tables of one replay: ownership, references, faults."""
    for name in OF_REPLAY:
        frame: pl.LazyFrame = getattr(replay, name)
        yield Named(name, _sorted(name, frame.collect()), replay.policy)


def of_analysis(analysis: Analysis) -> Iterator[Named]:
    """The tables that compare replays: findings, costs."""
    yield Named("findings", _sorted("findings", analysis.findings))
    yield Named("costs", analysis.costs)


def about(trace: Trace) -> dict[str, Any]:
    """What a table's metadata say of the trace: `trace` (path), `format`, `kernel`, `clock`, `from_ns`, `to_ns`, `schema_version`."""
    metadata = trace.raw.metadata
    first, last = trace.raw.span() or (None, None)
    return {
        "schema_version": schema.SCHEMA_VERSION,
        "trace": metadata.path,
        "format": metadata.format,
        "kernel": metadata.kernel,
        "clock": metadata.clock,
        "from_ns": first,
        "to_ns": last,
    }


def described(table: Named, trace: Mapping[str, Any]) -> pa.Table:
    """The table in Arrow with its metadata; `trace` is what `about` gives."""
    columns = schema.TABLES[table.name]
    arrow = table.frame.to_arrow()
    # What polars says itself of a field lets it read Enums back as such.
    fields = [field.with_metadata({**(field.metadata or {}), **_said(columns[field.name])}) for field in arrow.schema]
    by = SORTED_BY.get(table.name)
    said = {
        **trace,
        "table": table.name,
        "replay": table.replay,
        "units": {name: columns[name].unit for name in table.frame.columns if columns[name].unit},
        "sorted_by": by if by and table.frame[by].is_sorted() else None,
    }
    return pa.table(arrow.columns, schema=pa.schema(fields, metadata={KEY: json.dumps(said).encode()}))


def write_folder(trace: Trace, analysis: Analysis, folder: str | os.PathLike[str]) -> list[Path]:
    """Write one Parquet file a table into a folder, which is made if need be; what depends on the replay into one named after it.

    Tables of replays that were written there before are removed: they are of another trace, or of policies that were not asked for.

    Raises:
        OSError: a file cannot be written.
    """
    _clear(Path(folder))
    told, written = about(trace), []
    tables = [*of_trace(trace), *(table for replay in analysis.replays.values() for table in of_replay(replay)), *of_analysis(analysis)]
    for table in tables:
        path = Path(folder, table.replay or "", f"{table.name}.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(described(table, told), path)
        written.append(path)
    return written


def _clear(folder: Path) -> None:
    for of_a_replay in filter(Path.is_dir, folder.iterdir() if folder.is_dir() else ()):
        for name in OF_REPLAY:
            (of_a_replay / f"{name}.parquet").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else is in it
            of_a_replay.rmdir()


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write an Arrow table of `described` as one Parquet file that states what it is sorted by."""
    by = json.loads(table.schema.metadata[KEY])["sorted_by"]
    order = [pq.SortingColumn(table.column_names.index(by), nulls_first=True)] if by else None
    pq.write_table(table, path, compression="zstd", sorting_columns=order)


def meaning(column: schema.Column) -> str:
    """What a column is in one line: meaning, unit, and the values that it takes."""
    unit = f" [{column.unit}]" if column.unit else ""
    values = f"; one of: {', '.join(column.values)}" if column.values else ""
    return f"{column.meaning}{unit}{values}"


def _said(column: schema.Column) -> dict[str, str]:
    return {"meaning": column.meaning, **({"unit": column.unit} if column.unit else {})}


def _sorted(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort(SORTED_BY[name], maintain_order=True)
