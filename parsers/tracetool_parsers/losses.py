"""What a recording lost: flags of sub-buffers, the kernel's own counts, damage of the file; as one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa

from .options import CpuStat
from .ringbuffer import FLAGGED, SOURCES
from .streams import Stream
from .survey import Gap

#: Columns of the table: `cpu` -1 where it is not known, `events` null where their number is not, times (ns, trace clock) null where they
#: have no bound.
SCHEMA: Final = pa.schema(
    [
        pa.field("cpu", pa.int32(), nullable=False),
        pa.field("from_ns", pa.int64()),
        pa.field("to_ns", pa.int64()),
        pa.field("events", pa.int64()),
        pa.field("source", pa.string(), nullable=False),
    ]
)

#: One loss: the columns of the table.
Loss = tuple[int, int | None, int | None, int | None, str]


def losses_table(losses: Sequence[Loss]) -> pa.Table:
    """Losses as a table, a row each."""
    columns = zip(*losses, strict=True) if losses else ((),) * len(SCHEMA)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)


def ring_losses(gaps: Sequence[Gap], streams: Sequence[Stream], stats: Iterable[CpuStat], start: int | None) -> list[Loss]:
    """The losses of ring buffers: those seen in the data by stream and place, then those that the kernel only counted.

    Args:
        gaps: those seen in the data.
        streams: of the gaps.
        stats: what the kernel counted for each CPU of the buffers that are read.
        start: the first time stamp of the trace (ns).
    """
    return [
        *((streams[gap.stream].cpu, gap.before, gap.after, gap.events, gap.source) for gap in gaps),
        *_counted(gaps, streams, stats, start),
    ]


def _counted(gaps: Sequence[Gap], streams: Sequence[Stream], stats: Iterable[CpuStat], start: int | None) -> list[Loss]:
    """Losses that the kernel counted and no sub-buffer shows.

    An overrun (old events overwritten before they were read) is also flagged in the next sub-buffer that is read, mostly with its
    count: only what the flags leave over is a row of its own, and nothing is where a flag has no count, as that row then stands for
    the rest. Events dropped because the buffer was full, and commit overruns, are never flagged. The counts name no time: such a row
    starts with the trace and has no end.
    """
    flagged: dict[tuple[str, int], list[int | None]] = {}
    for gap in gaps:
        if gap.source == SOURCES[FLAGGED]:
            stream = streams[gap.stream]
            flagged.setdefault((stream.buffer, stream.cpu), []).append(gap.events)
    rows: list[Loss] = []
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
