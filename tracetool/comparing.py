"""Where two policies decide differently, why, and what follows from it for the family of the page."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool import schema
from tracetool.analysis import TraceInfo
from tracetool.errors import Unusable
from tracetool.judging import found, replayed, traced
from tracetool.memory_events import MemoryEvents, Op
from tracetool.memory_events import codes as c
from tracetool.replay import Replay
from tracetool.rules import RULES
from tracetool.rules.base import missing_events
from tracetool.trace import Trace

Ints = npt.NDArray[Any]

_log = logging.getLogger(__name__)

#: Decisions by what comes of them: another page, the same page, a smaller mapping of it, or nothing that can be told.
COPIES: Final = ("copy", "early-copy", "unshare", "zero-fill")
UNTOLD: Final = ("undetermined",)
_OUTCOMES: Final = {**dict.fromkeys(COPIES, "copy"), "split": "split", "unseen": "unseen", "undetermined": "untold"}
#: Everything else, and having nothing to decide, leaves the page where it is.
_STAYS: Final = "stays"
_SIDE: Final = ("decision", "reason", "page", "pfn", "mapcount", "references")


@dataclass(frozen=True)
class Comparison:
    """Two replays of one trace, decision by decision.

    `differences` is the table `schema.COMPARISON`, in the order of the trace. `compared` counts the decisions that either side has and
    both can tell, `undetermined` those about pages older than the trace, which no policy can be asked. `alike` says what was decided alike
    (`decision`, `reason`, `count`), `findings` has those of both sides, `missing` the events without which decisions stay unseen.
    `copies` are the pages that each side copies by the decisions compared (zero-fills not counted).
    """

    trace: TraceInfo
    a: str
    b: str
    differences: pl.DataFrame
    compared: int
    undetermined: int
    alike: pl.DataFrame
    copies: tuple[int, int]
    findings: pl.DataFrame
    missing: tuple[str, ...]


def compare(trace: Trace, a: str, b: str) -> Comparison:
    """Compare two policies (`observed` is one, too) on a trace.

    Raises:
        Unusable: both are the same.
        UnknownName: there is no such policy.
    """
    sides = []
    for name in dict.fromkeys((a, b)):
        _log.info("replaying as %s decides", name)
        sides.append(replayed(trace, name))
    if len({side.policy for side in sides}) < len((a, b)):
        raise Unusable(f"{a} and {b} are one policy", hint="name two: --policy mapcount --policy page-count; observed is one, too")
    left, right = sides
    pairs = _pairs(left, right)
    told = pairs.filter(pl.col("outcome_a") != "untold", pl.col("outcome_b") != "untold")
    differ = told.filter(_differ())
    findings = [found(trace, replay) for replay in sides]
    alike = told.filter(~_differ()).select(*(pl.coalesce(f"{name}_a", f"{name}_b").alias(name) for name in ("decision", "reason")))
    return Comparison(
        trace=traced(trace),
        a=left.policy,
        b=right.policy,
        differences=_described(trace, differ, left, right, findings),
        compared=told.height,
        undetermined=pairs.height - told.height,
        alike=_counted(alike, ["decision", "reason"]),
        copies=(_number_of_copies(told, "a"), _number_of_copies(told, "b")),
        findings=pl.concat(findings),
        missing=tuple(dict.fromkeys(event for rule in RULES.values() for event in missing_events(rule, trace.raw.formats().keys()))),
    )


def _pairs(left: Replay, right: Replay) -> pl.DataFrame:
    """Every decision of either side beside the other's, by memory event and place."""
    keys = ["event", "place", "nth"]
    a, b = _decisions(left), _decisions(right)
    joined = a.join(b, on=keys, how="full", coalesce=True, suffix="_b").rename(
        {name: f"{name}_a" for name in a.columns if name not in keys}
    )
    outcomes = [pl.col(f"outcome_{side}").fill_null(_STAYS) for side in "ab"]
    return joined.with_columns(*outcomes, *(pl.col(f"unsure_{side}").fill_null(False) for side in "ab")).sort(keys)


def _decisions(replay: Replay) -> pl.DataFrame:
    """The decisions as one side of the comparison; several at the same place by one event are told apart by their number."""
    rows = replay.fault_rows
    return rows.select(
        "event",
        "place",
        pl.int_range(pl.len()).over("event", "place").alias("nth"),
        "decision",
        "reason",
        pl.col("page_before").alias("page"),
        pl.col("pfn_before").alias("pfn"),
        "mapcount",
        "references",
        "unsure",
        "pages",
        "tid",
        "pid",
        "comm",
        "mm",
        "address",
        pl.col("decision").cast(pl.String).replace_strict(_OUTCOMES, default=_STAYS).alias("outcome"),
    )


def _differ() -> pl.Expr:
    """Whether another outcome, or a copy of another kind; in place is in place, with or without a decision."""
    both_copy = (pl.col("outcome_a") == "copy") & (pl.col("outcome_b") == "copy")
    return (pl.col("outcome_a") != pl.col("outcome_b")) | (both_copy & (pl.col("decision_a") != pl.col("decision_b")))


def _number_of_copies(told: pl.DataFrame, side: str) -> int:
    copies = told.filter(pl.col(f"outcome_{side}") == "copy", pl.col(f"decision_{side}") != "zero-fill")
    return int(copies[f"pages_{side}"].sum())


def _copies(replay: Replay) -> pl.DataFrame:
    """The copies of pages by family: `family`, `event`, `pages`; zero-fills are none."""
    rows = replay.fault_rows.filter(pl.col("decision").is_in(COPIES), pl.col("decision") != "zero-fill")
    return pl.DataFrame({"family": _families(replay, rows["page_before"]), "event": rows["event"], "pages": rows["pages"]}).sort("event")


def _families(replay: Replay, pages: pl.Series) -> pl.Series:
    """The root of each page's family; null where there is none, or where only this policy makes it."""
    known = pages.is_not_null().to_numpy()
    root = replay.family_of_page[np.where(known, pages.fill_null(0).to_numpy(), 0)]
    return pl.Series(root.astype(np.int32)).set(pl.Series(~known | (root >= replay.history.pages)), None)


def _described(trace: Trace, differ: pl.DataFrame, left: Replay, right: Replay, findings: list[pl.DataFrame]) -> pl.DataFrame:
    """The differences as `schema.COMPARISON`."""
    events = trace.history.events
    row = differ["event"].to_numpy()
    families = [_families(replay, differ[f"page_{side}"]) for replay, side in ((left, "a"), (right, "b"))]
    frame = differ.select(
        "event",
        *(pl.coalesce(f"{name}_a", f"{name}_b").alias(name) for name in ("tid", "pid", "comm", "mm", "address")),
        *(pl.col(f"{name}_{side}") for side in "ab" for name in _SIDE),
        pl.lit(left.policy).alias("policy_a"),
        pl.lit(right.policy).alias("policy_b"),
        pl.when(pl.col("unsure_a") | pl.col("unsure_b") | (pl.col("outcome_a") == "unseen") | (pl.col("outcome_b") == "unseen"))
        .then(pl.lit("possible"))
        .otherwise(pl.lit("certain"))
        .alias("certainty"),
    ).with_columns(
        pl.Series("ts", events.ts[row]),
        _accesses(events, row),
        pl.select(pl.coalesce(*families)).to_series().alias("family"),
    )
    frame = _with_later(frame, _copies(left), _copies(right))
    only = [_only(findings[0], findings[1]), _only(findings[1], findings[0])]
    for side, replay, own in zip("ab", (left, right), only, strict=True):
        frame = _with_findings(frame, f"findings_{side}", own, replay)
    return frame.select(list(schema.COMPARISON)).cast(schema.polars_schema(schema.COMPARISON))  # type: ignore[arg-type]


def _accesses(events: MemoryEvents, row: Ints) -> pl.Series:
    """What met the page, by the memory event; a fault that a read pin takes to have the page to itself is GUP's."""
    by_op = {int(Op.FORK_RANGE): "fork", int(Op.REF_GET): "gup", int(Op.GUP): "gup", int(Op.MPROTECT): "protect"}
    op = pl.Series("access", events.op[row].astype(np.int64)).replace_strict(by_op, default="store", return_dtype=pl.String)
    unshares = (events.op[row] == int(Op.COW_BEGIN)) & (events.flags[row] & c.UNSHARE != 0)
    return op.set(pl.Series(unshares), "gup")


def _with_later(frame: pl.DataFrame, of_a: pl.DataFrame, of_b: pl.DataFrame) -> pl.DataFrame:
    """With what comes after in the same family: copies of b less those of a, and further differences."""
    frame = frame.with_row_index("_row")
    later = [_count_later(frame, copies) for copies in (of_a, of_b)]
    position = pl.int_range(pl.len()).over("family")
    return frame.with_columns(
        (later[1] - later[0]).alias("copies_later"),
        pl.when(pl.col("family").is_null()).then(0).otherwise(pl.len().over("family") - position - 1).alias("differences_later"),
    ).drop("_row")


def _count_later(frame: pl.DataFrame, copies: pl.DataFrame) -> pl.Series:
    """How many pages of each row's family are copied after its event."""
    known = copies.drop_nulls("family")
    total = known.group_by("family").agg(pl.col("pages").sum().alias("total"))
    counted = known.with_columns(pl.col("pages").cum_sum().over("family").alias("until")).drop("pages")
    joined = (
        frame.select("_row", "family", "event")
        .join(total, on="family", how="left")
        .sort("event")
        .join_asof(counted.sort("event"), on="event", by="family", strategy="backward", check_sortedness=False)
        .sort("_row")
    )
    return (joined["total"].fill_null(0) - joined["until"].fill_null(0)).alias("later")


_SAME: Final = ["rule", "mm", "address", "from_ns"]


def _only(findings: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """The findings of one side that the other has not: of the same rule about the same address by the same act."""
    return findings.join(others.select(_SAME).unique(), on=_SAME, how="anti", nulls_equal=True)


def _with_findings(frame: pl.DataFrame, name: str, findings: pl.DataFrame, replay: Replay) -> pl.DataFrame:
    """With the ids of the findings about the family of each row from its time on, in order of time."""
    known = findings.select("id", "from_ns", family=_families(replay, findings["page_id"])).drop_nulls()
    rows = frame.with_row_index("_row")
    listed = (
        rows.select("_row", "family", "ts")
        .join(known, on="family", how="inner")
        .filter(pl.col("from_ns") >= pl.col("ts"))
        .sort("_row", "from_ns", maintain_order=True)
        .group_by("_row", maintain_order=True)
        .agg(pl.col("id").alias(name))
    )
    empty = pl.lit([], dtype=pl.List(pl.String))
    return rows.join(listed, on="_row", how="left").sort("_row").with_columns(pl.col(name).fill_null(empty)).drop("_row")


#: What makes differences alike: how each side decides, and what met the page.
KIND: Final = ["access", "decision_a", "reason_a", "decision_b", "reason_b", "certainty"]


def kinds(differences: pl.DataFrame) -> pl.DataFrame:
    """How often each kind of difference occurs, most often first: `KIND`, `count`."""
    return _counted(differences, KIND)


def _counted(frame: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    descending = [True, *(False for _ in by)]
    return frame.group_by(by).agg(pl.len().alias("count")).sort("count", *by, descending=descending, nulls_last=True)


def groups(differences: pl.DataFrame) -> pl.DataFrame:
    """Neighbours as one row: differences of one kind in one address space at addresses without a gap, by the time of the first.

    `KIND`, `pid`, `comm`, `from_ns`, `to_ns` (first and last), `first`, `last` (addresses), `pages`, `count`; `mapcount_a`... as lists of
    the distinct values; `findings_a`, `findings_b`; `copies_later` and `differences_later` after the last of each family, together.
    """
    rows = (
        differences.with_row_index("_row")
        .sort("mm", *KIND, "address", "_row", nulls_last=True)
        .with_columns(_vpn=(pl.col("address") // schema.PAGE_SIZE).cast(pl.Int64))
    )
    parts = [pl.col(name).ne_missing(pl.col(name).shift()) for name in ("mm", *KIND)]
    gap = (pl.col("_vpn") - pl.col("_vpn").shift()).fill_null(2) > 1
    rows = rows.with_columns(_group=(pl.any_horizontal(*parts, gap)).cum_sum()).sort("_row")
    later = (
        rows.group_by("_group", "family", maintain_order=True)
        .agg(pl.col("copies_later", "differences_later").last())
        .group_by("_group")
        .agg(pl.col("copies_later", "differences_later").sum())
    )
    facts = [f"{name}_{side}" for side in "ab" for name in ("mapcount", "references")]
    told = (
        rows.group_by("_group", maintain_order=True)
        .agg(
            pl.col(*KIND, "pid", "comm", "mm").first(),
            pl.col("ts").first().alias("from_ns"),
            pl.col("ts").last().alias("to_ns"),
            pl.col("address").min().alias("first"),
            pl.col("address").max().alias("last"),
            pl.col("address").n_unique().alias("pages"),
            pl.len().alias("count"),
            pl.col(*facts).drop_nulls().unique().sort(),
        )
        .join(later, on="_group", how="left", maintain_order="left")
    )
    for name in ("findings_a", "findings_b"):
        ids = rows.select("_group", name).explode(name).drop_nulls().unique(maintain_order=True)
        told = told.join(ids.group_by("_group", maintain_order=True).agg(name), on="_group", how="left", maintain_order="left")
    return told.drop("_group")
