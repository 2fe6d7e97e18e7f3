"""Decompression with the size of the result known and bounded before a byte is unpacked."""

from __future__ import annotations

import threading
import zlib
from typing import Any, Final

from .cursor import Cursor
from .errors import ParseError

#: The codecs that trace-cmd writes: lib/trace-cmd/trace-compress-zstd.c, trace-compress-zlib.c.
CODECS: Final = ("none", "zlib", "zstd")

#: A section of metadata is text; no text of formats or symbols shrinks further than this.
_MOST_RATIO: Final = 1024
_SMALLEST_BOUND: Final = 1 << 16


#: A decompressor serves one thread.
_own = threading.local()


def _zstd() -> Any:
    import zstandard

    if not hasattr(_own, "zstd"):
        _own.zstd = zstandard.ZstdDecompressor()
    return _own.zstd


def unpack(codec: str, packed: memoryview, size: int, *, path: str, offset: int) -> bytes:
    """Exactly `size` bytes out of `packed`, which lies at byte `offset` of the file.

    A zstd frame of trace-cmd carries no size of its content; where a frame does, it must be the stated one.

    Raises:
        ParseError: the bytes are damaged, or hold more or fewer bytes than stated.
    """
    try:
        unpacked = _unpack_zstd(packed, size) if codec == "zstd" else _unpack_zlib(packed, size)
    except (zlib.error, ValueError, MemoryError) as error:
        raise ParseError(f"damaged {codec} data: {error}", path=path, offset=offset, hint="the file is damaged; copy it again") from error
    if len(unpacked) != size:
        raise ParseError(f"{codec} data hold {len(unpacked)} bytes where {size} are stated", path=path, offset=offset)
    return unpacked


def _unpack_zlib(packed: memoryview, size: int) -> bytes:
    # One byte more than stated, so that data that hold more are told from data that hold what they state.
    return zlib.decompressobj().decompress(packed, size + 1)


def _unpack_zstd(packed: memoryview, size: int) -> bytes:
    import zstandard

    try:
        # A frame's own size overrules max_output_size: it has to be looked at before anything is allocated for it.
        within = zstandard.frame_content_size(packed)
        if within not in (-1, size):
            raise ValueError(f"the frame says {within} bytes, {size} are stated")
        unpacked: bytes = _zstd().decompress(packed, max_output_size=size)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    return unpacked


def unpack_section(codec: str, cursor: Cursor, end: int) -> memoryview:
    """A compressed section of metadata: u32 packed size, u32 size, the packed bytes; the cursor is at its start.

    Raises:
        ParseError: the section does not fit before byte `end`, or states more than text can shrink to.
    """
    start = cursor.at
    packed_size, size = cursor.u32("packed size"), cursor.u32("unpacked size")
    if cursor.at + packed_size > end:
        raise cursor.error(f"a compressed section needs {packed_size} bytes, {end - cursor.at} are left", "the file is damaged")
    if size > max(_SMALLEST_BOUND, _MOST_RATIO * packed_size):
        raise cursor.error(f"a compressed section of {packed_size} bytes states {size} unpacked", "the file is damaged")
    packed = cursor.take(packed_size, "compressed section")
    return memoryview(unpack(codec, packed, size, path=cursor.path, offset=start))


def unpacked_start(codec: str, packed: memoryview, size: int) -> bytes:
    """The first `size` bytes of what `packed` holds; fewer where it holds fewer, or is damaged."""
    import zstandard

    try:
        if codec != "zstd":
            return zlib.decompressobj().decompress(packed, size)
        start: bytes = _zstd().stream_reader(packed).read(size)
    except (zlib.error, zstandard.ZstdError, MemoryError):
        return b""
    return start
