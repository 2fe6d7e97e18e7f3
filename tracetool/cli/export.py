"""`tracetool export`: a trace, or the trace and its replays, as one file that other programs read."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tracetool.cli.app import InputFormatOption, StrictOption, TraceFile, opened
from tracetool.cli.output import ForceOption, reads, writable
from tracetool.errors import Unusable
from tracetool.progress import stage

if TYPE_CHECKING:
    from tracetool.export.perfetto import Written
    from tracetool.policies import Policy
    from tracetool.trace import Trace


class Target(StrEnum):
    """What a trace is exported to: its raw events (parquet, arrow), or those and what the replays make of them."""

    parquet = "parquet"
    arrow = "arrow"
    duckdb = "duckdb"
    perfetto = "perfetto"


def run(
    trace: TraceFile,
    to: Annotated[Target, typer.Option("--to", help="The format of the file.", show_default=False)],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="Where to write it; - is standard output.", show_default=False)
    ],
    event: Annotated[
        list[str] | None, typer.Option("--event", metavar="NAME", help="Of raw events only this (repeatable).", show_default=False)
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy", metavar="NAME", help="duckdb, perfetto: replay under this policy, too (repeatable); all.", show_default=False
        ),
    ] = None,
    families: Annotated[
        int | None,
        typer.Option("--families", metavar="N", min=1, help="perfetto: show so many page families (256).", show_default=False),
    ] = None,
    pid: Annotated[
        int | None, typer.Option("--pid", metavar="N", help="perfetto: show only pages that this process mapped.", show_default=False)
    ] = None,
    force: ForceOption = False,
    input_format: InputFormatOption = None,
    strict: StrictOption = False,
) -> None:
    """TRACE for other programs: all raw events as one Parquet or Arrow file that reads back as the trace it was, everything as one DuckDB
    database, or the history of pages as a trace for ui.perfetto.dev.

    Example: tracetool export trace.dat --to parquet -o trace.parquet
    """
    _check(to, output, event, policy, families, pid)
    reads(trace)
    if output != "-":
        writable(output, force)
    policies = _policies(policy)
    recorded = opened(trace, input_format, strict)
    with stage("exporting"):
        if to is Target.perfetto:
            told = _perfetto(recorded, output, policies, families, pid)
        elif to is Target.duckdb:
            from tracetool.export.duckdb import export_duckdb

            rows = export_duckdb(recorded, output, policies, event or None)
            told = [f"{len(rows)} tables written to {output}"]
        else:
            told = _raw(recorded, output, to, event)
    for line in told:
        typer.echo(line, err=True)


def _check(to: Target, output: str, event: list[str] | None, policy: list[str] | None, families: int | None, pid: int | None) -> None:
    """Raises Unusable for what makes no sense together."""
    replayed = to in (Target.duckdb, Target.perfetto)
    if policy and not replayed:
        raise Unusable(f"{to.value} holds raw events, which know no policy", hint="tracetool replay --out writes tables of replays")
    if event and to is Target.perfetto:
        raise Unusable("perfetto holds no raw events", hint="--event is for parquet, arrow and duckdb")
    if (families is not None or pid is not None) and to is not Target.perfetto:
        raise Unusable("--families and --pid are for perfetto", hint="the others hold everything")
    if output == "-" and to is Target.duckdb:
        raise Unusable("a DuckDB database is not written to standard output", hint="name a file with --output")
    if output == "-" and sys.stdout.isatty():
        raise Unusable(f"{to.value} is binary and not written to a terminal", hint="name a file with --output, or pipe it")


def _policies(names: list[str] | None) -> list[Policy]:
    if not names:
        return []
    from tracetool.policies import chosen

    return chosen(names)


def _raw(trace: Trace, output: str, to: Target, event: list[str] | None) -> list[str]:
    from tracetool.export import export, prepare, write

    kind: Literal["parquet", "arrow"] = "parquet" if to is Target.parquet else "arrow"
    if output == "-":
        sys.stdout.flush()
        write(prepare(trace.raw, event or None), sys.stdout.buffer, kind)
        return []
    rows = export(trace.raw, output, kind, event or None)
    return [f"{rows} events written to {output}"]


def _perfetto(trace: Trace, output: str, policies: list[Policy], families: int | None, pid: int | None) -> list[str]:
    from tracetool.export.perfetto import export_perfetto, write
    from tracetool.export.shown import FAMILIES

    shown = FAMILIES if families is None else families
    if output == "-":
        from tracetool.analysing import analyse

        sys.stdout.flush()
        return _left_out(write(trace, analyse(trace, policies), sys.stdout.buffer, families=shown, pid=pid))
    written = export_perfetto(trace, output, policies, families=shown, pid=pid)
    return [f"{written.slices} slices, {written.instants} instants on {written.tracks} tracks written to {output}", *_left_out(written)]


def _left_out(written: Written) -> list[str]:
    from tracetool.foreign import printable

    return [printable(f"left out: {text}") for text in written.left_out]
