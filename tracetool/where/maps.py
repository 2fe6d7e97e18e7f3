"""What was mapped where: from mmap, munmap and mremap calls, from perf's records of maps, and from lists of a process' maps.

    calls, records --ranges--> one list in the order of time --covering--> the last range over an address at a moment

A call and a record tell when; a list (trace-cmd's PROCMAPS) does not: it is asked only where the others say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from tracetool import schema
from tracetool.memory_events import Op
from tracetool.trace import Trace
from tracetool.where.covering import last_over
from tracetool.where.once import once
from tracetool.where.ranges import has, ranges
from tracetool.where.records import lists, records

#: include/uapi/asm-generic/mman-common.h, mman.h
MAP_ANONYMOUS, MAP_STACK = 0x20, 0x20000
#: What happens at one moment: what was there goes, what comes is there, and perf's record of it is the same.
_ORDER: Final = ("gone", "call", "record")
#: From how many forks away memory is known to be inherited.
GENERATIONS: Final = 64
_EVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Maps:
    """Ranges (`ranges.RANGE`) of a trace: `timed` in the order of time, `listed` as some moment had them."""

    timed: pl.DataFrame
    listed: pl.DataFrame

    def over(self, rows: pl.DataFrame, line: pl.DataFrame) -> pl.DataFrame:
        """The last range over each `address` of `mm` by the memory event `event` (null: the end), a row a row; nulls where none is.

        `line` is what `ancestors` gives of these address spaces: what a parent had when it forked, its child has.
        """
        points = rows.select("mm", page=pl.col("address") // schema.PAGE_SIZE, until=pl.col("event").cast(pl.Int64).fill_null(_EVER))
        timed = _gathered(self.timed, _looked_up(self.timed, points, line))
        # Of a list nobody knows when it was so.
        always = line.with_columns(until=pl.lit(_EVER, pl.Int64))
        listed = _gathered(self.listed, _looked_up(self.listed, points, always))
        untold = timed["told"].is_null()
        return timed.select(pl.when(untold).then(listed[name]).otherwise(timed[name]).alias(name) for name in timed.columns)


@once
def maps(trace: Trace) -> Maps:
    """The ranges of a trace; worked out once."""
    order = pl.col("told").replace_strict(_ORDER, range(len(_ORDER)), return_dtype=pl.Int8)
    timed = pl.concat([_calls(trace), records(trace)]).sort("at", order, maintain_order=True)
    return Maps(_named(_moved(timed, trace)), lists(trace))


def ancestors(spaces: pl.Series, trace: Trace) -> pl.DataFrame:
    """Each address space with itself and those that it was forked from: `mm`, `ancestor`, and `until` which memory event what is told of
    the ancestor is so of the address space, too. Those further than GENERATIONS forks away are left out: a chain of forks without exec,
    each by the child of the one before, would have as many pairs as its length squared.
    """
    events = trace.history.events
    forked = np.isin(events.op, [int(Op.FORK), int(Op.FORK_RANGE)])
    at = np.flatnonzero(forked & (events.arg >= 0) & (events.arg != events.mm))
    forks = pl.DataFrame({"ancestor": events.mm[at], "parent": events.arg[at], "forked": at})
    parents = (
        forks.cast({"ancestor": pl.Int32, "parent": pl.Int32, "forked": pl.Int64}).group_by("ancestor", "parent").agg(pl.min("forked"))
    )
    end = pl.lit(_EVER, pl.Int64)
    pairs = last = pl.DataFrame({"mm": spaces, "ancestor": spaces}, schema={"mm": pl.Int32, "ancestor": pl.Int32}).with_columns(until=end)
    for _ in range(GENERATIONS):
        if not last.height:
            break
        last = last.join(parents, on="ancestor", how="inner").select("mm", ancestor="parent", until=pl.min_horizontal("until", "forked"))
        last = last.unique(["mm", "ancestor"]).join(pairs, on=["mm", "ancestor"], how="anti")
        pairs = pl.concat([pairs, last])
    return pairs


def _looked_up(ranges: pl.DataFrame, points: pl.DataFrame, line: pl.DataFrame) -> pl.Series:
    """The number of the last range over each point (`mm`, `page`, `until`: a memory event), its ancestors' among them."""
    at = ranges["at"].to_numpy()
    asked = points.with_row_index("row").join(line, on="mm", how="left", maintain_order="left", suffix="_line")
    until = asked.select(pl.min_horizontal("until", "until_line")).to_series().to_numpy()
    bounded = asked.select("row", "page", mm="ancestor", until=pl.Series(np.searchsorted(at, until, side="right") - 1, dtype=pl.Int64))
    found = bounded.select("row").with_columns(number=last_over(bounded, ranges))
    return found.group_by("row", maintain_order=True).agg(pl.max("number"))["number"]


def _gathered(rows: pl.DataFrame, numbers: pl.Series) -> pl.DataFrame:
    """The rows of these numbers; nulls for null."""
    return rows.select(pl.all().gather(numbers)) if rows.height else rows.clear(len(numbers))


# --- system calls ---------------------------------------------------------------------------------------------------------------------


def _calls(trace: Trace) -> pl.DataFrame:
    """What mmap and mremap made, and what munmap and mremap took away."""
    events = trace.history.events
    table = pl.DataFrame({"mm": events.mm, "start": events.address, "pages": events.pages, "flags": events.flags, "arg": events.arg})
    table = table.cast({"flags": pl.Int64, "arg": pl.Int64}).with_row_index("at")
    made, gone, moved = (table.filter(events.op == int(op)) for op in (Op.MMAP, Op.MUNMAP, Op.MREMAP))
    moved = moved.filter(pl.col("flags") > 0)
    asked = (
        pl.when(pl.col("arg") & MAP_STACK != 0)
        .then(pl.lit("stack"))
        .when(pl.col("arg") & MAP_ANONYMOUS != 0)
        .then(pl.lit("anonymous"))
        .otherwise(pl.lit("file"))
    )
    area = asked if has(trace, "sys_enter_mmap", "flags") else pl.lit(None, pl.String)
    page = schema.PAGE_SIZE
    return pl.concat(
        [
            ranges(made.select("mm", "at", pl.lit("call").alias("told"), area.alias("area"), first=pl.col("start") // page, pages="pages")),
            *(
                ranges(each.select("mm", "at", pl.lit("gone").alias("told"), first=pl.col("start") // page, pages="pages"))
                for each in (gone, moved.filter(pl.col("arg") != pl.col("start")))
            ),
            ranges(
                moved.select(
                    "mm", "at", pl.lit("call").alias("told"), first=pl.col("arg") // page, pages="flags", moved_from=pl.col("start") // page
                )
            ),
        ]
    )


def _moved(timed: pl.DataFrame, trace: Trace) -> pl.DataFrame:
    """With what each move of mremap moved: the area and file that its old place had before."""
    moves = timed.with_row_index("number").filter(pl.col("moved_from").is_not_null())
    if not moves.height:
        return timed
    points = moves.select("mm", page="moved_from", until=pl.col("at") - 1)
    before = _looked_up(timed, points, ancestors(moves["mm"].unique(), trace)).fill_null(-1).to_numpy()
    origin = np.arange(timed.height)
    origin[moves["number"].to_numpy()] = before
    # What was moved may have been moved there: each round follows twice as many moves.
    while True:
        further = np.where(origin >= 0, origin[origin], -1)
        if (further == origin).all():
            break
        origin = further
    sources = _gathered(timed, pl.Series(origin, dtype=pl.Int64).set(pl.Series(origin < 0), None))
    is_move = pl.col("moved_from").is_not_null()
    return timed.with_columns(pl.when(is_move).then(sources[name]).otherwise(name).alias(name) for name in ("area", "file"))


def _named(timed: pl.DataFrame) -> pl.DataFrame:
    """With the file of an mmap call where perf's record of the same range came just before the call returned."""
    same = ("mm", "first", "end")
    recorded = (pl.col("told").shift(1) == "record").over(same)
    of = {name: pl.col(name).shift(1).over(same) for name in ("file", "offset", "base")}
    takes = (pl.col("told") == "call") & (pl.col("area") == "file") & pl.col("file").is_null() & recorded
    return timed.with_columns(pl.when(takes).then(source).otherwise(name).alias(name) for name, source in of.items())
