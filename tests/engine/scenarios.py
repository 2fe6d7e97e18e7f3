"""The scenarios that were run on real kernels, as histories: A and B are parent and child, and share one page, of 4 KiB or huge.

Each is recorded either on a kernel that `copies`, so that every store which some kernel faults on is in it, or on one that shares: what
was recorded must not matter to what a policy makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from engine.build import (
    BASE,
    HEAD,
    PAGE,
    READ_ONLY,
    READ_WRITE,
    REUSED,
    SPLIT_UP,
    UNSHARE_FAULT,
    WRITE_FAULT,
    Huge,
    Machine,
    Process,
    address,
)
from tracetool.replay import Replay

A, B, P0, P1, P2, P3 = 10, 11, 50, 51, 52, 53
AREA: Final = [(BASE, 1)]
NEW, SAME = "NEW", "SAME"


@dataclass
class Scenario:
    """One history. `acts` names moments: (process, just before, just after).

    `drained`: is the LRU batch, in which A's new page waits, emptied before anything happens?
    """

    copying: bool
    m: Machine = field(default_factory=Machine)
    drained: bool = True
    acts: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    p0: int = P0
    area: list[tuple[int, int]] = field(default_factory=lambda: AREA)

    def a(self) -> Process:
        """A, which has written to its page."""
        process = self.m.spawn(A)
        self.m.munmap(process, address(3000), None)
        self.touch(process)
        if self.drained:
            self.m.munmap(process, address(3000), None)
        return process

    def touch(self, a: Process) -> None:
        self.m.touch(a, address(0), P0)

    def fork(self, a: Process) -> Process:
        return self.m.fork(a, B, self.area)

    def exit(self, p: Process) -> None:
        self.m.exit(p, [P0])

    def act(self, name: str, who: int, done: Callable[[], object]) -> None:
        before = self.m.mark(99, name)
        done()
        self.acts[name] = (who, before, self.m.mark(99, "after"))

    def cow(self, p: Process, new: int | None, flags: int = WRITE_FAULT, shared: bool = False) -> None:
        """Process `p` gets frame `new`, or keeps what it has (None). `shared`: the other process has the rest of a huge page still."""
        self.m.cow(p, address(0), P0, new, flags=flags)

    def write(self, name: str, p: Process, new: int | None, shared: bool = False) -> None:
        self.act(name, p.tid, lambda: self.cow(p, new, shared=shared))

    def early(self) -> dict[int, int]:
        """What fork copies of a pinned page."""
        return {address(0): P2}


@dataclass
class HugeScenario(Scenario):
    """The same with a huge page, mapped as one, of which the first part is written to."""

    m: Huge = field(default_factory=Huge)
    p0: int = HEAD
    area: list[tuple[int, int]] = field(default_factory=lambda: [(BASE, 512)])

    def touch(self, a: Process) -> None:
        self.m.touch_huge(a)

    def exit(self, p: Process) -> None:
        self.m.exit_huge(p)

    def cow(self, p: Process, new: int | None, flags: int = WRITE_FAULT, shared: bool = False) -> None:
        if new is None and not shared:
            self.m.huge_cow(p, BASE, REUSED, flags)
            return
        self.m.huge_cow(p, BASE, SPLIT_UP, flags)
        self.m.cow(p, BASE, HEAD, new or P3, flags=flags)

    def early(self) -> dict[int, int]:
        return {BASE + number * PAGE: 0xA000 + number for number in range(512)}


def s1(s: Scenario) -> None:
    a = s.a()
    b = s.fork(a)
    s.m.vmsplice(a, address(0), s.p0)
    s.write("A.w", a, P1)
    s.write("B.w", b, P2 if s.copying else None, shared=True)


def s1b(s: Scenario) -> None:
    a = s.a()
    b = s.fork(a)
    s.m.vmsplice(a, address(0), s.p0)
    s.write("B.w", b, P1)
    s.write("A.w", a, P2 if s.copying else None, shared=True)


def s2(s: Scenario) -> None:
    a = s.a()
    s.exit(s.fork(a))
    s.m.vmsplice(a, address(0), s.p0)
    s.write("A.w", a, P1 if s.copying else None)


def s3(s: Scenario) -> None:
    """Recorded on kernels that fault after mprotect: those before 6.1."""
    a = s.a()
    s.m.vmsplice(a, address(0), s.p0)
    s.m.mprotect(a, address(0), READ_ONLY, s.area[0][1])
    s.m.mprotect(a, address(0), READ_WRITE, s.area[0][1])
    s.write("A.w", a, P1 if s.copying else None)


def s4(s: Scenario) -> None:
    a = s.a()
    s.m.vmsplice(a, address(0), s.p0)
    s.exit(s.fork(a))
    s.write("A.w", a, P1 if s.copying else None)


def s6(s: Scenario) -> None:
    a = s.a()
    b = s.fork(a)
    s.write("A.w", a, P1)
    s.write("B.w", b, None, shared=True)


def s7(s: Scenario) -> None:
    a = s.a()
    s.exit(s.fork(a))
    s.write("A.w", a, None)


def s9(s: Scenario) -> None:
    """On a kernel that copies at fork neither store faults."""
    a = s.a()
    s.m.pin(a, address(0), s.p0)
    b = Process(B, s.m.mm())
    s.act("fork", B, lambda: s.m.fork(a, B, s.area, early=s.early() if s.copying else None, mm=b.mm))
    if not s.copying:
        s.write("A.w", a, P1)
        s.write("B.w", b, None, shared=True)


def s9b(s: Scenario) -> None:
    a = s.a()
    b = s.fork(a)

    def pins() -> None:
        s.m.pin_begin(a, address(0))
        s.cow(a, P1, WRITE_FAULT & ~0x40)
        s.m.pin_end(a, P1)

    s.act("A.pin", A, pins)
    s.write("B.w", b, None, shared=True)


def s10(s: Scenario) -> None:
    """process_vm_readv of one's own shared page: the newest kernels unshare it for the pin."""
    a = s.a()
    s.fork(a)

    def pins() -> None:
        s.m.pin_begin(a, address(0), 0)
        if s.copying:
            s.cow(a, P1, UNSHARE_FAULT | 0x4)
        s.m.pin_end(a, P1 if s.copying else s.p0)

    s.act("A.pin", A, pins)


def page_of(replay: Replay, who: int, at: int) -> int:
    """The page that a process has at the test's address at a time."""
    rows = replay.stays.filter(
        pl.col("pid") == who, pl.col("address") == BASE, pl.col("from_ns") <= at, pl.col("to_ns").is_null() | (pl.col("to_ns") > at)
    )
    (page,) = rows["page_id"].to_list()
    return int(page)


def told_and_expected(s: Scenario, expected: dict[str, str | int], under: str) -> tuple[dict[str, str | int], dict[str, str | int]]:
    """The outcome of a scenario under a policy, as far as something is expected, and that, as far as the scenario has such a moment."""
    found = outcome(s.acts.items(), s.m.replay(under))
    return (
        {name: value for name, value in found.items() if name in expected},
        {name: value for name, value in expected.items() if name in s.acts or name == "gup"},
    )


def outcome(acts: Iterable[tuple[str, tuple[int, int, int]]], replay: Replay) -> dict[str, str | int]:
    """Who got a new page, and the byte that the first reference shows at last: 1 the first contents, 5 A's store, 9 B's store."""
    found: dict[str, str | int] = {}
    contents: dict[int, int] = {}
    for name, (who, before, after) in acts:
        was, now = page_of(replay, A if name == "fork" else who, before), page_of(replay, who, after)
        found[name] = SAME if was == now else NEW
        if name.endswith(".w"):
            contents[now] = 5 if who == A else 9
    held = replay.reference_rows.filter(pl.col("via").cast(pl.String) != "exec")["page_id"].to_list()
    return found | {"gup": contents.get(held[0], 1) if held else 1}
