"""Event formats, the text of tracefs `events/SYSTEM/EVENT/format`, as layouts of fields.

The text is made by the kernel (Linux, kernel/trace/trace_events.c: `f_show`): a name, an id, the fields that all events have
(`common_*`), a blank line, the event's own fields, a blank line, and how to print them.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from .errors import ParseError

#: How a field lies in a record. `data_loc`: a u32, low half the offset from the record's start, high half the length in bytes;
#: `rel_loc`: the same with the offset counted from the end of that u32; `rest`: up to the end of the record.
Place = Literal["here", "data_loc", "rel_loc", "rest"]

#: Columns that every table has; an event's own field of such a name gets the suffix `_field`.
HEADER_COLUMNS: Final = ("ts", "cpu", "tid", "comm", "buffer", "tgid", "callchain", "position")

_FIELD: Final = re.compile(
    r"^[ \t]*field(?: special)?:([^;\n]{1,400});\s*offset:(\d{1,9});\s*size:(\d{1,9});(?:\s*signed:(\d))?", re.MULTILINE
)
_HEAD: Final = re.compile(r"^name: *(\S{1,200})\s*\nID: *(\d{1,5})\s*$", re.MULTILINE)
#: `common_type` is a u16.
_MOST_ID: Final = (1 << 16) - 1
_PRINT: Final = re.compile(r"^print fmt: *(.*)\Z", re.MULTILINE | re.DOTALL)
_DECLARATION: Final = re.compile(r"^(.*?)\s*([A-Za-z_]\w*)\s*(\[[^\]]*\])?$", re.DOTALL)
_QUALIFIERS: Final = re.compile(r"\b(?:const|volatile|__user|__rcu)\b|__attribute__\(\(\w+\)\)")

#: Sizes of the types that arrays of no stated length are made of; `long` and pointers follow the kernel's long.
_SIZES: Final[Mapping[str, int]] = {
    **dict.fromkeys(("char", "signed char", "unsigned char", "u8", "s8", "__u8", "__s8", "uint8_t", "int8_t", "bool"), 1),
    **dict.fromkeys(("short", "unsigned short", "u16", "s16", "__u16", "__s16", "uint16_t", "int16_t", "__le16", "__be16"), 2),
    **dict.fromkeys(("int", "unsigned int", "unsigned", "u32", "s32", "__u32", "__s32", "uint32_t", "int32_t", "pid_t", "gfp_t"), 4),
    **dict.fromkeys(("u64", "s64", "__u64", "__s64", "uint64_t", "int64_t", "long long", "unsigned long long"), 8),
}
_SIGNED: Final = frozenset(("signed char", "s8", "short", "s16", "int", "s32", "long", "s64", "long long", "pid_t", "ssize_t", "loff_t"))

#: In a table only when named: fields that kprobes add to what the user asked for, and what perf notes of every sample.
UNASKED: Final = frozenset(("__probe_ip", "__probe_func", "__probe_ret_ip", "sample_ip", "sample_addr", "sample_period"))


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an event.

    Attributes:
        name: as the kernel has it.
        column: its column in a table: the name, with `_field` after it where a header column has that name (`comm_field`).
        type: the C type without name and array length: `unsigned long`, `char`, `const struct iovec *`.
        offset: bytes from the start of the record.
        size: bytes there: those of the descriptor for `data_loc` and `rel_loc`, 0 for `rest`.
        signed: whether the kernel calls it signed.
        place: where its bytes lie.
        element: bytes of one element of an array, 0 where it is no array.
    """

    name: str
    column: str
    type: str
    offset: int
    size: int
    signed: bool
    place: Place
    element: int

    @property
    def is_string(self) -> bool:
        """Whether it is text: an array of plain `char`; arrays of u8 and `unsigned char` are numbers."""
        return self.element == 1 and self.type == "char"


@dataclass(frozen=True, slots=True)
class EventFormat:
    """What an event's records look like.

    Attributes:
        system: "kmem", "ftrace"; empty for an id that the file has no format of.
        name: "mm_page_alloc".
        id: the number that its records carry as `common_type`.
        common: the fields that all events have.
        fields: its own fields.
        print_format: how the kernel prints it.
    """

    system: str
    name: str
    id: int
    common: tuple[Field, ...]
    fields: tuple[Field, ...]
    print_format: str

    @property
    def full_name(self) -> str:
        """`system:event`."""
        return f"{self.system}:{self.name}"

    @property
    def shown(self) -> tuple[Field, ...]:
        """The fields that a table has unless others are asked for."""
        return tuple(field for field in self.fields if field.name not in UNASKED)


@dataclass(frozen=True, slots=True)
class Common:
    """Where every record has its event id and its thread: bytes from the start of the record.

    Attributes:
        type_at: of the u16 `common_type`.
        pid_at: of the s32 `common_pid`, a multiple of 4.
    """

    type_at: int = 0
    pid_at: int = 4

    @property
    def size(self) -> int:
        """Bytes that a record must have to be one at all."""
        return max(self.type_at + 2, self.pid_at + 4)


def parse_format(text: str, system: str, *, path: str, offset: int, long_size: int = 8) -> EventFormat:
    """The format of one event out of its text, which lies at byte `offset` of the file.

    Raises:
        ParseError: the text has no name and id, or a field that cannot be one.
    """
    head = _HEAD.search(text)
    if head is None or int(head[2]) > _MOST_ID:
        raise ParseError("an event format has no name and possible ID", path=path, offset=offset, hint="the file is damaged; copy it again")
    printed = _PRINT.search(text)
    described = text[head.end() : printed.start()] if printed else text[head.end() :]
    try:
        fields = [_field(*match.groups(), long_size) for match in _FIELD.finditer(described)]
    except ValueError as error:
        raise ParseError(str(error), path=path, offset=offset, hint="the file is damaged; copy it again") from error
    common = tuple(field for field in fields if field.name.startswith("common_"))
    own = _distinct(field for field in fields if not field.name.startswith("common_"))
    return EventFormat(system, head[1], int(head[2]), common, own, printed[1].strip() if printed else "")


@functools.lru_cache(maxsize=4096)
def _field(declaration: str, at: str, size: str, signed: str | None, long_size: int) -> Field:
    """A field out of what its line says; the same few lines come in all formats, and the same formats in most traces."""
    declaration, start, length = declaration.strip(), int(at), int(size)
    place: Place = "here"
    if declaration.startswith(("__data_loc", "__rel_loc")):
        keyword, _, declaration = declaration.partition(" ")
        place = "data_loc" if keyword == "__data_loc" else "rel_loc"
    parts = _DECLARATION.match(declaration)
    if parts is None:
        raise ValueError(f"an event format declares a field as {declaration!r}")
    kind, name, brackets = parts[1], parts[2], parts[3]
    array = brackets is not None or kind.endswith("]")
    kind = " ".join(_QUALIFIERS.sub(" ", kind.split("[")[0]).split())
    if array and length == 0:
        place = "rest"
    is_signed = signed == "1" if signed is not None else kind in _SIGNED
    element = _element(kind, brackets, length, place, long_size) if array else 0
    column = f"{name}_field" if name in HEADER_COLUMNS else name
    return Field(name, column, kind, start, length, is_signed, place, element)


def _element(kind: str, brackets: str | None, size: int, place: Place, long_size: int) -> int:
    known = long_size if kind.endswith("*") or kind in ("long", "unsigned long", "size_t", "ssize_t") else _SIZES.get(kind)
    if known is not None:
        return known
    # A type that is not listed: the stated length tells the element's size, else it is left as bytes.
    length = (brackets or "")[1:-1]
    if place == "here" and length.isdecimal() and len(length) < 9 and int(length) and size % int(length) == 0:
        each = size // int(length)
        return each if each in (1, 2, 4, 8) else 1
    return 1


def _distinct(fields: Iterable[Field]) -> tuple[Field, ...]:
    fields = tuple(fields)
    if len({field.column for field in fields}) == len(fields):
        return fields
    seen: Counter[str] = Counter()
    out = []
    for field in fields:
        seen[field.column] += 1
        again = seen[field.column]
        out.append(replace(field, column=f"{field.column}_{again}") if again > 1 else field)
    return tuple(out)


def common_layout(formats: Iterable[EventFormat], *, path: str) -> Common:
    """Where all records have their id and thread; all formats of a file say the same, so the first that has both is asked.

    Raises:
        ParseError: they lie where no kernel puts them.
    """
    for event in formats:
        places = {field.name: field for field in event.common}
        if "common_type" in places and "common_pid" in places:
            kind, pid = places["common_type"], places["common_pid"]
            if kind.size != 2 or kind.offset % 2 or pid.size != 4 or pid.offset % 4 or max(kind.offset, pid.offset) > 64:
                raise ParseError(f"{event.name} has its common fields at unusual places", path=path, event=event.name)
            return Common(kind.offset, pid.offset)
    return Common()


def bare_names(formats: Iterable[EventFormat]) -> dict[str, EventFormat]:
    """The formats by the name that a user gives: `event`, or `system:event` where two systems share one."""
    listed = list(formats)
    shared = Counter(event.name for event in listed)
    return {event.full_name if shared[event.name] > 1 else event.name: event for event in listed}
