"""RawTrace: a recorded trace as one Arrow table an event, decoded when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from .errors import UnknownEvent
from .eventformat import EventFormat, Field, bare_names
from .metadata import Metadata
from .source import Source


class RawTrace:
    """The events of a trace, by name.

    Nothing but metadata is read before the first question about events; then records are found and decoded for the events that are
    asked for, in one pass a question: ask for several tables at once.

    Tables have the columns `ts` (int64, ns of the trace clock), `cpu` (int32; -1 where a text does not say), `tid` (int32, the thread),
    `comm` (dictionary of strings: the name of the thread as the file says it; "<...>" where it says none, "<idle>" for 0), where the format
    has them `buffer` (dictionary of strings; only when several buffers are read), `tgid` (int32, the process) and `callchain` (list of
    uint64), then the event's own fields: integers with the kernel's width and sign (pointers are uint64), strings, and lists of integers.
    A field called like one of those columns has `_field` after its name (`comm_field`). A field that does not fit into its record is null.
    Rows are in the order of the trace: by time, of equal times by buffer and CPU; each CPU's own order is kept.

    Example:
        >>> trace = open_trace("trace.dat")                                     # doctest: +SKIP
        >>> trace.table("mm_page_alloc", ["pfn", "order"]).to_pandas()          # doctest: +SKIP
    """

    def __init__(self, source: Source) -> None:
        """Made by `open_trace`."""
        self._source = source
        self._formats: dict[str, EventFormat] | None = None

    @property
    def metadata(self) -> Metadata:
        """What the trace says of itself; notes on damaged event data are in it once events were read."""
        return self._source.metadata

    @property
    def losses(self) -> pa.Table:
        """What was lost, one row a loss.

        Columns: `cpu` int32 (-1: not known), `from_ns`, `to_ns` int64 (null: no bound), `events` int64 (null: unknown), `source`, `offset`
        int64 (byte of the file, null where the loss has no place in it).

        `source` says what shows the loss: see `losses.SOURCES`.
        """
        return self._source.losses

    def event_names(self) -> list[str]:
        """Names of the events that occur, sorted: the bare name, `system:event` where two systems share one, `unknown:ID`."""
        return sorted(self.counts())

    def formats(self) -> Mapping[str, EventFormat]:
        """Every event that the file has a format of, by the same names, also those that never occur."""
        if self._formats is None:
            self._formats = bare_names(self._source.formats)
        return self._formats

    def counts(self) -> dict[str, int]:
        """How often each event occurs, without those that do not."""
        names = self._names()
        return {names.get(number, f"unknown:{number}"): count for number, count in self._source.counts().items()}

    def span(self) -> tuple[int, int] | None:
        """The least and the greatest time stamp (ns), None in a trace without events."""
        return self._source.span()

    def table(self, name: str, fields: Sequence[str] | None = None, *, positions: bool = False) -> pa.Table:
        """All records of one event.

        Args:
            name: bare or `system:event`; an event that has a format and never occurs gives no rows.
            fields: columns of the event's own fields that are wanted, in that order, or of those that all events have (`common_flags`);
                None: all of its own but those that kprobes and perf add (`eventformat.UNASKED`).
            positions: whether to add a column `position`: int64, which orders the rows of all tables of one question as the trace does.

        Raises:
            UnknownEvent: the trace has no such event, or the event no such field.
        """
        return self.tables({name: fields}, positions=positions)[name]

    def tables(
        self, names: Iterable[str] | Mapping[str, Sequence[str] | None] | None = None, *, positions: bool = False
    ) -> dict[str, pa.Table]:
        """The tables of several events, by the names they were asked for, or of all that occur: in one pass, faster than one by one.

        The tables share memory, which stays as long as one of them is in use. A mapping says which fields of each event are wanted, as
        `fields` of `table` does; of two names for one event the fields of the last count.

        Raises:
            UnknownEvent: as `table`.
        """
        if names is None:
            named = self._names()
            made = self._source.read_all(positions=positions)
            return {name: made[number] for name, number in sorted((named.get(number, f"unknown:{number}"), number) for number in made)}
        wanted = names if isinstance(names, Mapping) else dict.fromkeys(names)
        asked = {name: self._fields_of(name, fields) for name, fields in wanted.items()}
        made = self._source.read(dict(asked.values()), positions=positions)
        return {name: made[number] for name, (number, _) in asked.items()}

    def timeline(self) -> pa.Table:
        """All events in the order of the trace: `ts` int64 ns, `cpu` int32, `tid` int32, `event` (dictionary of strings)."""
        table = self._source.timeline()
        names = self._names()
        numbers = table.column("event").combine_chunks().dictionary_encode()
        if isinstance(numbers, pa.ChunkedArray):
            numbers = numbers.combine_chunks()
        listed = [names.get(number, f"unknown:{number}") for number in numbers.dictionary.to_pylist()]
        event = pa.DictionaryArray.from_arrays(numbers.indices, pa.array(listed, pa.string()))
        return table.set_column(table.column_names.index("event"), "event", event)

    def _names(self) -> dict[int, str]:
        return {event.id: name for name, event in self.formats().items()}

    def _fields_of(self, name: str, wanted: Sequence[str] | None) -> tuple[int, Sequence[Field]]:
        event = self._event(name)
        if event is None:
            return self._unknown(name), []
        if wanted is None:
            return event.id, event.shown
        columns = {field.column: field for field in (*event.common, *event.fields)}
        for column in wanted:
            if column not in columns:
                noun = f"field of {event.name}"
                own = [field.column for field in event.fields]
                raise UnknownEvent.among(noun, column, own, path=self.metadata.path, event=event.name)
        return event.id, [columns[column] for column in wanted]

    def _event(self, name: str) -> EventFormat | None:
        known = self.formats()
        if name in known:
            return known[name]
        return next((event for event in known.values() if event.full_name == name), None)

    def _unknown(self, name: str) -> int:
        _, colon, number = name.partition("unknown:")
        if colon and name in self.counts():
            return int(number)
        raise UnknownEvent.among("event", name, self.counts() or self.formats(), path=self.metadata.path)
