"""Where the bytes of a trace come from: a file, a pipe or standard input, unpacked where they are compressed.

In the end it is always a mapped file. What cannot be mapped as it is goes through a temporary file without a name, so that memory stays
bounded whatever comes: the file is in `TMPDIR`, and gone when the trace is.
"""

from __future__ import annotations

import contextlib
import errno
import lzma
import mmap
import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

from .errors import ParseError, TraceError
from .progress import stage

#: The path that means standard input.
STDIN: Final = "-"

#: What is read, or written, at a time.
PIECE: Final = 1 << 20
#: What goes into a decompressor, or comes out of it, at a time.
_STEP: Final = 1 << 16
#: What came out together with an error is lost: less comes out of xz at a time.
_XZ_STEP: Final = 1 << 12
#: What is fed to a zstd decompressor at a time. It has no bound for what comes out: 4 bytes can state a block of 128 KiB.
_ZSTD_STEP: Final = 1 << 8
#: Frames of a greater window are refused: `zstd --long=27` is the most that zstd itself unpacks without being told to.
_ZSTD_WINDOW: Final = 1 << 27
#: xz's own highest preset, -9, needs 65 MiB to unpack.
_XZ_MEMORY: Final = 1 << 28

#: How deep compressed files may lie in each other.
MOST_LAYERS: Final = 2
#: No recording shrinks further than this; what unpacks to more was made to fill a disk.
_MOST_RATIO: Final = 1024
_SMALLEST_BOUND: Final = 1 << 26

TRUNCATED: Final = "truncated file"


@dataclass(frozen=True, slots=True)
class Broken:
    """Where the data of a compressed file break off.

    Attributes:
        packing: "gzip", "xz", "zstd".
        source: why, as in the losses table: "truncated file", "damaged gzip data".
        offset: byte of the compressed file.
    """

    packing: str
    source: str
    offset: int


@dataclass(frozen=True, slots=True)
class Input:
    """The bytes of a trace.

    Attributes:
        data: the mapped file, unpacked.
        packings: what it was unpacked from, outermost first: "gzip", "xz", "zstd".
        broken: why the bytes are not all, None where they are.
    """

    data: memoryview
    packings: tuple[str, ...] = ()
    broken: Broken | None = None


class _Break(Exception):
    """Compressed data that cannot be unpacked from byte `offset` on; `what` says why, None: they end there."""

    def __init__(self, offset: int, what: str | None = None) -> None:
        super().__init__(what)
        self.offset = offset
        self.what = what


def read_input(path: str, *, strict: bool = False) -> Input:
    """The bytes of a trace.

    A regular file is mapped and must not change while it is in use. What else there is (a pipe, a device, a file of tracefs) is read to
    its end first. Files compressed with gzip, xz or zstd are told by their first bytes, and unpacked: several members or frames in a row
    too, and a compressed file inside a compressed one.

    Args:
        path: the file; "-" for standard input.
        strict: whether compressed data that break off are an error.

    Raises:
        TraceError: it cannot be read, or there is no room for a temporary file.
        ParseError: compressed data of which nothing can be unpacked, or that unpack to more than any recording does.
    """
    data = _bytes_of(path)
    most = max(_SMALLEST_BOUND, _MOST_RATIO * len(data))
    packings: list[str] = []
    broken: Broken | None = None
    while (packing := _packing(data)) is not None:
        if len(packings) == MOST_LAYERS:
            raise ParseError(f"is compressed more than {MOST_LAYERS} times", path=path, offset=0, hint="unpack it first")
        packings.append(packing)
        data, broke = _unpacked(data, packing, most, path)
        broken = broken or broke
        if broke and (strict or not data):
            hint = "the file is cut off or damaged; copy it again"
            raise ParseError(f"{broke.source}: its {packing} data break off", path=path, offset=broke.offset, hint=hint)
    return Input(data, tuple(packings), broken)


def _bytes_of(path: str) -> memoryview:
    try:
        # Descriptor 0 and not sys.stdin, which may be a text stream that somebody put there.
        with open(0 if path == STDIN else path, "rb", buffering=0, closefd=path != STDIN) as file:
            if path == STDIN and os.isatty(0):
                raise TraceError("standard input is a terminal", path=path, hint="pipe a trace into it, or name a file")
            return _mapped(file, path)
    except OSError as error:
        raise TraceError(f"cannot be read: {error.strerror}", path=path, hint="check the path and its permissions") from error
    except ValueError as error:
        raise TraceError("is not a possible path", path=path, hint="check the path") from error


def _mapped(file: IO[bytes], path: str) -> memoryview:
    """The whole of an open file: mapped, or kept in a temporary file where that cannot be (files of tracefs have no size, pipes no end)."""
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size and file.tell() == 0:
        try:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
    read = 0

    def pieces() -> Iterator[bytes]:
        nonlocal read
        while piece := file.read(PIECE):
            read += len(piece)
            yield piece

    with stage("taking in", 0, "bytes", lambda: read):
        return _kept(pieces(), path)


def _kept(pieces: Iterable[bytes], path: str) -> memoryview:
    """The pieces one after the other, in a temporary file without a name, mapped."""
    try:
        spool = tempfile.TemporaryFile(prefix="tracetool-", buffering=PIECE)  # noqa: SIM115 closed below; only its opening may fail here
    except OSError as error:
        raise _no_room(path, error) from error
    with spool:
        size = 0
        for piece in pieces:
            size += len(piece)
            try:
                spool.write(piece)
            except OSError as error:
                raise _no_room(path, error) from error
        try:
            spool.flush()
        except OSError as error:
            raise _no_room(path, error) from error
        return memoryview(mmap.mmap(spool.fileno(), size, access=mmap.ACCESS_READ)) if size else memoryview(b"")


def _no_room(path: str, error: OSError) -> TraceError:
    message = f"cannot be kept in a temporary file: {error.strerror}"
    return TraceError(message, path=path, hint="set TMPDIR to a folder with more room, or unpack it to a file yourself")


def _packing(data: memoryview) -> str | None:
    head = bytes(data[:8])
    return next((name for name, (is_it, _) in _PACKINGS.items() if is_it(head)), None)


def _unpacked(packed: memoryview, packing: str, most: int, path: str) -> tuple[memoryview, Broken | None]:
    """What `packed` holds, as far as it can be unpacked, and where it breaks off."""
    broken: list[Broken] = []
    seen = [0]

    def pieces() -> Iterator[bytes]:
        size = 0
        try:
            for piece in _PACKINGS[packing][1](packed, seen):
                size += len(piece)
                if size > most:
                    hint = "no recording shrinks so far; if it is one, unpack it yourself"
                    raise ParseError(f"unpacks to more than {most} bytes", path=path, offset=0, hint=hint)
                yield piece
        except _Break as stop:
            broken.append(Broken(packing, TRUNCATED if stop.what is None else f"damaged {packing} data", stop.offset))

    with stage(f"unpacking {packing}", len(packed), "bytes", lambda: seen[0]):
        data = _kept(pieces(), path)
    return data, broken[0] if broken else None


def _gunzip(packed: memoryview, seen: list[int]) -> Iterator[bytes]:
    """The members of a gzip file (RFC 1952); zero bytes after the last are padding, as gzip has it. `seen` gets how far it is."""
    at = 0
    while at < len(packed):
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        while not member.eof:
            given = packed[at : at + _STEP]
            before = member.copy()
            try:
                piece = member.decompress(given, _STEP)
            except zlib.error as error:
                # What comes out before the damage is lost with the error: it is asked for again, byte by byte.
                yield from _up_to_damage(before, given)
                raise _Break(at, str(error)) from error
            if not given and not piece:
                raise _Break(at)
            seen[0] = at = at + len(given) - len(member.unconsumed_tail) - len(member.unused_data)
            yield piece
        at = _past_zeros(packed, at)


def _up_to_damage(member: Any, given: memoryview) -> Iterator[bytes]:
    with contextlib.suppress(zlib.error):
        for i in range(len(given)):
            yield member.decompress(given[i : i + 1])


def _unxz(packed: memoryview, seen: list[int]) -> Iterator[bytes]:
    """The streams of an xz file; zero bytes between and after them are padding. `seen` gets how far it is."""
    at = 0
    while at < len(packed):
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not stream.eof:
            given = packed[at : at + _STEP] if stream.needs_input else b""
            if stream.needs_input and not given:
                raise _Break(at)
            try:
                piece = stream.decompress(given, _XZ_STEP)
            except lzma.LZMAError as error:
                raise _Break(at, str(error)) from error
            seen[0] = at = at + len(given)
            yield piece
        at = _past_zeros(packed, at - len(stream.unused_data))


def _past_zeros(packed: memoryview, at: int) -> int:
    while True:
        block = bytes(packed[at : at + _STEP])
        left = block.lstrip(b"\0")
        at += len(block) - len(left)
        if left or not block:
            return at


def _unzstd(packed: memoryview, seen: list[int]) -> Iterator[bytes]:
    """The frames of a zstd file, also those that are to be skipped. `seen` gets how far it is."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    at = 0
    while at < len(packed):
        frame = decompressor.decompressobj()
        while not frame.eof:
            given = packed[at : at + _ZSTD_STEP]
            if not given:
                raise _Break(at)
            try:
                piece = frame.decompress(given)
            except (zstandard.ZstdError, MemoryError) as error:
                raise _Break(at, str(error)) from error
            seen[0] = at = at + len(given)
            yield piece
        at -= len(frame.unused_data)


def _is_zstd(head: bytes) -> bool:
    # Skippable frames, as pzstd writes, have any of 16 magics: RFC 8878, section 3.1.2.
    return head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F)


#: How compressed data are told and unpacked, by name.
_PACKINGS: Final[dict[str, tuple[Callable[[bytes], bool], Callable[[memoryview, list[int]], Iterator[bytes]]]]] = {
    "gzip": (lambda head: head.startswith(b"\x1f\x8b"), _gunzip),
    "xz": (lambda head: head.startswith(b"\xfd7zXZ\0"), _unxz),
    "zstd": (_is_zstd, _unzstd),
}
