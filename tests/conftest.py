"""What all tests share: where recordings lie, and how hypothesis runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

PROJECT: Final = Path(__file__).resolve().parent.parent
FIXTURES: Final = PROJECT / "fixtures"

# Compiling a loop takes seconds in the first example that needs it, and none in the others.
settings.register_profile("tracetool", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tracetool")


def fixture_path(name: str) -> Path:
    """The fixture of that file name, as `mail-6.1.dat`; `FileNotFoundError` lists what there is."""
    path = FIXTURES / name
    if not path.is_file():
        there = ", ".join(sorted(each.name for each in FIXTURES.iterdir()))
        raise FileNotFoundError(f"no fixture {name}; there are: {there}")
    return path


def fixture_traces() -> list[Path]:
    """All fixtures that are traces, sorted by name."""
    return sorted(FIXTURES.glob("*.dat"))


def truth_of(trace: Path) -> Path:
    """The file beside a trace that says what the kernel itself said of its pages."""
    return trace.with_suffix(".truth.tsv")


def traces_folder() -> Path | None:
    """The folder of recordings outside the project: `$TRACETOOL_TRACES`, or `shared/traces` beside the checkout; None if missing."""
    named = os.environ.get("TRACETOOL_TRACES")
    folder = Path(named) if named else PROJECT.parent / "shared" / "traces"
    return folder if folder.is_dir() else None


def every_recording() -> list[Any]:
    """Each recording as a parameter: the fixtures, and where their folder is, those outside the project but for its odd file formats."""
    own = [pytest.param(path, id=path.stem) for path in fixture_traces()]
    folder = traces_folder()
    outside = sorted(folder.glob("*/*.dat")) if folder else []
    others = [path for path in outside if path.parent.name != "formats"]
    return own + [pytest.param(path, id=f"{path.parent.name}-{path.stem}", marks=pytest.mark.exhaustive) for path in others]


@pytest.fixture(scope="session")
def traces() -> Path:
    """The folder of recordings outside the project; the test is skipped where it is missing."""
    folder = traces_folder()
    if folder is None:
        pytest.skip("no recordings outside the project; name their folder in $TRACETOOL_TRACES")
    return folder
