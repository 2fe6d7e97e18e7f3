"""One shape for whatever says what was mapped: ranges of pages of address spaces, with the moment from which on they were so."""

from __future__ import annotations

from typing import Final

import polars as pl

from tracetool import schema
from tracetool.trace import Trace

#: Pages of user memory (57 bits of address).
PAGES: Final = 1 << (57 - schema.PAGE_SHIFT)
#: `mm`; `first` and `end` (numbers of pages, the end excluded); `at`: the memory event after which it is so (-1: from the start); `told`:
#: by a `call`, a `record` of perf, a `list` of a process' maps, or `gone` (unmapped); `area` (`schema.AREAS`; null: not told); `file` (its
#: path; null: none, or not told); `offset` (bytes of the file where the range begins); `base` (the address where the first of all listed
#: ranges of the file begins); `moved_from` (of mremap: the page where it was).
RANGE: Final = {
    "mm": pl.Int32, "first": pl.Int64, "end": pl.Int64, "at": pl.Int64, "told": pl.String, "area": pl.String, "file": pl.String,
    "offset": pl.Int64, "base": pl.Int64, "moved_from": pl.Int64,
}  # fmt: skip
#: Names of areas that no file is behind: Linux, fs/proc/task_mmu.c; kernel/events/core.c (`perf_event_mmap_event`).
_ANONYMOUS: Final = r"^(//anon|\[anon|/dev/zero|/anon_hugepage|$)"


def ranges(rows: pl.DataFrame) -> pl.DataFrame:
    """Ranges with the columns of `RANGE`, of `mm`, `first`, `pages`, `at`, `told` and what else is known; what is no range is left out."""
    whole = rows.with_columns(end=pl.col("first") + pl.col("pages")).filter(
        pl.col("mm") >= 0, pl.col("first") >= 0, pl.col("pages") > 0, pl.col("end") <= PAGES
    )
    missing = [pl.lit(None, kind).alias(name) for name, kind in RANGE.items() if name not in whole.columns]
    return whole.with_columns(missing).select(pl.col(name).cast(kind) for name, kind in RANGE.items())


def area_of(name: str) -> pl.Expr:
    """The kind of memory by the name that kernel or perf give it (a column); null: a special one (vdso, vvar)."""
    column = pl.col(name)
    return (
        pl.when(column == "[heap]")
        .then(pl.lit("heap"))
        .when(column.str.starts_with("[stack"))
        .then(pl.lit("stack"))
        .when(column.str.contains(_ANONYMOUS))
        .then(pl.lit("anonymous"))
        .when(~column.str.starts_with("["))
        .then(pl.lit("file"))
        .alias("area")
    )


def file_of(name: str) -> pl.Expr:
    """The path, where such a name is one."""
    return pl.when(area_of(name) == "file").then(pl.col(name)).alias("file")


def has(trace: Trace, event: str, *fields: str) -> bool:
    """Whether the trace has records of an event, with these fields."""
    if not trace.raw.counts().get(event):
        return False
    return {field.column for field in trace.raw.formats()[event].fields} >= set(fields)
