"""Kernels since 5.19: a page is marked exclusive to its one owner. What is exclusive is reused whatever its references."""

from __future__ import annotations

from tracetool.policies.facts import GupDecision, Page, Policy, Request, Verdict, copy, reuse


def write_fault(page: Page) -> Verdict:
    """Exclusive pages are reused; others only where nothing but this mapping refers to them, and are exclusive from then on.

    Linux commit 6c287605fd56 ("mm: remember exclusively mapped anonymous pages with PG_anon_exclusive") (in v5.19); before, the page
    count alone decided.
    """
    if page.exclusive:
        return reuse("exclusive")
    if page.mapped_elsewhere:
        return copy("another-mapping")
    if page.referenced:
        return copy("reference")
    return reuse("sole-owner")


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


EXCLUSIVE = Policy("exclusive", write_fault, fork, gup, mprotect_restores=True, checked_on="6.1, 6.12, 7.2")
