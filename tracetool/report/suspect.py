"""What a trace says of wrong data at an address: for a person, or as one JSON object."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Final

import polars as pl

from tracetool.foreign import printable
from tracetool.report.sections import DEFAULT_WIDTH, Row, Section, lines
from tracetool.schema import FINDINGS, HISTORY, OWNERSHIP, REFERENCES, SCHEMA_VERSION
from tracetool.suspecting import Suspicion

#: Rows of a list, and of the lifeline (its last ones), that text shows.
ROWS, LIFELINE, COMMANDS = 20, 60, 3
#: What JSON tells of a store.
_STORE: Final = ["ts", "pid", "comm", "mm", "address", "pfn_before", "pfn_after", "decision", "reason", "shared", "event"]


def text(suspicion: Suspicion, width: int = DEFAULT_WIDTH) -> str:
    """The answer as lines of at most `width` columns (commands to copy are not folded)."""
    told = list(lines(_sections(suspicion), width))
    path = shlex.quote(printable(suspicion.trace.path))
    ids = suspicion.findings["id"].to_list()[:COMMANDS]
    commands = [f"  tracetool explain {path} {name}" for name in ids]
    return "\n".join([*told, *(["", "Next", *commands] if commands else [])]) + "\n"


def to_json(suspicion: Suspicion) -> str:
    """The same as one JSON object in ASCII: times in ns on the trace's clock, addresses as hexadecimal strings."""
    s = suspicion
    document = {
        "schema_version": SCHEMA_VERSION,
        "trace": asdict(s.trace),
        "asked": {"pid": s.pid, "address": hex(s.address), "at_ns": s.at_ns},
        "verdict": s.verdict,
        "because": list(s.because),
        "missing": list(s.missing),
        "findings": _rows(s.findings, list(FINDINGS)),
        "stays": _rows(s.stays, list(OWNERSHIP)),
        "others": _rows(s.others, list(OWNERSHIP)),
        "references": _rows(s.references, list(REFERENCES)),
        "stores": _rows(s.stores, _STORE),
        "lifeline": _rows(s.lifeline, list(HISTORY)),
        "pages_left_out": s.pages_left_out,
    }
    return json.dumps(document, indent=2, allow_nan=False, default=str) + "\n"


def _rows(frame: pl.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    rows = frame.select(columns).to_dicts()
    return [row | {"address": None if row["address"] is None else hex(row["address"])} for row in rows]


def _sections(s: Suspicion) -> Iterator[Section]:
    when = "at any time" if s.at_ns is None else f"at {_at(s, s.at_ns)}"
    who = f"process {s.pid} ({s.stays['comm'][-1] or '?'})"
    yield Section(
        f"Wrong data at {s.address:#x} of {who}, {when}: {s.verdict}",
        (
            Row(f"{s.trace.path}: {s.trace.format}, kernel {s.trace.kernel or 'not named'}"),
            Row(f"Times count from the start of the trace, {s.trace.from_ns} ns of its clock."),
        ),
    )
    yield Section("Because", tuple(Row(why) for why in s.because))
    yield Section("What would have to be known to rule it out", tuple(Row(what) for what in s.missing))
    yield _listed(s, "What was mapped there", s.stays, _stay)
    yield _listed(s, "Who else mapped it, or what it was copied from", s.others, _stay)
    yield _listed(s, "Who held references to it", s.references, _reference)
    yield _listed(s, "Stores of others to it", s.stores, _store)
    yield Section("Everything that happened to it", tuple(_lifeline(s)))


def _listed(s: Suspicion, title: str, frame: pl.DataFrame, told: Callable[[Suspicion, dict[str, Any]], Row]) -> Section:
    rows = [told(s, row) for row in frame.head(ROWS).iter_rows(named=True)]
    if frame.height > ROWS:
        rows.append(Row(f"showing {ROWS} of {frame.height:,}; --format json has all"))
    return Section(title, tuple(rows))


def _at(s: Suspicion, ts: int | None, none: str = "before") -> str:
    return none if ts is None else f"{(ts - s.trace.from_ns) / 1e6:+,.3f} ms"


def _stay(s: Suspicion, row: dict[str, Any]) -> Row:
    until = "to the end of the trace" if row["to_ns"] is None else f"until {_at(s, row['to_ns'])} ({row['ended']})"
    who = "somebody" if row["pid"] is None else f"{row['comm'] or 'process'} {row['pid']}"
    return Row(f"{who} maps {_what(row)} at {row['address']:#x} ({row['began']}), {until}.", _at(s, row["from_ns"]))


def _what(row: dict[str, Any]) -> str:
    if row["pfn"] is not None:
        return f"frame {row['pfn']:#x}"
    return "the zero page" if row["began"] == "zero-page" else "no frame (the zero page, or a swap entry)"


def _reference(s: Suspicion, row: dict[str, Any]) -> Row:
    length = "long-term " if row["longterm"] else ""
    what = f"{length}{row['access']} {'pin' if row['kind'] == 'pin' else 'reference'}"
    taker = "somebody" if row["by_pid"] is None else f"{row['comm'] or 'process'} {row['by_pid']}"
    through = f"{row['via']}, {row['holder']}" if row["holder"] else row["via"]
    late = " at the latest" if row["released"] == "at-latest" else ""
    until = "its release is not in the trace" if row["to_ns"] is None else f"until {_at(s, row['to_ns'])}{late}"
    frame = "a page" if row["pfn"] is None else f"frame {row['pfn']:#x}"
    return Row(f"{taker} holds a {what} to {frame} of process {row['pid']} ({through}), {until}.", _at(s, row["from_ns"]))


def _store(s: Suspicion, row: dict[str, Any]) -> Row:
    who = "somebody" if row["pid"] is None else f"{row['comm'] or 'process'} {row['pid']}"
    frame = "a page" if row["pfn_before"] is None else f"frame {row['pfn_before']:#x}"
    there = "" if row["shared"] else "; it was not mapped at the address then"
    return Row(f"{who} stores to {frame}: {row['decision']} ({row['reason']}){there}.", _at(s, row["ts"]))


def _lifeline(s: Suspicion) -> Iterator[Row]:
    if s.lifeline.height > LIFELINE:
        yield Row(f"showing the last {LIFELINE} of {s.lifeline.height:,} rows; --format csv (jsonl, parquet, ...) writes all")
    for ts, told in s.lifeline.tail(LIFELINE).select("ts", "text").iter_rows():
        yield Row(told, _at(s, ts))
    if s.pages_left_out:
        yield Row(f"Of {s.pages_left_out:,} earlier pages only what happened at the address is told.")
