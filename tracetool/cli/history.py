"""`tracetool history`: what happened to one page frame, or at one address of a process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tracetool.cli.app import InputFormatOption, StrictOption, TraceFile, opened
from tracetool.cli.output import ForceOption, Format, FormatOption, OutputOption, write_table, write_text
from tracetool.errors import Unanswerable, Unusable

if TYPE_CHECKING:
    import polars as pl

    from tracetool.replay import Replay
    from tracetool.trace import Trace


def _number(text: str) -> int:
    """A number in decimal or, after 0x, in hexadecimal."""
    try:
        return int(text, 0)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no number") from error


def run(
    trace: TraceFile,
    pfn: Annotated[
        int | None, typer.Option("--pfn", metavar="PFN", parser=_number, help="A page frame, by its number.", show_default=False)
    ] = None,
    pid: Annotated[int | None, typer.Option("--pid", metavar="N", help="A process; with --address.", show_default=False)] = None,
    address: Annotated[
        int | None, typer.Option("--address", metavar="A", parser=_number, help="A virtual address of it.", show_default=False)
    ] = None,
    policy: Annotated[str, typer.Option("--policy", metavar="NAME", help="Under this policy.")] = "observed",
    form: FormatOption = Format.text,
    output: OutputOption = "-",
    force: ForceOption = False,
    input_format: InputFormatOption = None,
    strict: StrictOption = False,
) -> None:
    """The life of one page frame, or of one address: who mapped it, who referenced it, what was decided about it, in order.

    As text it is drawn and told, with who else had its pages; the other formats are a table.

    Example: tracetool history trace.dat --pid 218 --address 0x7f6534000000
    """
    if pfn is None and (pid is None or address is None):
        raise Unusable("history wants a page frame or an address", hint="--pfn PFN, or --pid N --address A")
    recorded = opened(trace, input_format, strict)
    replay = recorded.replay(policy)
    frame = replay.history_of(pfn=pfn, pid=pid, address=address)
    if not frame.height:
        asked = {"frame": pfn, "address": address, "process": pid}
        what = ", ".join(f"{name} {value if name == 'process' else hex(value)}" for name, value in asked.items() if value is not None)
        hint = "only anonymous memory is replayed: tracetool pages lists what is known at a moment"
        raise Unanswerable(f"nothing is known of {what}", path=trace, hint=hint)
    if form is Format.text:
        write_text(_drawn(recorded, replay, frame, output == "-"), output, force)
    else:
        write_table(frame, form, output, force)


def _drawn(trace: Trace, replay: Replay, life: pl.DataFrame, to_terminal: bool) -> str:
    """The life as text, with a drawing of all who had to do with its pages."""
    from tracetool.judging import found
    from tracetool.report import history, terminal
    from tracetool.report.storyline import Danger
    from tracetool.stories import tell_life

    pages = life["page_id"].drop_nulls().unique().to_list()
    telling, unsafe = None, tuple[Danger, ...]()
    if pages:
        findings = found(trace, replay)
        telling = tell_life(replay, findings, pages)
        defects = (
            findings.filter(findings["page_id"].is_in(list(telling.names)), severity="defect").drop_nulls("from_ns").sort("from_ns", "id")
        )
        unsafe = tuple(dict.fromkeys(Danger(*row) for row in defects.select("rule", "certainty", "from_ns", "to_ns").iter_rows()))
    if not to_terminal:
        return history.text(life, telling, unsafe)
    return history.text(life, telling, unsafe, terminal.width_of(sys.stdout), ascii_only=not terminal.draws(sys.stdout))
