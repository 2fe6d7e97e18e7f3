"""Policies: how kernels of different eras decide whether a page may be shared. One file an era, readable predicates over a few facts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tracetool.errors import UnknownName, Unusable
from tracetool.policies.exclusive import EXCLUSIVE
from tracetool.policies.facts import DecisionTables, Page, Policy, Request, Verdict, copy, reuse, tabulate
from tracetool.policies.forced_cow import FORCED_COW
from tracetool.policies.mapcount import MAPCOUNT
from tracetool.policies.page_count import PAGE_COUNT

__all__ = ["POLICIES", "DecisionTables", "Page", "Policy", "Request", "Verdict", "chosen", "copy", "policy", "reuse", "tabulate"]

#: In the order of the kernels that had them.
POLICIES: Final = {p.name: p for p in (MAPCOUNT, FORCED_COW, PAGE_COUNT, EXCLUSIVE)}


def policy(name: str) -> Policy:
    """The policy of that name; raises UnknownName, which lists them."""
    if name not in POLICIES:
        raise UnknownName("policy", name, POLICIES)
    return POLICIES[name]


def chosen(names: Iterable[str]) -> list[Policy]:
    """What `--policy` asks for: nothing or `all` is every policy, `none` none, else those named, once each; `observed` is always there."""
    wanted = list(dict.fromkeys(names))
    if "none" in wanted:
        if len(wanted) > 1:
            raise Unusable("policy none excludes all others", hint="--policy none replays only what was recorded")
        return []
    if not wanted or "all" in wanted:
        return list(POLICIES.values())
    return [policy(name) for name in wanted if name != "observed"]
