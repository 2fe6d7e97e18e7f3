"""Stories: one page family told as the mail tells it. A, B are address spaces, P0 the page that all began with, P1, P2 copies of it.

Which family is told is the same for every policy: one with a defect, else one that was copied or reused while referenced, else one on
which policies part, else the one with the most decisions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool.analysis import Held, Stay, Step, Story
from tracetool.memory_events import Op
from tracetool.processes import RECORDERS
from tracetool.replay import Replay
from tracetool.rules.base import Evidence, held, outlasts, traced_releases

Ints = npt.NDArray[Any]

#: A family with more rows than this is told from its beginning only.
MOST_ROWS: Final = 400
_BECAUSE: Final = {
    "another-mapping": "{0} is mapped elsewhere, too",
    "reference": "something else holds a reference to {0}",
    "not-anonymous": "{0} is a page of a file",
    "pinned-at-fork": "{0} may be pinned",
    "exclusive": "{0} is marked exclusive to its owner",
    "sole-owner": "nobody else maps {0}",
    "writable": "its entry for {0} is writable",
}


def evidence_of(replay: Replay, available: Collection[str] = ()) -> Evidence:
    """A replay's tables as the rules see them; `available` are the events that the trace has a format of."""
    return Evidence(replay.policy, replay.fault_rows, replay.reference_rows, replay.stays, traced_releases(available))


def most_telling(replays: Sequence[Replay], findings: pl.DataFrame) -> int | None:
    """The root page of the family to tell, or None where no page was ever decided about."""
    by_policy = {replay.policy: replay for replay in replays}
    for row in findings.sort(pl.col("severity") != "defect", pl.col("certainty") != "certain", "from_ns").iter_rows(named=True):
        if row["page_id"] is not None:
            return int(by_policy[row["policy"]].family_of_page[row["page_id"]])
    observed = replays[0]
    root = observed.family_of_page
    referenced = held(evidence_of(observed)).filter(pl.col("via") != "exec")["page_before"]
    decided = observed.fault_rows.filter(pl.col("page_before").is_not_null())
    of_others = decided.filter(~pl.col("comm").is_in(RECORDERS))
    for pages in (referenced, _parted(replays), of_others["page_before"], decided["page_before"]):
        if len(pages):
            families, decisions = np.unique(root[pages.to_numpy()], return_counts=True)
            return int(families[np.lexsort((decisions, _owners(observed, families)))[-1]])
    return None


def _owners(replay: Replay, families: Ints) -> Ints:
    """How many address spaces have mapped pages of each family."""
    stays = replay.stays.filter(pl.col("page_id") >= 0)
    family = replay.family_of_page[stays["page_id"].to_numpy()]
    owned = pl.DataFrame({"family": family, "mm": stays["mm"]}).group_by("family").agg(pl.col("mm").n_unique())
    counts = dict(owned.iter_rows())
    return np.array([counts.get(int(each), 0) for each in families])


def _parted(replays: Sequence[Replay]) -> pl.Series:
    """Pages on which a policy decides otherwise than the traced kernel did."""
    observed = replays[0].fault_rows.select("event", "page_before", "decision")
    parts = [
        observed.join(replay.fault_rows.select("event", "decision"), on="event", suffix="_policy", how="inner")
        .filter(pl.col("decision").cast(pl.String) != pl.col("decision_policy").cast(pl.String), pl.col("page_before").is_not_null())
        .filter(pl.col("decision_policy") != "undetermined")
        .get_column("page_before")
        for replay in replays[1:]
    ]
    return pl.concat([pl.Series("page_before", [], dtype=pl.Int32), *parts])


def tell(replays: Sequence[Replay], findings: pl.DataFrame) -> tuple[Story, ...]:
    """The most telling family, once for each replay; the first is the observed one."""
    root = most_telling(replays, findings)
    if root is None:
        return ()
    names = _Names(replays, root)
    return tuple(_Teller(replay, root, names, findings).story() for replay in replays)


class _Names:
    """Letters of address spaces and numbers of pages, the same in every story of the family."""

    def __init__(self, replays: Sequence[Replay], root: int) -> None:
        self.letters: dict[int, str] = {}
        self.people: dict[str, str] = {}
        self.pages: dict[int, str] = {}
        for replay in replays:
            stays = _family(replay, root)
            for mm, pid, comm in stays.select("mm", "pid", "comm").iter_rows():
                if mm not in self.letters:
                    self.letters[mm] = _letter(len(self.letters))
                    self.people[self.letters[mm]] = f"{comm or '?'} {'?' if pid is None else pid}"
            for page in stays["page_id"].to_list():
                if page < replays[0].history.pages:
                    self.pages.setdefault(page, f"P{len(self.pages)}")

    def page(self, page: int, own: dict[int, str]) -> str:
        """The name of a page; one that only a policy makes is counted on from those that all know."""
        return self.pages.get(page) or own.setdefault(page, f"P{len(self.pages) + len(own)}")


def _letter(number: int) -> str:
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def _family(replay: Replay, root: int) -> pl.DataFrame:
    """The stays of a family, in order of time."""
    members = np.flatnonzero(replay.family_of_page == root)
    return replay.stays.filter(pl.col("page_id").is_in(members.tolist())).sort("from_event", maintain_order=True).head(MOST_ROWS)


class _Teller:
    """Tells one family under one replay."""

    def __init__(self, replay: Replay, root: int, names: _Names, findings: pl.DataFrame) -> None:
        self._replay = replay
        self._names = names
        self._own: dict[int, str] = {}
        self._events = replay.history.events
        members = pl.Series(np.flatnonzero(replay.family_of_page == root)).implode()
        self._stays = _family(replay, root)
        self._faults = replay.fault_rows.filter(pl.col("page_before").is_in(members) | pl.col("page_after").is_in(members)).head(MOST_ROWS)
        self._references = replay.reference_rows.filter(pl.col("page_id").is_in(members), pl.col("via") != "exec").head(MOST_ROWS)
        self._findings = findings.filter(pl.col("policy") == replay.policy, pl.col("page_id").is_in(members))

    def story(self) -> Story:
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
            policy=self._replay.policy,
            address=int(self._stays["address"][0]),
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
        return self._names.letters.get(mm, "?")

    def _page(self, page: int | None) -> str:
        return "?" if page is None else self._names.page(page, self._own)

    def _when(self, ts: int | None) -> int:
        return int(self._events.ts[0]) if ts is None else ts

    def _frame(self, page: int) -> str:
        pfn = self._replay.history.page_pfn
        return f"frame {int(pfn[page]):#x}" if page < len(pfn) else "a frame that only this policy makes"

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
            because = _BECAUSE.get(f["reason"], "").format(before)
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
                yield self._step(event, owner, "reuse", before, f"{owner} writes {before} in place{why}{though}.")

    def _left_on(self, page: int | None, event: int, writer: int) -> str:
        """What still holds a page that its last mapper has just left."""
        if page is None:
            return ""
        others = self._stays.filter(
            pl.col("page_id") == page,
            pl.col("mm") != writer,
            pl.col("from_event") <= event,
            outlasts(event),
        )
        holders = "" if others.height else self._holders(page, event)
        return f" Only {holders} keeps {self._page(page)}." if holders else ""

    def _holders(self, page: int, event: int, other_than: int | None = None) -> str:
        rows = self._references.filter(pl.col("page_id") == page, pl.col("from_event") < event, outlasts(event))
        if other_than is not None:
            rows = rows.filter(pl.col("mm") != other_than, pl.col("access") == "read")
        owners = dict.fromkeys(self._owner(mm) for mm in rows["mm"].to_list())
        return " and ".join(f"{owner}'s reference" for owner in owners)

    def _readers(self, page: int | None, event: int, mm: int) -> str:
        return "" if page is None else self._holders(page, event, other_than=mm)

    def _holds(self) -> Iterable[Step]:
        for r in self._references.iter_rows(named=True):
            owner, page = self._owner(r["mm"]), self._page(r["page_id"])
            what = f"{'pin' if r['kind'] == 'pin' else 'reference'}"
            length = "long-term " if r["longterm"] else ""
            text = f"{owner} takes a {length}{r['access']} {what} to {page} ({r['via']})."
            yield self._step(r["from_event"], owner, "reference", page, text)
            if r["to_event"] >= 0:
                late = "" if r["released"] == "exact" else " by now"
                yield self._step(r["to_event"], owner, "release", page, f"{owner}'s {what} to {page} is released{late}.")

    def _ends(self) -> Iterable[Step]:
        acts = {
            "unmapped": ("unmap", "unmaps {0}"),
            "exit": ("exit", "exits and lets go of {0}"),
            "swapped-out": ("swap", "has {0} swapped out"),
        }
        for s in self._stays.filter(pl.col("ended").is_in(list(acts))).iter_rows(named=True):
            owner, page = self._owner(s["mm"]), self._page(s["page_id"])
            act, text = acts[s["ended"]]
            yield self._step(s["to_event"], owner, act, page, f"{owner} {text.format(page)}.")

    def _outcome(self) -> tuple[str, bool]:
        defects = self._findings.filter(pl.col("severity") == "defect")
        if defects.height:
            return " ".join(
                self._harm(row) for row in defects.unique(["rule", "mm", "page_id"], maintain_order=True).iter_rows(named=True)
            ), False
        told = [self._sees(row) for row in self._references.unique(["mm", "page_id"], maintain_order=True).iter_rows(named=True)]
        pages = self._stays["page_id"].n_unique()
        if told and pages > 2:
            told.append(f"{pages} different pages, all correct.")
        return " ".join(told) or "No reference was held: every process sees its own writes and no other's.", True

    def _sees(self, reference: dict[str, Any]) -> str:
        owner, page = self._owner(reference["mm"]), self._page(reference["page_id"])
        shares = self._stays.filter(
            pl.col("page_id") == reference["page_id"], pl.col("mm") == reference["mm"],
            outlasts(reference["to_event"]),
        )  # fmt: skip
        own = f", and what {owner} itself has written there since" if shares.height else ""
        return f"{owner}'s reference reads what {page} held when it was taken{own}."

    def _harm(self, finding: dict[str, Any]) -> str:
        owner, page = self._owner(finding["mm"]), self._page(finding["page_id"])
        possibly = "" if finding["certainty"] == "certain" else "possibly "
        if finding["rule"] == "missed-cow":
            writer = self._writer(finding)
            return f"{owner}'s reference {possibly}reads what {writer} wrote into {page}: data that is none of its business."
        return f"{owner} and its own reference {possibly}part: the reference keeps {page}, {owner} goes on with a copy."

    def _writer(self, finding: dict[str, Any]) -> str:
        rows = self._faults.filter(pl.col("ts") == finding["from_ns"], pl.col("page_before") == finding["page_id"])
        return self._owner(int(rows["mm"][0])) if rows.height else "another process"
