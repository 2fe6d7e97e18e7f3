"""Which format a file is, told from its first bytes and never from its name."""

from __future__ import annotations

import codecs
from enum import StrEnum
from typing import Final

from .errors import ParseError, UnknownEvent

#: First bytes of a trace.dat, either version: trace-cmd, lib/trace-cmd/trace-input.c (`tracecmd_alloc_fd`).
TRACE_DAT_MAGIC: Final = b"\x17\x08Dtracing"

#: How much of a text is looked at.
TEXT_HEAD: Final = 1 << 16


class Format(StrEnum):
    """The formats that are read, by the names that a user gives."""

    trace_dat = "trace.dat"
    perf_data = "perf.data"
    ftrace_text = "ftrace-text"
    trace_cmd_text = "trace-cmd-text"
    perf_script = "perf-script"
    parquet = "parquet"
    arrow = "arrow"


TEXTS: Final = (Format.ftrace_text, Format.trace_cmd_text, Format.perf_script)

#: First bytes -> format. perf writes PERFILE2 as a number of its own byte order: Linux, tools/perf/util/header.c (`__perf_magic2`).
#: An Arrow stream has no magic, but starts with a message: Arrow Columnar Format, "Encapsulated message format".
_MAGICS: Final = (
    (TRACE_DAT_MAGIC, Format.trace_dat),
    (b"PERFILE2", Format.perf_data),
    (b"2ELIFREP", Format.perf_data),
    (b"PAR1", Format.parquet),
    (b"ARROW1\0\0", Format.arrow),
    (b"\xff\xff\xff\xff", Format.arrow),
)

#: Recognised and not read: first bytes -> what it is, what to do.
_NOT_READ: Final = (
    (b"BZh", "compressed with bzip2", "unpack it first: bzip2 -d"),
    (b"PERFFILE", "a perf.data file of before Linux 2.6.39", "convert it with the perf that wrote it: perf script"),
    (b"PARE", "an encrypted Parquet file", "decrypt it first"),
    (b"PK\x03\x04", "a zip archive", "unpack it first: unzip"),
)

_EXPECTED: Final = (
    "expected a trace.dat of `trace-cmd record`, a perf.data, the text of tracefs, `trace-cmd report` or `perf script`, "
    "or what `tracetool export` wrote"
)


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        UnknownEvent: there is none; the hint lists those that there are.
    """
    try:
        return Format(name)
    except ValueError:
        raise UnknownEvent.among("format", name, [form.value for form in Format]) from None


def sniff(data: memoryview, path: str) -> Format:
    """The format of a file whose bytes are `data`.

    Raises:
        ParseError: it is empty, cut off inside its magic, or of no format that is read.
    """
    head = bytes(data[:TEXT_HEAD])
    found = _told(head)
    if found is not None:
        return found
    if not head:
        raise ParseError("is empty", path=path, offset=0, hint="the recording did not finish, or the copy failed")
    for magic, form in _MAGICS:
        if magic.startswith(head):
            raise ParseError(f"ends inside the magic of a {form}", path=path, offset=len(head), hint="the file is cut off; copy it again")
    for magic, what, hint in _NOT_READ:
        if head.startswith(magic):
            raise ParseError(f"is {what}", path=path, offset=0, hint=hint)
    if _is_text(head):
        hint = "--input-format forces a reader: " + ", ".join(TEXTS)
        raise ParseError("is a text file, and not one that a tracer wrote", path=path, offset=0, hint=hint)
    raise ParseError("is not a trace: unknown magic", path=path, offset=0, hint=_EXPECTED)


def forced(data: memoryview, form: Format, path: str) -> Format:
    """The format that a user forces, where the bytes can be of it: what has a magic must have it, and what has one is no text.

    Raises:
        ParseError: they cannot.
    """
    head = bytes(data[:TEXT_HEAD])
    found = _told(head)
    if found == form or (form in TEXTS and (found is None or found in TEXTS)):
        return form
    hint = f"it looks like {found}: leave --input-format out" if found else "leave --input-format out, and it is told what the file is"
    raise ParseError(f"is no {form}", path=path, offset=0, hint=hint)


def _told(head: bytes) -> Format | None:
    for magic, form in _MAGICS:
        if head.startswith(magic):
            return form
    return _text_format(head) if _is_text(head) else None


def _text_format(head: bytes) -> Format | None:
    from .textsniff import text_kind

    kinds = {
        "ftrace text": Format.ftrace_text,
        "trace-cmd report text": Format.trace_cmd_text,
        "perf script text": Format.perf_script,
    }
    kind = text_kind(head)
    return None if kind is None else kinds[kind]


def _is_text(head: bytes) -> bool:
    try:
        # A character may be cut at the end of what was read.
        decoded = codecs.getincrementaldecoder("utf-8")().decode(head[:512])
    except UnicodeDecodeError:
        return False
    return bool(decoded) and all(character >= " " or character in "\t\n\r\f\x1b" for character in decoded)
