"""Trace: a recorded trace, opened; everything that can be asked of it hangs on this."""

from __future__ import annotations

import fnmatch
import functools
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool import notebook
from tracetool.agreement import Judged, judge, of_recording
from tracetool.errors import TraceError, Unanswerable
from tracetool.memory_events import MemoryEvents, Op, memory_events
from tracetool.policies import KERNEL, of_kernel
from tracetool.policies import policy as policy_named
from tracetool.processes import processes
from tracetool.replay import OBSERVED, Replay, rebuild
from tracetool.replay.history import History
from tracetool_parsers import RawTrace, open_trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracetool.outcomes import Agreement, Kernel
    from tracetool.policies import Policy


class Trace:
    """A recorded trace. Nothing but metadata is read before the first question; answers are kept.

    Example:
        >>> import tracetool
        >>> trace = tracetool.open("fixtures/mail-6.1.dat")
        >>> trace
        <Trace fixtures/mail-6.1.dat: trace.dat v7, kernel 6.1.0-53-amd64>
        >>> trace.replay("page-count").policy
        'page-count'
    """

    def __init__(self, raw: RawTrace) -> None:
        self.raw = raw
        self._replays: dict[str, Replay] = {}

    def __repr__(self) -> str:
        metadata = self.raw.metadata
        return f"<Trace {metadata.path}: {metadata.format}, kernel {metadata.kernel or 'not said'}>"

    def _repr_html_(self) -> str:
        """What the trace says of itself, and how often each event occurs; its events are read for that."""
        metadata = self.raw.metadata
        told = {"format": metadata.format, "kernel": metadata.kernel, "clock": metadata.clock, "CPUs": metadata.cpus}
        try:
            counts = sorted(self.raw.counts().items(), key=lambda each: (-each[1], each[0]))
            first, last = self.raw.span() or (None, None)
            told |= {"events": sum(count for _, count in counts), "from [ns]": first, "to [ns]": last, "losses": self.raw.losses.num_rows}
            listed = notebook.table("Events", ("event", "records"), counts)
        except TraceError as error:
            listed = notebook.facts({"error": str(error), "hint": error.hint})
        return notebook.fragment(f"Trace {metadata.path}", notebook.facts(told), listed)

    def events(self, name: str) -> pl.LazyFrame:
        """The raw events of one name, as a polars LazyFrame, in the order of the trace.

        Columns: `ts` (Int64, ns of the trace's clock), `cpu` (Int32), `tid` (Int32, the thread), `comm` (Categorical), where the format has
        them `buffer`, `tgid`, `callchain`; then the event's own fields with the kernel's width and sign: addresses are UInt64, in bytes.

        Raises:
            UnknownEvent: the trace has no such event; the hint lists those that it has.

        Example:
            >>> import tracetool, polars as pl
            >>> faults = tracetool.open("fixtures/mail-6.1.dat").events("page_fault_user")
            >>> faults.filter(pl.col("error_code") == 7).select(pl.len()).collect().item()  # writes to present pages by a program
            16
        """
        frame = pl.from_arrow(self.raw.table(name))
        assert isinstance(frame, pl.DataFrame)
        return frame.lazy()

    @functools.cached_property
    def _memory_events(self) -> MemoryEvents:
        return memory_events(self.raw, self.raw.metadata.kernel)

    def memory_events(self) -> pl.LazyFrame:
        """What happened to which page, as a polars LazyFrame (`schema.MEMORY_EVENTS`), one row an event, in the order of the trace.

        Columns: `ts` (ns of the trace's clock), `cpu`, `tid`, `op` (Enum: map_new, fork, cow_begin, ...), `mm` (number of the address
        space), `address` (bytes), `pages` (from there on), `pfn` (page frame number, 0: none), `flags`, `arg`; `source` and `source_row`:
        the raw event that says so, and its row. Other tables name memory events by their row.

        Example:
            >>> import tracetool, polars as pl
            >>> events = tracetool.open("fixtures/mail-6.1.dat").memory_events()
            >>> events.filter(pl.col("op") == "fork").select("tid", "source").collect().rows()  # the parent's thread
            [(115, 'fork_range')]
        """
        return self._memory_events.table()

    @functools.cached_property
    def processes(self) -> pl.DataFrame:
        """Which thread was which process, by what name, on which memory, as a polars DataFrame (`schema.PROCESSES`).

        One row a stretch of a thread's life. Columns: `tid`, `pid` (the process), `comm`, `mm` (number of the address space), `parent`
        (tid; null: older than the trace), `how` it began, `from_ns`, `to_ns` (ns of the trace's clock; null: before it, or to its end).

        Example:
            >>> import tracetool, polars as pl
            >>> processes = tracetool.open("fixtures/mail-6.1.dat").processes
            >>> processes.filter(how="fork").select("pid", "comm", "parent").rows()
            [(116, 'cowlab', 115)]
        """
        return processes(self._memory_events, self.raw)

    @functools.cached_property
    def history(self) -> History:
        """The observed replay as arrays; policies replay it."""
        return rebuild(self._memory_events)

    def replay(self, policy: str | Policy = OBSERVED) -> Replay:
        """Replay as the traced kernel did (`observed`), or under a policy, by its name or your own.

        Raises:
            UnknownName: a policy does not exist; the hint lists those that do.

        Example:
            >>> import tracetool
            >>> trace = tracetool.open("fixtures/mail-6.1.dat")
            >>> [trace.replay(policy).faults.collect().filter(decision="copy").height for policy in ("observed", "mapcount")]
            [11, 10]
        """
        name = policy if isinstance(policy, str) else policy.name
        if name == OBSERVED:
            return self._replayed(name, None)
        decided = self.decided_by(policy_named(policy) if isinstance(policy, str) else policy)
        return self._replayed(decided.name, decided)

    def _replayed(self, name: str, policy: Policy | None) -> Replay:
        if name not in self._replays:
            self._replays[name] = Replay(self.history, self.processes, policy, self.losses)
        return self._replays[name]

    @functools.cached_property
    def kernel(self) -> Kernel:
        """Which policy the traced kernel had, as its decisions show."""
        return of_recording(self.history, self.judged, self.raw.metadata.kernel)

    @functools.cached_property
    def judged(self) -> Judged:
        """What the built-in policies, and the one that the kernel's release names, say to each recorded decision."""
        named = of_kernel(self.raw.metadata.kernel)
        return judge(self.history, [named] if named else [], self.losses)

    def agreements(self, asked: Sequence[Policy]) -> list[Agreement]:
        """How well each policy decides as the traced kernel did; `kernel` is the one that `decided_by` gives."""
        names = [self.kernel.policy if p.name == KERNEL else p.name for p in asked]
        others = [p for p, name in zip(asked, names, strict=True) if self.judged.policies.get(name) != p and p.name != KERNEL]
        judged = judge(self.history, [*self.judged.policies.values(), *others], self.losses) if others else self.judged
        return judged.agreements(names)

    def decided_by(self, policy: Policy) -> Policy:
        """The policy itself; in the place of `kernel` that of this recording, under that name."""
        if policy.name != KERNEL:
            return policy
        found = policy_named(self.kernel.policy)
        return replace(found, name=KERNEL, checked_on=f"as {found.name}: {found.checked_on}")

    @functools.cached_property
    def losses(self) -> npt.NDArray[np.int64]:
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

    Example:
        >>> import tracetool
        >>> tracetool.open("fixtures/mail-6.1.dat").raw.metadata.clock
        'global'
    """
    return Trace(open_trace(path, input_format=input_format, strict=strict))
