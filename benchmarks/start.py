"""First use: what a fresh process waits for before it answers, and the compiler where a trace is large enough to need it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.processes import run
from benchmarks.results import Figure
from tracetool.errors import TraceError


def measure_start(recording: Path, runs: int) -> list[Figure]:
    """A fresh process that imports, one that replays a short recording, and the same with loops compiled, as large traces have them.

    The compiler is waited for once, with an empty cache; the medians of the others are of `runs` runs.

    Raises:
        TraceError: tracetool itself fails.
    """
    name = recording.stem
    command = [sys.executable, "-c", "from tracetool.cli import main; main()", "replay", str(recording)]
    with tempfile.TemporaryDirectory() as cache:
        plain = {"XDG_CACHE_HOME": cache, "TRACETOOL_LOOPS": "auto"}
        compiled = plain | {"TRACETOOL_LOOPS": "compiled"}
        return [
            Figure("first use", "import tracetool", _seconds([sys.executable, "-c", "import tracetool"], plain, runs)),
            Figure("first use", f"tracetool replay {name}: no compiler", _seconds(command, plain, runs)),
            Figure("first use", f"tracetool replay {name}: loops compiled, nothing cached", _seconds(command, compiled, 1)),
            Figure("first use", f"tracetool replay {name}: loops from the cache", _seconds(command, compiled, runs)),
        ]


def measure_first_reading(large: Path, runs: int) -> list[Figure]:
    """Fresh processes that read all of a large trace, as it is by default: one that waits for the compiler, then `runs` that need not.

    Raises:
        TraceError: tracetool itself fails.
    """
    command = [sys.executable, "-m", "benchmarks.reading", str(large)]
    with tempfile.TemporaryDirectory() as cache:
        env = {"XDG_CACHE_HOME": cache, "TRACETOOL_LOOPS": "auto"}
        return [
            Figure("first use", "the large trace, every field: nothing cached", _seconds(command, env, 1)),
            Figure("first use", "the large trace, every field: again, in a fresh process", _seconds(command, env, runs)),
        ]


def _seconds(command: list[str], env: dict[str, str], runs: int) -> list[float]:
    finished = [run(command, env=env) for _ in range(runs)]
    if any(each.code for each in finished):
        raise TraceError(f"a fresh tracetool ended with exit codes {[each.code for each in finished]}", hint="what it said is above")
    return [each.seconds for each in finished]
