"""A text trace as a Source: what its events and fields are called and of which types they are; rows are read when asked for."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .errors import ParseError
from .eventformat import HEADER_COLUMNS, EventFormat, Field
from .metadata import Metadata
from .source import Source
from .textfields import ARGS, BUF, FIRST, PERIOD, RET, SECOND
from .textlines import CALL, ENTER, EXIT, MARKED, RECORD, STACK, UNTOLD
from .textmemory import (
    EVENT_AT,
    EVENT_COUNT,
    EVENT_FIRST,
    EVENT_FRAMES,
    EVENT_KIND,
    EVENT_LENGTH,
    EVENTS,
    FIELD_AT,
    FIELD_BYTES,
    FIELD_FLAGS,
    FIELD_LENGTH,
    FIELD_NEXT,
    FIELD_OFF,
    FIELD_PRESENT,
    of_events,
)
from .textnumbers import BARE, BIG, DECIMAL, HEX_NUMBER, HEXADECIMAL, MOST_DIGITS, NEGATIVE, NUMBER, OTHER, STRING, SYMBOL
from .textread import Column, Read, Wanted, read_rows
from .textrecords import RECORDS, Template, extracted
from .textscan import Survey, strings, survey, thread_names
from .textsniff import Head

Array = npt.NDArray[Any]

#: Fields that are text even where all of it is digits: names of threads and files.
TEXTS: Final = frozenset(
    ("comm", "parent_comm", "child_comm", "oldcomm", "newcomm", "prev_comm", "next_comm", "filename", "name", "buf", "args")
)
#: Fields that are printed as hexadecimal digits without `0x`: kernel/trace/trace_probe.h (`FIELD_STRING_IP` and those beside it) as
#: `%lx` of the print format, include/trace/events/task.h (`task_newtask`).
BARE_NUMBERS: Final = frozenset(("__probe_ip", "__probe_func", "__probe_ret_ip", "clone_flags"))
#: What an event prints a field as, where that is not its name: include/trace/events/sched.h.
PRINTED: Final[Mapping[str, Mapping[str, str]]] = {"sched_process_fork": {"comm": "parent_comm", "pid": "parent_pid"}}
#: The keys of events that print names of threads, which may look like further keys: what is none of these is part of a name, unless every
#: row has it (include/trace/events/task.h, sched.h).
KEYS_OF: Final[Mapping[str, frozenset[str]]] = {
    "task_newtask": frozenset(("pid", "comm", "clone_flags", "oom_score_adj")),
    "task_rename": frozenset(("pid", "oldcomm", "newcomm", "oom_score_adj")),
    "sched_process_fork": frozenset(("parent_comm", "parent_pid", "child_comm", "child_pid")),
    "sched_process_exec": frozenset(("filename", "pid", "old_pid")),
    "sched_process_exit": frozenset(("comm", "pid", "prio", "group_dead")),
}
#: Software events of perf: tools/perf/util/parse-events.c (`event_symbols_sw`).
_SOFTWARE: Final = frozenset(
    (
        "page-faults", "faults", "minor-faults", "major-faults", "context-switches", "cs", "cpu-migrations", "migrations", "cpu-clock",
        "task-clock", "alignment-faults", "emulation-faults", "dummy", "bpf-output", "cgroup-switches",
    )
)  # fmt: skip
_KEYLESS: Final = {ARGS: "args", RET: "ret", BUF: "buf", SECOND: "ip"}
_UNKNOWN: Final = "<...>"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the events of a text.

    Attributes:
        formats: of each event, by its number.
        columns: for each event how its fields are read, by `Field.offset`; of a record of perf only its text.
        templates: the records of perf among them.
    """

    formats: list[EventFormat]
    columns: list[dict[int, Column]]
    templates: dict[int, Template]


class TextTrace(Source):
    """The events of a text: a `Source`. `Field.offset` is a number of the reader's own, as records of a text have no layout."""

    def __init__(self, data: memoryview, head: Head, metadata: Metadata, *, strict: bool) -> None:
        self._data: Array = np.frombuffer(data, np.uint8)
        self._head = head
        self._metadata = metadata
        # Each pass writes to the memory of the survey.
        self._lock = threading.RLock()
        self._found: Survey | None = None
        if strict:
            self._refuse_damage()

    @property
    def metadata(self) -> Metadata:
        """What the text says of itself; what is wrong with it is in the notes once events were read."""
        if self._found is None:
            return self._metadata
        found = self._survey
        notes = list(self._metadata.notes)
        if found.foreign:
            notes.append(f"{found.foreign} lines cannot be read, the first at byte {found.first_foreign}")
        if found.cut is not None:
            notes.append(f"the last line, at byte {found.cut}, has no end and is not read")
        buffers = ("", *strings(self._data, found.buffers))
        cpus = self._metadata.cpus or (found.top_cpu + 1 if found.span else 0)
        return replace(self._metadata, notes=tuple(notes), buffers=buffers, cpus=cpus, cmdlines=self._cmdlines)

    @property
    def formats(self) -> Sequence[EventFormat]:
        """Every event that occurs."""
        return self._known.formats

    @property
    def losses(self) -> pa.Table:
        """Rows of `losses.SCHEMA`."""
        return self._survey.losses

    def counts(self) -> Mapping[int, int]:
        """How often each event occurs."""
        return dict(enumerate(of_events(self._survey.memory, EVENT_COUNT).tolist()))

    def span(self) -> tuple[int, int] | None:
        """The least and the greatest time (ns)."""
        return self._survey.span

    def read(self, asked: Mapping[int, Sequence[Field]], *, positions: bool = False) -> dict[int, pa.Table]:
        """The rows of some events, in the order of the text."""
        known = self._known
        wanted = []
        for number, fields in asked.items():
            offsets = [0] if number in known.templates and fields else [field.offset for field in fields]
            # A field that is asked for twice is read once.
            wanted.append(Wanted(number, [known.columns[number][offset] for offset in dict.fromkeys(offsets)]))
        chains = bool(of_events(self._survey.memory, EVENT_FRAMES).any())
        with self._lock:
            made = read_rows(self._data, self._head.shape, self._survey, wanted, positions=positions, chains=chains)
        names = pa.array([_UNKNOWN, *made.names], pa.string())
        buffers = pa.array(["", *strings(self._data, self._survey.buffers)], pa.string())
        tables = {}
        for group, (number, fields) in enumerate(asked.items()):
            rows = slice(made.bases[group], made.bases[group] + int(self._survey.memory[EVENT_COUNT + number]))
            columns = self._common(made, rows, names, buffers)
            if chains:
                columns["callchain"] = made.chains[group]
            if number in known.templates and fields:
                columns |= extracted(made.columns[group][0], known.templates[number], fields)
            else:
                own = dict(zip(dict.fromkeys(field.offset for field in fields), made.columns[group], strict=True))
                columns |= {field.column: own[field.offset] for field in fields}
            if positions:
                columns["position"] = pa.array(made.header.position[rows])
            tables[number] = pa.table(columns)
        return tables

    def timeline(self) -> pa.Table:
        """All events in the order of the text."""
        every = [Wanted(number, ()) for number in range(len(self._known.formats))]
        with self._lock:
            header = read_rows(self._data, self._head.shape, self._survey, every, together=True).header
        return pa.table({"ts": header.ts, "cpu": header.cpu, "tid": header.tid, "event": header.event})

    def _common(self, made: Read, rows: slice, names: pa.Array, buffers: pa.Array) -> dict[str, pa.Array]:
        header = made.header
        columns = {"ts": pa.array(header.ts[rows]), "cpu": pa.array(header.cpu[rows]), "tid": pa.array(header.tid[rows])}
        columns["comm"] = pa.DictionaryArray.from_arrays(pa.array(header.comm[rows]), names)
        if header.buffer.size:
            columns["buffer"] = pa.DictionaryArray.from_arrays(pa.array(header.buffer[rows]), buffers)
        if self._survey.tgids:
            tgids = header.tgid[rows]
            columns["tgid"] = pa.array(tgids, mask=tgids == UNTOLD)
        return columns

    def _refuse_damage(self) -> None:
        found = self._survey
        hint = "leave out strict reading to read the rest, or copy the file again"
        if found.foreign:
            raise ParseError("a line cannot be read", path=self._metadata.path, offset=found.first_foreign, hint=hint)
        if found.cut is not None:
            raise ParseError("the last line has no end", path=self._metadata.path, offset=found.cut, hint=hint)

    @property
    def _survey(self) -> Survey:
        with self._lock:
            if self._found is None:
                self._found = survey(self._data, self._head.shape, self._head.overwritten)
            return self._found

    @functools.cached_property
    def _cmdlines(self) -> dict[int, str]:
        return {tid: name for tid, name in thread_names(self._data, self._survey.threads).items() if name != _UNKNOWN}

    @functools.cached_property
    def _known(self) -> Known:
        return _known(self._data, self._survey, perf=bool(self._head.shape.perf))


def _text(data: Array, at: int, size: int) -> str:
    return data[at : at + size].tobytes().decode("utf-8", "replace")


def _known(data: Array, found: Survey, *, perf: bool) -> Known:
    """Names and types of everything that the first pass met."""
    memory = found.memory
    known = Known([], [], {})
    taken: Counter[tuple[str, str]] = Counter()
    for event in range(int(memory[EVENTS])):
        system, name = _event_name(
            _text(data, int(memory[EVENT_AT + event]), int(memory[EVENT_LENGTH + event])), int(memory[EVENT_KIND + event]), perf=perf
        )
        taken[system, name] += 1
        if (again := taken[system, name]) > 1:
            name = f"{name}_{again}"
        if int(memory[EVENT_KIND + event]) == RECORD and name in RECORDS:
            known.templates[event] = RECORDS[name]
            field = int(memory[EVENT_FIRST + event])
            known.columns.append({0: Column(field, STRING, False, _room(memory, field), False)})
            known.formats.append(EventFormat(system, name, event, (), RECORDS[name].fields, ""))
            continue
        own, columns = _fields(data, found, event, name, sampled=perf and system in ("software", "hardware"))
        known.columns.append(columns)
        known.formats.append(EventFormat(system, name, event, (), own, ""))
    return known


def _event_name(text: str, kind: int, *, perf: bool) -> tuple[str, str]:
    """System and name of an event, out of the name that the text has."""
    if kind in (ENTER, EXIT):
        return "syscalls", f"sys_{'enter' if kind == ENTER else 'exit'}_{text.removeprefix('sys_')}"
    if kind in (MARKED, CALL, STACK):
        return "ftrace", {MARKED: "print", CALL: "function", STACK: "kernel_stack"}[kind]
    if kind == RECORD:
        return "perf", text.removeprefix("PERF_RECORD_").lower()
    system, colon, name = text.partition(":")
    if perf and colon and name.strip("ukhIGHpPSDWeb"):
        return system, name
    if perf:
        return "software" if system in _SOFTWARE else "hardware", text
    return "ftrace" if text == "print" else "", text


def _fields(data: Array, found: Survey, event: int, name: str, *, sampled: bool) -> tuple[tuple[Field, ...], dict[int, Column]]:
    memory = found.memory
    count = int(memory[EVENT_COUNT + event])
    own: list[Field] = []
    columns: dict[int, Column] = {}
    numbers = []
    field = int(memory[EVENT_FIRST + event])
    while field:
        numbers.append(field)
        field = int(memory[FIELD_NEXT + field])
    room = sum(_room(memory, each) + int(memory[FIELD_PRESENT + each] * (memory[FIELD_LENGTH + each] + 4)) for each in numbers)
    names = _names(data, found, event, numbers, sampled=sampled, kernel_names=PRINTED.get(name, {}))
    foreign = [each for each in numbers if name in KEYS_OF and names[each] not in KEYS_OF[name] and memory[FIELD_AT + each] >= 0]
    foreign = [each for each in foreign if int(memory[FIELD_PRESENT + each]) < count]
    for each in foreign:
        memory[FIELD_OFF + each] = 1
    seen: Counter[str] = Counter()
    for each in numbers:
        if memory[FIELD_OFF + each] or not memory[FIELD_PRESENT + each]:
            continue
        named = names[each]
        mode, unsigned = _mode(named, int(memory[FIELD_FLAGS + each]), int(memory[EVENT_KIND + event]))
        column = f"{named}_field" if named in HEADER_COLUMNS else named
        seen[column] += 1
        column = f"{column}_{seen[column]}" if seen[column] > 1 else column
        own.append(_field(named, column, each, mode, unsigned=unsigned))
        whole = int(memory[FIELD_PRESENT + each]) == count and not foreign
        columns[each] = Column(each, mode, unsigned, room if foreign else _room(memory, each), whole)
    return tuple(own), columns


def _room(memory: Array, field: int) -> int:
    """Bytes that the values of a field need at most."""
    numbers = 0 if memory[FIELD_FLAGS + field] & OTHER else int(memory[FIELD_PRESENT + field]) * MOST_DIGITS
    return int(memory[FIELD_BYTES + field]) + numbers


def _field(name: str, column: str, number: int, mode: int, *, unsigned: bool) -> Field:
    if mode == STRING:
        return Field(name, column, "char", number, 0, False, "rest", 1)
    return Field(name, column, "u64" if unsigned else "s64", number, 8, not unsigned, "here", 0)


def _names(
    data: Array, found: Survey, event: int, numbers: Sequence[int], *, sampled: bool, kernel_names: Mapping[str, str]
) -> dict[int, str]:
    """The names of an event's fields: those of the kernel where it prints others, unless the text has those of the kernel itself."""
    names = {number: _field_name(data, found, event, number, sampled=sampled) for number in numbers}
    if any(name in kernel_names.values() for name in names.values()):
        return names
    return {number: kernel_names.get(name, name) for number, name in names.items()}


def _field_name(data: Array, found: Survey, event: int, field: int, *, sampled: bool) -> str:
    memory = found.memory
    at = int(memory[FIELD_AT + field])
    if at >= 0:
        return _text(data, at, int(memory[FIELD_LENGTH + field]))
    if at == PERIOD:
        return "period" if sampled else "sample_period"
    if at == FIRST:
        # A sample prints `[ADDRESS] [IP SYMBOL]`; with a call chain the ip is in that.
        second = bool(memory[FIELD_NEXT + field]) and memory[FIELD_AT + memory[FIELD_NEXT + field]] == SECOND
        symbol = bool(memory[FIELD_FLAGS + field] & SYMBOL)
        return "ip" if symbol and not second and not memory[EVENT_FRAMES + event] else "addr"
    return _KEYLESS[at]


def _mode(name: str, flags: int, kind: int) -> tuple[int, bool]:
    """How a field is read, and whether it has no sign, by what all of its values are."""
    flags &= ~SYMBOL
    if name in TEXTS or flags & OTHER or not flags:
        return STRING, False
    if name in ("addr", "ip") and not flags & (NEGATIVE | BIG) and flags & BARE:
        return HEX_NUMBER, True
    if name in BARE_NUMBERS or kind == ENTER:
        return (HEX_NUMBER, True) if not flags & (NEGATIVE | BIG) else (STRING, False)
    if flags & BARE or (flags & NEGATIVE and flags & (BIG | HEXADECIMAL)):
        return STRING, False
    return NUMBER, not flags & (NEGATIVE | DECIMAL) or bool(flags & (BIG | HEXADECIMAL))
