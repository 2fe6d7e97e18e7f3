"""Which format a file is, told from its first bytes and never from its name."""

from __future__ import annotations

import codecs
import os
import stat
from typing import Final, Literal

from .errors import ParseError, TraceError

#: First bytes of a trace.dat, either version: trace-cmd, lib/trace-cmd/trace-input.c (`tracecmd_alloc_fd`).
TRACE_DAT_MAGIC: Final = b"\x17\x08Dtracing"

Format = Literal["trace.dat"]

#: Formats that are recognised and not read: first bytes -> what it is, what to do.
_NOT_READ: Final = (
    (b"PERFILE2", "a perf.data file", "perf.data is not read yet; record with `trace-cmd record`"),
    (b"2ELIFREP", "a perf.data file of a big-endian machine", "perf.data is not read yet; record with `trace-cmd record`"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it first: gzip -d"),
    (b"\xfd7zXZ\x00", "compressed with xz", "unpack it first: xz -d"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first: zstd -d"),
    (b"BZh", "compressed with bzip2", "unpack it first: bzip2 -d"),
)


def sniff(path: str) -> Format:
    """The format of the file at `path`.

    Raises:
        TraceError: there is no such file, it cannot be read, or it is not a regular file.
        ParseError: the file is empty, text, or of a format that is not read.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise TraceError("is a directory", path=path, hint="name the trace file inside it")
        if not stat.S_ISREG(mode):
            raise TraceError("is not a regular file", path=path, hint="save it to a file first; pipes and devices cannot be mapped")
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise TraceError(f"cannot be read: {error.strerror}", path=path, hint="check the path and its permissions") from error
    except ValueError as error:
        raise TraceError("is not a possible path", path=path, hint="check the path") from error
    return _of_head(head, path)


def _of_head(head: bytes, path: str) -> Format:
    if head.startswith(TRACE_DAT_MAGIC):
        return "trace.dat"
    if not head:
        raise ParseError("is empty", path=path, offset=0, hint="the recording did not finish, or the copy failed")
    if TRACE_DAT_MAGIC.startswith(head):
        raise ParseError("ends inside the magic of a trace.dat", path=path, offset=len(head), hint="the file is cut off; copy it again")
    for magic, what, hint in _NOT_READ:
        if head.startswith(magic):
            raise ParseError(f"is {what}", path=path, offset=0, hint=hint)
    if _is_text(head):
        raise ParseError("is a text file", path=path, offset=0, hint="text traces are not read yet; give the trace.dat that it came from")
    raise ParseError("is not a trace: unknown magic", path=path, offset=0, hint="expected a trace.dat, as `trace-cmd record` writes it")


def _is_text(head: bytes) -> bool:
    try:
        # A character may be cut at the end of what was read.
        decoded = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character >= " " or character in "\t\n\r\f\x1b" for character in decoded)
