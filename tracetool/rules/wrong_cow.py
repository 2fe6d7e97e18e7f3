"""wrong-cow: a process's own store moves its address to a new page while a reference of its own still uses the old one.

For a write reference, what a device writes is lost to the process: a defect. For a long-term read reference the device never sees the
process's later stores: a defect. For a short read reference the kernel promises nothing of the kind: told as info. A disconnect that the
program asked for (munmap, MADV_DONTNEED, exit, exec) is none. Linux commit 6c287605fd56 ("mm: remember exclusively mapped anonymous
pages with PG_anon_exclusive") (in v5.19) ended it for pinned pages.
"""

from __future__ import annotations

import polars as pl

from tracetool.rules.base import Evidence, Rule, certainty, frame_named, held, known_held


def find(evidence: Evidence) -> pl.DataFrame:
    """Copies at the very address through which a reference that is held was taken; also those of stores that would only fault under the
    policy, and so are not in the trace.
    """
    lasting = (pl.col("access") == "write") | pl.col("longterm")
    return (
        held(evidence)
        .filter(
            pl.col("decision").is_in(["copy", "unshare", "unseen"]),
            pl.col("mm") == pl.col("mm_ref"),
            pl.col("address") == pl.col("address_ref"),
        )
        .with_columns(
            certainty=certainty(known_held(evidence)),
            severity=pl.when(lasting).then(pl.lit("defect")).otherwise(pl.lit("info")),
            summary=pl.format(
                "{} {} {} a copy; the {} reference ({}) keeps page frame {}: {}",
                "comm",
                "pid",
                pl.when(pl.col("decision") == "unseen")
                .then(pl.lit("would get, if it wrote its page since,"))
                .otherwise(pl.lit("wrote its page and got")),
                "access",
                "via",
                frame_named("pfn_before"),
                pl.when(pl.col("access") == "write")
                .then(pl.lit("what is written through it is lost to the process"))
                .when(pl.col("longterm"))
                .then(pl.lit("its holder never sees what the process stores from now on"))
                .otherwise(pl.lit("its holder keeps seeing the contents of before, as a short read reference may")),
            ),
        )
    )


WRONG_COW = Rule(
    name="wrong-cow",
    title="A copy parts a process from a page that its own reference still uses",
    needs=("cow_fault", "cow_fault_done", "anon_new", "fork_range", "gup", "gup_fast"),
    find=find,
    remedy="a kernel that marks pages exclusive (5.19 and newer), no fork or write protection while the buffer is in use, or MADV_DONTFORK",
    remedy_info="nothing that was promised is broken; a holder that must see later stores takes a pin (FOLL_PIN), before which "
    "kernels since 5.19 give the owner a page of its own, or the buffer is kept out of fork (MADV_DONTFORK)",
)
