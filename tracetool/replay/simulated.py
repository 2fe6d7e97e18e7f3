"""The simulated replay: the same steps under a policy's decisions, or, following, under the recorded ones with the policy only asked.

A decision comes from the replayed state alone. Where the recorded kernel copied, the page that it got serves the policy's copy, too, so
that frames keep their numbers; a copy that only the policy makes gets a page of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tracetool.memory_events import codes as c
from tracetool.policies import Policy, tabulate
from tracetool.policies import facts as f
from tracetool.progress import stage
from tracetool.replay import columns as k
from tracetool.replay import simstate as g
from tracetool.replay.deciding import (
    GUP_WRITES,
    M_FOLLOWS,
    M_RESTORES,
    NOT_ASKED,
    OLDER,
    REASON_FILE,
    REASON_PINNED,
    REASON_REFERENCE,
    REASON_SOLE,
    REASON_UNKNOWN,
    REASON_WRITABLE,
    REASON_ZERO,
    W_EVENT,
    W_MAPCOUNT,
    W_REASON,
    W_REFS,
    W_UNSURE,
    W_WHY,
    break_cow,
    decide,
    in_doubt,
    made,
    reason_seen,
    reused,
)
from tracetool.replay.history import History
from tracetool.replay.huge import huge, part_of_huge
from tracetool.replay.simstate import Sim, copied_to, enter, facts, leave, take_apart
from tracetool.replay.swapping import freed, swap_in, swap_out
from tracetool_parsers.loops import guarded, loop

Ints = npt.NDArray[Any]


@guarded
def _write(w: Sim, d: Ints, event: int, place: int, recorded: int, gave: int, unshare: int) -> None:
    """A store (or a read pin that wants the page to itself) meets a read-only entry."""
    page = w.places[place, g.Y_PAGE] if place >= 0 else k.NO_PAGE
    begin, last, follow = d[recorded, k.D_FROM], d[recorded, k.D_TO], w.params[M_FOLLOWS]
    if page < 0 or d[recorded, k.D_BEFORE] == k.NO_PAGE:
        _write_unknown(w, d, event, place, recorded, gave)
        return
    if follow == 0 and unshare == 0 and w.places[place, g.Y_WRITABLE]:
        made(w, begin, last, place, page, page, k.DID_IN_PLACE, REASON_WRITABLE, 0)
        return
    asked = w.said[recorded] != NOT_ASKED
    if not asked:
        w.said[recorded] = decide(w, event, place, page, unshare, 0)
        w.asked[recorded, 3] = w.counts[g.DOUBT]
    said, doubt = w.said[recorded], w.asked[recorded, 3]
    copies, reason = said & 1 != 0, said >> 1
    if follow:
        copies = gave >= 0
        reason = reason_seen(w, begin, place, page) if copies else REASON_SOLE
    after = copied_to(w, event, gave) if copies else page
    decision = (k.DID_UNSHARE if unshare else k.DID_COPY) if copies else k.DID_REUSE
    made(w, begin, last, place, page, after, decision, reason, said & 1 if doubt == 0 else doubt)
    row = w.counts[g.MADE] - 1
    w.made[row, W_WHY] = said >> 1
    if asked:
        # As it was when the store met the page: others may have come or gone until the decision took effect.
        w.made[row, W_MAPCOUNT] = w.asked[recorded, 0]
        w.made[row, W_REFS] = w.asked[recorded, 1]
        if follow and copies:
            w.made[row, W_REASON] = w.asked[recorded, 2]
    if doubt:
        w.made[row, W_UNSURE] = 1
    if copies:
        leave(w, event, place, k.COPIED)
        enter(w, event, place, after, k.UNSHARE if unshare else k.COPY, 1 - unshare)
    else:
        reused(w, page)
    w.pages[after, g.G_EXCLUSIVE] = 1
    if unshare == 0:
        w.places[place, g.Y_WRITABLE] = 1


@guarded
def _write_unknown(w: Sim, d: Ints, event: int, place: int, recorded: int, gave: int) -> None:
    """The zero page and page cache are copied by every kernel. A page of which the trace knows nothing yet goes as it was recorded:
    no policy can be asked.
    """
    page = w.places[place, g.Y_PAGE] if place >= 0 else k.NO_PAGE
    decision, reason, said = k.UNDETERMINED, REASON_UNKNOWN, OLDER
    if page == k.THE_ZERO_PAGE:
        decision, reason, said = k.DID_ZERO_FILL, REASON_ZERO, 1
        gave = copied_to(w, event, gave)
    elif d[recorded, k.D_BEFORE] == k.FILE_PAGE and gave >= 0:
        decision, reason, said = k.DID_COPY, REASON_FILE, 1
    elif w.params[M_FOLLOWS]:
        decision = d[recorded, k.D_DECISION]
    after = gave if gave >= 0 else page
    made(w, d[recorded, k.D_FROM], d[recorded, k.D_TO], place, page, after, decision, reason, said)
    if place >= 0 and gave >= 0:
        leave(w, event, place, k.REPLACED)
        enter(w, event, place, gave, k.ZERO_FILL if decision == k.DID_ZERO_FILL else k.COPY, 1)
    if place >= 0:
        w.places[place, g.Y_WRITABLE] = 1
    if after >= 0:
        w.pages[after, g.G_EXCLUSIVE] = 1


@guarded
def _share(w: Sim, event: int, of: int, own: int, early: int) -> None:
    """fork: share what the parent has there, or copy it for the child now."""
    page, follow = w.places[of, g.Y_PAGE], w.params[M_FOLLOWS]
    if page < 0:
        if page != k.NO_PAGE:
            enter(w, event, own, page, k.FORK, 0)
            slot = w.places[of, g.Y_SLOT]
            if page == k.SWAPPED and slot >= 0:
                w.slots[slot, g.N_ENTRIES] += 1
                w.places[own, g.Y_SLOT] = slot
                w.places[of, g.Y_EXCLUSIVE] = 0
                w.places[own, g.Y_EXCLUSIVE] = 0
        elif early >= 0:
            enter(w, event, own, early, k.EARLY_COPY, 1)
        return
    w.counts[g.DOUBT] = 0
    said = in_doubt(w, page, facts(w, event, of, page), w.fork)
    answer = said & 1 if w.counts[g.DOUBT] == 0 else w.counts[g.DOUBT]
    copies = early >= 0 if follow else said & 1 != 0
    if copies:
        after = copied_to(w, event, early)
        made(w, event, -1, own, page, after, k.DID_EARLY_COPY, REASON_PINNED, answer)
        enter(w, event, own, after, k.EARLY_COPY, 1)
    else:
        if said & 1 != 0 or early >= 0:
            made(w, event, -1, own, page, page, k.NOTHING, REASON_UNKNOWN, answer)
        enter(w, event, own, page, k.FORK, 0)
        w.places[of, g.Y_WRITABLE] = 0
        w.pages[page, g.G_EXCLUSIVE] = 0
    if early >= 0 and not copies:
        # The recorded kernel left the parent's entry writable: under sharing its next store would fault, and is not in the trace.
        w.pages[page, g.G_UNSURE] = 1


@guarded
def _reference(w: Sim, event: int, place: int, ref: int, flags: int) -> None:
    """GUP takes the page. Through a read-only entry a write breaks COW first, as a store does, and a policy may want a read unshared."""
    page = w.places[place, g.Y_PAGE]
    pin = 1 if flags & c.PIN else 0
    if page < 0:
        return
    if w.params[M_FOLLOWS] == 0 and w.places[place, g.Y_WRITABLE] == 0:
        request = (f.PIN if pin else 0) | (f.LONGTERM if flags & c.LONGTERM else 0)
        # FOLL_FORCE writes where the process may not: its entry stays read-only, and was made the process's own before.
        if flags & (c.WRITE | c.FORCE) == c.WRITE:
            page = break_cow(w, event, place, page, 1)
        elif flags & c.WRITE == 0:
            asked = w.gup[facts(w, event, place, page) | request]
            if asked:
                page = break_cow(w, event, place, page, int(asked == GUP_WRITES))
    w.ref_page[ref] = page
    w.ref_pin[ref] = pin
    if pin:
        w.pinned[w.place_mm[place]] = 1
    _count_reference(w, page, pin, w.ref_sure[ref], 1)


@guarded
def _count_reference(w: Sim, page: int, pin: int, sure: int, change: int) -> None:
    w.pages[page, g.G_PINS if pin else g.G_GETS] += change
    w.pages[page, g.G_SURE] += change * sure
    folio = w.pages[page, g.G_FOLIO]
    if folio >= 0:
        w.folios[folio, g.O_PINS if pin else g.O_GETS] += change
        w.folios[folio, g.O_SURE] += change * sure


@guarded
def _unreference(w: Sim, ref: int) -> None:
    page = w.ref_page[ref]
    if page >= 0:
        _count_reference(w, page, w.ref_pin[ref], w.ref_sure[ref], -1)


@guarded
def _move(w: Sim, event: int, old: int, new: int) -> None:
    page, writable = w.places[old, g.Y_PAGE], w.places[old, g.Y_WRITABLE]
    slot, own = w.places[old, g.Y_SLOT], w.places[old, g.Y_EXCLUSIVE]
    w.places[old, g.Y_SLOT] = -1
    exclusive = w.pages[page, g.G_EXCLUSIVE] if page >= 0 else 0
    leave(w, event, old, k.MOVED)
    if page == k.NO_PAGE:
        return
    enter(w, event, new, page, k.MOVE, writable)
    w.places[new, g.Y_SLOT] = slot
    w.places[new, g.Y_EXCLUSIVE] = own
    if page >= 0:
        w.pages[page, g.G_EXCLUSIVE] = exclusive


@guarded
def _new(w: Sim, event: int, place: int, page: int, began: int) -> None:
    leave(w, event, place, k.REPLACED)
    enter(w, event, place, page, began, 1)


@guarded
def _again(w: Sim, event: int, place: int, page: int, how: int) -> None:
    """A known page is mapped again, read-only: KSM, migration, one that is older than the trace. What several places map is nobody's
    own.
    """
    before, writable = w.places[place, g.Y_PAGE], w.places[place, g.Y_WRITABLE]
    ended = how >> 4
    moved = ended == k.MIGRATED and before >= 0
    exclusive = w.pages[before, g.G_EXCLUSIVE] if moved else w.pages[page, g.G_EXCLUSIVE]
    merged = w.pages[before, g.G_KSM] if moved else w.pages[page, g.G_KSM]
    leave(w, event, place, ended)
    if ended == k.MERGED:
        # KSM write-protects the page that it keeps, too.
        merged, exclusive = 1, 0
        kept = w.pages[page, g.G_PLACE]
        if kept >= 0 and w.places[kept, g.Y_PAGE] == page:
            w.places[kept, g.Y_WRITABLE] = 0
    enter(w, event, place, page, how & 15, 0)
    if moved:
        w.places[place, g.Y_WRITABLE] = writable
    w.pages[page, g.G_KSM] = merged
    w.pages[page, g.G_EXCLUSIVE] = 0 if w.pages[page, g.G_MAPCOUNT] > 1 else exclusive


@guarded
def _drop(w: Sim, event: int, place: int, ended: int, thread: int) -> None:
    page = w.places[place, g.Y_PAGE]
    leave(w, event, place, ended)
    if thread >= 0:
        w.gathered[thread] += 1
        if page >= 0:
            w.pages[page, g.G_HOLDER] = thread
            w.pages[page, g.G_GATHER] = w.gathered[thread]


@guarded
def _unseen(w: Sim, event: int, place: int) -> None:
    """The policy leaves an entry read-only that the recorded kernel may have made writable: stores to it would fault, and are not in the
    trace. Told where a reference would force a copy.
    """
    page = w.places[place, g.Y_PAGE]
    if page < 0 or w.places[place, g.Y_WRITABLE]:
        return
    said = w.write_fault[facts(w, event, place, page)]
    if said & 1 and said >> 1 == REASON_REFERENCE:
        made(w, event, -1, place, page, page, k.UNSEEN, REASON_REFERENCE, 1)
        w.made[w.counts[g.MADE] - 1, W_UNSURE] = 1


@guarded
def _protect(w: Sim, event: int, place: int, writable: int) -> None:
    if writable == 0:
        w.places[place, g.Y_WRITABLE] = 0
    elif w.params[M_RESTORES]:
        page = w.places[place, g.Y_PAGE]
        if page >= 0 and w.pages[page, g.G_EXCLUSIVE]:
            w.places[place, g.Y_WRITABLE] = 1
    elif w.params[M_FOLLOWS] == 0:
        _unseen(w, event, place)


@guarded
def _unshare(w: Sim, d: Ints, event: int, place: int, recorded: int, gave: int) -> None:
    """The recorded kernel unshared for a read pin: a policy that would not, does nothing now."""
    if w.params[M_FOLLOWS]:
        _write(w, d, event, place, recorded, gave, 1)
        return
    page = w.places[place, g.Y_PAGE] if place >= 0 else k.NO_PAGE
    if page >= 0 and w.places[place, g.Y_WRITABLE] == 0 and w.gup[facts(w, event, place, page) | f.PIN]:
        _write(w, d, event, place, recorded, gave, 1)


@guarded
def _ask(w: Sim, d: Ints, event: int, place: int, recorded: int, held: int) -> None:
    """A store meets a read-only page: the policy decides now, by what there is now; what it decides takes effect later."""
    page = w.places[place, g.Y_PAGE]
    if page >= 0:
        w.said[recorded] = decide(w, event, place, page, int(d[recorded, k.D_DECISION] == k.DID_UNSHARE), held)
        w.asked[recorded, 0] = w.pages[page, g.G_MAPCOUNT]
        w.asked[recorded, 1] = w.pages[page, g.G_GETS] + w.pages[page, g.G_PINS]
        w.asked[recorded, 2] = reason_seen(w, event, place, page)
        w.asked[recorded, 3] = w.counts[g.DOUBT]


@guarded
def _rare(w: Sim, d: Ints, op: int, a: int, b: int, third: int, event: int) -> None:
    """Steps of which most traces have few."""
    if op == k.STEP_HUGE:
        huge(w, d, event, a, b, third)
        w.counts[g.HUGE_STEP] = b
    elif op == k.STEP_PART:
        part_of_huge(w, event, a, d[w.counts[g.HUGE_STEP], k.D_DECISION], third)
    elif op == k.STEP_SWAP_OUT:
        swap_out(w, event, a)
    elif op == k.STEP_SWAP_IN:
        swap_in(w, event, a, b, third)
    elif op == k.STEP_FREED:
        freed(w, a)
    elif op == k.STEP_APART:
        take_apart(w, a)
    elif op == k.STEP_PROTECT:
        _protect(w, event, a, b)
    elif op == k.STEP_UNSHARE:
        _unshare(w, d, event, a, b, third)


@loop
@guarded
def simulate(w: Sim, steps: Ints, d: Ints) -> None:
    """Replay all steps."""
    for i in range(len(steps)):
        op, a, b, event = steps[i, k.H_OP], steps[i, k.H_A], steps[i, k.H_B], steps[i, k.H_EVENT]
        if op == k.STEP_WRITE:
            _write(w, d, event, a, b, steps[i, k.H_C], 0)
        elif op == k.STEP_NEW:
            _new(w, event, a, b, steps[i, k.H_C])
        elif op == k.STEP_DROP:
            _drop(w, event, a, b, steps[i, k.H_C])
        elif op == k.STEP_SHARE:
            _share(w, event, a, b, steps[i, k.H_C])
        elif op == k.STEP_ZERO:
            leave(w, event, a, steps[i, k.H_C])
            enter(w, event, a, k.THE_ZERO_PAGE, b, 0)
        elif op == k.STEP_REF:
            _reference(w, event, a, b, steps[i, k.H_C])
        elif op == k.STEP_UNREF:
            _unreference(w, a)
        elif op == k.STEP_MOVE:
            _move(w, event, a, b)
        elif op == k.STEP_AGAIN:
            _again(w, event, a, b, steps[i, k.H_C])
        elif op == k.STEP_DECIDE:
            _ask(w, d, event, a, b, steps[i, k.H_C])
        elif op == k.STEP_FLUSH:
            w.flushed[a] = b
        else:
            _rare(w, d, op, a, b, steps[i, k.H_C], event)


@dataclass(frozen=True)
class Outcome:
    """What one policy did with a history: `decisions` (row, W_*), `stays` (row, columns.S_*), the page that each reference holds."""

    decisions: Ints
    stays: Ints
    ref_page: Ints


def replay_steps(history: History, policy: Policy, follow: bool = False) -> Outcome:
    """Replay a history under `policy`; `follow`: take the recorded decisions, asking the policy about each (column W_POLICY)."""
    sim = _start(history, policy, follow)

    def decided() -> int:
        """The event of the last decision: how far the loop is, which is not slowed down to say so."""
        made = int(sim.counts[g.MADE])
        return int(sim.made[made - 1, W_EVENT]) if made else 0

    with stage(f"{'comparing with' if follow else 'replaying under'} {policy.name}", len(history.events), "events", decided):
        simulate.run(len(history.steps), sim, history.steps, history.decisions)
    return Outcome(sim.made[: sim.counts[g.MADE]].copy(), _as_early(sim.stays[: sim.counts[g.STAYS]].copy(), history), sim.ref_page)


def _start(history: History, policy: Policy, follow: bool) -> Sim:
    """The state before the first step, with room for all that the steps can add."""
    tables = tabulate(policy)
    steps, places = history.steps, len(history.places)
    kinds = history.step_kinds
    deciding = [k.STEP_WRITE, k.STEP_UNSHARE, k.STEP_SHARE, k.STEP_REF, k.STEP_PROTECT, k.STEP_SWAP_IN]
    decisions = int(kinds[deciding].sum() + 2 * kinds[k.STEP_HUGE])
    made = decisions + int(kinds[[k.STEP_SWAP_IN, k.STEP_PART]].sum()) + 1
    state = np.full((places, 5), -1, np.int32)
    state[:, [g.Y_WRITABLE, g.Y_EXCLUSIVE]] = 0
    pages = np.zeros((history.pages + made, g.PAGE_COLUMNS), np.int32)
    pages[:, [g.G_FOLIO, g.G_SLOT, g.G_PLACE, g.G_HOLDER]] = -1
    pages[: history.pages, g.G_FOLIO] = history.folio_of_page
    slots = np.full((int(kinds[k.STEP_SWAP_OUT]) + 1, 2), -1, np.int32)
    slots[:, g.N_ENTRIES] = 0
    waiting = history.batches
    batch = np.zeros((len(pages), 4), np.int32)
    batch[: history.pages] = waiting.batch
    cpu = history.cpus
    counts = np.zeros(g.COUNTERS, np.int64)
    counts[[g.PAGES, g.RECORDED]] = history.pages
    return Sim(
        places=state,
        pages=pages,
        folios=history.folio_parts.copy(),
        slots=slots,
        batch=batch,
        drained=np.full(len(waiting.first), -1, np.int32),
        drains=waiting.drains,
        drains_from=waiting.first,
        gathered=np.full(max(history.events.threads, 1), -1, np.int32),
        flushed=np.full(max(history.events.threads, 1), -1, np.int32),
        pinned=np.zeros(max(history.events.spaces, 1), np.int8),
        place_mm=history.places[:, k.L_MM].astype(np.int32),
        cpu=cpu,
        ref_page=np.full(len(history.refs), -1, np.int32),
        ref_pin=np.zeros(len(history.refs), np.int8),
        ref_sure=history.ref_sure,
        said=np.full(len(history.decisions), NOT_ASKED, np.int16),
        asked=np.zeros((len(history.decisions), 4), np.int32),
        made=np.zeros((decisions, 13), np.int32),
        stays=np.zeros((len(steps) + int(kinds[k.STEP_SWAP_IN] + kinds[k.STEP_HUGE]), 7), np.int32),
        counts=counts,
        params=_params(history, policy, follow),
        write_fault=tables.write_fault,
        fork=tables.fork,
        gup=tables.gup,
        huge=tables.huge,
        swap_in=tables.swap_in,
    )


def _params(history: History, policy: Policy, follow: bool) -> Ints:
    """Everything that the loop is told besides, in the order of M_*."""
    return np.array(
        [follow, policy.mprotect_restores, policy.copies_huge, policy.drains, policy.swap_cache_always, not history.reads_ahead], np.int64
    )


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
