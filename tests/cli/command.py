"""Runs the command line in this process, as a user would call it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest

from tracetool.cli import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def run(capfd: pytest.CaptureFixture[str], *arguments: Any) -> Result:
    """`tracetool ARGUMENTS...`: exit code, standard output, standard error."""
    before = sys.argv
    sys.argv = ["tracetool", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stopped:
            main()
    finally:
        sys.argv = before
    captured = capfd.readouterr()
    return Result(int(stopped.value.code or 0), captured.out, captured.err)
