"""`--help` answers at once, and says what there is."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from cli.command import run
from tracetool import __version__

HEAVY = ("polars", "pyarrow", "numba", "plotly", "numpy", "jinja2")


@pytest.mark.parametrize("arguments", [["--help"], ["replay", "--help"], ["pages", "--help"], ["--version"]])
def test_help_imports_no_library(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom tracetool.cli import main\nsys.argv = ['tracetool', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    started = time.monotonic()
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    # Generous: a loaded machine is slow, importing polars and numba is slower.
    assert time.monotonic() - started < 5


def test_help_lists_every_verb_with_what_it_does(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "--help")
    for verb in ("replay", "info", "events", "pages", "history", "export", "schema"):
        assert f"\n  {verb} " in result.out


@pytest.mark.parametrize("verb", ["replay", "info", "events", "pages", "history", "export", "schema"])
def test_the_help_of_every_verb_ends_in_an_example(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, verb, "--help")
    assert f"Example: tracetool {verb}" in result.out


def test_help_has_no_colour_codes(capfd: pytest.CaptureFixture[str]) -> None:
    assert "\x1b" not in run(capfd, "replay", "--help").out


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "--version").out == f"tracetool {__version__}\n"


def test_schema_lists_every_table(capfd: pytest.CaptureFixture[str]) -> None:
    from tracetool.schema import TABLES

    result = run(capfd, "schema")
    for name, table in TABLES.items():
        assert f"{name}\n" in result.out
        for column in table:
            assert f"  {column} " in result.out
