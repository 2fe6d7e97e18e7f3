"""From memory events back to the records of the trace: event, time, row, and the fields as the trace says them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tracetool.trace import Trace

#: Columns of a raw table that are no fields of the event.
_HEADER: Final = ("ts", "cpu", "tid", "comm", "position")


@dataclass(frozen=True)
class Record:
    """One raw record: `role` says what it shows, `row` is its row in the table of `event`, `ts` in ns on the trace's clock.

    `comm` and `fields` are as the trace has them; unsigned 64-bit numbers are hexadecimal strings.
    """

    role: str
    event: str
    ts: int
    row: int
    cpu: int
    tid: int
    comm: str
    fields: Mapping[str, Any]


def records(trace: Trace, rows: Mapping[int, str], *, partners: bool = False) -> tuple[Record, ...]:
    """The records that memory events rest on; `rows` are memory events and what each shows, in the order to tell them.

    With `partners` each comes with the other end of what it begins or ends: of `gup_done` the request, of `cow_fault` its end.
    """
    found = trace.history.events.evidence(list(rows))
    names = {event for event, _, _ in found.values()}
    formats = trace.raw.formats()
    other = {name: partner for name in names if partners and (partner := _partner(name)) in formats}
    tables = trace.raw.tables(sorted(names.union(other.values())), positions=True)
    told: list[Record] = []
    for event, role in rows.items():
        if event not in found:
            continue
        name, _, row = found[event]
        own = _record(tables[name], name, row, role)
        pair = _other_end(tables, name, row, other[name]) if name in other else None
        begin, end = (pair, own) if pair and _ends(name) else (own, pair)
        told += [record for record in (begin, end) if record]
    return tuple(_once(told))


def _once(told: Iterable[Record]) -> Iterable[Record]:
    seen = set()
    for record in told:
        if (record.event, record.row) not in seen:
            seen.add((record.event, record.row))
            yield record


def _ends(name: str) -> bool:
    return name.endswith("_done") or name.startswith("sys_exit_")


def _partner(name: str) -> str:
    """The event at the other end of what this one begins or ends."""
    if name.startswith(("sys_exit_", "sys_enter_")):
        begin, _, call = name.removeprefix("sys_").partition("_")
        return f"sys_{'enter' if begin == 'exit' else 'exit'}_{call}"
    return name.removesuffix("_done") if name.endswith("_done") else f"{name}_done"


def _other_end(tables: Mapping[str, pa.Table], name: str, row: int, partner: str) -> Record | None:
    """The last begin before an end, the first end after a begin, of the same thread."""
    of, table = tables[name], tables[partner]
    at, tid = of.column("position")[row].as_py(), of.column("tid")[row].as_py()
    mine = np.flatnonzero(table.column("tid").to_numpy() == tid)
    place = int(np.searchsorted(table.column("position").to_numpy()[mine], at))
    wanted = place - 1 if _ends(name) else place
    role = "asked for" if _ends(name) else "done"
    return _record(table, partner, int(mine[wanted]), role) if 0 <= wanted < mine.size else None


def _record(table: pa.Table, name: str, row: int, role: str) -> Record:
    values = table.slice(row, 1).to_pylist()[0]
    unsigned = {field.name for field in table.schema if pa.types.is_uint64(field.type)}
    fields = {key: f"{value:#x}" if key in unsigned and value is not None else value for key, value in values.items() if key not in _HEADER}
    return Record(role, name, values["ts"], row, values["cpu"], values["tid"], values["comm"] or "", fields)
