"""`tracetool synth`: a made-up workload as a real trace.dat."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import typer

from tracetool.cli.output import ForceOption, writable
from tracetool.errors import Unusable
from tracetool.progress import stage


class Compression(StrEnum):
    """How the events of a version 7 file are compressed."""

    none = "none"
    zstd = "zstd"


def run(
    scenario: Annotated[
        str, typer.Argument(metavar="SCENARIO", help="mail, snapshot, pins, forkstorm or random: see docs/synth.md.", show_default=False)
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The trace.dat to write.", show_default=False)],
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Another seed, another history; the same one, the same bytes.")] = 1,
    events: Annotated[
        int | None,
        typer.Option(
            "--events", metavar="N", help="About so many, up to 100 million. [default: 20000; mail: one round]", show_default=False
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", metavar="N", help="Processes that live at once, at most.", show_default="by scenario")
    ] = None,
    pages: Annotated[int | None, typer.Option("--pages", metavar="N", help="Pages of each process.", show_default="by scenario")] = None,
    write_rate: Annotated[
        float | None, typer.Option("--write-rate", metavar="SHARE", help="Share of accesses that store.", show_default="by scenario")
    ] = None,
    references: Annotated[
        float | None,
        typer.Option(
            "--references", metavar="SHARE", help="Share of actions that take or drop references, up to 0.9.", show_default="by scenario"
        ),
    ] = None,
    policy: Annotated[str, typer.Option("--policy", metavar="NAME", help="How the imagined kernel decides.")] = "exclusive",
    losses: Annotated[float, typer.Option("--losses", metavar="SHARE", help="Share of sub-buffers that are lost, up to 0.9.")] = 0.0,
    cpus: Annotated[int, typer.Option("--cpus", metavar="N", help="CPUs of the imagined machine, 1 to 64.")] = 2,
    checkpoints: Annotated[
        int, typer.Option("--checkpoints", metavar="N", help="Moments that marks name, and the truth file tells of, about.")
    ] = 8,
    truth: Annotated[
        str | None, typer.Option("--truth", metavar="FILE", help="Write who mapped which page at the checkpoints.", show_default=False)
    ] = None,
    file_version: Annotated[int, typer.Option("--file-version", metavar="6|7", help="Version of the file format.")] = 7,
    compression: Annotated[
        Compression | None, typer.Option("--compression", help="Of a version 7 file.", show_default="zstd; version 6: none")
    ] = None,
    force: ForceOption = False,
) -> None:
    """A workload that never ran, as a trace.dat that trace-cmd and tracetool read like any other.

    Example: tracetool synth snapshot -o trace.dat --pages 1000 --write-rate 0.2
    """
    from tracetool.synth import Plan, synthesise

    version = _version(file_version, compression)
    plan = Plan(scenario, seed, processes, pages, write_rate, references, policy, losses, events, cpus, checkpoints)
    if "-" in (output, truth):
        raise Unusable("a made-up trace does not go to standard output", hint="name a file: places in it are filled in at the end")
    path, told = writable(output, force), writable(truth, force) if truth is not None else None
    if told is not None and told.resolve() == path.resolve():
        raise Unusable("--truth names the trace itself", hint="name another file")

    done = 0

    def progress(events: int) -> None:
        nonlocal done
        done = events

    with stage("making up", plan.target, "events", lambda: done):
        made = synthesise(plan, path, version, told, progress)
    typer.echo(f"{output}: {made.events} events, {made.processes} threads, {made.checkpoints} checkpoints, {made.lost} events lost")


def _version(number: int, compression: Compression | None) -> Literal["v6", "v7", "v7-zstd"]:
    """As the writer names it; raises Unusable."""
    if number not in (6, 7):
        raise Unusable(f"--file-version {number} does not exist", hint="6 or 7")
    if number == 6:
        if compression is Compression.zstd:
            raise Unusable("version 6 knows no compression", hint="--file-version 7, or --compression none")
        return "v6"
    return "v7" if compression is Compression.none else "v7-zstd"
