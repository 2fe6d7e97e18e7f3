"""The errors of the whole project: one base, with the place in the file and a hint apart from the message."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import ClassVar, Self

#: How many names an error lists; a trace can hold formats of thousands of events.
LISTED = 12


class TraceError(Exception):
    """Anything that tracetool reports to its user instead of a traceback.

    `str(error)` is one line: the path, what is wrong, and the byte where it is wrong. `hint` says what to do and is printed apart.

    Attributes:
        message: what is wrong, without the place.
        path: the file it is about, None where no file is.
        offset: byte offset in that file, None where it cannot be told.
        event: name of the event that it is about.
        hint: what the user can do.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        offset: int | None = None,
        event: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.offset = offset
        self.event = event
        self.hint = hint

    def __str__(self) -> str:
        line = self.message if self.path is None else f"{self.path}: {self.message}"
        if self.offset is not None:
            line += f" (at byte {self.offset})"
        return " ".join(line.split())


class ParseError(TraceError):
    """The bytes are not what the format says."""


class UnknownEvent(TraceError):
    """The trace has no event, field or buffer of that name; the hint names the nearest and lists what there is."""

    @classmethod
    def among(cls, noun: str, name: str, known: Collection[str], *, path: str | None = None, event: str | None = None) -> Self:
        """The error for `name` that is not in `known`; `noun` says what it was to be: "event", "field of mm_fault", "buffer"."""
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        listed = sorted(known)[:LISTED]
        more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
        hint += f"there is: {', '.join(listed)}{more}" if listed else "there is none"
        return cls(f"no {noun} {name!r}", path=path, event=event, hint=hint)
