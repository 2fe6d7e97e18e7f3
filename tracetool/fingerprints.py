"""Fingerprints: what makes a finding the same one in another run of the same program, or under another recording of it.

A fingerprint is made of the rule, the policy, the programs (who holds the reference, who acted), the kind of memory, the instruction that
stored, and the kind of reference; of no pid, frame, address, time or number. Two findings of one run can share one, and stay two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import polars as pl

from tracetool import schema
from tracetool.processes import with_names
from tracetool.replay import Replay
from tracetool.trace import Trace
from tracetool.where.areas import areas
from tracetool.where.sites import call_sites

__all__ = ["with_fingerprints"]

#: What is hashed changes with this number, and with it every fingerprint.
VERSION: Final = 1
DIGITS: Final = 16
_PARTS: Final = ("rule", "policy", "comm", "by_comm", "area", "call_site", "kind", "access", "longterm", "via")
#: Threads of pools and of the kernel carry numbers in their names (`iou-wrk-158`, `kworker/1:1`) that differ from run to run.
_NUMBER: Final = r"\d+"


def with_fingerprints(found: pl.DataFrame, replays: Iterable[Replay], trace: Trace) -> pl.DataFrame:
    """Fill the columns `area`, `call_site` and `fingerprint` of findings (`schema.FINDINGS`) of these replays of a trace.

    `area` is that of `where.areas`; `call_site` by page_fault_user. A fingerprint is the first
    16 hexadecimal digits of a SHA-256.
    """
    if not found.height:
        return found
    rows = found.drop("area", "call_site", "fingerprint").with_row_index("_finding")
    rows = _with_act(rows, trace)
    rows = _with_reference(rows, replays)
    rows = with_names(rows, trace.processes, "from_ns", pid="by_pid", comm="by_comm")
    kinds = areas(rows.select("mm", "address", event="_act"), trace)
    rows = rows.with_columns(kinds["area"], call_sites(rows["_act"], trace))
    known = rows.select(
        "_finding",
        *(pl.col(part).cast(pl.String).fill_null("?").alias(part) for part in _PARTS if "comm" not in part),
        *(pl.col(part).fill_null("?").str.replace_all(_NUMBER, "0").alias(part) for part in _PARTS if "comm" in part),
    )
    distinct = known.select(_PARTS).unique(maintain_order=True)
    hashed = distinct.with_columns(pl.Series("fingerprint", map(_hashed, distinct.iter_rows()), dtype=pl.String))
    joined = known.join(hashed, on=_PARTS, how="left", maintain_order="left")
    return rows.with_columns(joined["fingerprint"]).select(list(schema.FINDINGS)).cast(schema.polars_schema(schema.FINDINGS))  # type: ignore[arg-type]


def _hashed(parts: Iterable[str]) -> str:
    told = "\x1f".join([f"tracetool/v{VERSION}", *parts])
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def _with_act(rows: pl.DataFrame, trace: Trace) -> pl.DataFrame:
    """Add `_act`, the memory event that makes each finding unsafe: the last of its evidence by then."""
    ts = pl.Series(trace.history.events.ts, dtype=pl.Int64)
    evidence = rows.select("_finding", "from_ns", "evidence").explode("evidence").drop_nulls()
    acts = (
        evidence.with_columns(ts=ts.gather(evidence["evidence"]))
        .filter(pl.col("ts") <= pl.col("from_ns"))
        .group_by("_finding")
        .agg(_act=pl.col("evidence").max())
    )
    return rows.join(acts, on="_finding", how="left", maintain_order="left")


def _with_reference(rows: pl.DataFrame, replays: Iterable[Replay]) -> pl.DataFrame:
    """Add what kind of reference each finding is about: `kind`, `access`, `longterm`."""
    keys = ["policy", "page_id", "mm", "address"]
    asked = rows.select("_finding", *keys, pl.col("evidence").alias("_evidence"))
    held = [
        replay.reference_rows.select(
            pl.lit(replay.policy).alias("policy"),
            pl.col("page_id").cast(pl.Int32),
            "mm",
            "address",
            *(pl.col(name).cast(pl.String) for name in ("kind", "access")),
            "longterm",
            pl.col("from_event").cast(pl.Int64),
        )
        for replay in replays
    ]
    of = (
        asked.join(pl.concat(held), on=keys, how="inner", maintain_order="left_right")
        .filter(pl.col("_evidence").list.contains(pl.col("from_event")))
        .unique("_finding", keep="first", maintain_order=True)
        .select("_finding", "kind", "access", "longterm")
    )
    return rows.join(of, on="_finding", how="left", maintain_order="left")
