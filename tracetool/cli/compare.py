"""`tracetool compare`: where two policies decide differently on one trace; or two traces, or two sets of them, before and after."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer
from typer.core import TyperCommand

from tracetool.cli.app import InputFormatOption, StrictOption, opened
from tracetool.cli.output import ForceOption, Format, FormatOption, OutputOption, writable, write_table, write_text
from tracetool.errors import Unusable

if TYPE_CHECKING:
    import polars as pl

    from tracetool.trace import Trace

_WITH: Final = "--with"
_HOW: Final = (
    "two sets of traces: compare before*.dat --with after*.dat; one trace: compare trace.dat --policy mapcount --policy page-count"
)


class Per(StrEnum):
    """What counts of before and after are for."""

    trace = "trace"
    second = "second"
    fork = "fork"


class Command(TyperCommand):
    """A command whose `--with` takes all the traces after it, as a shell writes them for `--with after*.dat`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Give each trace after `--with` a `--with` of its own, as an option takes one value."""
        valued = {name for option in self.params if not getattr(option, "is_flag", False) for name in option.opts if name.startswith("-")}
        return super().parse_args(ctx, with_repeated(args, valued))


def with_repeated(arguments: list[str], valued: set[str]) -> list[str]:
    """The arguments with all that stand after a `--with`, and are neither options nor values of those named `valued`, as `--with=TRACE`."""
    told: list[str] = []
    after = is_value = plain = named = False
    for argument in arguments:
        if is_value:
            told.append(argument)
            is_value = False
        elif plain or argument == "-" or not argument.startswith("-"):
            told.append(f"{_WITH}={argument}" if after else argument)
            named |= after
        elif argument == _WITH:
            after = True
        elif argument == "--" and after:
            plain = True
        else:
            plain = argument == "--"
            given = argument.startswith(f"{_WITH}=")
            after, named = after or given, named or given
            is_value = argument in valued
            told.append(argument)
    # Without a trace it stays as it was, to be complained of.
    return [*told, _WITH] if after and not named else told


def run(
    traces: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TRACE", help="One recorded trace and two policies; two traces; or a set of them, before.", show_default=False
        ),
    ] = None,
    after: Annotated[
        list[str] | None, typer.Option(_WITH, metavar="TRACE...", help="The traces after: all that follow.", show_default=False)
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", metavar="NAME", help="A policy, or observed: of one trace two, of several one.", show_default=False),
    ] = None,
    per: Annotated[Per, typer.Option("--per", help="Of several traces: count by trace, second or fork.")] = Per.trace,
    costs: Annotated[
        str | None,
        typer.Option(
            "--costs", metavar="FILE", help="Of several: a cost table (TOML) in the place of the shipped one.", show_default=False
        ),
    ] = None,
    form: FormatOption = Format.text,
    output: OutputOption = "-",
    force: ForceOption = False,
    input_format: InputFormatOption = None,
    strict: StrictOption = False,
) -> None:
    """Where two policies part on one trace, and what follows. Or before and after: what two traces, or two sets of repeats, do otherwise.

    Of one trace: every decision on which the policies differ. Of several, by program, kind of memory and call site: decisions and what
    forced them, findings and costs; with intervals where there are repeats. As text the main things, in other formats a table.

    Example: tracetool compare trace.dat --policy mapcount --policy page-count

    Example: tracetool compare before*.dat --with after*.dat
    """
    names = policy or []
    before, others = _sides(traces or [], after or [], names)
    if output != "-":
        writable(output, force)

    def read(paths: list[str]) -> Iterator[Trace]:
        return (opened(path, input_format, strict) for path in paths)

    if others:
        told, table = _before_after(read(before), read(others), names[0] if names else "observed", per, costs)
        write_text(told(), output, force) if form is Format.text else write_table(table, form, output, force)
        return
    if per is not Per.trace or costs is not None:
        raise Unusable("--per and --costs are about several traces", hint=_HOW)
    (recorded,) = read(before)

    from tracetool.comparing import compare
    from tracetool.report import compare as report

    comparison = compare(recorded, *names)
    if form is Format.text:
        write_text(report.text(comparison), output, force)
        return
    write_table(comparison.differences, form, output, force)
    if not comparison.differences.height:
        typer.echo(report.why_none(comparison), err=True)


def _before_after(
    before: Iterator[Trace], after: Iterator[Trace], policy: str, per: Per, costs: str | None
) -> tuple[Callable[[], str], pl.DataFrame]:
    """The comparison of two sides, as text when it is asked for, and as a table."""
    from tracetool.before_after import before_after
    from tracetool.costs.prices import load
    from tracetool.report import before_after as report

    told = before_after(before, after, policy, load(costs), per.value)
    return lambda: report.text(told), told.table


def _sides(traces: list[str], after: list[str], policies: list[str]) -> tuple[list[str], list[str]]:
    """The traces before, and those after; of one trace, on which policies are compared, none after.

    Raises:
        Unusable: that is neither one trace and two policies, nor two sides and at most one.
    """
    if not traces:
        raise Unusable("compare wants a trace" + (" before --with" if after else ""), hint=_HOW)
    if len(traces) == 2 and not after:
        traces, after = traces[:1], traces[1:]
    if not after and len(traces) > 1:
        raise Unusable(f"{len(traces)} traces, and nothing says which of them are before and which after", hint=_HOW)
    if not after and len(policies) != 2:
        told = f"compare wants two policies, not {len(policies)}, or two traces"
        raise Unusable(told, hint=f"--policy mapcount --policy page-count; observed, what the traced kernel did, is one, too; or {_HOW}")
    if after and len(policies) > 1:
        raise Unusable(f"before and after are compared as observed or under one policy, not {len(policies)}", hint=_HOW)
    places = [os.path.realpath(name) if name != "-" else name for name in (*traces, *after)]
    for name, place in zip((*traces, *after), places, strict=True):
        if after and places.count(place) > 1:
            raise Unusable("is named twice: a trace is no repeat of itself", path=name, hint=_HOW)
    return traces, after
