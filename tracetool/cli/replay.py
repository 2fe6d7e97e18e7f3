"""`tracetool replay`: the main verb. Replays a trace as recorded and under policies, and reports what follows."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracetool.cli.app import MATCHED, InputFormatOption, StrictOption, TraceFile, opened
from tracetool.cli.bisect import judged, unread, untestable
from tracetool.cli.output import ForceOption, OutputOption, reads
from tracetool.cli.reports import FullOption, HtmlOption, JsonOption, Outputs, RedactOption, ReportFormat, ReportOption, command_line
from tracetool.errors import Exists, Unusable
from tracetool.progress import stage

if TYPE_CHECKING:
    from tracetool.analysis import Analysis
    from tracetool.policies import Policy
    from tracetool.trace import Trace


def run(
    trace: TraceFile,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", metavar="NAME", help="Replay under this policy (repeatable); all, none.")
    ] = None,
    form: ReportOption = ReportFormat.text,
    output: OutputOption = "-",
    html: HtmlOption = None,
    json: JsonOption = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Write the tables as Parquet files into this folder, and what `report` needs."),
    ] = None,
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
    redact: RedactOption = False,
    full: FullOption = False,
    force: ForceOption = False,
    input_format: InputFormatOption = None,
    strict: StrictOption = False,
) -> None:
    """Replay TRACE as recorded and under each policy: who owned which page, what was unsafe, what other kernels would have cost.

    Example: tracetool replay trace.dat --policy page-count --html report.html
    """
    reads(trace)
    reads(baseline)
    outputs = Outputs(form, output, html, json, redact, force, full)
    if fail_on is not None and bisect is not None:
        raise Unusable("--fail-on and --bisect exclude each other", hint="each of them sets the exit code")
    failing, bisecting = _rules("--fail-on", fail_on), _rules("--bisect", bisect)
    wanted = _policies(policy)
    with untestable(bool(bisecting)):
        outputs.check()
        folder = _folder(out, force)
        with stage("analysing"):
            recorded, analysis = _analysed(trace, wanted, baseline, input_format, strict)
        judged_by = ["observed", *(p.name for p in analysis.policies if policy)]
        if not bisecting:
            _write(recorded, analysis, outputs, folder)
        else:
            code, why = judged(analysis, bisecting, judged_by)
            with unread():
                _write(recorded, analysis, outputs, folder)
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


def _folder(name: str | None, force: bool) -> Path | None:
    """The folder for tables, if one is wanted; raises Exists, Unusable."""
    if not name:
        return None
    path = Path(name)
    if path.exists() and not path.is_dir():
        raise Unusable(f"{name!r} is no folder", hint="--out takes a folder for the tables")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise Exists(name)
    return path


def _write(trace: Trace, analysis: Analysis, outputs: Outputs, folder: Path | None) -> None:
    """The tables and what is saved go first: a report on standard output may be read by somebody who stops early."""
    command, details = command_line(), None
    if outputs.html or folder:
        from tracetool.report.details import gather

        with stage("gathering what the report shows"):
            details = gather(trace, analysis)
    if folder and details:
        from tracetool.export.tables import write_folder
        from tracetool.report.saved import save

        write_folder(trace, analysis, folder)
        save(folder, analysis, details, command)
        typer.echo(f"tables written to {folder}; tracetool report {shlex.quote(str(folder))} makes the reports again", err=True)
    outputs.write(analysis, details, command)


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
