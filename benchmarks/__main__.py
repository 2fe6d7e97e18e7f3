"""Measure speed and memory: `python -m benchmarks`, or `make bench`.

Needs trace-cmd, cc, pkg-config and libtracecmd with its headers; what is missing is named and left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.large import make_large
from benchmarks.machine import describe_machine
from benchmarks.parsers import measure_parsers
from benchmarks.peers import all_peers
from benchmarks.processes import PROJECT
from benchmarks.replay import measure_replay
from benchmarks.report import into_readme, render
from benchmarks.results import Figure, Results
from benchmarks.start import measure_first_reading, measure_start

RESULTS: Final = Path(__file__).with_name("results.json")
README: Final = PROJECT / "README.md"
RECORDING: Final = PROJECT / "fixtures" / "random1-6.1.dat"
SHORT: Final = PROJECT / "fixtures" / "mail-6.1.dat"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the results, and bring the figures of README.md up to them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed and memory.")
    parser.add_argument("--events", type=int, default=2_000_000, help="least number of events of the large trace")
    parser.add_argument("--runs", type=int, default=5, help="runs of each measurement")
    parser.add_argument("--out", type=Path, help="where the results go; README.md then stays as it is")
    asked = parser.parse_args(arguments)
    results = measure(asked.events, asked.runs)
    print(render(results), end="")
    (asked.out or RESULTS).write_text(results.to_json())
    if asked.out is None:
        README.write_text(into_readme(README.read_text(), results))


def measure(events: int, runs: int) -> Results:
    """Everything, on a large trace of `events` events or more, `runs` times each."""
    machine = describe_machine()
    trace: dict[str, Any] = {}
    figures: list[Figure] = []
    first: list[Figure] = []
    left_out: list[str] = []
    if shutil.which("trace-cmd") is None:
        left_out.append("reading and replay: the large trace is made with trace-cmd, which is not here")
    else:
        # Warm: which loops the default compiles depends on what was read on this machine before.
        os.environ["TRACETOOL_LOOPS"] = "compiled"
        with tempfile.TemporaryDirectory() as name:
            large = make_large(RECORDING, Path(name), events)
            peers, missing = all_peers(Path(name))
            read, failed = measure_parsers(large, peers, runs)
            figures += read + measure_replay(large.path, runs)
            first = measure_first_reading(large.path, runs)
            left_out += missing + failed
        trace = {"recording": RECORDING.name, "rounds": large.rounds, "events": large.events, "bytes": large.size}
    figures += measure_start(SHORT, runs) + first
    return Results(machine, trace, figures, left_out)


if __name__ == "__main__":
    main()
