"""What most tests write into a trace.dat: a small event, `ping`; and the writer's own names, so that a test imports from one place."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from tracetool_parsers.writing import (
    COMMON,
    MAGIC,
    PAGE,
    VERSIONS,
    Field,
    Instance,
    Trace,
    common,
    data,
    format_text,
    long_data,
    pack,
    rest_is_empty,
    subbuffer,
    taken_back,
    time_extend,
    time_stamp,
)

__all__ = [
    "COMMON",
    "MAGIC",
    "PAGE",
    "PING",
    "PING_FORMAT",
    "VERSIONS",
    "Field",
    "Instance",
    "Trace",
    "common",
    "data",
    "format_text",
    "long_data",
    "one_event",
    "pack",
    "ping",
    "pings",
    "rest_is_empty",
    "subbuffer",
    "taken_back",
    "time_extend",
    "time_stamp",
]

PING: Final = 300
PING_FORMAT: Final = format_text("ping", PING, [("u64 value", 8, 8, 0)], '"value=%llu", REC->value')


def ping(value: int, tid: int = 7) -> bytes:
    """The payload of one `ping`."""
    return common(PING, tid) + struct.pack("<Q", value)


def pings(*pages: bytes) -> Trace:
    """A trace of one CPU with these sub-buffers."""
    return Trace([Instance({0: pages})], {"test": [PING_FORMAT]}, cmdlines="7 some task\n")


def one_event(name: str, fields: Sequence[Field], *payloads: bytes, print_format: str = '""') -> Trace:
    """A trace of one event, id 400, one record for each payload (what follows the common fields), a nanosecond apart."""
    records = (long_data(common(400, 7) + payload, delta=1) for payload in payloads)
    return Trace([Instance({0: [subbuffer(0, *records)]})], {"test": [format_text(name, 400, fields, print_format)]})
