"""However a trace is cut into parts, stretches and lots of rows, its tables are the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from conftest import fixture_traces
from parsers.writer import Instance, Trace, common, data, format_text, long_data, subbuffer, time_stamp
from tracetool_parsers import RawTrace, reading, room, streams, survey, tracedat_source
from tracetool_parsers.tracedat_source import TraceDat

PAGE = 512
NUMBERS = format_text("numbers", 300, [("u64 value", 8, 8, 0), ("u8 small", 17, 1, 0), ("u16 odd", 19, 2, 0), ("s32 signed", 22, 4, 1)])
TEXTS = format_text("texts", 301, [("u32 value", 8, 4, 0), ("char name[8]", 12, 8, 0), ("char rest[]", 20, 0, 0)])


def opened(path: Path, threads: int = 1) -> RawTrace:
    return RawTrace(TraceDat(memoryview(path.read_bytes()), str(path), threads=threads))


def everything(trace: RawTrace) -> dict[str, pa.Table]:
    """All that can be asked, as tables of one chunk a column: chunks are nobody's business."""
    tables = trace.tables(trace.event_names(), positions=True)
    alone = {f"{name} alone": trace.table(name) for name in trace.event_names()}
    found = {**tables, **alone, **{f"{name} of all": table for name, table in trace.tables().items()}}
    return {name: plain(table) for name, table in {**found, "timeline": trace.timeline(), "losses": trace.losses}.items()}


def plain(table: pa.Table) -> pa.Table:
    for at, name in enumerate(table.column_names):
        if pa.types.is_dictionary(table.schema.field(name).type):
            table = table.set_column(at, name, table.column(name).cast(pa.string()))
    return table.combine_chunks()


def pieces(monkeypatch: pytest.MonkeyPatch, *, part: int = 1, rows: int = 3) -> None:
    """Parts, stretches, samples and lots as small as they can be."""
    monkeypatch.setattr(reading, "_LEAST_PART", part)
    monkeypatch.setattr(reading, "_SEEN", 1)
    monkeypatch.setattr(room, "_AT_ONCE", 2)
    monkeypatch.setattr(reading, "_LATER_ROWS", rows)
    monkeypatch.setattr(reading, "_LEAST_ROWS", rows)
    monkeypatch.setattr(streams, "_PAGES_IN_BLOCK", 1)
    monkeypatch.setattr(streams, "_STRETCH", 1)
    monkeypatch.setattr(survey, "_PIECE", PAGE)
    monkeypatch.setattr(survey, "_AHEAD", 1)
    monkeypatch.setattr(tracedat_source, "_SMALL", 0)
    monkeypatch.setattr(tracedat_source, "_SAMPLE", PAGE)


def random_trace(seed: int, *, back: bool) -> Trace:
    """Records of two kinds, some too short for their fields, on three CPUs of two buffers; with `back` clocks go back now and then."""
    drawn = random.Random(seed)

    def record(value: int) -> bytes:
        if drawn.random() < 0.5:
            payload = common(300, value % 5) + value.to_bytes(8, "little") + bytes(drawn.randrange(256) for _ in range(10))
            return data(payload[: drawn.choice((26, 26, 26, 12, 20))])
        text = drawn.choice((b"", b"ab", b"a longer text\0", b"\xc3\xa9\xff"))
        return long_data(common(301, value % 5) + value.to_bytes(4, "little") + b"name".ljust(8, b"\0") + text)

    def cpu() -> list[bytes]:
        ts, pages = 1000, []
        for _ in range(drawn.randrange(1, 25)):
            records = []
            for _ in range(drawn.randrange(6)):
                ts += drawn.choice((0, 0, 1, 7, 300))
                ts -= drawn.randrange(50) if back and drawn.random() < 0.1 else 0
                records.append(time_stamp(ts) + record(drawn.randrange(1000)))
            missed = drawn.choice((None, None, None, -1, 4))
            pages.append(subbuffer(ts if not records else 0, *records, page=PAGE, missed=missed))
        return pages

    buffers = [Instance({0: cpu(), 1: cpu()}), Instance({1: cpu()}, name="other")]
    return Trace(buffers, {"test": [NUMBERS, TEXTS]}, cmdlines="1 one\n3 three\n", page=PAGE)


@pytest.mark.parametrize("version", ["v6", "v7-zstd"])
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_pieces_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, back: bool, seed: int) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(random_trace(seed, back=back).write(version))
    whole = everything(opened(path))
    pieces(monkeypatch)
    for threads in (1, 2, 5):
        cut = everything(opened(path, threads))
        assert cut.keys() == whole.keys()
        for name, table in whole.items():
            assert cut[name].equals(table), (name, threads)


@pytest.mark.parametrize("path", fixture_traces()[:2], ids=lambda path: path.stem)
def test_fixtures_on_several_threads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = everything(opened(path))
    monkeypatch.setattr(reading, "_LEAST_PART", 1)
    monkeypatch.setattr(tracedat_source, "_SMALL", 0)
    cut = everything(opened(path, 3))
    assert cut.keys() == whole.keys()
    for name, table in whole.items():
        assert cut[name].equals(table), name


def test_parts_were_cut_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.dat"
    pages = [subbuffer(100 * i, data(common(300, 1) + bytes(18)), page=PAGE) for i in range(40)]
    path.write_bytes(Trace([Instance({0: pages, 1: pages})], {"test": [NUMBERS]}, page=PAGE).write("v6"))
    pieces(monkeypatch)
    seen: list[int] = []

    def run(part: reading.Part[Any], rest: Callable[[Any], None] = reading.Part.run) -> None:
        rest(part)
        seen.append(part.records)

    monkeypatch.setattr(reading.Part, "run", run)
    assert opened(path, 4).table("numbers").num_rows == 80
    assert len(seen) == 4
    assert sum(seen) == 80
    assert min(seen) >= 15


def test_an_event_that_no_sample_has_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [data(common(300, 1) + value.to_bytes(8, "little") + bytes(10)) for value in range(4)]
    late = long_data(common(301, 1) + bytes(4) + b"rare\0\0\0\0" + b"text")
    pages = [*(subbuffer(100 * i, *numbers, page=PAGE) for i in range(20)), subbuffer(5000, late, page=PAGE)]
    path = tmp_path / "trace.dat"
    path.write_bytes(Trace([Instance({0: pages})], {"test": [NUMBERS, TEXTS]}, page=PAGE).write("v6"))
    pieces(monkeypatch)
    trace = opened(path)
    assert {name: table.num_rows for name, table in trace.tables().items()} == {"numbers": 80, "texts": 1}
    assert trace.tables()["texts"]["rest"].to_pylist() == ["text"]


def test_a_trace_whose_middle_is_unlike_its_start_is_read_in_one_lot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = [data(common(300, 1) + value.to_bytes(8, "little") + bytes(10)) for value in range(2)]
    busy = [data(common(300, 1) + value.to_bytes(8, "little") + bytes(10)) for value in range(9)]
    pages = [subbuffer(100 * i, *(busy if i >= 20 else some), page=PAGE) for i in range(60)]
    path = tmp_path / "trace.dat"
    path.write_bytes(Trace([Instance({0: pages})], {"test": [NUMBERS]}, page=PAGE).write("v6"))
    monkeypatch.setattr(tracedat_source, "_SMALL", 0)
    monkeypatch.setattr(tracedat_source, "_SAMPLE", 6 * PAGE)
    monkeypatch.setattr(streams, "_PAGES_IN_BLOCK", 1)
    assert opened(path).table("numbers")["value"].num_chunks == 1
    assert opened(path).table("numbers")["value"].to_pylist() == [*range(2)] * 20 + [*range(9)] * 40
