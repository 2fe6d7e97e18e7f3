"""Bytes of many rows -> columns of strings."""

from __future__ import annotations

import itertools
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]

#: Arrow's strings and lists count their bytes and elements in 31 bits: longer columns are made of several chunks.
_MOST_IN_CHUNK: Final = (1 << 31) - 1


def chunks_of(sizes: Array) -> list[slice]:
    """Stretches of rows with no more bytes than a chunk holds; one, but for columns of gigabytes."""
    ends = np.cumsum(sizes, dtype=np.int64)
    if not ends.size or ends[-1] <= _MOST_IN_CHUNK:
        return [slice(0, sizes.size)]
    cuts = [0]
    while cuts[-1] < sizes.size:
        used = ends[cuts[-1] - 1] if cuts[-1] else 0
        cuts.append(int(np.searchsorted(ends, used + _MOST_IN_CHUNK, "right")))
    return [slice(begin, end) for begin, end in itertools.pairwise(cuts)]


def strings_of(offsets: Array, packed: Array, absent: Array | None) -> pa.Array:
    """Strings that lie one after the other, as UTF-8; what is none is replaced.

    Args:
        offsets: int32, where each row starts in `packed`, and where the last one ends.
        packed: uint8, the bytes.
        absent: bool, the rows that are null; None: none is.
    """
    validity = None if absent is None else pa.py_buffer(np.packbits(~absent, bitorder="little"))
    buffers = [validity, pa.py_buffer(offsets), pa.py_buffer(packed)]
    rows = offsets.size - 1
    if packed.size == 0 or packed.max() < 0x80:
        return pa.Array.from_buffers(pa.string(), rows, buffers)
    # Names come again and again: each is decoded once.
    names = pa.Array.from_buffers(pa.binary(), rows, buffers).dictionary_encode()
    decoded = pa.array([name.decode("utf-8", "replace") for name in names.dictionary.to_pylist()], pa.string())
    return decoded.take(names.indices)


def joined(chunks: list[pa.Array], kind: pa.DataType | None = None) -> pa.Array | pa.ChunkedArray:
    """A column of these chunks."""
    return chunks[0] if len(chunks) == 1 else pa.chunked_array(chunks, kind)
