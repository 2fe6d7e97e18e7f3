"""The simulated replay: the same steps under a policy's decisions, or, following, under the recorded ones with the policy only asked.

A decision comes from the replayed state alone. Where the recorded kernel copied, the page that it got serves the policy's copy, too, so
that frames keep their numbers; a copy that only the policy makes gets a page of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tracetool.memory_events import codes as c
from tracetool.policies import Policy, tabulate
from tracetool.policies import facts as f
from tracetool.replay import columns as k
from tracetool.replay.history import History
from tracetool.schema import REASONS
from tracetool_parsers.loops import guarded, loop

Ints = npt.NDArray[Any]

# Places: the page there, whether its entry is writable, the open stay.
Y_PAGE, Y_WRITABLE, Y_STAY = range(3)
# Pages: mappings, FOLL_GET and FOLL_PIN references, exclusive, whether stores to it may have gone unseen.
G_MAPCOUNT, G_GETS, G_PINS, G_EXCLUSIVE, G_UNSURE = range(5)
# Decisions made: memory event, its end, place, page before and after, decision, reason, mappings and references before, what the policy
# said (0 reuse, 1 copy, -1: not asked), whether it rests on accesses that the trace cannot show.
W_EVENT, W_LAST, W_PLACE, W_BEFORE, W_AFTER, W_DECISION, W_REASON, W_MAPCOUNT, W_REFS, W_POLICY, W_UNSURE = range(11)

REASON_UNKNOWN = REASONS.index("unknown")
REASON_MAPPING = REASONS.index("another-mapping")
REASON_REFERENCE = REASONS.index("reference")
REASON_SOLE = REASONS.index("sole-owner")
REASON_FILE = REASONS.index("not-anonymous")
REASON_ZERO = REASONS.index("zero-page")
REASON_PINNED = REASONS.index("pinned-at-fork")
REASON_WRITABLE = REASONS.index("writable")

#: What a policy can say to a read reference besides taking the page (0) and unsharing it (1), as `policies.facts` codes it.
GUP_WRITES = 2

# counters
MADE, STAYS, PAGES = range(3)


class Sim(NamedTuple):
    """State and output of one policy's replay, and the policy as tables."""

    places: Ints
    pages: Ints
    pinned: Ints
    place_mm: Ints
    ref_page: Ints
    ref_pin: Ints
    said: Ints
    asked: Ints
    made: Ints
    stays: Ints
    counts: Ints
    write_fault: Ints
    fork: Ints
    gup: Ints


@guarded
def _facts(w: Sim, place: int, page: int) -> int:
    bits = 0
    if w.pages[page, G_MAPCOUNT] > 1:
        bits |= f.MAPPED_ELSEWHERE
    if w.pages[page, G_GETS] + w.pages[page, G_PINS] > 0:
        bits |= f.REFERENCED
    if w.pages[page, G_PINS] > 0:
        bits |= f.MAYBE_PINNED
    if w.pinned[w.place_mm[place]]:
        bits |= f.MM_HAS_PINNED
    if w.pages[page, G_EXCLUSIVE]:
        bits |= f.EXCLUSIVE
    return bits


@guarded
def _made(w: Sim, event: int, last: int, place: int, before: int, after: int, decision: int, reason: int, said: int) -> None:
    at = w.counts[MADE]
    w.counts[MADE] = at + 1
    w.made[at, W_EVENT] = event
    w.made[at, W_LAST] = last
    w.made[at, W_PLACE] = place
    w.made[at, W_BEFORE] = before
    w.made[at, W_AFTER] = after
    w.made[at, W_DECISION] = decision
    w.made[at, W_REASON] = reason
    w.made[at, W_MAPCOUNT] = w.pages[before, G_MAPCOUNT] if before >= 0 else 0
    w.made[at, W_REFS] = w.pages[before, G_GETS] + w.pages[before, G_PINS] if before >= 0 else 0
    w.made[at, W_POLICY] = said
    w.made[at, W_UNSURE] = w.pages[before, G_UNSURE] if before >= 0 else 0


@guarded
def _leave(w: Sim, event: int, place: int, ended: int) -> None:
    """What is at a place goes."""
    stay, page = w.places[place, Y_STAY], w.places[place, Y_PAGE]
    if stay >= 0:
        w.stays[stay, k.S_TO] = event
        w.stays[stay, k.S_ENDED] = ended
    if page >= 0:
        w.pages[page, G_MAPCOUNT] -= 1
    w.places[place, Y_STAY] = -1
    w.places[place, Y_PAGE] = k.NO_PAGE


@guarded
def _enter(w: Sim, event: int, place: int, page: int, began: int, writable: int) -> None:
    """A page (or the zero page, or a swap entry) is at a place now."""
    stay = w.counts[STAYS]
    w.counts[STAYS] = stay + 1
    w.stays[stay, k.S_PLACE] = place
    w.stays[stay, k.S_PAGE] = page
    w.stays[stay, k.S_FROM] = event
    w.stays[stay, k.S_TO] = -1
    w.stays[stay, k.S_BEGAN] = began
    w.stays[stay, k.S_ENDED] = k.OPEN
    w.places[place, Y_STAY] = stay
    w.places[place, Y_PAGE] = page
    w.places[place, Y_WRITABLE] = writable
    if page >= 0:
        w.pages[page, G_MAPCOUNT] += 1
        if writable:
            w.pages[page, G_EXCLUSIVE] = 1


@guarded
def _copied_to(w: Sim, recorded: int) -> int:
    """The page that a copy goes to: the one that the recorded kernel took, or one that only the policy makes."""
    if recorded >= 0:
        return recorded
    page = w.counts[PAGES]
    w.counts[PAGES] = page + 1
    return page


@guarded
def _decide(w: Sim, place: int, page: int, unshare: int) -> int:
    """What the policy says of a store (or of a read pin that wants the page to itself) now: bit 0 copy, the rest the reason."""
    facts = _facts(w, place, page)
    if unshare and w.gup[facts | f.PIN] == 0:
        return 0
    return w.write_fault[facts]


@guarded
def _write(w: Sim, d: Ints, event: int, place: int, recorded: int, gave: int, follow: int, unshare: int) -> None:
    """A store (or a read pin that wants the page to itself) meets a read-only entry."""
    page = w.places[place, Y_PAGE] if place >= 0 else k.NO_PAGE
    begin, last = d[recorded, k.D_FROM], d[recorded, k.D_TO]
    if page < 0 or d[recorded, k.D_BEFORE] == k.NO_PAGE:
        _write_unknown(w, d, event, place, recorded, gave, follow)
        return
    if follow == 0 and unshare == 0 and w.places[place, Y_WRITABLE]:
        _made(w, begin, last, place, page, page, k.DID_IN_PLACE, REASON_WRITABLE, 0)
        return
    said = w.said[recorded]
    if said < 0:
        said = _decide(w, place, page, unshare)
    copies, reason = said & 1 != 0, said >> 1
    if follow:
        copies = gave >= 0
        reason = _reason_seen(w, page) if copies else REASON_SOLE
    after = _copied_to(w, gave) if copies else page
    decision = (k.DID_UNSHARE if unshare else k.DID_COPY) if copies else k.DID_REUSE
    _made(w, begin, last, place, page, after, decision, reason, said & 1)
    if w.said[recorded] >= 0:
        # As it was when the store met the page: others may have come or gone until the decision took effect.
        w.made[w.counts[MADE] - 1, W_MAPCOUNT] = w.asked[recorded, 0]
        w.made[w.counts[MADE] - 1, W_REFS] = w.asked[recorded, 1]
    if copies:
        _leave(w, event, place, k.COPIED)
        _enter(w, event, place, after, k.UNSHARE if unshare else k.COPY, 1 - unshare)
    w.pages[after, G_EXCLUSIVE] = 1
    if unshare == 0:
        w.places[place, Y_WRITABLE] = 1


@guarded
def _reason_seen(w: Sim, page: int) -> int:
    """Why the recorded kernel copied, as far as the state shows."""
    if w.pages[page, G_MAPCOUNT] > 1:
        return REASON_MAPPING
    if w.pages[page, G_GETS] + w.pages[page, G_PINS] > 0:
        return REASON_REFERENCE
    return REASON_UNKNOWN


@guarded
def _write_unknown(w: Sim, d: Ints, event: int, place: int, recorded: int, gave: int, follow: int) -> None:
    """The zero page and page cache are copied by every kernel. A page of which the trace knows nothing yet goes as it was recorded:
    no policy can be asked.
    """
    page = w.places[place, Y_PAGE] if place >= 0 else k.NO_PAGE
    decision, reason, said = k.UNDETERMINED, REASON_UNKNOWN, -1
    if page == k.THE_ZERO_PAGE:
        decision, reason, said = k.DID_ZERO_FILL, REASON_ZERO, 1
        gave = _copied_to(w, gave)
    elif d[recorded, k.D_BEFORE] == k.FILE_PAGE and gave >= 0:
        decision, reason, said = k.DID_COPY, REASON_FILE, 1
    elif follow:
        decision = d[recorded, k.D_DECISION]
    after = gave if gave >= 0 else page
    _made(w, d[recorded, k.D_FROM], d[recorded, k.D_TO], place, page, after, decision, reason, said)
    if place >= 0 and gave >= 0:
        _leave(w, event, place, k.REPLACED)
        _enter(w, event, place, gave, k.ZERO_FILL if decision == k.DID_ZERO_FILL else k.COPY, 1)
    if place >= 0:
        w.places[place, Y_WRITABLE] = 1
    if after >= 0:
        w.pages[after, G_EXCLUSIVE] = 1


@guarded
def _share(w: Sim, event: int, of: int, own: int, early: int, follow: int) -> None:
    """fork: share what the parent has there, or copy it for the child now."""
    page = w.places[of, Y_PAGE]
    if page < 0:
        if page != k.NO_PAGE:
            _enter(w, event, own, page, k.FORK, 0)
        elif early >= 0:
            _enter(w, event, own, early, k.EARLY_COPY, 1)
        return
    said = w.fork[_facts(w, of, page)]
    copies = early >= 0 if follow else said & 1 != 0
    if copies:
        after = _copied_to(w, early)
        _made(w, event, -1, own, page, after, k.DID_EARLY_COPY, REASON_PINNED, said & 1)
        _enter(w, event, own, after, k.EARLY_COPY, 1)
    else:
        if said & 1 != 0 or early >= 0:
            _made(w, event, -1, own, page, page, k.NOTHING, REASON_UNKNOWN, said & 1)
        _enter(w, event, own, page, k.FORK, 0)
        w.places[of, Y_WRITABLE] = 0
        w.pages[page, G_EXCLUSIVE] = 0
    if early >= 0 and not copies:
        # The recorded kernel left the parent's entry writable: under sharing its next store would fault, and is not in the trace.
        w.pages[page, G_UNSURE] = 1


@guarded
def _reference(w: Sim, event: int, place: int, ref: int, flags: int, follow: int) -> None:
    """GUP takes the page. Through a read-only entry a write breaks COW first, as a store does, and a policy may want a read unshared."""
    page = w.places[place, Y_PAGE]
    pin = 1 if flags & c.PIN else 0
    if page < 0:
        return
    if follow == 0 and w.places[place, Y_WRITABLE] == 0:
        request = (f.PIN if pin else 0) | (f.LONGTERM if flags & c.LONGTERM else 0)
        # FOLL_FORCE writes where the process may not: its entry stays read-only, and was made the process's own before.
        if flags & (c.WRITE | c.FORCE) == c.WRITE:
            page = _break(w, event, place, page, 1)
        elif flags & c.WRITE == 0:
            asked = w.gup[_facts(w, place, page) | request]
            if asked:
                page = _break(w, event, place, page, int(asked == GUP_WRITES))
    w.ref_page[ref] = page
    w.ref_pin[ref] = pin
    if pin:
        w.pages[page, G_PINS] += 1
        w.pinned[w.place_mm[place]] = 1
    else:
        w.pages[page, G_GETS] += 1


@guarded
def _break(w: Sim, event: int, place: int, page: int, write: int) -> int:
    """A fault that only the policy takes, inside GUP: the process gets the page to itself."""
    said = w.write_fault[_facts(w, place, page)]
    after = _copied_to(w, -1) if said & 1 else page
    copied = k.DID_COPY if write else k.DID_UNSHARE
    _made(w, event, -1, place, page, after, copied if said & 1 else k.DID_REUSE, said >> 1, said & 1)
    if said & 1:
        _leave(w, event, place, k.COPIED)
        _enter(w, event, place, after, k.COPY if write else k.UNSHARE, write)
    w.pages[after, G_EXCLUSIVE] = 1
    if write:
        w.places[place, Y_WRITABLE] = 1
    return after


@guarded
def _unreference(w: Sim, ref: int) -> None:
    page = w.ref_page[ref]
    if page >= 0:
        w.pages[page, G_PINS if w.ref_pin[ref] else G_GETS] -= 1


@guarded
def _move(w: Sim, event: int, old: int, new: int) -> None:
    page, writable = w.places[old, Y_PAGE], w.places[old, Y_WRITABLE]
    _leave(w, event, old, k.MOVED)
    if page == k.NO_PAGE:
        return
    exclusive = w.pages[page, G_EXCLUSIVE] if page >= 0 else 0
    _enter(w, event, new, page, k.MOVE, writable)
    if page >= 0:
        w.pages[page, G_EXCLUSIVE] = exclusive


@guarded
def _split(w: Sim, d: Ints, place: int, recorded: int) -> None:
    """A store to a huge page that is not the process's alone splits its mapping; the fault of the single page follows."""
    page = w.places[place, Y_PAGE] if place >= 0 else k.NO_PAGE
    reason = _reason_seen(w, page) if page >= 0 else REASON_UNKNOWN
    _made(w, d[recorded, k.D_FROM], d[recorded, k.D_TO], place, page, page, k.DID_SPLIT, reason, -1)


@guarded
def _writable(w: Sim, place: int, follow: int) -> None:
    """A page of a huge one that was reused: stores to it go unseen from now on, also those that a policy would have let fault."""
    page = w.places[place, Y_PAGE]
    if page < 0:
        return
    if follow or w.pages[page, G_EXCLUSIVE] or w.pages[page, G_MAPCOUNT] == 1:
        w.places[place, Y_WRITABLE] = 1
        w.pages[page, G_EXCLUSIVE] = 1
    else:
        w.pages[page, G_UNSURE] = 1


@guarded
def _new(w: Sim, event: int, place: int, page: int, began: int) -> None:
    _leave(w, event, place, k.REPLACED)
    _enter(w, event, place, page, began, 1)


@guarded
def _again(w: Sim, event: int, place: int, page: int, how: int) -> None:
    """A known page is mapped again, read-only: swap-in, migration, KSM. What several places map is nobody's own."""
    _leave(w, event, place, how >> 4)
    _enter(w, event, place, page, how & 15, 0)
    if w.pages[page, G_MAPCOUNT] > 1:
        w.pages[page, G_EXCLUSIVE] = 0


@guarded
def _unseen(w: Sim, event: int, place: int) -> None:
    """The policy leaves an entry read-only that the recorded kernel may have made writable: stores to it would fault, and are not in the
    trace. Told where a reference would force a copy.
    """
    page = w.places[place, Y_PAGE]
    if page < 0 or w.places[place, Y_WRITABLE]:
        return
    said = w.write_fault[_facts(w, place, page)]
    if said & 1 and said >> 1 == REASON_REFERENCE:
        _made(w, event, -1, place, page, page, k.UNSEEN, REASON_REFERENCE, 1)
        w.made[w.counts[MADE] - 1, W_UNSURE] = 1


@loop
@guarded
def simulate(w: Sim, steps: Ints, d: Ints, follow: int, restores: int) -> None:
    """Replay all steps; `follow`: take the recorded decisions and only note what the policy says to them."""
    for i in range(len(steps)):
        op, a, b, event = steps[i, k.H_OP], steps[i, k.H_A], steps[i, k.H_B], steps[i, k.H_EVENT]
        if op == k.STEP_WRITE:
            _write(w, d, event, a, b, steps[i, k.H_C], follow, 0)
        elif op == k.STEP_NEW:
            _new(w, event, a, b, steps[i, k.H_C])
        elif op == k.STEP_DROP:
            _leave(w, event, a, b)
        elif op == k.STEP_SHARE:
            _share(w, event, a, b, steps[i, k.H_C], follow)
        elif op == k.STEP_ZERO:
            _leave(w, event, a, steps[i, k.H_C])
            _enter(w, event, a, k.THE_ZERO_PAGE, b, 0)
        elif op == k.STEP_REF:
            _reference(w, event, a, b, steps[i, k.H_C], follow)
        elif op == k.STEP_UNREF:
            _unreference(w, a)
        elif op == k.STEP_MOVE:
            _move(w, event, a, b)
        elif op == k.STEP_AGAIN:
            _again(w, event, a, b, steps[i, k.H_C])
        elif op == k.STEP_SWAP_OUT:
            _leave(w, event, a, k.SWAPPED_OUT)
            _enter(w, event, a, k.SWAPPED, k.AGAIN, 0)
        elif op == k.STEP_DECIDE:
            page = w.places[a, Y_PAGE]
            if page >= 0:
                w.said[b] = _decide(w, a, page, int(d[b, k.D_DECISION] == k.DID_UNSHARE))
                w.asked[b, 0] = w.pages[page, G_MAPCOUNT]
                w.asked[b, 1] = w.pages[page, G_GETS] + w.pages[page, G_PINS]
        elif op == k.STEP_UNSHARE:
            if follow:
                _write(w, d, event, a, b, steps[i, k.H_C], 1, 1)
            elif a >= 0 and w.places[a, Y_PAGE] >= 0 and not w.places[a, Y_WRITABLE] and w.gup[_facts(w, a, w.places[a, Y_PAGE]) | f.PIN]:
                _write(w, d, event, a, b, steps[i, k.H_C], 0, 1)
        elif op == k.STEP_SPLIT:
            _split(w, d, a, b)
        elif op == k.STEP_WRITABLE:
            _writable(w, a, follow)
        elif op == k.STEP_PROTECT:
            if b == 0:
                w.places[a, Y_WRITABLE] = 0
            elif restores and w.places[a, Y_PAGE] >= 0 and w.pages[w.places[a, Y_PAGE], G_EXCLUSIVE]:
                w.places[a, Y_WRITABLE] = 1
            elif restores == 0 and follow == 0:
                _unseen(w, event, a)


@dataclass(frozen=True)
class Outcome:
    """What one policy did with a history: `decisions` (row, W_*), `stays` (row, columns.S_*), the page that each reference holds."""

    decisions: Ints
    stays: Ints
    ref_page: Ints


def replay_steps(history: History, policy: Policy, follow: bool = False) -> Outcome:
    """Replay a history under `policy`; `follow`: take the recorded decisions, asking the policy about each (column W_POLICY)."""
    tables = tabulate(policy)
    steps, places = history.steps, len(history.places)
    kinds = np.bincount(steps[:, k.H_OP], minlength=15)
    decisions = int(kinds[[k.STEP_WRITE, k.STEP_UNSHARE, k.STEP_SHARE, k.STEP_REF, k.STEP_SPLIT, k.STEP_PROTECT]].sum())
    state = np.full((places, 3), -1, np.int32)
    state[:, Y_WRITABLE] = 0
    sim = Sim(
        places=state,
        pages=np.zeros((history.pages + decisions + 1, 5), np.int32),
        pinned=np.zeros(max(history.events.spaces, 1), np.int8),
        place_mm=history.places[:, k.L_MM].astype(np.int32),
        ref_page=np.full(len(history.refs), -1, np.int32),
        ref_pin=np.zeros(len(history.refs), np.int8),
        said=np.full(len(history.decisions), -1, np.int16),
        asked=np.zeros((len(history.decisions), 2), np.int32),
        made=np.zeros((decisions, 11), np.int32),
        stays=np.zeros((len(steps), 7), np.int32),
        counts=np.array([0, 0, history.pages], np.int64),
        write_fault=tables.write_fault,
        fork=tables.fork,
        gup=tables.gup,
    )
    simulate.run(len(steps), sim, steps, history.decisions, int(follow), int(policy.mprotect_restores))
    return Outcome(sim.made[: sim.counts[MADE]].copy(), _as_early(sim.stays[: sim.counts[STAYS]].copy(), history), sim.ref_page)


def _as_early(stays: Ints, history: History) -> Ints:
    """Let each place begin when it did, whatever a policy puts there: what was found late was there before. (An early copy is put there
    before fork's copy counts, what is shared with it.)
    """
    seen, first_seen = np.unique(history.stays[:, k.S_PLACE], return_index=True)
    begin = np.full((len(history.places), 2), -1, np.int32)
    begin[seen] = history.stays[first_seen][:, [k.S_FROM, k.S_BEGAN]]
    place, first = np.unique(stays[:, k.S_PLACE], return_index=True)
    alike = begin[place, 1] != k.EARLY_COPY
    stays[first[alike], k.S_FROM] = begin[place[alike], 0]
    stays[first[alike], k.S_BEGAN] = begin[place[alike], 1]
    return stays
