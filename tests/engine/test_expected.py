"""What a right replay finds in each recording: by kernel, scenario, policy and rule, the pages, and how sure."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest

import tracetool
from conftest import fixture_traces, traces_folder
from tracetool.policies import POLICIES

KERNELS: Final = ("5.10", "6.1", "6.12", "7.2")
#: kernels, scenarios, policies, rule, certainty, pages.
EXPECTED: Final = """
    all  mail vmsplice_child snapshot zap random1 random2 random3  observed                                         any         any      0
    all  mail                                                      mapcount                                         missed-cow  certain  1
    all  mail                                                      forced-cow page-count page-count-5.18 exclusive  any         any      0
    all  vmsplice_child                                            mapcount                                         missed-cow  certain  1
    all  vmsplice_child                                            forced-cow page-count page-count-5.18 exclusive  any         any      0
"""


def lines() -> Iterator[tuple[str, ...]]:
    """The lines above, and those of the recordings outside the project."""
    for line in EXPECTED.strip().splitlines():
        kernels, rest = line.strip().split(None, 1)
        scenarios, policies, rule, certainty, pages = (part.strip() for part in rest.split("  ") if part.strip())
        yield kernels, scenarios, policies, rule, certainty, pages
    folder = traces_folder()
    if folder and (folder / "expected.tsv").is_file():
        with (folder / "expected.tsv").open() as file:
            for row in csv.DictReader(file, delimiter="\t"):
                rule = "any" if row["rule"] == "any defect" else row["rule"]
                yield row["kernels"], row["scenarios"], row["policy"], rule, row["certainty"], row["pages"]


def cases() -> Iterator[Any]:
    """One a recording that there is and policy."""
    own = {path.stem: path for path in fixture_traces()}
    seen = set()
    for kernels, scenarios, policies, rule, certainty, pages in lines():
        for kernel in KERNELS if kernels == "all" else kernels.split():
            for scenario in scenarios.split():
                outside = (traces_folder() or Path()) / kernel / f"{scenario}.dat"
                path = own.get(f"{scenario}-{kernel}", outside)
                for policy in policies.split():
                    case = (path, policy, rule, certainty, int(pages))
                    if path.is_file() and case not in seen:
                        seen.add(case)
                        marks = () if path in own.values() else (pytest.mark.exhaustive,)
                        yield pytest.param(*case, id=f"{kernel}-{scenario}-{policy}-{rule}", marks=marks)


def test_every_policy_has_lines() -> None:
    assert {policy for _, _, policies, *_ in lines() for policy in policies.split()} == {"observed", *POLICIES}


@functools.cache
def defects(path: Path) -> pl.DataFrame:
    return tracetool.analyse(path).findings.filter(severity="defect")


@pytest.mark.parametrize(("path", "policy", "rule", "certainty", "pages"), list(cases()))
def test_a_recording_has_the_findings_that_it_should(path: Path, policy: str, rule: str, certainty: str, pages: int) -> None:
    found = defects(path).filter(policy=policy)
    if rule != "any":
        found = found.filter(rule=rule)
    told = found.select("rule", "certainty", "address", "pid").rows()
    assert found.select("mm", "address").n_unique() == pages if found.height else pages == 0, told
    if certainty != "any":
        assert set(found["certainty"]) == {certainty}, told
