"""Writes perf.data files byte by byte, for tests: either byte order, files and pipes, any records.

The layout is that of Linux, tools/perf/Documentation/perf.data-file-format.txt and include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

IP, TID, TIME, ADDR, READ, CALLCHAIN, ID, CPU, PERIOD, STREAM_ID, RAW = (1 << bit for bit in range(11))
IDENTIFIER: Final = 1 << 16
USUAL: Final = IP | TID | TIME | CPU | RAW | IDENTIFIER

LOST, COMM, EXIT, FORK, SAMPLE, MMAP2, LOST_SAMPLES = 2, 3, 4, 7, 9, 10, 13
FINISHED_ROUND, COMPRESSED, COMPRESSED2 = 68, 81, 83
EXEC: Final = 0x2000

PING: Final = 777
PING_FORMAT: Final = f"""name: ping
ID: {PING}
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:u64 number;\toffset:8;\tsize:8;\tsigned:0;
\tfield:int small;\toffset:16;\tsize:4;\tsigned:1;
\tfield:u16 odd;\toffset:20;\tsize:2;\tsigned:0;
\tfield:char text[6];\toffset:22;\tsize:6;\tsigned:0;
\tfield:__data_loc char[] name;\toffset:28;\tsize:4;\tsigned:0;
\tfield:u32 list[2];\toffset:32;\tsize:8;\tsigned:0;

print fmt: "number=%llu", REC->number
"""


@dataclass
class Attr:
    """An event that is recorded, and the ids by which samples name it."""

    type: int = 2
    config: int = PING
    sample_type: int = USUAL
    read_format: int = 0
    sample_id_all: bool = True
    ids: Sequence[int] = (1,)
    size: int = 128


@dataclass
class Perf:
    """A perf.data in the making; numbers are written in its byte order."""

    attrs: list[Attr] = field(default_factory=lambda: [Attr()])
    big: bool = False
    formats: Mapping[str, Sequence[str]] = field(default_factory=lambda: {"test": [PING_FORMAT]})
    features: dict[int, bytes] = field(default_factory=dict)

    def pack(self, layout: str, *values: Any) -> bytes:
        return struct.pack((">" if self.big else "<") + layout, *values)

    def record(self, kind: int, body: bytes, misc: int = 0) -> bytes:
        return self.pack("IHH", kind, misc, 8 + len(body)) + body

    def round(self) -> bytes:
        return self.record(FINISHED_ROUND, b"")

    def end(self, time: int, pid: int = 0, tid: int = 0, cpu: int = 0, attr: int = 0) -> bytes:
        """What records other than samples end with."""
        of = self.attrs[attr]
        number = of.ids[0] if of.ids else 0
        values = ((TID, "II", (pid, tid)), (TIME, "Q", (time,)), (ID, "Q", (number,)), (STREAM_ID, "Q", (number,)), (CPU, "II", (cpu, 0)))
        made = b"".join(self.pack(layout, *these) for bit, layout, these in values if of.sample_type & bit)
        return made + (self.pack("Q", number) if of.sample_type & IDENTIFIER else b"")

    def other(self, kind: int, body: bytes, time: int, *, misc: int = 0, **end: int) -> bytes:
        """A record that is no sample."""
        return self.record(kind, body + self.end(time, **end), misc)

    def comm(self, pid: int, tid: int, name: str, time: int = 0, *, misc: int = 0) -> bytes:
        text = name.encode() + b"\0"
        return self.other(COMM, self.pack("II", pid, tid) + text + bytes(-len(text) % 8), time, misc=misc, pid=pid, tid=tid)

    def fork(self, child: tuple[int, int], parent: tuple[int, int], time: int = 0) -> bytes:
        (pid, tid), (ppid, ptid) = child, parent
        return self.other(FORK, self.pack("IIIIQ", pid, ppid, tid, ptid, time), time, pid=ppid, tid=ptid)

    def sample(
        self,
        time: int,
        *,
        attr: int = 0,
        pid: int = 5,
        tid: int = 5,
        cpu: int = 0,
        number: int | None = None,
        read: bytes = b"",
        chain: Sequence[int] = (),
        raw: bytes | None = None,
        addr: int = 0,
        ip: int = 0,
        period: int = 1,
    ) -> bytes:
        """A sample; `number` is the id that it names, by default the first of its attribute."""
        of = self.attrs[attr]
        named = (of.ids[0] if of.ids else 0) if number is None else number
        body = raw if raw is not None else self.ping(0)
        values: tuple[tuple[int, str, tuple[int, ...]], ...] = (
            (IDENTIFIER, "Q", (named,)),
            (IP, "Q", (ip,)),
            (TID, "ii", (pid, tid)),
            (TIME, "Q", (time,)),
            (ADDR, "Q", (addr,)),
            (ID, "Q", (named,)),
            (STREAM_ID, "Q", (named,)),
            (CPU, "II", (cpu, 0)),
            (PERIOD, "Q", (period,)),
        )
        made = b"".join(self.pack(layout, *these) for bit, layout, these in values if of.sample_type & bit)
        if of.sample_type & READ:
            made += read
        if of.sample_type & CALLCHAIN:
            made += self.pack("Q", len(chain)) + b"".join(self.pack("Q", call) for call in chain)
        if of.sample_type & RAW:
            padded = body + bytes(-(4 + len(body)) % 8)
            made += self.pack("I", len(padded)) + padded
        return self.record(SAMPLE, made, 1)

    def ping(
        self, number: int, small: int = -3, odd: int = 9, text: bytes = b"abc", name: bytes = b"a name", many: Sequence[int] = (1, 2)
    ) -> bytes:
        """The raw data of an event as PING_FORMAT describes it."""
        place = 40 | (len(name) + 1) << 16
        head = self.pack("HBBi", PING, 0, 0, 5) + self.pack("QiH", number, small, odd) + text.ljust(6, b"\0")
        return head + self.pack("I", place) + self.pack("2I", *many) + name + b"\0"

    def attr_bytes(self, attr: Attr) -> bytes:
        flag = 1 << 18 if attr.sample_id_all else 0
        flags = flag.to_bytes(8, "little")
        if self.big:
            # Bit fields fill each byte from its other end.
            flags = bytes(int(f"{byte:08b}"[::-1], 2) for byte in flags)
        made = self.pack("IIQQQQ", attr.type, attr.size, attr.config, 1, attr.sample_type, attr.read_format) + flags
        return made.ljust(attr.size, b"\0")

    def tracing_data(self) -> bytes:
        made = b"\x17\x08Dtracing0.6\0" + bytes([self.big, 8]) + self.pack("I", 4096)
        for name in (b"header_page\0", b"header_event\0"):
            made += name + self.pack("Q", 4) + b"text"
        made += self.pack("II", 0, len(self.formats))
        for system, texts in self.formats.items():
            made += system.encode() + b"\0" + self.pack("I", len(texts))
            made += b"".join(self.pack("Q", len(text)) + text.encode() for text in texts)
        return made + self.pack("IIQ", 0, 0, 0)

    def text(self, text: str) -> bytes:
        return self.pack("I", 64) + text.encode().ljust(64, b"\0")

    def file(self, *records: bytes, size: int | None = None) -> bytes:
        """A file; `size` is what its header says of the size of the records."""
        data = b"".join(records)
        features = {1: self.tracing_data(), **self.features} if self.formats else self.features
        entry = self.attrs[0].size + 16
        ids_at = 104 + entry * len(self.attrs)
        attrs, ids = b"", b""
        for attr in self.attrs:
            attrs += self.attr_bytes(attr) + self.pack("QQ", ids_at + len(ids), 8 * len(attr.ids))
            ids += b"".join(self.pack("Q", number) for number in attr.ids)
        begin = ids_at + len(ids)
        bits = sum(1 << number for number in features)
        head = (b"2ELIFREP" if self.big else b"PERFILE2") + self.pack("QQQQ", 104, entry, 104, len(attrs))
        head += self.pack("QQQQ", begin, len(data) if size is None else size, 0, 0)
        head += self.pack("4Q", *(bits >> 64 * i & (1 << 64) - 1 for i in range(4)))
        at = begin + len(data) + 16 * len(features)
        table, bodies = b"", b""
        for _, body in sorted(features.items()):
            table += self.pack("QQ", at + len(bodies), len(body))
            bodies += body
        return head + attrs + ids + data + table + bodies

    def pipe(self, *records: bytes) -> bytes:
        """What goes through a pipe."""
        made = (b"2ELIFREP" if self.big else b"PERFILE2") + self.pack("Q", 16)
        for attr in self.attrs:
            made += self.record(64, self.attr_bytes(attr) + b"".join(self.pack("Q", number) for number in attr.ids))
        for number, body in self.features.items():
            made += self.record(80, self.pack("Q", number) + body)
        formats = self.tracing_data()
        formats += bytes(-len(formats) % 8)
        made += self.record(66, self.pack("II", len(formats), 0)) + formats
        return made + b"".join(records)
