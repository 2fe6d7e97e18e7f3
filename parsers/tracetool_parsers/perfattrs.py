"""perf_event_attr: what was recorded of an event, and where its samples and other records have it.

The structure only grows at its end, so what a file leaves out is zero and what it has more is not looked at. Layout: Linux,
include/uapi/linux/perf_event.h (`struct perf_event_attr`, `enum perf_event_sample_format`); order of a sample's values: the comment of
PERF_RECORD_SAMPLE there, and tools/perf/util/evsel.c (`evsel__parse_sample`, `perf_evsel__parse_id_sample`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .cursor import ByteOrder, Cursor

#: `sample_type`: each bit is a value of 8 bytes, but for the last three.
IP: Final = 1 << 0
TID: Final = 1 << 1
TIME: Final = 1 << 2
ADDR: Final = 1 << 3
READ: Final = 1 << 4
CALLCHAIN: Final = 1 << 5
ID: Final = 1 << 6
CPU: Final = 1 << 7
PERIOD: Final = 1 << 8
STREAM_ID: Final = 1 << 9
RAW: Final = 1 << 10
IDENTIFIER: Final = 1 << 16

#: The values of fixed size in the order of a sample, and in that of the end of any other record of the kernel.
_IN_SAMPLES: Final = (IDENTIFIER, IP, TID, TIME, ADDR, ID, STREAM_ID, CPU, PERIOD)
_AT_ENDS: Final = (TID, TIME, ID, STREAM_ID, CPU, IDENTIFIER)

#: `read_format`.
READ_ID: Final = 1 << 2
READ_GROUP: Final = 1 << 3
_READ_BITS: Final = {1 << 0: "enabled", 1 << 1: "running", READ_ID: "id", 1 << 4: "lost"}

TYPE_HARDWARE: Final = 0
TYPE_SOFTWARE: Final = 1
TYPE_TRACEPOINT: Final = 2

_LEAST: Final = 64
_SAMPLE_ID_ALL: Final = 1 << 18
_USE_CLOCKID: Final = 1 << 25

#: Linux, include/uapi/linux/time.h, by the names that trace clocks have.
CLOCKS: Final[Mapping[int, str]] = {0: "realtime", 1: "mono", 4: "mono_raw", 7: "boot", 11: "tai"}

_HARDWARE: Final = (
    "cpu-cycles",
    "instructions",
    "cache-references",
    "cache-misses",
    "branch-instructions",
    "branch-misses",
    "bus-cycles",
    "stalled-cycles-frontend",
    "stalled-cycles-backend",
    "ref-cycles",
)
_SOFTWARE: Final = (
    "cpu-clock",
    "task-clock",
    "page-faults",
    "context-switches",
    "cpu-migrations",
    "minor-faults",
    "major-faults",
    "alignment-faults",
    "emulation-faults",
    "dummy",
    "bpf-output",
    "cgroup-switches",
)
_SYSTEMS: Final = {0: "hardware", 1: "software", 2: "tracepoint", 3: "hw-cache", 4: "raw", 5: "breakpoint"}


@dataclass(frozen=True, slots=True)
class Attr:
    """One recorded event.

    Attributes:
        type, config: which event: of a tracepoint `config` is the ID of its format.
        sample_type, read_format: what its samples hold.
        sample_id_all: whether other records end in the values that say when and where.
        clock: what its times are of, None where perf's own clock is.
        ids: by which records name it.
        name: as the recorder was asked for it, "" where the file does not say.
    """

    type: int
    config: int
    sample_type: int
    read_format: int
    sample_id_all: bool
    clock: str | None
    ids: tuple[int, ...]
    name: str = ""

    def has(self, bit: int) -> bool:
        """Whether its samples hold a value."""
        return bool(self.sample_type & bit)

    def in_sample(self, bit: int) -> int:
        """Byte of a value of fixed size in a sample, -1 where it has none."""
        return 8 + 8 * self._before(_IN_SAMPLES, bit) if self.has(bit) else -1

    def at_end(self, bit: int) -> int:
        """Byte of a value counted from the start of what ends other records, -1 where they have none."""
        return 8 * self._before(_AT_ENDS, bit) if self.has(bit) and self.sample_id_all else -1

    @property
    def sample_size(self) -> int:
        """Bytes of a sample up to the first value of no fixed size, header included."""
        return 8 + 8 * sum(self.has(bit) for bit in _IN_SAMPLES)

    @property
    def end_size(self) -> int:
        """Bytes of what ends other records."""
        return 8 * sum(self.has(bit) for bit in _AT_ENDS) if self.sample_id_all else 0

    def _before(self, order: Sequence[int], bit: int) -> int:
        return sum(self.has(each) for each in order[: order.index(bit)])

    @property
    def id_in_sample(self) -> int:
        """Byte of a sample where its event is named, -1: nowhere."""
        return self.in_sample(IDENTIFIER if self.has(IDENTIFIER) else ID)

    @property
    def id_from_end(self) -> int:
        """Bytes before the end of other records where their event is named, -1: nowhere."""
        at = self.at_end(IDENTIFIER if self.has(IDENTIFIER) else ID)
        return self.end_size - at if at >= 0 else -1

    @property
    def read_values(self) -> tuple[int, int]:
        """Of its READ value: how many numbers come once, and how many for each event of a group (0: it is no group)."""
        times = sum(bool(self.read_format & bit) for bit in (1, 2))
        each = 1 + sum(bool(self.read_format & bit) for bit in (READ_ID, 1 << 4))
        return (1 + times, each) if self.read_format & READ_GROUP else (times + each, 0)

    @property
    def system(self) -> str:
        """The group of events that it belongs to; a PMU that only the recorded machine knows is named by its number."""
        return _SYSTEMS.get(self.type, f"pmu{self.type}")

    @property
    def event_name(self) -> str:
        """Its canonical name, without the modifiers that it was recorded with; only of others the name that was asked for."""
        known = {TYPE_HARDWARE: _HARDWARE, TYPE_SOFTWARE: _SOFTWARE}.get(self.type, ())
        if self.config < len(known):
            return known[self.config]
        return self.name or f"{self.config:#x}"


def read_attr(cursor: Cursor) -> tuple[Attr, int]:
    """An attribute without its ids, and the size that it states, which the cursor does not move past.

    Raises:
        ParseError: it states a size that no version has, or that is not there.
    """
    at = cursor.offset
    stated = int.from_bytes(cursor.data[cursor.at + 4 : cursor.at + 8], cursor.order)
    # Zero: the first version, from before it had a size.
    size = stated or _LEAST
    if size < _LEAST or size > cursor.left:
        raise cursor.error(f"an event attribute of {size} bytes is not possible at byte {at}", "the file is cut off or damaged")
    block = bytes(cursor.data[cursor.at : cursor.at + size]).ljust(112, b"\0")
    mark = "<" if cursor.order == "little" else ">"
    kind, _, config, _, sample_type, read_format = struct.unpack_from(f"{mark}IIQQQQ", block)
    flags = _flags(block[40:48], cursor.order)
    (clockid,) = struct.unpack_from(f"{mark}i", block, 92)
    clock = CLOCKS.get(clockid, f"clock {clockid}") if flags & _USE_CLOCKID else None
    return Attr(kind, config, sample_type, read_format, bool(flags & _SAMPLE_ID_ALL), clock, ()), size


def _flags(block: bytes, order: ByteOrder) -> int:
    # Bit fields are laid out from the other end on a big-endian machine: each byte's bits are mirrored, the bytes stay
    # (tools/perf/util/header.c and session.c, `swap_bitfield`).
    if order == "big":
        block = bytes(int(f"{byte:08b}"[::-1], 2) for byte in block)
    return int.from_bytes(block, "little")
