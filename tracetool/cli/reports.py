"""The reports of an analysis and where they go: what `replay`, and `report` from saved results, have in common."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tracetool.cli.output import writable, write_text, written
from tracetool.errors import Unusable
from tracetool.progress import stage

if TYPE_CHECKING:
    from tracetool.analysis import Analysis
    from tracetool.report.details import Details


class ReportFormat(StrEnum):
    """How the report is written: for people, for CI (JUnit, SARIF), or as the kernel's own tests are (KTAP)."""

    text = "text"
    junit = "junit"
    sarif = "sarif"
    ktap = "ktap"


HtmlOption = Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write the report as one HTML file.")]
JsonOption = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON; - is standard output.")]
RedactOption = Annotated[
    bool, typer.Option("--redact", help="Leave names and frame numbers out of the HTML report; pids, user addresses and times stay.")
]
FullOption = Annotated[bool, typer.Option("--full", help="Not one screen: all policies told, stories, findings with remedies.")]
ReportOption = Annotated[ReportFormat, typer.Option("--format", help="How to write the report.")]


def command_line() -> str:
    """The command that is running, as it could be typed again."""
    return shlex.join(["tracetool", *sys.argv[1:]])


@dataclass(frozen=True)
class Outputs:
    """Where results go: the report in a format to `report`, and more where it is not None; `-` is standard output."""

    form: ReportFormat
    report: str
    html: str | None
    json: str | None
    redact: bool
    force: bool
    full: bool = False

    def check(self) -> None:
        """Find what makes no sense together, or is in the way, before the work is done; raises Exists, Unusable."""
        if self.full and self.form is not ReportFormat.text:
            raise Unusable(f"--full is for the text, and {self.form.value} is whole", hint="leave it out")
        if self.redact and not self.html:
            raise Unusable("--redact is for the HTML report", hint="name it: --html FILE")
        if self.html == "-":
            raise Unusable("the HTML report is not written to standard output", hint="name a file: --html FILE")
        if self.json == self.report == "-" and self.form is not ReportFormat.text:
            raise Unusable(f"standard output is for one of JSON and {self.form.value}", hint="name a file: --output FILE, or --json FILE")
        named = Counter(name for name in (self.report, self.html, self.json) if name and name != "-")
        twice = [name for name, times in named.items() if times > 1]
        if twice:
            raise Unusable(f"{twice[0]!r} would be written twice", hint="name a file for each of --output, --html and --json")
        for name in named:
            writable(name, self.force)

    def write(self, analysis: Analysis, details: Details | None, command: str) -> None:
        """Write what was asked for, and say where on stderr; the report itself last, unless JSON takes its place.

        `details` are there where HTML is wanted; `command` is what its reader is told to have made it.
        """
        if self.html:
            from tracetool.report import html

            with stage("drawing the report"):
                rendered = html.render(analysis, command, redact=self.redact, details=details)
            with written(writable(self.html, self.force)) as file:
                file.write(rendered.encode())
            alone = "; only this file is redacted" if self.redact and (self.json or self.report != "-") else ""
            typer.echo(f"report written to {self.html}{alone}", err=True)
        if self.json:
            from tracetool.report import json

            write_text(json.render(analysis), self.json, self.force)
            if self.json != "-":
                typer.echo(f"results written to {self.json}", err=True)
        if self.report != "-" or self.json != "-":
            write_text(self._rendered(analysis), self.report, self.force)

    def _rendered(self, analysis: Analysis) -> str:
        if self.form is ReportFormat.text:
            from tracetool.report import screen, terminal, text

            shown = self.report == "-"
            color = shown and terminal.is_colourful(sys.stdout)
            if self.full:
                return text.render(analysis, color=color)
            width = terminal.width_of(sys.stdout) if shown else None
            return screen.render(analysis, width, color, ascii_only=shown and not terminal.draws(sys.stdout))
        rendered: str = importlib.import_module(f"tracetool.report.{self.form.value}").render(analysis)
        return rendered
