"""What every format's reader offers; `RawTrace` turns names into these questions and is the same for all formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import pyarrow as pa

from .eventformat import EventFormat, Field
from .metadata import Metadata


class Source(Protocol):
    """A trace of some format. Events are known by the number `EventFormat.id` of one of `formats`, or by a number without a format.

    Nothing but metadata is read when a source is made; each question reads what it needs of the events.
    """

    @property
    def metadata(self) -> Metadata:
        """What the trace says of itself; notes on damaged event data are in it once events were read."""
        ...

    @property
    def formats(self) -> Sequence[EventFormat]:
        """Every event that the file has a format of, also those that never occur; text has only those that occur."""
        ...

    @property
    def losses(self) -> pa.Table:
        """What was lost: the table of `losses.SCHEMA`."""
        ...

    def counts(self) -> Mapping[int, int]:
        """How often each event occurs, without those that do not."""
        ...

    def span(self) -> tuple[int, int] | None:
        """The least and the greatest time stamp (ns), None in a trace without events."""
        ...

    def read(self, asked: Mapping[int, Sequence[Field]], *, positions: bool = False) -> dict[int, pa.Table]:
        """The records of some events as tables, in the order of the trace.

        Args:
            asked: event number -> the fields that are wanted of it, in that order; an event that never occurs gives no rows.
            positions: whether the tables end with a column `position`: int64, which puts the rows of all these tables into the order of the
                trace; each number occurs once, not every number occurs.

        Returns:
            tables with the columns `ts` (int64 ns), `cpu`, `tid` (int32), `comm` (dictionary of strings), then those of `HEADER_COLUMNS`
            that the format has, then `Field.column` of each field.
        """
        ...

    def read_all(self, *, positions: bool = False) -> dict[int, pa.Table]:
        """The tables of all events that occur, with the fields that are shown unless asked otherwise; else as `read`."""
        formats = {event.id: event.shown for event in self.formats}
        return self.read({number: formats.get(number, ()) for number in self.counts()}, positions=positions)

    def timeline(self) -> pa.Table:
        """All events in the order of the trace: `ts` int64 ns, `cpu` int32, `tid` int32, `event` int32 (its number)."""
        ...


class Wrapped(Source):
    """A trace inside something that has more to say of it; what is not overridden is as inside."""

    def __init__(self, inside: Source) -> None:
        self._inside = inside

    @property
    def metadata(self) -> Metadata:
        """As inside."""
        return self._inside.metadata

    @property
    def formats(self) -> Sequence[EventFormat]:
        """As inside."""
        return self._inside.formats

    @property
    def losses(self) -> pa.Table:
        """As inside."""
        return self._inside.losses

    def counts(self) -> Mapping[int, int]:
        """As inside."""
        return self._inside.counts()

    def span(self) -> tuple[int, int] | None:
        """As inside."""
        return self._inside.span()

    def read(self, asked: Mapping[int, Sequence[Field]], *, positions: bool = False) -> dict[int, pa.Table]:
        """As inside."""
        return self._inside.read(asked, positions=positions)

    def read_all(self, *, positions: bool = False) -> dict[int, pa.Table]:
        """As inside."""
        return self._inside.read_all(positions=positions)

    def timeline(self) -> pa.Table:
        """As inside."""
        return self._inside.timeline()
