"""What a trace says of itself, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ProcessMaps:
    """What a process had mapped from files when it ended: `trace-cmd record --proc-map`.

    Attributes:
        pid: the process.
        name: its program.
        maps: begin and end address (bytes, the end excluded) and the file, as stored.
    """

    pid: int
    name: str
    maps: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a trace says of itself.

    Attributes:
        path: the file; "-" for standard input.
        format: "trace.dat v7", "perf.data (pipe)", "trace-cmd report text".
        kernel: release of the recorded kernel ("6.1.0-53-amd64"), None where the file does not say.
        uname: system, host, release and machine as recorded, None where the file does not say.
        clock: the trace clock ("global", "mono"), None where the file does not say.
        cpus: number of CPUs.
        codec: how event data are compressed inside the file: "none", "zlib" or "zstd".
        page_size: bytes of a sub-buffer, 0 where the format has none.
        writer: program and version that wrote the file ("trace-cmd 3.1.6"), None where it does not say.
        buffers: names of the ring buffer instances that the file has; "" is the top one.
        cmdlines: thread id -> the command name that was saved for it.
        hypervisor: None: not told by the formats that are read.
        notes: what a user should know: what was skipped or is less exact, damage with its byte offset (once events were read).
        maps: what processes had mapped, where the file lists it (trace-cmd's option PROCMAPS).
        details: anything else that the format says, for a user to read: what -> value.
    """

    path: str
    format: str
    kernel: str | None = None
    uname: str | None = None
    clock: str | None = None
    cpus: int = 0
    codec: str = "none"
    page_size: int = 0
    writer: str | None = None
    buffers: tuple[str, ...] = ("",)
    cmdlines: Mapping[int, str] = field(default_factory=dict)
    hypervisor: str | None = None
    notes: tuple[str, ...] = ()
    maps: tuple[ProcessMaps, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)
