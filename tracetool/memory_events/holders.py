"""What holds the references of a GUP request, in words: the pipe, ring, file or context that the system call names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from tracetool.memory_events import state as k
from tracetool.memory_events.rows import Merged

if TYPE_CHECKING:
    import polars as pl

Ints = npt.NDArray[Any]

#: io_uring_register of a whole set of buffers: IORING_REGISTER_BUFFERS, IORING_REGISTER_BUFFERS2 (include/uapi/linux/io_uring.h).
_WHOLE_SETS: Final = (0, 15)
#: Calls whose first argument is a file, and what it is called.
_FILES: Final = {"vmsplice": "pipe", "io_uring_register": "ring", "io_uring_enter": "ring", "setsockopt": "socket",
                 "sendto": "socket", "sendmsg": "socket", "sendmmsg": "socket"}  # fmt: skip
#: Calls that name something else, or nothing.
_OTHERS: Final = ("io_submit", "ptrace", "process_vm_readv", "process_vm_writev", "futex")


def holders(merged: Merged, groups: Ints) -> pl.Series:
    """For each GUP request (`state.G_*`) a text such as "pipe fd 4" or "ring fd 5, buffer 0"; null where nothing tells.

    Requests of one io_uring_register are buffers in turn. Where a request begins within a page, the text says at which byte.
    """
    import polars as pl

    call = groups[:, k.G_CALL]
    names = [name.removeprefix("sys_enter_") for name in merged.names]
    args = merged.rows.args[np.maximum(call, 0)] if len(merged.ts) else np.zeros((len(call), 4), np.int64)
    event = merged.event[np.maximum(call, 0)] if len(merged.ts) else call
    frame = pl.DataFrame(
        {
            "call": pl.Series([*names, ""], dtype=pl.String).gather(np.where(call >= 0, event, len(names)).astype(np.uint32)),
            "fd": args[:, 0].astype(np.int32, copy=False),
            "context": args[:, 0],
            "opcode": args[:, 1],
            "number": groups[:, k.G_NUMBER],
            "offset": groups[:, k.G_START] & 4095,
        }
    )
    file = pl.col("call").replace_strict(_FILES, default="")
    buffer = pl.when((pl.col("call") == "io_uring_register") & pl.col("opcode").is_in(_WHOLE_SETS)).then(
        pl.format(", buffer {}", "number")
    ).otherwise(pl.lit(""))  # fmt: skip
    offset = pl.when(pl.col("offset") > 0).then(pl.format(", from byte {} of its first page", "offset")).otherwise(pl.lit(""))
    holder = (
        pl.when(pl.col("call") == "")
        .then(None)
        .when(pl.col("call") == "io_submit")
        .then(pl.format("aio context {}{}", "context", offset))
        .when(pl.col("call").is_in(_OTHERS))
        .then(None)
        .otherwise(pl.format("{} fd {}{}{}", file, "fd", buffer, offset).str.strip_chars_start())
    )
    return frame.select(holder=holder)["holder"].cast(pl.String)
