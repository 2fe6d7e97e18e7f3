"""What reports for a terminal are made of: text that changes nothing where it is shown, in rich's words, folded to a width.

Strings of a trace are shown as text: control characters as escapes, markup and the names of emojis as they are written.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Final, TextIO

from tracetool.foreign import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

STYLES: Final = {"defect": "bold red", "possible": "yellow", "inconclusive": "yellow", "clean": "green", "info": ""}
#: A word is never alone in telling what is wrong, nor is a colour: each has its shape.
SHAPES: Final = {"defect": "✖", "possible": "▲", "inconclusive": "▲", "clean": "✔", "info": "•"}
#: What a story comes to.
CALLED: Final = {"clean": "safe", "defect": "UNSAFE", "inconclusive": "not settled"}
#: What pipes and files get: as wide as most terminals are, and always the same.
PLAIN_WIDTH: Final = 100
_WIDEST, _NARROWEST = 120, 40
#: Characters of drawings and shapes, and what is as wide in ASCII.
_ASCII: Final = str.maketrans(
    {
        "✖": "!", "▲": "?", "✔": "+", "•": "*", "─": "-", "├": "[", "┤": "]", "═": "=", "╞": "<", "╡": ">", "│": "|", "▒": "#", "┼": "+",
        "◀": "<", "▶": ">", "µ": "u", "…": "~", "┬": "'",
    }
)  # fmt: skip


def is_colourful(stream: TextIO) -> bool:
    """Whether a stream is a terminal that is to have colours (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width_of(stream: TextIO) -> int:
    """Columns of the terminal behind a stream, within reason; PLAIN_WIDTH where there is none."""
    if not stream.isatty():
        return PLAIN_WIDTH
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return min(max(columns or 80, _NARROWEST), _WIDEST)


def draws(stream: TextIO) -> bool:
    """Whether the encoding of a stream has the characters of drawings."""
    try:
        "".join(map(chr, _ASCII)).encode(stream.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def in_ascii(text: str) -> str:
    r"""The same in ASCII: drawings by characters that are as wide, all else as escapes.

    >>> in_ascii("├─✖ 2.00 µs é")
    '[-! 2.00 us \\xe9'
    """
    return text.translate(_ASCII).encode("ascii", "backslashreplace").decode()


def console(width: int, color: bool) -> Console:
    """A console of rich that writes to a string, whatever the environment says."""
    from rich.console import Console

    # Height is given too: without it rich asks the terminal, and a dumb one overrules the width.
    return Console(
        file=io.StringIO(), width=width, height=50, force_terminal=color, no_color=not color, color_system="standard" if color else None,
        markup=False, emoji=False, highlight=False, legacy_windows=False,
    )  # fmt: skip


def written(console: Console) -> str:
    """What a console of `console` got; without colours no line ends in spaces."""
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text if console.is_terminal else "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def plain(foreign: str, style: str = "") -> Text:
    """Foreign text."""
    from rich.text import Text

    return Text(printable(foreign), style)


def line(text: str, style: str = "") -> Text:
    """A line, with line breaks before it: every other control character came from the trace."""
    from rich.text import Text

    body = text.lstrip("\n")
    return Text("\n" * (len(text) - len(body)) + printable(body), style)


def hanging(lead: str, foreign: str, style: str) -> Table:
    """Text that is folded beside its lead."""
    from rich.table import Table

    grid = Table.grid(padding=0)
    grid.add_column(no_wrap=True, width=len(lead))
    grid.add_column(ratio=1, overflow="fold")
    grid.add_row(plain(lead), plain(foreign, style))
    return grid


def folded(console: Console, foreign: str, most: int, style: str = "", lead: str = "", head: str = "") -> list[Text]:
    """Foreign text in at most so many lines, with `lead` before them, or `head` before the first; what is left out shows as `...`."""
    from rich.text import Text

    width = max(console.width - len(lead), 8)
    lines = list(plain(foreign).wrap(console, width, overflow="fold"))
    if len(lines) > most:
        lines = lines[:most]
        if cut := lines[-1].cell_len > width - 4:
            lines[-1].truncate(width - 4)
        lines[-1] = plain(f"{lines[-1].plain.rpartition(' ')[0] if cut else lines[-1].plain.rstrip()} ...")
    made = []
    for number, each in enumerate(lines):
        each.rstrip()
        made.append(Text.assemble(head if head and not number else lead, (each.plain, style)))
    return made


def count(number: int) -> str:
    """A number in at most six columns."""
    for unit, scale in (("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)):
        if abs(number) >= 100_000 and abs(number) >= scale:
            return f"{number / scale:.3g}{unit}" if abs(number) < 1000 * scale * 0.9995 else f"{number / scale:.0f}{unit}"
    return f"{number:,}"
