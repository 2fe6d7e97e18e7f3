"""The last of many ranges over a point: which mapping an address belonged to at a moment.

Every range of pages is cut into aligned blocks of 1, 2, 4... pages, at most two of a size. A point lies in one block of each size, so that
the last range over it is the last of those that have one of its blocks: one as-of join a size, however many ranges lie over each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[Any]


def last_over(points: pl.DataFrame, ranges: pl.DataFrame) -> pl.Series:
    """The number of the last range that lies over each point, as a series `number` (Int64; null: none does).

    Args:
        points: `mm`, `page` (number of a page of user memory), `until`: ranges with numbers up to this one count.
        ranges: `mm`, `first` and `end` (numbers of pages, the end excluded; none below 0) in the order of time: their row is their number.

    Example:
        >>> import polars as pl
        >>> ranges = pl.DataFrame({"mm": [1, 1], "first": [0, 2], "end": [8, 3]})
        >>> points = pl.DataFrame({"mm": [1, 1, 1, 2], "page": [1, 2, 2, 1], "until": [1, 1, 0, 1]})
        >>> last_over(points, ranges).to_list()
        [0, 1, 0, None]
    """
    blocks = _blocks(ranges["first"].to_numpy(), ranges["end"].to_numpy())
    placed = blocks.with_columns(mm=ranges["mm"].cast(pl.Int32).gather(blocks["number"])).sort("number")
    asked = points.select(pl.col("mm").cast(pl.Int32), pl.col("page").cast(pl.Int64), pl.col("until").cast(pl.Int64)).with_row_index("row")
    asked = asked.sort("until", maintain_order=True)
    found = [
        asked.select("row", "mm", "until", block=pl.col("page") // (1 << size))
        .join_asof(blocks_of.select("mm", "block", "number", until="number"), on="until", by=["mm", "block"], check_sortedness=False)
        .get_column("number")
        .alias(f"number_{size}")
        for (size,), blocks_of in placed.group_by("size", maintain_order=True)
    ]
    last = pl.max_horizontal(found) if found else pl.lit(None, pl.Int64)
    return asked.select("row", number=last).sort("row")["number"]


def _blocks(first: Ints, end: Ints) -> pl.DataFrame:
    """The blocks of each range: `number` (its row), `size` (log2 of pages), `block` (the first page by the size)."""
    left, right, number = first.astype(np.int64), end.astype(np.int64), np.arange(len(first))
    parts: list[tuple[Ints, int, Ints]] = []
    size = 0
    while number.size:
        inside = left < right
        left, right, number = left[inside], right[inside], number[inside]
        begins = (left & 1) == 1
        parts.append((number[begins], size, left[begins]))
        left = left + begins
        ends = ((right & 1) == 1) & (left < right)
        parts.append((number[ends], size, right[ends] - 1))
        left, right, size = left >> 1, (right - ends) >> 1, size + 1
    columns = {
        "number": np.concatenate([np.zeros(0, np.int64), *(part[0] for part in parts)]),
        "size": np.concatenate([np.zeros(0, np.int64), *(np.full(len(part[0]), part[1]) for part in parts)]),
        "block": np.concatenate([np.zeros(0, np.int64), *(part[2] for part in parts)]),
    }
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Int64))
