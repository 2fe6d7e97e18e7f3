"""The replay, warm: raw events to memory events, memory events to the observed history, the history under each policy."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from benchmarks.processes import run
from benchmarks.results import Figure, Speed
from tracetool.errors import TraceError
from tracetool.memory_events import MemoryEvents, Op, memory_events
from tracetool.policies import POLICIES
from tracetool.replay import columns as k
from tracetool.replay.columns import S_FROM, S_TO, Events
from tracetool.replay.history import History, _empty, _larger, rebuild
from tracetool.replay.observed import observe
from tracetool.replay.simulated import replay_steps
from tracetool_parsers import open_trace

T = TypeVar("T")

#: Seconds that so many memory events may take.
_TARGET: Final = 0.2
_OF: Final = 2_000_000
#: Memory events of which a policy is to decide in a second.
_DECIDED: Final = 10_000_000
#: What `Events` has, as `MemoryEvents` calls it; the arrays that end up in a `History`.
_COLUMNS: Final = ("op", "mm", "address", "pages", "first_frame", "frames", "flags", "arg", "thread")
_RETURNED: Final = ("places", "stays", "refs", "decisions", "steps")


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
    return figures + measure_policies(history, runs)


def measure_policies(history: History, runs: int, of: str = "the history") -> list[Figure]:
    """Each policy alone, and all of them with what they share (LRU batches, folios), which is worked out once."""
    events, figures = len(history.events), []
    for policy in POLICIES.values():
        seconds, _ = _timed(runs, functools.partial(replay_steps, history, policy))
        fast = Speed("10 million memory events/s", events / statistics.median(seconds) / _DECIDED, 1)
        figures.append(Figure("replay", f"{of} under `{policy.name}`", seconds, events=events, against=(fast,)))

    def together() -> None:
        # Another history of the same arrays, which has worked out nothing yet.
        fresh = dataclasses.replace(history)
        for policy in POLICIES.values():
            replay_steps(fresh, policy)

    alone = sum(figure.median for figure in figures)
    seconds, _ = _timed(runs, together)
    shared = statistics.median(seconds) - alone
    what = f"{of} under all {len(POLICIES)} policies; {max(shared, 0):.3f} s of it is done once for all"
    return [*figures, Figure("replay", what, seconds, events=events)]


def measure_random_replay(events: int, runs: int) -> list[Figure]:
    """The observed replay of a made-up random history of about so many memory events, and what it takes beside its input and its tables.

    Raises:
        TraceError: tracetool itself fails.
    """
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "random.dat"
        command = [sys.executable, "-c", "from tracetool.cli import main; main()", "synth", "random"]
        finished = run([*command, "--events", str(events * 3 // 2), "-o", str(path)])
        if finished.code:
            raise TraceError(f"tracetool synth ended with exit code {finished.code}", hint="what it said is above")
        raw = open_trace(path)
        made = memory_events(raw, raw.metadata.kernel)
    seconds, history = _timed(runs, functools.partial(rebuild, made))
    allowed = _TARGET * len(made) / _OF
    fast = Speed("0.2 s for 2 million", allowed / statistics.median(seconds), 1)
    taken, bound = working_memory(made, history)
    what = "random history: memory events to the observed history"
    observed = Figure("replay", what, seconds, len(made), max_anon=taken, bound=bound, against=(fast,))
    return [observed, *measure_policies(history, runs, "random history")]


def working_memory(events: MemoryEvents, history: History) -> tuple[int, int]:
    """Bytes of the arrays that the replay works with and does not return, and 64 for each page at the fullest moment and 8 an event.

    Of `pages`, whose room is mapped and not touched before it is used, what is used.
    """
    world, position = _empty(events), 0
    columns = Events(*(getattr(events, name) for name in _COLUMNS))
    says_write = int(((events.op == int(Op.COW_END)) & (events.arg & 8 != 0)).any())
    while (position := observe.run(len(events), world, columns, position, len(events), says_write)) < len(events):
        world = _larger(world)
    arrays = {name: getattr(world, name) for name in world._fields if name not in _RETURNED}
    working = sum(array.nbytes for array in (arrays | {"pages": world.pages[: world.counts[k.PAGES]]}).values())
    begun, ended = (np.bincount(history.stays[:, column] + 1, minlength=len(events) + 2) for column in (S_FROM, S_TO))
    ended[0] = 0
    return working, 64 * int(np.cumsum(begun - ended).max()) + 8 * len(events)


def _timed(runs: int, stage: Callable[[], T]) -> tuple[list[float], T]:
    made = stage()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        made = stage()
        seconds.append(time.perf_counter() - start)
    return seconds, made
