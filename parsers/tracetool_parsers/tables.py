"""Events as Arrow tables: the columns that all have, then the event's own fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .eventformat import Common, Field
from .fields import Rows, column, is_number, looked_up, number_column
from .gather import gather_numbers
from .loading import Loaded
from .merge import Order, rows_of
from .streams import Stream

Array = npt.NDArray[Any]

_UNKNOWN: Final = "<...>"
_IDLE: Final = "<idle>"


@dataclass(frozen=True, slots=True)
class CommNames:
    """The names of threads, as trace-cmd prints them.

    Attributes:
        lookup: int32, for each thread id up to the greatest that has a name the number of its name.
        names: strings; the first is for threads that have none.
    """

    lookup: Array
    names: pa.Array

    @classmethod
    def of(cls, cmdlines: Mapping[int, str]) -> CommNames:
        """From saved command lines: thread id -> name."""
        named = {**cmdlines, 0: _IDLE}
        names = [_UNKNOWN, *dict.fromkeys(named.values())]
        numbered = {name: number for number, name in enumerate(names)}
        lookup = np.zeros(max(named) + 1, np.int32)
        lookup[list(named)] = [numbered[name] for name in named.values()]
        return cls(lookup, pa.array(names, pa.string()))

    def column(self, tids: Array) -> pa.DictionaryArray:
        """The names of threads (int32)."""
        return pa.DictionaryArray.from_arrays(pa.array(looked_up(self.lookup, tids)), self.names)


def tables_of(loaded: Loaded, order: Order, common: Common, comm: CommNames, asked: Mapping[int, Sequence[Field]]) -> dict[int, pa.Table]:
    """The tables of several events, decoded in one pass.

    Args:
        loaded: the records.
        order: of the records.
        common: where a record has its thread.
        comm: the names of threads.
        asked: event id -> the fields that are wanted of it.
    """
    found = loaded.records.found
    whole = {
        number: [field for field in fields if is_number(field) and field.offset + field.size <= found.shortest[number]]
        for number, fields in asked.items()
    }
    places = [(number, [(field.offset, field.size) for field in fields]) for number, fields in whole.items()]
    cpus = np.array([stream.cpu for stream in loaded.streams], np.int32)
    gathered = gather_numbers(loaded.words, loaded.records, order, cpus, common.pid_at, places)
    header = {name: pa.array(values) for name, values in zip(("ts", "cpu", "tid"), gathered.header, strict=True)}
    header["comm"] = comm.column(gathered.header.tids)
    several = len({stream.buffer for stream in loaded.streams}) > 1
    tables = {}
    for (number, fields), rows, values in zip(asked.items(), gathered.rows, gathered.numbers, strict=True):
        made = {field.column: number_column(column, field) for field, column in zip(whole[number], values, strict=True)}
        others = [field for field in fields if field.column not in made]
        columns = {name: whole_column.slice(rows.start, rows.stop - rows.start) for name, whole_column in header.items()}
        if several or others:
            chosen = rows_of(number, found, order)
            records = Rows(loaded.words, found.starts[chosen], found.lengths[chosen].astype(np.int64))
            made |= {field.column: column(records, field) for field in others}
            if several:
                columns["buffer"] = _buffers(records.starts, loaded.streams)
        tables[number] = pa.table(columns | {field.column: made[field.column] for field in fields})
    return tables


def _buffers(starts: Array, streams: Sequence[Stream]) -> pa.DictionaryArray:
    """The buffers of records that start at those words: the streams lie apart."""
    names = list(dict.fromkeys(stream.buffer for stream in streams))
    ordered = sorted(streams, key=lambda stream: (stream.begin, stream.end))
    begins = np.array([stream.begin for stream in ordered], np.int64)
    numbers = np.array([names.index(stream.buffer) for stream in ordered], np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(numbers[np.searchsorted(begins, starts, "right") - 1]), pa.array(names))


def timeline_of(loaded: Loaded, order: Order, common: Common, names: Mapping[int, str]) -> pa.Table:
    """All events in the order of the trace: `ts` int64 ns, `cpu` int32, `tid` int32, `event` (dictionary of strings).

    `names` is the name of each event id that occurs.
    """
    records, found = loaded.records, loaded.records.found
    dense = np.zeros(found.counts.size, np.int32)
    dense[list(names)] = np.arange(len(names), dtype=np.int32)
    cpus = np.array([stream.cpu for stream in loaded.streams], np.int32)
    in_file_order = {
        "ts": found.times,
        "cpu": np.repeat(cpus, np.diff(records.bounds)),
        "tid": loaded.words[found.starts.astype(np.int64) + common.pid_at // 4].view(np.int32),
        "event": dense[found.ids],
    }
    ordered = {}
    for name, values in in_file_order.items():
        ordered[name] = np.empty_like(values)
        ordered[name][order.places] = values
    event = pa.DictionaryArray.from_arrays(pa.array(ordered.pop("event")), pa.array(names.values(), pa.string()))
    return pa.table({name: pa.array(values) for name, values in ordered.items()} | {"event": event})
