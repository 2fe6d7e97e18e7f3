"""`tracetool info`: what a trace is, what was lost, and what it can and cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracetool.cli.app import MATCHED, InputFormatOption, StrictOption, TraceFile, opened

if TYPE_CHECKING:
    from tracetool_parsers import Metadata, RawTrace

#: One loss: the columns of the losses table.
Loss = Mapping[str, Any]


def run(
    trace: TraceFile,
    check: Annotated[bool, typer.Option("--check", help="Exit 3 if events were lost.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
    input_format: InputFormatOption = None,
    strict: StrictOption = False,
) -> None:
    """Format, clock, kernel, events and losses of a trace, and which rules it holds the events for.

    Example: tracetool info trace.dat --check
    """
    raw = opened(trace, input_format, strict).raw
    losses = raw.losses.to_pylist()
    if as_json:
        import json

        typer.echo(json.dumps(_object(raw, losses), indent=1))
    else:
        for line in (*_metadata(raw), *_events(raw), *_losses(losses, _untold(raw.metadata)), *_abilities(raw)):
            typer.echo(line)
    if check and losses:
        raise typer.Exit(MATCHED)


def _object(raw: RawTrace, losses: Sequence[Loss]) -> dict[str, Any]:
    counts = raw.counts()
    first, last = raw.span() or (None, None)
    metadata = raw.metadata
    names = ("format", "codec", "writer", "kernel", "uname", "clock", "cpus", "buffers", "notes", "details")
    return {
        "schema_version": 1,
        "path": metadata.path,
        **{name: getattr(metadata, name) for name in names},
        "from_ns": first,
        "to_ns": last,
        "events": sum(counts.values()),
        "counts": counts,
        "losses": losses,
        "cannot_tell": _untold(metadata),
        "missing_events": _missing(raw),
    }


def _metadata(raw: RawTrace) -> list[str]:
    from tracetool.foreign import printable

    counts = raw.counts()
    first, last = raw.span() or (0, 0)
    metadata = raw.metadata
    facts = [
        ("file", metadata.path),
        ("format", f"{metadata.format}, {metadata.codec} compression" if metadata.codec != "none" else metadata.format),
        ("written by", metadata.writer or "not said"),
        ("kernel", metadata.kernel or "not said"),
        ("clock", f"{metadata.clock or 'not said'}, {first} to {last} ns ({(last - first) / 1e6:.3f} ms)"),
        ("CPUs", str(metadata.cpus) if metadata.cpus else "not said"),
        ("buffers", ", ".join(name or "top" for name in metadata.buffers)),
        ("events", f"{sum(counts.values())} of {len(counts)} kinds"),
        *metadata.details.items(),
        *((f"note {number}", note) for number, note in enumerate(metadata.notes, 1)),
    ]
    return [f"{printable(name) + ':':<11} {printable(text)}" for name, text in facts]


def _events(raw: RawTrace) -> list[str]:
    from tracetool.foreign import printable

    counts = sorted(raw.counts().items(), key=lambda item: (-item[1], item[0]))
    width = max((len(str(number)) for _, number in counts), default=0)
    return ["", *(f"  {number:>{width}}  {printable(name)}" for name, number in counts)]


def _losses(losses: Sequence[Loss], untold: str | None) -> list[str]:
    """What is missing: of each CPU in all, then each loss."""
    if not losses:
        return ["", "losses: none are known" + (f"; {untold}" if untold else "")]
    lines = ["", f"losses: {_number(losses)} missing"]
    for cpu in sorted({loss["cpu"] for loss in losses}):
        own = [loss for loss in losses if loss["cpu"] == cpu]
        lines.append(f"  {_where(cpu)}: {_number(own)} {_when(own)}")
        if len(own) > 1:
            lines += [f"    {_number([loss])} {_when([loss])} ({loss['source']})" for loss in own]
        else:
            lines[-1] += f" ({own[0]['source']})"
    return lines


def _where(cpu: int) -> str:
    return "on a CPU that is not known" if cpu < 0 else f"CPU {cpu}"


def _number(losses: Sequence[Loss]) -> str:
    from tracetool.report.words import counted

    known = [loss["events"] for loss in losses if loss["events"] is not None]
    unknown = "an unknown number of events" if not known else "an unknown number more"
    said = [counted(sum(known), "event", "events")] if known else []
    return " and ".join([*said, *([unknown] if len(known) < len(losses) else [])])


def _when(losses: Sequence[Loss]) -> str:
    """From the earliest to the latest that any of them can have been; a bound that one of them lacks is none."""
    begins, ends = ([loss[bound] for loss in losses] for bound in ("from_ns", "to_ns"))
    begin = None if None in begins else min(begins)
    end = None if None in ends else max(ends)
    if begin is not None and end is not None:
        return f"between {begin} and {end} ns"
    if begin is not None:
        return f"after {begin} ns"
    return "at a time that is not known" if end is None else f"before {end} ns"


def _untold(metadata: Metadata) -> str | None:
    """What a trace of its format cannot tell of losses; None where it tells all that the tracer knew."""
    form = metadata.details.get("exported from", metadata.format)
    if form.startswith("perf script"):
        return "this format cannot tell: perf script prints losses only with --show-lost-events"
    if form.startswith("ftrace text") and "entries" not in metadata.details:
        return "this format may not tell: overwritten events show only in a header with entries-in-buffer/entries-written"
    return None


def _missing(raw: RawTrace) -> dict[str, list[str]]:
    """For each rule the events that it needs and the trace has no format of."""
    from tracetool.rules import RULES
    from tracetool.rules.base import missing_events

    return {rule.name: missing_events(rule, raw.formats().keys()) for rule in RULES.values()}


def _abilities(raw: RawTrace) -> list[str]:
    lines = ["", "has the events for:"]
    for name, missing in _missing(raw).items():
        lines.append(f"  {name}: {'yes' if not missing else 'no, not recorded: ' + ', '.join(missing)}")
    return lines
