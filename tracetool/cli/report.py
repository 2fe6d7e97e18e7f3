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

    from polars.exceptions import PolarsError

    from tracetool.report.saved import load
    from tracetool_parsers.errors import ParseError

    saved = load(Path(folder))
    try:
        outputs.write(saved.analysis, saved.details, f"{saved.command} && {command_line()}")
    except (PolarsError, LookupError, ArithmeticError, TypeError, ValueError) as error:
        # Types are looked at, columns of tables are not: they were written by this program, or by somebody else.
        why = f"holds tables that do not fit: {type(error).__name__}: {error}"
        raise ParseError(why, path=folder, hint="make it again: tracetool replay TRACE --out DIR --force") from error
