"""Kernel 5.8 (and 5.4.y): mappings decide, as before, but a read reference breaks COW as a store does, before it takes the page."""

from __future__ import annotations

from tracetool.policies.facts import GupDecision, Page, Policy, Request
from tracetool.policies.mapcount import fork, write_fault


def gup(_page: Page, _request: Request) -> GupDecision:
    """Whatever the request, a private mapping gives what the process may write: a store's fault comes first.

    Linux commit 17839856fd58 ("gup: document and work around 'COW can break either way' issue") (in v5.8); taken back in v5.9 by commit
    a308c71bf1e6 ("mm/gup: Remove enforced COW mechanism"). Reads of the zero page and of page cache, which it made copies, too, are not
    counted. In a trace that such a kernel recorded, other policies take the COW of a read reference for that of a store.
    """
    return "write"


FORCED_COW = Policy("forced-cow", write_fault, fork, gup, mprotect_restores=False, checked_on="from source only")
