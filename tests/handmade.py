"""A hand-made recording (`engine.build.Machine`) as a whole trace: what a file would tell besides its events is said here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pyarrow as pa

from engine.build import READ_ONLY, READ_WRITE, Machine, Recording, address
from tracetool.memory_events import with_tables
from tracetool.probes import PROBES
from tracetool.trace import Trace
from tracetool_parsers import RawTrace
from tracetool_parsers.eventformat import EventFormat
from tracetool_parsers.losses import Loss, losses_table
from tracetool_parsers.metadata import Metadata

PATH = "folder/hand-made"
#: Records of perf itself.
RECORDS = ("comm", "mmap", "mmap2")


class HandMade:
    """What is read of a `RawTrace`, from the tables of a recording; every probe has a format but those `without` names."""

    def __init__(self, recording: Recording, names: Mapping[int, str], losses: Iterable[Loss], without: Sequence[str]) -> None:
        source = recording.source()
        tables = {name: _with_comm(source.table(name), names) for name in source.counts()}
        for probe in PROBES:
            if probe.event not in tables and probe.event not in without:
                tables[probe.event] = _empty([field for field in (probe.mm, probe.other_mm, *probe.args) if field])
        self._source = with_tables(tables)
        self._span = min(min(_times(table)) for table in tables.values() if table.num_rows), recording.now
        self.metadata = Metadata(PATH, "tables", "6.1.0-test", None, "global", 2, cmdlines=dict(names))
        self.losses = losses_table(list(losses))

    def formats(self) -> Mapping[str, EventFormat]:
        return {name: replace(each, system="perf") if name in RECORDS else each for name, each in self._source.formats().items()}

    def counts(self) -> dict[str, int]:
        return {name: count for name, count in self._source.counts().items() if count}

    def span(self) -> tuple[int, int]:
        return self._span

    def table(self, name: str, fields: Sequence[str] | None = None) -> pa.Table:
        return self._source.table(name, fields)

    def tables(self, names: Iterable[str] | Mapping[str, Sequence[str] | None], *, positions: bool = False) -> dict[str, pa.Table]:
        wanted = names if isinstance(names, Mapping) else dict.fromkeys(names)
        return self._source.tables(wanted, positions=positions)


def protected_while_pinned() -> Machine:
    """A pins its page for write, takes its own right to write away and gives it back, and unpins; no fault is seen after the first."""
    m = Machine()
    a, pfn = m.spawn(10), 0x50
    m.touch(a, address(0), pfn)
    m.pin(a, address(0), pfn)
    m.mprotect(a, address(0), READ_ONLY)
    m.mprotect(a, address(0), READ_WRITE)
    m.unpin(a.tid, pfn)
    return m


def trace_of(
    recording: Recording, names: Mapping[int, str] | None = None, losses: Iterable[Loss] = (), without: Sequence[str] = ()
) -> Trace:
    """A trace of what was recorded.

    Args:
        recording: the events.
        names: thread -> its name.
        losses: what was lost.
        without: events that have no format: they were not recorded.
    """
    return Trace(cast(RawTrace, HandMade(recording, names or {}, losses, without)))


def _times(table: pa.Table) -> list[int]:
    times: list[int] = table.column("ts").to_pylist()
    return times


def _with_comm(table: pa.Table, names: Mapping[int, str]) -> pa.Table:
    comm = [names.get(tid, "<...>") for tid in table.column("tid").to_pylist()]
    return table.add_column(3, "comm", pa.array(comm, pa.string()))


def _empty(fields: Sequence[str]) -> pa.Table:
    columns: dict[str, Any] = {"ts": pa.int64(), "cpu": pa.int32(), "tid": pa.int32(), "comm": pa.string()}
    columns |= dict.fromkeys(fields, pa.uint64())
    return pa.table({name: pa.array(np.zeros(0), kind) if kind != pa.string() else pa.array([], kind) for name, kind in columns.items()})
