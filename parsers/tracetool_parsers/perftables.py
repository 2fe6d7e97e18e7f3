"""Rows of a perf.data -> Arrow tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .eventformat import Field
from .fields import Rows, column, is_number, number_column
from .perfattrs import CALLCHAIN, READ, Attr
from .perfevents import FILE_NUMBERS, FLAGS, HAS_BUILD_ID, Event
from .perfrecords import RECORD_TYPES
from .perfrows import NOWHERE, Columns, Plan
from .room import number_of, words_of

Array = npt.NDArray[Any]

_BUILD_ID: Final = "build_id"
_CHAIN: Final = Field("callchain", "callchain", "u64", 0, 0, signed=False, place="rest", element=8)


class Table:
    """One table that is asked for.

    Attributes:
        event: of its rows.
        rows: how many it has.
        asked: its own columns.
        numbers: fields that are copied as numbers.
        others: fields that need their records again: strings, lists, and numbers that some record is too short for.
    """

    def __init__(self, event: Event, fields: Sequence[Field], rows: int, shortest: int) -> None:
        """`shortest`: bytes that the body of each row has at least."""
        self.event, self.rows = event, rows
        self.asked = [field.column for field in fields]
        needed = [*fields, *(field for field in event.format.fields if field.column in _also(self.asked) and field not in fields)]
        self.numbers = [field for field in needed if self._is_value(field) or (is_number(field) and field.offset + field.size <= shortest)]
        plain = {field.column for field in self.numbers}
        self.others = [field for field in needed if field.column not in plain]
        # Values come first, as `copies` lists them.
        self._wide = sorted(filter(self._is_wide, self.numbers), key=lambda field: not self._is_value(field))
        self._narrow = [field for field in self.numbers if not self._is_wide(field)]

    @property
    def reads_body(self) -> bool:
        """Whether any field lies in the body."""
        return not all(map(self._is_value, (*self.numbers, *self.others)))

    def _is_value(self, field: Field) -> bool:
        return field.column in self.event.values

    def _is_wide(self, field: Field) -> bool:
        return self._is_value(field) or (field.size == 8 and field.offset % 4 == 0)

    def copies(self, attr: Attr | None) -> tuple[list[int], list[int], list[int]]:
        """The words to copy of a record: of double words in itself, of double words and of words in its body; `attr`: of a sample."""
        values = [attr.in_sample(self.event.values[field.column]) // 4 for field in self._wide if attr and self._is_value(field)]
        wide = [field.offset // 4 for field in self._wide if not self._is_value(field)]
        return values, wide, [field.offset // 4 + i for field in self._narrow for i in range(words_of(field.offset, field.size))]

    def number_columns(self, wide: Sequence[Array], narrow: Sequence[Array], *, swapped: bool) -> dict[str, pa.Array]:
        """The columns of `numbers` out of what was copied: uint64 and uint32, as they lie in the file."""
        doubles, singles = dict(zip((field.column for field in self._wide), wide, strict=True)), iter(narrow)
        made = {}
        for field in self.numbers:
            values = doubles.get(field.column)
            if values is None:
                values = number_of(field.offset, field.size, [next(singles) for _ in range(words_of(field.offset, field.size))])
            values = values.byteswap() if swapped else values
            made[field.column] = _flag(values, field) if field.type in FLAGS else number_column(values, field)
        return made


def _also(asked: Sequence[str]) -> frozenset[str]:
    return frozenset((HAS_BUILD_ID,)) if {*FILE_NUMBERS, _BUILD_ID}.intersection(asked) else frozenset()


def _flag(values: Array, field: Field) -> pa.Array:
    return pa.array((values >> np.uint16(FLAGS[field.type]) & np.uint16(1)).astype(bool))


class Layout:
    """Where the rows of several tables go, one table after the other.

    Attributes:
        plan, columns: what `emit` is told, and what it writes.
    """

    def __init__(self, tables: Sequence[Table], attrs: Sequence[Attr], *, positions: bool) -> None:
        """Make room for the rows."""
        self._tables = tables
        sources = len(attrs) + RECORD_TYPES
        owner, body, found, first, values, split, last = (np.full(sources, value, np.int64) for value in (-1, 0, 0, 0, 0, 0, 0))
        copies: list[tuple[int, int]] = []
        firsts, bodies, chains = [], [], []
        self._copied: list[tuple[int, int, int, int]] = []
        rows = wide_room = narrow_room = body_room = chain_room = 0
        for number, table in enumerate(tables):
            wide, narrow = 0, 0
            for source in table.event.sources:
                attr = attrs[source] if source < len(attrs) else None
                owner[source] = number
                if attr is not None:
                    varies = attr.has(READ) or attr.has(CALLCHAIN)
                    found[source] = table.event.chain or (varies and table.reads_body)
                    # Behind the length of the raw data.
                    body[source] = attr.sample_size // 4 + 1
                in_record, in_body, singles = table.copies(attr)
                wide, narrow = len(in_record) + len(in_body), len(singles)
                first[source] = len(copies)
                copies += [(at, wide_room + i * table.rows - rows) for i, at in enumerate(in_record + in_body)]
                values[source], split[source] = first[source] + len(in_record), len(copies)
                copies += [(at, narrow_room + i * table.rows - rows) for i, at in enumerate(singles)]
                last[source] = len(copies)
            firsts.append(rows)
            bodies.append(body_room - rows if table.others else NOWHERE)
            chains.append(chain_room - rows if table.event.chain else NOWHERE)
            self._copied.append((wide_room, wide, narrow_room, narrow))
            rows += table.rows
            wide_room += wide * table.rows
            narrow_room += narrow * table.rows
            body_room += table.rows * bool(table.others)
            chain_room += table.rows * table.event.chain
        at, bases = np.array(copies, np.int64).reshape(-1, 2).T.copy()
        starts = np.array(firsts, np.int64)
        stretches = (np.array(each, np.int64) for each in (bodies, chains))
        self.plan = Plan(owner, body, found, first, values, split, last, at, bases, starts.copy(), starts, *stretches)
        self.columns = Columns.room(rows, positions=positions, copies=(wide_room, narrow_room), bodies=body_room, chains=chain_room)

    def tables(self, words: Array, header: Mapping[str, pa.Array], *, swapped: bool) -> list[pa.Table]:
        """The tables; `header` has the columns that come first, of all of them."""
        return [self._table(number, words, header, swapped) for number in range(len(self._tables))]

    def _table(self, number: int, words: Array, header: Mapping[str, pa.Array], swapped: bool) -> pa.Table:
        table, plan, columns = self._tables[number], self.plan, self.columns
        begin, rows = int(plan.firsts[number]), table.rows
        made = {name: values.slice(begin, rows) for name, values in header.items()}
        if table.event.chain:
            these = slice(int(plan.chains[number]) + begin, int(plan.chains[number]) + begin + rows)
            made["callchain"] = column(Rows(words, columns.chains[these], columns.chain_sizes[these], swapped), _CHAIN)
        wide_at, wides, narrow_at, narrows = self._copied[number]
        wide = [columns.doubles[wide_at + i * rows : wide_at + (i + 1) * rows] for i in range(wides)]
        narrow = [columns.singles[narrow_at + i * rows : narrow_at + (i + 1) * rows] for i in range(narrows)]
        own = table.number_columns(wide, narrow, swapped=swapped)
        if table.others:
            these = slice(int(plan.bodies[number]) + begin, int(plan.bodies[number]) + begin + rows)
            records = Rows(words, columns.bodies[these], columns.body_sizes[these], swapped)
            own |= {field.column: column(records, field) for field in table.others}
        if _also(table.asked):
            _part_build_id(own)
        made |= {name: own[name] for name in table.asked}
        if columns.positions.size:
            made["position"] = pa.array(columns.positions[begin : begin + rows])
        return pa.table(made)


def _part_build_id(own: dict[str, Any]) -> None:
    """Make null what a record of a map has not: the numbers of its file, or the build id, which lie at the same bytes."""
    import pyarrow.compute as pc

    for name in {*FILE_NUMBERS, _BUILD_ID}.intersection(own):
        has = own[HAS_BUILD_ID] if name == _BUILD_ID else pc.invert(own[HAS_BUILD_ID])
        own[name] = pc.if_else(has, own[name], pa.scalar(None, own[name].type))
