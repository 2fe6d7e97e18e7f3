"""What is asked of a trace or a replay several times and worked out once."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


def once(function: Callable[[K], T]) -> Callable[[K], T]:
    """The same function, which keeps its answer for as long as what it is asked of is there: neither traces nor replays change."""
    kept: weakref.WeakKeyDictionary[K, T] = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def kept_or_made(of: K) -> T:
        if of not in kept:
            kept[of] = function(of)
        return kept[of]

    return kept_or_made
