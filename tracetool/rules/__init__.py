"""Rules: what sharing is unsafe. One file a rule; each names the events it needs and finds its cases in the replayed tables.

A rule looks at faults, references and stays of one replay (`Evidence`), never at files. One finding is one page and one cause.
"""

from __future__ import annotations

from typing import Final

from tracetool.errors import UnknownName
from tracetool.rules.base import Evidence, Rule, findings, verdict
from tracetool.rules.cross_write import CROSS_WRITE
from tracetool.rules.fork_after_pin import FORK_AFTER_PIN
from tracetool.rules.missed_cow import MISSED_COW
from tracetool.rules.unnecessary_copy import UNNECESSARY_COPY
from tracetool.rules.wrong_cow import WRONG_COW

__all__ = ["RULES", "Evidence", "Rule", "findings", "rule", "verdict"]

RULES: Final = {r.name: r for r in (MISSED_COW, WRONG_COW, CROSS_WRITE, FORK_AFTER_PIN, UNNECESSARY_COPY)}


def rule(name: str) -> Rule:
    """The rule of that name; raises UnknownName, which lists them."""
    if name not in RULES:
        raise UnknownName("rule", name, RULES)
    return RULES[name]
