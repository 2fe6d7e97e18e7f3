"""unnecessary-copy: a store got a copy although nothing else mapped the page and nobody referenced it: time and memory for nothing.

Nothing is unsafe. What held the page was incidental: the swap cache, an LRU batch, KSM, another process that had just let go of it, other
parts of the same larger page, a lock. Linux commit 09854ba94c6a ("mm: do_wp_page() simplification") (in v5.9) made such copies; commit
d4c470970d45 ("mm: optimize do_wp_page() for fresh pages in local LRU pagevecs") (in v5.18) and those beside it took most of them back.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from tracetool.rules.base import Evidence, Rule, certainty, frame_named

#: What holds a page without being an owner or a reference.
INCIDENTAL: Final = ("swap-cache", "lru-batch", "ksm", "unmapping", "large-page", "lock", "unknown")


def find(evidence: Evidence) -> pl.DataFrame:
    """Copies of pages that no other entry maps and no reference holds."""
    alone = pl.col("reason").is_in(list(INCIDENTAL)) & (pl.col("references") == 0) & (pl.col("mapcount") <= 1)
    return evidence.faults.filter(
        pl.col("decision").is_in(["copy", "unshare"]), pl.col("page_before").is_not_null(), alone
    ).with_columns(
        mm_ref="mm",
        address_ref="address",
        comm_ref="comm",
        by_pid="pid",
        via=pl.lit("other"),
        to_ns=pl.lit(None, pl.Int64),
        from_event=pl.lit(-1, pl.Int64),
        to_event=pl.lit(-1, pl.Int64),
        certainty=certainty(~pl.col("unsure") & (pl.col("reason") != "unknown")),
        severity=pl.lit("info"),
        summary=pl.format(
            "{} {} wrote page frame {}, which nothing else mapped or referenced, and got a copy: {}",
            "comm",
            "pid",
            frame_named("pfn_before"),
            pl.col("reason").cast(pl.String).replace_strict(_WHY, default="no event tells what held it"),
        ),
    )  # fmt: skip


_WHY: Final = {
    "swap-cache": "it was in the swap cache",
    "lru-batch": "it waited in an LRU batch",
    "ksm": "KSM had merged it",
    "unmapping": "another process had just unmapped it and still held it",
    "large-page": "other parts of its larger page are in use",
    "lock": "it was locked",
}

UNNECESSARY_COPY = Rule(
    name="unnecessary-copy",
    title="A copy of a page that nobody else maps or references",
    needs=("cow_fault", "cow_fault_done", "anon_new", "fork_range"),
    find=find,
    remedy="a kernel that looks past the swap cache and its own LRU batch (5.18 and newer) or marks pages exclusive (5.19 and newer)",
)
