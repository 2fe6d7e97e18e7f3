"""The tables of the HTML report, as cells: text, what they sort by, and what a press on them picks in the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracetool.report.details import Details, ReplayDetails
from tracetool.report.pictures import BECAUSE, FORKS_SHOWN, because
from tracetool.report.words import counted, duration, since, size
from tracetool.schema import PAGE_SIZE

if TYPE_CHECKING:
    from tracetool.analysis import Analysis, Kernel, RecordedDecision, TraceInfo

ROWS_SHOWN: Final = 20


@dataclass(frozen=True)
class Cell:
    """A cell: what it says, the number that it is sorted by (None: by what it says), what it picks (`policy`, `pid`, `from`, `to`, `v`)."""

    text: str
    number: float | None = None
    pick: Mapping[str, str | int | None] | None = None


@dataclass(frozen=True)
class Table:
    """A table: its name as an id, its caption, its heads, and cells by row; the first of each row is its head. `note`: what is left out."""

    name: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers."""
        return tuple(all(row[n].number is not None for row in self.rows) for n in range(len(self.head)))


def memory(details: Details, trace: TraceInfo) -> Table:
    """Peak and page-seconds of every replay."""
    rows = []
    for each in details.replays:
        found = each.memory
        at = "never" if found.peak_ns is None else since(found.peak_ns - trace.from_ns, trace.to_ns - trace.from_ns)
        kept = [_float(found.page_seconds[kind]) for kind in ("once", "shared", "referenced")]
        rows.append((_policy(each.name), _count(found.peak), _size(found.peak), Cell(at, _or_zero(found.peak_ns)), *kept))
    head = ("policy", "frames at the peak", "memory", "when", "page-seconds: one mapping", "several", "a reference alone")
    return Table(
        "memory-table", "Page frames in use, of those that the trace shows; page-seconds are frames times how long.", head, tuple(rows)
    )


def reasons(details: Details) -> Table:
    """Copies by what forced them, of every replay; `what forced it` in the order of need."""
    counts = {each.name: _summed(each, "because") for each in details.replays}
    known = {reason for sums in counts.values() for reason, copies in sums.items() if copies}
    order = [*BECAUSE, *sorted(known - BECAUSE.keys())]
    rows = [
        (Cell(because(reason)), Cell(kind_of(reason)), *(_count(counts[name].get(reason, 0)) for name in counts))
        for reason in order
        if reason in known
    ]
    rows.append((Cell("all copies"), Cell(""), *(_count(sum(sums.values())) for sums in counts.values())))
    return Table(
        "reasons-table", "Pages copied (also early, at fork, and for pins), by what forced it.", ("because", "need", *counts), tuple(rows)
    )


def kind_of(reason: str) -> str:
    """Whether what forced a copy is needed, incidental, or not known."""
    from tracetool.costs.attribution import INCIDENTAL, NEEDED

    return "needed" if reason in NEEDED else "incidental" if reason in INCIDENTAL else "not known"


def by(details: Details, key: str, title: str) -> Table:
    """The observed decisions by process, kind of memory, or reference; most copies first."""
    from tracetool.costs.attribution import summed

    observed = details.replays[0]
    rows = summed(observed.decisions, key).drop_nulls(key)
    shown = rows.head(ROWS_SHOWN)
    pids = dict(observed.decisions.select("process", "pid").unique().iter_rows()) if key == "process" else {}
    cells = [
        (
            Cell(row[key], pick={"pid": pids[row[key]]} if pids.get(row[key]) is not None else None),
            *(_count(row[name]) for name in ("faults", "copies", "reuses", "zero_fills")),
        )
        for row in shown.iter_rows(named=True)
    ]
    note = f"Showing {shown.height} of {rows.height:,}, those with most copies first." if rows.height > shown.height else ""
    return Table(
        f"{key}-table", f"Observed decisions by {title}.", (title, "decisions", "pages copied", "reused", "zero-filled"), tuple(cells), note
    )


def times(details: Details) -> Table:
    """How long faults took, by decision."""
    rows = [
        (
            Cell(f"{row['decision']}{' (huge page)' if row['huge'] else ''}"),
            _count(row["faults"]),
            _count(row["left_out"]),
            *(_time(row[name]) for name in ("p5_ns", "median_ns", "p95_ns", "worst_ns")),
        )
        for row in details.times.distribution().iter_rows(named=True)
    ]
    caption = (
        "Time of COW faults with both ends in the trace, less other faults in them, preemption and what recording costs. "
        "The price of a copy leaves out copies of pages of files."
    )
    return Table("times-table", caption, ("decision", "faults", "left out", "5th percentile", "median", "95th", "worst"), tuple(rows))


def forks(details: Details, trace: TraceInfo) -> Table:
    """Each fork, with what was copied of it until its child was gone."""
    table = details.replays[0].forks
    shown = table
    if table.height > FORKS_SHOWN:
        shown = table.sort("shared_pages", descending=True, maintain_order=True).head(FORKS_SHOWN).sort("fork")
    length = trace.to_ns - trace.from_ns
    rows = []
    for row in shown.iter_rows(named=True):
        pick = {"pid": row["child_pid"], "from": row["ts"] - trace.from_ns, "to": (row["end_ns"] or trace.to_ns) - trace.from_ns}
        rows.append((
            Cell(f"{row['comm'] or '?'} {row['pid']} → {row['child_comm'] or '?'} {row['child_pid']}", pick=pick),
            Cell(since(row["ts"] - trace.from_ns, length), row["ts"]),
            Cell("to the end", float("1e30")) if row["lived_ns"] is None else _time(row["lived_ns"]),
            _count(row["shared_pages"]),
            *(_count(row[name]) for name in ("parent_copies", "child_copies", "early_copies", "child_zero_fills")),
            _size(row["copied"]),
            Cell("not known", -1) if row["share"] is None else Cell(f"{row['share']:.0%}", row["share"]),
        ))  # fmt: skip
    copied = ("copied by parent", "by child", "early, by fork", "child's zero-fills", "in all")
    head = ("fork", "at", "child lived", "pages shared", *copied, "share")  # fmt: skip
    note = f"Showing {shown.height:,} of {table.height:,} forks, those that share most." if table.height > shown.height else ""
    return Table("forks-table", "Observed: each fork, and what was copied of it until its child was gone.", head, tuple(rows), note)


def decided(analysis: Analysis) -> Table:
    """What every replay decided: the numbers of the JSON report."""
    names = ("cow_faults", "copies", "reuses", "early_copies", "unshares", "zero_fills", "splits")
    rows = [(Cell("observed"), *(_count(analysis.observed.get(name, 0)) for name in names), _count(0))]
    rows += [(_policy(p.name), *(_count(getattr(p, name)) for name in names), _count(p.agreement.undetermined)) for p in analysis.policies]
    head = ("policy", "COW faults", "copies", "reuses", "early copies", "unshares", "zero-fills", "splits", "undetermined")
    return Table("decided-table", "Decisions of each replay; copies in pages.", head, tuple(rows))


def fork_stalls(details: Details) -> Table:
    """How long fork held its callers up."""
    rows = [
        (Cell(f"{row['comm'] or '?'} {row['pid']}", pick={"pid": row["pid"]}), _count(row["forks"]),
         *(_time(row[f"{name}_ns"]) for name in ("median", "p99", "worst")))
        for row in details.fork_stalls.head(ROWS_SHOWN).iter_rows(named=True)
    ]  # fmt: skip
    return Table(
        "fork-stalls-table",
        "Fork holds its caller up, from its first area to its last: as recorded.",
        ("process", "forks", "median", "99th", "worst"),
        tuple(rows),
    )


def cow_stalls(details: Details) -> Table:
    """How long COW held threads up."""
    rows = [
        (Cell(f"{row['comm'] or '?'} {row['tid']}"), _count(row["faults"]),
         *(_time(row[f"{name}_ns"]) for name in ("median", "p99", "worst")), Cell(row["time"]))
        for row in details.cow_stalls.head(ROWS_SHOWN).iter_rows(named=True)
    ]  # fmt: skip
    caption = "COW holds threads up, in each tenth of a second."
    return Table("cow-stalls-table", caption, ("thread", "faults", "median", "99th", "worst", "time"), tuple(rows))


def recorded(kernel: Kernel, which: str, trace: TraceInfo) -> Table:
    """Decisions that tell the kernel's policy (`told_by`), or that it would have made otherwise (`disagreements`)."""
    found: Sequence[RecordedDecision] = getattr(kernel, which)
    rows = tuple(_decisions(found[:ROWS_SHOWN], trace))
    all_of_them = kernel.telling if which == "told_by" else len(found)
    caption = (
        f"Decisions that tell it from {kernel.runner_up}"
        if which == "told_by"
        else f"Decisions that {kernel.policy} would have made otherwise"
    )
    note = f"Showing {len(rows)} of {counted(all_of_them, 'decision')}." if all_of_them > len(rows) else ""
    return Table(f"{which.replace('_', '-')}-table", caption, ("at", "thread", "address", "the kernel", "decided by"), rows, note)


def _decisions(found: Sequence[RecordedDecision], trace: TraceInfo) -> Iterator[tuple[Cell, ...]]:
    for each in found:
        yield (
            Cell(since(each.ts - trace.from_ns, trace.to_ns - trace.from_ns), each.ts, {"v": each.address}),
            Cell(str(each.tid), each.tid), Cell(f"{each.address:#x}"), Cell("copied" if each.copied else "reused"), Cell(each.because),
        )  # fmt: skip


def _summed(replay: ReplayDetails, key: str) -> dict[str, int]:
    from tracetool.costs.attribution import summed

    return dict(summed(replay.decisions, key).select(key, "copies").iter_rows())


def _policy(name: str) -> Cell:
    return Cell(name, pick={"policy": name})


def _count(number: int) -> Cell:
    return Cell(f"{number:,}", number)


def _size(pages: int) -> Cell:
    return Cell(size(pages * PAGE_SIZE) if pages else "0", pages)


def _float(value: float) -> Cell:
    return Cell(f"{value:,.3g}" if value < 1000 else f"{value:,.0f}", value)


def _time(ns: float | None) -> Cell:
    return Cell("not known", -1) if ns is None else Cell(duration(round(ns)), ns)


def _or_zero(number: int | None) -> int:
    return number or 0
