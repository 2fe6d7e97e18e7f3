"""`tracetool info`: what a trace is, what was lost, and what it can and cannot tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tracetool.cli.app import MATCHED, TraceFile

if TYPE_CHECKING:
    from tracetool.trace import Trace


def run(
    trace: TraceFile,
    check: Annotated[bool, typer.Option("--check", help="Exit 3 if events were lost.")] = False,
) -> None:
    """Format, clock, kernel, events and losses of a trace, and which rules it holds the events for.

    Example: tracetool info trace.dat --check
    """
    from tracetool.trace import open as open_trace

    opened = open_trace(trace)
    for line in (*_metadata(opened), *_events(opened), *_losses(opened), *_abilities(opened)):
        typer.echo(line)
    if check and opened.raw.losses.num_rows:
        raise typer.Exit(MATCHED)


def _metadata(trace: Trace) -> list[str]:
    from tracetool.report.words import printable

    counts = trace.raw.counts()
    metadata = trace.raw.metadata
    first, last = trace.raw.span() or (0, 0)
    facts = {
        "file": metadata.path,
        "format": f"{metadata.format}, {metadata.codec} compression" if metadata.codec != "none" else metadata.format,
        "written by": f"trace-cmd {metadata.writer}" if metadata.writer else "not said",
        "kernel": metadata.kernel or "not said",
        "clock": f"{metadata.clock or 'not said'}, {first} to {last} ns ({(last - first) / 1e6:.3f} ms)",
        "CPUs": str(metadata.cpus),
        "buffers": ", ".join(name or "top" for name in metadata.buffers),
        "events": f"{sum(counts.values())} of {len(counts)} kinds",
        **{f"note {number}": note for number, note in enumerate(metadata.notes, 1)},
    }
    return [f"{name + ':':<12}{printable(text)}" for name, text in facts.items()]


def _events(trace: Trace) -> list[str]:
    from tracetool.report.words import printable

    counts = sorted(trace.raw.counts().items(), key=lambda item: (-item[1], item[0]))
    width = max((len(str(number)) for _, number in counts), default=0)
    return ["", *(f"  {number:>{width}}  {printable(name)}" for name, number in counts)]


def _losses(trace: Trace) -> list[str]:
    losses = trace.raw.losses.to_pylist()
    if not losses:
        return ["", "losses: none"]
    lines = ["", "losses:"]
    for loss in losses:
        number = "an unknown number of events" if loss["events"] is None else f"{loss['events']} events"
        where = "on an unknown CPU" if loss["cpu"] < 0 else f"on CPU {loss['cpu']}"
        lines.append(f"  {number} {where} between {loss['from_ns']} and {loss['to_ns']} ns ({loss['source']})")
    return lines


def _abilities(trace: Trace) -> list[str]:
    from tracetool.rules import RULES
    from tracetool.rules.base import missing_events

    lines = ["", "has the events for:"]
    for rule in RULES.values():
        missing = missing_events(rule, trace.raw.formats().keys())
        lines.append(f"  {rule.name}: {'yes' if not missing else 'no, not recorded: ' + ', '.join(missing)}")
    return lines
