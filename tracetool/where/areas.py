"""What kind of memory an address is in: heap, stack or mapping, as far as the calls that made it are in the trace."""

from __future__ import annotations

from typing import Final

import polars as pl

from tracetool import schema
from tracetool.memory_events import Op
from tracetool.trace import Trace

#: Where x86-64 puts the stack: within 16 GiB of the end of user memory, more than any mapping comes near (arch/x86/mm/mmap.c,
#: `mmap_base`, which leaves out `stack_maxrandom_size`); at its lowest, a stack of 8 MiB reaches down from there.
STACK_FROM: Final = 0x7FFC_0000_0000 - (8 << 20)
STACK_TO: Final = 0x8000_0000_0000


def areas(rows: pl.DataFrame, trace: Trace) -> pl.Series:
    """The kind of memory (`schema.AREAS`) of each `address` of the address space `mm`, as a series `area`.

    heap: between the first and the last end of the heap that brk returned; mapping: mmap or mremap gave it; stack: by its position;
    anonymous: made before the trace, or the calls were not recorded. What a parent made before it forked is its child's, too.
    """
    asked = rows.select("mm", "address").unique(maintain_order=True)
    pairs = _ancestors(asked["mm"].unique(maintain_order=True), trace)
    heaps = pairs.join(_heaps(trace), left_on="ancestor", right_on="mm", how="inner")
    heaps = heaps.group_by("mm").agg(pl.col("low").min(), pl.col("high").max())
    told = (
        asked.join(pairs, on="mm", how="left", maintain_order="left")
        .sort("address", maintain_order=True)
        .join_asof(_mappings(trace), left_on="address", right_on="start", by_left="ancestor", by_right="mm", check_sortedness=False)
        .group_by("mm", "address", maintain_order=True)
        .agg(mapped=(pl.col("address") < pl.col("end")).any())
        .join(heaps, on="mm", how="left", maintain_order="left")
        .select(
            "mm",
            "address",
            area=pl.when(pl.col("address").is_between(pl.col("low"), pl.col("high"), closed="left"))
            .then(pl.lit("heap"))
            .when(pl.col("address").is_between(STACK_FROM, STACK_TO, closed="left"))
            .then(pl.lit("stack"))
            .when(pl.col("mapped"))
            .then(pl.lit("mapping"))
            .otherwise(pl.lit("anonymous")),
        )
    )
    return rows.select("mm", "address").join(told, on=["mm", "address"], how="left", maintain_order="left")["area"]


def _ancestors(spaces: pl.Series, trace: Trace) -> pl.DataFrame:
    """Each address space with itself and those that it was forked from: `mm`, `ancestor`."""
    events = trace.history.events
    forks = (events.op == int(Op.FORK)) | (events.op == int(Op.FORK_RANGE))
    parents = pl.DataFrame({"ancestor": events.mm[forks], "parent": events.arg[forks]}).unique().filter(pl.col("parent") >= 0)
    parents = parents.select(pl.col("ancestor").cast(pl.Int32), pl.col("parent").cast(pl.Int32))
    pairs = last = pl.DataFrame({"mm": spaces, "ancestor": spaces})
    while last.height:
        last = last.join(parents, on="ancestor", how="inner").select("mm", ancestor="parent").unique()
        last = last.join(pairs, on=["mm", "ancestor"], how="anti")
        pairs = pl.concat([pairs, last])
    return pairs


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


def _mappings(trace: Trace) -> pl.DataFrame:
    """What mmap and mremap gave each address space, by `start`: `mm`, `start`, and the furthest `end` of all that start no later."""
    events = trace.history.events
    made, moved = events.op == int(Op.MMAP), (events.op == int(Op.MREMAP)) & (events.flags > 0)
    parts = [
        pl.DataFrame({"mm": events.mm[made], "start": events.address[made], "pages": events.pages[made]}),
        pl.DataFrame({"mm": events.mm[moved], "start": events.arg[moved], "pages": events.flags[moved]}),
    ]
    return (
        pl.concat([part.cast({"mm": pl.Int32, "start": pl.Int64, "pages": pl.Int64}) for part in parts])
        .filter(pl.col("start") >= 0, pl.col("pages") > 0)
        .sort("start", maintain_order=True)
        .select(
            "mm",
            pl.col("start").cast(pl.UInt64),
            end=(pl.col("start") + pl.col("pages") * schema.PAGE_SIZE).cum_max().over("mm").cast(pl.UInt64, strict=False),
        )
    )
