"""Where two policies part, for a terminal: how many decisions, of which kinds, then neighbours together in the order of the trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import polars as pl

from tracetool.comparing import Comparison, groups, kinds
from tracetool.report.sections import DEFAULT_WIDTH, Row, Section, lines
from tracetool.report.words import counted, listed, since

#: Kinds of differences, groups of neighbours, and ids of findings that are shown.
KINDS, GROUPS, IDS = 20, 40, 4

#: What a policy does that has nothing to decide.
_NOTHING: Final = {
    "fork": "shares the page",
    "gup": "takes the page as it is",
    "store": "writes in place",
    "protect": "would not copy at the next store",
}
_ACTS: Final = {"store": "stores to", "fork": "forks with", "gup": "takes a reference to", "protect": "may write again to"}


def text(comparison: Comparison, width: int = DEFAULT_WIDTH) -> str:
    """The comparison as lines of at most `width` columns."""
    return "\n".join(lines(_sections(comparison), width)) + "\n"


def why_none(comparison: Comparison) -> str:
    """What it means that nothing differs."""
    c = comparison
    if not c.compared and not c.undetermined:
        if c.missing:
            return f"No difference: the trace has no COW decision. It does not record {', '.join(c.missing)}."
        return "No difference: the trace has no COW decision; while it was recorded no traced process wrote to a page that it shared."
    if not c.compared:
        return f"No difference that could be told: {_undetermined(c)}."
    alike = [f"{count:,} {_decided(decision, reason, 'store')}" for decision, reason, count in c.alike.head(IDS).iter_rows()]
    more = f" and {c.alike.height - IDS} more kinds" if c.alike.height > IDS else ""
    unknown = f" Left out: {_undetermined(c)}." if c.undetermined else ""
    return f"No difference: {c.a} and {c.b} decide all {counted(c.compared, 'decision')} alike: {', '.join(alike)}{more}.{unknown}"


def _undetermined(c: Comparison) -> str:
    return f"{counted(c.undetermined, 'decision')} about pages older than the trace, which no policy can be asked"


def _sections(c: Comparison) -> Iterator[Section]:
    yield Section(f"{c.a} (a) and {c.b} (b)", tuple(_summary(c)))
    if c.differences.height:
        yield Section("Kinds of differences", tuple(_kinds(c)))
        yield Section("Differences in the order of the trace, neighbours together", tuple(_groups(c)))


def _summary(c: Comparison) -> Iterator[Row]:
    yield Row(f"{c.trace.path}: {c.trace.format}, kernel {c.trace.kernel or 'not named'}")
    if not c.differences.height:
        yield Row(why_none(c))
        return
    unknown = f"; left out: {_undetermined(c)}" if c.undetermined else ""
    differ = "differs" if c.differences.height == 1 else "differ"
    yield Row(f"{c.differences.height:,} of {counted(c.compared, 'decision')} {differ}{unknown}.")
    a, b = c.copies
    yield Row(f"Pages copied: {a:,} by {c.a}, {b:,} by {c.b} ({b - a:+,}).")
    for side, name in (("a", c.a), ("b", c.b)):
        ids = c.differences[f"findings_{side}"].explode().drop_nulls().unique(maintain_order=True).to_list()
        if ids:
            yield Row(f"Findings of {name} alone that follow: {_ids(c, ids)}.")
    if c.missing:
        yield Row(f"What is not recorded is not compared: {', '.join(c.missing)}.")


def _ids(c: Comparison, ids: list[str]) -> str:
    known = c.findings.filter(pl.col("id").is_in(ids))
    certainty = dict(known.select("id", "certainty").iter_rows())
    severity = dict(known.select("id", "severity").iter_rows())
    order = {each: number for number, each in enumerate(known["id"].to_list())}
    worst = sorted(ids, key=lambda each: (severity.get(each) != "defect", certainty.get(each) != "certain", order.get(each, 0)))
    named = [f"{each} ({certainty.get(each, '?')}{'' if severity.get(each) == 'defect' else ', info'})" for each in worst[:IDS]]
    return listed(named) + (f" and {len(ids) - IDS:,} more" if len(ids) > IDS else "")


def _kinds(c: Comparison) -> Iterator[Row]:
    table = kinds(c.differences)
    for kind in table.head(KINDS).iter_rows(named=True):
        possible = "" if kind["certainty"] == "certain" else " (possible)"
        yield Row(f"{kind['access']}: {_sides(c, kind)}{possible}", f"{kind['count']:,}")
    if table.height > KINDS:
        yield Row(f"and {table.height - KINDS:,} more kinds")


def _sides(c: Comparison, row: Mapping[str, Any]) -> str:
    told = [f"{name}: {_decided(row[f'decision_{side}'], row[f'reason_{side}'], row['access'])}" for side, name in (("a", c.a), ("b", c.b))]
    return " -> ".join(told)


def _decided(decision: str | None, reason: str | None, access: str) -> str:
    if decision is None:
        return _NOTHING.get(access, "nothing to decide")
    if decision == "none":
        return _NOTHING["fork"]
    if decision == "unseen":
        return f"would copy at the next store, which the trace cannot show ({reason})"
    return f"{decision} ({reason})" if reason and reason != "unknown" else f"{decision} (reason not in the trace)"


def _groups(c: Comparison) -> Iterator[Row]:
    table = groups(c.differences)
    begin, span = c.trace.from_ns, c.trace.to_ns - c.trace.from_ns
    for group in table.head(GROUPS).iter_rows(named=True):
        possible = "" if group["certainty"] == "certain" else " (possible)"
        yield Row(_headline(c, group, begin, span), since(group["from_ns"] - begin, span))
        yield Row(f"{_sides(c, group)}{possible}")
        yield Row(f"Afterwards: {_later(c, group)}.")
    if table.height > GROUPS:
        yield Row(f"showing {GROUPS} of {table.height:,} groups; --format csv (jsonl, parquet, ...) writes all decisions")


def _headline(c: Comparison, group: Mapping[str, Any], begin: int, span: int) -> str:
    who = f"{group['comm'] or 'process'} {'?' if group['pid'] is None else group['pid']}"
    where = f"{group['first']:#x}"
    if group["pages"] > 1:
        where = f"{counted(group['pages'], 'page')} from {group['first']:#x} to {group['last']:#x}"
    again = f", {counted(group['count'], 'decision')}" if group["count"] > group["pages"] else ""
    times = f"{again}, until {since(group['to_ns'] - begin, span)}" if group["to_ns"] > group["from_ns"] else again
    facts = [f"{name} {_facts(group, side)}" for side, name in (("a", c.a), ("b", c.b)) if group[f"mapcount_{side}"]]
    same = _facts(group, "a") == _facts(group, "b")
    found = f" (finds {_facts(group, 'a') if same else ', '.join(facts)})" if facts else ""
    return f"{who} {_ACTS[group['access']]} {where}{times}{found}"


def _facts(group: Mapping[str, Any], side: str) -> str:
    mappings, references = group[f"mapcount_{side}"], group[f"references_{side}"]
    return f"{_range(mappings, 'mapping')}, {_range(references, 'reference')}" if mappings else ""


def _range(values: list[int], noun: str) -> str:
    return counted(values[0], noun) if len(values) == 1 else f"{values[0]:,} to {values[-1]:,} {noun}s"


def _later(c: Comparison, group: Mapping[str, Any]) -> str:
    told = [
        f"{_ids(c, group[f'findings_{side}'])} only under {name}" for side, name in (("a", c.a), ("b", c.b)) if group[f"findings_{side}"]
    ]
    copies, more = group["copies_later"], group["differences_later"]
    told.append(f"{counted(abs(copies), 'copy', 'copies')} {'more' if copies > 0 else 'fewer'} under {c.b}" if copies else "as many copies")
    told.append(f"{counted(more, 'further decision')} {'differs' if more == 1 else 'differ'}" if more else "no further difference")
    return "; ".join(told)
