"""Findings of one cause on pages that lie side by side, taken together: one line for a buffer instead of one a page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tracetool.report.words import counted, hexadecimal
from tracetool.schema import FINDINGS, PAGE_SIZE

if TYPE_CHECKING:
    import polars as pl

#: What findings of one cause have in common.
_CAUSE: Final = ("rule", "policy", "pid", "by_pid", "mm", "certainty", "severity", "via")


@dataclass(frozen=True)
class Neighbours:
    """Findings of one cause on `count` pages side by side from address `low` on; `first` is the first that came, with its columns.

    `fingerprints` are all that they have: more than one where several instructions stored.
    """

    first: dict[str, Any]
    count: int
    low: int | None
    fingerprints: tuple[str, ...]

    @property
    def name(self) -> str:
        """How they are called: `wrong-cow-1@observed and 3 more`."""
        return f"{self.first['id']} and {self.count - 1} more" if self.count > 1 else str(self.first["id"])

    @property
    def where(self) -> str:
        """The pages, of several: `4 pages, 0x7f00 to 0x7fff; the first`; of one nothing."""
        if self.count == 1 or self.low is None:
            return ""
        last = self.low + self.count * PAGE_SIZE - 1
        return f"{counted(self.count, 'page')}, {hexadecimal(self.low)} to {hexadecimal(last)}; one of them: "

    @property
    def told(self) -> str:
        """What happened, in a sentence."""
        return f"{self.where}{self.first['summary'] or ''}"


def together(findings: pl.DataFrame) -> pl.DataFrame:
    """The findings with neighbours of one cause as one row, that of the first, with `count`, the lowest address (`low`), `fingerprints`.

    Neighbours have the same rule, policy, pids, address space, certainty, severity and `via`, and addresses one page apart. What
    happens to one page again is another occurrence, with neighbours of its own.
    """
    import polars as pl

    occurrence = pl.int_range(pl.len()).over(*_CAUSE, "address")
    rows = findings.with_row_index("_order").with_columns(occurrence=occurrence)
    alike = [*_CAUSE, "occurrence"]
    begins = (
        pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in alike)
        | (pl.col("address") != pl.col("address").shift() + PAGE_SIZE).fill_null(True)
    )  # fmt: skip
    groups = (
        rows.sort(*alike, "address", "_order", maintain_order=True)
        .with_columns(_group=begins.cum_sum())
        .group_by("_group")
        .agg(
            pl.col("_order").min(),
            count=pl.len().cast(pl.Int64),
            low=pl.col("address").min(),
            fingerprints=pl.col("fingerprint").drop_nulls().unique(maintain_order=True),
        )
        .drop("_group")
    )
    return rows.join(groups, on="_order", how="inner").sort("_order").drop("_order", "occurrence")


def neighbours(rows: pl.DataFrame) -> Iterable[Neighbours]:
    """Rows of `together` one by one."""
    for row in rows.iter_rows(named=True):
        yield Neighbours({name: row[name] for name in FINDINGS}, row["count"], row["low"], tuple(row["fingerprints"]))
