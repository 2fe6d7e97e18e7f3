"""A large trace out of a small one: each CPU's sub-buffers again and again, each round later in time.

Version 6 without compression is what every reader of trace.dat takes, and there a sub-buffer begins with the one absolute time that
all its records count from (Linux, include/linux/ring_buffer.h): a round is later when those times are. A recording whose records have
absolute times of their own (type 31) would need more, and the fixtures have none.
"""

from __future__ import annotations

import struct
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tracetool_parsers import open_trace

#: The tag before the table of CPU data: trace-cmd, Documentation/trace-cmd/trace-cmd.dat.v6.5.txt.
_TAG: Final = b"flyrecord\0"
_ENTRY: Final = struct.Struct("<QQ")
#: Time between two rounds, ns: far longer than anything that is still under way when a recording ends.
_PAUSE: Final = 50_000_000


@dataclass(frozen=True, slots=True)
class Large:
    """A trace that was made of a `recording` (name of its file), in a `form`: `rounds` times over, `events` in all, `size` in bytes."""

    path: Path
    recording: str
    form: str
    rounds: int
    events: int
    size: int

    def described(self) -> dict[str, Any]:
        """What can be said of it anywhere: all but its path."""
        plain = asdict(self)
        del plain["path"]
        return plain


def make_large(recording: Path, folder: Path, events: int) -> Large:
    """A trace of at least `events` events in `folder`, from a recording of any version.

    Raises:
        FileNotFoundError: there is no trace-cmd.
        subprocess.CalledProcessError: trace-cmd cannot convert the recording.
    """
    small, large = folder / "small.dat", folder / "large.dat"
    convert = ["trace-cmd", "convert", "-i", str(recording), "-o", str(small), "--file-version", "6", "--compression", "none"]
    subprocess.run(convert, check=True, capture_output=True)
    own = sum(open_trace(small).counts().values())
    rounds = -(-events // own)
    enlarge(small, large, rounds)
    return Large(large, recording.name, "trace.dat", rounds, own * rounds, large.stat().st_size)


def enlarge(small: Path, large: Path, rounds: int) -> None:
    """Write `rounds` rounds of `small`, a trace.dat of version 6 with one buffer, to `large`."""
    data = small.read_bytes()
    trace = open_trace(small)
    first, last = trace.span() or (0, 0)
    at = data.index(_TAG) + len(_TAG)
    table = [_ENTRY.unpack_from(data, at + cpu * _ENTRY.size) for cpu in range(trace.metadata.cpus)]
    head = bytearray(data[: min(offset for offset, size in table if size)])
    # The file's own number says how the CPU data are aligned, and they still begin where they began.
    offset = len(head)
    for cpu, (_, size) in enumerate(table):
        _ENTRY.pack_into(head, at + cpu * _ENTRY.size, offset, size * rounds)
        offset += size * rounds
    with large.open("wb") as out:
        out.write(head)
        for offset, size in table:
            words = np.frombuffer(data, "<u8", size // 8, offset).copy()
            times = words.reshape(-1, trace.metadata.page_size // 8)[:, 0]
            for _ in range(rounds):
                out.write(words.data)
                times += np.uint64(last - first + _PAUSE)
