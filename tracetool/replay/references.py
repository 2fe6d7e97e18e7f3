"""GUP references in the observed replay: taken of what is mapped, released by request, or by page the oldest that can be meant."""

from __future__ import annotations

from tracetool.memory_events import codes as c
from tracetool.replay import columns as k
from tracetool.replay.columns import Events, World
from tracetool.replay.lives import release, step
from tracetool.replay.pagetables import in_range
from tracetool.schema import VIA
from tracetool_parsers.loops import guarded

VIA_OTHER = VIA.index("other")


@guarded
def take_references(w: World, e: Events, i: int) -> None:
    """A request got references to the pages that are mapped in its range."""
    group, first = e.arg[i], e.address[i] >> 12
    w.groups[group, k.G_FIRST] = w.counts[k.REFS]
    if e.mm[i] < 0:
        return
    number = in_range(w, e.mm[i], first, first + e.pages[i])
    for n in range(number):
        pte = w.found[n]
        if w.ptes[pte, k.P_KIND] != k.PAGE:
            continue
        page, ref = w.ptes[pte, k.P_PAGE], w.counts[k.REFS]
        w.counts[k.REFS] = ref + 1
        w.refs[ref, k.R_PAGE] = page
        w.refs[ref, k.R_PLACE] = w.ptes[pte, k.P_PLACE]
        w.refs[ref, k.R_GROUP] = group
        w.refs[ref, k.R_INDEX] = w.vpn[pte] - first
        w.refs[ref, k.R_FROM] = i
        w.refs[ref, k.R_TO] = -1
        w.refs[ref, k.R_RELEASED] = k.UNKNOWN
        w.refs[ref, k.R_NEXT] = w.pages[page, k.F_REFS]
        w.pages[page, k.F_REFS] = ref
        w.groups[group, k.G_SIZE] += 1
        step(w, i, k.STEP_REF, w.ptes[pte, k.P_PLACE], ref, e.flags[i])


@guarded
def put_references(w: World, e: Events, i: int) -> None:
    """References are released: those of a request from a page number on, or by page the oldest of that kind and what follows it, also in
    the requests after it.
    """
    how = k.EXACT if e.flags[i] & c.EXACT else k.AT_LATEST
    if e.flags[i] & c.BY_GROUP:
        _release_group(w, i, e.arg[i], e.pages[i], 1 << 40, how)
        return
    if e.frames[i] < 1:
        return
    page = w.frame_page[e.frame[i]]
    oldest = _oldest(w, e, page, e.flags[i]) if page >= 0 else -1
    if oldest < 0:
        return
    group, first, left = w.refs[oldest, k.R_GROUP], w.refs[oldest, k.R_INDEX], e.pages[i]
    while group >= 0:
        asked = w.refs[w.groups[group, k.G_FIRST], k.R_FROM]
        _release_group(w, i, group, first, first + left, how)
        # A buffer that was pinned piece by piece is released at once: what is left is of the request that went on where this one ended.
        left -= e.pages[asked] - first
        first = 0
        group = _continued(w, e, group, asked) if left > 0 else -1


@guarded
def _continued(w: World, e: Events, group: int, asked: int) -> int:
    """The next request of the same kind by the same thread, where it begins where the one before ended; else -1."""
    following = group + 1
    if following >= len(w.groups) or w.groups[following, k.G_SIZE] == 0:
        return -1
    other = w.refs[w.groups[following, k.G_FIRST], k.R_FROM]
    goes_on = e.mm[other] == e.mm[asked] and e.thread[other] == e.thread[asked] and e.flags[other] == e.flags[asked]
    return following if goes_on and e.address[other] == e.address[asked] + (e.pages[asked] << 12) else -1


@guarded
def _oldest(w: World, e: Events, page: int, release: int) -> int:
    """The oldest open reference to a page that a release can mean: as pinned as that, and by the same interface where both are told."""
    ref, oldest, by_any = w.pages[page, k.F_REFS], -1, -1
    via = release >> c.VIA_SHIFT
    while ref >= 0:
        taken = e.flags[w.refs[ref, k.R_FROM]]
        if (taken ^ release) & c.PIN == 0:
            if taken >> c.VIA_SHIFT == via or via == VIA_OTHER:
                oldest = ref
            elif taken >> c.VIA_SHIFT == VIA_OTHER:
                by_any = ref
        ref = w.refs[ref, k.R_NEXT]
    return oldest if oldest >= 0 else by_any


@guarded
def _release_group(w: World, event: int, group: int, first: int, end: int, how: int) -> None:
    start = w.groups[group, k.G_FIRST]
    for ref in range(start, start + w.groups[group, k.G_SIZE]):
        if first <= w.refs[ref, k.R_INDEX] < end and w.refs[ref, k.R_TO] < 0:
            release(w, event, ref, how)


@guarded
def releasable(w: World, e: Events, i: int) -> int:
    """How many references a release may end at most."""
    if e.flags[i] & c.BY_GROUP:
        return w.groups[e.arg[i], k.G_SIZE]
    # Requests that go on where the one before ended have no more references together than the pages that are released.
    return min(max(e.pages[i], 1), w.counts[k.REFS]) if e.frames[i] > 0 else 0


@guarded
def open_references(w: World, page: int) -> int:
    """How many references to a page are open."""
    number = 0
    ref = w.pages[page, k.F_REFS]
    while ref >= 0:
        number += 1
        ref = w.refs[ref, k.R_NEXT]
    return number
