"""Policies: how kernels of different eras decide whether a page may be shared. One file an era, readable predicates over a few facts."""

from __future__ import annotations

from tracetool.policies.chosen import KERNEL, POLICIES, chosen, of_kernel, policy
from tracetool.policies.facts import DecisionTables, Page, Policy, Request, SwapIn, Verdict, copy, reuse, tabulate

__all__ = [
    "KERNEL", "POLICIES", "DecisionTables", "Page", "Policy", "Request", "SwapIn", "Verdict", "chosen", "copy", "of_kernel", "policy",
    "reuse", "tabulate",
]  # fmt: skip
