"""Kernels 5.9 to 5.17: whenever anything else has a reference to the page, copy, and do not even try to share."""

from __future__ import annotations

from tracetool.policies.facts import GupDecision, Page, Policy, Request, Verdict, copy, reuse
from tracetool.policies.mapcount import huge_write_fault, swap_in


def write_fault(page: Page) -> Verdict:
    """Reuse only where page_count() is 1: this mapping and nothing else, not the swap cache, nor the LRU batch, nor a page of KSM's.

    Linux commit 09854ba94c6a ("mm: do_wp_page() simplification") (in v5.9); before, only mappings counted.
    """
    if page.mapped_elsewhere:
        return copy("another-mapping")
    return incidental(page) or reuse("sole-owner")


def incidental(page: Page) -> Verdict | None:
    """What else can hold a page, once no other entry refers to it."""
    if page.ksm:
        return copy("ksm")
    if page.referenced:
        return copy("reference")
    if page.large:
        return copy("large-page") if page.neighbours or page.another_mm else None
    if page.swap_cached:
        return copy("swap-cache")
    if page.lru_batch or page.lru_batch_elsewhere:
        return copy("lru-batch")
    return copy("unmapping") if page.unmapping else None


def fork(page: Page) -> Verdict:
    """The child gets its copy at once of what the parent may have pinned.

    Linux commit 70e806e4e645 ("mm: Do early cow for pinned pages during fork() for ptes") (in v5.9); huge pages are split for it, by commit
    d042035eaf5f ("mm/thp: Split huge pmds/puds if they're pinned when fork()").
    """
    return copy("pinned-at-fork") if page.mm_has_pinned and page.maybe_pinned else reuse("unknown")


def gup(_page: Page, _request: Request) -> GupDecision:
    """A read takes whatever page is there.

    Linux commit a308c71bf1e6 ("mm/gup: Remove enforced COW mechanism") (in v5.9) took back the COW at a read GUP of v5.8.
    """
    return "take"


#: Huge pages and pages from swap were left to mappings until 5.18: `mapcount`'s rules.
PAGE_COUNT = Policy("page-count", write_fault, fork, gup, huge_write_fault, swap_in, checked_on="5.10")
