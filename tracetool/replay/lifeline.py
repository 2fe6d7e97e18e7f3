"""What happened to one page frame, or at one address: the stays, references and decisions of a replay in order, told in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracetool import schema
from tracetool.replay import columns as k

if TYPE_CHECKING:
    from tracetool.replay import Replay

#: Of what happens by one event, what ends comes before what begins, and what was decided before both.
_DECIDED, _ENDED, _BEGAN = range(3)

_BEGINNINGS: Final[Mapping[str, str]] = {
    "before-trace": "{who} maps {page} at {at}, since before the trace",
    "touch": "{who} touches {at} for the first time: {page} is new",
    "copy": "{who} gets {page} at {at}, a copy",
    "fork": "{who} maps {page} at {at}, shared by fork",
    "early-copy": "{who} gets {page} at {at}, copied by fork because it was pinned",
    "zero-fill": "{who} gets {page} at {at}, in place of the zero page",
    "unshare": "{who} gets {page} at {at}, a copy for a read pin",
    "swap-in": "{who} gets {page} at {at}, read back from swap",
    "again": "{who} maps {page} at {at} again",
    "move": "{who} maps {page} at {at}, moved there",
    "zero-page": "{who} reads {at}: the zero page",
    "migration": "{who} has {page} at {at} now: the kernel moved it",
}
_ENDS: Final[Mapping[str, str]] = {
    "unmapped": "{who} unmaps {page} at {at}",
    "copied": "{who} maps {page} at {at} no more: a copy took its place",
    "exit": "{who} ends, and its mapping of {page} at {at}",
    "moved": "{who} moves {page} away from {at}",
    "swapped-out": "{page} of {who} at {at} is swapped out",
    "replaced": "{page} of {who} at {at} is replaced",
    "merged": "{page} of {who} at {at} is merged by KSM",
    "migrated": "{page} of {who} at {at} is moved to another frame",
}
_DECISIONS: Final[Mapping[str, str]] = {
    "copy": "{who} writes {at}: copied ({why})",
    "reuse": "{who} writes {at} in place ({why})",
    "zero-fill": "{who} writes {at}, where the zero page is",
    "early-copy": "fork copies {at} for {who} ({why})",
    "unshare": "a read pin has {at} of {who} copied ({why})",
    "split": "{who} writes {at}: the mapping of the huge page is split ({why})",
    "in-place": "{who} writes {at}, which needs no decision",
    "undetermined": "{who} writes {at}; the page is older than the trace",
    "none": "{who} writes {at}: nothing was decided",
    "unseen": "{who} would get a copy at its next store to {at}, which the trace cannot show ({why})",
}


def lifeline(replay: Replay, *, pfn: int | None = None, pid: int | None = None, address: int | None = None) -> pl.DataFrame:
    """The history of a page frame (`pfn`), of an address of a process (`pid`, `address`), or of both, as `schema.HISTORY`.

    It holds every life of the frame, every page that was at the address, whoever references them, and every COW decision about them;
    rows are in the order of the trace. Nothing known gives no rows.
    """
    here, framed, decided = pl.lit(True), pl.lit(True), pl.lit(True)
    if pid is not None:
        here &= pl.col("pid") == pid
    if address is not None:
        here &= pl.col("address") == address >> schema.PAGE_SHIFT << schema.PAGE_SHIFT
    if pfn is not None:
        framed = pl.col("pfn") == pfn
        decided = (pl.col("pfn_before") == pfn) | (pl.col("pfn_after") == pfn)
    rows = [
        *_of_stays(replay.stays.filter(here & framed)),
        *_of_references(replay.reference_rows.filter(here & framed)),
        *_of_faults(replay.fault_rows.filter(here & decided)),
    ]
    rows.sort(key=lambda row: (row["_event"], row["_order"]))
    return pl.DataFrame([{name: row[name] for name in schema.HISTORY} for row in rows], schema=schema.polars_schema(schema.HISTORY))


def _row(act: str, order: int, event: int, ts: int | None, of: Mapping[str, Any], text: str, **more: Any) -> dict[str, Any]:
    own = {name: of.get(name) for name in ("page_id", "pfn", "mm", "pid", "comm", "address")}
    page = of.get("page_id")
    own["page_id"] = page if page is not None and page >= 0 else None
    who = "somebody" if of.get("pid") is None else f"{of.get('comm') or 'process'} {of['pid']}"
    told = text.format(who=who, at=f"{of['address']:#x}", page=_page(of), **more)
    return {"ts": ts, "act": act, **own, "text": told, "event": max(event, 0), "_event": event, "_order": order}


def _page(of: Mapping[str, Any]) -> str:
    if of.get("pfn") is not None:
        return f"frame {of['pfn']:#x}"
    return {k.THE_ZERO_PAGE: "the zero page", k.SWAPPED: "a swap entry"}.get(of.get("page_id") or 0, "a frame that only this policy makes")


def _of_stays(stays: pl.DataFrame) -> Iterable[dict[str, Any]]:
    for of in stays.iter_rows(named=True):
        if of["page_id"] != k.SWAPPED:
            yield _row(of["began"], _BEGAN, of["from_event"], of["from_ns"], of, _BEGINNINGS[of["began"]])
            if of["ended"] != "open":
                yield _row(of["ended"], _ENDED, of["to_event"], of["to_ns"], of, _ENDS[of["ended"]])


def _of_references(references: pl.DataFrame) -> Iterable[dict[str, Any]]:
    for of in references.iter_rows(named=True):
        # The process whose memory it is names the row; who took it is in the sentence.
        kind = ("a long-term " if of["longterm"] else "a ") + f"{of['access']} {'pin' if of['kind'] == 'pin' else 'reference'}"
        taker = f"{of['comm'] or 'process'} {of['by_pid']}" if of["by_pid"] is not None else "somebody"
        text = "{taker} takes {kind} of {page}, {at} of process {pid} ({via})"
        said = {"taker": taker, "kind": kind, "pid": of["pid"], "via": of["via"], "how": of["released"]}
        yield _row(of["kind"], _BEGAN, of["from_event"], of["from_ns"], of, text, **said)
        if of["to_ns"] is not None:
            yield _row("release", _ENDED, of["to_event"], of["to_ns"], of, "{taker} releases {kind} of {page} ({how})", **said)


def _of_faults(faults: pl.DataFrame) -> Iterable[dict[str, Any]]:
    for of in faults.iter_rows(named=True):
        after = "before" if of["page_after"] is None else "after"
        named = {**of, "page_id": of[f"page_{after}"], "pfn": of[f"pfn_{after}"]}
        decision = "decided-" + of["decision"]
        yield _row(decision, _DECIDED, of["event"], of["ts"], named, _DECISIONS[of["decision"]], why=of["reason"])
