"""Tables from Python go straight into DuckDB, pandas and Arrow, with the same values; in a notebook they show themselves."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import tracetool
from conftest import fixture_path
from engine.build import BASE, Machine, address
from handmade import trace_of
from tracetool import Analysis, schema
from tracetool.notebook import ROWS_SHOWN, escaped, table
from tracetool.policies import chosen
from tracetool.replay import Replay
from tracetool.trace import Trace
from tracetool_parsers import ParseError

duckdb = pytest.importorskip("duckdb")
pandas = pytest.importorskip("pandas")

MAIL = fixture_path("mail-6.1.dat")


@pytest.fixture(scope="module")
def trace() -> Trace:
    return tracetool.open(MAIL)


@pytest.fixture(scope="module")
def analysis(trace: Trace) -> Analysis:
    return tracetool.analyse(trace)


#: What a user asks for: a LazyFrame or a DataFrame of a trace, its replay and its analysis.
ASKED: dict[str, Callable[[Trace, Replay, Analysis], pl.LazyFrame | pl.DataFrame]] = {
    "events": lambda trace, *_: trace.events("page_fault_user"),
    "memory_events": lambda trace, *_: trace.memory_events(),
    "processes": lambda trace, *_: trace.processes,
    "ownership": lambda _, replay, __: replay.ownership,
    "references": lambda _, replay, __: replay.references,
    "faults": lambda _, replay, __: replay.faults,
    "pages": lambda trace, replay, _: replay.pages_at((trace.raw.span() or (0, 0))[1] - 8_000_000),
    "history": lambda _, replay, __: replay.history_of(pid=115, address=0x7F8EFCAF0000),
    "findings": lambda *given: given[2].findings,
    "costs": lambda *given: given[2].costs,
}


@pytest.fixture(params=ASKED)
def asked(request: pytest.FixtureRequest, trace: Trace, analysis: Analysis) -> tuple[str, pl.LazyFrame | pl.DataFrame]:
    """The name of a table, and the table as it is handed out."""
    return request.param, ASKED[request.param](trace, trace.replay("mapcount"), analysis)


def collected(frame: pl.LazyFrame | pl.DataFrame) -> pl.DataFrame:
    return frame.collect() if isinstance(frame, pl.LazyFrame) else frame


def rows(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in frame.to_dicts()]


Asked = tuple[str, pl.LazyFrame | pl.DataFrame]


def test_each_table_is_as_the_schema_says(asked: Asked) -> None:
    name, frame = asked
    found = collected(frame)
    assert found.height > 0
    if name == "events":
        assert found.columns[:4] == ["ts", "cpu", "tid", "comm"]
        assert found.schema["address"] == pl.UInt64
    else:
        # Categories of a Categorical are the frame's own.
        assert {column: str(kind).partition("(")[0] for column, kind in found.schema.items()} == {
            column: said.type.partition("(")[0] for column, said in schema.TABLES[name].items()
        }


def test_duckdb_takes_it_as_it_is(asked: Asked) -> None:
    _, frame = asked
    wanted = rows(collected(frame))
    with duckdb.connect() as connection:
        # DuckDB finds `frame` by its name in this function.
        assert connection.sql("select * from frame").fetchall() == wanted


def test_arrow_takes_it_as_it_is(asked: Asked) -> None:
    _, frame = asked
    found = collected(frame)
    arrow = found.to_arrow()
    assert isinstance(arrow, pa.Table)
    arrow.validate(full=True)
    assert [tuple(row.values()) for row in arrow.to_pylist()] == rows(found)
    # Any library that knows Arrow's interface for Python can take it without polars' help.
    assert pa.table(found).num_rows == found.height


def test_pandas_takes_it_as_it_is(asked: Asked) -> None:
    _, frame = asked
    found = collected(frame)
    given = found.to_pandas(use_pyarrow_extension_array=True)
    assert isinstance(given, pandas.DataFrame)
    assert list(given.columns) == found.columns
    for name in found.columns:
        values = [None if each is pandas.NA or each is None else each for each in given[name].tolist()]
        wanted = found[name].to_list()
        if isinstance(found.schema[name], pl.List):
            values = [None if each is None else list(each) for each in values]
        assert values == wanted, name


def test_pandas_keeps_integers_without_nulls_as_they_are(trace: Trace) -> None:
    owners = trace.replay().ownership.collect().drop_nulls().to_pandas()
    assert (owners["address"].dtype, owners["from_ns"].dtype, owners["page_id"].dtype) == ("uint64", "int64", "int32")
    assert owners["address"].tolist() == trace.replay().ownership.collect().drop_nulls()["address"].to_list()


# --- costs and the report -------------------------------------------------------------------------------------------------------------


def mail_machine(kernel_copies: bool) -> Machine:
    """A and B share a page to which A holds a reference; A writes and gets a copy, then B writes."""
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 0x50)
    b = m.fork(a, 11, [(BASE, 8)])
    m.vmsplice(a, address(0), 0x50)
    m.cow(a, address(0), 0x50, 0x51)
    m.cow(b, address(0), 0x50, 0x52 if kernel_copies else None)
    m.pipe_release(10, 0x50)
    return m


@pytest.mark.parametrize(("kernel_copies", "extra"), [(True, 1), (False, 0)])
def test_costs_compare_the_traced_kernel_and_policies_with_mapcount(kernel_copies: bool, extra: int) -> None:
    """One page: A copies under every policy; B copies where references count, and where the traced kernel did."""
    costs = tracetool.analyse(trace_of(mail_machine(kernel_copies)), chosen(["mapcount", "page-count"])).costs
    told = {row["policy"]: row for row in costs.to_dicts()}
    assert list(told) == ["observed", "mapcount", "page-count"]
    assert {name: (row["cow_faults"], row["copies"], row["reuses"]) for name, row in told.items()} == {
        "observed": (2, 1 + extra, 1 - extra),
        "mapcount": (2, 1, 1),
        "page-count": (2, 2, 0),
    }
    assert {name: (row["extra_copies"], row["extra_bytes"]) for name, row in told.items()} == {
        "observed": (extra, 4096 * extra),
        "mapcount": (0, 0),
        "page-count": (1, 4096),
    }
    assert told["observed"]["extra_ns"] == extra * told["page-count"]["extra_ns"]
    assert told["observed"]["peak_pages"] == told["page-count" if kernel_copies else "mapcount"]["peak_pages"]


def test_costs_of_the_traced_kernel_need_no_policy(trace: Trace, analysis: Analysis) -> None:
    alone = tracetool.analyse(trace, []).costs
    assert alone.rows() == analysis.costs.filter(policy="observed").rows()


def test_costs_without_replays_are_what_is_known(analysis: Analysis) -> None:
    from dataclasses import replace

    bare = replace(analysis, replays={})
    (first, *others) = bare.costs.to_dicts()
    assert (first["copies"], first["extra_copies"], first["peak_pages"]) == (11, None, None)
    assert others == analysis.costs.to_dicts()[1:]


def test_the_report_is_written(analysis: Analysis, tmp_path: Path) -> None:
    from tracetool.report import details, html

    analysis.to_html(tmp_path / "report.html")
    assert analysis.recorded is not None
    drawn = html.render(analysis, details=details.gather(analysis.recorded, analysis))
    assert (tmp_path / "report.html").read_text("utf-8") == drawn
    analysis.to_html(tmp_path / "report.html", redact=True)
    assert str(MAIL) not in (tmp_path / "report.html").read_text("utf-8")


# --- what a notebook shows ------------------------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """What a page is made of; whether its elements nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


TABLES = {"div", "p", "strong", "table", "caption", "thead", "tbody", "tr", "th", "td"}


def shown(thing: Any) -> Elements:
    """What a notebook shows of something: tables and text, no script, nothing from elsewhere."""
    page: str = thing._repr_html_()
    elements = Elements(page)
    assert elements.names <= TABLES
    assert elements.attributes <= {"scope", "style"}
    assert not re.search(r"url\(|@import|expression", page)
    assert len(page) < 20_000
    return elements


def test_a_trace_shows_what_it_is(trace: Trace) -> None:
    elements = shown(trace)
    assert {"trace.dat v7", "6.1.0-53-amd64", "global", "1,258", "rmap_remove", "774"} <= set(elements.text)
    assert any(f"showing {ROWS_SHOWN} of {len(trace.raw.counts())}" in text for text in elements.text)


def test_a_replay_shows_its_decisions_and_processes(trace: Trace) -> None:
    elements = shown(trace.replay("page-count"))
    assert {"Replay: page-count", "copy", "reference", "cowlab", "115"} <= set(elements.text)
    assert repr(trace.replay("page-count")).startswith("<Replay page-count: ")


def test_an_analysis_shows_costs_verdicts_and_findings(analysis: Analysis) -> None:
    elements = shown(analysis)
    assert {"observed", "mapcount", "4,096", "defect", "missed-cow"} <= set(elements.text)
    assert any("cowlab" in text for text in elements.text)


def test_strings_of_a_trace_are_text() -> None:
    evil = "<img src=x onerror=alert(1)>"
    machine = Machine()
    a = machine.spawn(10)
    machine.event("task_rename", 10, pid=10, oldcomm="prog", newcomm=evil)
    machine.touch(a, address(0), 0x50)
    trace = trace_of(machine, {10: evil})
    assert any(evil in text for text in shown(trace.replay()).text)
    assert "&lt;img" in trace.replay()._repr_html_()
    shown(trace)
    shown(tracetool.analyse(trace))


def test_characters_that_do_not_print_are_escapes_and_long_text_is_cut() -> None:
    assert escaped("a\x1b[2J\u202eb & \ud800") == "a\\x1b[2J\\u202eb &amp; \\ud800"
    assert len(escaped("x" * 10_000)) == 160
    elements = Elements(table("t", ["a"], [(number,) for number in range(1000)]))
    assert elements.text.count("9") == 1
    assert "t (showing 10 of 1,000)" in elements.text


def test_a_damaged_trace_shows_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tracetool.open(MAIL)

    def damaged() -> dict[str, int]:
        raise ParseError("no record <here>", path="x", offset=7)

    monkeypatch.setattr(trace.raw, "counts", damaged)
    assert {"error", "x: no record <here> (at byte 7)"} <= set(shown(trace).text)
