"""`replay --bisect`: one verdict as the exit code that `git bisect run` takes, and why in one line.

git-bisect(1): 0 is good, 125 says that this revision cannot be tested, and any other code up to 127 is bad.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, ClassVar, Final

import typer

from tracetool.errors import TraceError

if TYPE_CHECKING:
    from tracetool.analysis import Analysis, Verdict

GOOD: Final = 0
BAD: Final = 1
SKIP: Final = 125
_SAID: Final = {GOOD: "good", BAD: "bad", SKIP: "skip"}
_USAGE: Final = 2
_LISTED: Final = 3


class Untestable(TraceError):
    """What keeps a trace from being judged, told as it always is, with the exit code of what cannot be tested."""

    exit_code: ClassVar[int] = SKIP

    def __init__(self, error: TraceError) -> None:
        super().__init__(error.message, path=error.path, offset=error.offset, event=error.event, hint=error.hint)


def judged(analysis: Analysis, rules: Collection[str], policies: Collection[str]) -> tuple[int, str]:
    """The exit code for these rules under these policies, and why: any defect is bad, else anything inconclusive is to be skipped.

    Where findings were compared with a baseline, verdicts are about the new ones, and why says so.
    """
    code, why = _judged(analysis, rules, policies)
    known = f" (but for {analysis.known.findings} known)" if analysis.known and analysis.known.findings else ""
    return code, f"bisect: {_SAID[code]} (exit {code}): {why}{known}"


def _judged(analysis: Analysis, rules: Collection[str], policies: Collection[str]) -> tuple[int, str]:
    asked = [v for v in analysis.verdicts if v.rule in rules and v.policy in policies]
    if defects := [v for v in asked if v.verdict == "defect"]:
        return BAD, f"defect: {_few(defects)}"
    if unsettled := [v for v in asked if v.verdict == "inconclusive"]:
        missing = "; ".join(dict.fromkeys(what for v in unsettled for what in v.missing)) or "not said"
        return SKIP, f"inconclusive: {_few(unsettled)}; missing: {missing}"
    if not asked:
        return SKIP, f"there is no verdict of {', '.join(rules)}"
    return GOOD, f"clean: {_few(asked)}"


@contextlib.contextmanager
def untestable(bisecting: bool) -> Iterator[None]:
    """While bisecting, nothing but a defect is bad: whatever goes wrong inside is told, and ends in SKIP. Wrong usage stays what it is."""
    try:
        yield
    except Exception as error:
        if not bisecting or getattr(error, "exit_code", None) == _USAGE:
            raise
        if os.environ.get("TRACETOOL_DEBUG") or not isinstance(error, (TraceError, OSError)):
            traceback.print_exc()
            raise typer.Exit(SKIP) from None
        if isinstance(error, TraceError):
            raise Untestable(error) from None
        name = None if error.filename is None else str(error.filename)
        raise Untestable(TraceError(error.strerror or str(error), path=name)) from None


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """What is written here to standard output need not be read to its end: the exit code is the answer."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would fail at exit, with an exit code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _few(verdicts: list[Verdict]) -> str:
    """The first verdicts by rule and policy, and how many there are more."""
    more = f" and {len(verdicts) - _LISTED} more" if len(verdicts) > _LISTED else ""
    return ", ".join(f"{v.rule} under {v.policy}" for v in verdicts[:_LISTED]) + more
