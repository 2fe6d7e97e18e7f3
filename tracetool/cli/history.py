"""`tracetool history`: what happened to one page frame, or at one address of a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tracetool.cli.app import InputFormatOption, StrictOption, TraceFile, opened
from tracetool.cli.output import ForceOption, Format, FormatOption, OutputOption, write_table, write_text
from tracetool.errors import Unanswerable, Unusable

if TYPE_CHECKING:
    import polars as pl


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

    As text it is told; the other formats are a table.

    Example: tracetool history trace.dat --pid 218 --address 0x7f6534000000
    """
    if pfn is None and (pid is None or address is None):
        raise Unusable("history wants a page frame or an address", hint="--pfn PFN, or --pid N --address A")
    recorded = opened(trace, input_format, strict)
    frame = recorded.replay(policy).history_of(pfn=pfn, pid=pid, address=address)
    if not frame.height:
        asked = {"frame": pfn, "address": address, "process": pid}
        what = ", ".join(f"{name} {value if name == 'process' else hex(value)}" for name, value in asked.items() if value is not None)
        hint = "only anonymous memory is replayed: tracetool pages lists what is known at a moment"
        raise Unanswerable(f"nothing is known of {what}", path=trace, hint=hint)
    if form is Format.text:
        write_text(_told(frame), output, force)
    else:
        write_table(frame, form, output, force)


def _told(frame: pl.DataFrame) -> str:
    from tracetool.foreign import printable

    start = next((ts for ts in frame["ts"].to_list() if ts is not None), 0)
    lines = [f"from {start} ns of the trace's clock:"]
    for ts, text in frame.select("ts", "text").iter_rows():
        when = "before" if ts is None else f"+{(ts - start) / 1e6:.3f} ms"
        lines.append(f"{when:>15}  {printable(text)}")
    return "\n".join(lines) + "\n"
