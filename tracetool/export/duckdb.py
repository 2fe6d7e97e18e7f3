"""A trace and its replays as one DuckDB database: every table, every column with a comment.

Schema `main` has the tables of `tracetool schema`: those of replays hold all replays, told apart by a column `policy`. Schema `events` has
the raw events, one table an event. What is named by its row elsewhere (`faults.event`, `memory_events.source_row`) has that number as its
first column, so that it can be joined. One row of `metadata` says what was traced.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from tracetool import __version__, schema
from tracetool.analysing import analyse
from tracetool.analysis import Analysis
from tracetool.errors import TraceError
from tracetool.export.files import whole
from tracetool.export.tables import OF_REPLAY, about, meaning, of_analysis, of_replay, of_trace
from tracetool.policies import Policy
from tracetool.trace import Trace
from tracetool_parsers import RawTrace, UnknownEvent
from tracetool_parsers.eventformat import EventFormat
from tracetool_parsers.exportschema import HEADER_TYPES

#: The schema of the raw events.
EVENTS: Final = "events"
#: Bytes of a block of the file. A table takes some even when it has few rows, so those of small traces are as small as they can be.
_BLOCK: Final = 1 << 18
_SMALL_BLOCK: Final = 1 << 14
#: Events of a small trace, at most.
_SMALL: Final = 1_000_000
#: Rows of raw events that are decoded in one pass over the trace, about.
_AT_A_TIME: Final = 1 << 23

_POLICY: Final = "the policy, or `observed`: what the traced kernel did"
_METADATA: Final[Mapping[str, tuple[str, str]]] = {
    "trace": ("VARCHAR", "the file that was read"),
    "format": ("VARCHAR", "its format"),
    "kernel": ("VARCHAR", "the kernel's release; null: the trace does not say"),
    "clock": ("VARCHAR", "the clock of all times; null: the trace does not say"),
    "cpus": ("INTEGER", "CPUs of the traced machine"),
    "events": ("BIGINT", "raw events in the trace"),
    "lost_events": ("BIGINT", "events that were lost; null: some were, and nobody knows how many"),
    "from_ns": ("BIGINT", "the first time stamp [ns]"),
    "to_ns": ("BIGINT", "the last time stamp [ns]"),
    "schema_version": ("INTEGER", "of the tables that `tracetool schema` lists"),
    "tracetool": ("VARCHAR", "the version that wrote this"),
    "policies": ("VARCHAR[]", "the replays in this file, `observed` first"),
    "notes": ("VARCHAR[]", "what the trace cannot tell"),
}
_VERDICTS: Final = {
    "policy": _POLICY,
    "rule": "the rule",
    "verdict": "what the trace says of it; one of: defect, clean, inconclusive",
    "missing": "what an inconclusive one lacks",
}
#: Columns that number the rows of a table which others name by row.
_ROW_OF: Final = {
    "memory_events": ("event", "row of the memory event, as faults and evidence of findings name it"),
    EVENTS: ("source_row", "row in this table, as memory_events names it"),
}


def export_duckdb(
    trace: Trace, path: str | os.PathLike[str], policies: Sequence[Policy] = (), events: Sequence[str] | None = None
) -> dict[str, int]:
    """Write a database file, which is in its place only once all is written; returns the tables by name with their rows.

    Args:
        trace: the trace.
        path: the file.
        policies: what else to replay it under than the traced kernel.
        events: names of the raw events that become tables; None: all that occur.

    Raises:
        TraceError: the package `duckdb` is not installed.
        UnknownEvent: the trace has no event of such a name.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile, tracetool
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tables = export_duckdb(tracetool.open("fixtures/mail-6.1.dat"), Path(folder, "mail.duckdb"))
        >>> tables["main.ownership"], tables["events.cow_fault"]
        (40, 19)
    """
    duckdb = _package()
    names = _named(trace.raw, events)
    analysis = analyse(trace, policies)
    with whole(path) as beside:
        try:
            # In memory, because it is told of a file's blocks only where that is attached.
            connection = duckdb.connect()
            try:
                size = _SMALL_BLOCK if analysis.trace.events < _SMALL else _BLOCK
                connection.execute(f"ATTACH {_literal(beside)} AS trace (BLOCK_SIZE {size})")
                connection.execute("USE trace")
                database = _Database(connection)
                _write(database, trace, analysis, names)
                connection.execute("USE memory")
                connection.execute("DETACH trace")
            finally:
                connection.close()
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{beside}.wal")
        except duckdb.IOException as error:
            raise OSError(errno.EIO, str(error), os.fspath(path)) from error
    return database.rows


def _package() -> Any:
    try:
        return importlib.import_module("duckdb")
    except ImportError as error:
        raise TraceError("a DuckDB database is written by the package duckdb, which is not installed",
                         hint="pip install 'tracetool[duckdb]'") from error  # fmt: skip


def _write(database: _Database, trace: Trace, analysis: Analysis, names: Sequence[str]) -> None:
    for named in of_trace(trace):
        database.add(named.name, _comments(named.name), [named.frame], row=_ROW_OF.get(named.name))
    replays = {policy: list(of_replay(replay)) for policy, replay in analysis.replays.items()}
    for number, name in enumerate(OF_REPLAY):
        frames = [tables[number].frame.select(pl.lit(policy).alias("policy"), pl.all()) for policy, tables in replays.items()]
        database.add(name, {"policy": _POLICY, **_comments(name)}, frames)
    for named in of_analysis(analysis):
        database.add(named.name, _comments(named.name), [named.frame])
    database.add("verdicts", _VERDICTS, [_verdicts(analysis)])
    database.add_row("metadata", _METADATA, _about(trace, analysis))
    database.connection.execute(f"CREATE SCHEMA {EVENTS}")
    formats = trace.raw.formats()
    for name, table in _raw_tables(trace.raw, names):
        database.add(name, _field_comments(table, formats.get(name)), [table], within=EVENTS, row=_ROW_OF[EVENTS])


def _about(trace: Trace, analysis: Analysis) -> dict[str, Any]:
    return {
        **about(trace),
        "cpus": analysis.trace.cpus,
        "events": analysis.trace.events,
        "lost_events": analysis.coverage.lost_events,
        "tracetool": __version__,
        "policies": list(analysis.replays),
        "notes": list(analysis.coverage.notes),
    }


def _verdicts(analysis: Analysis) -> pl.DataFrame:
    rows = [(verdict.policy, verdict.rule, verdict.verdict, list(verdict.missing)) for verdict in analysis.verdicts]
    kinds: dict[str, Any] = {"policy": pl.String, "rule": pl.String, "verdict": pl.String, "missing": pl.List(pl.String)}
    return pl.DataFrame(rows, schema=kinds, orient="row")


def _comments(name: str) -> dict[str, str]:
    return {column: meaning(said) for column, said in schema.TABLES[name].items()}


# --- raw events -----------------------------------------------------------------------------------------------------------------------


def _named(raw: RawTrace, events: Sequence[str] | None) -> list[str]:
    """The events that become tables, under the names that the trace has for them; raises UnknownEvent."""
    if events is None:
        return list(raw.counts())
    full = {form.full_name: name for name, form in raw.formats().items()}
    names = [full.get(name, name) for name in dict.fromkeys(events)]
    known = {*raw.formats(), *raw.counts()}
    for name in names:
        if name not in known:
            raise UnknownEvent.among("event", name, known, path=raw.metadata.path)
    return names


def _raw_tables(raw: RawTrace, names: Iterable[str]) -> Iterator[tuple[str, pa.Table]]:
    """Their tables; several are decoded in one pass, but not more than fit into memory well."""
    counts, group, rows = raw.counts(), list[str](), 0
    for name in names:
        if group and rows + counts.get(name, 0) > _AT_A_TIME:
            yield from raw.tables(group).items()
            group, rows = [], 0
        group.append(name)
        rows += counts.get(name, 0)
    yield from raw.tables(group).items()


def _field_comments(table: pa.Table, form: EventFormat | None) -> dict[str, str]:
    """What the columns of a raw event are: of those that all have the unit, of its own fields what the kernel declares."""
    own = {field.column: f"the event's field `{field.type} {field.name}`" for field in form.fields} if form else {}
    common = {name: unit for name, (_, unit) in HEADER_TYPES.items()}
    return {name: own.get(name) or common.get(name, "a field of the event") for name in table.column_names}


# --- the database ---------------------------------------------------------------------------------------------------------------------


class _Database:
    """Tables on their way into a database; names of a trace are quoted wherever they stand."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.rows: dict[str, int] = {}

    def add(
        self,
        name: str,
        comments: Mapping[str, str],
        parts: Sequence[pl.DataFrame | pa.Table],
        *,
        within: str = "main",
        row: tuple[str, str] | None = None,
    ) -> None:
        """Make a table.

        Args:
            name: of the table; one in the same schema that differs in case alone counts as the same.
            comments: its columns, and what they mean.
            parts: its rows; all have those columns.
            within: the schema.
            row: name and comment of one more column, the first, which numbers the rows.
        """
        own = _free(name, [each.partition(".")[2] for each in self.rows if each.partition(".")[0] == within])
        table, names = _identifier(within, own), _columns(list(comments), row)
        for number, part in enumerate(parts):
            arrow = part if isinstance(part, pa.Table) else part.to_arrow()
            arrow = arrow.select(list(comments)).rename_columns(names)
            if row:
                arrow = arrow.add_column(0, row[0], pa.array(np.arange(arrow.num_rows)))
            self.connection.register("incoming", arrow)
            into = f"INSERT INTO {table}" if number else f"CREATE TABLE {table} AS"
            self.connection.execute(f"{into} SELECT * FROM incoming")  # noqa: S608 - the name is quoted
            self.connection.unregister("incoming")
        for column, said in ((row,) if row else ()) + tuple(zip(names, comments.values(), strict=True)):
            self.comment(table, column, said)
        self.rows[f"{within}.{own}"] = sum(part.num_rows if isinstance(part, pa.Table) else part.height for part in parts)

    def add_row(self, name: str, columns: Mapping[str, tuple[str, str]], values: Mapping[str, Any]) -> None:
        """Make a table of one row; `columns` says type and meaning of each."""
        table = _identifier("main", name)
        types = ", ".join(f"{_identifier(column)} {kind}" for column, (kind, _) in columns.items())
        self.connection.execute(f"CREATE TABLE {table} ({types})")
        told = [values[column] for column in columns]
        self.connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(told))})", told)  # noqa: S608 - as above
        for column, (_, said) in columns.items():
            self.comment(table, column, said)
        self.rows[f"main.{name}"] = 1

    def comment(self, table: str, column: str, said: str) -> None:
        """Say what a column means."""
        self.connection.execute(f"COMMENT ON COLUMN {table}.{_identifier(column)} IS {_literal(said)}")


def _columns(names: Sequence[str], row: tuple[str, str] | None) -> list[str]:
    """Names of columns that DuckDB can tell apart: it takes those that differ in case alone for the same."""
    taken = [row[0]] if row else []
    for name in names:
        taken.append(_free(name, taken))
    return taken[1:] if row else taken


def _free(name: str, taken: Iterable[str]) -> str:
    """A name that no other has, whatever its case."""
    others = {each.casefold() for each in taken}
    while name.casefold() in others:
        name += "_"
    return name


def _identifier(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
