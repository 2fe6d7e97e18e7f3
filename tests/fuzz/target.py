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
#: Beyond what is there after a first run: 64 MiB, and for each byte read 4; of a compressed input a kilobyte gives a megabyte at most.
_MOST_BYTES: Final = 64 << 20

#: Everything a trace says, or the error.
Answer = dict[str, pa.Table] | str


class Hang(Exception):
    """An input took too long."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise Hang(f"more than {_MOST_SECONDS} s")


def ask(path: Path, form: str | None, *, strict: bool) -> Answer:
    """All tables, losses and the order of a trace, or the text of its error.

    Raises:
        AssertionError: tables do not agree with each other, or the error names no file.
    """
    try:
        trace = open_trace(path, input_format=form, strict=strict)
        return _everything(trace)
    except ParseError as error:
        assert error.path == str(path), error
        assert error.offset is None or error.offset >= 0, error
        return str(error)


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
        self._base: int | None = None
        signal.signal(signal.SIGALRM, _stop)

    def warm(self, seeds: list[bytes]) -> None:
        """Read the seeds, which are valid; from then on memory is watched."""
        for seed in seeds:
            for form in {None, self._form}:
                self.try_one(seed, forced=form is not None, both=True)
        self._base = _peak()

    def try_one(self, data: bytes, *, forced: bool, both: bool) -> None:
        """Read an input, as the format that it looks like or the one that it is of; with `both`, compiled and uncompiled.

        Raises:
            Exception: anything that is not what must hold.
        """
        self._path.write_bytes(data)
        form = self._form if forced else None
        # Not at first: loops may have to be compiled.
        signal.alarm(_MOST_SECONDS if self._base is not None else 0)
        try:
            answers = [self._answer(mode, form) for mode in (("compiled", "python") if both else ("compiled",))]
        finally:
            signal.alarm(0)
        assert len(answers) < 2 or _equal(*answers), "compiled and uncompiled loops differ"
        if self._base is not None:
            grown = _peak() - self._base
            assert grown <= _MOST_BYTES + 4 * 1024 * len(data), f"memory grew by {grown} bytes"

    def _answer(self, mode: str, form: str | None) -> Answer:
        os.environ["TRACETOOL_LOOPS"] = mode
        return ask(self._path, form, strict=False)


def _equal(one: Answer, other: Answer) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return one.keys() == other.keys() and all(table.equals(other[name]) for name, table in one.items())


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
