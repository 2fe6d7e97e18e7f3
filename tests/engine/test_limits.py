"""What this version does not replay is never called clean: what policies would do with huge, swapped and merged pages."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import tracetool
from conftest import fixture_path
from tracetool.stories import most_telling


@pytest.mark.exhaustive
@pytest.mark.parametrize("scenario", ["thp", "swap", "ksm"])
@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.2"])
def test_what_is_not_replayed_is_not_clean(scenario: str, kernel: str, traces: Path) -> None:
    verdicts = tracetool.analyse(traces / kernel / f"{scenario}.dat").verdicts
    judged = [v for v in verdicts if v.policy != "observed"]
    assert judged
    assert {v.verdict for v in judged} <= {"inconclusive", "defect"}
    assert any("this version has not" in what for v in judged for what in v.missing)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.2"])
@pytest.mark.parametrize("scenario", ["ksm", "swap"])
def test_a_page_that_several_map_is_nobodys_own(scenario: str, kernel: str, traces: Path) -> None:
    """No policy of these writes in place what is mapped elsewhere: merged pages and swapped-in ones are no exception."""
    trace = tracetool.open(traces / kernel / f"{scenario}.dat")
    for policy in ("mapcount", "page-count", "exclusive"):
        faults = trace.replay(policy).faults.collect()
        assert faults.filter(pl.col("decision") == "copy").height
        assert not faults.filter(pl.col("decision").is_in(["reuse", "in-place"]), pl.col("mapcount") > 1).height


def test_the_recorders_own_pages_are_not_the_story() -> None:
    trace = tracetool.open(fixture_path("snapshot-6.1.dat"))
    analysis = tracetool.analyse(trace)
    observed = trace.replay()
    root = most_telling([observed], analysis.findings)
    assert root is not None
    assert analysis.stories
    assert all("trace-cmd" not in name for story in analysis.stories for name in story.owners.values())
