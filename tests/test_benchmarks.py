"""The benchmarks: that their pieces run on a small trace, and that the figures of README.md are those that were measured."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import __main__ as program
from benchmarks import start
from benchmarks.large import Large, enlarge, make_large
from benchmarks.machine import describe_machine
from benchmarks.parsers import mapped, measure_kind, measure_memory, measure_metadata, measure_parsers, packed
from benchmarks.peers import all_peers, found, libtracecmd, perf_script
from benchmarks.perf import make_large_perf, measure_perf
from benchmarks.processes import Finished, run
from benchmarks.reading import Action, Missing, Ours, Peer, in_turn, main
from benchmarks.replay import measure_replay
from benchmarks.report import into_readme, render
from benchmarks.results import Figure, Results, Speed
from benchmarks.text import make_text, measure_text
from conftest import PROJECT, fixture_path
from tracetool.errors import TraceError
from tracetool.policies import POLICIES
from tracetool_parsers import open_trace

needs_trace_cmd = pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="needs trace-cmd")

RESULTS = Results(
    machine={
        "date": "2020-01-02",
        "cpu": "a CPU",
        "cores": 2,
        "load": 0.0,
        "python": "3.11.0",
        "libraries": {"numpy": "2.0"},
        "trace-cmd": None,
        "libtracecmd": "1.3.1",
        "perf": "6.1.0",
    },
    traces=[{"recording": "some.dat", "form": "trace.dat", "rounds": 3, "events": 3_000_000, "size": 60_000_000}],
    figures=[
        Figure(
            "read",
            "ours",
            [0.5, 0.1, 0.2],
            events=3_000_000,
            size=60_000_000,
            max_anon=5_000_000,
            max_rss=70_000_000,
            bound=5_000_000,
            against=(Speed("theirs", 15, 4), Speed("those of others", 19.994, 20), Speed("nothing", 0.5)),
        ),
        Figure("read", "theirs", [3.0, 3.2, 2.9], events=3_000_000, size=60_000_000, max_anon=1_000_000, max_rss=2_000_000),
        Figure("memory", "too much", [1.0], max_anon=5_000_001, max_rss=5_000_001, bound=5_000_000),
        Figure("first use", "start", [0.0301]),
    ],
    left_out=["a third: not here"],
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Large:
    if shutil.which("trace-cmd") is None:
        pytest.skip("needs trace-cmd")
    return make_large(fixture_path("mail-6.1.dat"), tmp_path_factory.mktemp("large"), 1)


def test_large_trace_has_as_many_rounds_as_it_takes(tmp_path: Path, small: Large) -> None:
    large = make_large(fixture_path("mail-6.1.dat"), tmp_path, 2 * small.events + 1)
    assert (small.rounds, large.rounds) == (1, 3)
    assert open_trace(large.path).timeline().num_rows == large.events == 3 * small.events
    assert large.size == large.path.stat().st_size


def test_each_round_has_the_same_events_later(tmp_path: Path, small: Large) -> None:
    enlarge(small.path, tmp_path / "two.dat", 2)
    once, twice = open_trace(small.path).timeline(), open_trace(tmp_path / "two.dat").timeline()
    rounds = twice.slice(0, once.num_rows), twice.slice(once.num_rows)
    for name in ("cpu", "tid", "event"):
        assert [part[name].to_pylist() for part in rounds] == [once[name].to_pylist()] * 2
    times, first, second = (part["ts"].to_numpy() for part in (once, *rounds))
    assert (first == times).all()
    assert len(set(second - first)) == 1
    assert second[0] > first[-1]
    assert open_trace(tmp_path / "two.dat").losses.num_rows == 0


@needs_trace_cmd
def test_trace_cmd_reads_the_large_trace_to_its_end(tmp_path: Path, small: Large) -> None:
    enlarge(small.path, tmp_path / "two.dat", 2)
    lines = subprocess.run(
        ["trace-cmd", "report", "-R", tmp_path / "two.dat"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert sum(": " in line for line in lines) == 2 * small.events


def test_program_over_libtracecmd_reads_the_numbers_that_the_tables_hold(tmp_path: Path, small: Large) -> None:
    try:
        peer = libtracecmd(tmp_path)
    except Missing as reason:
        pytest.skip(str(reason))
    printed = subprocess.run([*peer.command, small.path], capture_output=True, text=True, check=True).stdout
    tables = open_trace(small.path).tables()
    numbers = sum(unsigned_sum(table[name]) for table in tables.values() for name in table.column_names[4:])
    header = sum(unsigned_sum(table[name]) for table in tables.values() for name in ("ts", "cpu", "tid"))
    assert [int(number) for number in printed.split()] == [small.events, numbers % (1 << 64), header % (1 << 64)]


def unsigned_sum(column: pa.ChunkedArray) -> int:
    """The sum of a column of integers by their bits; nothing of a column that holds anything else."""
    if not pa.types.is_integer(column.type):
        return 0
    values = column.to_numpy()
    return sum(values.view(f"u{values.itemsize}").astype(object)) if values.size else 0


NOTHING = Peer("a peer", "a peer that reads nothing", (sys.executable, "-c", ""), target=1000)
BROKEN = Peer("a broken one", "a broken one", ("false",), target=1)


def mail(name: str = "mail-6.1.dat", events: int = 1258) -> Large:
    return Large(fixture_path(name), name, "trace.dat", 1, events, fixture_path(name).stat().st_size)


def test_readers_take_turns_and_only_every_second_run_counts(tmp_path: Path) -> None:
    done: list[str] = []
    first, second = Action("first", lambda _: done.append("first")), Action("second", lambda _: done.append("second"))
    taken, failed = in_turn([first, BROKEN, second], tmp_path, 2)
    assert done == ["first", "first", "second", "second"] * 2
    assert {reader.what: len(seconds) for reader, seconds in taken.items()} == {"first": 2, "second": 2}
    assert failed == ["a broken one: ended with exit code 1"]


def test_own_reading_is_timed_by_the_clock_that_is_named() -> None:
    ticks = iter([5.0, 7.5])
    assert Ours("", clock=lambda: next(ticks)).seconds(mail().path) == 2.5


def test_fresh_process_reads_what_is_asked_for() -> None:
    assert Ours("", 3, "anon_new").command[1:] == ("-m", "benchmarks.reading", "--threads", "3", "--kind", "anon_new")
    assert Ours("").command[1:] == ("-m", "benchmarks.reading")
    path = str(mail().path)
    assert {name: table.num_rows for name, table in main([path, "--kind", "anon_new"]).items()} == {"anon_new": 24}
    assert sum(table.num_rows for table in main([path]).values()) == 1258
    assert run([*Ours("", 1, "anon_new").command, path]).code == 0


def test_bound_counts_the_tables_and_their_events() -> None:
    # `gup_fast_done` occurs once: it has ts, cpu, tid and a few columns more.
    one, all_of_it = Ours("", kind="gup_fast_done").bound(mail().path), Ours("").bound(mail().path)
    assert 16 + 8 + 4 + 4 < one - (256 << 20) < 10_000
    assert all_of_it - (256 << 20) > 1258 * (16 + 8 + 4 + 4)


def test_parsers_are_timed_in_turn_with_peers() -> None:
    figures, failed = measure_parsers(mail(), [NOTHING, BROKEN], 2)
    one, two, peer = figures
    assert [figure.what for figure in figures] == [
        "trace.dat, every field, to Arrow: one thread",
        "trace.dat, every field, to Arrow: two threads",
        "a peer that reads nothing",
    ]
    assert failed == ["a broken one: ended with exit code 1"]
    for each in figures:
        assert len(each.seconds) == 2
        assert min(each.seconds) > 0
        assert 1_000_000 < (each.max_anon or 0) < (each.max_rss or 0)
    assert one.against == (Speed("a peer", peer.median / one.median, 1000),)
    assert two.against == (Speed("one thread", one.median / two.median, 1.7),)
    assert one.bound == two.bound == Ours("", 1).bound(mail().path)
    assert (peer.bound, peer.against) == (None, ())


def test_one_kind_is_compared_with_counting() -> None:
    kind, counts = measure_kind(mail(), 1)
    assert kind.against == (Speed("counts alone", counts.median / kind.median),)
    assert kind.bound == Ours("", kind="anon_new").bound(mail().path)


def test_metadata_touch_their_own_pages_alone(tmp_path: Path, small: Large) -> None:
    enlarge(small.path, tmp_path / "many.dat", 100)
    many = replace(small, path=tmp_path / "many.dat", size=(tmp_path / "many.dat").stat().st_size)
    assert mapped(many.path) == 0
    trace = open_trace(many.path)
    alone = mapped(many.path)
    assert 0 < alone < many.size / 5
    trace.counts()
    assert mapped(many.path) > many.size / 2
    del trace
    assert f": {alone / 1e3:.0f} kB of the file" in measure_metadata(many, 1).what


def test_memory_is_measured_of_all_events_and_of_one_kind(tmp_path: Path, small: Large) -> None:
    other = packed(small, tmp_path / "packed.dat")
    assert open_trace(other.path).metadata.codec == "zstd"
    assert open_trace(other.path).tables() == open_trace(small.path).tables()
    figures = measure_memory([other])
    assert [figure.what for figure in figures] == [
        "trace.dat of version 7, zstd, every field: memory",
        "trace.dat of version 7, zstd, only `anon_new`: memory",
    ]
    for each in figures:
        assert 10_000_000 < (each.max_anon or 0) < (each.bound or 0)
        assert (each.events, each.size) == (1258, other.size)


@needs_trace_cmd
def test_text_is_timed_by_the_clock_and_by_processor_time(tmp_path: Path) -> None:
    text = make_text(fixture_path("mail-6.1.dat"), tmp_path, 2000)
    assert (text.rounds, text.events) == (2, 2 * 1258)
    assert sum(open_trace(text.path).counts().values()) == text.events
    clock, processor = measure_text(text, 1)
    assert (clock.what.rpartition(": ")[2], processor.what.rpartition(": ")[2]) == ("by the clock", "processor time")
    assert clock.against == (Speed("1 million lines/s", text.events / clock.seconds[0] / 1e6, 1),)


def test_large_perf_data_has_its_events_again_and_again_each_later(tmp_path: Path) -> None:
    recording = fixture_path("mail-6.1.perf.data")
    large = make_large_perf(recording, tmp_path / "perf.data", 1500)
    once, again = open_trace(recording), open_trace(large.path)
    assert large.rounds > 1
    for name in ("rmap_remove", "mm_fault", "cow_fault"):
        rows = once.counts()[name]
        assert again.counts()[name] == large.rounds * rows
        assert again.table(name).drop(["ts", "comm"]).slice(0, rows) == once.table(name).drop(["ts", "comm"])
        times = again.table(name)["ts"].to_numpy().reshape(large.rounds, -1)
        assert (times[0] == once.table(name)["ts"].to_numpy()).all()
        assert len(set((times[1] - times[0]).tolist())) == 1
        assert times[1, 0] > times[0, -1]


def test_perf_data_are_timed_in_turn_with_a_peer() -> None:
    (ours, peer), failed = measure_perf(mail("mail-6.1.perf.data"), [NOTHING, BROKEN], 1)
    assert ours.against == (Speed("a peer", peer.median / ours.median, 1000),)
    assert failed == ["a broken one: ended with exit code 1"]


@pytest.mark.skipif(shutil.which("perf") is None, reason="needs perf")
def test_perf_script_reads_the_large_perf_data(tmp_path: Path) -> None:
    large = make_large_perf(fixture_path("mail-6.1.perf.data"), tmp_path / "perf.data", 1500)
    assert perf_script().seconds(large.path) > 0
    printed = subprocess.run(["perf", "script", "-i", large.path], capture_output=True, text=True, check=True).stdout
    assert sum("rmap_remove:" in line for line in printed.splitlines()) == open_trace(large.path).counts()["rmap_remove"]


def test_replay_is_timed_stage_by_stage() -> None:
    figures = measure_replay(fixture_path("mail-6.1.dat"), 1)
    *alone, together = figures[2:]
    assert [figure.what for figure in alone] == [f"the history under `{name}`" for name in POLICIES]
    assert together.what.startswith(f"the history under all {len(POLICIES)} policies; ")
    for figure in alone:
        (speed,) = figure.against
        assert figure.events
        assert speed.than == "10 million memory events/s"
        assert speed.times == pytest.approx(figure.events / figure.median / 1e7)
    raw, memory, *_ = (figure.events for figure in figures)
    assert raw == sum(open_trace(fixture_path("mail-6.1.dat")).counts().values())
    assert all(figure.events == memory and figure.median > 0 for figure in figures[1:])


def test_only_the_compiler_meets_an_empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, bool]] = []

    def note(command: Sequence[str], env: Mapping[str, str]) -> Finished:
        cache = Path(env["XDG_CACHE_HOME"])
        asked.append((command[-1], env["TRACETOOL_LOOPS"], any(cache.iterdir())))
        if env["TRACETOOL_LOOPS"] == "compiled":
            (cache / "loops").touch()
        return Finished(0, 1.0, 0, 0)

    monkeypatch.setattr(start, "run", note)
    assert [len(figure.seconds) for figure in start.measure_start(Path("short.dat"), 2)] == [2, 2, 1, 2]
    short = [("short.dat", "auto", False)] * 2 + [("short.dat", "compiled", False)] + [("short.dat", "compiled", True)] * 2
    assert asked == [("import tracetool", "auto", False)] * 2 + short


def test_large_trace_is_first_read_with_an_empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bool] = []

    def note(command: Sequence[str], env: Mapping[str, str]) -> Finished:
        assert (command[-1], env["TRACETOOL_LOOPS"]) == ("large.dat", "auto")
        cache = Path(env["XDG_CACHE_HOME"])
        found.append(any(cache.iterdir()))
        (cache / "loops").touch()
        return Finished(0, 1.0, 0, 0)

    monkeypatch.setattr(start, "run", note)
    assert [len(figure.seconds) for figure in start.measure_first_reading(Path("large.dat"), 2)] == [1, 2]
    assert found == [False, True, True]


def test_start_that_fails_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="exit codes"):
        start.measure_start(tmp_path / "missing.dat", 1)


def test_memory_of_a_command_is_its_own() -> None:
    much = np.ones(300_000_000, np.uint8)
    finished = run([sys.executable, "-S", "-c", "kept = b'x' * 50_000_000; import time; time.sleep(0.1)"], anon=True)
    assert finished.code == 0
    assert finished.seconds > 0.1
    assert 50_000_000 < finished.max_anon < finished.max_rss < much.nbytes


def test_memory_of_its_own_is_looked_at_when_asked_for_alone() -> None:
    assert run(["true"]).max_anon == 0


def test_peers_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert all_peers(tmp_path) == ([], ["libtracecmd: needs cc and pkg-config", "trace-cmd report: needs trace-cmd"])
    assert found(perf_script) == ([], ["perf script: needs perf"])


def test_without_trace_cmd_the_rest_is_still_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(program, "measure_start", lambda _path, runs: [Figure("first use", "start", [1.0] * runs)])
    monkeypatch.setattr(program, "measure_synth", lambda _events, runs: [Figure("synth", "made", [1.0] * runs)])
    # It is set there, and should not stay.
    monkeypatch.setenv("TRACETOOL_LOOPS", "auto")
    results = program.measure(1, 3)
    assert [figure.what for figure in results.figures] == ["perf.data, every field, to Arrow", "made", "start"]
    assert ["trace-cmd" in results.left_out[0], *results.left_out[1:]] == [True, "perf script: needs perf"]
    assert "start | 1 s" in render(results)


def test_report_divides_by_medians_and_says_which_targets_are_met() -> None:
    lines = render(RESULTS).splitlines()
    ours = "theirs 15.00 (4: met); those of others 19.99 (20: missed); nothing 0.50"
    assert f"| ours | 0.2 s | 3.00 | 15 | 0.30 | {ours} | 5 MB (5 MB: met) |" in lines
    assert "| theirs | 3 s | 3.00 | 1 | 0.02 |  | 1 MB |" in lines
    assert "| too much | 1 s |  |  |  |  | 5 MB (5 MB: missed) |" in lines
    assert "| start | 0.0301 s |  |  |  |  |  |" in lines
    assert "Not measured: a third: not here." in lines
    assert "trace.dat: `some.dat` 3 times over, 60 MB" in render(RESULTS)


def test_results_come_back_from_their_file() -> None:
    assert Results.from_json(RESULTS.to_json()) == RESULTS


def test_readme_takes_new_figures_and_keeps_the_rest() -> None:
    readme = "# Name\n\n<!-- speed: `make bench` writes this part -->\nold\n<!-- end of speed -->\n\nmore\n"
    changed = into_readme(readme, RESULTS)
    assert changed == readme.replace("old\n", render(RESULTS))
    assert into_readme(changed, replace(RESULTS, left_out=[])) == readme.replace("old\n", render(replace(RESULTS, left_out=[])))
    assert into_readme("no place", RESULTS) == "no place"


def test_results_elsewhere_leave_the_readme_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text(into_readme_place())
    monkeypatch.setattr(program, "README", tmp_path / "README.md")
    monkeypatch.setattr(program, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(program, "measure", lambda _events, _runs: RESULTS)
    program.main(["--out", str(tmp_path / "mine.json")])
    assert Results.from_json((tmp_path / "mine.json").read_text()) == RESULTS
    assert (tmp_path / "README.md").read_text() == into_readme_place()
    program.main([])
    assert Results.from_json((tmp_path / "results.json").read_text()) == RESULTS
    assert (tmp_path / "README.md").read_text() == into_readme(into_readme_place(), RESULTS)
    assert capsys.readouterr().out == 2 * render(RESULTS)


def into_readme_place() -> str:
    return "<!-- speed: `make bench` writes this part -->\n<!-- end of speed -->\n"


def test_readme_quotes_the_results_file() -> None:
    results = Results.from_json((PROJECT / "benchmarks" / "results.json").read_text())
    readme = (PROJECT / "README.md").read_text()
    assert render(results) in readme


def test_results_file_describes_its_machine_and_holds_no_path() -> None:
    text = (PROJECT / "benchmarks" / "results.json").read_text()
    results = Results.from_json(text)
    assert results.to_json() == text
    assert results.machine.keys() == describe_machine().keys()
    assert "/" not in json.dumps([results.machine, results.traces, results.left_out])
