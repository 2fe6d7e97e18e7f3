"""Errors that a user sees as one line and a hint; the base is the parsers' (`TraceError`), so that one place catches all."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from tracetool_parsers.errors import ParseError, TraceError, UnknownEvent

__all__ = ["Exists", "ParseError", "TraceError", "Unanswerable", "UnknownEvent", "UnknownName", "Unusable"]


class UnknownName(UnknownEvent):
    """A policy, rule or format that does not exist; the hint names the nearest and lists what there is."""

    exit_code: ClassVar[int] = 2

    def __init__(self, noun: str, name: str, known: Collection[str]) -> None:
        like = UnknownEvent.among(noun, name, known)
        super().__init__(like.message, hint=like.hint)


class Unusable(TraceError):
    """What was asked for makes no sense as asked (an option's value, a combination)."""

    exit_code: ClassVar[int] = 2


class Unanswerable(TraceError):
    """The trace holds nothing that answers the question; the hint says why."""


class Exists(TraceError):
    """A file that would be overwritten."""

    def __init__(self, path: str) -> None:
        super().__init__("exists already", path=path, hint="--force overwrites it")
