"""What a kernel looks at when it decides about an anonymous page, and what it can decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tracetool.schema import REASONS


class Page(NamedTuple):
    """One anonymous 4 KiB page, seen from one of its mappings.

    `mapped_elsewhere`: another page table entry maps it, too. `referenced`: somebody holds a GUP reference to it (FOLL_GET or FOLL_PIN).
    `maybe_pinned`: one of them is a FOLL_PIN. `mm_has_pinned`: the address space has ever pinned a page. `exclusive`: PageAnonExclusive,
    kept for every policy: set on new and reused pages, cleared when fork shares them.
    """

    mapped_elsewhere: bool
    referenced: bool
    maybe_pinned: bool
    mm_has_pinned: bool
    exclusive: bool


class Request(NamedTuple):
    """One GUP request for a page whose page table entry is read-only: `pin` (FOLL_PIN, else FOLL_GET), `longterm` (FOLL_LONGTERM)."""

    pin: bool
    longterm: bool


@dataclass(frozen=True)
class Verdict:
    """A decision and what decided it (one of `schema.REASONS`)."""

    copy: bool
    reason: str


def copy(reason: str) -> Verdict:
    """Give the writer a new page."""
    return Verdict(True, reason)


def reuse(reason: str) -> Verdict:
    """Let the writer write in place; at fork: share."""
    return Verdict(False, reason)


GupDecision = Literal["take", "unshare", "write"]
_GUP: Final = ("take", "unshare", "write")


@dataclass(frozen=True)
class Policy:
    """How a kernel decides: three predicates over a few facts, each with the kernel commit it follows in its docstring.

    `write_fault`: a store meets a read-only entry of a private mapping: copy or reuse? `fork`: copy for the child now, or share?
    `gup`: a read reference through a read-only entry: take the page, or unshare it first (by the test of `write_fault`), or do as a
    store does, which leaves the entry writable?
    `mprotect_restores`: does making memory writable again make an exclusive page's entry writable at once? `checked_on`: the real kernels
    on which its decisions were compared, or "from source only".
    """

    name: str
    write_fault: Callable[[Page], Verdict]
    fork: Callable[[Page], Verdict]
    gup: Callable[[Page, Request], GupDecision]
    mprotect_restores: bool
    checked_on: str


class DecisionTables(NamedTuple):
    """A policy evaluated over all facts, int64: bit 0 is copy, the rest the index of the reason; for GUP 0 take, 1 unshare, 2 write."""

    write_fault: npt.NDArray[np.int64]
    fork: npt.NDArray[np.int64]
    gup: npt.NDArray[np.int64]


# Facts as bits, in the order of Page, then of Request.
MAPPED_ELSEWHERE, REFERENCED, MAYBE_PINNED, MM_HAS_PINNED, EXCLUSIVE, PIN, LONGTERM = (1 << bit for bit in range(7))
_PAGE_BITS: Final = len(Page._fields)


def tabulate(policy: Policy) -> DecisionTables:
    """Evaluate the predicates over every combination of facts; raises ValueError where one gives something else than a decision."""
    pages = [Page(*reversed(bits)) for bits in product((False, True), repeat=_PAGE_BITS)]
    requests = [Request(*reversed(bits)) for bits in product((False, True), repeat=len(Request._fields))]
    return DecisionTables(
        np.array([_coded(policy, policy.write_fault(page)) for page in pages], np.int64),
        np.array([_coded(policy, policy.fork(page)) for page in pages], np.int64),
        np.array([_GUP.index(policy.gup(page, request)) for request in requests for page in pages], np.int64),
    )


def _coded(policy: Policy, verdict: Verdict) -> int:
    if verdict.reason not in REASONS:
        raise ValueError(f"policy {policy.name}: no such reason {verdict.reason!r}; there are {', '.join(REASONS)}")
    return int(verdict.copy) | REASONS.index(verdict.reason) << 1
