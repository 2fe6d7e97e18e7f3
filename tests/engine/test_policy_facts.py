"""What a policy says of a page that something besides mappings and references holds, of parts of larger pages, and of pages from swap.

Tables as kernel.md has them in section 2. A fact that a line does not name is false.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from tracetool.policies import Page, SwapIn, policy

#: By column: up to 5.7, 5.9, 5.18, 6.1, 6.12, 6.15, 7.x.
COLUMNS: Final = ("mapcount", "page-count", "page-count-5.18", "exclusive@6.1", "exclusive@6.12", "exclusive@6.15", "exclusive")
#: -: reuse. c: another mapping forces a copy, r: a reference, s: the swap cache, l: an LRU batch, k: KSM, u: another address space that is
#: about to let go, L: it is part of a larger page.
REASON: Final = {
    "c": "another-mapping", "r": "reference", "s": "swap-cache", "l": "lru-batch", "k": "ksm", "u": "unmapping", "L": "large-page",
}  # fmt: skip

#: A store meets a page of 4 KiB. M counts mappings, of KSM's pages all references; C takes whatever holds a page for an owner; C' drains
#: its own LRU batch and leaves the swap cache; X looks at neither where the page is marked exclusive.
SMALL: Final = """
                                    -  -  -  -  -  -  -
    exclusive                       -  -  -  -  -  -  -
    swap_cached                     -  s  -  -  -  -  -
    swap_cached exclusive           -  s  -  -  -  -  -
    swap_cached mapped_elsewhere    c  c  c  c  c  c  c
    swap_cached referenced          -  r  r  r  r  r  r
    lru_batch                       -  l  -  -  -  -  -
    lru_batch exclusive             -  l  -  -  -  -  -
    lru_batch mapped_elsewhere      c  c  c  c  c  c  c
    lru_batch_elsewhere             -  l  l  l  l  l  l
    lru_batch_elsewhere exclusive   -  l  l  -  -  -  -
    swap_cached lru_batch           -  s  -  -  -  -  -
    swap_cached lru_batch_elsewhere -  s  l  l  l  l  l
    unmapping                       -  u  u  u  u  u  u
    unmapping exclusive             -  u  u  -  -  -  -
    ksm                             -  k  k  k  k  k  k
    ksm swap_cached                 k  k  k  k  k  k  k
    ksm referenced                  k  k  k  k  k  k  k
    ksm lru_batch                   k  k  k  k  k  k  k
    ksm unmapping                   k  k  k  k  k  k  k
    ksm mapped_elsewhere            c  c  c  c  c  c  c
"""
#: A store meets a part of a larger page that is mapped page by page. M counts the mappings of the part that has most; the others all
#: references to all of it, until 6.12 gave up; 6.15 knows whether one address space maps all that is mapped, if that is more than one.
LARGE: Final = """
                                            -  -  -  -  L  L  L
    neighbours                              -  L  L  L  L  -  -
    neighbours exclusive                    -  L  L  -  -  -  -
    neighbours referenced                   -  r  r  r  L  r  r
    neighbours referenced exclusive         -  r  r  -  -  -  -
    neighbours another_mm                   -  L  L  L  L  L  L
    neighbours another_mm part_shared       c  L  L  L  L  L  L
    neighbours another_mm part_shared mapped_elsewhere  c  c  c  c  c  c  c
"""
#: A store meets a huge page that is mapped as one. C left it to mappings.
HUGE: Final = """
    neighbours                              -  -  -  -  -  -  -
    neighbours exclusive                    -  -  -  -  -  -  -
    neighbours referenced                   -  -  r  r  r  r  r
    neighbours referenced exclusive         -  -  r  -  -  -  -
    neighbours another_mm part_shared       c  c  c  c  c  c  c
"""
#: A page is back from swap, for a read or a store. own: its entry says that it is exclusive. fresh: it was read into no swap cache, which
#: 7.x always does. -: mapped read-only, and may be somebody else's, too; x: its owner's own; w: that and writable. M and C count owners,
#: C' and X, where the entry says nothing, references, after leaving the swap cache, if a store is to be made.
BACK: Final = """
    read  swap_cached                               -  -  -  -  -  -  -
    read  swap_cached own                           -  -  -  x  w  w  w
    read  fresh                                     -  -  -  x  w  w  -
    store swap_cached                               w  w  w  w  w  w  -
    store swap_cached own                           w  w  w  w  w  w  w
    store swap_cached own referenced                w  w  -  w  w  w  w
    store fresh                                     w  w  w  w  w  w  -
    store swap_cached referenced                    w  w  -  -  -  -  -
    store swap_cached mapped_elsewhere              -  -  -  -  -  -  -
    store swap_cached lru_batch                     w  w  w  w  w  w  -
    store swap_cached lru_batch_elsewhere           w  w  -  -  -  -  -
    store swap_cached ksm                           -  -  -  -  -  -  -
"""


def cells(table: str) -> Iterator[Any]:
    """(facts, policy, what it says)."""
    for line in table.strip("\n").splitlines():
        words = line.split()
        facts, said = words[: -len(COLUMNS)], words[-len(COLUMNS) :]
        for name, word in zip(COLUMNS, said, strict=True):
            yield pytest.param(facts, name, word, id=f"{' '.join(facts) or 'nothing'}-{name}")


def page(facts: list[str], **more: bool) -> Page:
    return Page(**dict.fromkeys((fact for fact in facts if fact in Page._fields), True), **more)


@pytest.mark.parametrize(("facts", "name", "word"), list(cells(SMALL)))
def test_a_store_to_a_page_of_4_kib(facts: list[str], name: str, word: str) -> None:
    said = policy(name).write_fault(page(facts))
    assert said.copy == (word != "-")
    if said.copy:
        assert said.reason == REASON[word]


@pytest.mark.parametrize(("facts", "name", "word"), list(cells(LARGE)))
def test_a_store_to_a_part_of_a_larger_page(facts: list[str], name: str, word: str) -> None:
    said = policy(name).write_fault(page(facts, large=True))
    assert said.copy == (word != "-")
    if said.copy:
        assert said.reason == REASON[word]


@pytest.mark.parametrize(("facts", "name", "word"), list(cells(HUGE)))
def test_a_store_to_a_huge_page(facts: list[str], name: str, word: str) -> None:
    said = policy(name).huge_write_fault(page(facts, large=True))
    assert said.copy == (word != "-")
    if said.copy:
        assert said.reason == REASON[word]


@pytest.mark.parametrize(("facts", "name", "word"), list(cells(BACK)))
def test_a_page_from_swap(facts: list[str], name: str, word: str) -> None:
    fault = SwapIn("store" in facts, "own" in facts, "fresh" in facts)
    assert policy(name).swap_in(page(facts), fault) == {"-": "shared", "x": "exclusive", "w": "writable"}[word]


def test_forced_cow_decides_of_all_these_as_mapcount() -> None:
    forced, before = policy("forced-cow"), policy("mapcount")
    for facts, *_ in (param.values for table in (SMALL, LARGE, HUGE) for param in cells(table)):
        for large in (False, True):
            of = page(facts, large=large)
            assert forced.write_fault(of) == before.write_fault(of)
            assert forced.huge_write_fault(of) == before.huge_write_fault(of)


@pytest.mark.parametrize(
    ("names", "copies", "restores", "drains", "caches"),
    [
        (("mapcount",), True, False, -1, False),
        (("forced-cow", "page-count"), False, False, -1, False),
        (("page-count-5.18", "exclusive@5.19"), False, False, 1, False),
        (("exclusive@6.1", "exclusive@6.12", "exclusive@6.15"), False, True, 1, False),
        (("exclusive@7.2", "exclusive"), False, True, 1, True),
        (("exclusive@7.3",), False, True, 0, True),
    ],
)
def test_what_kernels_do_besides(names: tuple[str, ...], copies: bool, restores: bool, drains: int, caches: bool) -> None:
    """Up to 5.7 a huge page is copied as one. 5.18 drains its LRU batch, if there is but one reference besides one's own and the batch's;
    7.3, if there is none. 6.1's mprotect restores what is exclusive. The recordings of 7.2 show all from swap in the swap cache.
    """
    for each in map(policy, names):
        assert (each.copies_huge, each.mprotect_restores, each.drains, each.swap_cache_always) == (copies, restores, drains, caches)
