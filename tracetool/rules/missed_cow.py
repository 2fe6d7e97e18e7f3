"""missed-cow: another process's store lands in a page that a read reference still reads: the holder sees data that is none of its business.

The leak of the mail: A reads P0 through a reference and no longer maps it, B's write finds one mapping and reuses P0 in place. Called
"missed COW" in the series around Linux commit 6c287605fd56 ("mm: remember exclusively mapped anonymous pages with PG_anon_exclusive")
(in v5.19); CVE-2020-29374.
"""

from __future__ import annotations

import polars as pl

from tracetool.rules.base import Evidence, Rule, certainty, frame_named, held, known_held


def find(evidence: Evidence) -> pl.DataFrame:
    """Stores in place, by an address space other than that of a read reference that is held."""
    return (
        held(evidence)
        .filter(pl.col("decision").is_in(["reuse", "in-place"]), pl.col("access") == "read", pl.col("mm") != pl.col("mm_ref"))
        .with_columns(
            certainty=certainty(known_held(evidence)),
            severity=pl.lit("defect"),
            summary=pl.format(
                "{} {} wrote page frame {} in place while a reference taken by {} {} ({}) still reads it: its holder sees the new data",
                "comm",
                "pid",
                frame_named("pfn_before"),
                "comm_ref",
                "by_pid",
                "via",
            ),
        )
    )


MISSED_COW = Rule(
    name="missed-cow",
    title="A store by another process reaches a page that a read reference still reads",
    needs=("cow_fault", "cow_fault_done", "anon_new", "fork_range", "gup", "gup_fast", "mm_exit"),
    find=find,
    remedy="a kernel that breaks COW before it takes a read reference (5.8), or looks at references before it reuses a page (5.9 and newer "
    "for 4 KiB pages); in the process, no store by the other side while the reference is held",
)
