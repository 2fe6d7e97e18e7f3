"""RawTrace: a recorded trace as one Arrow table an event, decoded when asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .errors import UnknownEvent
from .eventformat import Common, EventFormat, Field, bare_names
from .loading import Loaded
from .merge import Order, order_of, rows_of
from .tables import CommNames, tables_of, timeline_of

#: Fields that kprobes add to what the user asked for: in a table only when named.
PROBE_FIELDS: Final = frozenset(("__probe_ip", "__probe_func", "__probe_ret_ip"))


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a trace says of itself.

    Attributes:
        path: the file.
        format: "trace.dat v7".
        kernel: release of the recorded kernel ("6.1.0-53-amd64"), None where the file does not say.
        uname: system, host, release and machine as recorded, None where the file does not say.
        clock: the trace clock ("global", "mono"), None where the file does not say.
        cpus: number of CPUs.
        codec: "none", "zlib" or "zstd".
        page_size: bytes of a sub-buffer.
        writer: version of the program that wrote the file, None where it does not say.
        buffers: names of the ring buffer instances that the file has; "" is the top one.
        cmdlines: thread id -> the command name that was saved for it.
        hypervisor: None: not told by the formats that are read.
        notes: what a user should know: options that were skipped, damage with its byte offset (once events were read).
    """

    path: str
    format: str
    kernel: str | None
    uname: str | None
    clock: str | None
    cpus: int
    codec: str
    page_size: int
    writer: str | None
    buffers: tuple[str, ...]
    cmdlines: Mapping[int, str]
    hypervisor: str | None
    notes: tuple[str, ...]


class RawTrace:
    """The events of a trace, by name.

    Nothing but metadata is read before the first question about events; then all records are found in one pass, and fields are
    decoded for the events that are asked for.

    Tables have the columns `ts` (int64, ns of the trace clock), `cpu` (int32), `tid` (int32, the thread: `common_pid`), `comm`
    (dictionary of strings: the name saved for the thread, "<...>" where none is, "<idle>" for 0), `buffer` (dictionary of strings;
    only when several buffers are read), then the event's own fields: integers with the kernel's width and sign (pointers are uint64),
    strings, and lists of integers. A field called like one of those columns has `_field` after its name (`comm_field`). A field that
    does not fit into its record is null. Rows are in the order of the trace: by time, of equal times by buffer and CPU; each CPU's
    own order is kept.

    Example:
        >>> trace = open_trace("trace.dat")                                     # doctest: +SKIP
        >>> trace.table("mm_page_alloc", ["pfn", "order"]).to_pandas()          # doctest: +SKIP
    """

    def __init__(
        self,
        metadata: Metadata,
        formats: Sequence[EventFormat],
        common: Common,
        load: Callable[[], Loaded],
    ) -> None:
        """Made by `open_trace`; `load` finds the records and is called once, at the first question about events."""
        self._metadata = metadata
        self._formats = bare_names(formats)
        self._by_id = {event.id: name for name, event in self._formats.items()}
        self._by_full_name = {event.full_name: name for name, event in self._formats.items()}
        self._common = common
        self._load = load

    @property
    def metadata(self) -> Metadata:
        """What the trace says of itself; notes on damaged event data are in it once events were read."""
        if "_loaded" in self.__dict__:
            return replace(self._metadata, notes=(*self._metadata.notes, *self._loaded.notes))
        return self._metadata

    @property
    def losses(self) -> pa.Table:
        """What was lost: `cpu` int32, `from_ns`, `to_ns` int64 (null: no event there), `events` int64 (null: unknown), `source`.

        `source` is one of "sub-buffer flag", "truncated file", "damaged sub-buffer", "damaged record", "damaged time stamp",
        "damaged chunk", "cpustat overrun", "cpustat commit overrun", "cpustat dropped events".
        """
        return self._loaded.losses

    def event_names(self) -> list[str]:
        """Names of the events that occur, sorted: the bare name, `system:event` where two systems share one, `unknown:ID`."""
        return sorted(self.counts())

    def formats(self) -> Mapping[str, EventFormat]:
        """Every event that the file has a format of, by the same names, also those that never occur."""
        return dict(self._formats)

    def counts(self) -> dict[str, int]:
        """How often each event occurs, without those that do not."""
        counts = self._loaded.records.found.counts
        return {self._name_of(number): int(counts[number]) for number in np.flatnonzero(counts).tolist()}

    def span(self) -> tuple[int, int] | None:
        """The least and the greatest time stamp (ns), None in a trace without events."""
        times = self._loaded.records.found.times
        return (int(times.min()), int(times.max())) if times.size else None

    def table(self, name: str, fields: Sequence[str] | None = None) -> pa.Table:
        """All records of one event.

        Args:
            name: bare or `system:event`; an event that has a format and never occurs gives no rows.
            fields: columns of the event's own fields that are wanted, in that order; None: all but those that kprobes add
                (`__probe_ip`, `__probe_func`, `__probe_ret_ip`).

        Raises:
            UnknownEvent: the trace has no such event, or the event no such field.
        """
        number, own = self._fields_of(name, fields)
        return tables_of(self._loaded, self._order, self._common, self._comm, {number: own})[number]

    def tables(self, names: Iterable[str] | Mapping[str, Sequence[str] | None]) -> dict[str, pa.Table]:
        """The tables of several events, by the names they were asked for: decoded in one pass, faster than one by one.

        The tables share memory, which stays as long as one of them is in use. A mapping says which fields of each event are wanted, as
        `fields` of `table` does.

        Raises:
            UnknownEvent: as `table`.
        """
        wanted = names if isinstance(names, Mapping) else dict.fromkeys(names)
        asked = {name: self._fields_of(name, fields) for name, fields in wanted.items()}
        made = tables_of(self._loaded, self._order, self._common, self._comm, dict(asked.values()))
        return {name: made[number] for name, (number, _) in asked.items()}

    def positions(self, name: str) -> npt.NDArray[np.int64]:
        """For each row of `table(name)` its place in the order of all events of the trace: int64, counted from 0.

        Raises:
            UnknownEvent: as `table`.
        """
        number, _ = self._fields_of(name, ())
        found, order = self._loaded.records.found, self._order
        return order.places[rows_of(number, found, order)].astype(np.int64)

    def timeline(self) -> pa.Table:
        """All events in the order of the trace: `ts` int64 ns, `cpu` int32, `tid` int32, `event` (dictionary of strings)."""
        occurring = np.flatnonzero(self._loaded.records.found.counts).tolist()
        return timeline_of(self._loaded, self._order, self._common, {number: self._name_of(number) for number in occurring})

    @functools.cached_property
    def _loaded(self) -> Loaded:
        return self._load()

    @functools.cached_property
    def _order(self) -> Order:
        return order_of(self._loaded.records)

    @functools.cached_property
    def _comm(self) -> CommNames:
        return CommNames.of(self._metadata.cmdlines)

    def _name_of(self, number: int) -> str:
        return self._by_id.get(number, f"unknown:{number}")

    def _fields_of(self, name: str, wanted: Sequence[str] | None) -> tuple[int, list[Field]]:
        known = name if name in self._formats else self._by_full_name.get(name)
        if known is None:
            return self._unknown(name), []
        event = self._formats[known]
        if wanted is None:
            return event.id, [field for field in event.fields if field.name not in PROBE_FIELDS]
        columns = {field.column: field for field in event.fields}
        for column_name in wanted:
            if column_name not in columns:
                raise UnknownEvent.among(f"field of {known}", column_name, columns, path=self._metadata.path, event=known)
        return event.id, [columns[column_name] for column_name in wanted]

    def _unknown(self, name: str) -> int:
        _, colon, number = name.partition("unknown:")
        if colon and name in self.counts():
            return int(number)
        raise UnknownEvent.among("event", name, self.counts() or self._formats, path=self._metadata.path)
