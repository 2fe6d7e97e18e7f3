"""What kind of memory an address is in: heap, stack, a file or anonymous memory, as far as the trace tells."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from tracetool import schema
from tracetool.memory_events import Op
from tracetool.memory_events import codes as c
from tracetool.trace import Trace
from tracetool.where.maps import ancestors, maps
from tracetool.where.once import once
from tracetool.where.ranges import has

#: Where x86-64 puts the stack: within 16 GiB of the end of user memory, more than mappings come near where addresses are randomised
#: (arch/x86/mm/mmap.c, `mmap_base`, which leaves out `stack_maxrandom_size`); at its lowest, a stack of 8 MiB reaches down from there.
STACK_FROM: Final = 0x7FFC_0000_0000 - (8 << 20)
STACK_TO: Final = 0x8000_0000_0000


def areas(rows: pl.DataFrame, trace: Trace) -> pl.DataFrame:
    """The kind of memory of each `address` of the address space `mm` when the memory event `event` (null: the last) happened.

    Returns:
        one row a row: `area` (`schema.AREAS`) and `file` (String: the path of the file that is mapped there; null: none, or not told).

    heap: between the first and the last end of the heap that brk returned, or so in maps; stack: by MAP_STACK, or so in maps;
    by its position, where neither a call nor a record says what is there.
    file and anonymous: by the last mmap call over the address (moved by mremap, gone by munmap); else by what the last page fault there
    said of its area, with perf's records or trace-cmd's lists of maps for its name; else by those alone. unknown: nothing tells. What a
    parent had when it forked, its child has.

    Example:
        >>> import polars as pl, tracetool
        >>> trace = tracetool.open("fixtures/mail-6.1.dat")
        >>> areas(trace.replay().fault_rows.head(1).select("mm", "address", "event"), trace).rows()
        [('file', None)]
    """
    line = ancestors(rows["mm"].drop_nulls().unique(maintain_order=True), trace)
    asked = rows.select(pl.col("mm").cast(pl.Int32), pl.col("address").cast(pl.UInt64), pl.col("event").cast(pl.Int64))
    mapped = maps(trace).over(asked, line)
    told = asked.with_columns(
        *(mapped[name].alias(name) for name in ("told", "at", "area", "file")),
        *_faulted(asked, line, trace),
        _in_heap(asked, line, trace),
    ).with_columns(
        # What was there before is gone: an older fault tells nothing.
        faulted=pl.when((pl.col("told") == "gone") & (pl.col("fault_at") < pl.col("at"))).then(None).otherwise("faulted"),
    )
    called = (pl.col("told") == "call") & pl.col("area").is_not_null()
    says_otherwise = (pl.col("faulted") == "file") != (pl.col("area") == "file")
    area = (
        pl.when("in_heap")
        .then(pl.lit("heap"))
        .when(called)
        .then("area")
        .when(pl.col("address").is_between(STACK_FROM, STACK_TO, closed="left") & pl.col("area").is_null())
        .then(pl.lit("stack"))
        .when(says_otherwise)
        .then("faulted")
        .otherwise(pl.coalesce("area", "faulted", pl.lit("unknown")))
    )
    found = told.with_columns(kind=area)
    return found.select(area="kind", file=pl.when((pl.col("kind") == "file") & (pl.col("area") == "file")).then("file"))


def _faulted(asked: pl.DataFrame, line: pl.DataFrame, trace: Trace) -> list[pl.Series]:
    """What the last fault on each page said of its area, `faulted` (file: it has operations of its own, `vm_ops`; else anonymous), and the
    memory event of that fault, `fault_at`.
    """
    events = trace.history.events
    known = has(trace, "mm_fault", "vm_ops")
    at = np.flatnonzero((events.op == int(Op.FAULT)) & (events.mm >= 0)) if known else np.zeros(0, np.int64)
    faults = pl.DataFrame(
        {
            "ancestor": events.mm[at],
            "page": events.address[at] >> schema.PAGE_SHIFT,
            "until": at,
            "anonymous": events.flags[at] & c.ANON_AREA != 0,
        }
    ).cast({"ancestor": pl.Int32, "page": pl.Int64, "until": pl.Int64})
    points = asked.with_row_index("row").select(
        "row", "mm", page=(pl.col("address") // schema.PAGE_SIZE).cast(pl.Int64), event=pl.col("event").fill_null(len(events))
    )
    last = (
        points.join(line, on="mm", how="left", maintain_order="left")
        .with_columns(until=pl.min_horizontal("event", "until"))
        .sort("until", maintain_order=True)
        .join_asof(faults.with_columns(fault_at="until"), on="until", by=["ancestor", "page"], check_sortedness=False)
        .sort("row", "fault_at", nulls_last=False)
        .group_by("row", maintain_order=True)
        .agg(pl.col("anonymous").last(), pl.col("fault_at").last())
    )
    kind = pl.when("anonymous").then(pl.lit("anonymous")).when(~pl.col("anonymous")).then(pl.lit("file"))
    return last.select(kind.alias("faulted"), "fault_at").get_columns()


def _in_heap(asked: pl.DataFrame, line: pl.DataFrame, trace: Trace) -> pl.Series:
    """Whether each address is in the heap of its address space or one that it was forked from, as brk returned it."""
    heaps = line.join(_heaps(trace), left_on="ancestor", right_on="mm", how="inner")
    heaps = heaps.group_by("mm").agg(pl.col("low").min(), pl.col("high").max())
    found = asked.join(heaps, on="mm", how="left", maintain_order="left")
    inside = pl.col("address").is_between(pl.col("low"), pl.col("high"), closed="left").fill_null(False)
    return found.select(in_heap=inside)["in_heap"]


@once
def _heaps(trace: Trace) -> pl.DataFrame:
    """From where to where the heap of each address space reached, as brk returned it: `mm`, `low`, `high`."""
    empty = pl.DataFrame(schema={"mm": pl.Int32, "low": pl.UInt64, "high": pl.UInt64})
    if not trace.raw.counts().get("sys_exit_brk"):
        return empty
    ends = pl.from_arrow(trace.raw.table("sys_exit_brk", ["ret"]).select(["ts", "tid", "ret"]))
    assert isinstance(ends, pl.DataFrame)
    if not ends.schema["ret"].is_integer():
        return empty
    threads = trace.processes.select("tid", "mm", pl.col("from_ns").alias("ts")).sort("ts", maintain_order=True)
    return (
        ends.filter(pl.col("ret") > 0)
        .sort("ts", maintain_order=True)
        .join_asof(threads, on="ts", by="tid", check_sortedness=False)
        .filter(pl.col("mm") >= 0)
        .group_by("mm")
        .agg(low=pl.col("ret").min().cast(pl.UInt64), high=pl.col("ret").max().cast(pl.UInt64))
    )
