"""The observed replay says of every page at every checkpoint what the kernel itself said in /proc/PID/pagemap and /proc/kpagecount."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest

import tracetool
from conftest import FIXTURES, fixture_traces, truth_of

ZERO_PAGE: Final = 1 << 24

#: Recordings outside the project, the same of four kernels.
SCENARIOS: Final = (
    "iouring", "iouring_ro", "ksm", "mail", "random1", "random2", "random3", "remote", "snapshot", "swap", "thp", "tree",
    "vmsplice_child", "zap",
)  # fmt: skip

Key = tuple[str, int, int]


@dataclass(frozen=True)
class Truth:
    """What the kernel said of one page at one checkpoint."""

    pfn: int
    mapcount: int
    flags: int
    present: bool
    swapped: bool

    def denies(self, row: dict[str, Any] | None, other: dict[str, Any] | None) -> str | None:
        """What is wrong with a row of the replay at one marker, None if nothing; `other` is the row at the other marker."""
        if not self.present and not self.swapped:
            empty = row is None or (row["pfn"] == 0 and not row["swapped"] and not row["zero"])
            return None if empty else "not mapped"
        if row is None:
            return "mapped"
        if self.swapped:
            return None if row["swapped"] else "swapped out"
        if self.flags & ZERO_PAGE:
            return None if row["zero"] else "the zero page"
        if row["pfn"] != self.pfn:
            return f"frame {self.pfn}"
        counts = [each["mapcount"] for each in (row, other) if each and each["pfn"] == self.pfn]
        return None if min(counts) <= self.mapcount <= max(counts) else f"mapcount {self.mapcount}"


def truths(path: Path) -> Iterator[tuple[Key, Truth]]:
    """The rows of a truth file by (label, pid, address)."""
    packed = path.with_name(f"{path.name}.gz")
    with gzip.open(packed, "rt", encoding="ascii") if packed.exists() else path.open(encoding="ascii") as file:
        for row in csv.reader(file, delimiter="\t"):
            if row[1] != "RESULT":
                said = Truth(int(row[4]), int(row[5]), int(row[6], 16), row[7] == "1", row[8] == "1")
                yield (row[1], int(row[2]), int(row[3], 16)), said


def replayed(trace: tracetool.Trace, which: str, policy: str) -> tuple[dict[Key, dict[str, Any]], set[tuple[str, int]]]:
    """The replay's rows at the markers `ckpt-begin` or `ckpt-end`, of the process that each is about; and the checkpoints there are."""
    pages = trace.pages_at_marks(f"ckpt-{which}*", policy=policy)
    texts = trace.marks().filter(pl.col("text").str.starts_with(f"ckpt-{which}"))["text"].to_list()
    checkpoints = {text: (text.split()[2], int(text.split()[3].removeprefix("pid="))) for text in texts}
    assert len(set(checkpoints.values())) == len(texts), "a process reaches a checkpoint once"
    rows: dict[Key, dict[str, Any]] = {}
    for row in pages.iter_rows(named=True):
        label, pid = checkpoints[row["mark"]]
        if row["pid"] == pid:
            key = label, pid, int(row["address"], 16)
            assert key not in rows, f"{key}: an address is mapped once at a time"
            rows[key] = row
    return rows, set(checkpoints.values())


def compared(path: Path, policy: str = "observed") -> tuple[Counter[str], list[str]]:
    """How many rows of each kind were compared, and what was wrong."""
    trace = tracetool.open(path)
    (begin, checkpoints), (end, ends) = replayed(trace, "begin", policy), replayed(trace, "end", policy)
    assert checkpoints == ends
    kinds: Counter[str] = Counter()
    wrong = []
    for key, truth in truths(truth_of(path)):
        assert key[:2] in checkpoints, f"no marker for {key}"
        kinds["swapped" if truth.swapped else "absent" if not truth.present else "zero" if truth.flags & ZERO_PAGE else "mapped"] += 1
        first, last = begin.get(key), end.get(key)
        denied = truth.denies(first, last)
        if denied and truth.denies(last, first):
            wrong.append(f"{key[0]} pid {key[1]} {key[2]:#x}: the kernel says {denied}, the replay {first} then {last}")
    return kinds, wrong


@pytest.mark.parametrize("path", fixture_traces(), ids=lambda path: path.stem)
def test_every_page_is_where_the_kernel_says(path: Path) -> None:
    kinds, wrong = compared(path)
    assert not wrong, "\n".join(wrong[:5])
    assert kinds["mapped"] > 0


#: Recordings of what happens to pages besides faults and forks: reclaim, migration, merging, huge pages, every call that changes areas.
TRANSITIONS: Final = sorted((FIXTURES / "transitions").glob("*.dat"))


@pytest.mark.parametrize("path", TRANSITIONS, ids=lambda path: path.stem)
def test_every_page_is_where_the_kernel_says_whatever_became_of_it(path: Path) -> None:
    kinds, wrong = compared(path)
    assert not wrong, f"{len(wrong)} of {kinds.total()}\n" + "\n".join(wrong[:5])
    assert kinds["mapped"] > 100


def test_the_transitions_hold_pages_of_every_kind() -> None:
    assert len(TRANSITIONS) >= 7
    kinds = sum((Counter(_kind(truth) for _, truth in truths(truth_of(path))) for path in TRANSITIONS), Counter())
    assert min(kinds["zero"], kinds["shared"], kinds["alone"], kinds["swapped"], kinds["absent"]) >= 500, kinds


@pytest.mark.parametrize("path", fixture_traces(), ids=lambda path: path.stem)
def test_under_its_own_policy_every_page_is_where_the_kernel_says(path: Path) -> None:
    """Replayed from the accesses alone, the policy of 5.10 and that of all newer kernels put every page where those did."""
    kinds, wrong = compared(path, "page-count" if path.stem.endswith("-5.10") else "exclusive")
    assert not wrong, "\n".join(wrong[:5])
    assert kinds["mapped"] > 0


def test_fixtures_hold_pages_of_every_kind() -> None:
    kinds = sum((Counter(_kind(truth) for _, truth in truths(truth_of(path))) for path in fixture_traces()), Counter())
    assert kinds["zero"] >= 10
    assert kinds["shared"] >= 100
    assert kinds["alone"] >= 1000
    assert kinds["absent"] >= 10


def _kind(truth: Truth) -> str:
    if not truth.present:
        return "swapped" if truth.swapped else "absent"
    return "zero" if truth.flags & ZERO_PAGE else "shared" if truth.mapcount > 1 else "alone"


@pytest.mark.parametrize("pid_shown", [True, False], ids=["one process", "all processes"])
def test_a_moment_can_be_asked_for_by_time(pid_shown: bool) -> None:
    """`Replay.pages_at` of a mark's time is `Trace.pages_at_marks`."""
    trace = tracetool.open(fixture_traces()[0])
    mark = trace.marks().filter(pl.col("text").str.starts_with("ckpt-end")).row(2, named=True)
    pid = int(mark["text"].split()[3].removeprefix("pid=")) if pid_shown else None
    at_mark = trace.pages_at_marks(mark["text"], pid=pid)
    at_time = trace.replay().pages_at(mark["ts"], pid)
    assert at_mark.height > 0
    assert at_time.drop("mark").equals(at_mark.drop("mark"))
    assert (at_time["pid"].unique().to_list() == [pid]) == pid_shown


@pytest.mark.exhaustive
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.2"])
def test_every_page_of_the_recordings_is_where_the_kernel_says(traces: Path, kernel: str, scenario: str) -> None:
    kinds, wrong = compared(traces / kernel / f"{scenario}.dat")
    assert not wrong, f"{len(wrong)} of {kinds.total()}\n" + "\n".join(wrong[:5])
    assert kinds["mapped"] > 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("scenario", sorted(set(SCENARIOS) - {"swap", "ksm", "thp"}))
def test_under_exclusive_every_page_of_the_recordings_is_where_6_1_says(traces: Path, scenario: str) -> None:
    kinds, wrong = compared(traces / "6.1" / f"{scenario}.dat", "exclusive")
    assert not wrong, f"{len(wrong)} of {kinds.total()}\n" + "\n".join(wrong[:5])
    assert kinds["mapped"] > 0
