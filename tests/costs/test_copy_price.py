"""The price of one more copy comes out as it was put in, with an interval that covers it; else it is assumed, and says why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pytest

import tracetool
from conftest import fixture_path
from costs.recorded import COPY, REUSE, Event, faults_of, probing, run, times
from tracetool.costs import prices, timing
from tracetool.costs.timing import FaultTimes, Hardware, ProbeCost

HARDWARE: Final = Hardware("hardware", "the test says so", real=True)
EMULATION: Final = Hardware("emulated", "the test says so", real=False)
TABLE: Final = prices.load(None)
RECORDINGS: Final = ["snapshot-6.1", "mail-5.10", "mail-7.2", "random1-6.1"]


def test_known_times_give_the_price_exactly() -> None:
    found = timing.price(faults_of([2_900.0] * 50, [900.0] * 40), TABLE, HARDWARE)
    assert (found.extra_ns, found.low_ns, found.high_ns) == (2_000, 2_000, 2_000)
    assert (found.time, found.copies, found.reuses) == ("measured", 50, 40)


def test_a_made_up_recording_gives_the_price_exactly() -> None:
    """From the events to the price: copies of 2500 ns less 3 x 200 + 100 ns, reuses of 900 ns."""
    events: list[Event] = []
    for number in range(60):
        events += run(100_000 * number, 7, *COPY) + run(100_000 * number + 50_000, 7, *REUSE)
    rows = [("cow_fault", number, ("copy", "reuse")[number % 2]) for number in range(120)]
    found = timing.price(times([*events, *probing(90_000_000, 200, 100)], rows), TABLE, HARDWARE)
    assert (found.extra_ns, found.low_ns, found.high_ns, found.time) == (900, 900, 900, "measured")
    assert "60 copies take 2.5 us and 60 reuses 0.9 us" in found.why


def test_without_calibration_it_says_so() -> None:
    events: list[Event] = []
    for number in range(60):
        events += run(100_000 * number, 7, *COPY) + run(100_000 * number + 50_000, 7, *REUSE)
    found = times(events, [("cow_fault", number, ("copy", "reuse")[number % 2]) for number in range(120)])
    priced = timing.price(found, TABLE, HARDWARE)
    assert not found.corrected
    assert (priced.extra_ns, priced.time) == (1_600, "measured, uncorrected")
    assert "cannot be told apart" in priced.why


def test_a_kind_without_calibration_leaves_all_uncorrected() -> None:
    """The kprobes alone would come off, and the tracepoint not: a price that is neither."""
    found = times([*run(0, 7, *COPY), *run(9_000_000, 77, *[(200, "rmap_remove")] * 40)], [("cow_fault", 0, "copy")])
    assert "kprobe" in found.probes
    assert (found.corrected, found.frame["net_ns"].to_list()) == (False, [2_500])


@pytest.mark.parametrize(
    ("found", "on", "why"),
    [
        pytest.param(faults_of([], []), HARDWARE, "no COW fault has both its ends", id="no ends"),
        pytest.param(faults_of([9_000.0] * 19, [100.0] * 99), HARDWARE, "19 copies and 99 reuses tell their time", id="few copies"),
        pytest.param(faults_of([9_000.0] * 99, [100.0] * 19), HARDWARE, "99 copies and 19 reuses tell their time", id="few reuses"),
        pytest.param(faults_of([9_000.0] * 99, [100.0] * 99), EMULATION, "recorded on emulation", id="emulation"),
        pytest.param(faults_of([900.0] * 99, [900.0] * 99), HARDWARE, "no copy takes longer", id="no difference"),
    ],
)
def test_else_the_price_is_the_cost_tables(found: FaultTimes, on: Hardware, why: str) -> None:
    priced = timing.price(found, TABLE, on)
    assert (priced.extra_ns, priced.low_ns, priced.high_ns) == pytest.approx((2_000, 1_100, 5_270))
    assert priced.time == "assumed"
    assert why in priced.why


def test_a_trace_without_faults_has_no_price_of_its_own() -> None:
    assert timing.price(times([], []), TABLE, HARDWARE).time == "assumed"


def test_under_emulation_what_was_measured_is_told_beside_it() -> None:
    why = timing.price(faults_of([37_000.0] * 99, [3_000.0] * 99), TABLE, EMULATION).why
    assert "99 copies take 37 us and 99 reuses 3 us" in why


@pytest.mark.parametrize("name", [*RECORDINGS, "snapshot-pipe-6.1.perf"])
def test_recordings_made_under_emulation_price_nothing(name: str) -> None:
    """fixtures/README.md: all of them were recorded under emulation."""
    path = fixture_path(f"{name}.dat" if not name.endswith("perf") else f"{name}.data")
    trace = tracetool.open(path)
    line = timing.timeline(trace)
    on = timing.hardware(trace, line)
    assert not on.real
    assert timing.price(timing.fault_times(trace, line), TABLE, on).time == "assumed"


def test_copies_of_files_are_not_compared() -> None:
    events = [*run(0, 7, *COPY), *run(10_000, 7, *COPY)]
    found = times(events, [("cow_fault", 0, "copy", "not-anonymous"), ("cow_fault", 1, "copy")])
    assert found.of("copy")["event"].to_list() == [101]


def test_the_distribution_of_a_decision() -> None:
    found = faults_of([float(n) for n in range(1, 102)], [500.0] * 20)
    copy, reuse = found.distribution().sort("decision").to_dicts()
    assert (copy["faults"], copy["left_out"], copy["nested"]) == (101, 0, 0)
    assert (copy["p5_ns"], copy["median_ns"], copy["p95_ns"], copy["worst_ns"]) == (6, 51, 96, 101)
    assert (reuse["p5_ns"], reuse["median_ns"], reuse["worst_ns"]) == (500, 500, 500)


# --- its interval ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 20, 21])
def test_drawn_medians_are_those_of_samples_with_replacement(size: int) -> None:
    """Compared with samples that are drawn value by value: the same quantiles, of 40,000."""
    values = np.random.default_rng(size).lognormal(7, 1, size)
    drawn = np.concatenate([timing._drawn(values, np.random.default_rng(seed)) for seed in range(10)])
    sampled = np.median(np.random.default_rng(9).choice(values, (40_000, size)), axis=1)
    at = [0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975]
    # As shares: how many of the samples are below each quantile of what was drawn.
    for share, quantile in zip(at, np.quantile(drawn, at), strict=True):
        assert (sampled < quantile).mean() - 0.02 <= share <= (sampled <= quantile).mean() + 0.02


#: Made-up histories: median copy, median reuse (ns), spread (sigma of the logarithm), copies, reuses.
HISTORIES: Final = {
    "redis": (2_900, 900, 0.4, 300, 500),
    "skewed": (2_900, 900, 1.0, 200, 200),
    "few": (6_000, 1_500, 0.6, 25, 40),
}


def made_up(seed: int, history: str) -> FaultTimes:
    """Fault times and what probes cost, drawn from lognormal distributions of known medians."""
    copy, reuse, sigma, copies, reuses = HISTORIES[history]
    random = np.random.default_rng([seed, *history.encode()])
    spans = np.sort(random.lognormal(np.log(PROBE_NS), 0.3, 60))
    taken = copy * random.lognormal(0, sigma, copies) + EVENTS * PROBE_NS - EVENTS * np.median(spans)
    return faults_of(taken, reuse * random.lognormal(0, sigma, reuses), {"kprobe": ProbeCost("two of them", spans)}, kprobes=EVENTS)


#: Events in a copy, and what recording one takes.
EVENTS, PROBE_NS = 4, 250


def covered(history: str) -> Iterator[bool]:
    truth = HISTORIES[history][0] - HISTORIES[history][1]
    for seed in range(100):
        found = timing.price(made_up(seed, history), TABLE, HARDWARE)
        yield found.low_ns <= truth <= found.high_ns


def test_what_probes_cost_is_not_known_for_sure_either() -> None:
    """Faults that all take the same time, and probes that do not: the interval is that of four times the median of the probes."""
    spans = np.sort(np.random.default_rng(1).lognormal(np.log(250), 0.5, 60))
    found = timing.price(faults_of([2_900.0] * 50, [900.0] * 50, {"kprobe": ProbeCost("", spans)}, kprobes=4), TABLE, HARDWARE)
    medians = np.median(np.random.default_rng(2).choice(spans, (20_000, 60)), axis=1)
    low, high = 2_000 - 4 * (np.quantile(medians, [0.975, 0.025]) - np.median(spans))
    assert found.extra_ns == 2_000
    assert (found.low_ns, found.high_ns) == pytest.approx((low, high), abs=25)
    assert found.high_ns - found.low_ns > 100


@pytest.mark.parametrize("history", HISTORIES)
def test_the_interval_covers_the_truth(history: str) -> None:
    assert sum(covered(history)) >= 90


@pytest.mark.parametrize("history", HISTORIES)
def test_the_interval_says_something(history: str) -> None:
    """One that covered everything would be worth nothing: it is narrower than the truth is large, where there are enough faults."""
    copy, reuse, *_, copies, _ = HISTORIES[history]
    widths = [found.high_ns - found.low_ns for found in (timing.price(made_up(seed, history), TABLE, HARDWARE) for seed in range(20))]
    assert np.median(widths) < (copy - reuse) * (1 if copies >= 100 else 2)


def test_the_same_trace_gives_the_same_interval() -> None:
    once, again = (timing.price(made_up(3, "redis"), TABLE, HARDWARE) for _ in range(2))
    assert once == again
