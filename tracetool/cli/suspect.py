"""`tracetool suspect`: wrong data was seen at an address; was it copy-on-write?"""

from __future__ import annotations

from typing import Annotated

import typer

from tracetool.cli.app import InputFormatOption, StrictOption, TraceFile, opened
from tracetool.cli.output import ForceOption, Format, OutputOption, writable, write_table, write_text


def _number(text: str) -> int:
    """A number in decimal or, after 0x, in hexadecimal."""
    try:
        return int(text, 0)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no number") from error


def run(
    trace: TraceFile,
    pid: Annotated[int, typer.Option("--pid", metavar="N", help="The process that saw it.", show_default=False)],
    address: Annotated[
        int, typer.Option("--address", metavar="A", parser=_number, help="The virtual address where it saw it.", show_default=False)
    ],
    at: Annotated[
        int | None,
        typer.Option(
            "--at", metavar="NS", help="When: ns on the trace's clock, or since its start. Default: at any time.", show_default=False
        ),
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="text, json: the whole answer; csv, jsonl, parquet, arrow: the lifeline as a table.")
    ] = Format.text,
    output: OutputOption = "-",
    force: ForceOption = False,
    input_format: InputFormatOption = None,
    strict: StrictOption = False,
) -> None:
    """A process saw wrong data at an address: was copy-on-write the cause, can it be ruled out, or what is missing to say so?

    Says what happened to the page, who else mapped or referenced it, and who stored to it meanwhile.

    Example: tracetool suspect trace.dat --pid 115 --address 0x7f8efcaf0000 --at 28000000
    """
    if output != "-":
        writable(output, force)
    recorded = opened(trace, input_format, strict)

    from tracetool.report import suspect as report
    from tracetool.suspecting import suspect

    suspicion = suspect(recorded, pid, address, at)
    if form in (Format.text, Format.json):
        write_text(report.text(suspicion) if form is Format.text else report.to_json(suspicion), output, force)
    else:
        write_table(suspicion.lifeline, form, output, force)
