"""Kernel 5.18: the page count decides of huge pages and pages from swap, too, and what is only on its way is waited for."""

from __future__ import annotations

from tracetool.policies.facts import Page, Policy, SwapIn, SwapInDecision, Verdict, copy, reuse
from tracetool.policies.page_count import fork, gup, incidental


def write_fault(page: Page) -> Verdict:
    """Reuse where nothing else refers to the page once this CPU's LRU batch is drained and the swap cache left, which it can be when no
    entry is in swap any more.

    Linux commits 53a05ad9f21d ("mm: optimize do_wp_page() for exclusive pages in the swapcache"), d4c470970d45 ("mm: optimize do_wp_page()
    for fresh pages in local LRU pagevecs") (both in v5.18).
    """
    if page.mapped_elsewhere:
        return copy("another-mapping")
    return held(page) or reuse("sole-owner")


def held(page: Page) -> Verdict | None:
    """What still holds a page that no other entry refers to: `page-count`'s answer once swap cache and this CPU's LRU batch are left."""
    return incidental(page._replace(swap_cached=False, lru_batch=False))


def huge_write_fault(page: Page) -> Verdict:
    """Nothing but this mapping of all of it may refer to the huge page.

    Linux commit 3bff7e3f1f16 ("mm/huge_memory: streamline COW logic in do_huge_pmd_wp_page()") (in v5.18).
    """
    if page.another_mm or page.part_shared:
        return copy("another-mapping")
    return copy("reference") if page.referenced else reuse("sole-owner")


def swap_in(page: Page, fault: SwapIn) -> SwapInDecision:
    """A store gets its page writable where nothing else refers to it, or where it was read into no swap cache.

    Linux commit c145e0b47c77 ("mm: streamline COW logic in do_swap_page()") (in v5.18).
    """
    alone = not page.mapped_elsewhere and held(page) is None
    return "writable" if fault.store and not page.ksm and (alone or fault.fresh) else "shared"


PAGE_COUNT_518 = Policy("page-count-5.18", write_fault, fork, gup, huge_write_fault, swap_in, checked_on="from source only", drains=1)
