"""`tracetool replay`: the main verb. Replays a trace as recorded and under policies, and reports what follows."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracetool.cli.app import MATCHED, InputFormatOption, StrictOption, TraceFile, opened
from tracetool.cli.output import ForceOption, writable
from tracetool.errors import Exists, Unusable

if TYPE_CHECKING:
    from tracetool.analysis import Analysis
    from tracetool.policies import Policy
    from tracetool.trace import Trace


def run(
    trace: TraceFile,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", metavar="NAME", help="Replay under this policy (repeatable); all, none.")
    ] = None,
    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write the report as one HTML file.")] = None,
    json: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON; - is standard output.")] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="Write the tables as Parquet files into this folder.")] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            "--fail-on",
            metavar="RULES",
            help="Exit 3 if these rules (a comma list, or any) find a certain defect, recorded or under a --policy named.",
        ),
    ] = None,
    redact: Annotated[bool, typer.Option("--redact", help="Leave names and frame numbers out of the HTML report.")] = False,
    force: ForceOption = False,
    input_format: InputFormatOption = None,
    strict: StrictOption = False,
) -> None:
    """Replay TRACE as recorded and under each policy: who owned which page, what was unsafe, what other kernels would have cost.

    Example: tracetool replay trace.dat --policy page-count --html report.html
    """
    if redact and not html:
        raise Unusable("--redact is for the HTML report", hint="name it: --html FILE")
    if html == "-":
        raise Unusable("the HTML report is not written to standard output", hint="name a file: --html FILE")
    rules = _rules(fail_on)
    wanted = _policies(policy)
    outputs = Outputs(html, json, out)
    outputs.check(force)

    from tracetool.analysing import analyse

    recorded = opened(trace, input_format, strict)
    analysis = analyse(recorded, wanted)
    outputs.write(recorded, analysis, redact)
    if json != "-":
        _print(analysis)
    if rules and _matched(analysis, rules, named=bool(policy)):
        raise typer.Exit(MATCHED)


@dataclass(frozen=True)
class Outputs:
    """Where results go besides the terminal; None: nowhere."""

    html: str | None
    json: str | None
    out: str | None

    def check(self, force: bool) -> None:
        """Find what is in the way before the work is done; raises Exists, Unusable."""
        for name in (self.html, self.json):
            if name and name != "-":
                writable(name, force)
        if self.out:
            path = Path(self.out)
            if path.exists() and not path.is_dir():
                raise Unusable(f"{self.out!r} is no folder", hint="--out takes a folder for the tables")
            if path.is_dir() and any(path.iterdir()) and not force:
                raise Exists(self.out)

    def write(self, trace: Trace, analysis: Analysis, redact: bool) -> None:
        """Write what was asked for, and say where on stderr."""
        if self.html:
            from tracetool.report import html

            command = shlex.join(["tracetool", *sys.argv[1:]])
            Path(self.html).write_text(html.render(analysis, command, redact=redact), encoding="utf-8")
            typer.echo(f"report written to {self.html}", err=True)
        if self.out:
            _write_tables(trace, analysis, Path(self.out))
            typer.echo(f"tables written to {self.out}", err=True)
        if self.json:
            from tracetool.report import json

            document = json.render(analysis)
            if self.json == "-":
                sys.stdout.write(document)
            else:
                Path(self.json).write_text(document, encoding="utf-8")
                typer.echo(f"results written to {self.json}", err=True)


def _policies(names: list[str] | None) -> list[Policy]:
    from tracetool.policies import chosen

    return chosen(names or [])


def _rules(fail_on: str | None) -> list[str]:
    if fail_on is None:
        return []
    from tracetool.rules import RULES, rule

    names = [name.strip() for name in fail_on.split(",") if name.strip()]
    if not names:
        raise Unusable("--fail-on names no rule", hint=f"any, or a comma list of: {', '.join(RULES)}")
    return list(RULES) if "any" in names else [rule(name).name for name in names]


def _matched(analysis: Analysis, rules: list[str], named: bool) -> bool:
    """A certain defect of what was recorded, or of a policy that was asked for by name."""
    import polars as pl

    policies = ["observed", *(p.name for p in analysis.policies if named)]
    return bool(
        analysis.findings.filter(
            pl.col("rule").is_in(rules), pl.col("policy").is_in(policies), certainty="certain", severity="defect"
        ).height
    )


def _print(analysis: Analysis) -> None:
    from tracetool.report import text

    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    sys.stdout.write(text.render(analysis, color=color))


def _write_tables(trace: Trace, analysis: Analysis, folder: Path) -> None:
    """One Parquet file a table; what depends on the replay in a folder named after it."""
    folder.mkdir(parents=True, exist_ok=True)
    trace.memory_events().collect().write_parquet(folder / "memory_events.parquet")
    trace.processes.write_parquet(folder / "processes.parquet")
    analysis.findings.write_parquet(folder / "findings.parquet")
    for name, replay in analysis.replays.items():
        (folder / name).mkdir(exist_ok=True)
        for table in ("ownership", "references", "faults"):
            getattr(replay, table).collect().write_parquet(folder / name / f"{table}.parquet")
