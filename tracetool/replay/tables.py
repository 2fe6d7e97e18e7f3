"""Replayed arrays -> the tables that users see: ownership, references, faults (`schema`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool import schema
from tracetool.memory_events import MemoryEvents
from tracetool.memory_events import codes as c
from tracetool.processes import owners, process_at, with_names
from tracetool.replay import columns as k
from tracetool.replay.deciding import (
    W_AFTER,
    W_BEFORE,
    W_DECISION,
    W_EVENT,
    W_LAST,
    W_MAPCOUNT,
    W_PAGES,
    W_PLACE,
    W_REASON,
    W_REFS,
    W_UNSURE,
)
from tracetool.replay.history import History
from tracetool.replay.simulated import Outcome

Ints = npt.NDArray[Any]


def times(events: MemoryEvents, rows: Ints) -> pl.Series:
    """Time stamps of memory event rows; null for -1."""
    known = rows >= 0
    ts = np.zeros(len(rows), np.int64)
    ts[known] = events.ts[rows[known]]
    return pl.Series(ts, dtype=pl.Int64).set(pl.Series(~known), None)


def nullable(values: Ints, none: Ints) -> pl.Series:
    """Integers, null where `none`."""
    return pl.Series(values).set(pl.Series(none), None)


def frames_of(history: History, pages: Ints) -> pl.Series:
    """Page frame numbers; null for pages that only a policy makes."""
    real = (pages >= 0) & (pages < history.pages)
    pfn = np.zeros(len(pages), np.int64)
    pfn[real] = history.events.known_frames[history.page_frames[pages[real]]]
    return nullable(pfn, ~real)


def is_pin(flags: Ints) -> Ints:
    """Whether GUP requests with these flags took FOLL_PIN references."""
    pins: Ints = (flags & c.PIN) != 0
    return pins


def stays_frame(history: History, stays: Ints, processes: pl.DataFrame) -> pl.DataFrame:
    """Every stay with its place, owner and times; `page_id` is negative for the zero page and swap entries (`replay.columns`)."""
    events = history.events
    place = history.places[stays[:, k.S_PLACE]]
    frame = pl.DataFrame(
        {
            "page_id": stays[:, k.S_PAGE],
            "pfn": frames_of(history, stays[:, k.S_PAGE]),
            "mm": place[:, k.L_MM].astype(np.int32),
            "address": (place[:, k.L_VPN] << schema.PAGE_SHIFT).view(np.uint64),
            "from_ns": times(events, stays[:, k.S_FROM]),
            "to_ns": times(events, stays[:, k.S_TO]),
            "from_event": stays[:, k.S_FROM],
            "to_event": stays[:, k.S_TO],
            "began": schema.labels("began", schema.BEGAN, stays[:, k.S_BEGAN]),
            "ended": schema.labels("ended", schema.ENDED, stays[:, k.S_ENDED]),
            "order": stays[:, k.S_ORDER],
        }
    )
    return with_names(frame.join(owners(processes), on="mm", how="left", maintain_order="left"), processes, "from_ns")


def ownership(stays: pl.DataFrame) -> pl.LazyFrame:
    """Stays of page frames, as `schema.OWNERSHIP`."""
    return stays.lazy().filter(pl.col("page_id") >= 0).select(list(schema.OWNERSHIP))


def references(history: History, ref_page: Ints, processes: pl.DataFrame) -> pl.LazyFrame:
    """GUP references, as `schema.REFERENCES`; `ref_page` says which page each holds under the policy."""
    events, refs = history.events, history.refs
    row, place = refs[:, k.R_FROM], history.places[refs[:, k.R_PLACE]]
    flags = events.flags[row]
    taker = pl.DataFrame({"tid": events.tid[row], "from_ns": events.ts[row]})
    frame = pl.DataFrame(
        {
            "reference": np.arange(len(refs), dtype=np.int32),
            "page_id": nullable(ref_page, ref_page < 0),
            "pfn": frames_of(history, ref_page),
            "mm": place[:, k.L_MM].astype(np.int32),
            "by_pid": process_at(taker, processes),
            "address": (place[:, k.L_VPN] << schema.PAGE_SHIFT).view(np.uint64),
            "kind": schema.labels("kind", ("get", "pin"), is_pin(flags).astype(np.uint32)),
            "access": schema.labels("access", ("read", "write"), flags & c.WRITE),
            "longterm": flags & c.LONGTERM != 0,
            "via": schema.labels("via", schema.VIA, flags >> c.VIA_SHIFT),
            "holder": events.holders.gather(refs[:, k.R_GROUP].astype(np.uint32)),
            "from_ns": events.ts[row],
            "to_ns": times(events, refs[:, k.R_TO]),
            "released": schema.labels("released", schema.RELEASED, refs[:, k.R_RELEASED]),
            "from_event": row,
            "to_event": refs[:, k.R_TO],
        }
    )
    frame = frame.join(owners(processes), on="mm", how="left", maintain_order="left")
    return with_names(frame, processes, "from_ns", pid="by_pid").lazy().select(*schema.REFERENCES, "from_event", "to_event")


def faults(history: History, outcome: Outcome, processes: pl.DataFrame) -> pl.LazyFrame:
    """COW decisions, as `schema.FAULTS`."""
    events, made = history.events, outcome.decisions
    row, place = made[:, W_EVENT], made[:, W_PLACE]
    last = made[:, W_LAST]
    # An event can be about many pages; of a decision at no known place it is about one.
    vpn = np.where(place >= 0, history.places[np.maximum(place, 0), k.L_VPN] if len(history.places) else 0, -1)
    address = np.where(place >= 0, vpn << schema.PAGE_SHIFT, events.address[row])
    before, after = made[:, W_BEFORE], made[:, W_AFTER]
    frame = pl.DataFrame(
        {
            "ts": events.ts[row],
            "mm": events.mm[row],
            "tid": events.tid[row],
            "address": address.view(np.uint64),
            "page_before": nullable(before, before < 0),
            "page_after": nullable(after, after < 0),
            "pfn_before": frames_of(history, before),
            "pfn_after": frames_of(history, after),
            "decision": schema.labels("decision", schema.DECISIONS, made[:, W_DECISION]),
            "reason": schema.labels("reason", schema.REASONS, made[:, W_REASON]),
            "mapcount": made[:, W_MAPCOUNT],
            "references": made[:, W_REFS],
            "duration_ns": nullable(np.where(last >= 0, events.ts[np.maximum(last, 0)] - events.ts[row], 0), last < 0),
            "in_kernel": events.flags[row] & c.USER == 0,
            "event": row.astype(np.int64),
            "pages": made[:, W_PAGES].astype(np.int64),
            "place": place,
            "unsure": made[:, W_UNSURE] != 0,
        }
    )
    pids = process_at(frame.select("tid", pl.col("ts").alias("from_ns")), processes)
    return with_names(frame.with_columns(pids.alias("pid")), processes, "ts").lazy().select(*schema.FAULTS, "place", "unsure")
