"""Random histories against a slow, obvious model of a kernel.

The model (`engine.model`) keeps dictionaries. It runs a random history, says what profile 1 would record of it, and who owns what: the
observed replay of that recording must say the same. The replay of the recording under another policy must say what the model does when it
runs the same history with that policy, up to the first store that the recorded kernel did not fault on but the other would have: that
store is not in the trace. `$TRACETOOL_MODEL_EXAMPLES` sets how many histories are tried.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from typing import Any, Final

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.build import BASE, FOLL_GET, FOLL_LONGTERM, FOLL_WRITE, PAGE, Machine, pages_of
from engine.model import ADDRESSES, EXCLUSIVE, IN_SWAP, POLICIES, ZERO, Model, Silent
from tracetool.replay import Replay

EXAMPLES: Final = int(os.environ.get("TRACETOOL_MODEL_EXAMPLES", "200"))
PROCESSES: Final = 4

Act = tuple[str, int, int]
acts = st.lists(
    st.tuples(
        st.sampled_from(["write", "fork", "pin-w"] * 3 + ["splice", "pin-r", "release"] * 2 + ["read", "unmap", "exit"]),
        st.integers(0, 11),
        # Most of it happens to a few pages: what policies part on takes several acts on one.
        st.sampled_from([0] * 6 + [1] * 3 + list(range(2, ADDRESSES))),
    ),
    min_size=5,
    max_size=40,
)


#: The same with what happens to pages behind the back of their owners.
more_acts = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "swap-out"] * 3 + ["fork", "read", "merge"] * 2 + ["move", "splice", "pin-w", "release", "unmap", "exit"]
        ),
        st.integers(0, 23),
        st.sampled_from([0] * 4 + [1] * 3 + list(range(2, ADDRESSES))),
    ),
    min_size=5,
    max_size=50,
)


class History:
    """One random history, run by the recorded kernel and by another; stops before the first store that only the other faults on."""

    def __init__(self, drawn: list[Act], recorded: str, other: str, stops: bool) -> None:
        self.machine = Machine()
        root = self.machine.spawn(10)
        self._tids = count(11)
        self._references = count(0)
        self.processes = {10: root}
        self.recorded = Model(recorded, self.machine, self.processes)
        self.other = Model(other, Silent(), self.processes)
        self.stops = stops
        for model in (self.recorded, self.other):
            model.memory[10] = {}
        self.moments: list[tuple[int, dict[tuple[int, int], tuple[str | int, int, int, int]]]] = []
        for name, who, at in drawn:
            alive = sorted(self.recorded.memory)
            if not alive or not self._act(name, alive[who % len(alive)], at, who):
                break
            # A mark keeps the moments between acts apart.
            self.moments.append((self.machine.mark(99, "act"), self.recorded.owned()))

    def _act(self, name: str, tid: int, at: int, choice: int) -> bool:
        """Do one act in both; False where the other kernel would fault on a store that the recorded one did not fault on."""
        if name == "write":
            if self.stops and self.other.would_fault(tid, at) and not self.recorded.would_fault(tid, at):
                return False
            self._both(lambda model: model.write(tid, at))
        elif name == "fork" and len(self.recorded.memory) < PROCESSES:
            child = next(self._tids)
            self._both(lambda model: model.fork(tid, child))
        elif name == "splice":
            number = next(self._references)
            self._both(lambda model: model.splice(tid, at, number))
        elif name in ("pin-w", "pin-r"):
            number = next(self._references)
            self._both(lambda model: model.pin(tid, at, number, name == "pin-w"))
        elif name == "release" and self.recorded.references:
            released = self._oldest(choice)
            self._both(lambda model: model.release(tid, released))
        elif name == "exit" and len(self.recorded.memory) > 1:
            self._both(lambda model: model.exit(tid))
        else:
            self._happen(name, tid, at, choice)
        return True

    def _happen(self, name: str, tid: int, at: int, choice: int) -> None:
        """What no page is ever refused to."""
        if name in ("read", "unmap"):
            self._both(lambda model: getattr(model, name)(tid, at))
        elif name == "move":
            self._both(lambda model: model.move(tid, at, (at + 1 + choice % (ADDRESSES - 1)) % ADDRESSES))
        elif name == "swap-out":
            if self._can(lambda model: model.can_swap_out(tid, at)):
                self._both(lambda model: model.swap_out(tid, at))
        elif name == "merge":
            alive = sorted(self.recorded.memory)
            other, where = alive[choice // 3 % len(alive)], (at + choice) % ADDRESSES
            if self._can(lambda model: model.can_merge(tid, at, other, where)):
                self._both(lambda model: model.merge(tid, at, other, where))

    def _can(self, asked: Callable[[Model], object]) -> bool:
        """Reclaim and KSM are told of where both kernels have the same page to take: what else they would do, no trace says."""
        return asked(self.recorded) is not None and asked(self.recorded) == asked(self.other)

    def _both(self, act: Callable[[Model], object]) -> None:
        for model in (self.recorded, self.other):
            act(model)

    def _oldest(self, choice: int) -> int:
        """A reference to release. A release names a frame: of references to one page and of one kind it is the oldest that goes."""
        held = sorted(self.recorded.references.items())
        _, chosen = held[choice % len(held)]
        return next(number for number, each in held if (each.page, each.pin) == (chosen.page, chosen.pin))


def replayed(replay: Replay, at: int) -> dict[tuple[int, int], tuple[str | int, int, int, int]]:
    return {
        key: (ZERO if row["zero"] else IN_SWAP if row["swapped"] else row["pfn"], row["mapcount"], row["references"], row["pins"])
        for key, row in pages_of(replay, at).items()
    }


@settings(max_examples=EXAMPLES)
@given(acts, st.sampled_from(POLICIES), st.integers(0, 39))
def test_the_observed_replay_is_the_model(drawn: list[Act], recorded: str, moment: int) -> None:
    history = History(drawn, recorded, recorded, stops=False)
    replay = history.machine.replay()
    assert (replay.history.unknown_unmaps, replay.history.healed) == (0, 0)
    for at, owned in history.moments[-1:] + history.moments[moment : moment + 1]:
        assert replayed(replay, at) == owned


@settings(max_examples=EXAMPLES)
@given(more_acts, st.sampled_from(POLICIES), st.integers(0, 49))
def test_the_observed_replay_is_the_model_with_swap_merging_and_moves(drawn: list[Act], recorded: str, moment: int) -> None:
    history = History(drawn, recorded, recorded, stops=False)
    replay = history.machine.replay()
    assert (replay.history.unknown_unmaps, replay.history.healed) == (0, 0)
    for at, owned in history.moments[-1:] + history.moments[moment : moment + 1]:
        assert replayed(replay, at) == owned
    merged = {row["pfn"]: row["ksm"] for row in replay.pages_at(history.machine.now).to_dicts() if row["pfn"] > 0}
    for entries in history.recorded.memory.values():
        for entry in entries.values():
            assert entry.page is None or not entry.page.merged or len(entry.page.maps) < 2 or merged[entry.page.name]


#: A trace of 5.8 shows COW faults at read references, which other policies would not have: they are not told from stores yet.
RECORDED: Final = tuple(name for name in POLICIES if name != "forced-cow")


@settings(max_examples=EXAMPLES)
@given(acts, st.sampled_from(RECORDED), st.sampled_from(POLICIES))
def test_the_replay_under_a_policy_is_the_model_of_that_policy(drawn: list[Act], recorded: str, other: str) -> None:
    compare(drawn, recorded, other)


@settings(max_examples=EXAMPLES)
@given(more_acts, st.sampled_from(RECORDED), st.sampled_from(POLICIES))
def test_the_replay_under_a_policy_is_the_model_of_it_with_swap_merging_and_moves(drawn: list[Act], recorded: str, other: str) -> None:
    compare(drawn, recorded, other)


def compare(drawn: list[Act], recorded: str, other: str) -> None:
    """Who maps and references what in the end, in the replay under the other policy and in the model."""
    history = History(drawn, recorded, other, stops=True)
    replay = history.machine.replay(other)
    end = history.machine.mark(99, "end")
    rows = pages_of(replay, end)
    expected = history.other.owned()
    assert rows.keys() == expected.keys()
    for key, (page, *counts) in expected.items():
        row = rows[key]
        assert [row["mapcount"], row["references"], row["pins"]] == counts, key
        assert (row["zero"], row["swapped"]) == (page == ZERO, page == IN_SWAP), key
    assert families(page_ids(replay)) == families({key: page for key, (page, *_) in expected.items() if page not in (ZERO, IN_SWAP)})
    assert references(replay) == history.other.held()


def page_ids(replay: Replay) -> dict[tuple[int, int], int]:
    """(pid, address) -> page, at the end."""
    rows = replay.stays.filter(pl.col("to_event") < 0, pl.col("page_id") >= 0).filter(pl.col("address") < BASE + ADDRESSES * PAGE)
    return {(row["pid"], row["address"]): row["page_id"] for row in rows.iter_rows(named=True)}


def families(pages: dict[tuple[int, int], Any]) -> set[frozenset[tuple[int, int]]]:
    """Who shares a page with whom, whatever the pages are called."""
    members: dict[Any, set[tuple[int, int]]] = {}
    for key, page in pages.items():
        members.setdefault(page, set()).add(key)
    return {frozenset(each) for each in members.values()}


def references(replay: Replay) -> list[tuple[set[tuple[int, int]], bool]]:
    """Of each reference that is still held, in order: who maps its page, and whether it is a pin."""
    at = page_ids(replay)
    rows = replay.reference_rows.filter(pl.col("to_event") < 0, pl.col("via").cast(pl.String) != "exec").sort("reference")
    return [({key for key, page in at.items() if page == row["page_id"]}, row["kind"] == "pin") for row in rows.iter_rows(named=True)]


def test_the_model_leaks_where_the_mail_says_so() -> None:
    """The model itself, on the example of the mail: under mapcount B writes the page that A's reference reads."""
    mail: list[Act] = [("write", 0, 0), ("fork", 0, 0), ("splice", 0, 0), ("write", 0, 0), ("write", 1, 0)]
    seen = {policy: History(mail, policy, policy, stops=False).recorded.held() for policy in POLICIES}
    own, nobody = [({(10, BASE)}, False)], [(set[tuple[int, int]](), False)]
    assert seen.pop("mapcount") == [({(11, BASE)}, False)]
    assert seen.pop("forced-cow") == own
    assert set(seen) == {"page-count", "page-count-5.18", *EXCLUSIVE}
    assert all(held == nobody for held in seen.values())


def test_flags_of_the_model_are_those_of_the_recording() -> None:
    """A vmsplice reference is a FOLL_GET, an io_uring buffer a FOLL_PIN: else both models would count nothing."""
    history = History([("write", 0, 0), ("splice", 0, 0), ("pin-w", 0, 0)], "exclusive", "exclusive", stops=False)
    assert history.recorded.owned() == {(10, BASE): (100, 1, 1, 1)} == replayed(history.machine.replay(), history.machine.now)
    assert FOLL_GET not in (FOLL_WRITE, FOLL_LONGTERM)
