"""Sequential loops over arrays, compiled by numba when the input is large enough to pay for it.

A loop is a plain Python function over one-dimensional NumPy arrays, named tuples of such, and integers. `loop` marks one that is
called from outside, `part` marks a function that loops call. Small inputs run the function as it is, so that a short trace waits for
no compiler and numba is not even imported; larger ones run the same source compiled, with bounds checks, cached on disk. Both ways
must give equal results: loops take int64 arrays and integers only where arithmetic is done, because NumPy scalars, Python integers
and compiled code differ on mixed signs and on overflow.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, Literal, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")

#: Below this many items the interpreter is done before numba is imported and a cached loop is loaded (about 0.7 s).
COMPILE_FROM: Final = 20_000
#: The same where numba has been imported (0.05 s).
LOAD_FROM: Final = 4_000
#: The same for a loop that has never been compiled here: that takes up to 20 s, the interpreter about 10 us an item.
FIRST_COMPILE_FROM: Final = 500_000

#: `auto` decides by the size of the input; the tests force one way or the other through the environment. `checked` is compiled, with
#: bounds checks in what is guarded, too.
Mode = Literal["auto", "compiled", "checked", "python"]

#: Loops allocate nothing, so numba need not count references to their arrays: with the counting, a replay takes nine times as long
#: (1.07 s against 0.12 s for a million memory events).
_OPTIONS: Final = {"boundscheck": True, "_nrt": False}

_log = logging.getLogger(__name__)
_parts: list[Callable[..., Any]] = []
_guarded: set[Callable[..., Any]] = set()
_registered: set[Callable[..., Any]] = set()


def mode() -> Mode:
    """How loops run: `$TRACETOOL_LOOPS`, one of `auto`, `compiled`, `checked`, `python`; anything else counts as `auto`."""
    wanted = os.environ.get("TRACETOOL_LOOPS", "auto")
    return cast("Mode", wanted) if wanted in ("compiled", "checked", "python") else "auto"


def part(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function that compiled loops may call; called from Python it stays what it is."""
    _parts.append(function)
    return function


def guarded(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a part, or the function of a loop, that knows its indexes to be in bounds: compiled, they are not tested one by one.

    That is two or three times as fast. What comes from a file must have been tested before; a mistake there is a hole. With
    `TRACETOOL_LOOPS=checked` all are tested the same.
    """
    _parts.append(function)
    _guarded.add(function)
    return function


def _options(function: Callable[..., Any]) -> dict[str, bool]:
    return {**_OPTIONS, "boundscheck": function not in _guarded or mode() == "checked"}


def index(number: int) -> int:
    """A number that is an index: compiled, a negative one is too large instead of counting from the end.

    In the innermost loops `array[index(i)]` checks its bounds with one comparison, which costs nothing that can be measured; `array[i]`
    adds the array's length to a negative index and makes two, which doubles the time of a loop that does little else.
    """
    return number


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until this is over: numba, interrupted while it compiles, swallows it, or keeps a loop that it never finished."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours:
        yield
        return
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


class Loop(Generic[P, R]):
    """A loop over arrays; call it with the number of items first: `scan.run(len(data), data, out)`."""

    #: Whether an input of this process was large enough to compile for.
    _large: ClassVar[bool] = False

    def __init__(self, function: Callable[P, R], nogil: bool) -> None:
        self.python = function
        self._nogil = nogil
        self._interpreted = 0
        self._cached: bool | None = None
        self._package = function.__module__.partition(".")[0]
        functools.update_wrapper(cast("Any", self), function)

    @functools.cached_property
    def compiled(self) -> Callable[P, R]:
        """The loop as machine code; compiled, or loaded from the cache, on first use."""
        numba = _numba(self._package)
        if not self._is_cached():
            # A user should know what is being waited for.
            _log.info("compiling %s for large traces, once; later runs load it", self.python.__name__)
        return cast("Callable[P, R]", numba.njit(self.python, cache=True, nogil=self._nogil, **_options(self.python)))

    def _is_cached(self) -> bool:
        return any(_cache_folder(self._package).rglob(f"*.{self.python.__name__}-*.nbi"))

    def run(self, items: int, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run over `items` items (a size that decides, not an argument) and return what the function returns."""
        way = mode()
        if way in ("compiled", "checked") or (way == "auto" and self._pays(items)):
            with _uninterrupted():
                return self.compiled(*args, **kwargs)
        self._interpreted += items
        return self.python(*(_plain(a) for a in args), **kwargs)

    def _pays(self, items: int) -> bool:
        """Whether machine code is worth its price for so many more items; after one large input it is for all further loops, too."""
        if items >= FIRST_COMPILE_FROM:
            Loop._large = True
        if "compiled" in self.__dict__:
            return True
        # Many small pieces are as good a reason as a large one.
        asked = self._interpreted + items
        if asked < (LOAD_FROM if "numba" in sys.modules else COMPILE_FROM):
            return False
        if self._cached is None:
            self._cached = self._is_cached()
        return Loop._large or self._cached


def loop(function: Callable[P, R]) -> Loop[P, R]:
    """Mark a loop; it runs without the interpreter's lock when compiled."""
    return Loop(function, nogil=True)


def _plain(value: Any) -> Any:
    # Indexing a memoryview gives and takes Python integers, four times as fast as NumPy scalars and without their overflow.
    # (Numbers that do not lie at multiples of their size are not for memoryviews.)
    if hasattr(value, "__array_interface__") and value.size and value.flags.aligned:
        return memoryview(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_plain(v) for v in value))
    return value


def _unsigned(number: Any) -> Callable[[Any], Any]:  # noqa: ARG001  (numba wants the argument's name)
    import numpy as np

    def unsigned(number: Any) -> Any:
        return np.uint64(number)

    return unsigned


def _numba(package: str) -> Any:
    """Import numba with its cache in a folder of this very source: numba notices no change in a function that a loop calls."""
    import numba
    import numba.extending

    numba.config.CACHE_DIR = str(_cache_folder(package))
    if index not in _registered:
        _registered.add(index)
        numba.extending.overload(index, inline="always")(_unsigned)
    for function in _parts:
        if function not in _registered:
            _registered.add(function)
            numba.extending.register_jitable(**_options(function))(function)
    return numba


@functools.cache
def _cache_folder(package: str) -> Path:
    """Where compiled loops of a top-level package lie: another folder for every version of its source and of this one's."""
    digest = hashlib.sha256()
    for name in sorted({package, __name__.partition(".")[0]}):
        spec = importlib.util.find_spec(name) if name != "__main__" else None
        for source in (spec.submodule_search_locations or ()) if spec else ():
            for file in sorted(Path(source).rglob("*.py")):
                stat = file.stat()
                digest.update(f"{file}:{stat.st_mtime_ns}:{stat.st_size}\n".encode())
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    # What numba has cached does not say how it was compiled.
    checked = "-checked" if mode() == "checked" else ""
    folder = Path(base) / "tracetool" / "loops" / f"{package}-{digest.hexdigest()[:16]}{checked}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="tracetool-loops-"))
    return folder
