"""Kernels 5.9 to 5.17: whenever anything else has a reference to the page, copy, and do not even try to share."""

from __future__ import annotations

from tracetool.policies.facts import GupDecision, Page, Policy, Request, Verdict, copy, reuse


def write_fault(page: Page) -> Verdict:
    """Reuse only where page_count() is 1: this mapping and nothing else.

    Linux commit 09854ba94c6a ("mm: do_wp_page() simplification") (in v5.9); before, only mappings counted.
    """
    if page.mapped_elsewhere:
        return copy("another-mapping")
    if page.referenced:
        return copy("reference")
    return reuse("sole-owner")


def fork(page: Page) -> Verdict:
    """The child gets its copy at once of what the parent may have pinned.

    Linux commit 70e806e4e645 ("mm: Do early cow for pinned pages during fork() for ptes") (in v5.9).
    """
    return copy("pinned-at-fork") if page.mm_has_pinned and page.maybe_pinned else reuse("unknown")


def gup(_page: Page, _request: Request) -> GupDecision:
    """A read takes whatever page is there.

    Linux commit a308c71bf1e6 ("mm/gup: Remove enforced COW mechanism") (in v5.9) took back the COW at a read GUP of v5.8.
    """
    return "take"


PAGE_COUNT = Policy("page-count", write_fault, fork, gup, mprotect_restores=False, checked_on="5.10")
