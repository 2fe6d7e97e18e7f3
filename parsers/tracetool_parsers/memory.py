"""Memory for columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def empty(size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array that is not filled, of Arrow's memory: what was given back is used again there, where the system makes new memory page by
    page (0.6 ms instead of 20 ms for 100 MB).
    """
    kind = np.dtype(dtype)
    return np.frombuffer(pa.allocate_buffer(size * kind.itemsize), kind, size)
