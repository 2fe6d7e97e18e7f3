"""trace.dat: from where the event data lie to records with times in nanoseconds and a table of losses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .errors import ParseError
from .eventformat import Common
from .losses import losses_table
from .ringbuffer import FLAGGED, SOURCES, Records, scan_streams
from .streams import Stream, load_streams
from .tracedat import Buffer, Recording


@dataclass(frozen=True, slots=True)
class Loaded:
    """The events of a trace, found but not decoded.

    Attributes:
        words: uint32, what the records lie in.
        streams: the CPUs' stretches of it.
        records: where each record is, when (ns) and of which event.
        losses: the table of `losses.SCHEMA`.
        notes: what is damaged, with its byte offset.
    """

    words: npt.NDArray[Any]
    streams: tuple[Stream, ...]
    records: Records
    losses: pa.Table
    notes: tuple[str, ...]


def load(data: memoryview, recording: Recording, buffers: tuple[Buffer, ...], common: Common, *, path: str, strict: bool) -> Loaded:
    """Find the records of the buffers; what is whole before and after damage is read.

    Raises:
        ParseError: with `strict`, at the first damage; else only where the table of the event data itself is damaged.
    """
    words, streams = load_streams(data, buffers, recording.preamble.codec, path)
    records = scan_streams(words, streams, common)
    damage = [gap for gap in records.gaps if gap.source != SOURCES[FLAGGED]]
    if damage and strict:
        hint = "without strict, what is whole is read and the rest is listed as lost"
        raise ParseError(damage[0].source, path=path, offset=damage[0].offset, hint=hint)
    notes = [f"{gap.source}: CPU {streams[gap.stream].cpu} at byte {gap.offset}" for gap in damage]
    times, note = _nanoseconds(records.found.times, recording)
    records = replace(records, found=records.found._replace(times=times))
    names = {buffer.name for buffer in buffers}
    losses = losses_table(records, streams, [stat for stat in recording.stats if stat.buffer in names])
    return Loaded(words, streams, records, losses, (*notes, *note))


def _nanoseconds(times: npt.NDArray[Any], recording: Recording) -> tuple[npt.NDArray[Any], list[str]]:
    notes = []
    if recording.tsc is not None:
        multiplier, shift = recording.tsc
        if shift <= 32:
            # The product has up to 94 bits: the halves are multiplied apart, and the upper one has no bits below the shift.
            high, low = times >> 32, (times & 0xFFFFFFFF).astype(np.uint64)
            times = ((high * multiplier) << (32 - shift)) + ((low * np.uint64(multiplier)) >> np.uint64(shift)).astype(np.int64)
        else:
            notes.append(f"option TSC2NSEC has an impossible shift of {shift}: times are ticks of the clock")
    if recording.shift_ns:
        times = times + np.int64(recording.shift_ns)
    return times, notes
