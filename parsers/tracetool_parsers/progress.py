"""What is being done, for whoever waits: a stage says how far it is when it is asked, so that the work itself pays nothing for it.

    with stage("reading", size, "bytes", lambda: position):
        ...

Nothing is shown here; `watch` is for the program that does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Unit = Literal["bytes", "events", ""]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Something that takes a while.

    Attributes:
        name: what is done, in a word or two.
        total: how much there is to do; 0: not known.
        unit: of what.
        done: how much of it is done, asked from another thread at any time; None: that cannot be told before the end.
    """

    name: str
    total: int = 0
    unit: Unit = ""
    done: Callable[[], int] | None = None


_stages: list[Stage] = []
_watchers: list[Callable[[], None]] = []


@contextmanager
def stage(name: str, total: int = 0, unit: Unit = "", done: Callable[[], int] | None = None) -> Iterator[None]:
    """Say that something is being done; arguments as the attributes of `Stage`. Stages may lie in each other."""
    here = Stage(name, total, unit, done)
    _stages.append(here)
    try:
        yield
    finally:
        _stages.remove(here)
        for told in _watchers:
            told()


def current() -> Stage | None:
    """The innermost stage of those that are being done, None where nothing is that takes long."""
    return next(iter(_stages[-1:]), None)


@contextmanager
def watch(told: Callable[[], None]) -> Iterator[None]:
    """While this lasts, have `told` called whenever a stage has ended, before anything else is done."""
    _watchers.append(told)
    try:
        yield
    finally:
        _watchers.remove(told)
