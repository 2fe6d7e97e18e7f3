"""Results that were saved: a folder from which any report is made again, without the trace and without replaying it.

`report.json` holds the dataclasses of the analysis and of its details; a table in them is a Parquet file beside it, named there with the
digest of its bytes. Nothing of it is ever run: what does not fit the types is refused.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, get_origin

import msgspec
import numpy as np
import polars as pl

from tracetool.analysis import Analysis
from tracetool.errors import Unusable
from tracetool.report.details import Details
from tracetool_parsers.errors import ParseError

#: Raised whenever what is saved changes its shape: another number is refused.
VERSION: Final = 1
FOLDER: Final = "report.saved"  # no policy is called that, whose tables have a folder each
_FILE: Final = "report.json"
_TABLE: Final = re.compile(r"table-\d{1,4}\.parquet")
_AGAIN: Final = "make it again: tracetool replay TRACE --out DIR --force"


@dataclass(frozen=True)
class Saved:
    """What a report is made from; the replays of `analysis` are not saved. `command`: the command line that made it."""

    saved_version: int
    command: str
    analysis: Analysis
    details: Details


def save(folder: Path, analysis: Analysis, details: Details, command: str) -> None:
    """Write it into `folder / FOLDER`, in the place of what was saved there before; raises OSError."""
    inside = folder / FOLDER
    if inside.is_symlink() or inside.is_file():
        inside.unlink()
    elif inside.exists():
        shutil.rmtree(inside)
    inside.mkdir(parents=True)
    numbers = itertools.count(1)

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.tolist()
        if not isinstance(value, pl.DataFrame):
            raise TypeError(f"{type(value).__name__} cannot be saved")
        written = io.BytesIO()
        value.write_parquet(written)
        content, name = written.getvalue(), f"table-{next(numbers)}.parquet"
        (inside / name).write_bytes(content)
        return {"table": name, "sha256": hashlib.sha256(content).hexdigest()}

    whole = Saved(VERSION, command, replace(analysis, replays={}, recorded=None), details)
    # The json module keeps names that are no Unicode (lone surrogates), which msgspec's own encoder refuses.
    text = json.dumps(msgspec.to_builtins(whole, enc_hook=plain, str_keys=True), separators=(",", ":"))
    (inside / _FILE).write_text(text, encoding="ascii")


def load(folder: Path) -> Saved:
    """Read what `save` wrote.

    Raises:
        Unusable: nothing was saved in `folder`, or by a version that saves something else.
        ParseError: it is damaged.
    """
    file = folder / FOLDER / _FILE
    if not file.is_file():
        raise Unusable(
            f"no saved results in {str(folder)!r}", hint=f"there is no {FOLDER}/{_FILE}; tracetool replay TRACE --out DIR saves them"
        )
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ParseError(f"is no saved report: {error}", path=str(file), hint=_AGAIN) from error
    version = content.get("saved_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version != VERSION:
        raise Unusable(f"{str(folder)!r} was saved in form {version}; this tracetool reads form {VERSION}", hint=_AGAIN)
    try:
        return msgspec.convert(content, Saved, str_keys=True, dec_hook=functools.partial(_rich, file.parent))
    except (msgspec.ValidationError, RecursionError) as error:
        raise ParseError(f"is no saved report: {error}", path=str(file), hint=_AGAIN) from error


def _rich(folder: Path, kind: Any, value: Any) -> Any:
    """A table or an array again, from what stands for it."""
    readers: dict[Any, Callable[[Path, Any], Any]] = {pl.DataFrame: _table, np.ndarray: _array}
    reader = readers.get(get_origin(kind) or kind)
    if reader is None:
        raise TypeError(f"no {getattr(kind, '__name__', kind)} is saved")
    return reader(folder, value)


def _array(_folder: Path, value: Any) -> np.ndarray[Any, Any]:
    return np.asarray(msgspec.convert(value, list[int]), np.int64)


def _table(folder: Path, value: Any) -> pl.DataFrame:
    named = msgspec.convert(value, dict[str, str])
    name = named.get("table", "")
    # The name is foreign: nothing outside of the folder is read.
    if not _TABLE.fullmatch(name):
        raise ValueError(f"{name[:100]!r} names no table")
    try:
        content = (folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != named.get("sha256"):
            raise ValueError(f"{name} is not as it was saved")
        return pl.read_parquet(content)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{name}: {error}") from error
