"""One page family told under one replay: A, B are address spaces, P0 the page that all began with, P1, P2 copies of it.

`stories` says which family is told. A family with many rows is told from its beginning, or around one of its events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool.analysis import Held, Stay, Step, Story
from tracetool.harms import Cast, harm, holder_of
from tracetool.memory_events import Op
from tracetool.replay import Replay
from tracetool.rules.base import outlasts

Ints = npt.NDArray[Any]

_BECAUSE: Final = {
    "another-mapping": "{0} is mapped elsewhere, too",
    "reference": "something else holds a reference to {0}",
    "not-anonymous": "{0} is a page of a file",
    "pinned-at-fork": "{0} may be pinned",
    "exclusive": "{0} is marked exclusive to its owner",
    "sole-owner": "nobody else maps {0}",
    "writable": "its entry for {0} is writable",
    "swap-cache": "{0} is in the swap cache",
    "lru-batch": "{0} waits in the kernel's LRU batch, which holds a reference",
    "ksm": "{0} is a page that KSM merged",
    "lock": "{0} was locked",
    "large-page": "{0} is a part of a larger page",
    "unmapping": "{0} is still held by who has just unmapped it",
}
#: Policies that look at references before they call an owner the only one.
_COUNTING: Final = ("page-count", "exclusive")
#: Who or what has no name in a story; holders of references that one sentence names.
UNKNOWN: Final = "?"
MOST_HOLDERS: Final = 4


@dataclass(frozen=True)
class Telling:
    """A story with the names in it: `letters` of address spaces by number, `names` of pages by `page_id`.

    `people` says who the letters are; `left_out` counts the rows (stays, decisions, references) that the story does not tell.
    """

    story: Story
    letters: Mapping[int, str]
    people: Mapping[str, str]
    names: Mapping[int, str]
    left_out: int


@dataclass(frozen=True)
class Holding:
    """Who holds a page: `what` is `maps` or, as `long-term write pin`, a reference; `how` it began, by which interface, held by what.

    Times are in ns on the trace's clock: `from_ns` None is before the trace, `to_ns` None not in the trace.
    """

    owner: str
    what: str
    page: str
    how: str
    from_ns: int | None
    to_ns: int | None
    ended: str


@dataclass(frozen=True)
class Scope:
    """What is told of one replay: rows of its tables, in order of time, and how many rows there are besides.

    `mapped` and `held` are all stays and references of the pages, also those that are not told.
    """

    replay: Replay
    pages: Ints
    stays: pl.DataFrame
    faults: pl.DataFrame
    references: pl.DataFrame
    mapped: pl.DataFrame
    held: pl.DataFrame
    left_out: int


def scope(replay: Replay, pages: Ints, most: int, near: int | None = None, spaces: Sequence[int] | None = None) -> Scope:
    """The rows about `pages` (page_ids): of each table the first `most`, or those nearest to the memory event `near`.

    With `spaces` only what these address spaces do is told.
    """
    members = pl.Series(pages, dtype=pl.Int32).implode()
    stays = replay.stays.filter(pl.col("page_id").is_in(members)).sort("from_event", maintain_order=True)
    faults = replay.fault_rows.filter(pl.col("page_before").is_in(members) | pl.col("page_after").is_in(members))
    references = replay.reference_rows.filter(pl.col("page_id").is_in(members), pl.col("via") != "exec")
    mapped, held_by_all = stays, references
    rows = stays.height + faults.height + references.height
    if spaces is not None:
        theirs = pl.col("mm").is_in(list(spaces))
        stays, faults, references = stays.filter(theirs), faults.filter(theirs), references.filter(theirs)
    if near is None:
        stays, faults, references = stays.head(most), faults.head(most), references.head(most)
    else:
        stays, references = (_nearest(frame, pl.col("from_event"), pl.col("to_event"), near, most) for frame in (stays, references))
        faults = _nearest(faults, pl.col("event"), pl.col("event"), near, most)
    return Scope(replay, pages, stays, faults, references, mapped, held_by_all, rows - stays.height - faults.height - references.height)


def _nearest(frame: pl.DataFrame, begin: pl.Expr, end: pl.Expr, event: int, most: int) -> pl.DataFrame:
    """The rows that last over the event, or begin soonest after it or end latest before it; in their own order."""
    if frame.height <= most:
        return frame
    before = pl.when(end >= 0).then(event - end).otherwise(0)
    away = pl.max_horizontal(begin - event, before, 0)
    return frame.with_row_index("_row").sort(away, maintain_order=True).head(most).sort("_row").drop("_row")


class Names:
    """Letters of address spaces and numbers of pages, the same in every story of the family."""

    def __init__(self, scopes: Sequence[Scope]) -> None:
        self.letters: dict[int, str] = {}
        self.people: dict[str, str] = {}
        self.pids: dict[str, int | None] = {}
        self.pages: dict[int, str] = {}
        for told in scopes:
            for mm, pid, comm in told.stays.select("mm", "pid", "comm").iter_rows():
                self._meet(mm, pid, comm)
            for page in told.stays["page_id"].to_list():
                if page < scopes[0].replay.history.pages:
                    self.pages.setdefault(page, f"P{len(self.pages)}")
        for told in scopes:
            forked = told.stays.filter(pl.col("began") == "fork", pl.col("from_event") >= 0)["from_event"].to_numpy()
            parents = pl.Series("mm", told.replay.history.events.arg[forked].astype(np.int32))
            # Who faults or takes references may be none of those whose memory it is: that is known by their stays.
            for mm in pl.concat([told.faults["mm"], told.references["mm"], parents]).unique(maintain_order=True).to_list():
                if mm >= 0 and mm not in self.letters:
                    for row in told.replay.stays.filter(pl.col("mm") == mm).select("mm", "pid", "comm").head(1).iter_rows():
                        self._meet(*row)

    def _meet(self, mm: int, pid: int | None, comm: str | None) -> None:
        if mm not in self.letters:
            letter = _letter(len(self.letters))
            self.letters[mm], self.pids[letter] = letter, pid
            self.people[letter] = f"{comm or '?'} {'?' if pid is None else pid}"

    def page(self, page: int, own: dict[int, str]) -> str:
        """The name of a page; one that only a policy makes is counted on from those that all know."""
        return self.pages.get(page) or own.setdefault(page, f"P{len(self.pages) + len(own)}")


#: P0, P1... are pages.
_LETTERS: Final = "ABCDEFGHIJKLMNOQRSTUVWXYZ"


def _letter(number: int) -> str:
    return _LETTERS[number % len(_LETTERS)] + (str(number // len(_LETTERS)) if number >= len(_LETTERS) else "")


class Teller:
    """Tells what is in one scope; `findings` are those of any replay, of which the story's outcome tells the harm."""

    def __init__(self, told: Scope, names: Names, findings: pl.DataFrame) -> None:
        self._scope = told
        self._names = names
        self._own: dict[int, str] = {}
        self._events = told.replay.history.events
        pages = pl.Series(told.pages, dtype=pl.Int32).implode()
        self._stays, self._faults, self._references = told.stays, told.faults, told.references
        self._findings = findings.filter(pl.col("policy") == told.replay.policy, pl.col("page_id").is_in(pages))

    def telling(self) -> Telling:
        """The story, and its names."""
        story = self._story()
        return Telling(story, self._names.letters, self._names.people, {**self._names.pages, **self._own}, self._scope.left_out)

    def holdings(self, pages: Sequence[int], event: int) -> tuple[Holding, ...]:
        """Who holds these pages after a memory event: mappings, then references."""
        there = (pl.col("page_id").is_in(list(pages)), pl.col("from_event") <= event, outlasts(event))
        maps = (
            Holding(self._owner(s["mm"]), "maps", self._page(s["page_id"]), s["began"], s["from_ns"], s["to_ns"], s["ended"])
            for s in self._stays.filter(*there).iter_rows(named=True)
        )
        holds = (
            Holding(self._taker(r), _named(r), self._page(r["page_id"]), _through(r), r["from_ns"], r["to_ns"], r["released"])
            for r in self._references.filter(*there).iter_rows(named=True)
        )
        return (*maps, *holds)

    def cast(self, finding: Mapping[str, Any]) -> Cast:
        """Who and what one finding is about, by the names of the story."""
        reference = self._reference_of(finding)
        fault = self._fault_of(finding)
        copy = fault["page_after"] if fault and fault["page_after"] != finding["page_id"] else None
        return Cast(
            owner=self._owner(finding["mm"]),
            holder=self._taker(reference) if reference else self._by(finding["pid"]),
            actor=self._actor(finding, fault),
            page=self._page(finding["page_id"]),
            copy=None if copy is None else self._page(copy),
            kind="pin" if reference and reference["kind"] == "pin" else "reference",
            access=reference["access"] if reference else "read",
            longterm=bool(reference and reference["longterm"]),
            seen=not (fault and fault["decision"] == "unseen"),
        )

    def _story(self) -> Story:
        steps = sorted([*self._mappings(), *self._decisions(), *self._holds(), *self._ends()], key=lambda step: (step.evidence or (0,))[0])
        references = tuple(
            Held(self._owner(r["mm"]), self._page(r["page_id"]), r["from_ns"], r["to_ns"], r["kind"], r["access"], r["via"], r["released"])
            for r in self._references.iter_rows(named=True)
        )
        stays = tuple(
            Stay(self._owner(s["mm"]), self._page(s["page_id"]), self._when(s["from_ns"]), s["to_ns"], s["began"], s["ended"])
            for s in self._stays.iter_rows(named=True)
        )
        outcome, safe = self._outcome()
        known = sorted({(self._page(s["page_id"]), s["page_id"]) for s in self._stays.iter_rows(named=True)}, key=lambda item: item[1])
        return Story(
            title=self._title(),
            policy=self._scope.replay.policy,
            address=int(self._stays["address"][0]) if self._stays.height else 0,
            owners={letter: self._names.people[letter] for letter in dict.fromkeys(stay.owner for stay in stays)},
            pages={name: self._frame(page) for name, page in known},
            stays=stays,
            references=references,
            steps=tuple(steps),
            outcome=outcome,
            safe=safe,
        )

    def _title(self) -> str:
        owners = self._stays["mm"].n_unique()
        references = len(self._references)
        many = f"{references} references" if references > 1 else "one reference" if references else "no reference"
        return f"{'One address space' if owners == 1 else f'{owners} address spaces'}, {many}"

    def _owner(self, mm: int) -> str:
        return self._names.letters.get(mm, UNKNOWN)

    def _page(self, page: int | None) -> str:
        return UNKNOWN if page is None else self._names.page(page, self._own)

    def _when(self, ts: int | None) -> int:
        return int(self._events.ts[0]) if ts is None else ts

    def _frame(self, page: int) -> str:
        pfn = self._scope.replay.history.page_pfn
        return f"frame {int(pfn[page]):#x}" if page < len(pfn) else "a frame that only this policy makes"

    def _by(self, pid: int | None) -> str:
        """A process by its letter, where its memory is in the story."""
        return holder_of(pid, self._names.pids)

    def _taker(self, reference: Mapping[str, Any]) -> str:
        """Who took a reference: another than the owner of the memory at times (process_vm_readv, ptrace)."""
        same = reference["by_pid"] is None or reference["by_pid"] == reference["pid"]
        return self._owner(reference["mm"]) if same else self._by(reference["by_pid"])

    def _step(self, event: int, owner: str, act: str, page: str, text: str) -> Step:
        ts = int(self._events.ts[event]) if event >= 0 else int(self._events.ts[0])
        return Step(ts, owner, act, page, text, (int(event),) if event >= 0 else ())

    def _mappings(self) -> Iterable[Step]:
        for s in self._stays.iter_rows(named=True):
            owner, page, event = self._owner(s["mm"]), self._page(s["page_id"]), s["from_event"]
            if s["began"] == "fork":
                parent = self._owner(int(self._events.arg[event]))
                yield self._step(
                    event, parent, "fork", page, f"{parent} forks {owner}: both map {page}, and neither may write it without a fault."
                )
            elif s["began"] == "touch":
                yield self._step(
                    event, owner, "map", page, f"{owner} touches the address for the first time: {page} is new, and {owner}'s alone."
                )
            elif s["began"] in ("before-trace", "again", "swap-in", "move"):
                how = {"before-trace": "has mapped {0} since before the trace", "move": "moves {0} to another address"}
                yield self._step(event, owner, "map", page, f"{owner} {how.get(s['began'], 'maps {0} again').format(page)}.")

    def _decisions(self) -> Iterable[Step]:
        for f in self._faults.iter_rows(named=True):
            owner, before, after = self._owner(f["mm"]), self._page(f["page_before"]), self._page(f["page_after"])
            because = self._because(f["reason"]).format(before)
            event, decision = f["event"], f["decision"]
            left = self._left_on(f["page_before"], event, f["mm"])
            if decision == "copy":
                why = f"because {because}" if because else "for a reason that the trace does not show"
                by_gup = self._events.op[event] == int(Op.REF_GET)
                act = f"{owner}'s page is wanted as for a store" if by_gup else f"{owner} writes"
                yield self._step(event, owner, "copy", after, f"{act}: {before} is copied to {after} {why}.{left}")
            elif decision == "unshare":
                yield self._step(
                    event, owner, "copy", after, f"{owner}'s pin wants the page to itself: {before} is copied to {after}.{left}"
                )
            elif decision == "early-copy":
                yield self._step(event, owner, "copy", after, f"fork copies {before} to {after} for {owner} at once: {because}.")
            elif decision == "zero-fill":
                yield self._step(event, owner, "map", after, f"{owner} writes where it had read the zero page: {after} is new.")
            elif decision in ("reuse", "in-place"):
                readers = self._readers(f["page_before"], event, f["mm"])
                though = f", though {readers} still reads it" if readers else ""
                why = f": {because}" if because else ""
                act = "reuse" if decision == "reuse" else "store"
                yield self._step(event, owner, act, before, f"{owner} writes {before} in place{why}{though}.")
            elif decision == "unseen":
                text = f"From here on a store by {owner} would fault, and {before} be copied because {because}; the trace cannot show one."
                yield self._step(event, owner, "copy", before, text)

    def _because(self, reason: str) -> str:
        alone = reason == "sole-owner" and self._scope.replay.policy.startswith(_COUNTING)
        return "nobody else maps {0}, and nothing holds a reference to it" if alone else _BECAUSE.get(reason, "")

    def _left_on(self, page: int | None, event: int, writer: int) -> str:
        """What still holds a page that its last mapper has just left."""
        if page is None:
            return ""
        others = self._scope.mapped.filter(
            pl.col("page_id") == page,
            pl.col("mm") != writer,
            pl.col("from_event") <= event,
            outlasts(event),
        )
        holders = "" if others.height else self._holders(page, event)
        return f" Only {holders} keeps {self._page(page)}." if holders else ""

    def _holders(self, page: int, event: int, other_than: int | None = None) -> str:
        rows = self._scope.held.filter(pl.col("page_id") == page, pl.col("from_event") < event, outlasts(event))
        if other_than is not None:
            rows = rows.filter(pl.col("mm") != other_than, pl.col("access") == "read")
        takers = list(dict.fromkeys(self._taker(row) for row in rows.head(MOST_HOLDERS + 1).iter_rows(named=True)))
        named = [f"{taker}'s reference" for taker in takers if taker != UNKNOWN][:MOST_HOLDERS]
        return " and ".join([*named, *(["another reference"] if len(named) < len(takers) else [])])

    def _readers(self, page: int | None, event: int, mm: int) -> str:
        return "" if page is None else self._holders(page, event, other_than=mm)

    def _holds(self) -> Iterable[Step]:
        for r in self._references.iter_rows(named=True):
            owner, page, taker = self._owner(r["mm"]), self._page(r["page_id"]), self._taker(r)
            what = "pin" if r["kind"] == "pin" else "reference"
            whose = page if taker == owner else f"{owner}'s {page}"
            text = f"{taker} takes a {_named(r)} to {whose} ({r['via']})."
            yield self._step(r["from_event"], owner, "reference", page, text)
            if r["to_event"] >= 0:
                late = "" if r["released"] == "exact" else " by now"
                yield self._step(r["to_event"], owner, "release", page, f"{taker}'s {what} to {whose} is released{late}.")

    def _ends(self) -> Iterable[Step]:
        acts = {
            "unmapped": ("unmap", "unmaps {0}"),
            "exit": ("exit", "exits and lets go of {0}"),
            "swapped-out": ("swap", "has {0} swapped out"),
            "migrated": ("swap", "has {0} moved to another frame"),
            "merged": ("swap", "has {0} merged with an equal page by KSM"),
        }
        for s in self._stays.filter(pl.col("ended").is_in(list(acts))).iter_rows(named=True):
            owner, page = self._owner(s["mm"]), self._page(s["page_id"])
            act, text = acts[s["ended"]]
            yield self._step(s["to_event"], owner, act, page, f"{owner} {text.format(page)}.")

    def _outcome(self) -> tuple[str, bool]:
        defects = self._findings.filter(pl.col("severity") == "defect")
        if defects.height:
            distinct = defects.unique(["rule", "mm", "page_id"], maintain_order=True)
            return " ".join(harm(row, self.cast(row)) for row in distinct.iter_rows(named=True)), False
        told = [self._sees(row) for row in self._references.unique(["mm", "page_id"], maintain_order=True).iter_rows(named=True)]
        pages = self._stays["page_id"].n_unique()
        if told and pages > 2:
            told.append(f"{pages} different pages, all correct.")
        return " ".join(told) or "No reference was held: every process sees its own writes and no other's.", True

    def _sees(self, reference: dict[str, Any]) -> str:
        owner, page = self._owner(reference["mm"]), self._page(reference["page_id"])
        shares = self._scope.mapped.filter(
            pl.col("page_id") == reference["page_id"], pl.col("mm") == reference["mm"],
            outlasts(reference["to_event"]),
        )  # fmt: skip
        own = f", and what {owner} itself has written there since" if shares.height else ""
        return f"{self._taker(reference)}'s reference reads what {page} held when it was taken{own}."

    def _reference_of(self, finding: Mapping[str, Any]) -> dict[str, Any] | None:
        rows = self._references.filter(
            pl.col("page_id") == finding["page_id"], pl.col("mm") == finding["mm"], pl.col("address") == finding["address"],
            pl.col("from_event").is_in(finding["evidence"]),
        )  # fmt: skip
        return rows.row(0, named=True) if rows.height else None

    def _fault_of(self, finding: Mapping[str, Any]) -> dict[str, Any] | None:
        rows = self._faults.filter(
            pl.col("event").is_in(finding["evidence"]), pl.col("ts") == finding["from_ns"], pl.col("page_before") == finding["page_id"]
        )
        return rows.row(0, named=True) if rows.height else None

    def _actor(self, finding: Mapping[str, Any], fault: Mapping[str, Any] | None) -> str:
        """Who stored; of what is unsafe without a store, who else maps the page."""
        if fault and finding["rule"] in ("missed-cow", "wrong-cow"):
            return self._owner(fault["mm"])
        others = self._stays.filter(pl.col("page_id") == finding["page_id"], pl.col("mm") != finding["mm"])
        forked = others.filter(pl.col("began") == "fork", pl.col("from_event").is_in(finding["evidence"]))
        by_pid = others.filter(pl.col("pid") == finding["by_pid"])
        chosen = forked if finding["rule"] == "fork-after-pin" else by_pid
        return self._owner(int(chosen["mm"][0])) if chosen.height else self._by(finding["by_pid"])


def _named(reference: Mapping[str, Any]) -> str:
    length = "long-term " if reference["longterm"] else ""
    return f"{length}{reference['access']} {'pin' if reference['kind'] == 'pin' else 'reference'}"


def _through(reference: Mapping[str, Any]) -> str:
    return f"{reference['via']}, {reference['holder']}" if reference["holder"] else str(reference["via"])


def family(replay: Replay, root: int) -> Ints:
    """The pages that a page's copies and theirs make up."""
    pages: Ints = np.flatnonzero(replay.family_of_page == root)
    return pages
