"""The examples in docstrings run over the fixtures, and docstrings of tables name every column."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from typing import Any

import pytest

from conftest import PROJECT
from tracetool import Analysis, schema
from tracetool.replay import Replay
from tracetool.trace import Trace

FOLDERS = (PROJECT, PROJECT / "parsers")


def modules() -> list[str]:
    """Names of the modules that show examples."""
    found = []
    for folder, package in zip(FOLDERS, ("tracetool", "tracetool_parsers"), strict=True):
        for path in sorted((folder / package).rglob("*.py")):
            if ">>> " in path.read_text("utf-8"):
                parts = path.relative_to(folder).with_suffix("").parts
                found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


@pytest.mark.parametrize("name", modules())
def test_examples_give_what_they_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    monkeypatch.setenv("TRACETOOL_LOOPS", "python")
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


PUBLIC: dict[str, Any] = {
    "Trace.events": Trace.events,
    "Trace.memory_events": Trace.memory_events,
    "Trace.processes": Trace.__dict__["processes"],
    "Trace.replay": Trace.replay,
    "Replay.ownership": Replay.__dict__["ownership"],
    "Replay.references": Replay.__dict__["references"],
    "Replay.faults": Replay.__dict__["faults"],
    "Replay.pages_at": Replay.pages_at,
    "Replay.history_of": Replay.history_of,
    "Analysis": Analysis,
    "Analysis.costs": Analysis.__dict__["costs"],
    "Analysis.to_html": Analysis.to_html,
}


@pytest.mark.parametrize("name", PUBLIC)
def test_what_a_user_asks_for_has_an_example_that_runs(name: str) -> None:
    examples = [example for test in doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name) for example in test.examples]
    assert examples
    assert not any(example.options.get(doctest.SKIP) for example in examples)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("Trace.memory_events", schema.MEMORY_EVENTS),
        ("Trace.processes", schema.PROCESSES),
        ("Replay.ownership", schema.OWNERSHIP),
        ("Replay.references", schema.REFERENCES),
        ("Replay.faults", schema.FAULTS),
        ("Replay.pages_at", schema.PAGES),
        ("Replay.history_of", schema.HISTORY),
        ("Analysis", schema.FINDINGS),
        ("Analysis.costs", schema.COSTS),
    ],
)
def test_docstrings_name_every_column_and_its_unit(name: str, table: schema.Table) -> None:
    said = PUBLIC[name].__doc__ or ""
    assert [column for column in table if f"`{column}`" not in said] == []
    # Bytes, ns and page frame numbers: a docstring that has such columns says so.
    for unit, words in {"ns": ("ns",), "bytes": ("bytes", "hexadecimal")}.items():
        if any(column.unit == unit for column in table.values()):
            assert any(word in said for word in words), unit


def test_modules_are_found() -> None:
    assert {"tracetool.trace", "tracetool.replay", "tracetool.analysis", "tracetool_parsers.raw"} <= set(modules())
    assert all(Path(folder).is_dir() for folder in FOLDERS)
