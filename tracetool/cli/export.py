"""`tracetool export`: a trace as one file that other programs read."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from tracetool.cli.app import InputFormatOption, StrictOption, TraceFile, opened
from tracetool.cli.output import ForceOption, writable
from tracetool.errors import Unusable


class Target(StrEnum):
    """What a trace is exported to."""

    parquet = "parquet"
    arrow = "arrow"


def run(
    trace: TraceFile,
    to: Annotated[Target, typer.Option("--to", help="The format of the file.", show_default=False)],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="Where to write it; - is standard output.", show_default=False)
    ],
    event: Annotated[
        list[str] | None, typer.Option("--event", metavar="NAME", help="Only this event (repeatable).", show_default=False)
    ] = None,
    force: ForceOption = False,
    input_format: InputFormatOption = None,
    strict: StrictOption = False,
) -> None:
    """All raw events of TRACE as one Parquet or Arrow file: a row an event, a struct column a kind; it reads back as the trace it was.

    Example: tracetool export trace.dat --to parquet -o trace.parquet
    """
    if output == "-" and sys.stdout.isatty():
        raise Unusable(f"{to.value} is binary and not written to a terminal", hint="name a file with --output, or pipe it")
    if output != "-":
        writable(output, force)
    recorded = opened(trace, input_format, strict)

    from tracetool.export import export, prepare, write

    if output == "-":
        sys.stdout.flush()
        write(prepare(recorded.raw, event or None), sys.stdout.buffer, to.value)
        return
    rows = export(recorded.raw, output, to.value, event or None)
    typer.echo(f"{rows} events written to {output}", err=True)
