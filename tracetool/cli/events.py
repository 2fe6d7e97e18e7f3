"""`tracetool events`: the records of a trace, raw or as memory events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tracetool.cli.app import TraceFile
from tracetool.cli.output import ForceOption, Format, FormatOption, OutputOption, write_table
from tracetool.errors import Unusable

if TYPE_CHECKING:
    import polars as pl

    from tracetool.trace import Trace


def run(
    trace: TraceFile,
    event: Annotated[
        str | None, typer.Option("--event", metavar="NAME", help="Only this event, a column a field.", show_default=False)
    ] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Memory events: what happened to which page.")] = False,
    form: FormatOption = Format.text,
    output: OutputOption = "-",
    force: ForceOption = False,
) -> None:
    """The events of a trace in their order: all (with their fields as JSON), one kind (a column a field), or memory events.

    Example: tracetool events trace.dat --event cow_fault --format csv
    """
    if event and memory:
        raise Unusable("--event and --memory exclude each other", hint="memory events are of many kinds: filter their column `op`")
    from tracetool.trace import open as open_trace

    opened = open_trace(trace)
    if memory:
        frame = opened.memory_events().collect()
    elif event:
        frame = opened.events(event).collect()
    else:
        frame = _all(opened)
    write_table(frame, form, output, force)


def _all(trace: Trace) -> pl.DataFrame:
    """Every event: ts, cpu, tid, comm, event, fields (a JSON object)."""
    import polars as pl

    head = ("ts", "cpu", "tid", "comm", "buffer")
    parts = []
    for name in trace.raw.event_names():
        frame = trace.events(name).collect().with_columns(pl.col("comm").cast(pl.String))
        own = [column for column in frame.columns if column not in head]
        fields = pl.struct(own).struct.json_encode() if own else pl.lit("{}")
        position = pl.Series("position", trace.raw.positions(name))
        parts.append(frame.select("ts", "cpu", "tid", "comm", event=pl.lit(name), fields=fields).with_columns(position))
    empty = {
        "ts": pl.Int64,
        "cpu": pl.Int32,
        "tid": pl.Int32,
        "comm": pl.String,
        "event": pl.String,
        "fields": pl.String,
        "position": pl.Int64,
    }
    return pl.concat([pl.DataFrame(schema=empty), *parts]).sort("position").drop("position")
