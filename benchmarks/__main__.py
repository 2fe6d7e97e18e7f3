"""Measure speed and memory: `python -m benchmarks`, or `make bench`.

Needs trace-cmd, perf, cc, pkg-config and libtracecmd with its headers; what is missing is named and left out. The traces take about
1.2 GB of the folder for temporary files, 0.5 kB for each of `--events`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.large import Large, make_large
from benchmarks.machine import describe_machine
from benchmarks.parsers import measure_kind, measure_memory, measure_metadata, measure_parsers, packed
from benchmarks.peers import all_peers, found, perf_script
from benchmarks.perf import make_large_perf, measure_perf
from benchmarks.processes import PROJECT
from benchmarks.reading import Peer
from benchmarks.replay import measure_random_replay, measure_replay
from benchmarks.report import into_readme, render
from benchmarks.results import Figure, Results
from benchmarks.start import measure_first_reading, measure_start
from benchmarks.synth import measure_synth
from benchmarks.text import make_text, measure_text

RESULTS: Final = Path(__file__).with_name("results.json")
README: Final = PROJECT / "README.md"
RECORDING: Final = PROJECT / "fixtures" / "random1-6.1.dat"
PERF_RECORDING: Final = PROJECT / "fixtures" / "mail-6.1.perf.data"
SHORT: Final = PROJECT / "fixtures" / "mail-6.1.dat"
#: 250 rounds of the recording; its memory is looked at with ten times as many.
EVENTS: Final = 250 * 9056
#: What is slower, or its peer is, reads this part of them.
_LESS: Final = 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the results, and bring the figures of README.md up to them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed and memory.")
    parser.add_argument("--events", type=int, default=EVENTS, help="least number of events of the large trace")
    parser.add_argument("--runs", type=int, default=5, help="runs of each measurement")
    parser.add_argument("--out", type=Path, help="where the results go; README.md then stays as it is")
    asked = parser.parse_args(arguments)
    # Rounded as they are written: README quotes the file.
    results = Results.from_json(measure(asked.events, asked.runs).to_json())
    print(render(results), end="")
    (asked.out or RESULTS).write_text(results.to_json())
    if asked.out is None:
        README.write_text(into_readme(README.read_text(), results))


def measure(events: int, runs: int) -> Results:
    """Everything, on large traces of `events` events or so, `runs` times each."""
    machine = describe_machine()
    # Warm: which loops the default compiles depends on what was read on this machine before.
    os.environ["TRACETOOL_LOOPS"] = "compiled"
    traces: list[Large] = []
    figures: list[Figure] = []
    first: list[Figure] = []
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if shutil.which("trace-cmd") is None:
            left_out.append("trace.dat, text and replay: their large traces are made with trace-cmd, which is not here")
        else:
            large = make_large(RECORDING, folder, events)
            text = make_text(RECORDING, folder, events // _LESS)
            traces += [large, text]
            peers, missing = all_peers(folder)
            metadata = measure_metadata(large, runs)
            read, failed = measure_parsers(large, peers, runs)
            # The program that prints would take minutes for ten times as much.
            figures += [*read, *_ten_times(large, folder, [peer for peer in peers if peer.name != "trace-cmd report"], runs)]
            figures += [*measure_kind(large, runs), metadata, *measure_text(text, runs)]
            figures += [*measure_replay(large.path, runs), *measure_random_replay(events, runs)]
            first = measure_first_reading(large.path, runs)
            left_out += missing + failed
        perf = make_large_perf(PERF_RECORDING, folder / "perf.data", events)
        scripts, missing = found(perf_script)
        read, failed = measure_perf(perf, scripts, runs)
    figures += read + measure_synth(events // _LESS, runs) + measure_start(SHORT, runs) + first
    return Results(machine, [trace.described() for trace in (*traces, perf)], figures, [*left_out, *missing, *failed])


def _ten_times(large: Large, folder: Path, peers: Sequence[Peer], runs: int) -> list[Figure]:
    """Of a trace ten times as large, and the memory that it and the large one packed take; both are gone afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        larger = make_large(RECORDING, Path(name), 10 * large.events)
        read, _ = measure_parsers(replace(larger, form="trace.dat, ten times as large"), peers, runs)
        return [*read, *measure_memory([larger, packed(large, Path(name) / "packed.dat")])]


if __name__ == "__main__":
    main()
