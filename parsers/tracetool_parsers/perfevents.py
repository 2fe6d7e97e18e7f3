"""The events of a perf.data: tracepoints by their formats, other samples by what they hold, and the kernel's records as events of `perf`.

Layout of the records: Linux, include/uapi/linux/perf_event.h, `enum perf_event_type`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from .eventformat import HEADER_COLUMNS, EventFormat, Field, Place
from .perfattrs import ADDR, CALLCHAIN, IP, PERIOD, RAW, TYPE_TRACEPOINT, Attr

#: Numbers of events: a tracepoint has that of its format, which is a u16.
_OTHER_SAMPLES: Final = 1 << 16
_RECORDS: Final = 1 << 17

#: Where a sample of no tracepoint has a value, and one of a tracepoint beside its own fields.
_VALUES: Final = {"ip": IP, "addr": ADDR, "period": PERIOD}

#: Flags in `misc` of a record: PERF_RECORD_MISC_COMM_EXEC and the others that share its bit, PERF_RECORD_MISC_MMAP_BUILD_ID.
_BIT_13: Final = "flag 13 of misc"
_BIT_14: Final = "flag 14 of misc"
_BIT_15: Final = "flag 15 of misc"
FLAGS: Final[Mapping[str, int]] = {_BIT_13: 13, _BIT_14: 14, _BIT_15: 15}
HAS_BUILD_ID: Final = "has_build_id"
#: Columns of `mmap2` that share their bytes with the build id.
FILE_NUMBERS: Final = ("maj", "min", "ino", "ino_generation")

_PID: Final = (("pid", "s32", 8), ("tid", "s32", 12))
_TASK: Final = (("pid", "s32", 8), ("ppid", "s32", 12), ("tid", "s32", 16), ("ptid", "s32", 20), ("time", "u64", 24))
_THROTTLE: Final = (("time", "u64", 8), ("id", "u64", 16), ("stream_id", "u64", 24))
_MAP: Final = (*_PID, ("addr", "u64", 16), ("len", "u64", 24), ("pgoff", "u64", 32))

#: Type of a record -> its name and fields: name, type, byte; `T[]` goes on to the end, `T[n]` are n.
_LAYOUTS: Final[Mapping[int, tuple[str, tuple[tuple[str, str, int], ...]]]] = {
    1: ("mmap", (*_MAP, ("filename", "char[]", 40), ("data", _BIT_13, 4))),
    2: ("lost", (("id", "u64", 8), ("lost", "u64", 16))),
    3: ("comm", (*_PID, ("comm", "char[]", 16), ("exec", _BIT_13, 4))),
    4: ("exit", _TASK),
    5: ("throttle", _THROTTLE),
    6: ("unthrottle", _THROTTLE),
    7: ("fork", (*_TASK, ("synthesised", _BIT_13, 4))),
    8: ("read", (*_PID, ("values", "u64[]", 16))),
    10: (
        "mmap2",
        (
            *_MAP,
            ("maj", "u32", 40),
            ("min", "u32", 44),
            ("ino", "u64", 48),
            ("ino_generation", "u64", 56),
            ("build_id", "u8[20]", 44),
            ("prot", "u32", 64),
            ("flags", "u32", 68),
            ("filename", "char[]", 72),
            ("data", _BIT_13, 4),
            (HAS_BUILD_ID, _BIT_14, 4),
        ),
    ),
    11: ("aux", (("aux_offset", "u64", 8), ("aux_size", "u64", 16), ("flags", "u64", 24))),
    12: ("itrace_start", _PID),
    13: ("lost_samples", (("lost", "u64", 8), ("by_filter", _BIT_15, 4))),
    14: ("switch", (("out", _BIT_13, 4), ("preempt", _BIT_14, 4))),
    15: ("switch_cpu_wide", (("other_pid", "s32", 8), ("other_tid", "s32", 12), ("out", _BIT_13, 4), ("preempt", _BIT_14, 4))),
    16: ("namespaces", (*_PID, ("count", "u64", 16), ("dev_ino", "u64[]", 24))),
    17: ("ksymbol", (("addr", "u64", 8), ("len", "u32", 16), ("ksym_type", "u16", 20), ("flags", "u16", 22), ("name", "char[]", 24))),
    18: ("bpf_event", (("type", "u16", 8), ("flags", "u16", 10), ("id", "u32", 12), ("tag", "u8[8]", 16))),
    19: ("cgroup", (("id", "u64", 8), ("path", "char[]", 16))),
    20: ("text_poke", (("addr", "u64", 8), ("old_len", "u16", 16), ("new_len", "u16", 18), ("bytes", "u8[]", 20))),
    21: ("aux_output_hw_id", (("hw_id", "u64", 8),)),
    22: ("callchain_deferred", (("cookie", "u64", 8), ("count", "u64", 16), ("ips", "u64[]", 24))),
}
_SIZES: Final = {"char": 1, "u8": 1, "u16": 2, "u32": 4, "s32": 4, "u64": 8}


@dataclass(frozen=True, slots=True)
class Event:
    """One table of a perf.data.

    Attributes:
        format: its name, number and fields; offsets count from the start of a sample's raw data, or of a record.
        sources: which records are its rows: the attributes of its samples; or the number of attributes and the record's type.
        values: column -> the bit of `sample_type` of a value that lies in the sample beside the raw data.
        in_raw: whether the other fields lie in the raw data.
        chain: whether rows have a call chain.
    """

    format: EventFormat
    sources: tuple[int, ...]
    values: Mapping[str, int] = field(default_factory=dict)
    in_raw: bool = False
    chain: bool = False


def events_of(attrs: Sequence[Attr], formats: Sequence[EventFormat]) -> list[Event]:
    """The events that a file with these attributes and formats can have."""
    by_id = {event.id: event for event in formats}
    groups: dict[tuple[str, str] | int, list[int]] = {}
    for i, attr in enumerate(attrs):
        groups.setdefault(attr.config if attr.type == TYPE_TRACEPOINT else (attr.system, attr.event_name), []).append(i)
    events = []
    for place, (key, sources) in enumerate(groups.items()):
        own = [attrs[i] for i in sources]
        if isinstance(key, int):
            number = key if key < _OTHER_SAMPLES else _OTHER_SAMPLES + place
            events.append(_tracepoint(number, own, sources, by_id.get(key)))
        else:
            events.append(_other_sample(_OTHER_SAMPLES + place, own, sources, key))
    return [*events, *(record_event(len(attrs), kind) for kind in _LAYOUTS)]


def record_number(kind: int) -> int:
    """The number of the event that records of a type are."""
    return _RECORDS + kind


def record_event(attrs: int, kind: int) -> Event:
    """The event of records of a type, in a file of so many attributes; of a type that is not known without fields."""
    name, layout = _LAYOUTS.get(kind, (f"record_{kind}", ()))
    fields = tuple(_field(*each) for each in layout)
    return Event(EventFormat("perf", name, record_number(kind), (), fields, ""), (attrs + kind,))


def _tracepoint(number: int, attrs: Sequence[Attr], sources: Sequence[int], known: EventFormat | None) -> Event:
    in_raw = all(attr.has(RAW) for attr in attrs)
    own = known.fields if known is not None and in_raw else ()
    taken = {each.column for each in own}
    values = {f"sample_{name}": bit for name, bit in _VALUES.items() if f"sample_{name}" not in taken and _recorded(attrs, bit)}
    system, _, name = attrs[0].name.partition(":")
    # Without a format the name that was asked for is all there is; it may end in modifiers.
    system, name = (known.system, known.name) if known is not None else (system, name.partition(":")[0])
    common = known.common if known is not None and in_raw else ()
    printed = known.print_format if known is not None else ""
    described = EventFormat(
        system or "tracepoint", name or str(attrs[0].config), number, common, (*own, *map(_value_field, values)), printed
    )
    return Event(described, tuple(sources), values, in_raw, chain=_recorded(attrs, CALLCHAIN))


def _other_sample(number: int, attrs: Sequence[Attr], sources: Sequence[int], named: tuple[str, str]) -> Event:
    in_raw = all(attr.has(RAW) for attr in attrs)
    values = {name: bit for name, bit in _VALUES.items() if _recorded(attrs, bit)}
    raw = (_field("raw", "u8[]", 0),) if in_raw else ()
    described = EventFormat(*named, number, (), (*map(_value_field, values), *raw), "")
    return Event(described, tuple(sources), values, in_raw, chain=_recorded(attrs, CALLCHAIN))


def _recorded(attrs: Sequence[Attr], bit: int) -> bool:
    return all(attr.has(bit) for attr in attrs)


def _value_field(name: str) -> Field:
    return Field(name, name, "u64", 0, 8, False, "here", 0)


def _field(name: str, kind: str, offset: int) -> Field:
    column = f"{name}_field" if name in HEADER_COLUMNS else name
    if kind.startswith("flag "):
        return Field(name, column, kind, offset, 2, False, "here", 0)
    base, bracket, count = kind.rstrip("]").partition("[")
    place: Place = "rest" if bracket and not count else "here"
    size = _SIZES[base] * int(count or 1) if place == "here" else 0
    return Field(name, column, base, offset, size, base.startswith("s"), place, _SIZES[base] if bracket else 0)
