"""Plain text in sections: a heading, and rows of a lead and what hangs beside it, wrapped."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tracetool.foreign import printable

DEFAULT_WIDTH: Final = 80
#: Wrapped text keeps at least so many columns, whatever stands before it.
_LEAST: Final = 24


@dataclass(frozen=True)
class Row:
    """`text` beside `lead` (a time, a count); with `indent` more columns to the left."""

    text: str
    lead: str = ""
    indent: int = 0


@dataclass(frozen=True)
class Section:
    """Rows under a heading; leads of one section are as wide as the widest. `wrapped`: else rows are cut where they are too long."""

    title: str
    rows: tuple[Row, ...]
    wrapped: bool = True


def lines(sections: Iterable[Section], width: int = DEFAULT_WIDTH, *, ascii_only: bool = False) -> Iterator[str]:
    """The sections as lines of at most `width` columns, a blank line between them; foreign control characters as escapes.

    `ascii_only`: every other character outside ASCII as an escape, too.
    """
    for number, section in enumerate(section for section in sections if section.rows):
        if number:
            yield ""
        if section.title:
            yield from _wrapped(_clean(section.title, ascii_only), width, "", "")
        lead = max(len(_clean(row.lead, ascii_only)) for row in section.rows)
        for row in section.rows:
            first = " " * (2 + row.indent) + (f"{_clean(row.lead, ascii_only):>{lead}}  " if lead else "")
            text = _clean(row.text, ascii_only)
            if section.wrapped:
                yield from _wrapped(text, width, first, " " * len(first))
            else:
                yield cut(f"{first}{text}", width).rstrip()


def paragraph(text: str, width: int, *, ascii_only: bool = False) -> Iterator[str]:
    """A paragraph without an indent."""
    yield from _wrapped(_clean(text, ascii_only), width, "", "")


def cut(text: str, width: int) -> str:
    """Text of at most `width` columns; what is left out shows as `...`."""
    return text if len(text) <= width else text[: max(width - 3, 0)].rstrip() + "..."


def _clean(text: str, ascii_only: bool) -> str:
    shown = printable(text)
    return shown.replace("µs", "us").encode("ascii", "backslashreplace").decode() if ascii_only else shown


def _wrapped(text: str, width: int, first: str, following: str) -> Iterator[str]:
    filled = textwrap.wrap(text, max(width, len(first) + _LEAST), initial_indent=first, subsequent_indent=following, break_on_hyphens=False)
    for line in filled or [first]:
        yield line.rstrip()
