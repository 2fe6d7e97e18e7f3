"""Foreign text (names of programs, events, files) as text that changes nothing where it is shown."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""`text` with control, direction-changing and undecodable characters as escapes.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
