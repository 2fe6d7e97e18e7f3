"""Opening a trace: where its bytes are, what format it is, and a RawTrace that reads the rest when asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import pyarrow as pa

from .errors import ParseError, TraceError, UnknownEvent
from .inputs import STDIN, Input, read_input
from .losses import SCHEMA, Loss, losses_table
from .metadata import Metadata
from .raw import RawTrace
from .sniff import TEXTS, Format, forced, format_named, sniff
from .source import Source, Wrapped


class Opener(Protocol):
    """Opens a trace of one format, whose bytes are given."""

    def __call__(self, data: memoryview, path: str, *, strict: bool) -> Source:
        """Open it; raises ParseError."""
        ...


def open_trace(
    path: str | os.PathLike[str],
    *,
    buffers: Sequence[str] | None = None,
    strict: bool = False,
    input_format: str | None = None,
    threads: int | None = None,
) -> RawTrace:
    """Open a recorded trace; its format is told from its first bytes.

    Args:
        path: the file, "-" for standard input, or the folder of a perf.data in directory mode. It may be compressed with gzip, xz or zstd.
            A file is mapped and must not change while the trace is in use; a pipe is read to its end first.
        buffers: the ring buffer instances to read, by name ("" is the top one); None: all.
        strict: whether damage of the event data is an error; then they are looked at at once.
        input_format: one of `sniff.Format`, whatever the first bytes look like; None: what they say.
        threads: how many to read the events of a trace.dat with, None: one a core; the other formats are read with one.

    Raises:
        TraceError: the file cannot be read.
        ParseError: it is no trace, not of the format that is forced, or its metadata are damaged; with `strict`, also its event data.
        UnknownEvent: it has no buffer of such a name, or there is no such format.
    """
    name = os.fsdecode(path)
    form = None if input_format is None else format_named(input_format)
    if name != STDIN and os.path.isdir(name):
        trace = RawTrace(_directory(name, form, strict=strict))
    else:
        given = read_input(name, strict=strict)
        trace = RawTrace(_source(given, name, form, buffers, strict=strict, threads=threads))
    if form in TEXTS and not trace.counts():
        raise ParseError(f"has no line of {form}", path=name, offset=0, hint="leave --input-format out, and it is told what the file is")
    if strict:
        trace.span()
    return trace


def _directory(path: str, form: Format | None, *, strict: bool) -> Source:
    if form not in (None, Format.perf_data) or not os.path.isfile(os.path.join(path, "data")):
        raise TraceError("is a directory", path=path, hint="name the trace file inside it")
    from .perfdata import open_perf_directory

    return open_perf_directory(path, strict=strict)


def _source(given: Input, path: str, form: Format | None, buffers: Sequence[str] | None, *, strict: bool, threads: int | None) -> Source:
    if not given.packings:
        return _opened(given.data, path, form, buffers, strict=strict, threads=threads)
    try:
        return Unpacked(_opened(given.data, path, form, buffers, strict=strict, threads=threads), given)
    except ParseError as error:
        if given.broken:
            # The compressed data are to blame, not the format inside.
            error.hint = f"its {given.broken.packing} data break off at byte {given.broken.offset}: copy the file again"
        raise


def _opened(
    data: memoryview, path: str, form: Format | None, buffers: Sequence[str] | None, *, strict: bool, threads: int | None
) -> Source:
    """What reads the format; readers are imported when they are needed."""
    form = sniff(data, path) if form is None else forced(data, form, path)
    if form is Format.trace_dat:
        from .tracedat_source import open_trace_dat

        return open_trace_dat(data, path, buffers=buffers, strict=strict, threads=threads)
    source = _read_by(form)(data, path, strict=strict)
    for name in buffers or ():
        if name not in source.metadata.buffers:
            raise UnknownEvent.among("buffer", name, source.metadata.buffers, path=path)
    if buffers is not None and set(buffers) != set(source.metadata.buffers):
        raise TraceError(f"all buffers of a {form} are read at once", path=path, hint="name none, and look at the column `buffer`")
    return source


def _read_by(form: Format) -> Opener:
    if form is Format.perf_data:
        from .perfdata import open_perf_data

        return open_perf_data
    if form is Format.perf_script:
        from .perfscript import open_perf_script

        return open_perf_script
    if form in TEXTS:
        from .ftracetext import open_ftrace_text

        return open_ftrace_text
    from .exported import open_exported

    return open_exported


class Unpacked(Wrapped):
    """A trace that was unpacked first: it says so, and says where its compressed data break off."""

    def __init__(self, source: Source, given: Input) -> None:
        super().__init__(source)
        self._packings = given.packings
        self._broken = given.broken

    @property
    def metadata(self) -> Metadata:
        """What the trace says of itself, and what it was unpacked from."""
        metadata = super().metadata
        details = {**metadata.details, "unpacked from": ", then ".join(self._packings)}
        notes = metadata.notes
        if self._broken:
            notes = (*notes, f"{self._broken.source}: its {self._broken.packing} data break off at byte {self._broken.offset}")
        return replace(metadata, notes=notes, details=details)

    @property
    def losses(self) -> pa.Table:
        """As inside; what the compressed data do not hold any more is a row, without times: it can be of any CPU."""
        losses = super().losses
        if self._broken is None or self._broken.source in losses.column("source").to_pylist():
            return losses
        return pa.concat_tables([losses, losses_table([Loss(-1, None, None, None, self._broken.source, self._broken.offset)])]).cast(SCHEMA)
