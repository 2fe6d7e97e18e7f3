"""The report as KTAP, the kernel's own format of test results: a policy is a test, a rule a case of it.

KTAP version 1 is described in the kernel's Documentation/dev-tools/ktap.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracetool.analysis import Analysis
from tracetool.foreign import printable
from tracetool.report import summary
from tracetool.report.cases import Case, suites

VERSION: Final = "KTAP version 1"
#: Two spaces a level, as ktap.rst asks.
_INDENT: Final = "  "


def render(analysis: Analysis) -> str:
    """Lines of KTAP: a certain defect is `not ok`, what the trace cannot tell `ok ... # SKIP` with what is missing.

    Findings stand before their case, as lines that begin with `#`.
    """
    tests = suites(analysis)
    lines = [VERSION, f"1..{len(tests)}"]
    if known := summary.known(analysis):
        lines.append(f"# {printable(known)}")
    for number, (policy, cases) in enumerate(tests.items(), 1):
        lines += [f"{_INDENT}{line}" for line in _subtests(cases)]
        failed = any(case.outcome == "fail" for case in cases)
        skipped = all(case.outcome == "skip" for case in cases)
        lines.append(_result(number, policy, failed, "no rule can be judged from this trace" if skipped else ""))
    return "\n".join(lines) + "\n"


def _subtests(cases: tuple[Case, ...]) -> Iterator[str]:
    yield VERSION
    yield f"1..{len(cases)}"
    for number, case in enumerate(cases, 1):
        # With what certainty it is known comes first: a line cannot be taken for one of KTAP's own ("# Subtest: ...").
        yield from (f"# {line}" for line in case.lines)
        yield _result(number, case.rule, case.outcome == "fail", case.why if case.outcome == "skip" else "")


def _result(number: int, name: str, failed: bool, skipped: str) -> str:
    # A number sign would begin a directive.
    line = f"{'not ok' if failed else 'ok'} {number} {name.replace('#', '').strip() or '?'}"
    return f"{line} # SKIP {skipped}" if skipped else line
