"""What a notebook shows of a trace, a replay or an analysis: small HTML tables, without scripts, with every string of a trace as text."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from tracetool.foreign import printable

#: Rows of a table that are shown.
ROWS_SHOWN: Final = 10
#: Characters of a cell that are shown.
_WIDEST: Final = 160

_LEFT: Final = "text-align:left;vertical-align:top"
_RIGHT: Final = "text-align:right;vertical-align:top"


def fragment(title: str, *parts: str) -> str:
    """Parts under a title, as a piece of HTML that can stand in any page."""
    return f"<div><p><strong>{escaped(title)}</strong></p>{''.join(parts)}</div>"


def facts(told: Mapping[str, object]) -> str:
    """Names with their values, one a line; those without a value (None) are left out."""
    rows = "".join(f'<tr><th scope="row" style="{_LEFT}">{escaped(name)}</th>{_cell(value)}</tr>' for name, value in told.items() if value)
    return f"<table><tbody>{rows}</tbody></table>" if rows else ""


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of at most ROWS_SHOWN rows, which says how many there are."""
    listed = list(rows)
    shown = listed[:ROWS_SHOWN]
    note = f" (showing {len(shown)} of {len(listed):,})" if len(listed) > len(shown) else ""
    head = "".join(f'<th scope="col" style="{_LEFT}">{escaped(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in shown)
    return f"<table><caption>{escaped(caption)}{note}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def escaped(text: str) -> str:
    """Foreign text as HTML: markup as text, characters that do not print as escapes, and no more of it than fits a cell."""
    clipped = text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
    return html.escape(printable(clipped))


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td style="{_RIGHT}">{value:,}</td>'
    return f'<td style="{_LEFT}">{"" if value is None else escaped(str(value))}</td>'
