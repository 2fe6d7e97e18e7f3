"""`tracetool schema`: every table, its columns, types, units and meaning."""

from __future__ import annotations

import typer

from tracetool.schema import TABLES


def run() -> None:
    """Every table that tracetool gives: columns with type, unit and meaning.

    Example: tracetool schema
    """
    for name, table in TABLES.items():
        typer.echo(name)
        for column, what in table.items():
            unit = f" [{what.unit}]" if what.unit else ""
            values = f" ({', '.join(what.values)})" if what.values else ""
            typer.echo(f"  {column:<14} {what.type:<12}{unit} {what.meaning}{values}")
        typer.echo("")
