"""Trace: a recorded trace, opened; everything that can be asked of it hangs on this."""

from __future__ import annotations

import fnmatch
import functools
import os
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool.errors import Unanswerable
from tracetool.memory_events import MemoryEvents, Op, memory_events
from tracetool.policies import policy as policy_named
from tracetool.processes import processes
from tracetool.replay import OBSERVED, Replay, rebuild
from tracetool.replay.history import History
from tracetool_parsers import RawTrace, open_trace

if TYPE_CHECKING:
    from tracetool.policies import Policy


class Trace:
    """A recorded trace. Nothing but metadata is read before the first question; answers are kept.

    Example:
        >>> trace = tracetool.open("fixtures/mail-6.1.dat")                                  # doctest: +SKIP
        >>> trace.events("page_fault_user").filter(pl.col("error_code") == 7).collect()      # doctest: +SKIP
        >>> trace.replay("page-count").ownership.collect()                                   # doctest: +SKIP
    """

    def __init__(self, raw: RawTrace) -> None:
        self.raw = raw
        self._replays: dict[str, Replay] = {}

    def __repr__(self) -> str:
        metadata = self.raw.metadata
        return f"<Trace {metadata.path}: {metadata.format}, kernel {metadata.kernel or 'not said'}>"

    def events(self, name: str) -> pl.LazyFrame:
        """The raw events of one name: `ts` (ns), `cpu`, `tid`, `comm` and the event's own fields; raises UnknownEvent."""
        frame = pl.from_arrow(self.raw.table(name))
        assert isinstance(frame, pl.DataFrame)
        return frame.lazy()

    @functools.cached_property
    def _memory_events(self) -> MemoryEvents:
        return memory_events(self.raw, self.raw.metadata.kernel)

    def memory_events(self) -> pl.LazyFrame:
        """What happened to which page (`schema.MEMORY_EVENTS`)."""
        return self._memory_events.table()

    @functools.cached_property
    def processes(self) -> pl.DataFrame:
        """Which thread was which process, by what name, on which memory (`schema.PROCESSES`)."""
        return processes(self._memory_events, self.raw)

    @functools.cached_property
    def history(self) -> History:
        """The observed replay as arrays; policies replay it."""
        return rebuild(self._memory_events)

    def replay(self, policy: str | Policy = OBSERVED) -> Replay:
        """Replay as the traced kernel did (`observed`), or under a policy; raises UnknownName for a policy that does not exist."""
        name = policy if isinstance(policy, str) else policy.name
        if name not in self._replays:
            decided = None if name == OBSERVED else policy_named(policy) if isinstance(policy, str) else policy
            self._replays[name] = Replay(self.history, self.processes, decided, self._losses)
        return self._replays[name]

    @functools.cached_property
    def _losses(self) -> npt.NDArray[np.int64]:
        """From when to when events are missing (ns); a bound that is not known is the furthest there is."""
        table, limits = self.raw.losses, np.iinfo(np.int64)
        return np.stack(
            [table.column("from_ns").fill_null(limits.min).to_numpy(), table.column("to_ns").fill_null(limits.max).to_numpy()], axis=1
        )

    def marks(self) -> pl.DataFrame:
        """What programs wrote to trace_marker: `event` (row of the memory events), `ts` (ns), `text`."""
        events = self._memory_events
        rows = np.flatnonzero(events.op == int(Op.MARK))
        if not rows.size:
            return pl.DataFrame(schema={"event": pl.Int64, "ts": pl.Int64, "text": pl.String})
        text = pl.Series("text", self.raw.table("print", ["buf"]).column("buf").to_pylist(), dtype=pl.String)
        return pl.DataFrame(
            {"event": rows.astype(np.int64), "ts": events.ts[rows], "text": text.gather(events.source_row[rows])}
        ).with_columns(pl.col("text").str.strip_chars_end())

    def pages_at_marks(self, pattern: str, policy: str = OBSERVED, pid: int | None = None) -> pl.DataFrame:
        """Every known page at each mark whose text matches the glob `pattern`, one group of rows a mark (`schema.PAGES`).

        Raises:
            Unanswerable: no mark matches; the hint lists some that there are.
        """
        marks = self.marks()
        chosen = [row for row in marks.iter_rows() if fnmatch.fnmatchcase(row[2], pattern)]
        if not chosen:
            texts = marks["text"].unique(maintain_order=True).to_list()
            hint = (
                f"there are, for example: {'; '.join(texts[:5])}"
                if texts
                else "programs write marks to tracefs' trace_marker; this trace has none"
            )
            raise Unanswerable(f"no mark matches {pattern!r}", path=self.raw.metadata.path, hint=hint)
        replay = self.replay(policy)
        return pl.concat([replay.pages_after(event, ts, pid, text) for event, ts, text in chosen])


def open(path: str | os.PathLike[str], *, input_format: str | None = None, strict: bool = False) -> Trace:
    """Open a recorded trace.

    Args:
        path: the file, plain or compressed; "-" is standard input.
        input_format: a name of `tracetool_parsers.sniff.Format`; None: what the first bytes say.
        strict: whether damage is an error instead of a loss.

    Raises:
        TraceError: the file is missing, no trace, or damaged in a way that leaves nothing to read.
    """
    return Trace(open_trace(path, input_format=input_format, strict=strict))
