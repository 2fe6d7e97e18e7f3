"""`tracetool explain`: one finding as a story, with the records that it rests on."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tracetool.cli.app import InputFormatOption, StrictOption, TraceFile, opened
from tracetool.cli.output import ForceOption, OutputOption, writable, write_text


class Form(StrEnum):
    """How a finding is told."""

    text = "text"
    mail = "mail"
    json = "json"


def run(
    trace: TraceFile,
    finding: Annotated[str, typer.Argument(metavar="ID", help="The finding, as replay names it: missed-cow-1@mapcount.")],
    policy: Annotated[
        str | None,
        typer.Option("--policy", metavar="NAME", help="The policy, where ID has none (after @); else observed.", show_default=False),
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="mail: plain ASCII in 72 columns, for a mailing list.")] = Form.text,
    output: OutputOption = "-",
    force: ForceOption = False,
    input_format: InputFormatOption = None,
    strict: StrictOption = False,
) -> None:
    """One finding told: who held what since when, who did what, what either side then sees, how sure it is, what avoids it, the records.

    Example: tracetool explain trace.dat missed-cow-1@mapcount --format mail
    """
    if output != "-":
        writable(output, force)
    recorded = opened(trace, input_format, strict)

    from tracetool.explaining import explain
    from tracetool.report import explain as report

    told = explain(recorded, finding, policy)
    written = {Form.text: report.text, Form.mail: report.mail, Form.json: report.to_json}[form](told)
    write_text(written, output, force)
