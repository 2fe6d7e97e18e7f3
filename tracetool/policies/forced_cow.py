"""Kernel 5.8 (and 5.4.y): mappings decide, as before, but a read reference breaks COW as a store does, before it takes the page."""

from __future__ import annotations

from tracetool.policies.facts import GupDecision, Page, Policy, Request
from tracetool.policies.mapcount import fork, huge_write_fault, swap_in, write_fault


def gup(_page: Page, _request: Request) -> GupDecision:
    """Whatever the request, a private mapping gives what the process may write: a store's fault comes first.

    Linux commit 17839856fd58 ("gup: document and work around 'COW can break either way' issue") (in v5.8); taken back in v5.9 by commit
    a308c71bf1e6 ("mm/gup: Remove enforced COW mechanism"). Reads of the zero page and of page cache, which it made copies, too, are not
    counted. In a trace that such a kernel recorded, other policies take the COW of a read reference for that of a store.
    """
    return "write"


#: Its huge pages are split: Linux commit 3917c80280c9 ("thp: change CoW semantics for anon-THP") came with v5.8, too.
FORCED_COW = Policy("forced-cow", write_fault, fork, gup, huge_write_fault, swap_in, checked_on="from source only")
