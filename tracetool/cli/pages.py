"""`tracetool pages`: which page was where at a moment, by whom mapped, by whom referenced."""

from __future__ import annotations

from typing import Annotated

import typer

from tracetool.cli.app import InputFormatOption, StrictOption, TraceFile, opened
from tracetool.cli.output import ForceOption, Format, FormatOption, OutputOption, write_table
from tracetool.errors import Unanswerable, Unusable


def run(
    trace: TraceFile,
    at: Annotated[
        int | None, typer.Option("--at", metavar="NS", help="The moment, in ns of the trace's clock.", show_default=False)
    ] = None,
    at_mark: Annotated[
        str | None, typer.Option("--at-mark", metavar="GLOB", help="Every moment at which a program wrote such a mark.", show_default=False)
    ] = None,
    pid: Annotated[int | None, typer.Option("--pid", metavar="N", help="Only pages of this process.", show_default=False)] = None,
    policy: Annotated[str, typer.Option("--policy", metavar="NAME", help="Under this policy.")] = "observed",
    form: FormatOption = Format.text,
    output: OutputOption = "-",
    force: ForceOption = False,
    input_format: InputFormatOption = None,
    strict: StrictOption = False,
) -> None:
    """Every page of every process at a moment: frame, mappings, references, pins.

    Example: tracetool pages trace.dat --at-mark 'ckpt-begin*' --format csv
    """
    if (at is None) == (at_mark is None):
        raise Unusable("pages wants one moment", hint="--at NS, or --at-mark GLOB")
    recorded = opened(trace, input_format, strict)
    if at is not None:
        first, last = recorded.raw.span() or (0, -1)
        if not first <= at <= last:
            raise Unanswerable(f"nothing was recorded at {at} ns", path=trace, hint=f"the trace runs from {first} to {last} ns")
        frame = recorded.replay(policy).pages_at(at, pid)
    else:
        frame = recorded.pages_at_marks(at_mark or "*", policy, pid)
    if not frame.height:
        whose = "" if pid is None else f" of process {pid}"
        known = ", ".join(map(str, recorded.processes["pid"].unique(maintain_order=True).to_list()[:20]))
        raise Unanswerable(f"no known page{whose} at that moment", path=trace, hint=f"processes of this trace: {known}")
    write_table(frame, form, output, force)
