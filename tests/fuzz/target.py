"""What must hold of any input: tables or a ParseError with a place, the same ones compiled and uncompiled, in bounded time and memory."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from types import FrameType
from typing import Final

import pyarrow as pa

from tracetool_parsers import ParseError, RawTrace, open_trace
from tracetool_parsers.sniff import Format

#: No input here is longer than some kilobytes.
_MOST_SECONDS: Final = 20
#: What one input may take: 64 MiB, and 4 bytes for each byte read, of which a compressed input has many more than it is long.
_MOST_BYTES: Final = 64 << 20
_MOST_UNPACKED: Final = 1024

#: Everything a trace says, or the error.
Answer = dict[str, pa.Table] | str


class Hang(Exception):
    """An input took too long."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise Hang(f"more than {_MOST_SECONDS} s")


def ask(path: Path, form: str | None, *, whole: bool = True) -> Answer:
    """All tables and losses of a trace, with `whole` also its order and what else can be asked; or the text of its error.

    Raises:
        AssertionError: tables do not agree with each other, or the error names no file.
    """
    try:
        trace = open_trace(path, input_format=form)
        return _everything(trace) if whole else _tables(trace)
    except ParseError as error:
        assert error.path == str(path), error
        assert error.offset is None or error.offset >= 0, error
        return str(error)


def _tables(trace: RawTrace) -> dict[str, pa.Table]:
    found = {**trace.tables(), "<losses>": trace.losses}
    for table in found.values():
        table.validate(full=True)
    return found


def _everything(trace: RawTrace) -> dict[str, pa.Table]:
    tables = trace.tables(trace.event_names(), positions=True)
    assert {name: table.num_rows for name, table in tables.items()} == trace.counts()
    timeline = trace.timeline()
    assert timeline.num_rows == sum(trace.counts().values())
    losses = trace.losses
    for table in (*tables.values(), timeline, losses):
        table.validate(full=True)
    return {**tables, "<timeline>": timeline, "<losses>": losses, "<notes>": pa.table({"note": list(trace.metadata.notes)})}


class Target:
    """Tries inputs of one format."""

    def __init__(self, form: str, folder: Path) -> None:
        self._path = folder / f"{form}.input"
        self._form = form if form in set(Format) else None
        self._watched = False
        signal.signal(signal.SIGALRM, _stop)

    def warm(self, seeds: list[bytes]) -> None:
        """Read the seeds, which are valid; from then on memory is watched."""
        for seed in seeds:
            for form in {None, self._form}:
                self.try_one(seed, forced=form is not None, both=True)
        self._watched = True

    def try_one(self, data: bytes, *, forced: bool, both: bool) -> None:
        """Read an input, as the format that it looks like or the one that it is of; with `both` all of it, compiled and uncompiled.

        Raises:
            Exception: anything that is not what must hold.
        """
        self._path.write_bytes(data)
        form = self._form if forced else None
        # Not at first: loops may have to be compiled.
        before, peak = _resident(), _peak()
        signal.alarm(_MOST_SECONDS if self._watched else 0)
        try:
            answers = [self._answer(mode, form, whole=both) for mode in (("compiled", "python") if both else ("compiled",))]
        finally:
            signal.alarm(0)
        assert len(answers) < 2 or _equal(*answers), "compiled and uncompiled loops differ"
        if self._watched and _peak() > peak:
            grown = _peak() - before
            assert grown <= _MOST_BYTES + 4 * _MOST_UNPACKED * len(data), f"memory grew by {grown} bytes"

    def _answer(self, mode: str, form: str | None, *, whole: bool) -> Answer:
        os.environ["TRACETOOL_LOOPS"] = mode
        return ask(self._path, form, whole=whole)


def _equal(one: Answer, other: Answer) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return one.keys() == other.keys() and all(table.equals(other[name]) for name, table in one.items())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
