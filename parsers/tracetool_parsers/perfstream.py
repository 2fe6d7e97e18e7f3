"""The records of a perf.data as one array of words: where they lie, or copied once where they are compressed or in several files.

`perf record -z` packs the records that the kernel made; those of perf itself lie between them as they are. All compressed records of
a file are one zstd stream without an end, and a packed record may begin in one and end in the next (Linux, tools/perf/util/tool.c or
session.c, `perf_session__process_compressed_event`). What is unpacked goes to memory as long as it is small, then to an unnamed file.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt

from .cursor import ByteOrder
from .errors import TraceError
from .perfheader import AUXTRACE, COMPRESSED2_RECORD, COMPRESSED_RECORD
from .perfrecords import next_packed
from .progress import stage

Array = npt.NDArray[Any]

#: Bytes that are kept in memory.
_MOST_IN_MEMORY: Final = 1 << 24
#: Bytes that are unpacked at a time.
_PIECE: Final = 1 << 20
#: Bytes that are looked through at a time, at first, for the next compressed record; no record is larger than the second.
_WINDOW: Final = 1 << 12
_LARGEST: Final = 1 << 16
#: No records shrink further than this.
_MOST_RATIO: Final = 1024

_PACKED: Final = (COMPRESSED_RECORD, COMPRESSED2_RECORD)

TRUNCATED: Final = "truncated file"
DAMAGED: Final = "damaged compressed records"


@dataclass(frozen=True, slots=True)
class Records:
    """Where records lie.

    Attributes:
        words: uint32.
        begin, end: which of them.
        in_file: whether places among the words are places in the file.
        damage: what could not be had: a source of the losses table, and its byte in the file.
    """

    words: Array
    begin: int
    end: int
    in_file: bool
    damage: tuple[tuple[str, int], ...] = ()


def records_of(parts: Sequence[tuple[memoryview, int, int]], order: ByteOrder, path: str, *, packed: bool) -> Records:
    """The records in bytes begin..end of each of several files.

    Raises:
        TraceError: there is no room for what is unpacked.
    """
    data, begin, end = parts[0]
    if len(parts) == 1 and begin % 4 == 0:
        words = _words(data)
        last = end // 4
        if not packed or next_packed.run(last - begin // 4, words, begin // 4, last, int(order == "big")) + 2 > last:
            return Records(words, begin // 4, last, in_file=True)
    joined = _Joined(order, path)
    size = sum(end - begin for _, begin, end in parts)
    try:
        with stage("unpacking records", size, "bytes", lambda: joined.seen):
            for data, begin, end in parts:
                joined.add(data, begin, end)
        return joined.finish()
    except OSError as error:
        message = f"its records cannot be unpacked: {error.strerror}"
        raise TraceError(message, path=path, hint="name a folder with more room in $TMPDIR") from error


def _words(data: memoryview | bytes) -> Array:
    return np.frombuffer(data, np.dtype("<u4"), len(data) // 4)


class _Room:
    """Bytes that grow: in memory, then in a file."""

    def __init__(self) -> None:
        self.size = 0
        self._memory = bytearray()
        self._file: BinaryIO | None = None

    def add(self, block: memoryview | bytes) -> None:
        self.size += len(block)
        if self._file is None and self.size <= _MOST_IN_MEMORY:
            self._memory += block
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="tracetool-")  # noqa: SIM115 -- lives as long as its map
            self._file.write(self._memory)
            self._memory = bytearray()
        self._file.write(block)

    def words(self) -> Array:
        if self._file is None:
            return _words(bytes(self._memory))
        self._file.flush()
        with self._file as file:
            return _words(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


class _Joined:
    """Records of several files, unpacked, one after the other."""

    def __init__(self, order: ByteOrder, path: str) -> None:
        self._order: ByteOrder = order
        self._swapped = int(order == "big")
        self._path = path
        self._room = _Room()
        self._damage: list[tuple[str, int]] = []
        #: How many bytes have been gone through.
        self.seen = 0

    def add(self, data: memoryview, begin: int, end: int) -> None:
        """Add the records of one file."""
        stream = _Unpacking(self._room, self._swapped)
        unpacking: _Unpacking | None = stream
        at, window, before = begin, _WINDOW, self.seen
        while at + 8 <= end:
            self.seen = before + at - begin
            # Compressed records have any size: what lies behind one is copied to where words begin.
            piece = bytes(data[at : min(at + window, end)])
            whole = 4 * next_packed.run(len(piece) // 80, _words(piece), 0, len(piece) // 4, self._swapped)
            self._room.add(memoryview(piece)[:whole])
            at += whole
            kind, size = int.from_bytes(data[at : at + 4], self._order), int.from_bytes(data[at + 6 : min(at + 8, end)], self._order)
            if kind in _PACKED and 8 <= size <= end - at:
                if unpacking is not None and not unpacking.add(self._payload(data[at : at + size], kind)):
                    # The rest of the stream cannot be understood without this piece.
                    self._damage.append((DAMAGED, at))
                    unpacking = None
                at, window = at + size, _WINDOW
            elif kind == AUXTRACE and 16 <= size <= end - at:
                at += size + int.from_bytes(data[at + 8 : at + 16], self._order)
            elif at + len(piece) - whole >= end or len(piece) - whole > _LARGEST:
                break
            else:
                window = min(4 * window, _PIECE)
        stream.end()
        self.seen = before + end - begin
        if at < end:
            self._give_up(data[at:end], at)

    def _payload(self, record: memoryview, kind: int) -> memoryview:
        """What is packed in a record."""
        if kind != COMPRESSED2_RECORD:
            return record[8:]
        return record[16 : 16 + int.from_bytes(record[8:16], self._order)]

    def _give_up(self, left: memoryview, at: int) -> None:
        """Add what cannot be followed: its plain records may be found again, compressed ones are lost."""
        if len(left) < 8 or int.from_bytes(left[6:8], self._order) > len(left):
            self._damage.append((TRUNCATED, at))
            return
        self._damage.append((DAMAGED, at))
        for begin in range(0, len(left) // 4 * 4, _PIECE):
            self._room.add(left[begin : min(begin + _PIECE, len(left) // 4 * 4)])

    def finish(self) -> Records:
        words = self._room.words()
        return Records(words, 0, len(words), in_file=False, damage=tuple(self._damage))


class _Unpacking:
    """A zstd stream whose pieces come one by one; whole records go on, the start of the next one is kept."""

    def __init__(self, room: _Room, swapped: int) -> None:
        import zstandard

        self._errors = (zstandard.ZstdError,)
        # Its type asks for a whole file; what it needs of one is `write`.
        self._stream = zstandard.ZstdDecompressor().stream_writer(cast("IO[bytes]", self), write_size=_PIECE)
        self._room = room
        self._swapped = swapped
        self._tail = b""
        self._in = self._out = 0

    def add(self, packed: memoryview) -> bool:
        """Unpack the next piece; returns whether it could be."""
        self._in += len(packed)
        try:
            self._stream.write(packed)
        except (*self._errors, _TooLarge):
            return False
        return True

    def end(self) -> None:
        """Let go of the decompressor: it knows this object, and no garbage collector sees that it does."""
        del self._stream

    def write(self, piece: bytes) -> int:
        """Take what was unpacked."""
        self._out += len(piece)
        if self._out > max(_MOST_RATIO * self._in, _PIECE):
            raise _TooLarge
        block = self._tail + piece
        words = _words(block)
        whole = 4 * next_packed.run(len(words), words, 0, len(words), self._swapped)
        # No record is larger: what goes on so long without a whole one is damaged, and looked at later.
        whole = whole if len(block) - whole <= _LARGEST else len(block) // 4 * 4
        self._room.add(memoryview(block)[:whole])
        self._tail = block[whole:]
        return len(piece)


class _TooLarge(Exception):
    """More came out than records can be packed into so few bytes."""
