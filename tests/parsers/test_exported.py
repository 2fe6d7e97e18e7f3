"""What is exported reads back equal, other programs read it too, and what is no export is refused."""

from __future__ import annotations

import copy
import io
import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import fixture_path
from parsers.writer import PING_FORMAT, Instance, Trace, common, data, format_text, ping, pings, subbuffer
from tracetool.export import batches, export, prepare, write
from tracetool_parsers import ParseError, RawTrace, UnknownEvent, open_trace
from tracetool_parsers.exportschema import FORMATS_KEY, KEY, type_named
from tracetool_parsers.metadata import ProcessMaps

Target = Literal["parquet", "arrow"]

MAIL = fixture_path("mail-6.1.dat")
TARGETS: tuple[Target, ...] = ("parquet", "arrow")
each_target = pytest.mark.parametrize("to", TARGETS)

FTRACE = """# tracer: nop
#
# entries-in-buffer/entries-written: 3/5   #P:2
#
           <...>-12      [001] d..2.     1.500000: sched_waking: comm=a b pid=7
           <...>-12      [000] d..2.     1.500001: tick: x=0xffffffffffffffff y=-3 z=word
          <idle>-0       [001] d..2.     1.500003: sched_waking: comm=c pid=8
"""


def plain(table: pa.Table) -> pa.Table:
    """The table with the values of its dictionaries."""
    columns = [column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column for column in table.columns]
    return pa.table(columns, names=table.column_names).combine_chunks()


def all_fields(trace: RawTrace) -> dict[str, pa.Table]:
    """All tables with all fields, also those of events that never occur."""
    formats = trace.formats()
    wanted: dict[str, Any] = {name: [field.column for field in (*form.common, *form.fields)] for name, form in formats.items()}
    return trace.tables({**dict.fromkeys(trace.counts()), **wanted})


def assert_equal(back: RawTrace, trace: RawTrace) -> None:
    assert back.counts() == trace.counts()
    assert list(back.formats().items()) == list(trace.formats().items())
    assert back.span() == trace.span()
    assert back.losses.equals(trace.losses)
    tables = all_fields(back)
    for name, table in all_fields(trace).items():
        again = tables[name]
        assert again.schema == table.schema, name
        assert plain(again).equals(plain(table)), name
    assert plain(back.timeline()).equals(plain(trace.timeline()))
    before, after = trace.metadata, back.metadata
    for name in ("kernel", "uname", "clock", "cpus", "codec", "page_size", "writer", "buffers", "cmdlines", "hypervisor", "notes", "maps"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.details == {"exported from": before.format, **before.details}


def exported(source: Path, folder: Path, to: Target, events: list[str] | None = None) -> tuple[RawTrace, Path]:
    out = folder / f"out.{to}"
    trace = open_trace(source)
    rows = export(trace, out, to, events)
    assert events is not None or rows == sum(trace.counts().values())
    return trace, out


@each_target
@pytest.mark.parametrize("name", ["mail-5.10.dat", "mail-7.2.dat", "zap-6.1.dat"])
def test_a_recording_reads_back_equal(name: str, to: Target, tmp_path: Path) -> None:
    trace, out = exported(fixture_path(name), tmp_path, to)
    assert_equal(open_trace(out), trace)


@each_target
def test_lists_of_maps_read_back_equal(to: Target, tmp_path: Path) -> None:
    made = pings(subbuffer(10, data(ping(1))))
    made.options = [(10, b"1f 2 /bin/a\n400000 40c000 /bin/a\n7f0000001000 7f0000002000 /lib/l.so\n\0")]
    source = tmp_path / "maps.dat"
    source.write_bytes(made.write("v7"))
    trace, out = exported(source, tmp_path, to)
    maps = ((0x400000, 0x40C000, "/bin/a"), (0x7F0000001000, 0x7F0000002000, "/lib/l.so"))
    assert trace.metadata.maps == (ProcessMaps(0x1F, "/bin/a", maps),)
    assert_equal(open_trace(out), trace)


@each_target
def test_a_text_reads_back_equal(to: Target, tmp_path: Path) -> None:
    source = tmp_path / "trace.txt"
    source.write_text(FTRACE)
    trace, out = exported(source, tmp_path, to)
    back = open_trace(out)
    assert_equal(back, trace)
    assert back.table("tick")["x"].to_pylist() == [(1 << 64) - 1]
    assert sum(row["events"] for row in back.losses.to_pylist()) == 2


@each_target
@pytest.mark.parametrize("name", ["mail-6.1.perf.data", "snapshot-pipe-6.1.perf.data", "snapshot-sw-6.1.perf.data"])
def test_perf_data_read_back_equal(name: str, to: Target, tmp_path: Path) -> None:
    trace, out = exported(fixture_path(name), tmp_path, to)
    assert_equal(open_trace(out), trace)


@each_target
@pytest.mark.parametrize("name", ["iouring.perf.data", "mail.perf.script.txt", "snapshot.report-raw.txt", "mail.trace.txt"])
def test_other_formats_read_back_equal(name: str, to: Target, traces: Path, tmp_path: Path) -> None:
    trace, out = exported(traces / "formats" / name, tmp_path, to)
    assert_equal(open_trace(out), trace)


def odd_trace(folder: Path) -> Path:
    """Two buffers, losses, events called like columns, two of one name, one without fields, one without a format, one that never is."""
    cpu0 = [
        subbuffer(10, data(ping(1, tid=7)), data(common(301, 7) + (5).to_bytes(8, "little"), delta=1)),
        subbuffer(20, data(common(302, 8) + (6).to_bytes(8, "little")), data(common(303, 9), delta=1), missed=3),
    ]
    formats = {
        "test": [
            PING_FORMAT,
            format_text("ts", 301, [("u64 value", 8, 8, 0)]),
            format_text("event", 302, [("u64 comm", 8, 8, 0)]),
            format_text("bare", 303, []),
            format_text("never", 304, [("u32 a[2]", 8, 8, 0), ("char text[4]", 16, 4, 0)]),
        ],
        "other": [format_text("ping", 305, [("u64 value", 8, 8, 0)])],
    }
    other = [subbuffer(15, data(common(305, 7) + (9).to_bytes(8, "little")), data(common(306, 7) + bytes(8), delta=1))]
    path = folder / "odd.dat"
    path.write_bytes(Trace([Instance({0: cpu0}), Instance({1: other}, name="second")], formats, cmdlines="7 some task\n").write("v7"))
    return path


@each_target
def test_names_that_collide_and_events_without_fields_read_back_equal(to: Target, tmp_path: Path) -> None:
    trace, out = exported(odd_trace(tmp_path), tmp_path, to)
    back = open_trace(out)
    assert_equal(back, trace)
    assert back.counts() == {"bare": 1, "event": 1, "other:ping": 1, "test:ping": 1, "ts": 1, "unknown:306": 1}
    assert back.table("event")["comm_field"].to_pylist() == [6]
    assert back.table("other:ping")["buffer"].to_pylist() == ["second"]
    assert back.table("never").schema.field("a").type == pa.list_(pa.uint32())
    assert [row["events"] for row in back.losses.to_pylist()] == [3]


def test_the_file_is_one_wide_table_in_the_order_of_the_trace(tmp_path: Path) -> None:
    _, out = exported(odd_trace(tmp_path), tmp_path, "parquet")
    frame = pl.read_parquet(out)
    assert frame.columns[:6] == ["ts", "cpu", "tid", "comm", "buffer", "event"]
    assert frame["ts"].to_list() == [10, 11, 15, 16, 20, 21]
    assert frame["event"].cast(pl.String).to_list() == ["test:ping", "ts", "other:ping", "unknown:306", "event", "bare"]
    assert frame.columns[6:] == ["test:ping", "test:ts", "test:event", "bare", "other:ping"]
    assert frame["test:ping"].struct.field("value").to_list() == [1, None, None, None, None, None]
    about = json.loads(pq.read_schema(out).metadata[KEY])
    assert (about["schema_version"], about["events"], about["span"]) == (1, 6, [10, 21])
    assert about["units"]["ts"] == "ns of the trace clock"
    assert about["counts"]["test:ping"] == 1


def test_duckdb_reads_it(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    _, out = exported(MAIL, tmp_path, "parquet")
    found = duckdb.sql(f"select count(*), max(cow_fault.address) from '{out}' where event = 'cow_fault'").fetchall()
    addresses = open_trace(MAIL).table("cow_fault")["address"].to_pylist()
    assert found == [(len(addresses), max(addresses))]


@each_target
def test_many_batches(to: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracetool.export._BATCH_BYTES", 0)
    monkeypatch.setattr("tracetool.export._LEAST_ROWS", 100)
    trace, out = exported(MAIL, tmp_path, to)
    if to == "parquet":
        groups = pq.ParquetFile(out).metadata
        assert [groups.row_group(i).num_rows for i in range(2)] == [100, 100]
    assert_equal(open_trace(out), trace)


@each_target
def test_positions_put_all_rows_in_order(to: Target, tmp_path: Path) -> None:
    _, out = exported(odd_trace(tmp_path), tmp_path, to)
    tables = open_trace(out).tables(positions=True)
    rows = sorted((row["position"], row["ts"]) for table in tables.values() for row in table.to_pylist())
    assert [ts for _, ts in rows] == [10, 11, 15, 16, 20, 21]
    assert len({position for position, _ in rows}) == 6


@each_target
def test_only_some_events(to: Target, tmp_path: Path) -> None:
    trace, out = exported(odd_trace(tmp_path), tmp_path, to, ["other:ping", "event"])
    back = open_trace(out)
    assert back.counts() == {"event": 1, "ping": 1}
    assert back.span() == (15, 20)
    assert sorted(back.formats()) == ["event", "ping"]
    assert back.table("ping")["value"].to_pylist() == [9]
    assert back.timeline()["ts"].to_pylist() == [15, 20]
    assert back.losses.equals(trace.losses)
    assert any("only the events other:ping, event" in note for note in back.metadata.notes)


def test_an_event_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownEvent, match="no event 'pong'"):
        export(open_trace(odd_trace(tmp_path)), tmp_path / "out", "arrow", ["pong"])
    assert not (tmp_path / "out").exists()


@each_target
def test_a_trace_without_events(to: Target, tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(pings().write("v7"))
    trace, out = exported(path, tmp_path, to)
    assert_equal(open_trace(out), trace)
    assert open_trace(out).span() is None


def test_a_trace_may_be_overwritten_by_its_own_export(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(MAIL.read_bytes())
    export(open_trace(path), path, "parquet")
    assert open_trace(path).counts() == open_trace(MAIL).counts()
    assert [each.name for each in tmp_path.iterdir()] == ["trace"]


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tracetool.export.write", full)
    with pytest.raises(OSError, match="No space"):
        export(open_trace(MAIL), tmp_path / "out", "parquet")
    assert list(tmp_path.iterdir()) == []


# --- foreign and damaged files ---------------------------------------------------------------------------------------------------------


def arrow_stream(source: Path) -> bytes:
    """An export as an Arrow stream, in two batches."""
    exporting = prepare(open_trace(source))
    out = io.BytesIO()
    write(exporting, out, "arrow")
    table = pa.ipc.open_file(pa.py_buffer(out.getvalue())).read_all().unify_dictionaries()
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=(table.num_rows + 1) // 2):
            writer.write_batch(batch)
    return stream.getvalue()


def test_an_arrow_stream_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.write_bytes(arrow_stream(MAIL))
    assert_equal(open_trace(path), open_trace(MAIL))
    assert open_trace(path).metadata.format == "Arrow stream"


def cut_arrow_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Arrow file of mail in batches of 100 rows, cut inside the fourth."""
    monkeypatch.setattr("tracetool.export._BATCH_BYTES", 0)
    monkeypatch.setattr("tracetool.export._LEAST_ROWS", 100)
    exporting = prepare(open_trace(MAIL))
    out = io.BytesIO()
    with pa.ipc.new_file(out, exporting.schema) as writer:
        for batch in itertools.islice(batches(exporting), 3):
            writer.write_batch(batch)
        end = out.tell()
        for batch in itertools.islice(batches(exporting), 3, None):
            writer.write_batch(batch)
    path = folder / "cut.arrow"
    path.write_bytes(out.getvalue()[: end + 64])
    return path


def test_a_truncated_arrow_file_is_read_as_far_as_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = cut_arrow_file(tmp_path, monkeypatch)
    back, trace = open_trace(out), open_trace(MAIL)
    read = sum(back.counts().values())
    assert read == 300
    assert back.timeline()["ts"].to_pylist() == trace.timeline()["ts"].to_pylist()[:read]
    last = trace.timeline()["ts"].to_pylist()[read - 1]
    assert back.losses.to_pylist() == [
        {"cpu": -1, "from_ns": last, "to_ns": None, "events": 1258 - read, "source": "truncated file", "offset": None}
    ]
    with pytest.raises(ParseError, match="truncated file: "):
        open_trace(out, strict=True)


def test_columns_of_fewer_rows_than_the_parquet_file_states_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where damage leaves the fields of a struct short, Arrow gives as many rows as the shortest has, and says nothing."""
    _, path = exported(odd_trace(tmp_path), tmp_path, "parquet")
    whole = pq.ParquetFile.iter_batches

    def short(file: pq.ParquetFile, **given: Any) -> Iterator[pa.RecordBatch]:
        return (batch.slice(1) for batch in whole(file, **given))

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", short)
    with pytest.raises(ParseError, match="its columns hold"):
        open_trace(path).tables()


@pytest.mark.parametrize("size", [4, 8, 12, 100, 1000, 100_000, -1, -4, -8, -200])
def test_a_truncated_parquet_file_is_refused(size: int, tmp_path: Path) -> None:
    _, out = exported(MAIL, tmp_path, "parquet")
    out.write_bytes(out.read_bytes()[:size])
    with pytest.raises(ParseError) as caught:
        open_trace(out)
    assert caught.value.path == str(out)
    assert caught.value.offset is not None


@each_target
def test_what_other_programs_wrote_is_told(to: Target, tmp_path: Path) -> None:
    path = tmp_path / "other"
    frame = pl.DataFrame({"ts": [1, 2], "cpu": [0, 0]})
    frame.write_parquet(path) if to == "parquet" else frame.write_ipc(path)
    with pytest.raises(ParseError, match="holds no exported trace") as caught:
        open_trace(path)
    assert "tracetool export" in str(caught.value.hint)


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    """Damage in the columns of one event is not seen by a question about another."""
    _, out = exported(MAIL, tmp_path, "parquet")
    metadata = pq.ParquetFile(out).metadata
    content = bytearray(out.read_bytes())
    for i in range(metadata.num_columns):
        column = metadata.row_group(0).column(i)
        if column.path_in_schema == "mm_fault.address":
            start = column.dictionary_page_offset or column.data_page_offset
            content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    out.write_bytes(content)
    back, trace = open_trace(out), open_trace(MAIL)
    assert back.counts() == trace.counts()
    assert plain(back.table("cow_fault")).equals(plain(trace.table("cow_fault")))
    assert plain(back.table("mm_fault", ["mm"])).equals(plain(trace.table("mm_fault", ["mm"])))
    with pytest.raises(ParseError, match="cannot be read"):
        back.table("mm_fault")


def rewritten(content: bytes, metadata: Mapping[bytes, bytes]) -> bytes:
    """An Arrow stream with other schema metadata."""
    table = pa.ipc.open_stream(content).read_all().replace_schema_metadata(dict(metadata))
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def ask_everything(path: Path) -> None:
    """Ask all that can be asked of a trace; only a ParseError, which is answered, may come of it."""
    place = (str(path), False)
    try:
        trace = open_trace(path)
        trace.counts()
        tables = all_fields(trace)
        trace.timeline()
        trace.losses.to_pylist()
        for table in tables.values():
            table.validate(full=True)
    except ParseError as error:
        place = (str(error.path), error.offset is None)
    assert place == (str(path), False)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small export of each kind."""
    folder = tmp_path_factory.mktemp("small")
    source = odd_trace(folder)
    made: dict[str, bytes] = {to: exported(source, folder, to)[1].read_bytes() for to in TARGETS}
    return made | {"stream": arrow_stream(source)}


@pytest.mark.parametrize("kind", [*TARGETS, "stream"])
@given(st.data())
@settings(max_examples=150)
def test_no_mutation_gives_anything_but_tables_or_an_error(kind: str, small: Mapping[str, bytes], data: st.DataObject) -> None:
    content = bytearray(small[kind])
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + 1] = data.draw(st.binary(min_size=1, max_size=4))
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    with tempfile.NamedTemporaryFile() as file:
        file.write(content[:end])
        file.flush()
        ask_everything(Path(file.name))


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.text(max_size=6),
    st.sampled_from(["ts", "ping", "uint64", "list<item: uint64>", "here", [], {}, [[]], 0.5]),
)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The keys that lead to each value inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, each in inside for found in [(*path, key), *places_in(each, (*path, key))]]


@given(st.data())
@settings(max_examples=150)
def test_no_metadata_give_anything_but_tables_or_an_error(small: Mapping[str, bytes], data: st.DataObject) -> None:
    metadata = dict(pa.ipc.open_stream(small["stream"]).schema.metadata)
    key = data.draw(st.sampled_from([KEY, FORMATS_KEY]))
    said = json.loads(metadata[key])
    for _ in range(data.draw(st.integers(1, 3))):
        places = places_in(said)
        *above, last = data.draw(st.sampled_from(places))
        inside = said
        for step in above:
            inside = inside[step]
        if data.draw(st.booleans()):
            # A copy: what is put in may be changed in a later round.
            inside[last] = copy.deepcopy(data.draw(LEAVES))
        else:
            del inside[last]
    with tempfile.NamedTemporaryFile() as file:
        file.write(rewritten(small["stream"], {**metadata, key: json.dumps(said).encode()}))
        file.flush()
        ask_everything(Path(file.name))


@pytest.mark.parametrize("nested", [b"[" * 100_000, b"9" * 10_000, b"{", b"\xff", b""])
def test_metadata_that_are_no_json(nested: bytes, small: Mapping[str, bytes], tmp_path: Path) -> None:
    metadata = dict(pa.ipc.open_stream(small["stream"]).schema.metadata)
    path = tmp_path / "file"
    path.write_bytes(rewritten(small["stream"], {**metadata, KEY: nested}))
    with pytest.raises(ParseError, match="as no export does"):
        open_trace(path)


def test_rows_of_an_event_that_is_not_described(small: Mapping[str, bytes], tmp_path: Path) -> None:
    metadata = dict(pa.ipc.open_stream(small["stream"]).schema.metadata)
    formats = [event for event in json.loads(metadata[FORMATS_KEY]) if event["event"] != "bare"]
    path = tmp_path / "file"
    path.write_bytes(rewritten(small["stream"], {**metadata, FORMATS_KEY: json.dumps(formats).encode()}))
    with pytest.raises(ParseError, match="'bare'"):
        open_trace(path).counts()


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.uint64(), pa.float64(), pa.bool_(), pa.string(), pa.list_(pa.uint16()), pa.dictionary(pa.int32(), pa.string())],
)
def test_types_are_found_by_their_names(kind: pa.DataType) -> None:
    assert type_named(str(kind)) == kind


def test_no_other_type_is_found() -> None:
    for name in ("struct<a: int8>", "list<item: list<item: int8>>", "int9", ""):
        with pytest.raises(ValueError, match="no column has the type"):
            type_named(name)
