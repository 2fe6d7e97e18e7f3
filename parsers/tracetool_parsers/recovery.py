"""The event data of a version 7 file whose table of CPUs is lost, as it is when the file is cut off: the table comes after the data.

Each CPU's data start at the next multiple of the sub-buffer size after those of the CPU before (trace-cmd,
lib/trace-cmd/trace-output.c, `tcmd_out_write_cpu_data`). Compressed data say how many chunks they are; of others only the time stamps
tell where the next CPU starts: there they go back.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .cursor import Cursor
from .tracedat import Buffer, CpuData, PageLayout

#: Linux, NR_CPUS, on the largest machines.
_MOST_CPUS: Final = 8192


def recovered_buffer(cursor: Cursor, begin: int, end: int, name: str, layout: PageLayout, *, packed: bool) -> Buffer:
    """The buffer whose data lie in the bytes begin..end of the file; CPUs have the number of their data, which may be too small.

    Args:
        cursor: over the file; it is moved.
        begin: byte after the header of the buffer's section.
        end: where the section ends, maybe past the end of the file.
        name: what to call the buffer.
        layout: of sub-buffers.
        packed: whether the data are compressed.
    """
    begin += -begin % layout.size
    found = _packed(cursor, begin, end, layout.size) if packed else _plain(cursor, begin, end, layout)
    return Buffer(name, None, layout.size, packed, tuple(found))


def _plain(cursor: Cursor, begin: int, end: int, layout: PageLayout) -> list[CpuData]:
    pages = (min(end, len(cursor.data)) - begin) // layout.size
    if pages < 1:
        return []
    words = np.frombuffer(cursor.data[begin : begin + pages * layout.size], "<u8" if cursor.order == "little" else ">u8")
    times = words[:: layout.size // 8]
    starts = [0, *(np.flatnonzero(times[1:] < times[:-1]) + 1)[: _MOST_CPUS - 1].tolist()]
    offsets = [begin + start * layout.size for start in starts]
    return [CpuData(cpu, at, after - at) for cpu, (at, after) in enumerate(zip(offsets, (*offsets[1:], end), strict=True))]


def _packed(cursor: Cursor, begin: int, end: int, page_size: int) -> list[CpuData]:
    found: list[CpuData] = []
    at = begin
    # A CPU whose data would lie past the end of the file is told of, too: as one that is cut off.
    while at + 4 <= end and len(found) < _MOST_CPUS:
        after = _after_chunks(cursor, at, min(end, len(cursor.data)))
        found.append(CpuData(len(found), at, (end if after is None else after) - at))
        if after is None:
            break
        at = after + -after % page_size
    return found


def _after_chunks(cursor: Cursor, at: int, end: int) -> int | None:
    """Where the chunks end whose number is at byte `at`; None where they are cut off."""
    if at + 4 > end:
        return None
    cursor.seek(at, "chunks")
    for _ in range(cursor.u32("number of chunks")):
        if cursor.at + 8 > end:
            return None
        packed_size = cursor.u32("packed size of a chunk")
        cursor.u32("size of a chunk")
        if not packed_size or cursor.at + packed_size > end:
            return None
        cursor.take(packed_size, "chunk")
    return cursor.at
