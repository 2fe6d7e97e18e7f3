"""`tracetool cost`: what the extra copies cost, what forced them, and who waited for them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tracetool.cli.app import InputFormatOption, StrictOption, TraceFile, opened
from tracetool.cli.output import ForceOption, Format, FormatOption, OutputOption, write_table, write_text
from tracetool.errors import Unusable
from tracetool.foreign import printable

if TYPE_CHECKING:
    from tracetool.costs.scale import Ask
    from tracetool.where.symbols import Programs


class By(StrEnum):
    """What the decisions of one replay are summed by."""

    because = "because"
    process = "process"
    area = "area"
    site = "site"
    fork = "fork"
    reference = "reference"


def run(
    trace: TraceFile,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", metavar="NAME", help="Price this policy (repeatable); all, none.", show_default=False)
    ] = None,
    by: Annotated[
        By | None, typer.Option("--by", help="Sum the decisions by this, of what was recorded or of one --policy.", show_default=False)
    ] = None,
    costs: Annotated[
        str | None, typer.Option("--costs", metavar="FILE", help="A cost table (TOML) in the place of the shipped one.", show_default=False)
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale", metavar="SIZE[,RATE]", help="Project to this resident size and write rate: 64GiB,20000/s.", show_default=False
        ),
    ] = None,
    symbols: Annotated[
        list[str] | None,
        typer.Option(
            "--symbols", metavar="ELF[@BASE]", help="Name instructions by the symbols of this program (repeatable).", show_default=False
        ),
    ] = None,
    form: FormatOption = Format.text,
    output: OutputOption = "-",
    force: ForceOption = False,
    input_format: InputFormatOption = None,
    strict: StrictOption = False,
) -> None:
    """What copies cost in TRACE: under each policy, why, who and where, by fork, and how long anybody waited.

    As text everything is told; the other formats are one table: the policies, or what --by sums.

    Example: tracetool cost trace.dat --by fork --format csv
    """
    from tracetool.costing import cost_report
    from tracetool.costs.prices import load
    from tracetool.policies import chosen
    from tracetool.report.costs import render

    if by is not None and len(policy or []) > 1:
        raise Unusable("--by sums the decisions of one replay", hint="name one --policy, or none for what was recorded")
    if scale is not None and (by is not None or form is not Format.text):
        raise Unusable("--scale is told as text", hint="leave --by and --format out")
    prices = load(costs)
    wanted = chosen(policy or [])
    asked = _projected_to(scale)
    names = _programs(symbols)
    recorded = opened(trace, input_format, strict)
    for assumed in names.assumptions(recorded) if names else ():
        typer.echo(printable(f"note: {assumed}"), err=True)
    report = cost_report(recorded, wanted, prices, names)
    if by is not None:
        replay = report.replays[1] if policy and len(report.replays) == 2 else report.replays[0]
        write_table(replay.by(by.value), form, output, force)
        return
    if form is not Format.text:
        write_table(report.policies(), form, output, force)
        return
    text = render(report)
    if asked is not None:
        from tracetool.costs.scale import project, snapshots

        measured = snapshots(recorded, recorded.replay())
        cpus = recorded.raw.metadata.cpus
        text += "\n".join(["", *project(measured, asked, report.price, prices, report.hardware, cpus).lines(), ""])
    write_text(text, output, force)


def _projected_to(scale: str | None) -> Ask | None:
    if scale is None:
        return None
    from tracetool.costs.scale import parse

    return parse(scale)


def _programs(files: list[str] | None) -> Programs | None:
    if not files:
        return None
    from tracetool.where.symbols import Programs

    return Programs.of(files)
