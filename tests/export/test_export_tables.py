"""`tracetool replay --out`: Parquet files that are sorted by time and say what their columns are, in which unit, by which clock."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tracetool
from cli.command import run
from conftest import fixture_path
from tracetool import schema
from tracetool.export.tables import KEY, SORTED_BY, write_folder
from tracetool.policies import chosen
from tracetool.report.saved import FOLDER, load
from tracetool.trace import Trace
from tracetool_parsers import ParseError

#: A recording whose stays and findings come in another order than their times.
RANDOM = fixture_path("random2-6.1.dat")
POLICIES = ("observed", "page-count", "mapcount")


@pytest.fixture(scope="module")
def trace() -> Trace:
    return tracetool.open(RANDOM)


@pytest.fixture(scope="module")
def folder(trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of the trace."""
    folder = tmp_path_factory.mktemp("tables")
    write_folder(trace, tracetool.analyse(trace, chosen(list(POLICIES[1:]))), folder)
    return folder


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*.parquet"))


def test_there_is_a_file_for_every_table_and_a_folder_for_every_replay(folder: Path) -> None:
    once = {"memory_events", "processes", "losses", "findings", "costs"}
    of_replays = {Path(policy, name) for policy in POLICIES for name in ("ownership", "references", "faults")}
    assert {path.with_suffix("") for path in files(folder)} == {Path(name) for name in once} | of_replays


def words(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows with names as strings, in an order of their own."""
    return sorted((dict(row) for row in frame.to_dicts()), key=repr)


def test_they_hold_what_the_replays_say(folder: Path, trace: Trace) -> None:
    for policy in POLICIES:
        for name in ("ownership", "references", "faults"):
            frame = pl.read_parquet(folder / policy / f"{name}.parquet")
            wanted = getattr(trace.replay(policy), name).collect()
            assert words(frame) == words(wanted)
            assert frame.columns == wanted.columns
    assert words(pl.read_parquet(folder / "processes.parquet")) == words(trace.processes)
    # Rows of the memory events are named by their numbers: their order is kept.
    assert pl.read_parquet(folder / "memory_events.parquet").to_dicts() == trace.memory_events().collect().to_dicts()


def test_times_are_sorted_and_the_file_says_so(folder: Path) -> None:
    checked = []
    for path in files(folder):
        by = SORTED_BY.get(path.stem)
        if by is None:
            continue
        column = pl.read_parquet(folder / path)[by]
        assert column.is_sorted(nulls_last=False), path
        assert json.loads(pq.read_schema(folder / path).metadata[KEY])["sorted_by"] == by
        (order,) = pq.ParquetFile(folder / path).metadata.row_group(0).sorting_columns
        assert (pq.read_schema(folder / path).names[order.column_index], order.descending, order.nulls_first) == (by, False, True)
        checked.append(column.len() > 100 and path.stem)
    assert {"memory_events", "ownership", "faults"} <= set(checked)


def test_every_column_says_what_it_is(folder: Path) -> None:
    for path in files(folder):
        table = schema.TABLES[path.stem]
        stored = pq.read_schema(folder / path)
        assert stored.names == list(table)
        for name, column in table.items():
            said = stored.field(name).metadata
            assert said[b"meaning"].decode() == column.meaning
            assert said.get(b"unit", b"").decode() == column.unit


def test_the_file_says_what_was_traced(folder: Path, trace: Trace) -> None:
    for path in files(folder):
        said = json.loads(pq.read_schema(folder / path).metadata[KEY])
        first, last = trace.raw.span() or (0, 0)
        assert said["table"] == path.stem
        assert said["replay"] == (path.parent.name or None)
        assert (said["schema_version"], said["clock"], said["kernel"]) == (1, "global", trace.raw.metadata.kernel)
        assert (said["trace"], said["format"], said["from_ns"], said["to_ns"]) == (str(RANDOM), "trace.dat v7", first, last)
        assert said["units"] == {name: column.unit for name, column in schema.TABLES[path.stem].items() if column.unit}


def test_types_are_those_of_the_schema(folder: Path) -> None:
    plain = {
        "Int64": pa.int64(),
        "Int32": pa.int32(),
        "UInt64": pa.uint64(),
        "Boolean": pa.bool_(),
        "List(Int64)": pa.large_list(pa.int64()),
    }
    for path in files(folder):
        stored = pq.read_schema(folder / path)
        for name, column in schema.TABLES[path.stem].items():
            kind = stored.field(name).type
            if column.type in ("String", "Enum", "Categorical"):
                kind = kind.value_type if pa.types.is_dictionary(kind) else kind
                assert kind in (pa.string(), pa.large_string()), (path, name)
            else:
                assert kind == plain[column.type], (path, name)


def test_they_are_no_traces(folder: Path) -> None:
    with pytest.raises(ParseError, match="holds no exported trace"):
        tracetool.open(folder / "memory_events.parquet")


def test_the_command_writes_them(tmp_path: Path, capfd: pytest.CaptureFixture[str], folder: Path) -> None:
    out = tmp_path / "tables"
    assert run(capfd, "replay", RANDOM, "--policy", "page-count", "--policy", "mapcount", "--out", out).code == 0
    assert load(out).analysis.policies  # beside the tables: what `tracetool report` reads
    shutil.rmtree(out / FOLDER)
    assert files(out) == files(folder)
    for path in files(out):
        # The order of rows that began at one time is theirs.
        assert words(pl.read_parquet(out / path)) == words(pl.read_parquet(folder / path))
