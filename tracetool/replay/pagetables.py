"""Page tables as the loops search and change them.

An entry is found by (mm, virtual page number) through a hash, by address range through page tables of 512 pages that hang on their
address space, and by page through the page's list of mappers.
"""

from __future__ import annotations

from tracetool.replay import columns as k
from tracetool.replay.columns import World
from tracetool_parsers.loops import guarded, loop


@guarded
def slot_of(mm: int, number: int, mask: int) -> int:
    """Where to look first: eight neighbours lie together. All terms stay below 2**62, the same in every arithmetic."""
    block = number >> 3
    h = (block & 0x7FFFFFFF) * 0x1F35BCDD + ((block >> 31) & 0x7FFFFFFF) * 0x0BB38435 + (mm & 0x3FFFFFFF) * 0x2545F491
    h ^= h >> 29
    return ((h << 3) | (number & 7)) & mask


@guarded
def find(w: World, mm: int, vpn: int) -> int:
    """The entry of an address, or -1."""
    mask = len(w.pte_hash) - 1
    at = slot_of(mm, vpn, mask)
    while True:
        pte = w.pte_hash[at]
        if pte < 0 or (w.vpn[pte] == vpn and w.ptes[pte, k.P_MM] == mm):
            return pte
        at = (at + 1) & mask


@guarded
def find_table(w: World, mm: int, base: int) -> int:
    """The page table of an address, or -1."""
    mask = len(w.table_hash) - 1
    at = slot_of(mm, base, mask)
    while True:
        table = w.table_hash[at]
        if table < 0 or (w.tables[table, k.T_BASE] == base and w.tables[table, k.T_MM] == mm):
            return table
        at = (at + 1) & mask


@guarded
def insert(w: World, mm: int, vpn: int) -> int:
    """A new entry, still holding nothing; there must be none, and room for one more."""
    base = vpn >> k.TABLE_SHIFT
    table = find_table(w, mm, base)
    if table < 0:
        table = w.counts[k.TABLES]
        w.counts[k.TABLES] = table + 1
        w.tables[table, k.T_BASE] = base
        w.tables[table, k.T_MM] = mm
        w.tables[table, k.T_HEAD] = -1
        w.tables[table, k.T_NEXT] = w.spaces[mm, k.A_TABLE]
        w.spaces[mm, k.A_TABLE] = table
        mask = len(w.table_hash) - 1
        at = slot_of(mm, base, mask)
        while w.table_hash[at] >= 0:
            at = (at + 1) & mask
        w.table_hash[at] = table
    pte = w.counts[k.PTES]
    w.counts[k.PTES] = w.ptes[pte, k.P_NEXT]
    w.vpn[pte] = vpn
    w.ptes[pte, k.P_MM] = mm
    w.ptes[pte, k.P_PAGE] = -1
    w.ptes[pte, k.P_TABLE] = table
    head = w.tables[table, k.T_HEAD]
    w.ptes[pte, k.P_NEXT] = head
    w.ptes[pte, k.P_PREV] = -1
    if head >= 0:
        w.ptes[head, k.P_PREV] = pte
    w.tables[table, k.T_HEAD] = pte
    mask = len(w.pte_hash) - 1
    at = slot_of(mm, vpn, mask)
    while w.pte_hash[at] >= 0:
        at = (at + 1) & mask
    w.pte_hash[at] = pte
    w.spaces[mm, k.A_PTES] += 1
    w.counts[k.LIVE] += 1
    return pte


@guarded
def remove(w: World, pte: int) -> None:
    """Take an entry out; what it maps must have been unlinked before."""
    before, after, mm = w.ptes[pte, k.P_PREV], w.ptes[pte, k.P_NEXT], w.ptes[pte, k.P_MM]
    if before >= 0:
        w.ptes[before, k.P_NEXT] = after
    else:
        w.tables[w.ptes[pte, k.P_TABLE], k.T_HEAD] = after
    if after >= 0:
        w.ptes[after, k.P_PREV] = before
    mask = len(w.pte_hash) - 1
    at = slot_of(mm, w.vpn[pte], mask)
    while w.pte_hash[at] != pte:
        at = (at + 1) & mask
    _close_gap(w, at, mask)
    w.spaces[mm, k.A_PTES] -= 1
    w.counts[k.LIVE] -= 1
    w.ptes[pte, k.P_KIND] = k.FREE
    w.ptes[pte, k.P_NEXT] = w.counts[k.PTES]
    w.counts[k.PTES] = pte


@guarded
def _close_gap(w: World, gap: int, mask: int) -> None:
    """Move later entries of the run forward, so that a search never meets a hole before its entry."""
    at = gap
    while True:
        at = (at + 1) & mask
        pte = w.pte_hash[at]
        if pte < 0:
            break
        home = slot_of(w.ptes[pte, k.P_MM], w.vpn[pte], mask)
        if ((at - home) & mask) >= ((at - gap) & mask):
            w.pte_hash[gap] = pte
            gap = at
    w.pte_hash[gap] = -1


@guarded
def link(w: World, pte: int, page: int) -> None:
    """Let an entry map a page."""
    head = w.pages[page, k.F_RMAP]
    w.ptes[pte, k.P_PAGE] = page
    w.ptes[pte, k.P_RNEXT] = head
    w.ptes[pte, k.P_RPREV] = -1
    if head >= 0:
        w.ptes[head, k.P_RPREV] = pte
    w.pages[page, k.F_RMAP] = pte
    w.pages[page, k.F_MAPCOUNT] += 1


@guarded
def unlink(w: World, pte: int) -> None:
    """Let an entry map its page no more."""
    page, before, after = w.ptes[pte, k.P_PAGE], w.ptes[pte, k.P_RPREV], w.ptes[pte, k.P_RNEXT]
    if before >= 0:
        w.ptes[before, k.P_RNEXT] = after
    else:
        w.pages[page, k.F_RMAP] = after
    if after >= 0:
        w.ptes[after, k.P_RPREV] = before
    w.pages[page, k.F_MAPCOUNT] -= 1
    w.ptes[pte, k.P_PAGE] = -1


@guarded
def mapper(w: World, page: int, mm: int, first: int, end: int) -> int:
    """The entry of `mm` that maps `page`, or -1; of several, as of a page that KSM merged, the lowest in [first, end) page numbers."""
    pte, found = w.pages[page, k.F_RMAP], -1
    while pte >= 0:
        if w.ptes[pte, k.P_MM] == mm:
            if first <= w.vpn[pte] < end:
                if found < 0 or not first <= w.vpn[found] < end or w.vpn[pte] < w.vpn[found]:
                    found = pte
            elif found < 0:
                found = pte
        pte = w.ptes[pte, k.P_RNEXT]
    return found


@guarded
def in_range(w: World, mm: int, first: int, end: int) -> int:
    """Collect the entries of [first, end) page numbers into `found`, return how many; a wide range costs its tables, not its pages."""
    number = 0
    if (end - first) >> k.TABLE_SHIFT <= 8:
        for base in range(first >> k.TABLE_SHIFT, ((end - 1) >> k.TABLE_SHIFT) + 1):
            table = find_table(w, mm, base)
            if table >= 0:
                number = _collect(w, table, first, end, number)
        return number
    table = w.spaces[mm, k.A_TABLE]
    while table >= 0:
        base = w.tables[table, k.T_BASE]
        if base >= first >> k.TABLE_SHIFT and base <= (end - 1) >> k.TABLE_SHIFT:
            number = _collect(w, table, first, end, number)
        table = w.tables[table, k.T_NEXT]
    return number


@guarded
def _collect(w: World, table: int, first: int, end: int, number: int) -> int:
    pte = w.tables[table, k.T_HEAD]
    while pte >= 0:
        if first <= w.vpn[pte] < end:
            w.found[number] = pte
            number += 1
        pte = w.ptes[pte, k.P_NEXT]
    return number


@loop
@guarded
def rehash(w: World) -> None:
    """Fill empty hashes anew after the arrays have grown."""
    mask = len(w.pte_hash) - 1
    for pte in range(len(w.vpn)):
        if w.ptes[pte, k.P_KIND] != k.FREE:
            at = slot_of(w.ptes[pte, k.P_MM], w.vpn[pte], mask)
            while w.pte_hash[at] >= 0:
                at = (at + 1) & mask
            w.pte_hash[at] = pte
    mask = len(w.table_hash) - 1
    for table in range(w.counts[k.TABLES]):
        at = slot_of(w.tables[table, k.T_MM], w.tables[table, k.T_BASE], mask)
        while w.table_hash[at] >= 0:
            at = (at + 1) & mask
        w.table_hash[at] = table
