"""A line on the terminal that says how far long work is. It comes after a second, and goes before anything else is written.

The work says what it is about by `stage`; a thread looks at that ten times a second. On what is no terminal nothing is shown.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from typing import Final, TextIO

from tracetool.foreign import printable
from tracetool_parsers.progress import Stage, current, stage, watch

__all__ = ["BehindTheLine", "described", "is_wanted", "shown", "stage"]

#: Seconds before anything is shown, and from one look to the next.
DELAY: Final = 1.0
PERIOD: Final = 0.1
_BAR: Final = 24
_ERASE: Final = "\r\x1b[K"
_UNITS: Final[tuple[tuple[str, int], ...]] = (("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("bytes", 1))


def is_wanted(stream: TextIO, output: TextIO) -> bool:
    """Whether progress may be shown on `stream`: a terminal that moves its cursor, and that no reader of a piped `output` shares."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    try:
        return not stat.S_ISFIFO(os.fstat(output.fileno()).st_mode)
    except (OSError, ValueError):
        return True


@contextlib.contextmanager
def shown(stream: TextIO, *, delay: float = DELAY, period: float = PERIOD) -> Iterator[None]:
    """Show the stages of what is done in this context on a terminal, from `delay` seconds on; however it ends, nothing stays there."""
    line = _Line(stream, delay, period)
    with watch(line.ended):
        line.start()
        try:
            yield
        finally:
            line.stop()


def described(what: Stage, columns: int) -> str:
    """A stage in one line of at most so many columns.

    >>> described(Stage("reading", 2_000_000, "bytes", lambda: 500_000), 80)
    'reading [######..................]  25 %  0.5 of 2.0 MB'
    >>> described(Stage("rules under mapcount", 1_000_000, "events"), 80)
    'rules under mapcount  1,000,000 events ...'
    """
    name, done = printable(what.name), None if what.done is None else max(int(what.done()), 0)
    if what.total and done is not None:
        done = min(done, what.total)
        bar = "#" * (_BAR * done // what.total)
        told = f"{name} [{bar:.<{_BAR}}] {100 * done // what.total:3} %  {_amounts(done, what)}"
    elif what.total or done:
        told = f"{name}  {_amount(what.total or done or 0, what)} ..."
    else:
        told = f"{name} ..."
    return told[: max(columns, 1)]


def _amount(number: int, what: Stage) -> str:
    if what.unit != "bytes":
        return f"{number:,} {what.unit}".rstrip()
    unit, scale = next(each for each in _UNITS if number >= each[1] or each[1] == 1)
    return f"{number / scale:,.{0 if scale == 1 else 1}f} {unit}"


def _amounts(done: int, what: Stage) -> str:
    if what.unit != "bytes":
        return f"{done:,} of {what.total:,} {what.unit}".rstrip()
    unit, scale = next(each for each in _UNITS if what.total >= each[1] or each[1] == 1)
    digits = 0 if scale == 1 else 1
    return f"{done / scale:,.{digits}f} of {what.total / scale:,.{digits}f} {unit}"


class BehindTheLine:
    """A stream for messages: each takes the place of the line of progress, which comes again beneath it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a message."""
        with _Line.lock:
            if _Line.drawn:
                self._stream.write(_ERASE)
                _Line.drawn = ""
            return self._stream.write(text)

    def flush(self) -> None:
        """Send it."""
        self._stream.flush()


class _Line:
    """The line, of which a terminal has one."""

    lock = threading.RLock()
    #: What stands there now.
    drawn = ""

    def __init__(self, stream: TextIO, delay: float, period: float) -> None:
        self._stream, self._delay, self._period = stream, delay, period
        self._over = threading.Event()
        # A daemon: no interpreter waits for it, whatever happens.
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(1)
        self._erase()

    def ended(self) -> None:
        """A stage is over: after the last one others may write."""
        if current() is None:
            self._erase()

    def _run(self) -> None:
        if self._over.wait(self._delay):
            return
        while not self._over.wait(self._period):
            # A terminal that is gone is no error of the work; nor is a stage that ends while it is asked.
            with contextlib.suppress(Exception), self.lock:
                self._look()

    def _look(self) -> None:
        what = current()
        if what is None or self._over.is_set() or not self._in_front():
            self._erase()
            return
        told = described(what, _columns(self._stream) - 1)
        if told != _Line.drawn:
            self._stream.write(f"\r{told}\x1b[K")
            self._stream.flush()
            _Line.drawn = told

    def _in_front(self) -> bool:
        """Whether this is the job that has the terminal."""
        try:
            return os.tcgetpgrp(self._stream.fileno()) == os.getpgrp()
        except (OSError, ValueError):
            return True

    def _erase(self) -> None:
        with contextlib.suppress(OSError, ValueError), self.lock:
            if _Line.drawn:
                _Line.drawn = ""
                self._stream.write(_ERASE)
                self._stream.flush()


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
