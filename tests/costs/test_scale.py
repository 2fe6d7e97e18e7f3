"""What snapshots would cost at another size: what is measured of them, the model against chance itself, and a projection by hand."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import Any, Final

import numpy as np
import polars as pl
import pytest

import tracetool
from conftest import fixture_path, truth_of
from costs.recorded import trace_of
from engine.build import BASE, CLONE_THREAD, CLONE_VM, Huge, Machine, Process, address
from tracetool.costs import prices, scale
from tracetool.costs.scale import Ask
from tracetool.costs.timing import CopyPrice, Hardware
from tracetool.errors import Unanswerable, Unusable

GIB: Final = 1 << 30
TABLE: Final = prices.load(None)
HARDWARE: Final = Hardware("hardware", "the test says so", real=True)
UNKNOWN: Final = Hardware("unknown", "the test says so", real=False)
MEASURED: Final = CopyPrice(2_000, 1_500, 2_500, "measured", 99, 99, "")
ASSUMED: Final = replace(MEASURED, time="assumed")


# --- what is asked --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ask"),
    [
        ("64GiB", Ask(64 * GIB)),
        ("64GiB,20000/s", Ask(64 * GIB, 20_000)),
        ("20000/s,64GiB", Ask(64 * GIB, 20_000)),
        ("1.5 GiB, 20_000 /s, 120 s", Ask(3 * GIB // 2, 20_000, 120)),
        ("512MiB,0.5/s,0.25s", Ask(512 << 20, 0.5, 0.25)),
        ("8192B", Ask(8192)),
        ("2tb", Ask(2 * 10**12)),
        ("64gb", Ask(64 * 10**9)),
        ("1KiB,9KiB", None),
        ("64", None),
        ("64GiB,fast", None),
        ("20000/s", None),
        ("4096B", None),
        ("-64GiB", None),
        ("64GiB,1/s,2/s", None),
        ("9999999999TiB", None),
        ("", None),
    ],
)
def test_what_is_asked_for(text: str, ask: Ask | None) -> None:
    if ask is not None:
        assert scale.parse(text) == ask
        return
    with pytest.raises(Unusable) as raised:
        scale.parse(text)
    assert "--scale 64GiB,20000/s" in str(raised.value.hint)


# --- the model ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pages", "writes"), [(1_000, 10), (1_000, 700), (1_000, 5_000), (50, 50), (2, 1)])
def test_the_model_is_what_chance_gives(pages: int, writes: int) -> None:
    """Random writes, counted: on average as many different pages are hit as the model says."""
    random = np.random.default_rng(pages + writes)
    hit = [len(np.unique(random.integers(0, pages, writes))) for _ in range(400)]
    assert scale.distinct(pages, writes) == pytest.approx(np.mean(hit), abs=4 * float(np.std(hit)) / 20 + 1e-9)


@pytest.mark.parametrize(("pages", "written"), [(1_000, 1), (1_000, 500), (1_000, 999), (2, 1), (1 << 24, 1 << 20)])
def test_fitting_undoes_the_model(pages: int, written: int) -> None:
    assert scale.distinct(pages, scale.writes_for(pages, written)) == pytest.approx(written, rel=1e-9)


def test_pages_that_were_all_written_fit_a_number() -> None:
    assert 1_000 < scale.writes_for(1_000, 1_000) < 1_000_000
    assert scale.writes_for(1, 1) == 1
    assert scale.distinct(1, 50) == 1


def test_a_small_snapshot_tells_what_a_larger_one_copies() -> None:
    """A store that writes at random at one rate: what snapshots of 2,000 pages show foretells those of 16,000 that last as long for each
    page, within a percent.
    """
    random = np.random.default_rng(5)
    small = np.mean([len(np.unique(random.integers(0, 2_000, 600))) for _ in range(50)])
    large = np.mean([len(np.unique(random.integers(0, 16_000, 600 * 8))) for _ in range(50)])
    frame = snapshot_rows((2_000, round(float(small)), 6.0))
    found = scale.project(frame, Ask(16_000 * 4096), MEASURED, TABLE, HARDWARE)
    assert found.to_seconds == 48
    assert found.copies == pytest.approx(large, rel=0.01)


# --- what is measured -----------------------------------------------------------------------------------------------------------------


class Store(Machine):
    """A process with eight pages of data, which forks and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.parent = self.spawn(10)
        for number in range(8):
            self.touch(self.parent, address(number), 0x2000 + number)
        self.new = 0x3000

    def snapshot(self, tid: int) -> Process:
        return self.fork(self.parent, tid, [(address(0), 8)])

    def copy(self, p: Process, *numbers: int) -> None:
        for number in numbers:
            self.new += 1
            self.cow(p, address(number), 0x2000 + number, self.new)


def snapshots(machine: Machine, policy: str | None = None) -> list[dict[str, Any]]:
    trace = trace_of(machine)
    return scale.snapshots(trace, trace.replay(policy or "observed")).to_dicts()


def test_pages_copied_in_either_process_until_the_child_ends() -> None:
    """Before the fork nothing counts, nor after the child's end; nor what is not of the areas that fork copied."""
    m = Store()
    child = m.snapshot(11)
    m.copy(m.parent, 0, 1, 2)
    m.copy(child, 5)
    m.cow(child, address(0), 0x2000)
    m.exit(child, [0x2000, 0x2001, 0x2002, m.new, 0x2003, 0x2004, 0x2006, 0x2007])
    m.cow(m.parent, address(6), 0x2006, 0x4000)
    (row,) = snapshots(m)
    assert (row["pid"], row["child_pid"], row["pages"], row["whole"], row["written"]) == (10, 11, 8, True, 4)
    assert row["share"] == 4 / 8
    assert row["writes"] == pytest.approx(np.log(1 - 4 / 8) / np.log(1 - 1 / 8))
    assert row["threads"] == 1


def test_copies_of_the_first_half_are_told_apart() -> None:
    m = Store()
    child = m.snapshot(11)
    m.copy(m.parent, 0, 1, 2)
    m.event("print", 10, buf="later", later_ns=10_000_000)
    m.copy(m.parent, 3)
    m.exit(child, [])
    (row,) = snapshots(m)
    assert (row["written"], row["early"]) == (4, 3)


def test_a_page_that_is_copied_twice_counts_once() -> None:
    """Two snapshots at once: the parent copies a page for the first, and that copy for the second."""
    m = Store()
    first = m.snapshot(11)
    m.copy(m.parent, 0)
    copied = m.new
    second = m.snapshot(12)
    m.cow(m.parent, address(0), copied, 0x5000)
    m.exit(second, [])
    m.exit(first, [])
    rows = {row["child_pid"]: row["written"] for row in snapshots(m)}
    assert rows == {11: 1, 12: 1}


def test_copies_of_another_process_do_not_count() -> None:
    m = Store()
    other = m.spawn(20)
    m.touch(other, BASE + 0x100_0000, 0x6000)
    m.snapshot(11)
    m.fork(other, 21, [(BASE + 0x100_0000, 1)])
    m.cow(other, BASE + 0x100_0000, 0x6000, 0x6001)
    assert {row["child_pid"]: row["written"] for row in snapshots(m)} == {11: 0, 21: 1}


def test_copies_of_files_do_not_count() -> None:
    m = Store()
    m.snapshot(11)
    m.cow(m.parent, address(50), 0x9000, 0x9001)
    m.copy(m.parent, 0)
    trace = trace_of(m)
    assert trace.replay().fault_rows["reason"].to_list() == ["not-anonymous", "another-mapping"]
    assert [row["written"] for row in snapshots(m)] == [1]


def test_a_child_that_execs_is_no_snapshot() -> None:
    m = Store()
    child = m.snapshot(11)
    m.spawn(11)
    m.event("mm_exit", 11, mm=child.mm)
    m.snapshot(12)
    assert [row["child_pid"] for row in snapshots(m)] == [12]


def test_the_next_life_of_a_number_is_no_exec() -> None:
    m = Store()
    child = m.snapshot(11)
    m.exit(child, [])
    again = m.snapshot(11)
    m.exit(again, [])
    assert [row["child_pid"] for row in snapshots(m)] == [11, 11]


def test_threads_are_no_snapshots_and_are_counted() -> None:
    m = Store()
    m.new_task(m.parent, 30, CLONE_VM | CLONE_THREAD)
    m.snapshot(11)
    (row,) = snapshots(m)
    assert (row["child_pid"], row["threads"]) == (11, 2)


def test_a_snapshot_that_the_trace_does_not_see_end() -> None:
    m = Store()
    m.snapshot(11)
    m.copy(m.parent, 0)
    end = m.event("print", 10, buf="end", later_ns=1_000_000)
    (row,) = snapshots(m)
    assert (row["to_ns"], row["written"]) == (end, 1)


def test_how_long_fork_took() -> None:
    m = Store()
    child = m.older(11)
    m.fork_range(m.parent, child, address(0), 4)
    m.fork_range(m.parent, child, address(4), 4)
    m.new_task(m.parent, 11)
    # Two areas of 1000 ns, 1000 ns apart.
    assert [row["fork_ns"] for row in snapshots(m)] == [3_000]


def test_of_an_older_process_what_its_child_unmaps_counts() -> None:
    """Of eight pages that it shared the trace names one; the child unmaps all, and one that is its own."""
    m = Machine()
    parent = m.older(10)
    m.fault(parent, address(20), 0x254)
    child = m.fork(parent, 11, [(address(0), 8)])
    m.cow(parent, address(0), 0x2000, 0x3000)
    m.touch(child, address(30), 0x4000)
    m.exit(child, [*range(0x2000, 0x2008), 0x4000])
    (row,) = snapshots(m)
    assert (row["pages"], row["whole"], row["written"]) == (8, False, 1)


def test_what_the_next_life_of_its_number_unmaps_does_not_count() -> None:
    m = Machine()
    parent = m.older(10)
    m.fault(parent, address(20), 0x254)
    for pages in (8, 5):
        child = m.fork(parent, 11, [(address(0), 8)])
        m.exit(child, range(0x2000, 0x2000 + pages))
    assert [row["pages"] for row in snapshots(m)] == [8, 5]


def test_of_an_older_process_huge_pages_count_in_base_pages() -> None:
    m = Huge()
    parent = m.older(10)
    m.fault(parent, address(20), 0x254)
    child = m.fork(parent, 11, [(BASE, 512)])
    m.exit_huge(child)
    assert [(row["pages"], row["whole"]) for row in snapshots(m)] == [(512, False)]


def test_under_a_policy_its_copies_count() -> None:
    """A page that a read reference holds, the child gone from it: page-count copies, mapcount writes in place."""
    m = Store()
    m.vmsplice(m.parent, address(0), 0x2000)
    child = m.snapshot(11)
    m.dontneed(child, address(0), 0x2000)
    m.cow(m.parent, address(0), 0x2000, 0x3000)
    m.exit(child, [])
    assert [[row["written"] for row in snapshots(m, policy)] for policy in ("page-count", "mapcount")] == [[1], [0]]


def test_a_trace_without_forks_has_no_snapshots() -> None:
    m = Machine()
    m.spawn(10)
    assert snapshots(m) == []


def test_the_recorded_snapshot() -> None:
    """recording.md: 256 pages, fork, the parent writes 100 at random while the child lives: the truth file says which it copied."""
    path = fixture_path("snapshot-6.1.dat")
    trace = tracetool.open(path)
    (row,) = scale.snapshots(trace, trace.replay()).filter(pl.col("pages") >= 256).to_dicts()
    with truth_of(path).open(encoding="ascii") as file:
        frames: dict[tuple[str, int], dict[str, str]] = {}
        for line in csv.reader(file, delimiter="\t"):
            if line[1] != "RESULT":
                frames.setdefault((line[1], int(line[2])), {})[line[3]] = line[4]
    labels = {label: pages for (label, pid), pages in frames.items() if pid == row["pid"]}
    first, *_ = labels.values()
    during = [pages for pages in labels.values() if sum(pages[at] != first[at] for at in pages) not in (0, 256)]
    copied = sum(during[0][at] != first[at] for at in first)
    assert 256 <= row["pages"] <= 300
    # The stack and what the C library keeps are written, too.
    assert copied <= row["written"] <= copied + 8
    assert row["writes"] == pytest.approx(100, rel=0.2)


# --- the projection -------------------------------------------------------------------------------------------------------------------


def snapshot_rows(*rows: tuple[int, int, float], **others: Any) -> pl.DataFrame:
    """Snapshots of (pages, written, seconds), of one process unless told otherwise."""
    columns = {
        "pid": 10, "comm": "redis-server", "child_pid": 11, "from_ns": 0, "to_ns": 0, "whole": True, "early": 0, "fork_ns": 1_000,
        "threads": 1, **others,
    }  # fmt: skip
    frame = pl.DataFrame(rows, schema={"pages": pl.Int64, "written": pl.Int64, "seconds": pl.Float64}, orient="row")
    fitted = [scale.writes_for(pages, written) for pages, written, _ in rows]
    return frame.with_columns(
        *(pl.Series(name, value if isinstance(value, list) else [value] * len(rows)) for name, value in columns.items()),
        pl.Series("writes", fitted),
        share=pl.col("written") / pl.col("pages"),
    )


def test_a_projection_by_hand() -> None:
    """1,000 pages in 2 s, 500 of them written; asked for 4,000 pages, so 8 s, and 1,000 writes a second: 8,000 writes."""
    found = scale.project(snapshot_rows((1_000, 500, 2.0), early=300), Ask(4_000 * 4096, 1_000), MEASURED, TABLE, HARDWARE)
    assert (found.pages, found.written, found.share, found.seconds) == (1_000, 500, 0.5, 2)
    assert found.rate == pytest.approx(np.log(0.5) / np.log(0.999) / 2)
    assert (found.to_pages, found.to_seconds, found.to_rate, found.to_writes) == (4_000, 8, 1_000, 8_000)
    copies = 4_000 * (1 - (1 - 1 / 4_000) ** 8_000)
    assert found.copies == pytest.approx(copies)
    assert found.copied_bytes == pytest.approx(copies * 4096)
    assert (found.time_ns, found.low_ns, found.high_ns) == pytest.approx((copies * 2_000, copies * 1_500, copies * 2_500))
    assert found.by_half == 0.6
    # Half of the writes hit more than half of the pages: 1 - sqrt(1/2) of all, of half that were written.
    assert found.by_half_model == pytest.approx(2 - 2**0.5)


def test_without_a_rate_that_of_the_trace_goes_on() -> None:
    """The same size, the same share: what was measured comes out."""
    found = scale.project(snapshot_rows((1_000, 500, 2.0)), Ask(1_000 * 4096), MEASURED, TABLE, HARDWARE)
    assert (found.to_seconds, found.copies) == pytest.approx((2, 500))


def test_how_long_a_snapshot_lasts_can_be_told() -> None:
    found = scale.project(snapshot_rows((1_000, 500, 2.0)), Ask(4_000 * 4096, 1_000, 3), MEASURED, TABLE, HARDWARE)
    assert (found.to_seconds, found.to_writes) == (3, 3_000)


def test_all_snapshots_of_the_largest_process_count() -> None:
    frame = snapshot_rows((1_000, 500, 2.0), (3_000, 100, 4.0), (3_500, 7, 1.0), pid=[10, 10, 20])
    found = scale.project(frame, Ask(GIB), MEASURED, TABLE, HARDWARE)
    assert (found.pid, found.snapshots, found.pages, found.written, found.seconds) == (10, 2, 4_000, 600, 6)


def test_one_snapshot_that_is_not_whole_makes_the_sum_an_upper_bound() -> None:
    frame = snapshot_rows((1_000, 500, 2.0), (1_000, 500, 2.0), whole=[True, False])
    found = scale.project(frame, Ask(GIB), MEASURED, TABLE, HARDWARE)
    assert not found.whole
    assert "at most: the process is older than the trace" in "\n".join(found.lines())


def test_fork_is_measured_on_hardware() -> None:
    """1,000 ns for 1,000 pages and 3,000 ns for 1,000: 2 ns a page, between 1 and 3."""
    frame = snapshot_rows((1_000, 5, 2.0), (1_000, 5, 2.0), fork_ns=[1_000, 3_000])
    found = scale.project(frame, Ask(4_000 * 4096), MEASURED, TABLE, HARDWARE)
    assert (found.fork_ns, found.fork_low_ns, found.fork_high_ns, found.fork_time) == (8_000, 4_000, 12_000, "measured")


@pytest.mark.parametrize("fork_ns", [1_000, None])
def test_fork_is_assumed_elsewhere(fork_ns: int | None) -> None:
    """28 ms for a GiB."""
    frame = snapshot_rows((1_000, 5, 2.0)).with_columns(fork_ns=pl.lit(fork_ns, pl.Int64))
    found = scale.project(frame, Ask(2 * GIB), MEASURED, TABLE, UNKNOWN if fork_ns else HARDWARE)
    assert (found.fork_ns, found.fork_time) == (56_000_000, "assumed")


@pytest.mark.parametrize(("price", "threads", "told"), [(ASSUMED, 3, 1_500 + 200), (ASSUMED, 1, 0), (MEASURED, 3, 0)])
def test_an_assumed_copy_tells_other_cpus(price: CopyPrice, threads: int, told: int) -> None:
    """On two CPUs; what is measured holds it already."""
    found = scale.project(snapshot_rows((1_000, 500, 2.0), threads=threads), Ask(GIB), price, TABLE, UNKNOWN, cpus=2)
    assert (found.time_ns, found.low_ns) == pytest.approx((found.copies * (2_000 + told), found.copies * (1_500 + told)))
    assert ("to tell other CPUs" in "\n".join(found.lines())) == bool(told)


def test_the_words_say_what_is_measured_and_what_is_assumed() -> None:
    what_if, measured, model, fit, projected, fork = scale.project(
        snapshot_rows((1_000, 500, 2.0), early=300), Ask(64 * GIB, 20_000, 100), ASSUMED, TABLE, UNKNOWN
    ).lines()
    assert what_if == "what if redis-server 10 had 64 GiB and 20,000 writes to pages a second:"
    assert measured.startswith("measured: 1 snapshot shared 1,000 pages, 500 of them were written (50 %) in 2 s, as by 693 writes")
    assert "recorded on unknown hardware" in measured
    assert model.startswith("model: ")
    assert "N(1-(1-1/N)^w)" in model
    assert fit.startswith("fit: 60 % of the copies were made in the first half of a snapshot; by the model 59 % are")
    # 2,000,000 writes to 16,777,216 pages hit 1,885,390 of them.
    assert "a snapshot of 100 s with 2,000,000 writes copies 1,885,390 pages (11 %): 7.19 GiB copied" in projected
    assert "3.77 s of copying in faults (2.83 s to 4.71 s; price assumed)" in projected
    assert fork == "fork holds the process up for 1.79 s (576 ms to 2.05 s; assumed)"


def test_without_snapshots_there_is_nothing_to_project() -> None:
    with pytest.raises(Unanswerable) as raised:
        scale.project(snapshot_rows(), Ask(GIB), MEASURED, TABLE, HARDWARE)
    assert "BGSAVE" in str(raised.value.hint)
