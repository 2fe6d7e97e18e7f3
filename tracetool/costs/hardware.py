"""Hardware: what a trace was recorded on, as far as it tells: whether its times are those of hardware, or of an emulation.

A trace.dat says nothing of the machine. But recording an event takes a machine 0.1 or 0.2 us and an emulation several times as long, and
where a kernel unmaps or frees pages one by one, events follow each other as fast as they can be recorded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool.trace import Trace
from tracetool_parsers.metadata import Metadata

Ints = npt.NDArray[Any]
Kind = Literal["hardware", "virtual", "emulated", "unknown"]

#: Fewer spans between two events tell nothing.
LEAST_SPANS: Final = 30
#: Median spans between adjacent events up to which emulation is excluded, in ns, by who records. Measured: ftrace 140 in a virtual machine
#: with nested paging (AMD EPYC, Linux 6.18), 581 and more in recordings of four kernels under QEMU's emulation on the same machine; perf
#: 551 there, 3,210 and more here.
QUICK_NS: Final[Mapping[str, int]] = {"ftrace": 350, "perf": 800}
#: Clocks that count something else than time, or ticks of milliseconds.
TIMELESS: Final = ("counter", "uptime")
#: From this on a clock is too coarse for times of faults, in ns.
COARSE_NS: Final = 1_000

_EMULATED: Final = re.compile(r"tcg|bochs|emulat|^qemu$", re.IGNORECASE)
_BARE: Final = re.compile(r"^(none|bare.?metal|physical)$", re.IGNORECASE)
#: CPUs as QEMU names its own models (target/i386/cpu.c), which it gives under KVM and under emulation alike.
_MODEL: Final = re.compile(
    r"QEMU|KVM processor|Virtual CPU|^Intel (Core|Xeon|Atom|Celeron).* Processor \(|^AMD \S+ Processor$", re.IGNORECASE
)


class Timeline(NamedTuple):
    """All events in the order of the trace: `ts` int64 (ns), `cpu` and `tid` int32, `event` int32, an index into `names`."""

    ts: Ints
    cpu: Ints
    tid: Ints
    event: Ints
    names: list[str]

    @property
    def resolution(self) -> int:
        """What all time stamps are multiples of, in ns, as far as the first of them show; 0 without events."""
        return int(np.gcd.reduce(self.ts[:100_000])) if len(self.ts) else 0


@dataclass(frozen=True)
class Hardware:
    """What a recording was made on: what is told of it, and whether its times are those of hardware.

    `real` is only true where emulation is excluded. Of `unknown` hardware that can be known, too: events can follow each other faster than
    emulation lets them. `why` names the evidence.
    """

    kind: Kind
    why: str
    real: bool

    def __str__(self) -> str:
        name = {"hardware": "hardware", "virtual": "a virtual machine", "emulated": "emulation", "unknown": "unknown hardware"}
        return f"{name[self.kind]} ({self.why})"


def timeline(trace: Trace) -> Timeline:
    """All events of a trace; both `fault_times` and `hardware` read them, so that one reading can serve both."""
    table = trace.raw.timeline()
    frame = pl.from_arrow(table.select(["ts", "cpu", "tid"]))
    assert isinstance(frame, pl.DataFrame)
    column = table.column("event").combine_chunks()
    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    names = [str(name) for name in column.dictionary.to_pylist()]
    ts, cpu, tid = (frame[name].to_numpy() for name in ("ts", "cpu", "tid"))
    return Timeline(ts, cpu, tid, column.indices.to_numpy(zero_copy_only=False).astype(np.int32), names)


def adjacent(line: Timeline) -> pl.DataFrame:
    """Spans between events that follow each other on one thread and CPU: `first`, `then` (Int32: numbers of events), `ns` (Int64)."""
    order = np.argsort(line.cpu, kind="stable")
    first, then = order[:-1], order[1:]
    stood = stuck(line)
    keep = (line.cpu[first] == line.cpu[then]) & (line.tid[first] == line.tid[then]) & ~stood[first] & ~stood[then]
    first, then = first[keep], then[keep]
    ns = line.ts[then] - line.ts[first]
    frame = pl.DataFrame({"first": line.event[first], "then": line.event[then], "ns": ns}, schema_overrides={"ns": pl.Int64})
    return frame.filter(pl.col("ns") > 0)


def quickest(spans: pl.DataFrame) -> tuple[int, int, Ints] | None:
    """The pair of events that follow each other the fastest: their numbers, and the spans."""
    pairs = (
        spans.group_by("first", "then")
        .agg(pl.len(), pl.col("ns").median().alias("median"))
        .filter(pl.col("len") >= LEAST_SPANS)
        .sort("median", "first", "then")
    )
    if not pairs.height:
        return None
    first, then = pairs.row(0)[:2]
    return first, then, spans.filter(pl.col("first") == first, pl.col("then") == then)["ns"].to_numpy()


def stuck(line: Timeline) -> Ints:
    """Events whose time stamp is another's, too: ftrace's clock `global` never goes back, so that it stands still while the CPU that
    reads it is behind another (Linux, kernel/trace/trace_clock.c: `trace_clock_global`). None where a coarse clock makes equal times.
    """
    same = np.zeros(len(line.ts), np.bool_)
    if len(line.ts) and line.resolution < COARSE_NS:
        equal = line.ts[1:] == line.ts[:-1]
        same[1:] |= equal
        same[:-1] |= equal
    return same


def hardware(trace: Trace, line: Timeline | None = None) -> Hardware:
    """What a trace was recorded on, as far as it tells: by its hypervisor, its CPU (perf.data has it) and the pace of its events."""
    return hardware_of(trace.raw.metadata, line or timeline(trace))


def hardware_of(metadata: Metadata, line: Timeline) -> Hardware:
    """The same of metadata and a timeline."""
    if metadata.clock in TIMELESS:
        return Hardware("unknown", f"its clock {metadata.clock!r} tells no time of faults", real=False)
    if "tracetool synth" in (metadata.writer or ""):
        return Hardware("unknown", "the trace is made up", real=False)
    hypervisor, cpu = metadata.hypervisor or "", metadata.details.get("CPU", "")
    if hypervisor:
        kind: Kind = "emulated" if _EMULATED.search(hypervisor) else "hardware" if _BARE.search(hypervisor) else "virtual"
        return Hardware(kind, f"the trace names the hypervisor: {hypervisor}", real=kind != "emulated")
    if _EMULATED.search(cpu):
        return Hardware("emulated", f"the CPU is called {cpu!r}", real=False)
    pace, quick = _pace(metadata, line)
    if not cpu:
        return Hardware("unknown", pace, real=quick)
    if _MODEL.search(cpu):
        return Hardware("virtual" if quick else "unknown", f"the CPU is called {cpu!r}, a model of QEMU's; {pace}", real=quick)
    return Hardware("unknown", f"the CPU is called {cpu!r}, as it can be in a virtual machine, too; {pace}", real=quick)


def _pace(metadata: Metadata, line: Timeline) -> tuple[str, bool]:
    """How fast events follow each other, in words, and whether emulation is excluded by that."""
    if line.resolution >= COARSE_NS:
        return f"times are multiples of {line.resolution:,} ns, too coarse to show how fast events follow each other", False
    found = quickest(adjacent(line))
    if found is None:
        return f"no two events follow each other on a thread {LEAST_SPANS} times", False
    first, then, spans = found
    ns, most = float(np.median(spans)), QUICK_NS["perf" if metadata.format.startswith("perf") else "ftrace"]
    text = f"{line.names[then]} follows {line.names[first]} after {ns:.0f} ns"
    quick = ns <= most
    return f"{text}, {'faster' if quick else 'no faster'} than under emulation", quick
