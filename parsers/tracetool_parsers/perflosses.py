"""What a perf.data says is lost, and what is damaged in it; as the table of `losses.SCHEMA`.

The kernel writes PERF_RECORD_LOST before the first record that finds room again, so what is lost lies between the record before it on the
same CPU and itself (Linux, kernel/events/ring_buffer.c, `__perf_output_begin`). Since Linux 6.0 each event also counts what it lost,
which `perf record` writes at the end as LOST_SAMPLES without a time (Linux, tools/perf/builtin-record.c, `record__read_lost_samples`):
the same losses once more, so that only what the LOST records leave over is a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .fields import Rows, numbers
from .losses import Loss, losses_table
from .perfrecords import EARLIEST, LATEST, LOST, UNKNOWN, UNREADABLE
from .perfwalk import Walk

Array = npt.NDArray[Any]

LOST_RECORD: Final = "PERF_RECORD_LOST"
LOST_SAMPLES_RECORD: Final = "PERF_RECORD_LOST_SAMPLES"
UNKNOWN_EVENT: Final = "samples of no known event"
DAMAGED_SAMPLE: Final = "damaged sample"
KILLED: Final = "recorder was killed"

#: PERF_RECORD_MISC_LOST_SAMPLES_BPF: left out by a filter of the user's, not lost.
_BY_FILTER: Final = 1 << 15
_MOST: Final = (1 << 63) - 1


class Lost(NamedTuple):
    """Records that speak of losses.

    Attributes:
        starts: int64, the word where each starts.
        types: int64, LOST or LOST_SAMPLES.
        cpus: int32, -1 where they do not say.
        times: int64, ns; 0: none.
        before: int64, ns: the time of the record before on the same CPU, 0: there is none.
    """

    starts: Array
    types: Array
    cpus: Array
    times: Array
    before: Array


def losses_of(walk: Walk, lost: Sequence[Lost], *, finished: bool) -> pa.Table:
    """The losses, one row each: lost records, damage, what cannot be told apart; `finished`: the recorder came to its end."""
    state = walk.state
    earliest, latest = (int(state[EARLIEST]), int(state[LATEST])) if state[LATEST] else (None, None)
    rows = _recorded(walk, lost, earliest)
    in_file = walk.records.in_file
    rows += [Loss(-1, gap.after, gap.before, None, gap.source, 4 * gap.word if in_file and gap.word >= 0 else None) for gap in walk.gaps]
    # Nothing can be told of what comes after a break in a compressed stream.
    known = {gap.source for gap in walk.gaps}
    rows += [Loss(-1, None, None, None, source, at) for source, at in walk.records.damage if source not in known]
    rows += [
        Loss(-1, earliest, latest, int(state[at]), source)
        for at, source in ((UNKNOWN, UNKNOWN_EVENT), (UNREADABLE, DAMAGED_SAMPLE))
        if state[at]
    ]
    if not finished:
        rows.append(Loss(-1, latest, None, None, KILLED))
    return losses_table(rows)


def _recorded(walk: Walk, lost: Sequence[Lost], earliest: int | None) -> list[Loss]:
    if not lost:
        return []
    starts, types, cpus, times, before = (np.concatenate(parts) for parts in zip(*lost, strict=True))
    order = np.argsort(starts, kind="stable")
    starts, types, cpus, times, before = (values[order] for values in (starts, types, cpus, times, before))
    words, swapped = walk.records.words, bool(walk.layouts.swapped)
    (misc, size), is_lost = (
        (numbers(Rows(words, starts, np.full(starts.size, 8, np.int64), swapped), at, 2)[0] for at in (4, 6)),
        types == LOST,
    )
    rows = Rows(words, starts, size.astype(np.int64), swapped)
    counts = np.where(is_lost, numbers(rows, 16, 8)[0], numbers(rows, 8, 8)[0])
    counts = np.minimum(counts, _MOST).astype(np.int64)
    by_filter = ~is_lost & (misc & _BY_FILTER > 0)
    timed = is_lost | ((times > 0) & ~by_filter)
    found: list[Loss] = [
        Loss(cpu, since or None, until or None, count, LOST_RECORD if kind == LOST else LOST_SAMPLES_RECORD)
        for cpu, since, until, count, kind in zip(*(values[timed].tolist() for values in (cpus, before, times, counts, types)), strict=True)
    ]
    counted = ~timed & ~by_filter
    places = [-1] if (cpus[counted] < 0).any() else np.unique(cpus[counted]).tolist()
    for cpu in places:
        of_cpu = (cpus == cpu) | (cpu < 0)
        left = int(counts[counted & of_cpu].sum()) - int(counts[is_lost & of_cpu].sum())
        if left > 0:
            found.append(Loss(cpu, earliest, None, left, LOST_SAMPLES_RECORD))
    return found
