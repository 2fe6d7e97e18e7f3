"""Walks through the records of a perf.data piece by piece, over damage, so that only what a round needs is held."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .perfrecords import (
    AT,
    BROKEN,
    CUT_OFF,
    DISORDER,
    DONE,
    FLUSHED,
    FULL,
    LATEST,
    MOST_CPUS,
    QUEUED,
    ROUND,
    ROUND_OVER,
    STOP,
    Ids,
    Layouts,
    Queue,
    new_state,
    next_whole,
    scan,
)
from .perfstream import TRUNCATED, Records
from .progress import stage
from .workers import aside

Array = npt.NDArray[Any]

DAMAGED: Final = "damaged record"
#: Records that are queued at a time, if a round is not longer.
_QUEUE: Final = 1 << 18
#: After so many damaged places the rest is not looked at.
_MOST_GAPS: Final = 1000
_NEVER: Final = (1 << 63) - 1


def _nobody(order: Array, queue: Queue) -> None:
    """Takes nothing."""


@dataclass
class Gap:
    """A damaged place.

    Attributes:
        source: what it is, as in the losses table.
        word: where it begins.
        after, before: between which times (ns) what is lost there was made; None: no bound.
    """

    source: str
    word: int
    after: int | None = None
    before: int | None = None


@dataclass
class Walk:
    """One way through the records.

    Attributes:
        records: the records.
        layouts, ids: of their attributes.
        keep: int64, for each source whether its records are delivered.
        deliver: takes numbers of queued records in the order of delivery, and the queue.
        counts, shortest: for each source how many records there were, and the bytes of its shortest body.
        state: of the scan.
        gaps: damaged places.
    """

    records: Records
    layouts: Layouts
    ids: Ids
    keep: Array
    deliver: Callable[[Array, Queue], None]
    counts: Array = field(init=False)
    shortest: Array = field(init=False)
    state: Array = field(init=False)
    gaps: list[Gap] = field(default_factory=list)
    _delivery: Future[None] | None = None
    _spare: Queue | None = None

    def run(self) -> None:
        """Go through all records."""
        records, sources = self.records, len(self.keep)
        self.counts, self.shortest = np.zeros(sources, np.int64), np.full(sources, 1 << 32, np.int64)
        self.state = new_state(records.begin)
        cpus = np.zeros(MOST_CPUS, np.int64)
        items = records.end - records.begin
        queue = Queue.room(min(_QUEUE, items // 2 + 1))
        try:
            with stage("reading", 4 * items, "bytes", lambda: 4 * (int(self.state[AT]) - records.begin)):
                self._run(queue, cpus)
        finally:
            # What is being delivered is written to what the caller has.
            if self._delivery is not None:
                self._delivery.exception()
        # What remains of a walk is kept by the one who asked for it, and `deliver` knows that one: a circle that would keep the queue, too.
        self._delivery = self._spare = None
        self.deliver = _nobody

    def _run(self, queue: Queue, cpus: Array) -> None:
        records, state = self.records, self.state
        items = records.end - records.begin
        while True:
            # A record takes some 20 words.
            why = scan.run(
                items // 20, records.words, records.end, self.layouts, self.ids, self.keep, state, queue, self.counts, self.shortest, cpus
            )
            if why == FULL:
                queue = self._release(queue, everything=False)
            elif why == ROUND_OVER:
                for gap in self.gaps:
                    gap.before = int(state[LATEST]) if gap.before is None else gap.before
                state[STOP] = 0
            elif why in (BROKEN, CUT_OFF) and self._skip(why):
                state[STOP] = 1
            else:
                break
        if why == DONE and records.damage:
            self.gaps += [Gap(source, -1, int(state[FLUSHED]) or None) for source, _ in records.damage if source == TRUNCATED]
        self._release(queue, everything=True)

    def _release(self, queue: Queue, *, everything: bool) -> Queue:
        """Deliver what is final; returns a queue with the rest in it, and with room for as many again.

        Records are delivered by another thread, while this one looks for the next.
        """
        state = self.state
        count = int(state[QUEUED])
        until = _NEVER if everything else 2 * int(state[ROUND])
        is_final = queue.turns[:count] <= until
        final, left = np.flatnonzero(is_final), np.flatnonzero(~is_final)
        times = queue.times[final]
        order = final[np.lexsort((times, queue.turns[final])) if state[DISORDER] else np.argsort(times, kind="stable")]
        self._wait()
        spare = self._spare if self._spare is not None and len(self._spare.starts) >= 2 * left.size else Queue.room(max(_QUEUE, 2 * count))
        for old, new in zip(queue, spare, strict=True):
            new[: left.size] = old[left]
        state[QUEUED] = left.size
        self._spare = queue
        self._delivery = aside(self.deliver, order, queue)
        if everything:
            self._wait()
        return spare

    def _wait(self) -> None:
        if self._delivery is not None:
            self._delivery.result()

    def _skip(self, why: int) -> bool:
        """Step over damage; returns whether anything whole follows."""
        state, records = self.state, self.records
        at = int(state[AT])
        found = -1
        if len(self.gaps) < _MOST_GAPS and at + 2 < records.end:
            found = next_whole.run(records.end - at, records.words, at + 2, records.end, self.layouts.swapped)
        source = TRUNCATED if why == CUT_OFF and found < 0 else DAMAGED
        self.gaps.append(Gap(source, at, int(state[FLUSHED]) or None))
        if found < 0:
            return False
        state[AT] = found
        return True
