"""What is written as a DuckDB database, read back in SQL, is what the trace and its replays say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings

import tracetool
from conftest import PROJECT, fixture_path
from engine.wild import wild_events, wild_recording
from handmade import trace_of
from parsers.test_exported import FTRACE, odd_trace
from tracetool import schema
from tracetool.errors import UnknownEvent
from tracetool.export.duckdb import export_duckdb
from tracetool.export.tables import meaning
from tracetool.policies import chosen
from tracetool.trace import Trace

duckdb = pytest.importorskip("duckdb")

MAIL = fixture_path("mail-6.1.dat")
POLICIES = ("observed", "page-count", "mapcount")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The mail with its replays under two policies."""
    path = tmp_path_factory.mktemp("duckdb") / "mail.duckdb"
    export_duckdb(tracetool.open(MAIL), path, chosen(list(POLICIES[1:])))
    with duckdb.connect(str(path), read_only=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def trace() -> Trace:
    return tracetool.open(MAIL)


def rows(database: Any, query: str) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = database.execute(query).fetchall()
    return found


def plain(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in frame.to_dicts()]


def test_memory_events_have_the_numbers_that_others_name_them_by(database: Any, trace: Trace) -> None:
    wanted = trace.memory_events().collect().with_row_index("event")
    assert rows(database, "select * from memory_events order by event") == plain(wanted)
    found = rows(database, "select f.ts, m.ts, m.op from faults f join memory_events m using (event) where f.policy = 'observed'")
    assert len(found) == 19
    assert all(one == other and op == "cow_begin" for one, other, op in found)


def test_tables_of_replays_hold_all_replays(database: Any, trace: Trace) -> None:
    for name in ("ownership", "references", "faults"):
        for policy in POLICIES:
            wanted = getattr(trace.replay(policy), name).collect()
            columns = ", ".join(f'"{column}"' for column in wanted.columns)
            found = rows(database, f"select {columns} from main.{name} where policy = '{policy}'")
            assert sorted(found, key=repr) == sorted(plain(wanted), key=repr)
        assert rows(database, f"select list(distinct policy order by policy) from main.{name}") == [(sorted(POLICIES),)]


def test_tables_of_the_analysis(database: Any, trace: Trace) -> None:
    analysis = tracetool.analyse(trace, chosen(list(POLICIES[1:])))
    assert rows(database, "select * from costs") == plain(analysis.costs)
    assert sorted(rows(database, "select * from findings"), key=repr) == sorted(plain(analysis.findings), key=repr)
    wanted = [(each.policy, each.rule, each.verdict, list(each.missing)) for each in analysis.verdicts]
    assert rows(database, "select * from verdicts") == wanted
    assert rows(database, "select * from processes order by from_ns nulls first, tid") == plain(
        trace.processes.sort("from_ns", "tid", nulls_last=False)
    )


def test_evidence_leads_to_the_raw_records(database: Any) -> None:
    """From the finding of the mail to the record of the fault by which B (116) writes to the page that A's reference reads."""
    query = """
        select c.tid, c.address, f.address from findings f, unnest(f.evidence) as told(event)
        join memory_events m on m.event = told.event
        join events.cow_fault c on m.source = 'cow_fault' and m.source_row = c.source_row
        where f.rule = 'missed-cow' and f.policy = 'mapcount'
    """
    # As `trace-cmd report -R` prints it: cowlab-116 ... cow_fault: ... address=0x7f8efcaf0000.
    assert rows(database, query) == [(116, 0x7F8EFCAF0000, 0x7F8EFCAF0000)]


def test_raw_events_are_one_table_each(database: Any, trace: Trace) -> None:
    listed = rows(database, "select table_name from information_schema.tables where table_schema = 'events'")
    assert {name for (name,) in listed} == set(trace.raw.counts())
    for name, count in trace.raw.counts().items():
        table = trace.raw.table(name)
        found = rows(database, f'select * from events."{name}" order by source_row')
        assert len(found) == count
        wanted = [tuple(row.values()) for row in table.to_pylist()]
        assert found == [(number, *row) for number, row in enumerate(wanted)]


def test_every_column_says_what_it_is(database: Any) -> None:
    listed = rows(database, "select schema_name, table_name, column_name, comment from duckdb_columns() where not internal")
    assert [row for row in listed if not row[3]] == []
    comments = {(table, column): comment for place, table, column, comment in listed if place == "main"}
    for table in ("memory_events", "processes", "ownership", "references", "faults", "findings", "costs", "losses"):
        for column, said in schema.TABLES[table].items():
            assert comments[table, column] == meaning(said)
            assert said.meaning in comments[table, column]
            assert not said.unit or comments[table, column].count(f"[{said.unit}]") == 1
    events = {(table, column): comment for place, table, column, comment in listed if place == "events"}
    assert events["cow_fault", "address"] == "the event's field `u64 address`"
    assert events["cow_fault", "ts"] == "ns of the trace clock"


def test_metadata_say_what_was_traced(database: Any, trace: Trace) -> None:
    names = "trace, format, kernel, clock, cpus, events, lost_events, from_ns, to_ns, schema_version, tracetool, policies"
    first, last = trace.raw.span() or (0, 0)
    assert rows(database, f"select {names} from metadata") == [
        (str(MAIL), "trace.dat v7", "6.1.0-53-amd64", "global", 2, 1258, 0, first, last, 1, tracetool.__version__, list(POLICIES))
    ]


def test_types_are_those_of_the_schema(database: Any) -> None:
    """Integers keep their width and sign: addresses and flags of 64 bits are no negative numbers."""
    described = rows(
        database, "select column_name, data_type from duckdb_columns() where schema_name = 'main' and table_name = 'ownership'"
    )
    kinds = {"Int32": "INTEGER", "Int64": "BIGINT", "UInt64": "UBIGINT", "String": "VARCHAR", "Enum": "VARCHAR"}
    assert dict(described) == {"policy": "VARCHAR", **{name: kinds[column.type] for name, column in schema.OWNERSHIP.items()}}
    assert rows(database, "select max(pte) > 9223372036854775807 from events.cow_fault") == [(True,)]


def test_what_the_page_shows_runs(database: Any) -> None:
    """docs/export.md, on the mail: the two policies part in one fault, that of B (116)."""
    (block,) = re.findall(r"^```sql\n(.*?)^```$", (PROJECT / "docs" / "export.md").read_text(), re.MULTILINE | re.DOTALL)
    found = [rows(database, query) for query in block.split(";") if query.strip()]
    assert len(found) == 6
    assert all(found)
    (parted,) = found[3]
    assert parted[1:] == (116, 0x7F8EFCAF0000, "reuse", "sole-owner", "copy", "reference")


def test_only_some_events(tmp_path: Path, trace: Trace) -> None:
    path = tmp_path / "some.duckdb"
    names = export_duckdb(trace, path, events=["cow_fault", "gup"])
    assert [name for name in names if name.startswith("events.")] == ["events.cow_fault", "events.gup"]
    with pytest.raises(UnknownEvent, match="no event 'cow_falt'"):
        export_duckdb(trace, tmp_path / "none.duckdb", events=["cow_falt"])
    assert [each.name for each in tmp_path.iterdir()] == ["some.duckdb"]


def test_names_that_collide(tmp_path: Path) -> None:
    """Events and fields called like others but for their case, like columns of ours, with a colon, with a quote."""
    path = tmp_path / "odd.duckdb"
    trace = tracetool.open(odd_trace(tmp_path))
    names = export_duckdb(trace, path)
    events = {name.removeprefix("events."): count for name, count in names.items() if name.startswith("events.")}
    assert events == trace.raw.counts()
    with duckdb.connect(str(path), read_only=True) as database:
        assert rows(database, 'select value from events."other:ping"') == [(9,)]
        assert rows(database, "select comm_field from events.event") == [(6,)]


def test_names_that_differ_in_case_alone_and_names_with_quotes(tmp_path: Path) -> None:
    text = FTRACE.replace("tick: x=", "Sched_Waking: X=1 source_row=5 x=")
    source = tmp_path / "trace.txt"
    source.write_text(text)
    trace = tracetool.open(source)
    path = tmp_path / "out.duckdb"
    names = export_duckdb(trace, path)
    assert {"events.sched_waking", "events.Sched_Waking_"} <= set(names) or {"events.Sched_Waking", "events.sched_waking_"} <= set(names)
    other = next(name for name in names if name.casefold().startswith("events.sched_waking") and names[name] == 1)
    with duckdb.connect(str(path), read_only=True) as database:
        (found,) = rows(database, f'select * from events."{other.partition(".")[2]}"')
    columns = trace.raw.table("Sched_Waking").to_pylist()[0]
    assert found == (0, *columns.values())


def test_strings_of_a_trace_are_text(tmp_path: Path) -> None:
    """A name that would end a string of SQL is a name."""
    table = pa.table({"ts": [1], "it's": ["'; drop table metadata; --"], 'a"b': [2]})
    from tracetool.export.duckdb import _Database

    with duckdb.connect(str(tmp_path / "x.duckdb")) as connection:
        made = _Database(connection)
        made.add("o'clock\"", {name: f"'{name}'" for name in table.column_names}, [table, table])
        assert rows(connection, 'select * from "o\'clock"""') == [(1, "'; drop table metadata; --", 2)] * 2
        assert rows(connection, "select comment from duckdb_columns() where column_name = 'it''s'") == [("'it's'",)]


def test_a_file_is_there_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trace: Trace) -> None:
    def full(*_: Any) -> None:
        raise duckdb.IOException("Could not write file: No space left on device")

    monkeypatch.setattr("tracetool.export.duckdb._write", full)
    with pytest.raises(OSError, match="No space"):
        export_duckdb(trace, tmp_path / "out.duckdb")
    assert list(tmp_path.iterdir()) == []


def test_large_blocks_hold_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trace: Trace) -> None:
    small, large = tmp_path / "small.duckdb", tmp_path / "large.duckdb"
    monkeypatch.setattr("tracetool.export.duckdb._AT_A_TIME", 100)
    names = export_duckdb(trace, small)
    monkeypatch.setattr("tracetool.export.duckdb._SMALL", 0)
    assert export_duckdb(trace, large) == names
    assert small.stat().st_size < large.stat().st_size / 4
    with duckdb.connect(str(small), read_only=True) as one, duckdb.connect(str(large), read_only=True) as other:
        for name in names:
            query = f'select * from {name.partition(".")[0]}."{name.partition(".")[2]}"'
            assert rows(one, query) == rows(other, query)


@settings(max_examples=15)
@given(wild_events)
def test_absurd_values_are_written_as_well(tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, int, list[int]]]) -> None:
    recording = wild_recording(drawn)
    if not recording.source().counts():
        return
    trace = trace_of(recording, {0: "a\x00b", 1: "'; --", 2: "ü"})
    path = tmp_path_factory.mktemp("wild") / "out.duckdb"
    export_duckdb(trace, path)
    with duckdb.connect(str(path), read_only=True) as database:
        wanted = trace.memory_events().collect().with_row_index("event")
        assert rows(database, "select * from memory_events order by event") == plain(wanted)
