"""Kernels up to 5.7: only the number of mappings decides. References are not looked at, which is how the mail's holder sees B's data."""

from __future__ import annotations

from tracetool.policies.facts import GupDecision, Page, Policy, Request, SwapIn, SwapInDecision, Verdict, copy, reuse


def write_fault(page: Page) -> Verdict:
    """reuse_swap_page() counts mappings and swap entries, nothing else; of a larger page those of the part that has most.

    Before Linux commit 09854ba94c6a ("mm: do_wp_page() simplification") (in v5.9) do_wp_page() asked for no more than that. A page that KSM
    merged was reused only where nothing else referred to it (reuse_ksm_page()).
    """
    if page.ksm:
        return _merged(page)
    if page.mapped_elsewhere or page.part_shared:
        return copy("another-mapping")
    return reuse("sole-owner")


def _merged(page: Page) -> Verdict:
    if page.mapped_elsewhere:
        return copy("another-mapping")
    held = page.referenced or page.swap_cached or page.lru_batch or page.lru_batch_elsewhere or page.unmapping
    return copy("ksm") if held else reuse("sole-owner")


def huge_write_fault(page: Page) -> Verdict:
    """The same test of all its parts; a huge page that fails it is copied as a whole.

    Since Linux commit 3917c80280c9 ("thp: change CoW semantics for anon-THP") (in v5.8) its mapping is split instead.
    """
    return copy("another-mapping") if page.part_shared else reuse("sole-owner")


def fork(_page: Page) -> Verdict:
    """Always shares: pinned pages are copied early only since Linux commit 70e806e4e645 ("mm: Do early cow for pinned pages during
    fork() for ptes") (in v5.9).
    """
    return reuse("unknown")


def gup(_page: Page, _request: Request) -> GupDecision:
    """A read takes whatever page is there."""
    return "take"


def swap_in(page: Page, fault: SwapIn) -> SwapInDecision:
    """A store gets its page writable where reuse_swap_page() finds nothing but the entry that it came for; a read never does.

    do_swap_page() asked so until Linux commit c145e0b47c77 ("mm: streamline COW logic in do_swap_page()") (in v5.18).
    """
    return "writable" if fault.store and not page.ksm and not page.mapped_elsewhere and not page.part_shared else "shared"


MAPCOUNT = Policy(
    "mapcount",
    write_fault,
    fork,
    gup,
    huge_write_fault,
    swap_in,
    checked_on="from source only; its rules for huge pages and swap-in on 5.10",
    copies_huge=True,
)
