"""Recordings whose times the test chose: a timeline of events by hand, and a trace of the events of `engine.build`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from engine.build import Recording
from tracetool import schema
from tracetool.costs import timing
from tracetool.costs.timing import FaultTimes, ProbeCost, Timeline
from tracetool.memory_events import EventSource
from tracetool.trace import Trace
from tracetool_parsers.eventformat import EventFormat
from tracetool_parsers.metadata import Metadata

Event = tuple[int, int, int, str]

#: What probes record, of the events that tests use; all others are tracepoints.
KPROBES = ("cow_fault", "cow_fault_done", "cow_copy", "anon_new", "rmap_remove", "huge_cow_fault", "huge_cow_fault_done", "swap_fault",
           "swap_fault_done", "mm_fault")  # fmt: skip


def line_of(events: Iterable[tuple[int, int, int, str]]) -> Timeline:
    """A timeline of events (ts, cpu, tid, name) in their order."""
    rows = list(events)
    names = sorted({name for *_, name in rows})
    ts, cpu, tid = (np.array([row[i] for row in rows], dtype) for i, dtype in enumerate((np.int64, np.int32, np.int32)))
    return Timeline(ts, cpu, tid, np.array([names.index(name) for *_, name in rows], np.int32), names)


def kprobes(line: Timeline) -> Any:
    """Which events of a timeline kprobes recorded."""
    return np.array([name in KPROBES for name in line.names], np.int8)


def decided(rows: Sequence[tuple[str, int, str]] | Sequence[tuple[str, int, str, str]]) -> pl.DataFrame:
    """Decisions (event that begins the fault, its row, decision, reason) as `timing.decisions` gives them; numbered from 100 on."""
    return pl.DataFrame(
        {
            "event": [100 + n for n in range(len(rows))],
            "begins": [row[0] for row in rows],
            "row": [row[1] for row in rows],
            "decision": pl.Series([row[2] for row in rows], dtype=pl.Enum(schema.DECISIONS)),
            "reason": pl.Series([row[3] if len(row) > 3 else "another-mapping" for row in rows], dtype=pl.Enum(schema.REASONS)),
        },
        schema_overrides={"event": pl.Int64, "begins": pl.String, "row": pl.Int64},
    )


class Made:
    """A raw trace of hand-made events."""

    def __init__(self, source: EventSource, metadata: Metadata, losses: Sequence[tuple[int, int]] = ()) -> None:
        self._source = source
        self.metadata = metadata
        bounds = [pa.array([loss[side] for loss in losses], pa.int64()) for side in (0, 1)]
        self.losses = pa.table({"from_ns": bounds[0], "to_ns": bounds[1]})

    def counts(self) -> dict[str, int]:
        return self._source.counts()

    def formats(self) -> Mapping[str, EventFormat]:
        return self._source.formats()

    def table(self, name: str, fields: Sequence[str] | None = None) -> pa.Table:
        return self._source.table(name, fields)

    def tables(self, names: Mapping[str, Sequence[str] | None], *, positions: bool = False) -> dict[str, pa.Table]:
        return self._source.tables(names, positions=positions)

    def span(self) -> tuple[int, int] | None:
        ts = self.timeline().column("ts").to_pylist()
        return (ts[0], ts[-1]) if ts else None

    def timeline(self) -> pa.Table:
        tables = self._source.tables(dict.fromkeys(self.counts(), ()), positions=True)
        rows = sorted((place, ts, cpu, tid, name) for name, table in tables.items() for place, ts, cpu, tid in _columns(table))
        columns: dict[str, Any] = {
            "ts": pa.array([row[1] for row in rows], pa.int64()),
            "cpu": pa.array([row[2] for row in rows], pa.int32()),
            "tid": pa.array([row[3] for row in rows], pa.int32()),
            "event": pa.array([row[4] for row in rows], pa.string()).dictionary_encode(),
        }
        return pa.table(columns)


def _columns(table: pa.Table) -> Iterable[tuple[int, int, int, int]]:
    return zip(*(table.column(name).to_pylist() for name in ("position", "ts", "cpu", "tid")), strict=True)


def trace_of(recording: Recording, losses: Sequence[tuple[int, int]] = (), **metadata: Any) -> Trace:
    """The trace of what was recorded; `metadata` in the place of that of a trace.dat of two CPUs."""
    told = {"path": "made.dat", "format": "trace.dat v7", "kernel": "6.1.0", "clock": "local", "cpus": 2, **metadata}
    raw: Any = Made(recording.source(), Metadata(**told), losses)
    return Trace(raw)


def faults_of(copies: Any, reuses: Any, probes: dict[str, ProbeCost] | None = None, kprobes: int = 0, **others: Any) -> FaultTimes:
    """Faults whose net times are given: copies hold `kprobes` events, reuses none."""
    taken = np.concatenate([copies, reuses]).astype(np.float64)
    is_copy = np.arange(len(taken)) < len(copies)
    cost = (probes or {})["kprobe"].ns if kprobes and probes else 0.0
    held = np.where(is_copy, kprobes, 0)
    frame = pl.DataFrame(
        {
            "event": np.arange(len(taken)),
            "tid": np.full(len(taken), 7, np.int32),
            "decision": np.where(is_copy, "copy", "reuse"),
            "reason": np.where(is_copy, "another-mapping", "sole-owner"),
            "huge": np.zeros(len(taken), np.bool_),
            "raw_ns": taken + held * cost,
            "kprobes": held,
            "tracepoints": np.zeros(len(taken), np.int64),
            "nested": held,
            "probe_ns": held * cost,
            "net_ns": taken,
            "left_out": pl.Series([None] * len(taken), dtype=pl.String),
        }
    )
    return FaultTimes(frame, pl.DataFrame(), probes or {}, **others)


# --- timelines by hand ----------------------------------------------------------------------------------------------------------------


def run(ts: int, tid: int, *events: tuple[int, str], cpu: int = 0) -> list[Event]:
    """Events of one thread, each so many ns after the one before; the first after `ts`."""
    times = itertools.accumulate((ns for ns, _ in events), initial=ts)
    return [(when, cpu, tid, name) for when, (_, name) in zip(list(times)[1:], events, strict=True)]


def times(events: list[Event], rows: Any, **others: Any) -> FaultTimes:
    """The faults of a timeline; `rows` as `decided` takes them."""
    line = line_of(sorted(events, key=lambda event: event[0]))
    return timing.times_of(line, decided(rows), kprobes(line), **others)


#: The events of a copy and of a reuse, each with how long after the one before.
COPY: Final = (
    (0, "cow_fault"),
    (300, "cow_copy"),
    (400, "mm_page_alloc"),
    (500, "anon_new"),
    (600, "rmap_remove"),
    (700, "cow_fault_done"),
)
REUSE: Final = ((0, "cow_fault"), (900, "cow_fault_done"))


def probing(ts: int, kprobe_ns: int, tracepoint_ns: int, times: int = 40) -> list[Event]:
    """A thread that unmaps and then frees pages one by one, so that only recording takes time."""
    return run(ts, 77, *[(kprobe_ns, "rmap_remove")] * times, (5_000, "mm_page_free"), *[(tracepoint_ns, "mm_page_free")] * times)
