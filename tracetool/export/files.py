"""Files that are in their place only once all of them is written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[str]:
    """The name of a file beside `path` to write; it takes the place of `path` at the end, and is removed if anything fails.

    The trace that is read may be what is overwritten: it is mapped, and must stay whole until the end.
    """
    target = os.fspath(path)
    beside = f"{target}.{os.getpid()}.part"
    try:
        yield beside
        os.replace(beside, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise
