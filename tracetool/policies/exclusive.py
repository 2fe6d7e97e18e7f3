"""Kernels since 5.19: a page is marked exclusive to its one owner. What is exclusive is reused whatever its references."""

from __future__ import annotations

from typing import Final

from tracetool.policies import page_count_518 as before
from tracetool.policies.facts import GupDecision, Page, Policy, Request, SwapIn, SwapInDecision, Verdict, copy, reuse
from tracetool.policies.page_count_518 import held


def write_fault(page: Page) -> Verdict:
    """Exclusive pages are reused; others only where nothing but this mapping refers to them, and are exclusive from then on.

    Linux commit 6c287605fd56 ("mm: remember exclusively mapped anonymous pages with PG_anon_exclusive") (in v5.19); before, the page
    count alone decided.
    """
    return reuse("exclusive") if page.exclusive else before.write_fault(page)


def never_large(page: Page) -> Verdict:
    """The same, but a part of a larger page is given back rather than looked at (mm/memory.c, wp_can_reuse_anon_folio(), as read in
    6.12).
    """
    if page.large and not page.exclusive:
        return copy("another-mapping" if page.mapped_elsewhere else "large-page")
    return write_fault(page)


def large_by_mm(page: Page) -> Verdict:
    """The same, but a part of a larger page is reused where its parts are mapped by this address space alone, more than one of them.

    Linux commits 6af8cb80d3a9 ("mm/rmap: basic MM owner tracking for large folios (!hugetlb)"), 1da190f4d0a6 ("mm: Copy-on-Write (COW)
    reuse support for PTE-mapped THP") (in v6.15).
    """
    if not page.large or page.exclusive:
        return write_fault(page)
    if page.mapped_elsewhere:
        return copy("another-mapping")
    if page.another_mm or not page.neighbours:
        return copy("large-page")
    return copy("reference") if page.referenced else reuse("sole-owner")


def huge_write_fault(page: Page) -> Verdict:
    """An exclusive huge page is reused; another where nothing but this mapping refers to it."""
    return reuse("exclusive") if page.exclusive else before.huge_write_fault(page)


def fork(page: Page) -> Verdict:
    """An exclusive page that may be pinned is copied for the child; any other is shared and no longer exclusive.

    Linux commit 6c287605fd56, page_try_dup_anon_rmap(); only what is exclusive can be pinned for good.
    """
    if page.exclusive and page.mm_has_pinned and page.maybe_pinned:
        return copy("pinned-at-fork")
    return reuse("unknown")


def gup(page: Page, request: Request) -> GupDecision:
    """A pin through a read-only entry of a page that is not exclusive unshares it first; FOLL_GET does not look.

    Linux commit a7f226604170 ("mm/gup: trigger FAULT_FLAG_UNSHARE when R/O-pinning a possibly shared anonymous page") (in v5.19).
    """
    return "unshare" if request.pin and not page.exclusive else "take"


def swap_in(page: Page, fault: SwapIn) -> SwapInDecision:
    """What its entry says to be exclusive, what was read into no swap cache, and what nothing else refers to is its owner's own; writable
    for a store.

    Linux commit 1493a1913e34 ("mm/swap: remember PG_anon_exclusive via a swp pte bit") (in v5.19).
    """
    if page.ksm:
        return "shared"
    alone = not page.mapped_elsewhere and held(page) is None and (fault.store or not page.swap_cached)
    if fault.exclusive or fault.fresh or alone:
        return "writable" if fault.store else "exclusive"
    return "shared"


def writable_at_once(page: Page, fault: SwapIn) -> SwapInDecision:
    """The same, but what is its owner's own is writable also after a read (mm/memory.c, do_swap_page(), as read in 6.12)."""
    return "shared" if swap_in(page, fault) == "shared" else "writable"


def by_entry(page: Page, fault: SwapIn) -> SwapInDecision:
    """The same, but every page comes by way of the swap cache, which it leaves only when it is mapped: the entry alone tells (7.2)."""
    return "writable" if fault.exclusive and not page.ksm else "shared"


#: From which kernel on what else changed; the last that is not newer than the one asked for decides.
VARIANTS: Final[dict[tuple[int, int], dict[str, object]]] = {
    (5, 19): {},
    (6, 1): {"mprotect_restores": True},
    # Long-term read pins copy pages of files and the zero page, to which no references are kept here: Linux commits 8d6a0ac09a16,
    # 84209e87c696.
    (6, 2): {},
    (6, 8): {"write_fault": never_large},
    (6, 12): {"swap_in": writable_at_once},
    (6, 15): {"write_fault": large_by_mm},
    (7, 0): {"swap_in": by_entry, "swap_cache_always": True},
    # Before, up to three references were worth the trouble; now none but those that can go (mm/memory.c, wp_can_reuse_anon_folio()).
    (7, 3): {"drains": 0},
}
_CHECKED: Final = {(6, 1): "6.1", (6, 12): "6.12", (7, 0): "7.2"}
#: The newest that was recorded; where what was read in a newer one differs, recordings decide.
NEWEST: Final = (7, 2)


def exclusive(version: tuple[int, int] = NEWEST, name: str = "exclusive") -> Policy:
    """The policy as a kernel of that version has it; `version` is not below 5.19."""
    changes: dict[str, object] = {}
    for since, changed in VARIANTS.items():
        if since <= version:
            changes |= changed
    variant = max(since for since in VARIANTS if since <= version)
    checked = _CHECKED.get(variant, "from source only") if name != "exclusive" else "6.1, 6.12, 7.2"
    described: dict[str, object] = {
        "write_fault": write_fault,
        "fork": fork,
        "gup": gup,
        "huge_write_fault": huge_write_fault,
        "swap_in": swap_in,
        "drains": 1,
    }
    return Policy(name, checked_on=checked, **(described | changes))  # type: ignore[arg-type]


EXCLUSIVE = exclusive()
