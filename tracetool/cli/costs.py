"""`tracetool costs`: the cost table of a machine."""

from __future__ import annotations

from typing import Annotated

import typer

from tracetool.cli.output import ForceOption, OutputOption, write_text

costs = typer.Typer(name="costs", no_args_is_help=True, rich_markup_mode=None, help="The cost table: what a machine takes for a copy.")


@costs.callback()
def _group() -> None:
    """The cost table: what a machine takes for a copy."""


def calibrate(
    pages: Annotated[int, typer.Option("--pages", min=256, help="Pages of a batch; four times that is taken for a moment.")] = 1 << 14,
    rounds: Annotated[int, typer.Option("--rounds", min=3, help="How often each kind is measured.")] = 9,
    output: OutputOption = "-",
    force: ForceOption = False,
) -> None:
    """Measure this machine by forking and touching pages, and print a cost table for `cost --costs`.

    Example: tracetool costs calibrate -o here.toml
    """
    # It forks: nothing that keeps threads may have been imported.
    from tracetool.costs.calibrate import measure

    write_text(measure(pages, rounds).toml(), output, force)
