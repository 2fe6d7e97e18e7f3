"""Threads, processes and address spaces over time: which thread is which process, by what name, on which memory."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from tracetool import schema
from tracetool.memory_events import EventSource, MemoryEvents
from tracetool.memory_events import codes as c
from tracetool.memory_events.columns import column_of
from tracetool.memory_events.state import K_HOW, K_MM, K_PARENT, K_TGID, K_THREAD

#: Programs that record traces: older than any trace of theirs, and not what it was recorded for.
RECORDERS: Final = ("trace-cmd", "perf")

#: Event -> the fields with the new name and the former one. An event's own field `comm` is called `comm_field` in its table.
_NAMED_BY = {"task_newtask": ("comm_field", ""), "task_rename": ("newcomm", "oldcomm")}


def processes(events: MemoryEvents, source: EventSource) -> pl.DataFrame:
    """One row a stretch of a thread's life in which process, name and address space stay the same (`schema.PROCESSES`).

    Names come from task_newtask and task_rename, else from perf's COMM records, else from the trace's saved command lines (the `comm`
    column of its events). Of a thread older than the trace the process is told by perf's records or by a text's column of them; where
    nothing does, it counts as its own. A thread keeps its last name when it ends; numbers come back, so a row is keyed by `tid` and
    `from_ns`.
    """
    tasks = events.tasks
    if not len(tasks):
        return pl.DataFrame(schema=schema.polars_schema(schema.PROCESSES))
    frame = pl.DataFrame(
        {
            "tid": events.tids[tasks[:, K_THREAD]].astype(np.int32),
            "pid": tasks[:, K_TGID].astype(np.int32),
            "mm": tasks[:, K_MM].astype(np.int32),
            "parent": np.where(tasks[:, K_PARENT] >= 0, events.tids[np.maximum(tasks[:, K_PARENT], 0)], -1).astype(np.int32),
            "how": pl.Series(tasks[:, K_HOW].astype(np.int32)),
            "from_ns": events.task_ts,
            "order": np.arange(len(tasks)),
        }
    )
    names = _names(source)
    frame = (
        frame.sort("from_ns", "order", maintain_order=True)
        .join(names, on=["tid", "from_ns"], how="left")
        .unique("order", keep="last", maintain_order=True)
        .sort("order")
        .with_columns(life=pl.col("how").is_in([c.HOW_BEFORE, c.HOW_FORK, c.HOW_THREAD]).cum_sum().over("tid"))
        .with_columns(
            comm=pl.coalesce(pl.col("comm").forward_fill().over("tid", "life"), pl.col("former").backward_fill().over("tid", "life")),
            parent=pl.col("parent").first().over("tid", "life"),
            to_ns=pl.col("from_ns").shift(-1).over("tid", "life"),
        )
        .filter(pl.col("how") != c.HOW_EXIT)
        .join_asof(_perf_names(source), left_on="from_ns", right_on="_named", by="tid", strategy="backward", check_sortedness=False)
        .join(_saved_names(source), on="tid", how="left")
        .with_columns(
            comm=pl.coalesce("comm", "_perf", "saved", pl.lit("<...>")),
            pid=_of_older(frame, source),
            parent=pl.when(pl.col("parent") >= 0).then("parent"),
            how=pl.col("how").replace_strict(dict(enumerate(c.HOW)), return_dtype=pl.String),
        )
    )
    return frame.select(list(schema.PROCESSES))


def owners(table: pl.DataFrame) -> pl.DataFrame:
    """The process of each address space: `mm`, `pid`; the first that ran on it (vfork and CLONE_VM share it later on)."""
    return (
        table.filter(pl.col("mm") >= 0).sort("from_ns", maintain_order=True).group_by("mm", maintain_order=True).agg(pl.col("pid").first())
    )


def process_at(frame: pl.DataFrame, processes: pl.DataFrame) -> pl.Series:
    """The process (tgid) of thread `tid` at time `from_ns`."""
    spans = processes.select("tid", pl.col("from_ns").alias("_from"), "pid").sort("_from", maintain_order=True)
    return (
        frame.with_row_index("_row")
        .sort("from_ns", maintain_order=True)
        .join_asof(spans, left_on="from_ns", right_on="_from", by="tid", strategy="backward", check_sortedness=False)
        .sort("_row")["pid"]
    )


def with_names(frame: pl.DataFrame, table: pl.DataFrame, at: str, pid: str = "pid", comm: str = "comm") -> pl.DataFrame:
    """Add the name that process `pid` had at time `at` (its first name, if that is before it was named); null where unknown."""
    names = (
        table.filter(pl.col("tid") == pl.col("pid"))
        .select(pl.col("pid").alias(pid), pl.col("from_ns").alias("_named"), pl.col("comm").alias(comm))
        .sort("_named", maintain_order=True)
    )
    first = names.group_by(pid, maintain_order=True).agg(pl.col(comm).first().alias("_first"))
    return (
        frame.with_row_index("_row")
        .with_columns(_at=pl.col(at).fill_null(np.iinfo(np.int64).min))
        .sort("_at", maintain_order=True)
        .join_asof(names, left_on="_at", right_on="_named", by=pid, strategy="backward", check_sortedness=False)
        .join(first, on=pid, how="left")
        .with_columns(pl.coalesce(comm, "_first").alias(comm))
        .sort("_row")
        .drop("_row", "_at", "_named", "_first", strict=False)
    )


def _names(source: EventSource) -> pl.DataFrame:
    """Every time a thread gets a name: tid, from_ns, comm, and the name that it had before, where the event says so."""
    counts = source.counts()
    parts = [pl.DataFrame(schema={"tid": pl.Int32, "from_ns": pl.Int64, "comm": pl.String, "former": pl.String})]
    for event, (new, former) in _NAMED_BY.items():
        if counts.get(event):
            table = source.table(event, ["pid", *filter(None, (new, former))])
            columns = {
                "tid": np.asarray(column_of(table, "pid", event)).astype(np.int32),
                "from_ns": table.column("ts").to_numpy(),
                "comm": table.column(new).to_pylist(),
                "former": pl.Series(table.column(former).to_pylist() if former else [None] * table.num_rows, dtype=pl.String),
            }
            parts.append(pl.DataFrame(columns))
    return pl.concat(parts).unique(["tid", "from_ns"], keep="last", maintain_order=True)


def _perf_names(source: EventSource) -> pl.DataFrame:
    """Every name that a record of perf gives a thread, those of before the recording at time 0: tid, _named, _perf."""
    frame = pl.DataFrame(schema={"tid": pl.Int32, "_named": pl.Int64, "_perf": pl.String})
    if _has_records(source, "comm", "comm_field"):
        table = source.table("comm", ["tid_field", "comm_field"])
        columns = {"tid": "tid_field", "_named": "ts", "_perf": "comm_field"}
        read = pl.DataFrame({name: pl.Series(table.column(column).to_pylist()) for name, column in columns.items()})
        frame = pl.concat([frame, read.cast(frame.schema)])
    return frame.sort("_named", maintain_order=True)


def _of_older(tasks: pl.DataFrame, source: EventSource) -> pl.Expr:
    """The process of each row: that of a thread older than the trace where something tells it, also for the threads that it made."""
    told: dict[int, int] = {}
    if _has_records(source, "comm", "comm_field"):
        table = source.table("comm", ["pid", "tid_field"])
        told = dict(zip(reversed(table.column("tid_field").to_pylist()), reversed(table.column("pid").to_pylist()), strict=True))
    elif _may_name_processes(source) and source.counts().get("mm_fault"):
        table = source.table("mm_fault", [])
        if "tgid" in table.column_names:
            rows = pl.from_arrow(table.select(["tid", "tgid"]))
            assert isinstance(rows, pl.DataFrame)
            told = dict(rows.unique("tid", keep="last", maintain_order=True).iter_rows())
    older = tasks.filter(pl.col("how") == c.HOW_BEFORE)["tid"].unique().to_list()
    known = {tid: told[tid] for tid in older if told.get(tid)}
    return pl.col("pid").replace(known).cast(pl.Int32) if known else pl.col("pid")


def _may_name_processes(source: EventSource) -> bool:
    """Whether records can have a column of the process: those of a trace.dat have none, and looking would read all of it once more."""
    form = str(getattr(getattr(source, "metadata", None), "format", ""))
    return not form.startswith("trace.dat") or "text" in form


def _has_records(source: EventSource, event: str, column: str) -> bool:
    """Whether perf's own records are among the events: others may have an event of that name."""
    return bool(source.counts().get(event)) and any(field.column == column for field in source.formats()[event].fields)


def _saved_names(source: EventSource) -> pl.DataFrame:
    """The name that the trace's saved command lines give a thread: one for the whole trace, so only for what nothing else names."""
    metadata = getattr(source, "metadata", None)
    saved = dict(getattr(metadata, "cmdlines", None) or {})
    return pl.DataFrame({"tid": list(saved), "saved": list(saved.values())}, schema={"tid": pl.Int32, "saved": pl.String})
