"""What a kernel looks at when it decides about an anonymous page, and what it can decide."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tracetool.schema import REASONS


class Page(NamedTuple):
    """One anonymous page, seen from the page table entry that maps it. Whatever is not said of it is False.

    Of every page:
    `mapped_elsewhere`: another page table or swap entry refers to it, too. `referenced`: somebody holds a GUP reference to it (FOLL_GET or
    FOLL_PIN). `maybe_pinned`: one of them is a FOLL_PIN. `mm_has_pinned`: the address space has ever pinned a page. `exclusive`:
    PageAnonExclusive, kept for every policy: set on new and reused pages, cleared when fork shares them. `swap_cached`: it is in the
    swap cache, which holds a reference.

    Of a page of its own (4 KiB):
    `ksm`: KSM merged it. `lru_batch`: it waits in the LRU batch of this CPU, which holds a reference, `lru_batch_elsewhere`: in that of
    another. `unmapping`: another address space has unmapped it, and still holds its reference until it frees all that it unmapped.

    Of a part of a larger page (`large`; references to any part are references to the whole):
    `neighbours`: other parts of it are mapped. `part_shared`: some part is mapped more than once. `another_mm`: another address space maps
    a part.
    """

    mapped_elsewhere: bool = False
    referenced: bool = False
    maybe_pinned: bool = False
    mm_has_pinned: bool = False
    exclusive: bool = False
    swap_cached: bool = False
    ksm: bool = False
    lru_batch: bool = False
    lru_batch_elsewhere: bool = False
    unmapping: bool = False
    large: bool = False
    neighbours: bool = False
    part_shared: bool = False
    another_mm: bool = False


class Request(NamedTuple):
    """One GUP request for a page whose page table entry is read-only: `pin` (FOLL_PIN, else FOLL_GET), `longterm` (FOLL_LONGTERM)."""

    pin: bool
    longterm: bool


class SwapIn(NamedTuple):
    """A fault on a swap entry: for a `store`; the entry says that its page is `exclusive`; the page was read into no swap cache
    (`fresh`).
    """

    store: bool
    exclusive: bool
    fresh: bool


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
SwapInDecision = Literal["shared", "exclusive", "writable"]
_SWAP_IN: Final = ("shared", "exclusive", "writable")


@dataclass(frozen=True)
class Policy:
    """How a kernel decides: predicates over a few facts, each with the kernel commit it follows in its docstring.

    `write_fault`: a store meets a read-only entry of a private mapping: copy or reuse? `huge_write_fault`: the same of a huge page that
    is mapped as one: copy here means that the mapping is split, and the fault of a single page follows, or, with `copies_huge`, that all
    of it is copied. `fork`: copy for the child now, or share? `gup`: a read reference through a read-only entry: take the page, or unshare
    it first (by the test of `write_fault`), or do as a store does, which leaves the entry writable? `swap_in`: how is a page mapped
    that was read back from swap: `shared` (read-only), as its owner's own (`exclusive`), or `writable`?

    `mprotect_restores`: does making memory writable again make an exclusive page's entry writable at once? `drains`: up to
    how many other references (-1: never) a store that meets a page in the LRU batch of its own CPU drains it. `swap_cache_always`: is all
    that comes from swap read into the swap cache, and taken out again once its last entry is gone? `checked_on`: the real kernels on which
    its decisions were compared, or "from source only".
    """

    name: str
    write_fault: Callable[[Page], Verdict]
    fork: Callable[[Page], Verdict]
    gup: Callable[[Page, Request], GupDecision]
    huge_write_fault: Callable[[Page], Verdict]
    swap_in: Callable[[Page, SwapIn], SwapInDecision]
    checked_on: str
    mprotect_restores: bool = False
    copies_huge: bool = False
    drains: int = -1
    swap_cache_always: bool = False


class DecisionTables(NamedTuple):
    """A policy evaluated over all facts, int64: bit 0 is copy, the rest the index of the reason; for GUP 0 take, 1 unshare, 2 write; for
    pages from swap 0 shared, 1 exclusive, 2 writable. Indexes are bits of facts; of huge pages those of large ones.
    """

    write_fault: npt.NDArray[np.int64]
    fork: npt.NDArray[np.int64]
    gup: npt.NDArray[np.int64]
    huge: npt.NDArray[np.int64]
    swap_in: npt.NDArray[np.int64]


# Facts as bits. Those of pages of their own and of parts of larger ones share bits: LARGE says which they are. Then those of requests.
MAPPED_ELSEWHERE, REFERENCED, MAYBE_PINNED, MM_HAS_PINNED, EXCLUSIVE, SWAP_CACHED = (1 << bit for bit in range(6))
KSM, LRU_BATCH, LRU_BATCH_ELSEWHERE, UNMAPPING = (1 << bit for bit in range(6, 10))
NEIGHBOURS, PART_SHARED, ANOTHER_MM = (1 << bit for bit in range(6, 9))
LARGE: Final = 1 << 10
_PAGE_BITS: Final = 11
PIN, LONGTERM = 1 << _PAGE_BITS, 2 << _PAGE_BITS
STORE, ENTRY_EXCLUSIVE, FRESH = 1 << _PAGE_BITS, 2 << _PAGE_BITS, 4 << _PAGE_BITS

_OF_ALL: Final = Page._fields[:6]
_OF_SMALL: Final = Page._fields[6:10]
_OF_LARGE: Final = Page._fields[11:]


def page_of(bits: int) -> Page:
    """The facts that bits stand for."""
    own = _OF_LARGE if bits & LARGE else _OF_SMALL
    told = {name: bool(bits >> bit & 1) for bit, name in enumerate((*_OF_ALL, *own))}
    return Page(**told, large=bool(bits & LARGE))


def bits_of(page: Page) -> int:
    """The bits that stand for facts."""
    own = _OF_LARGE if page.large else _OF_SMALL
    return sum(1 << bit for bit, name in enumerate((*_OF_ALL, *own)) if getattr(page, name)) | (LARGE if page.large else 0)


def can_be(page: Page) -> bool:
    """Whether a page can be all this at once: predicates are asked about no others."""
    return not (
        (page.maybe_pinned and not page.referenced)
        or (page.exclusive and (page.mapped_elsewhere or page.ksm))
        or (page.lru_batch and page.lru_batch_elsewhere)
        or (page.part_shared and not page.another_mm)
        or (page.mapped_elsewhere and page.large and not page.part_shared)
    )


@functools.cache
def _all_pages() -> tuple[tuple[int, Page], ...]:
    """Every page that can be, by its bits."""
    pages = ((bits, page_of(bits)) for bits in range(1 << _PAGE_BITS) if not (bits & LARGE and bits & UNMAPPING))
    return tuple((bits, page) for bits, page in pages if can_be(page))


@functools.cache
def tabulate(policy: Policy) -> DecisionTables:
    """Evaluate the predicates over every combination of facts; raises ValueError where one gives something else than a decision."""
    tables = DecisionTables(*(np.zeros(size << _PAGE_BITS, np.int64) for size in (1, 1, 4, 1, 8)))
    for bits, page in _all_pages():
        tables.write_fault[bits] = _coded(policy, policy.write_fault(page))
        tables.fork[bits] = _coded(policy, policy.fork(page))
        if page.large:
            tables.huge[bits] = _coded(policy, policy.huge_write_fault(page))
    for request in _combinations(Request):
        of_request = sum(bit for bit, true in zip((PIN, LONGTERM), request, strict=True) if true)
        for bits, page in _all_pages():
            tables.gup[bits | of_request] = _index(policy, _GUP, policy.gup(page, request))
    for swapped in _combinations(SwapIn):
        of_fault = sum(bit for bit, true in zip((STORE, ENTRY_EXCLUSIVE, FRESH), swapped, strict=True) if true)
        for bits, page in _all_pages():
            tables.swap_in[bits | of_fault] = _index(policy, _SWAP_IN, policy.swap_in(page, swapped))
    return tables


def _combinations(facts: Any) -> list[Any]:
    return [facts(*bits) for bits in product((False, True), repeat=len(facts._fields))]


def _coded(policy: Policy, verdict: Verdict) -> int:
    if not isinstance(verdict, Verdict):
        raise ValueError(f"policy {policy.name}: {verdict!r} is neither copy(reason) nor reuse(reason)")  # noqa: TRY004  (told as a wrong value)
    if verdict.reason not in REASONS:
        raise ValueError(f"policy {policy.name}: no such reason {verdict.reason!r}; there are {', '.join(REASONS)}")
    return int(verdict.copy) | REASONS.index(verdict.reason) << 1


def _index(policy: Policy, values: tuple[str, ...], decision: str) -> int:
    if decision not in values:
        raise ValueError(f"policy {policy.name}: no such decision {decision!r}; there are {', '.join(values)}")
    return values.index(decision)
