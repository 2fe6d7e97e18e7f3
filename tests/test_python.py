"""tracetool from Python, as the README shows it."""

from __future__ import annotations

import polars as pl
import pytest

import tracetool
from conftest import fixture_path
from tracetool.errors import UnknownName

MAIL = fixture_path("mail-6.1.dat")


def test_raw_events_are_a_lazy_frame() -> None:
    faults = tracetool.open(MAIL).events("page_fault_user")
    assert isinstance(faults, pl.LazyFrame)
    # 7: a write to a present page by a program; the exception's own code, counted in what trace-cmd report prints.
    assert faults.filter(pl.col("error_code") == 7).collect().height == 16


def test_replays_give_lazy_frames() -> None:
    replay = tracetool.open(MAIL).replay("page-count")
    for table in (replay.ownership, replay.references, replay.faults):
        assert isinstance(table, pl.LazyFrame)
        assert table.collect().height > 0


def test_an_unknown_policy_is_told_at_once() -> None:
    with pytest.raises(UnknownName, match="page-cuont"):
        tracetool.open(MAIL).replay("page-cuont")


def test_analyse_stays_a_function() -> None:
    """A module of the same name would take its place after the first import."""
    trace = tracetool.open(MAIL)
    first, second = tracetool.analyse(trace), tracetool.analyse(trace)
    assert first.findings.equals(second.findings)


def test_an_answer_is_kept() -> None:
    trace = tracetool.open(MAIL)
    assert trace.replay("mapcount") is trace.replay("mapcount")
