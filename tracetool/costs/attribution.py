"""Why, who and where: every decision with what forced it, its process, its kind of memory, its instruction, its fork and its reference."""

from __future__ import annotations

from typing import Final

import polars as pl

from tracetool.costs.forks import fork_of, forks
from tracetool.replay import Replay
from tracetool.schema import COPIES
from tracetool.trace import Trace
from tracetool.where.areas import areas
from tracetool.where.sites import instructions
from tracetool.where.symbols import Programs

#: All decisions that are counted.
_COUNTED: Final = (*COPIES, "reuse", "zero-fill", "split", "undetermined")
#: What forces a copy for good, and what only by the way.
_NEEDED_AS: Final = {
    "another-mapping": "somebody else maps the page",
    "a reference of another process": "somebody else references it",
    "pinned-at-fork": "it may be pinned at fork",
    "not-anonymous": "it is a file's or the zero page",
}
NEEDED: Final = tuple(_NEEDED_AS)
INCIDENTAL: Final = ("swap-cache", "lru-batch", "ksm", "lock", "unmapping", "large-page", "a reference of its own")
#: By what decisions can be summed.
KEYS: Final = ("because", "process", "area", "site", "fork", "reference")


def decisions(trace: Trace, replay: Replay, symbols: Programs | None = None) -> pl.DataFrame:
    """One row a decision of a replay, in its order; `symbols` name instructions.

    `event`, `ts`, `mm`, `pid`, `comm`, `address`, `decision`, `pages`; `because`: its reason, of a reference also whose it is; `process`
    ("comm pid"), `area` (`schema.AREAS`), `file` (the path of the file that is mapped there; null: none, or not told), `site` (the
    instruction pointer, in hexadecimal; kernel, unknown), `fork` (number in `forks.forks`; null: none), `reference` ("via kind access by
    comm"; null: none forced it).
    """
    rows = replay.fault_rows.filter(pl.col("decision").is_in(list(_COUNTED))).with_row_index("_row")
    table = forks(replay)
    held = _reference(rows, replay)
    places = instructions(rows["event"], trace)
    return rows.with_columns(
        held["reference"],
        *areas(rows, trace).get_columns(),
        because=pl.when(pl.col("reason") != "reference")
        .then(pl.col("reason").cast(pl.String))
        .otherwise(pl.when(held["own"]).then(pl.lit("a reference of its own")).otherwise(pl.lit("a reference of another process"))),
        process=pl.format("{} {}", pl.col("comm").fill_null("?"), pl.col("pid").cast(pl.String).fill_null("?")),
        site=_site(rows, places, trace, symbols),
        fork=fork_of(rows, table),
    ).select(
        "event", "ts", "mm", "pid", "comm", "address", pl.col("decision").cast(pl.String), "pages", "because", "process", "area", "file",
        "site", "fork", "reference",
    )  # fmt: skip


def _site(rows: pl.DataFrame, places: pl.DataFrame, trace: Trace, symbols: Programs | None) -> pl.Series:
    """The instruction of each decision: its function where symbols name it, else its address."""
    distinct = places["ip"].drop_nulls().unique()
    named = pl.DataFrame({"ip": distinct, "site": pl.Series([f"{ip:#x}" for ip in distinct], dtype=pl.String)})
    told = places.join(named, on="ip", how="left", maintain_order="left")
    if symbols is not None:
        functions = symbols.names(rows.select("mm", "event").with_columns(places["ip"]), trace)
        told = told.with_columns(site=pl.coalesce(functions, "site"))
    return told.select(site=pl.when("kernel").then(pl.lit("kernel")).otherwise(pl.col("site").fill_null("unknown")))["site"]


def _reference(rows: pl.DataFrame, replay: Replay) -> pl.DataFrame:
    """Of each row the oldest reference that forced it: what it is (`reference`), whether it is of the same address space (`own`)."""
    asked = rows.filter(pl.col("reason") == "reference").select("_row", "event", "mm", page_id="page_before")
    refs = replay.reference_rows.select(
        "page_id",
        "from_event",
        "to_event",
        pl.col("mm").alias("mm_ref"),
        pl.format("{} {} {} by {}", "via", "kind", "access", pl.col("comm").fill_null("?")).alias("reference"),
    )
    found = (
        asked.join(refs, on="page_id", how="inner", maintain_order="left_right")
        .filter(pl.col("from_event") < pl.col("event"), (pl.col("to_event") < 0) | (pl.col("to_event") > pl.col("event")))
        # A reference of somebody else's forces the copy, whatever else there is.
        .sort("_row", pl.col("mm_ref") == pl.col("mm"), "from_event", maintain_order=True)
        .unique("_row", keep="first", maintain_order=True)
        .select("_row", "reference", own=pl.col("mm_ref") == pl.col("mm"))
    )
    return rows.select("_row").join(found, on="_row", how="left", maintain_order="left").with_columns(pl.col("own").fill_null(False))


def summed(rows: pl.DataFrame, *keys: str) -> pl.DataFrame:
    """The decisions by one of `KEYS` (`area`: also with `file`): `faults`, `copies` (with early copies and unshares), `reuses`,
    `zero_fills`, `splits`, most copies first.

    What has no value there is in a row of its own (null), so that the sums are those of all decisions.
    """
    copies = pl.col("decision").is_in(list(COPIES))
    return (
        rows.group_by(keys, maintain_order=True)
        .agg(
            faults=pl.len(),
            copies=pl.col("pages").filter(copies).sum(),
            reuses=pl.col("pages").filter(pl.col("decision") == "reuse").sum(),
            zero_fills=pl.col("pages").filter(pl.col("decision") == "zero-fill").sum(),
            splits=(pl.col("decision") == "split").sum(),
        )
        .sort("copies", "faults", descending=True, maintain_order=True)
    )


def by_fork(rows: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    """Each fork (`forks.forks`) with what was copied of it until its child was gone: `parent_copies`, `child_copies`, `early_copies`,
    `child_zero_fills`; `copied` is their sum, `share` the copies as a share of the pages that it shared (null where the trace does not know
    them all), `lived_ns` how long the child's memory was there.
    """
    own = rows.filter(pl.col("fork").is_not_null()).join(table.select("fork", "child_mm"), on="fork", how="left")
    child = pl.col("mm") == pl.col("child_mm")
    copied = pl.col("decision").is_in(["copy", "unshare"])
    counts = own.group_by("fork").agg(
        parent_copies=pl.col("pages").filter(copied & ~child).sum(),
        child_copies=pl.col("pages").filter(copied & child).sum(),
        early_copies=pl.col("pages").filter(pl.col("decision") == "early-copy").sum(),
        child_zero_fills=pl.col("pages").filter((pl.col("decision") == "zero-fill") & child).sum(),
    )
    parts = ("parent_copies", "child_copies", "early_copies", "child_zero_fills")
    told = table.join(counts, on="fork", how="left", maintain_order="left").with_columns(pl.col(part).fill_null(0) for part in parts)
    return told.with_columns(
        copied=pl.sum_horizontal(parts),
        share=pl.when(pl.col("parent_copies") + pl.col("child_copies") <= pl.col("shared_pages"), pl.col("shared_pages") > 0).then(
            (pl.col("parent_copies") + pl.col("child_copies")) / pl.col("shared_pages")
        ),
        lived_ns=pl.col("end_ns") - pl.col("ts"),
    )


def headline(rows: pl.DataFrame) -> str:
    """How many copies were needed, and how many something incidental forced."""
    copies = rows.filter(pl.col("decision").is_in(list(COPIES)))
    counts = dict(copies.group_by("because").agg(pl.col("pages").sum()).iter_rows())
    total = sum(counts.values())
    needed, incidental = (sum(counts.get(reason, 0) for reason in reasons) for reasons in (NEEDED, INCIDENTAL))
    because = ", ".join(f"{counts[reason]:,} as {words}" for reason, words in _NEEDED_AS.items() if counts.get(reason))
    copied = "1 copy" if total == 1 else f"{total:,} copies"
    told = f"{copied}: {needed:,} needed{f' ({because})' if because else ''}; {incidental:,} only for something incidental"
    rest = total - needed - incidental
    return f"{told}; of {rest:,} the trace does not tell" if rest else told
