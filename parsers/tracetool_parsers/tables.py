"""Events as Arrow tables: the columns that all have, then the event's own fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .eventformat import Field
from .fields import Rows, column, is_number, looked_up, number_column, numbers
from .reading import Collector, Lot
from .ringbuffer import SPOT_LENGTH, SPOT_SHIFT
from .room import SIGNED, UNSIGNED, Wanted, numbers_of

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
        # Not checked again: numbers that were looked up are in range.
        return pa.DictionaryArray.from_arrays(pa.array(looked_up(self.lookup, tids)), self.names, safe=False)


@dataclass(frozen=True, slots=True)
class Table:
    """What a table is to have: its columns after those that all tables have."""

    fields: tuple[Field, ...]

    @property
    def numbers(self) -> list[Field]:
        """The fields that are one number at the same place of each record."""
        return [each for each in self.fields if is_number(each)]

    @property
    def wanted(self) -> Wanted:
        """What is gathered for it."""
        numbers = self.numbers
        return Wanted(tuple((each.offset, each.size) for each in numbers), len(numbers) < len(self.fields))


@dataclass
class _Gathered:
    """What was taken of one table: the pieces of each column, in order."""

    columns: dict[str, list[pa.Array]] = field(default_factory=dict)
    places: list[Array] = field(default_factory=list)
    #: Numbers of records that are too short for some of them: row, then for each field its value and whether it is absent.
    short: list[tuple[Array, list[tuple[Array, Array]]]] = field(default_factory=list)


class Tables(Collector):
    """Takes the rows of one part as Arrow arrays."""

    def __init__(self, tables: Sequence[Table], comm: CommNames, buffers: Sequence[str], *, swapped: bool) -> None:
        self._tables = tables
        self._wanted = [table.wanted for table in tables]
        self._comm = comm
        self._buffers = pa.array(buffers, pa.string())
        self._swapped = swapped
        self._gathered = [_Gathered() for _ in tables]

    def look(self, lot: Lot) -> None:
        """Take strings, lists, and the numbers of short records."""
        self._look_at_short(lot)
        for number, table in enumerate(self._tables):
            begin, end = int(lot.seen[number]), int(lot.plan.rows[number])
            if not self._wanted[number].varying or begin == end:
                continue
            base = int(lot.plan.spots[number])
            rows = self._rows(lot.words, lot.columns.spots[base + begin : base + end])
            for each in table.fields:
                if not is_number(each):
                    self._add(number, each.column, column(rows, each))

    def take(self, lot: Lot) -> None:
        """Take times, CPUs, threads and numbers."""
        columns = lot.columns
        tids = (columns.tids.byteswap() if self._swapped else columns.tids).view(np.int32)
        # Of the rows of all tables at once; each table takes its slice.
        whole = {"ts": pa.array(columns.times), "cpu": pa.array(columns.cpus), "tid": pa.array(tids), "comm": self._comm.column(tids)}
        if len(columns.buffers):
            whole["buffer"] = pa.DictionaryArray.from_arrays(pa.array(columns.buffers), self._buffers, safe=False)
        for number, table in enumerate(self._tables):
            begin, end = int(lot.begins[number]), int(lot.plan.rows[number])
            if begin == end:
                continue
            for name, column_of_all in whole.items():
                self._add(number, name, column_of_all.slice(begin, end - begin))
            if len(columns.places):
                self._gathered[number].places.append(columns.places[begin:end])
            values = numbers_of(self._wanted[number], lot.plan, columns, number, begin, end)
            for at, (each, gathered) in enumerate(zip(table.numbers, values, strict=True)):
                own = gathered.byteswap() if self._swapped else gathered
                self._add(number, each.column, self._number_column(number, at, each, own, begin))
            self._gathered[number].short.clear()

    def finish(self, number: int, before: int) -> dict[str, list[pa.Array]]:
        """The pieces of each column of a table; `before` is what to add to places."""
        gathered = self._gathered[number]
        if gathered.places:
            gathered.columns["position"] = [pa.array(places + before) for places in gathered.places]
        return gathered.columns

    def _add(self, number: int, name: str, piece: pa.Array | pa.ChunkedArray) -> None:
        pieces = piece.chunks if isinstance(piece, pa.ChunkedArray) else [piece]
        self._gathered[number].columns.setdefault(name, []).extend(pieces)

    def _rows(self, words: Array, spots: Array) -> Rows:
        return Rows(words, spots >> SPOT_SHIFT, spots & SPOT_LENGTH, self._swapped)

    def _look_at_short(self, lot: Lot) -> None:
        rows, spots = lot.columns.short[: 2 * lot.short].reshape(-1, 2).T
        for number in np.unique(np.searchsorted(lot.plan.ends, rows, "right")).tolist():
            own = (rows >= lot.begins[number]) & (rows < lot.plan.rows[number])
            records = self._rows(lot.words, spots[own])
            found = []
            for each in self._tables[number].numbers:
                values, absent = numbers(records, each.offset, each.size)
                found.append((values, np.zeros(values.size, np.bool_) if absent is None else absent))
            self._gathered[number].short.append((rows[own], found))

    def _number_column(self, number: int, at: int, each: Field, values: Array, begin: int) -> pa.Array:
        short = self._gathered[number].short
        if not short:
            return number_column(values, each)
        values, absent = values.copy(), np.zeros(values.size, np.bool_)
        for rows, found in short:
            values[rows - begin], absent[rows - begin] = found[at]
        return number_column(values, each, absent if absent.any() else None)


def table_of(parts: Sequence[tuple[Tables, int]], number: int, columns: Mapping[str, pa.DataType]) -> pa.Table:
    """One table out of what was taken of the parts, each with how many records came before it.

    `columns` is what it has, in that order, with their types.
    """
    taken = [tables.finish(number, before) for tables, before in parts]
    pieces = {name: [piece for each in taken for piece in each.get(name, ())] for name in columns}
    return pa.table({name: pa.chunked_array(pieces[name], kind) for name, kind in columns.items()})


_NAMES: Final = pa.dictionary(pa.int32(), pa.string())
#: The types of the columns that are not an event's own.
HEADER_TYPES: Final = {
    "ts": pa.int64(), "cpu": pa.int32(), "tid": pa.int32(), "comm": _NAMES, "buffer": _NAMES, "position": pa.int64(),
}  # fmt: skip


def type_of(each: Field) -> pa.DataType:
    """The type of a field's column."""
    numbers = SIGNED if each.signed else UNSIGNED
    if is_number(each):
        return pa.from_numpy_dtype(numbers[each.size])
    return pa.string() if each.is_string else pa.list_(pa.from_numpy_dtype(numbers[each.element or 1]))
