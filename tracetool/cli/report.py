"""`tracetool report`: any report again, from what `replay --out` saved."""

from __future__ import annotations

from typing import Annotated

import typer

from tracetool.cli.output import ForceOption, OutputOption
from tracetool.cli.reports import FullOption, HtmlOption, JsonOption, Outputs, RedactOption, ReportFormat, ReportOption, command_line


def run(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The folder that replay --out wrote.", show_default=False)],
    form: ReportOption = ReportFormat.text,
    output: OutputOption = "-",
    html: HtmlOption = None,
    json: JsonOption = None,
    redact: RedactOption = False,
    full: FullOption = False,
    force: ForceOption = False,
) -> None:
    """The report of saved results: DIR is what `replay TRACE --out DIR` wrote. Neither the trace is needed nor another replay.

    Example: tracetool report results --html report.html --redact
    """
    outputs = Outputs(form, output, html, json, redact, force, full)
    outputs.check()

    from pathlib import Path

    from tracetool.report.saved import load

    saved = load(Path(folder))
    outputs.write(saved.analysis, saved.details, f"{saved.command} && {command_line()}")
