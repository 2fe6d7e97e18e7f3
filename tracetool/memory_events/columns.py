"""Columns of raw tables as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracetool.errors import TraceError

Ints = npt.NDArray[Any]


def column_of(table: pa.Table, name: str, event: str | None = None) -> Ints | int:
    """A column as int64, unsigned numbers bit for bit; 0 where the event has no such field or a record is too short to have it.

    Raises:
        TraceError: the field of `event` is none of numbers.
    """
    if not name or name not in table.column_names:
        return 0
    column = table.column(name)
    if not pa.types.is_integer(column.type):
        raise TraceError(f"field {name} is {column.type} where a number is expected", event=event)
    values: Ints = (column.fill_null(0) if column.null_count else column).to_numpy()
    return values.view(np.int64) if values.dtype == np.uint64 else values.astype(np.int64)
