"""A hand-made recording as a whole trace with its timeline, as what asks for the price of a copy wants it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import pyarrow as pa

from engine.build import Machine, Process, Recording
from handmade import HandMade
from tracetool.trace import Trace
from tracetool_parsers import RawTrace
from tracetool_parsers.losses import Loss


class Timed(HandMade):
    """With all its events in order."""

    def timeline(self) -> pa.Table:
        tables = self.tables(dict.fromkeys(self.counts(), ()), positions=True)
        rows = sorted(
            (place, ts, cpu, tid, name)
            for name, table in tables.items()
            for place, ts, cpu, tid in zip(*(table.column(each).to_pylist() for each in ("position", "ts", "cpu", "tid")), strict=True)
        )
        columns: dict[str, Any] = {
            "ts": pa.array([row[1] for row in rows], pa.int64()),
            "cpu": pa.array([row[2] for row in rows], pa.int32()),
            "tid": pa.array([row[3] for row in rows], pa.int32()),
            "event": pa.array([row[4] for row in rows], pa.string()).dictionary_encode(),
        }
        return pa.table(columns)


def timed(
    recording: Recording,
    names: Mapping[int, str] | None = None,
    losses: Iterable[Loss] = (),
    without: Sequence[str] = (),
    **metadata: Any,
) -> Trace:
    """As `handmade.trace_of`; `metadata` in the place of that of a hand-made trace."""
    raw = Timed(recording, names or {}, losses, without)
    raw.metadata = replace(raw.metadata, **metadata)
    return Trace(cast(RawTrace, raw))


def store(m: Machine, p: Process, at: int, pfn: int, new: int | None, ip: int = 0x401_79D) -> None:
    """An instruction of the program stores to a read-only page: copied to frame `new`, or reused (None)."""
    m.event("page_fault_user", p.tid, address=at, ip=ip, error_code=7)
    m.cow(p, at, pfn, new)
