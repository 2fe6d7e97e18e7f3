"""What is asked of a replay several times and worked out once."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TypeVar

from tracetool.replay import Replay

T = TypeVar("T")


def once(function: Callable[[Replay], T]) -> Callable[[Replay], T]:
    """The same function, which keeps its answer for as long as the replay is there: a replay does not change."""
    kept: weakref.WeakKeyDictionary[Replay, T] = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def kept_or_made(replay: Replay) -> T:
        if replay not in kept:
            kept[replay] = function(replay)
        return kept[replay]

    return kept_or_made
