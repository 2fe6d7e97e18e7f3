"""The slow, obvious model of a kernel, which tests/engine/test_model.py compares the replay with: a policy's rules in a few lines each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from engine.build import BASE, FOLL_LONGTERM, FOLL_WRITE, KSMD, KSWAPD, UNSHARE_FAULT, WRITE_FAULT, Process, address

ADDRESSES: Final = 6
ZERO, IN_SWAP = "zero page", "in swap"


@dataclass(eq=False)
class Frame:
    """A page of the model: who maps it, how often it is referenced (GET, PIN), whether it is marked exclusive to its owner, whether KSM
    merged it; the slot in whose swap cache it is.
    """

    name: int
    maps: set[tuple[int, int]] = field(default_factory=set)
    gets: int = 0
    pins: int = 0
    exclusive: bool = True
    merged: bool = False
    cache: Slot | None = None

    @property
    def owners(self) -> int:
        """How many page table and swap entries refer to it."""
        return len(self.maps) + (self.cache.entries if self.cache else 0)

    @property
    def held(self) -> bool:
        """Whether somebody references it."""
        return self.gets + self.pins > 0

    def leave_cache(self) -> None:
        """Out of the swap cache, where no entry is in swap any more."""
        if self.cache and not self.cache.entries:
            self.cache.cached = None
            self.cache = None


@dataclass(eq=False)
class Slot:
    """A page in swap: how many entries refer to it, and the page in the swap cache."""

    entries: int
    cached: Frame | None = None


@dataclass
class Entry:
    """A page table entry: a page, the zero page, or a slot in swap; and whether it may be written without a fault. A swap entry can say
    that its page is its owner's own.
    """

    page: Frame | None
    writable: bool
    slot: Slot | None = None
    own: bool = False


@dataclass
class Reference:
    """A reference that somebody holds: to which page, taken as what."""

    page: Frame
    pin: bool


# What decides: a store (or an unshare) copies? fork copies now? a read pin wants the page unshared? As kernel.md's eras say it.
POLICIES: Final = ("mapcount", "forced-cow", "page-count", "page-count-5.18", "exclusive@6.1", "exclusive@6.12", "exclusive")
EXCLUSIVE: Final = POLICIES[-3:]


def store_copies(policy: str, page: Frame) -> bool:
    if policy in ("mapcount", "forced-cow"):
        return page.owners > 1 or (page.merged and (page.held or page.cache is not None))
    if policy == "page-count":
        return page.owners > 1 or page.held or page.merged or page.cache is not None
    if policy in EXCLUSIVE and page.exclusive:
        return False
    return page.owners > 1 or page.held or page.merged


def fork_copies(policy: str, page: Frame, mm_has_pinned: bool) -> bool:
    if policy in ("mapcount", "forced-cow"):
        return False
    return mm_has_pinned and page.pins > 0 and (policy not in EXCLUSIVE or page.exclusive)


def pin_unshares(policy: str, page: Frame) -> bool:
    return policy in EXCLUSIVE and not page.exclusive


def swap_in(policy: str, page: Frame, *, write: bool, own: bool, fresh: bool) -> tuple[bool, bool]:
    """Whether a page that is read back is its owner's own, and whether its entry is writable."""
    if page.merged:
        return False, False
    alone = page.owners == 1 and not page.held
    if policy == "exclusive":
        return own, own
    if policy in EXCLUSIVE:
        own = own or fresh or (alone and (write or page.cache is None))
        return own, own and (write or policy == "exclusive@6.12")
    if policy == "page-count-5.18":
        return False, write and (alone or fresh)
    return False, write and page.owners == 1


class Silent:
    """Records nothing: every verb of `Machine` is there and does nothing."""

    def __getattr__(self, verb: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


class Model:
    """A kernel with one policy; what it does is told to `says`, a `Machine` or nobody. Processes are numbered by their tid."""

    def __init__(self, policy: str, says: Any, processes: dict[int, Process]) -> None:
        self.policy = policy
        self.says = says
        self.processes = processes
        self.memory: dict[int, dict[int, Entry]] = {}
        self.has_pinned: set[int] = set()
        self.references: dict[int, Reference] = {}
        self._names = count(100)
        self._free: list[int] = []

    def new_page(self, tid: int, at: int) -> Frame:
        page = Frame(self._free.pop() if self._free else next(self._names))
        page.maps.add((tid, at))
        return page

    def drop(self, tid: int, at: int) -> Frame | None:
        entry = self.memory[tid].pop(at)
        if entry.page:
            entry.page.maps.discard((tid, at))
        if entry.slot:
            self.leave_slot(tid, entry.slot)
        return entry.page

    def leave_slot(self, tid: int, slot: Slot) -> None:
        """One entry less; a page in the swap cache that nobody needs any more goes."""
        slot.entries -= 1
        self.freed(tid, slot.cached)

    def freed(self, tid: int, page: Frame | None) -> None:
        if page and not page.maps:
            page.leave_cache()
            if not page.held and not page.cache:
                self.says.free(tid, page.name)
                self._free.append(page.name)

    # -- what processes do; each returns whether a store or a write reference met an entry that may not be written

    def read(self, tid: int, at: int) -> None:
        if at not in self.memory[tid]:
            self.memory[tid][at] = Entry(None, False)
            self.says.read_zero(self.processes[tid], address(at))
        elif self.memory[tid][at].slot:
            self.swap_in(tid, at, write=False)

    def would_fault(self, tid: int, at: int) -> bool:
        entry = self.memory[tid].get(at)
        return entry is None or not entry.writable

    def write(self, tid: int, at: int, flags: int = WRITE_FAULT) -> None:
        entry, p = self.memory[tid].get(at), self.processes[tid]
        if entry is None:
            page = self.new_page(tid, at)
            self.memory[tid][at] = Entry(page, True)
            self.says.touch(p, address(at), page.name)
        elif entry.slot:
            self.swap_in(tid, at, write=True)
        elif entry.page is None:
            page = self.new_page(tid, at)
            self.memory[tid][at] = Entry(page, True)
            self.says.zero_fill(p, address(at), page.name)
        elif not entry.writable:
            self.break_cow(tid, at, entry.page, flags)
            self.memory[tid][at].writable = True

    def break_cow(self, tid: int, at: int, old: Frame, flags: int) -> None:
        """The process gets the page to itself."""
        p = self.processes[tid]
        if store_copies(self.policy, old):
            page = self.new_page(tid, at)
            self.says.cow(p, address(at), old.name, page.name, flags=flags)
            self.memory[tid][at] = Entry(page, False)
            old.maps.discard((tid, at))
            self.freed(tid, old)
        else:
            self.reuse(old)
            self.says.cow(p, address(at), old.name, flags=flags)

    def reuse(self, page: Frame) -> None:
        page.exclusive, page.merged = True, False
        page.leave_cache()

    def fork(self, tid: int, child: int) -> None:
        """`processes` gets the child's mm when the fork is told, so both models agree on it."""
        self.memory[child] = {}
        early = {}
        for at, entry in self.memory[tid].items():
            page = entry.page
            if page and fork_copies(self.policy, page, tid in self.has_pinned):
                copy = self.new_page(child, at)
                early[address(at)] = copy.name
                self.memory[child][at] = Entry(copy, True)
                continue
            if page:
                page.maps.add((child, at))
                page.exclusive = False
            entry.writable = entry.own = False
            self.memory[child][at] = Entry(page, False, entry.slot)
            if entry.slot:
                entry.slot.entries += 1
        made = self.says.fork(self.processes[tid], child, [(BASE, ADDRESSES)], early=early)
        if made:
            self.processes[child] = made

    def unmap(self, tid: int, at: int) -> None:
        if at in self.memory[tid]:
            page = self.drop(tid, at)
            self.says.dontneed(self.processes[tid], address(at), page.name if page else None)
            self.freed(tid, page)

    def splice(self, tid: int, at: int, number: int) -> bool:
        """A read reference by FOLL_GET; of an absent page or the zero page no reference is counted."""
        entry = self.memory[tid].get(at)
        if entry is None or entry.page is None:
            return False
        if self.reads_break_cow(entry):
            self.write(tid, at, WRITE_FAULT & ~0x40)
            entry = self.memory[tid][at]
        assert entry.page
        entry.page.gets += 1
        self.references[number] = Reference(entry.page, False)
        self.says.vmsplice(self.processes[tid], address(at), entry.page.name)
        return True

    def reads_break_cow(self, entry: Entry | None) -> bool:
        """Whether a read reference does as a store: only 5.8's do."""
        return self.policy == "forced-cow" and entry is not None and entry.page is not None and not entry.writable

    def pin(self, tid: int, at: int, number: int, writes: bool) -> bool:
        """A long-term pin; a write pin breaks COW as a store does."""
        entry = self.memory[tid].get(at)
        if not writes and (entry is None or entry.page is None):
            return False
        self.says.pin_begin(self.processes[tid], address(at), (FOLL_WRITE if writes else 0) | FOLL_LONGTERM)
        if (writes and self.would_fault(tid, at)) or self.reads_break_cow(entry):
            self.write(tid, at, WRITE_FAULT & ~0x40)
        elif entry and entry.page and not writes and not entry.writable and pin_unshares(self.policy, entry.page):
            self.break_cow(tid, at, entry.page, UNSHARE_FAULT | 0x4)
        page = self.memory[tid][at].page
        assert page
        page.pins += 1
        self.has_pinned.add(tid)
        self.references[number] = Reference(page, True)
        self.says.pin_end(self.processes[tid], page.name)
        return True

    def release(self, tid: int, number: int) -> None:
        reference = self.references.pop(number)
        page = reference.page
        if reference.pin:
            page.pins -= 1
            self.says.unpin(tid, page.name)
        else:
            page.gets -= 1
            self.says.pipe_release(tid, page.name)
        self.freed(tid, page)

    def move(self, tid: int, at: int, to: int) -> None:
        """mremap: what was at the new address goes."""
        there = self.drop(tid, to) if to in self.memory[tid] else None
        entry = self.memory[tid].pop(at, None)
        self.says.mremap(self.processes[tid], address(at), address(to), there.name if there else None)
        if entry:
            self.memory[tid][to] = entry
            if entry.page:
                entry.page.maps.discard((tid, at))
                entry.page.maps.add((tid, to))
        self.freed(tid, there)

    def can_swap_out(self, tid: int, at: int) -> frozenset[tuple[int, int]] | None:
        """The mappings of a page that reclaim may take: one that nobody references."""
        entry = self.memory[tid].get(at)
        page = entry.page if entry else None
        return None if page is None or page.merged or page.held else frozenset(page.maps)

    def swap_out(self, tid: int, at: int) -> None:
        """Reclaim unmaps a page wherever it is mapped, and frees it; what was read back from swap goes back to its slot."""
        page = self.memory[tid][at].page
        assert page
        slot = page.cache or Slot(0)
        mappings = sorted(page.maps)
        self.says.swap_out(KSWAPD, page.name, [(self.processes[tid], address(at)) for tid, at in mappings])
        for owner, where in mappings:
            self.memory[owner][where] = Entry(None, False, slot, page.exclusive)
        slot.entries += len(mappings)
        slot.cached = page.cache = None
        page.maps.clear()
        self.freed(KSWAPD, page)

    def swap_in(self, tid: int, at: int, *, write: bool) -> None:
        """Read back once for all entries: what only one refers to needs no swap cache."""
        entry, p = self.memory[tid][at], self.processes[tid]
        slot = entry.slot
        assert slot
        fresh = not slot.cached and slot.entries == 1
        page = slot.cached or Frame(self._free.pop() if self._free else next(self._names))
        if not fresh:
            slot.cached, page.cache = page, slot
        page.maps.add((tid, at))
        slot.entries -= 1
        page.exclusive, writable = swap_in(self.policy, page, write=write, own=entry.own, fresh=fresh)
        self.memory[tid][at] = Entry(page, writable)
        if (write and writable) or self.policy == "exclusive":
            page.leave_cache()
        copy = None
        if write and not writable:
            copy = Frame(self._free.pop() if self._free else next(self._names)) if store_copies(self.policy, page) else None
            if not copy:
                self.reuse(page)
        # The newest kernels have a COW fault after each of them.
        silent = writable and self.policy != "exclusive"
        self.says.swap_in(p, address(at), page.name, write=write, exclusive=silent, then=copy.name if copy else None)
        if copy:
            page.maps.discard((tid, at))
            copy.maps.add((tid, at))
            self.memory[tid][at] = Entry(copy, True)
            self.freed(tid, page)
        self.memory[tid][at].writable |= write

    def can_merge(self, tid: int, at: int, other: int, where: int) -> tuple[frozenset[tuple[int, int]], ...] | None:
        """The mappings of the two pages that KSM may make one: neither is referenced or in swap, and only one that KSM has is shared."""
        one, two = (self.memory[owner].get(place) for owner, place in ((tid, at), (other, where)))
        old, kept = (entry.page if entry else None for entry in (one, two))
        if old is None or kept is None or old is kept or old.merged or any(page.held or page.cache for page in (old, kept)):
            return None
        if not kept.merged and len(kept.maps) > 1:
            return None
        return frozenset(old.maps), frozenset(kept.maps), frozenset([(0, 0)] if kept.merged else [])

    def merge(self, tid: int, at: int, other: int, where: int) -> None:
        """KSM merges the page at one place into that at another."""
        old, kept = self.memory[tid][at].page, self.memory[other][where].page
        assert old
        assert kept
        kept.merged, kept.exclusive = True, False
        for owner, place in kept.maps:
            self.memory[owner][place].writable = False
        self.says.ksm_merge(self.processes[tid], address(at), old.name, kept.name)
        old.maps.discard((tid, at))
        kept.maps.add((tid, at))
        self.memory[tid][at] = Entry(kept, False)
        self.freed(KSMD, old)

    def exit(self, tid: int) -> None:
        pages = [self.drop(tid, at) for at in list(self.memory[tid])]
        del self.memory[tid]
        self.has_pinned.discard(tid)
        self.says.exit(self.processes[tid], [page.name for page in pages if page])
        for page in pages:
            self.freed(tid, page)

    # -- who owns what

    def owned(self) -> dict[tuple[int, int], tuple[str | int, int, int, int]]:
        """(tid, address) -> page, mappings, GET and PIN references."""
        return {
            (tid, address(at)): (e.page.name, len(e.page.maps), e.page.gets, e.page.pins)
            if e.page
            else (IN_SWAP if e.slot else ZERO, 0, 0, 0)
            for tid, entries in self.memory.items()
            for at, e in entries.items()
        }

    def held(self) -> list[tuple[set[tuple[int, int]], bool]]:
        """Of each reference that is held, in the order of their taking: who maps its page, and whether it is a pin."""
        return [({(tid, address(at)) for tid, at in r.page.maps}, r.pin) for _, r in sorted(self.references.items())]
