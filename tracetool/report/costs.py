"""What extra copies cost, for a terminal: the price and where it is from, each policy's bill, what forced the copies, and who waited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from tracetool.foreign import printable
from tracetool.report.words import duration, size

if TYPE_CHECKING:
    import polars as pl

    from tracetool.costing import CostReport, ReplayCosts

ROWS_SHOWN: Final = 8
FORKS_SHOWN: Final = 8


def render(report: CostReport) -> str:
    """The report as lines."""
    return "\n".join([*_price(report), "", *_policies(report), "", *_why(report), *_forks(report), *_stalls(report)]) + "\n"


def _price(report: CostReport) -> Iterator[str]:
    price = report.price
    low, high = duration(round(price.low_ns)), duration(round(price.high_ns))
    yield f"One more copy: {duration(round(price.extra_ns))} ({low} to {high}), {price.time}."
    yield f"  {printable(price.why)}"
    yield f"Recorded on {printable(str(report.hardware))}."


def _policies(report: CostReport) -> Iterator[str]:
    table = report.policies()
    yield f"extra: beyond mapcount, which shares the most; over kernel: beyond the recording's own policy ({report.kernel_policy});"
    yield "page-seconds: frames times how long they are in use"
    yield from _tlb(report)
    yield from _table(
        ["policy", "faults", "copies", "reuses", "early", "unshares", "zero", "splits", "extra", "bytes", "time", "interval", "over kernel",
         "TLB", "extra TLB", "TLB time", "peak", "page-s once", "shared", "by reference"],
        [
            [row["policy"], row["cow_faults"], row["copies"], row["reuses"], row["early_copies"], row["unshares"], row["zero_fills"],
             row["splits"], row["extra_copies"], size(row["extra_bytes"]), duration(row["extra_ns"]),
             f"{duration(row['extra_low_ns'])} to {duration(row['extra_high_ns'])}", row["extra_copies_over_kernel"], row["tlb_shootdowns"],
             row["extra_tlb_shootdowns"], duration(row["extra_tlb_ns"]),
             row["peak_pages"], *(f"{row[f'page_seconds_{kind}']:.3g}" for kind in ("once", "shared", "referenced"))]
            for row in table.iter_rows(named=True)
        ],
    )  # fmt: skip


def _tlb(report: CostReport) -> Iterator[str]:
    first, further = report.prices.tlb_shootdown, report.prices.tlb_shootdown_cpu
    measured = report.price.time != "assumed"
    told = "within time, which is measured: not to be added" if measured else "to be added to time"
    ns = duration(round(first.value_ns)), duration(round(further.value_ns))
    yield "TLB: copies that other threads of the process have to be told of; extra TLB: beyond mapcount"
    yield f"TLB time: assumed, {told}: {ns[0]}, and {ns[1]} for each CPU besides its own"
    yield f"  ({printable(first.source)})"


def _why(report: CostReport) -> Iterator[str]:
    for each in report.replays:
        yield f"{each.name}: {each.headline}."
    observed = report.replays[0]
    for key, title in (
        ("because", "why"),
        ("process", "who"),
        ("area", "where"),
        ("site", "by which instruction"),
        ("reference", "reference"),
    ):
        rows = observed.by(key).filter((_col("copies") > 0) & _col(key).is_not_null())
        if not rows.height:
            continue
        yield ""
        yield f"observed, {title}:"
        yield from _grouped(rows, key, observed)


def _grouped(rows: pl.DataFrame, key: str, of: ReplayCosts) -> Iterator[str]:
    total = max(of.cost.copied_pages, 1)
    shown = rows.head(ROWS_SHOWN)
    yield from _table(
        [key, "copies", "share", "reuses", "zero-fills"],
        [
            [_label(row, key), row["copies"], f"{row['copies'] / total:.0%}", row["reuses"], row["zero_fills"]]
            for row in shown.iter_rows(named=True)
        ],
    )
    if rows.height > shown.height:
        yield f"  and {rows.height - shown.height:,} more: --by {key}"


def _label(row: dict[str, Any], key: str) -> str:
    """What a row is about; a file by the last part of its path: the whole path is in the other formats."""
    path = row.get("file") if key == "area" else None
    return f"{row[key]} {path.rstrip('/').rpartition('/')[2] or path}" if path else str(row[key])


def _forks(report: CostReport) -> Iterator[str]:
    forks = report.replays[0].forks.filter(_col("copied") > 0).sort("copied", descending=True, maintain_order=True)
    if not forks.height:
        return
    yield ""
    yield "observed, each fork of which something was copied until its child was gone:"
    yield from _table(
        ["fork", "parent", "child", "pages shared", "copied by parent", "by child", "early", "child's zero-fills", "bytes", "share",
         "lived"],
        [
            [
                row["fork"], f"{row['comm'] or '?'} {row['pid']}", f"{row['child_comm'] or '?'} {row['child_pid']}", row["shared_pages"],
                row["parent_copies"], row["child_copies"], row["early_copies"], row["child_zero_fills"], size(row["copied"] * 4096),
                _share(row["share"]), "to the end" if row["lived_ns"] is None else duration(row["lived_ns"]),
            ]
            for row in forks.head(FORKS_SHOWN).iter_rows(named=True)
        ],
    )  # fmt: skip
    if forks.height > FORKS_SHOWN:
        yield f"  and {forks.height - FORKS_SHOWN:,} more: --by fork"


def _share(share: float | None) -> str:
    return "not known" if share is None else f"{share:.0%}"


def _stalls(report: CostReport) -> Iterator[str]:
    if report.fork_stalls.height:
        yield ""
        yield "fork holds its caller up (first area to last):"
        yield from _table(
            ["process", "forks", "median", "99th", "worst"],
            [
                [f"{row['comm'] or '?'} {row['pid']}", row["forks"], *(duration(row[f"{name}_ns"]) for name in ("median", "p99", "worst"))]
                for row in report.fork_stalls.head(ROWS_SHOWN).iter_rows(named=True)
            ],
        )
    if report.cow_stalls.height:
        yield ""
        yield "COW holds threads up, per 100 ms:"
        yield from _table(
            ["thread", "faults", "median", "99th", "worst", "time"],
            [
                [f"{row['comm'] or '?'} {row['tid']}", row["faults"],
                 *(duration(round(row[f"{name}_ns"])) for name in ("median", "p99", "worst")), row["time"]]
                for row in report.cow_stalls.head(ROWS_SHOWN).iter_rows(named=True)
            ],
        )  # fmt: skip


def _col(name: str) -> pl.Expr:
    import polars as pl

    return pl.col(name)


def _table(head: list[str], rows: list[list[Any]]) -> Iterator[str]:
    cells = [head, *([f"{cell:,}" if isinstance(cell, int) else printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    right = [all(isinstance(row[column], int) for row in rows) for column in range(len(head))]
    for row in cells:
        padded = (cell.rjust(width) if number else cell.ljust(width) for cell, width, number in zip(row, widths, right, strict=True))
        yield "  " + "  ".join(padded).rstrip()
