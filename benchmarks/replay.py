"""The replay, warm: raw events to memory events, memory events to the observed history, the history under each policy."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.results import Figure
from tracetool.memory_events import memory_events
from tracetool.policies import POLICIES
from tracetool.replay.history import rebuild
from tracetool.replay.simulated import replay_steps
from tracetool_parsers import open_trace

T = TypeVar("T")


def measure_replay(path: Path, runs: int) -> list[Figure]:
    """Each stage of the replay, `runs` times, after a run that is not counted.

    The records of the trace are found before; decoding the fields that the memory events need is a part of these. Each figure counts
    the events that go in: raw events first, memory events then.
    """
    raw = open_trace(path)
    raw.span()
    first, events = _timed(runs, functools.partial(memory_events, raw, raw.metadata.kernel))
    second, history = _timed(runs, functools.partial(rebuild, events))
    figures = [
        Figure("replay", "raw events to memory events", first, events=sum(raw.counts().values())),
        Figure("replay", "memory events to the observed history", second, events=len(events)),
    ]
    for policy in POLICIES.values():
        seconds, _ = _timed(runs, functools.partial(replay_steps, history, policy))
        figures.append(Figure("replay", f"the history under `{policy.name}`", seconds, events=len(events)))
    return figures


def _timed(runs: int, stage: Callable[[], T]) -> tuple[list[float], T]:
    made = stage()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        made = stage()
        seconds.append(time.perf_counter() - start)
    return seconds, made
