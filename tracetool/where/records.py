"""Maps by name: perf's records of what programs mapped, and the lists of maps that trace-cmd keeps of processes."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from tracetool import schema
from tracetool.trace import Trace
from tracetool.where.ranges import RANGE, area_of, file_of, has, ranges

_FIELDS: Final = ("pid", "addr", "len", "pgoff", "filename")
_NUMBERS: Final = _FIELDS[:-1]


def records(trace: Trace) -> pl.DataFrame:
    """PERF_RECORD_MMAP and MMAP2 of programs as ranges, in the order of time; without `perf record -d` only of code."""
    parts = [table for name in ("mmap", "mmap2") if (table := _table(trace, name, _FIELDS)) is not None]
    if not parts:
        return pl.DataFrame(schema=RANGE)
    rows = pl.concat(parts).filter(pl.col("pid") >= 0, pl.col("addr") < 1 << 57, pl.col("len") < 1 << 57)
    clock = trace.history.events.ts
    at = np.searchsorted(np.maximum.accumulate(clock) if len(clock) else clock, rows["ts"].to_numpy(), side="right") - 1
    page, address, length = schema.PAGE_SIZE, pl.col("addr").cast(pl.Int64), pl.col("len").cast(pl.Int64)
    named = rows.select(
        pl.lit("record").alias("told"),
        area_of("filename"),
        file_of("filename"),
        _space_at(rows, trace).alias("mm"),
        pl.Series("at", at, dtype=pl.Int64),
        first=address // page,
        pages=(length + page - 1) // page,
        offset=pl.when(file_of("filename").is_not_null()).then(pl.col("pgoff").cast(pl.Int64, strict=False)),
    )
    return ranges(named).sort("at", maintain_order=True)


def lists(trace: Trace) -> pl.DataFrame:
    """The maps of processes that trace-cmd listed (option PROCMAPS, when each ended), as ranges of the address space that it had last."""
    told = [(each.pid, begin, end, file) for each in trace.raw.metadata.maps for begin, end, file in each.maps if begin < end <= 1 << 57]
    told = [each for each in told if 0 <= each[0] < 1 << 31]  # another number is that of no process
    if not told:
        return pl.DataFrame(schema=RANGE)
    rows = pl.DataFrame(told, schema={"pid": pl.Int32, "begin": pl.Int64, "until": pl.Int64, "name": pl.String}, orient="row")
    last = trace.processes.filter(pl.col("mm") >= 0).sort("from_ns", maintain_order=True).group_by("pid").agg(pl.col("mm").last())
    page = schema.PAGE_SIZE
    named = rows.join(last, on="pid", how="inner", maintain_order="left").select(
        pl.lit("list").alias("told"),
        area_of("name"),
        file_of("name"),
        "mm",
        at=pl.lit(-1, pl.Int64),
        first=pl.col("begin") // page,
        pages=(pl.col("until") - pl.col("begin") + page - 1) // page,
        base=pl.when(file_of("name").is_not_null()).then(pl.col("begin").min().over("pid", "name")),
    )
    return ranges(named)


def _table(trace: Trace, name: str, wanted: tuple[str, ...]) -> pl.DataFrame | None:
    """Fields of a record of perf; None: it has none such, or they are not of the kind that is expected."""
    if not has(trace, name, *wanted) or trace.raw.formats()[name].system != "perf":
        return None
    read = pl.from_arrow(trace.raw.table(name, list(wanted)).select(["ts", *wanted]))
    assert isinstance(read, pl.DataFrame)
    numbers = [field for field in wanted if field in _NUMBERS]
    if not all(read.schema[field].is_integer() for field in numbers):
        return None
    kinds = {field: pl.Int64 if field == "pid" else pl.UInt64 for field in numbers}
    return read.with_columns(pl.col(field).cast(kind, strict=False) for field, kind in kinds.items()).drop_nulls()


def _space_at(rows: pl.DataFrame, trace: Trace) -> pl.Series:
    """The address space of each process (`pid`) at a time (`ts`); null: not known.

    The trace's own events show the new address space of an exec when it first faults; perf's records of its maps come before that, and
    after the record of its new name. What perf makes up of the time before it began has the time 0.
    """
    lives = trace.processes.filter(pl.col("mm") >= 0).sort("from_ns", maintain_order=True)
    changes = lives.filter((pl.col("mm") != pl.col("mm").shift(1)).over("pid").fill_null(True)).select(
        pl.col("pid").cast(pl.Int64), ts="from_ns", space="mm", older=(pl.col("how") == "mm").over("pid")
    )
    changes = changes.sort("ts", maintain_order=True)
    named = _table(trace, "comm", ("pid", "exec")) if has(trace, "comm", "pid", "exec") else None
    if named is not None:
        execs = named.filter(pl.col("exec").cast(pl.Int64) != 0, pl.col("ts") > 0).select("pid", "ts").sort("ts", maintain_order=True)
        following = changes.select("pid", "ts", "space", change="ts")
        execs = execs.join_asof(following, on="ts", by="pid", strategy="forward", check_sortedness=False).drop_nulls("change")
        # Of two before one change the last is the one that made it; nothing is known of what the other made.
        is_last = pl.col("ts") == pl.col("ts").max().over("pid", "change")
        begun = execs.select("pid", "ts", space=pl.when(is_last).then("space"), older=pl.lit(False))
        changes = pl.concat([changes, begun.cast(changes.schema)]).sort("ts", maintain_order=True)
    first = changes.group_by("pid", maintain_order=True).first().filter("older").select("pid", before="space")
    asked = rows.select("pid", "ts").with_row_index("row").sort("ts", maintain_order=True)
    found = asked.join_asof(changes.with_columns(since="ts"), on="ts", by="pid", check_sortedness=False).join(first, on="pid", how="left")
    known = found.select("row", space=pl.when(pl.col("since").is_null()).then("before").otherwise("space"))
    return known.sort("row")["space"].cast(pl.Int32)
