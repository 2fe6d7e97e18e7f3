"""Threads that are kept: what one has given back of its memory it takes again, where a new one asks the system for all of it anew."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="tracetool")


# A child process has none of its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def aside(call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
    """Begin a call in another thread."""
    return _pool().submit(call, *args, **kwargs)


def spread(work: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """What `work` makes of each item, by so many threads, of which the caller's is one.

    Not for those threads themselves, which could then wait for each other for ever.

    Raises:
        whatever `work` raises, when all threads have ended.
    """
    made: list[R | None] = [None] * len(items)
    turn = itertools.count()

    def take_turns() -> None:
        while (at := next(turn)) < len(items):
            made[at] = work(items[at])

    others = [aside(take_turns) for _ in range(min(threads, len(items)) - 1)]
    try:
        take_turns()
    finally:
        failures = [failure for other in others if (failure := other.exception()) is not None]
    for failure in failures:
        raise failure
    return cast("list[R]", made)
