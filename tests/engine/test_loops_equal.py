"""The engine's loops give the same compiled and as plain Python, and whatever room they were given to begin with.

Compiling takes half a minute the first time; the machine code is kept on disk.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings

import tracetool
from conftest import fixture_path, fixture_traces
from engine.wild import wild_events, wild_recording
from tracetool.errors import TraceError
from tracetool.memory_events import MemoryEvents
from tracetool.policies import POLICIES
from tracetool.replay import history as histories
from tracetool.replay.columns import World
from tracetool.replay.history import History, rebuild
from tracetool.replay.simulated import Outcome, replay_steps

every_fixture = pytest.mark.parametrize("path", fixture_traces(), ids=lambda path: path.stem)

Results = dict[str, Any]


def fields(prefix: str, result: History | MemoryEvents | Outcome) -> Results:
    """The arrays and numbers of a result."""
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return {f"{prefix}.{name}": value for name, value in values.items() if not dataclasses.is_dataclass(value)}


def everything(events: MemoryEvents) -> Results:
    history = rebuild(events)
    results = (
        fields("events", events) | fields("history", history) | fields("followed", replay_steps(history, POLICIES["mapcount"], follow=True))
    )
    results |= {name: getattr(history, name) for name in ("batches", "folio_of_page", "folio_parts", "ref_sure", "reads_ahead")}
    for name, policy in POLICIES.items():
        results |= fields(name, replay_steps(history, policy))
    return results


def differences(one: Results, other: Results) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name, value in one.items() if not _equal(value, other[name])]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return all(_equal(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, pl.Series):
        return one.equals(other)
    return bool(one == other)


def events_of(path: Path) -> MemoryEvents:
    trace = tracetool.open(path)
    return trace.history.events


@every_fixture
def test_compiled_and_plain_loops_replay_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACETOOL_LOOPS", "python")
    plain = everything(events_of(path))
    monkeypatch.setenv("TRACETOOL_LOOPS", "compiled")
    compiled = everything(events_of(path))
    assert differences(plain, compiled) == []
    assert len(plain["history.stays"]) > 30
    assert len(plain["history.steps"]) > 30
    assert len(plain["exclusive.decisions"]) > 10


@settings(max_examples=50)
@given(wild_events)
def test_compiled_and_plain_loops_make_the_same_of_absurd_values(drawn: list[tuple[str, int, list[int]]]) -> None:
    """Python's integers have no end, machine code's wrap: nothing may depend on it."""
    with pytest.MonkeyPatch.context() as patch:
        found: list[Results] = []
        for mode in ("python", "compiled"):
            patch.setenv("TRACETOOL_LOOPS", mode)
            try:
                found.append(everything(wild_recording(drawn).events()))
            except TraceError as error:
                found.append({"error": str(error)})
    assert differences(*found) == []


def tiny(events: MemoryEvents) -> World:
    """Room for almost nothing, so that the arrays grow again and again."""
    world = _full_size(events)
    return world._replace(
        ptes=histories._chained(histories._rows(1, world.ptes.shape[1]), 0),
        vpn=np.zeros(1, np.int64),
        tables=world.tables[:1].copy(),
        pages=world.pages[:1].copy(),
        pte_hash=histories._hash(1),
        table_hash=histories._hash(1),
        places=world.places[:1].copy(),
        stays=world.stays[:1].copy(),
        refs=world.refs[:1].copy(),
        decisions=world.decisions[:1].copy(),
        steps=world.steps[:1].copy(),
        found=np.zeros(1, np.int32),
    )


_full_size = histories._empty


@every_fixture
def test_arrays_that_grow_lose_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = events_of(path)
    plain = fields("history", rebuild(events))
    grown: list[int] = []
    larger = histories._larger

    def counted(world: World) -> World:
        grown.append(len(world.stays))
        return larger(world)

    monkeypatch.setattr(histories, "_empty", tiny)
    monkeypatch.setattr(histories, "_larger", counted)
    assert differences(plain, fields("history", rebuild(events))) == []
    assert len(grown) >= 3
    assert grown == sorted(grown)


def test_grown_arrays_are_no_larger_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Growth is by half: what is taken stays in proportion to what happened."""
    events = events_of(fixture_path("random2-6.1.dat"))
    worlds: list[World] = []
    larger = histories._larger

    def kept(world: World) -> World:
        worlds.append(larger(world))
        return worlds[-1]

    monkeypatch.setattr(histories, "_empty", tiny)
    monkeypatch.setattr(histories, "_larger", kept)
    history = rebuild(events)
    assert len(worlds[-1].stays) < 2 * len(history.stays) + 2_000
    assert len(worlds[-1].steps) < 2 * len(history.steps) + 4_000
