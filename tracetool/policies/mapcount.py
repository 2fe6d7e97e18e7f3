"""Kernels up to 5.7: only the number of mappings decides. References are not looked at, which is how the mail's holder sees B's data."""

from __future__ import annotations

from tracetool.policies.facts import GupDecision, Page, Policy, Request, Verdict, copy, reuse


def write_fault(page: Page) -> Verdict:
    """reuse_swap_page() counts mappings and swap entries, nothing else.

    Before Linux commit 09854ba94c6a ("mm: do_wp_page() simplification") (in v5.9) do_wp_page() asked for no more than that.
    """
    return copy("another-mapping") if page.mapped_elsewhere else reuse("sole-owner")


def fork(_page: Page) -> Verdict:
    """Always shares: pinned pages are copied early only since Linux commit 70e806e4e645 ("mm: Do early cow for pinned pages during
    fork() for ptes") (in v5.9).
    """
    return reuse("unknown")


def gup(_page: Page, _request: Request) -> GupDecision:
    """A read takes whatever page is there."""
    return "take"


MAPCOUNT = Policy("mapcount", write_fault, fork, gup, mprotect_restores=False, checked_on="from source only")
