"""What a recording lost: flags of sub-buffers, the kernel's own counts, damage of the file; as one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import pyarrow as pa

from .options import CpuStat
from .ringbuffer import FLAGGED
from .ringbuffer import SOURCES as FOUND
from .streams import Stream
from .survey import Gap

#: Columns of the table: `cpu` -1 where it is not known, `events` null where their number is not, times (ns, trace clock) null where they
#: have no bound, `offset` (byte of the file) null where the loss has no place in it.
SCHEMA: Final = pa.schema(
    [
        pa.field("cpu", pa.int32(), nullable=False),
        pa.field("from_ns", pa.int64()),
        pa.field("to_ns", pa.int64()),
        pa.field("events", pa.int64()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("offset", pa.int64()),
    ]
)

#: What shows a loss: the column `source`, and what it means.
SOURCES: Final[Mapping[str, str]] = {
    "sub-buffer flag": "the kernel noted in a sub-buffer that events before it were overwritten, mostly with their number",
    "cpustat overrun": "the kernel counted more overwritten events than its flags tell of",
    "cpustat commit overrun": "the kernel counted events that came while the buffer was full of interrupted writes",
    "cpustat dropped events": "the kernel counted events that found the buffer full",
    "PERF_RECORD_LOST": "the kernel noted in perf's buffer that events before the record found it full",
    "PERF_RECORD_LOST_SAMPLES": "the kernel counted samples that it could not write",
    "samples of no known event": "samples name an event that the file does not describe",
    "recorder was killed": "perf did not finish the file: what was still in its buffers is missing",
    "lost line": "the text has a line that says so, with or without a number",
    "overwritten": "the header of the text says that more events were written than are left",
    "truncated file": "the file, or what it is packed in, ends too early",
    "truncated line": "the text ends inside a line",
    "unreadable line": "a line of the text is of no known form",
    "damaged sub-buffer": "a sub-buffer says that it holds more than its size",
    "damaged record": "a record has an impossible length; in a ring buffer what follows it in its sub-buffer is missing",
    "damaged time stamp": "a time is impossible; what follows it in its sub-buffer is missing",
    "damaged chunk": "a compressed chunk cannot be unpacked",
    "damaged compressed records": "perf's compressed stream cannot be unpacked from there on",
    "damaged gzip data": "what the file is packed in cannot be unpacked from there on",
    "damaged xz data": "as with gzip",
    "damaged zstd data": "as with gzip",
    "damaged sample": "a sample is too short for what it is to hold",
}


class Loss(NamedTuple):
    """One loss: the columns of the table."""

    cpu: int
    from_ns: int | None
    to_ns: int | None
    events: int | None
    source: str
    offset: int | None = None


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
        *(Loss(streams[gap.stream].cpu, gap.before, gap.after, gap.events, gap.source, gap.offset) for gap in gaps),
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
        if gap.source == FOUND[FLAGGED]:
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
                rows.append(Loss(stat.cpu, start, None, events, source))
    return rows
