"""The sub-buffers of each CPU: where they lie in the file, and their words, stretch by stretch.

Data that are not compressed stay where they are, in the mapped file, and are one stretch; compressed ones are unpacked a stretch of
chunks at a time, into memory that the next stretch takes again. Layout of the chunks: trace-cmd, lib/trace-cmd/trace-compress.c
(`tracecmd_load_chunks_info`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .codec import unpack, unpacked_start
from .cursor import ByteOrder, Cursor
from .errors import ParseError
from .tracedat import Buffer, CpuData

#: trace-cmd packs 10 sub-buffers a chunk: lib/trace-cmd/trace-output.c, PAGES_IN_CHUNK. More than this many are no chunk.
MOST_PAGES_IN_CHUNK: Final = 64
#: Sub-buffers of data that are not compressed are found by time in blocks of so many.
_PAGES_IN_BLOCK: Final = 16
#: Bytes that are unpacked at a time: of one CPU, and of all together.
_STRETCH: Final = 1 << 20
_ALL_STRETCHES: Final = 1 << 26

TRUNCATED: Final = "truncated file"
DAMAGED: Final = "damaged chunk"


@dataclass(frozen=True, slots=True)
class Stream:
    """The sub-buffers of one CPU of one buffer, in blocks: chunks where they are compressed.

    Attributes:
        buffer: name of the buffer.
        cpu: number of the CPU.
        page_size: bytes of a sub-buffer.
        order: of the bytes in the file.
        codec: how the blocks are compressed, "none" where they are not.
        offset: byte of the file where the CPU's data start.
        offsets, packed, sizes: int64, of each block its byte in the file, its bytes there, and its bytes when unpacked.
        broken: why data are missing at the end, None where none are: a source of the losses table.
        broken_at: byte of the file where they break off.
    """

    buffer: str
    cpu: int
    page_size: int
    order: ByteOrder
    codec: str
    offset: int
    offsets: npt.NDArray[np.int64]
    packed: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    broken: str | None = None
    broken_at: int = 0

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self.sizes)

    @property
    def bytes(self) -> int:
        """Bytes of all its sub-buffers, unpacked."""
        return int(self.sizes.sum())

    @property
    def stretch(self) -> int:
        """The most bytes that one block takes."""
        return int(self.sizes.max(initial=0))

    def spread(self, pieces: int, size: int) -> list[Stream]:
        """Some of its blocks as streams of their own: about `size` bytes from that many places, at the same distances."""
        pieces = min(max(pieces, 1), self.blocks)
        ends = np.cumsum(self.sizes)
        found = []
        for piece in range(pieces):
            first = self.blocks * piece // pieces
            last = int(np.searchsorted(ends, ends[first] - self.sizes[first] + size // pieces, "right"))
            chosen = slice(first, min(max(last, first + 1), self.blocks * (piece + 1) // pieces))
            found.append(replace(self, offsets=self.offsets[chosen], packed=self.packed[chosen], sizes=self.sizes[chosen]))
        return found

    def time_of(self, data: memoryview, block: int) -> int | None:
        """The time stamp of the first sub-buffer of a block, in units of the clock; None where it cannot be read."""
        at = int(self.offsets[block])
        raw = data[at : at + int(self.packed[block])]
        head = bytes(raw[:8]) if self.codec == "none" else unpacked_start(self.codec, raw, 8)
        return int.from_bytes(head, self.order) if len(head) == 8 else None


class Stretch(NamedTuple):
    """Words of a stream that lie together.

    Attributes:
        begin, end: which words of the array.
        place: which word of the stream the first one is.
        gaps: damage before it: source, byte of the file.
    """

    begin: int
    end: int
    place: int
    gaps: tuple[tuple[str, int], ...]


class Memory:
    """The words that streams are read from: the file itself, or room that stretches of compressed streams take in turn.

    Attributes:
        words: uint32, in the byte order of the file.
        pairs: uint64, each word together with the one after it.
        lasts: whether words stay where they are until all is read.
    """

    def __init__(self, data: memoryview, streams: Sequence[Stream]) -> None:
        self.data = data
        self.lasts = all(stream.codec == "none" for stream in streams)
        if self.lasts:
            self.words: npt.NDArray[Any] = np.frombuffer(data[: len(data) // 4 * 4], np.dtype("<u4"))
            self._rooms = [0] * len(streams)
            self.pairs = pairs_of(self.words)
            return
        fair = min(_STRETCH, _ALL_STRETCHES // len(streams))
        self._rooms = [-(-min(max(stream.stretch, fair), stream.bytes) // 8) * 8 for stream in streams]
        self._starts = [0, *itertools.accumulate(self._rooms)]
        try:
            self.words = np.empty(self._starts[-1] // 4, np.dtype("<u4"))
        except MemoryError as error:
            message = f"the event data state chunks of {max(self._rooms)} bytes"
            raise ParseError(message, offset=streams[0].offset, hint="the file is damaged") from error
        self.pairs = pairs_of(self.words)

    def feed(self, number: int, stream: Stream, first: int, last: int) -> Feed:
        """The blocks first..last (without the last) of the stream with that number."""
        if self.lasts:
            return Feed(self, stream, first, last, 0, 0)
        return Feed(self, stream, first, last, self._starts[number], self._rooms[number])


def pairs_of(words: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Each word together with the one after it (uint64, one less), not copied: such a number may lie at any word."""
    if words.size < 2:
        return np.empty(0, np.uint64)
    whole = words[: words.size // 2 * 2].view(np.uint64)
    return np.lib.stride_tricks.as_strided(whole, (words.size - 1,), (4,), writeable=False)


class Feed:
    """The stretches of some blocks of a stream, each until the next is asked for."""

    def __init__(self, memory: Memory, stream: Stream, first: int, last: int, at: int, room: int) -> None:
        self._memory, self._stream = memory, stream
        self._next, self._last = first, last
        self._at, self._room = at, room
        self._place = int(stream.sizes[:first].sum())

    def more(self) -> Stretch | None:
        """The next stretch, None after the last."""
        if self._next >= self._last:
            return None
        if self._memory.lasts:
            return self._whole()
        return self._unpacked()

    def stop(self) -> None:
        """Give no more stretches."""
        self._next = self._last

    def _whole(self) -> Stretch:
        stream = self._stream
        begin = int(stream.offsets[self._next])
        size = int(stream.sizes[self._next : self._last].sum())
        self._next = self._last
        return Stretch(begin // 4, (begin + size) // 4, self._place // 4, ())

    def _unpacked(self) -> Stretch:
        stream, out = self._stream, self._memory.words.view(np.uint8)
        at, place, gaps = self._at, self._place, []
        while self._next < self._last:
            size = int(stream.sizes[self._next])
            if at > self._at and (at + size > self._at + self._room or (at - self._at) % stream.page_size):
                break
            begin, self._next = int(stream.offsets[self._next]), self._next + 1
            packed = self._memory.data[begin : begin + int(stream.packed[self._next - 1])]
            try:
                block = packed if stream.codec == "none" else unpack(stream.codec, packed, size, path="", offset=begin)
            except ParseError:
                # As where data break off: at the chunk's own two lengths.
                gaps.append((DAMAGED, begin - 8))
                # What is read so far is given first: the gap lies after it.
                if at > self._at:
                    self._next -= 1
                    gaps.clear()
                    break
                self._place = place = place + size
                continue
            out[at : at + size] = np.frombuffer(block, np.uint8)
            at += size
        self._place += at - self._at
        return Stretch(self._at // 4, at // 4, place // 4, tuple(gaps))


def streams_of(data: memoryview, buffers: tuple[Buffer, ...], codec: str, order: ByteOrder, path: str) -> tuple[Stream, ...]:
    """The stream of each CPU, by buffer and CPU; nothing is unpacked.

    Raises:
        ParseError: the table of the CPUs' data is damaged. Damage inside the data is noted in the streams.
    """
    ends = _ends(data, buffers, path)
    streams = []
    for buffer in buffers:
        for cpu in buffer.cpus:
            if buffer.packed:
                streams.append(_packed(data, buffer, cpu, ends[cpu.offset], codec, order, path))
            else:
                if cpu.offset % 4:
                    raise ParseError("event data are not at a whole word", path=path, offset=cpu.offset, hint="the file is damaged")
                if cpu.offset + cpu.size > ends[cpu.offset] < len(data):
                    # Without this a small file could ask for the same bytes once for each of thousands of CPUs.
                    raise ParseError("event data of two CPUs overlap", path=path, offset=ends[cpu.offset], hint="the file is damaged")
                streams.append(_plain(data, buffer, cpu, order))
    return tuple(streams)


def _ends(data: memoryview, buffers: tuple[Buffer, ...], path: str) -> dict[int, int]:
    """Where the data that start at an offset must end: where those of another CPU start, or at the end of the file."""
    offsets = sorted(cpu.offset for buffer in buffers for cpu in buffer.cpus)
    ends = dict(itertools.pairwise((*offsets, len(data))))
    if len(ends) < len(offsets):
        # A small file could have the same chunks unpacked for each of thousands of CPUs.
        raise ParseError("event data of two CPUs overlap", path=path, offset=offsets[0], hint="the file is damaged")
    return ends


def _plain(data: memoryview, buffer: Buffer, cpu: CpuData, order: ByteOrder) -> Stream:
    begin = min(cpu.offset, len(data))
    size = min(cpu.size, len(data) - begin) // 4 * 4
    block = _PAGES_IN_BLOCK * buffer.page_size
    offsets = np.arange(begin, begin + size, block, dtype=np.int64)
    sizes = np.minimum(block, begin + size - offsets)
    broken: Literal["truncated file"] | None = TRUNCATED if cpu.offset + cpu.size > len(data) else None
    return Stream(buffer.name, cpu.cpu, buffer.page_size, order, "none", begin, offsets, sizes, sizes, broken, len(data))


def _packed(data: memoryview, buffer: Buffer, cpu: CpuData, end: int, codec: str, order: ByteOrder, path: str) -> Stream:
    """A stream of chunks.

    The size that the CPU table states is not looked at where data are compressed: trace-cmd 3.1.6 leaves the word of the count out of
    it (https://bugzilla.kernel.org/show_bug.cgi?id=217367).
    """
    found: list[tuple[int, int, int]] = []
    cursor = Cursor(data, path, at=min(cpu.offset, end), end=end, order=order)
    at, broken = cpu.offset, None
    try:
        for _ in range(cursor.u32("number of chunks")):
            at = cursor.at
            packed, size = cursor.u32("packed size of a chunk"), cursor.u32("size of a chunk")
            cursor.take(packed if _is_possible(size, buffer) else -1, "chunk")
            found.append((at + 8, packed, size))
    except ParseError:
        # What is whole before the break is read; `broken` goes into the losses, or becomes an error again when asked to be strict.
        stated = 8 + int.from_bytes(data[at : at + 4], order)
        broken = TRUNCATED if at + stated > len(data) else DAMAGED
    offsets, sizes_packed, sizes = np.array(found, np.int64).reshape(-1, 3).T
    return Stream(
        buffer.name, cpu.cpu, buffer.page_size, order, codec, cpu.offset, offsets, sizes_packed, sizes, broken, min(at, len(data))
    )  # fmt: skip


def _is_possible(size: int, buffer: Buffer) -> bool:
    return 0 < size <= MOST_PAGES_IN_CHUNK * buffer.page_size and size % 4 == 0
