"""Opening a trace: what format it is, which buffers are read, and a RawTrace that reads the rest when asked."""

from __future__ import annotations

import functools
import mmap
import os
from collections.abc import Sequence

from .errors import TraceError, UnknownEvent
from .eventformat import common_layout
from .loading import load
from .raw import Metadata, RawTrace
from .sniff import sniff
from .tracedat import Buffer, Recording, read_recording


def open_trace(path: str | os.PathLike[str], *, buffers: Sequence[str] | None = None, strict: bool = False) -> RawTrace:
    """Open a recorded trace; its format is told from its first bytes.

    Args:
        path: the file; it is mapped and must not change while the trace is in use.
        buffers: the ring buffer instances to read, by name ("" is the top one); None: all.
        strict: whether damage of the event data is an error; then they are looked at at once.

    Raises:
        TraceError: the file cannot be read.
        ParseError: it is no trace, or its metadata are damaged; with `strict`, also its event data.
        UnknownEvent: it has no buffer of such a name.
    """
    name = os.fsdecode(path)
    sniff(name)
    data = _mapped(name)
    recording = read_recording(data, name)
    chosen = _chosen(recording, buffers, name)
    common = common_layout(recording.formats, path=name)
    loader = functools.partial(load, data, recording, chosen, common, path=name, strict=strict)
    trace = RawTrace(_metadata(recording, name), recording.formats, common, loader)
    if strict:
        trace.span()
    return trace


def _mapped(path: str) -> memoryview:
    try:
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise TraceError(f"cannot be mapped: {error}", path=path, hint="copy the file to a local disk") from error


def _chosen(recording: Recording, names: Sequence[str] | None, path: str) -> tuple[Buffer, ...]:
    if names is None:
        return recording.buffers
    known = {buffer.name for buffer in recording.buffers}
    for name in names:
        if name not in known:
            raise UnknownEvent.among("buffer", name, known, path=path)
    return tuple(buffer for buffer in recording.buffers if buffer.name in names)


def _metadata(recording: Recording, path: str) -> Metadata:
    uname = recording.uname.split() if recording.uname else []
    return Metadata(
        path=path,
        format=f"trace.dat v{recording.preamble.version}",
        # "Linux HOST RELEASE MACHINE", and a host name may be empty but holds no spaces.
        kernel=uname[-2] if len(uname) >= 3 else None,
        uname=recording.uname,
        clock=recording.clock,
        cpus=recording.cpus,
        codec=recording.preamble.codec,
        page_size=recording.buffers[0].page_size if recording.buffers else recording.preamble.page_size,
        writer=recording.writer,
        buffers=tuple(buffer.name for buffer in recording.buffers),
        cmdlines=recording.cmdlines,
        hypervisor=None,
        notes=recording.notes,
    )
