"""fork-after-pin: fork shares a page through which somebody is still writing: the next store of either side parts it from its writer.

Nothing is wrong yet: what a device writes is still seen by parent and child alike. With the parent's next store the device writes to a page
that the parent has no more (then a `wrong-cow`, too), or the child sees what was meant for its parent. Linux commit 70e806e4e645 ("mm: Do
early cow for pinned pages during fork() for ptes") (in v5.9) copies pages under FOLL_PIN for the child at once; pages under FOLL_GET are
shared by every kernel.
"""

from __future__ import annotations

import polars as pl

from tracetool.rules.base import Evidence, Rule, certainty, frame_named, known, outlasts


def find(evidence: Evidence) -> pl.DataFrame:
    """Pages that a child maps by fork while a write reference of the parent's is held; one case a page and parent."""
    shared = evidence.stays.filter(pl.col("began") == "fork", pl.col("page_id") >= 0, pl.col("from_event") >= 0).select(
        "page_id", event="from_event", ts="from_ns", child="mm", child_pid="pid"
    )
    writing = evidence.references.filter(pl.col("access") == "write").with_columns(
        mm_ref="mm", address_ref="address", comm_ref="comm", pfn_before="pfn"
    )
    return (
        shared.join(writing, on="page_id", how="inner", maintain_order="left_right")
        .filter(pl.col("from_event") < pl.col("event"), outlasts(pl.col("event")), pl.col("child") != pl.col("mm_ref"))
        .with_columns(
            page_before="page_id",
            certainty=certainty(known(evidence)),
            severity=pl.lit("defect"),
            summary=pl.format(
                "fork shared page frame {} of {} {} with process {} while a {}write {} ({}) was held: the next store parts them",
                frame_named("pfn"),
                "comm",
                "pid",
                pl.col("child_pid").cast(pl.String).fill_null("(unknown)"),
                pl.when(pl.col("longterm")).then(pl.lit("long-term ")).otherwise(pl.lit("")),
                pl.when(pl.col("kind") == "pin").then(pl.lit("pin")).otherwise(pl.lit("reference")),
                "via",
            ),
        )
    )


FORK_AFTER_PIN = Rule(
    name="fork-after-pin",
    title="fork shares a page that a device or the kernel still writes to",
    needs=("fork_range", "anon_new", "gup", "gup_fast"),
    find=find,
    remedy="a kernel that copies pinned pages at fork (5.9 and newer), FOLL_PIN instead of FOLL_GET, or MADV_DONTFORK for the buffer",
)
