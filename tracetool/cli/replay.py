"""`tracetool replay`: the main verb. Replays a trace as recorded and under policies, and reports what follows."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracetool.cli.app import MATCHED, InputFormatOption, StrictOption, TraceFile, opened
from tracetool.cli.bisect import judged, unread, untestable
from tracetool.cli.output import ForceOption, OutputOption, writable, write_text
from tracetool.errors import Exists, Unusable
from tracetool.progress import stage

if TYPE_CHECKING:
    from tracetool.analysis import Analysis
    from tracetool.policies import Policy
    from tracetool.trace import Trace


class ReportFormat(StrEnum):
    """How the report is written: for people, for CI (JUnit, SARIF), or as the kernel's own tests are (KTAP)."""

    text = "text"
    junit = "junit"
    sarif = "sarif"
    ktap = "ktap"


def run(
    trace: TraceFile,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", metavar="NAME", help="Replay under this policy (repeatable); all, none.")
    ] = None,
    form: Annotated[ReportFormat, typer.Option("--format", help="How to write the report.")] = ReportFormat.text,
    output: OutputOption = "-",
    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write the report as one HTML file.")] = None,
    json: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON; - is standard output.")] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="Write the tables as Parquet files into this folder.")] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="FILE", help="Report only what FILE, written by --json, does not have.")
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            "--fail-on",
            metavar="RULES",
            help="Exit 3 if these rules (a comma list, or any) find a certain defect, recorded or under a --policy named.",
        ),
    ] = None,
    bisect: Annotated[
        str | None,
        typer.Option(
            "--bisect",
            metavar="RULES",
            help="For git bisect run: exit 0 if these rules are clean, recorded and under each --policy named, 1 if one finds a certain "
            "defect, 125 if the trace cannot tell.",
        ),
    ] = None,
    redact: Annotated[bool, typer.Option("--redact", help="Leave names and frame numbers out of the HTML report.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Not one screen: all policies told, stories, findings with remedies.")] = False,
    force: ForceOption = False,
    input_format: InputFormatOption = None,
    strict: StrictOption = False,
) -> None:
    """Replay TRACE as recorded and under each policy: who owned which page, what was unsafe, what other kernels would have cost.

    Example: tracetool replay trace.dat --policy page-count --html report.html
    """
    outputs = Outputs(form, output, html, json, out, full)
    outputs.check_usage(redact)
    if fail_on is not None and bisect is not None:
        raise Unusable("--fail-on and --bisect exclude each other", hint="each of them sets the exit code")
    failing, bisecting = _rules("--fail-on", fail_on), _rules("--bisect", bisect)
    wanted = _policies(policy)
    with untestable(bool(bisecting)):
        outputs.check_files(force)
        with stage("analysing"):
            recorded, analysis = _analysed(trace, wanted, baseline, input_format, strict)
        judged_by = ["observed", *(p.name for p in analysis.policies if policy)]
        if not bisecting:
            outputs.write(recorded, analysis, redact, force)
        else:
            code, why = judged(analysis, bisecting, judged_by)
            with unread():
                outputs.write(recorded, analysis, redact, force)
    if bisecting:
        from tracetool.foreign import printable

        typer.echo(printable(why), err=True)
        raise typer.Exit(code)
    if failing and _matched(analysis, failing, judged_by):
        raise typer.Exit(MATCHED)


def _analysed(
    name: str, wanted: list[Policy], baseline: str | None, input_format: InputFormatOption, strict: bool
) -> tuple[Trace, Analysis]:
    """The trace and what follows from it; raises TraceError."""
    from tracetool.analysing import analyse
    from tracetool.baseline import read_baseline

    known = read_baseline(baseline) if baseline is not None else None
    recorded = opened(name, input_format, strict)
    return recorded, analyse(recorded, wanted, known)


@dataclass(frozen=True)
class Outputs:
    """Where results go: the report in a format to `report`, and more where it is not None; `-` is standard output."""

    form: ReportFormat
    report: str
    html: str | None
    json: str | None
    out: str | None
    full: bool = False

    def check_usage(self, redact: bool) -> None:
        """Raises Unusable for what makes no sense together."""
        if self.full and self.form is not ReportFormat.text:
            raise Unusable(f"--full is for the text, and {self.form.value} is whole", hint="leave it out")
        if redact and not self.html:
            raise Unusable("--redact is for the HTML report", hint="name it: --html FILE")
        if self.html == "-":
            raise Unusable("the HTML report is not written to standard output", hint="name a file: --html FILE")
        if self.json == self.report == "-" and self.form is not ReportFormat.text:
            raise Unusable(f"standard output is for one of JSON and {self.form.value}", hint="name a file: --output FILE, or --json FILE")
        named = Counter(name for name in (self.report, self.html, self.json) if name and name != "-")
        twice = [name for name, times in named.items() if times > 1]
        if twice:
            raise Unusable(f"{twice[0]!r} would be written twice", hint="name a file for each of --output, --html and --json")

    def check_files(self, force: bool) -> None:
        """Find what is in the way before the work is done; raises Exists, Unusable."""
        for name in (self.report, self.html, self.json):
            if name and name != "-":
                writable(name, force)
        if self.out:
            path = Path(self.out)
            if path.exists() and not path.is_dir():
                raise Unusable(f"{self.out!r} is no folder", hint="--out takes a folder for the tables")
            if path.is_dir() and any(path.iterdir()) and not force:
                raise Exists(self.out)

    def write(self, trace: Trace, analysis: Analysis, redact: bool, force: bool) -> None:
        """Write what was asked for, and say where on stderr; the report itself last, unless JSON takes its place."""
        if self.html:
            from tracetool.report import details, html

            command = shlex.join(["tracetool", *sys.argv[1:]])
            with stage("drawing the report"):
                rendered = html.render(analysis, command, redact=redact, details=details.gather(trace, analysis))
            Path(self.html).write_text(rendered, encoding="utf-8")
            typer.echo(f"report written to {self.html}", err=True)
        if self.out:
            _write_tables(trace, analysis, Path(self.out))
            typer.echo(f"tables written to {self.out}", err=True)
        if self.json:
            from tracetool.report import json

            write_text(json.render(analysis), self.json, force)
            if self.json != "-":
                typer.echo(f"results written to {self.json}", err=True)
        if self.report != "-" or self.json != "-":
            write_text(self._rendered(analysis), self.report, force)

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


def _policies(names: list[str] | None) -> list[Policy]:
    from tracetool.policies import chosen

    return chosen(names or [])


def _rules(option: str, named: str | None) -> list[str]:
    """The rules that a comma list names; none where the option is not there."""
    if named is None:
        return []
    from tracetool.rules import RULES, rule

    names = [name.strip() for name in named.split(",") if name.strip()]
    if not names:
        raise Unusable(f"{option} names no rule", hint=f"any, or a comma list of: {', '.join(RULES)}")
    return list(RULES) if "any" in names else [rule(name).name for name in names]


def _matched(analysis: Analysis, rules: list[str], policies: list[str]) -> bool:
    """Whether a rule found a certain defect."""
    import polars as pl

    return bool(
        analysis.findings.filter(
            pl.col("rule").is_in(rules), pl.col("policy").is_in(policies), certainty="certain", severity="defect"
        ).height
    )


def _write_tables(trace: Trace, analysis: Analysis, folder: Path) -> None:
    """One Parquet file a table; what depends on the replay in a folder named after it."""
    from tracetool.export.tables import write_folder

    write_folder(trace, analysis, folder)
