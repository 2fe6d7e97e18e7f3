"""Loops give the same tables compiled and as plain Python."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from conftest import fixture_traces
from tracetool_parsers import open_trace


def everything(path: Path) -> dict[str, pa.Table]:
    trace = open_trace(path)
    fields = {name: [field.column for field in event.fields] for name, event in trace.formats().items()}
    tables = trace.tables({name: fields.get(name) for name in trace.event_names()}, positions=True)
    return tables | {"timeline": trace.timeline(), "losses": trace.losses}


@pytest.mark.parametrize("path", fixture_traces(), ids=lambda path: path.stem)
def test_compiled_and_plain_loops_give_equal_tables(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACETOOL_LOOPS", "python")
    plain = everything(path)
    monkeypatch.setenv("TRACETOOL_LOOPS", "compiled")
    compiled = everything(path)
    assert plain.keys() == compiled.keys()
    for name, table in plain.items():
        assert table.equals(compiled[name]), name


@pytest.mark.parametrize("path", fixture_traces()[:1], ids=lambda path: path.stem)
def test_several_tables_in_one_pass_are_those_of_one_by_one(path: Path) -> None:
    trace = open_trace(path)
    together = trace.tables(trace.event_names())
    assert list(together) == trace.event_names()
    for name, table in together.items():
        assert table.equals(trace.table(name)), name
