"""Which instruction a store came from: the place within its page of code, which the random layout of address spaces leaves as it is."""

from __future__ import annotations

from typing import Final

import polars as pl

from tracetool import schema
from tracetool.memory_events import Op
from tracetool.memory_events import codes as c
from tracetool.trace import Trace
from tracetool.where.once import once
from tracetool.where.ranges import has

#: What only kernel code does.
_BY_KERNEL: Final = (Op.GUP, Op.REF_GET, Op.FORK, Op.FORK_RANGE)
_FAULTS: Final = (Op.FAULT, Op.COW_BEGIN)
#: Every place in a page as it is written.
_OFFSETS: Final = pl.DataFrame(
    {"offset": range(schema.PAGE_SIZE), "site": [f"{offset:03x}" for offset in range(schema.PAGE_SIZE)]},
    schema={"offset": pl.UInt64, "site": pl.String},
)


def call_sites(acts: pl.Series, trace: Trace) -> pl.Series:
    """Of each memory event (a row number, or null) the call site, as a series `call_site`.

    A fault of a program: the low 12 bits of the instruction pointer as three hexadecimal digits. What kernel code did (GUP, fork,
    copy_to_user): `kernel`. Else, and where `page_fault_user` was not recorded, `unknown`.
    """
    told = instructions(acts, trace)
    sites = told.with_columns(offset=pl.col("ip") % schema.PAGE_SIZE).join(_OFFSETS, on="offset", how="left", maintain_order="left")
    return sites.select(call_site=pl.when("kernel").then(pl.lit("kernel")).otherwise(pl.col("site").fill_null("unknown")))["call_site"]


def instructions(acts: pl.Series, trace: Trace) -> pl.DataFrame:
    """Of each memory event (a row number, or null) whether kernel code did it (`kernel`) and the instruction pointer of the fault of a
    program (`ip` UInt64), from the `page_fault_user` that the same thread had last, if it was for the same page; null where none tells.
    """
    events = trace.history.events
    rows = pl.DataFrame({"act": acts.cast(pl.Int64)})
    at = acts.drop_nulls().unique().to_numpy()
    told = pl.DataFrame(
        {
            "act": pl.Series(at, dtype=pl.Int64),
            "ts": events.ts[at],
            "tid": events.tid[at],
            "page": (events.address[at] >> schema.PAGE_SHIFT).astype("uint64"),
            "op": events.op[at],
            "user": events.flags[at] & c.USER != 0,
        }
    )
    faults = pl.col("op").is_in([int(op) for op in _FAULTS])
    by_kernel = pl.col("op").is_in([int(op) for op in _BY_KERNEL]) | (faults & ~pl.col("user"))
    told = told.with_columns(kernel=by_kernel).join(_instructions(told.filter(faults, pl.col("user")), trace), on="act", how="left")
    found = rows.join(told.select("act", "kernel", "ip"), on="act", how="left", maintain_order="left")
    return found.select(pl.col("kernel").fill_null(False), "ip")


def _instructions(faults: pl.DataFrame, trace: Trace) -> pl.DataFrame:
    """The instructions of faults of programs (`act`, `ts`, `tid`, `page`) that page_fault_user tells of: `act`, `ip`."""
    recorded = _recorded(trace)
    if not faults.height or not recorded.height:
        return pl.DataFrame(schema={"act": pl.Int64, "ip": pl.UInt64})
    taken = recorded.filter(pl.col("tid").is_in(faults["tid"].unique().implode()))
    ordered = faults.sort("ts", maintain_order=True)
    last = ordered.join_asof(taken.select("tid", "ts", "taken"), on="ts", by="tid", check_sortedness=False)
    return (
        last.rename({"taken": "last"})
        .join_asof(taken.select("tid", "ts", "page", "ip", "taken"), on="ts", by=["tid", "page"], check_sortedness=False)
        # A thread is in one fault at a time: an earlier one for the page is another.
        .filter(pl.col("taken") == pl.col("last"))
        .select("act", pl.col("ip").cast(pl.UInt64))
    )


@once
def _recorded(trace: Trace) -> pl.DataFrame:
    """Every page_fault_user, by time: `tid`, `ts`, `ip`, `page`, `taken` (its time again)."""
    empty = pl.DataFrame(schema={"tid": pl.Int32, "ts": pl.Int64, "ip": pl.UInt64, "page": pl.UInt64, "taken": pl.Int64})
    if not has(trace, "page_fault_user", "address", "ip"):
        return empty
    read = pl.from_arrow(trace.raw.table("page_fault_user", ["address", "ip"]).select(["ts", "tid", "address", "ip"]))
    assert isinstance(read, pl.DataFrame)
    if not (read.schema["address"].is_integer() and read.schema["ip"].is_integer()):
        return empty
    ordered = read.sort("ts", maintain_order=True)
    return ordered.select("tid", "ts", "ip", page=pl.col("address").cast(pl.UInt64) // schema.PAGE_SIZE, taken="ts")
