"""The event data of the buffers that are read, as one array of words and the stretch of it that each CPU has.

Data that are not compressed stay where they are, in the mapped file; compressed ones are unpacked once, into one array for all CPUs.
Layout of the chunks: trace-cmd, lib/trace-cmd/trace-compress.c (`tracecmd_load_chunks_info`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .codec import unpack
from .cursor import Cursor
from .errors import ParseError
from .tracedat import Buffer, CpuData

#: trace-cmd packs 10 sub-buffers a chunk: lib/trace-cmd/trace-output.c, PAGES_IN_CHUNK. More than this many are no chunk.
_MOST_PAGES_IN_CHUNK: Final = 64

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
    blocks: list[bytes | memoryview] = []
    streams: list[Stream] = []
    total = 0
    ends = _ends(data, buffers, path)
    for buffer in buffers:
        for cpu in buffer.cpus:
            begin = total
            if buffer.packed:
                chunks, broken, at = _chunks(data, buffer, cpu, ends[cpu.offset], codec, path)
            else:
                chunks = [data[cpu.offset : cpu.offset + cpu.size // 4 * 4]]
                chunks[0] = chunks[0][: len(chunks[0]) // 4 * 4]
                broken, at = (TRUNCATED, len(data)) if cpu.offset + cpu.size > len(data) else (None, 0)
            blocks += chunks
            total += sum(map(len, chunks))
            stride = buffer.page_size // 4
            streams.append(Stream(buffer.name, cpu.cpu, begin // 4, total // 4, stride, cpu.offset, buffer.packed, broken, at))
    return np.frombuffer(b"".join(blocks), np.dtype("<u4")), tuple(streams)


def _ends(data: memoryview, buffers: tuple[Buffer, ...], path: str) -> dict[int, int]:
    """Where the data that start at an offset must end: where those of another CPU start, or at the end of the file."""
    offsets = sorted(cpu.offset for buffer in buffers for cpu in buffer.cpus)
    ends = dict(zip(offsets, (*offsets[1:], len(data)), strict=True))
    if len(ends) < len(offsets):
        # A small file could have the same chunks unpacked for each of thousands of CPUs.
        raise ParseError("event data of two CPUs overlap", path=path, offset=offsets[0], hint="the file is damaged")
    return ends


def _chunks(
    data: memoryview, buffer: Buffer, cpu: CpuData, end: int, codec: str, path: str
) -> tuple[list[bytes | memoryview], str | None, int]:
    """The unpacked chunks of one CPU, and why and where they break off.

    The size that the CPU table states is not looked at: trace-cmd 3.1.6 leaves the word of the count out of it
    (https://bugzilla.kernel.org/show_bug.cgi?id=217367).
    """
    chunks: list[bytes | memoryview] = []
    cursor = Cursor(data, path, at=cpu.offset, end=end)
    at = cpu.offset
    try:
        for _ in range(cursor.u32("number of chunks")):
            at = cursor.at
            chunks.append(_chunk(cursor, buffer, codec))
    except ParseError:
        # What is whole before the break is read; `broken` goes into the losses, or becomes an error again when asked to be strict.
        stated = 8 + int.from_bytes(data[at : at + 4], "little")
        return chunks, TRUNCATED if at + stated > len(data) else DAMAGED, min(at, len(data))
    return chunks, None, 0


def _chunk(cursor: Cursor, buffer: Buffer, codec: str) -> bytes:
    start = cursor.at
    packed_size, size = cursor.u32("packed size of a chunk"), cursor.u32("size of a chunk")
    if size > _MOST_PAGES_IN_CHUNK * buffer.page_size or size % 4:
        raise cursor.error(f"a chunk of {size} bytes is not possible")
    return unpack(codec, cursor.take(packed_size, "chunk"), size, path=cursor.path, offset=start)
