"""The event data of the buffers that are read, as one array of words and the stretch of it that each CPU has.

Data that are not compressed stay where they are, in the mapped file; compressed ones are unpacked once, into one array for all CPUs.
Layout of the chunks: trace-cmd, lib/trace-cmd/trace-compress.c (`tracecmd_load_chunks_info`).
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from .codec import unpack
from .cursor import Cursor
from .errors import ParseError
from .tracedat import Buffer, CpuData

#: trace-cmd packs 10 sub-buffers a chunk: lib/trace-cmd/trace-output.c, PAGES_IN_CHUNK. More than this many are no chunk.
_MOST_PAGES_IN_CHUNK: Final = 64

#: What a thread unpacks at a time, in about two milliseconds.
_CHUNKS_A_TASK: Final = 32

TRUNCATED: Final = "truncated file"
DAMAGED: Final = "damaged chunk"


@dataclass(frozen=True, slots=True)
class Stream:
    """The sub-buffers of one CPU of one buffer.

    Attributes:
        buffer: name of the buffer.
        cpu: number of the CPU.
        begin, end: which words of the array.
        stride: words of a sub-buffer.
        file_offset: byte of the file where the CPU's data start.
        packed: whether the words were unpacked: places in them are then not places in the file.
        broken: why words are missing at the end, None where none are: a source of the losses table.
        broken_at: byte of the file where it breaks off.
    """

    buffer: str
    cpu: int
    begin: int
    end: int
    stride: int
    file_offset: int
    packed: bool
    broken: str | None = None
    broken_at: int = 0

    def offset_of(self, word: int) -> int:
        """Byte of the file for a word of this stream; of compressed data the byte where they start."""
        return self.file_offset if self.packed else word * 4


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A stretch of a CPU's data: at which byte of the file it starts, its bytes, and which bytes of the array are to hold it."""

    offset: int
    packed: memoryview
    begin: int
    size: int
    is_packed: bool


def load_streams(data: memoryview, buffers: tuple[Buffer, ...], codec: str, path: str) -> tuple[npt.NDArray[np.uint32], tuple[Stream, ...]]:
    """The words (uint32, read-only) that the buffers' data lie in, and the stream of each CPU, by buffer and CPU.

    Raises:
        ParseError: data lie at a byte that no writer uses, or those of two CPUs overlap.
    """
    _check_places(data, buffers, path)
    if any(buffer.packed for buffer in buffers):
        return _unpacked(data, buffers, codec, path)
    streams = []
    for buffer in buffers:
        for cpu in buffer.cpus:
            begin, end = (min(byte, len(data)) // 4 for byte in (cpu.offset, cpu.offset + cpu.size))
            broken = TRUNCATED if cpu.offset + cpu.size > len(data) else None
            streams.append(Stream(buffer.name, cpu.cpu, begin, end, buffer.page_size // 4, cpu.offset, False, broken, len(data)))
    return np.frombuffer(data[: len(data) // 4 * 4], np.dtype("<u4")), tuple(streams)


def _check_places(data: memoryview, buffers: tuple[Buffer, ...], path: str) -> None:
    places = sorted((cpu.offset, cpu.size) for buffer in buffers if not buffer.packed for cpu in buffer.cpus)
    for offset, _ in places:
        if offset % 4:
            raise ParseError("event data are not at a whole word", path=path, offset=offset, hint="the file is damaged")
    for (offset, size), (following, _) in itertools.pairwise(places):
        # Without this a small file could ask for the same bytes once for each of thousands of CPUs.
        if offset + size > following and following < len(data):
            raise ParseError("event data of two CPUs overlap", path=path, offset=following, hint="the file is damaged")


def _unpacked(data: memoryview, buffers: tuple[Buffer, ...], codec: str, path: str) -> tuple[npt.NDArray[np.uint32], tuple[Stream, ...]]:
    ends = _ends(data, buffers, path)
    chunks: list[_Chunk] = []
    streams: list[Stream] = []
    total = 0
    for buffer in buffers:
        for cpu in buffer.cpus:
            listed, broken, at = _chunks(data, buffer, cpu, ends[cpu.offset], total, path)
            chunks += listed
            begin, total = total, total + sum(chunk.size for chunk in listed)
            stride = buffer.page_size // 4
            streams.append(Stream(buffer.name, cpu.cpu, begin // 4, total // 4, stride, cpu.offset, buffer.packed, broken, at))
    try:
        out = np.empty(total // 4, np.dtype("<u4"))
    except MemoryError as error:
        message = f"the event data state {total} bytes unpacked"
        raise ParseError(message, path=path, offset=streams[0].file_offset, hint="the file is damaged") from error
    damaged = _fill(out.view(np.uint8), chunks, codec, path)
    out.flags.writeable = False
    return out, tuple(_up_to(stream, damaged) for stream in streams)


def _fill(out: npt.NDArray[np.uint8], chunks: list[_Chunk], codec: str, path: str) -> list[_Chunk]:
    """Unpack the chunks to their places; returns those that are damaged, in order."""

    def fill(some: list[_Chunk]) -> list[_Chunk]:
        damaged = []
        for chunk in some:
            try:
                unpacked = unpack(codec, chunk.packed, chunk.size, path=path, offset=chunk.offset) if chunk.is_packed else chunk.packed
            except ParseError:
                damaged.append(chunk)
            else:
                out[chunk.begin : chunk.begin + chunk.size] = np.frombuffer(unpacked, np.uint8)
        return damaged

    tasks = [chunks[i : i + _CHUNKS_A_TASK] for i in range(0, len(chunks), _CHUNKS_A_TASK)]
    if len(tasks) < 2:
        return fill(chunks)
    # Codecs work outside the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(itertools.chain.from_iterable(pool.map(fill, tasks)))


def _up_to(stream: Stream, damaged: list[_Chunk]) -> Stream:
    """The stream up to its first damaged chunk."""
    for chunk in damaged:
        if stream.begin * 4 <= chunk.begin < stream.end * 4:
            return replace(stream, end=chunk.begin // 4, broken=DAMAGED, broken_at=chunk.offset)
    return stream


def _ends(data: memoryview, buffers: tuple[Buffer, ...], path: str) -> dict[int, int]:
    """Where the data that start at an offset must end: where those of another CPU start, or at the end of the file."""
    offsets = sorted(cpu.offset for buffer in buffers for cpu in buffer.cpus)
    ends = dict(zip(offsets, (*offsets[1:], len(data)), strict=True))
    if len(ends) < len(offsets):
        # A small file could have the same chunks unpacked for each of thousands of CPUs.
        raise ParseError("event data of two CPUs overlap", path=path, offset=offsets[0], hint="the file is damaged")
    return ends


def _chunks(data: memoryview, buffer: Buffer, cpu: CpuData, end: int, begin: int, path: str) -> tuple[list[_Chunk], str | None, int]:
    """The chunks of one CPU, unpacked from byte `begin` of the array on, and why and where they break off.

    The size that the CPU table states is not looked at where data are compressed: trace-cmd 3.1.6 leaves the word of the count out of
    it (https://bugzilla.kernel.org/show_bug.cgi?id=217367).
    """
    if not buffer.packed:
        block = data[cpu.offset : cpu.offset + cpu.size]
        block = block[: len(block) // 4 * 4]
        cut = cpu.offset + cpu.size > len(data)
        return [_Chunk(cpu.offset, block, begin, len(block), is_packed=False)], TRUNCATED if cut else None, len(data)
    chunks: list[_Chunk] = []
    cursor = Cursor(data, path, at=cpu.offset, end=end)
    at = cpu.offset
    try:
        for _ in range(cursor.u32("number of chunks")):
            at = cursor.at
            packed_size, size = cursor.u32("packed size of a chunk"), cursor.u32("size of a chunk")
            packed = cursor.take(packed_size if _is_possible(size, buffer) else -1, "chunk")
            chunks.append(_Chunk(at, packed, begin, size, is_packed=True))
            begin += size
    except ParseError:
        # What is whole before the break is read; `broken` goes into the losses, or becomes an error again when asked to be strict.
        stated = 8 + int.from_bytes(data[at : at + 4], "little")
        return chunks, TRUNCATED if at + stated > len(data) else DAMAGED, min(at, len(data))
    return chunks, None, 0


def _is_possible(size: int, buffer: Buffer) -> bool:
    return 0 < size <= _MOST_PAGES_IN_CHUNK * buffer.page_size and size % 4 == 0
