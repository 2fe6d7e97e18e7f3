"""The names of threads in a perf.data: what COMM records say, and what perf calls those that none names."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .eventformat import Field
from .fields import Rows, column, looked_up, numbers

Array = npt.NDArray[Any]

_COMM: Final = Field("comm", "comm", "char", 16, 0, signed=True, place="rest", element=1)
#: What perf calls the idle thread: tools/perf/util/session.c, `perf_session__register_idle_thread`.
_IDLE: Final = "swapper"


class Names:
    """The names that threads have had, as far as COMM records have come.

    What names a thread is a number: 0: it is the idle one, 1 and up: a COMM record, counted in the order of the file, -1: nothing.
    """

    def __init__(self) -> None:
        self._numbers = {_IDLE: 0}
        self._codes = np.zeros(1, np.int32)

    def add(self, words: Array, places: Array, starts: Array, *, swapped: bool) -> None:
        """Take the names in COMM records: which ones in the order of the file, and the words where they start (int64)."""
        if not places.size:
            return
        sizes, _ = numbers(Rows(words, starts, np.full(starts.size, 8, np.int64), swapped), 6, 2)
        texts = column(Rows(words, starts, sizes.astype(np.int64), swapped), _COMM)
        encoded = (texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts).dictionary_encode()
        numbered = [self._numbers.setdefault(name, len(self._numbers)) for name in encoded.dictionary.to_pylist()]
        needed = int(places.max()) + 2
        if needed > self._codes.size:
            self._codes = np.pad(self._codes, (0, max(needed, 2 * self._codes.size) - self._codes.size))
        self._codes[1 + places] = np.array(numbered, np.int32)[encoded.indices.to_numpy()]

    def column(self, named: Array, about: Array) -> pa.DictionaryArray:
        """A column of names.

        perf calls a thread without a name by its number (Linux, tools/perf/util/thread.c, `thread__new`).

        Args:
            named: int32, what each row's thread was named by.
            about: int32, the threads; looked at only where nothing named them.
        """
        codes = looked_up(self._codes, named)
        nameless = named < 0
        more: list[str] = []
        if nameless.any():
            tids, which = np.unique(about[nameless], return_inverse=True)
            codes[nameless] = len(self._numbers) + which
            more = [f":{tid}" for tid in tids.tolist()]
        # Not checked again: numbers that were looked up are in range.
        return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([*self._numbers, *more], pa.string()), safe=False)
