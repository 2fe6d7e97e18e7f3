"""What a recording lost: flags of sub-buffers, the kernel's own counts, damage of the file; as one table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy.typing as npt
import pyarrow as pa

from .options import CpuStat
from .ringbuffer import FLAGGED, SOURCES, Gap, Records
from .streams import Stream

#: Columns of the table: `events` null where their number is not known, times (ns, trace clock) null where they have no bound.
SCHEMA: Final = pa.schema(
    [
        pa.field("cpu", pa.int32(), nullable=False),
        pa.field("from_ns", pa.int64()),
        pa.field("to_ns", pa.int64()),
        pa.field("events", pa.int64()),
        pa.field("source", pa.string(), nullable=False),
    ]
)

Row = tuple[int, int | None, int | None, int | None, str]


def losses_table(records: Records, streams: tuple[Stream, ...], stats: Iterable[CpuStat]) -> pa.Table:
    """The losses, one row each: those seen in the data by stream and place, then those that the kernel only counted.

    Args:
        records: with times in ns, and the gaps, which lie between the last event before and the first after.
        streams: of the records.
        stats: what the kernel counted for each CPU of the buffers that are read.
    """
    times = records.found.times
    rows = [_gap_row(gap, streams[gap.stream], records.bounds, times) for gap in records.gaps]
    rows += _counted(records, streams, stats, int(times.min()) if times.size else None)
    columns = zip(*rows, strict=True) if rows else ((),) * len(SCHEMA)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)


def _gap_row(gap: Gap, stream: Stream, bounds: npt.NDArray[Any], times: npt.NDArray[Any]) -> Row:
    begin, end = int(bounds[gap.stream]), int(bounds[gap.stream + 1])
    before = int(times[gap.event - 1]) if gap.event > begin else None
    after = int(times[gap.event]) if gap.event < end else None
    return stream.cpu, before, after, gap.events, gap.source


def _counted(records: Records, streams: tuple[Stream, ...], stats: Iterable[CpuStat], start: int | None) -> list[Row]:
    """Losses that the kernel counted and no sub-buffer shows.

    An overrun (old events overwritten before they were read) is also flagged in the next sub-buffer that is read, mostly with its
    count: only what the flags leave over is a row of its own, and nothing is where a flag has no count, as that row then stands for
    the rest. Events dropped because the buffer was full, and commit overruns, are never flagged. The counts name no time: such a row
    starts with the trace and has no end.
    """
    flagged: dict[tuple[str, int], list[int | None]] = {}
    for gap in records.gaps:
        if gap.source == SOURCES[FLAGGED]:
            stream = streams[gap.stream]
            flagged.setdefault((stream.buffer, stream.cpu), []).append(gap.events)
    rows: list[Row] = []
    for stat in stats:
        seen = flagged.get((stat.buffer, stat.cpu), [])
        unseen = 0 if None in seen else stat.overrun - sum(events or 0 for events in seen)
        for events, source in (
            (unseen, "cpustat overrun"),
            (stat.commit_overrun, "cpustat commit overrun"),
            (stat.dropped, "cpustat dropped events"),
        ):
            if events > 0:
                rows.append((stat.cpu, start, None, events, source))
    return rows
