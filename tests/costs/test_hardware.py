"""What a trace was recorded on: what is told counts, else how fast its events follow each other, and else nothing is claimed."""

from __future__ import annotations

from typing import Any, Final

import pytest

import tracetool
from conftest import fixture_path, fixture_traces
from costs.recorded import line_of
from tracetool.costs import hardware
from tracetool.costs.hardware import Timeline
from tracetool_parsers.metadata import Metadata

#: Median spans between events that are freed or unmapped one by one, in ns: measured on a virtual machine with nested paging by ftrace
#: (140) and by perf (551), and the least of 60 recordings made under emulation (581, 3210).
FTRACE_VM, PERF_VM, FTRACE_TCG, PERF_TCG = 140, 551, 581, 3_210


def paced(ns: int, events: int = 40) -> Timeline:
    """One thread that frees pages, one every so many ns."""
    return line_of((1_000_003 + ns * n, 0, 7, "mm_page_free") for n in range(events))


def told(form: str = "trace.dat v7", cpu: str = "", **others: Any) -> Metadata:
    return Metadata("made", form, clock=others.pop("clock", "local"), details={"CPU": cpu} if cpu else {}, **others)


XEON: Final = "Intel(R) Xeon(R) Silver 4210R CPU @ 2.40GHz"
TCG: Final = "QEMU TCG CPU version 2.5+"


@pytest.mark.parametrize(
    ("metadata", "ns", "kind", "real", "why"),
    [
        pytest.param(told(), FTRACE_VM, "unknown", True, "after 140 ns, faster than under emulation", id="trace.dat of a machine"),
        pytest.param(told(), FTRACE_TCG, "unknown", False, "after 581 ns, no faster", id="trace.dat of an emulation"),
        pytest.param(told("ftrace text", clock=None), FTRACE_VM, "unknown", True, "faster", id="text of a machine"),
        pytest.param(told("perf.data", XEON), PERF_VM, "unknown", True, "in a virtual machine, too", id="perf.data of a machine"),
        pytest.param(told("perf.data", XEON), PERF_TCG, "unknown", False, XEON[:20], id="a CPU's name alone is no proof"),
        pytest.param(told("perf.data", TCG), PERF_TCG, "emulated", False, TCG, id="the CPU of an emulation"),
        pytest.param(told("perf.data", TCG), 1, "emulated", False, TCG, id="fast and still an emulation"),
        pytest.param(told("perf.data", "QEMU Virtual CPU version 2.5+"), PERF_VM, "virtual", True, "QEMU", id="QEMU's CPU, by KVM"),
        pytest.param(told("perf.data", "QEMU Virtual CPU version 2.5+"), PERF_TCG, "unknown", False, "QEMU", id="QEMU's CPU, by either"),
        pytest.param(told("perf.data", "AMD EPYC-Rome Processor"), PERF_VM, "virtual", True, "QEMU", id="QEMU's EPYC"),
        pytest.param(told("perf.data", "Intel Xeon Processor (Skylake)"), PERF_VM, "virtual", True, "QEMU", id="QEMU's Xeon"),
        pytest.param(told("perf.data", "AMD EPYC 7763 64-Core Processor"), PERF_VM, "unknown", True, "EPYC 7763", id="AMD's EPYC"),
        pytest.param(told(hypervisor="none"), FTRACE_TCG, "hardware", True, "hypervisor: none", id="told that there is none"),
        pytest.param(told(hypervisor="KVMKVMKVM"), FTRACE_TCG, "virtual", True, "KVM", id="told that it is KVM"),
        pytest.param(told(hypervisor="TCGTCGTCGTCG"), 1, "emulated", False, "TCG", id="told that it is TCG"),
        pytest.param(told(hypervisor="qemu"), 1, "emulated", False, "qemu", id="as systemd-detect-virt calls TCG"),
        pytest.param(told(clock="counter"), 1, "unknown", False, "'counter' tells no time", id="a clock that counts events"),
        pytest.param(told(clock="uptime"), 1, "unknown", False, "'uptime' tells no time", id="a clock of jiffies"),
        pytest.param(told(writer="trace-cmd tracetool synth"), 1, "unknown", False, "made up", id="made up"),
    ],
)  # fmt: skip
def test_what_is_told_and_how_fast(metadata: Metadata, ns: int, kind: str, real: bool, why: str) -> None:
    found = hardware.hardware_of(metadata, paced(ns))
    assert (found.kind, found.real) == (kind, real)
    assert why in found.why
    assert kind != "unknown" or str(found).startswith("unknown hardware")


def test_too_few_events_show_nothing() -> None:
    found = hardware.hardware_of(told(), paced(FTRACE_VM, events=30))
    assert (found.kind, found.real) == ("unknown", False)


def test_a_coarse_clock_shows_nothing() -> None:
    """Times in microseconds, as a text has them: most events seem to be at once."""
    coarse = line_of((1_000_000 + 1_000 * (n // 7), 0, 7, "mm_page_free") for n in range(100))
    found = hardware.hardware_of(told("ftrace text"), coarse)
    assert (found.kind, found.real) == ("unknown", False)
    assert "multiples of 1,000 ns" in found.why


def test_a_clock_that_stands_still_shows_no_pace() -> None:
    """ftrace's clock `global`: the times of one CPU are those of the other while it is behind."""
    pairs = [(1_000_001 + 601 * (n // 2), n % 2, 7, "mm_page_free") for n in range(100)]
    found = hardware.hardware_of(told(clock="global"), line_of(pairs))
    assert not found.real
    assert "no two events follow each other" in found.why


def test_an_empty_trace_shows_nothing() -> None:
    assert hardware.hardware_of(told(), line_of([])).real is False


@pytest.mark.parametrize("path", [each.name for each in fixture_traces()])
def test_no_recording_under_emulation_counts_as_hardware(path: str) -> None:
    """fixtures/README.md: all were recorded under emulation; a trace.dat does not say so."""
    found = hardware.hardware(tracetool.open(fixture_path(path)))
    assert (found.kind, found.real) == ("unknown", False)


@pytest.mark.parametrize("name", ["mail-6.1.perf.data", "snapshot-pipe-6.1.perf.data", "snapshot-zstd-6.1.perf.data"])
def test_perf_names_the_emulation(name: str) -> None:
    found = hardware.hardware(tracetool.open(fixture_path(name)))
    assert (found.kind, found.real) == ("emulated", False)
    assert "QEMU TCG CPU" in found.why
