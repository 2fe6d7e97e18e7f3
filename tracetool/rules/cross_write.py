"""cross-write: a write reference is taken of a page that another process maps: what is written through it, the other sees.

A GUP for writing breaks COW first, so on a kernel that works only FOLL_FORCE, huge pages of hugetlb and mistakes lead here. Linux commit
6c287605fd56 ("mm: remember exclusively mapped anonymous pages with PG_anon_exclusive") (in v5.19) lets only exclusive pages be pinned.
"""

from __future__ import annotations

import polars as pl

from tracetool.rules.base import Evidence, Rule, certainty, frame_named, known, outlasts


def find(evidence: Evidence) -> pl.DataFrame:
    """Write references, and who else maps the page when they are taken."""
    mapped = evidence.stays.filter(pl.col("page_id") >= 0).select(
        "page_id", "to_event", mm="mm", since="from_event", by="pid", by_comm="comm"
    )
    taken = evidence.references.filter(pl.col("access") == "write").select(
        "page_id", "longterm", "via", "released", "to_ns", "by_pid",
        event="from_event", until="to_event", ts="from_ns", mm_ref="mm", address_ref="address", comm_ref="comm", pfn_before="pfn",
    )  # fmt: skip
    return (
        taken.join(mapped, on="page_id", how="inner", maintain_order="left_right")
        .filter(pl.col("since") < pl.col("event"), outlasts(pl.col("event")), pl.col("mm") != pl.col("mm_ref"))
        .with_columns(
            page_before="page_id",
            pid="by",
            from_event="event",
            to_event="until",
            certainty=certainty(known(evidence)),
            severity=pl.lit("defect"),
            summary=pl.format(
                "a write reference ({}) of {} {} was taken of page frame {}, which {} {} maps: it sees what is written",
                "via",
                "comm_ref",
                "by_pid",
                frame_named("pfn_before"),
                "by_comm",
                "by",
            ),
        )
    )


CROSS_WRITE = Rule(
    name="cross-write",
    title="A write reference is taken of a page that another process maps",
    needs=("cow_fault", "cow_fault_done", "anon_new", "fork_range", "gup", "gup_fast"),
    find=find,
    remedy="a kernel that breaks COW before a write reference, and no FOLL_FORCE into shared memory",
)
