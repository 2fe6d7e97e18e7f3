"""What happens to memory that the replay leaves out, or of which the events tell only a part: named the first time it is seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tracetool.memory_events import codes as c
from tracetool.memory_events.codes import Op
from tracetool.memory_events.rows import R_KIND, Merged
from tracetool.memory_events.state import ADDRESS_END
from tracetool.probes import Kind

Ints = npt.NDArray[Any]

#: include/uapi/asm-generic/mman-common.h, hugetlb_encode.h; include/uapi/linux/userfaultfd.h: the type of its ioctls.
MADV_HWPOISON, MAP_HUGETLB, IOCTL_USERFAULTFD = 100, 0x40000, 0xAA


def unsupported(merged: Merged, op: Ints, flags: Ints, ts: Ints, counts: Iterable[str]) -> list[str]:
    """A sentence for each kind that the trace has: how often, since when, and what of it is not known.

    `op`, `flags`, `ts` are columns of the memory events; `counts` the raw events that occur.
    """
    faults = (op == int(Op.FAULT)) | (op == int(Op.COW_BEGIN))
    kind, args = merged.rows.head[:, R_KIND], merged.rows.args
    found = {
        _HUGETLB: [*_times(ts, faults & (flags & c.HUGETLB != 0)), *_times(ts, (op == int(Op.MMAP)) & (flags & MAP_HUGETLB != 0))],
        _USERFAULTFD: [
            *_times(ts, faults & (flags & c.USERFAULTFD != 0)),
            *_times(merged.ts, (kind == int(Kind.ENTER_IOCTL)) & (args[:, 1] >> 8 & 0xFF == IOCTL_USERFAULTFD)),
        ],
        _SPECIAL: [*_times(ts, (op == int(Op.SWAP_IN)) & (flags & c.SPECIAL != 0))],
        _POISON: [*_times(ts, (op == int(Op.MADVISE)) & (flags == MADV_HWPOISON))],
    }
    notes = [text.format(seen=f"seen {len(times)} times, first at {min(times)} ns") for text, times in found.items() if times]
    return [*notes, *(_FAILURE for name in counts if name == "memory_failure_event")]


def implausible(merged: Merged) -> int:
    """How many records of faults and mappings cannot be true, as those of a probe with another kernel's offsets.

    Their address is none of user space, or their flags have bits far above those that any kernel has (include/linux/mm_types.h,
    FAULT_FLAG_*: 13 of them in 7.2).
    """
    kind, args = merged.rows.head[:, R_KIND], merged.rows.args
    address = np.isin(kind, [int(each) for each in _ADDRESSED]) & ((args[:, 0] < 0) | (args[:, 0] >= ADDRESS_END))
    flags = np.isin(kind, [int(each) for each in _FLAGGED]) & ((args[:, 1] < 0) | (args[:, 1] >= 1 << 16))
    return int((address | flags).sum())


def _times(ts: Ints, chosen: Ints) -> Iterator[int]:
    yield from ts[chosen].tolist()


_FLAGGED: Final = (Kind.MM_FAULT, Kind.COW_FAULT, Kind.HUGE_COW_FAULT, Kind.SWAP_FAULT)
_ADDRESSED: Final = (*_FLAGGED, Kind.ANON_NEW, Kind.ANON_ADD)
_HUGETLB: Final = "hugetlb pages are left out ({seen}): who owns them is not known, and no rule speaks of them"
_USERFAULTFD: Final = (
    "userfaultfd ({seen}): pages that it maps by UFFDIO_ZEROPAGE or UFFDIO_MOVE leave no record; what rests on that is marked uncertain"
)
_SPECIAL: Final = (
    "entries that are neither page nor swap, as of device memory, poisoned pages or a migration under way ({seen}): what they hold "
    "is not replayed"
)
_POISON: Final = "memory failure by MADV_HWPOISON ({seen}): poisoned pages count as swapped out, as in pagemap"
_FAILURE: Final = "memory failure (memory_failure_event): poisoned pages count as swapped out, as in pagemap"
