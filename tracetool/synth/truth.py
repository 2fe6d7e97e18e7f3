"""Checkpoints: marks in the trace, and what the imagined kernel says of every page there, in the form of the recordings' truth files.

Tab-separated, a page a line: scenario, label, pid, address, pfn (0: none), mapcount, flags as /proc/kpageflags has them, present, swapped,
exclusively mapped. A second field `RESULT` says what the program saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tracetool.synth import events as e
from tracetool.synth import state as k
from tracetool.synth.plan import Plan
from tracetool.synth.scenarios import A_PINNED, B_WROTE, EVERYBODY, LABELS
from tracetool.synth.state import LEAST_BETWEEN, Machine

#: Page table entries that a checkpoint says something of, at most; at least one process is told of.
MOST_ENTRIES: Final = 1 << 16
# Of an anonymous page in its process: UPTODATE, LRU, MMAP, ANON, SWAPBACKED; exclusive to it. Of the zero page: ZERO_PAGE, PGTABLE's
# neighbour bit 32 (RESERVED), as recordings of Linux 6.1 have it (include/uapi/linux/kernel-page-flags.h).
ANON_FLAGS, EXCLUSIVE_FLAG, ZERO_FLAGS = 0x5828, 1 << 34, 0x101000000

Ints = npt.NDArray[Any]


class Checkpoints:
    """Collects the marks' texts and rows of a trace in the making, and the truth told at them."""

    def __init__(self, plan: Plan, machine: Machine) -> None:
        self._plan = plan
        self._m = machine
        self._labels = LABELS.get(plan.scenario, ("k",))
        self._seen: Counter[str] = Counter()
        self._original: dict[int, int] = {}

    def take(self, first_text: int) -> tuple[list[str], Ints, Iterator[str]]:
        """The checkpoint that is due: texts of its marks, rows that name them by number from `first_text` on, lines of truth."""
        m = self._m
        label = self._labels[m.s[k.S_MARK]]
        round_number = self._seen[label]
        self._seen[label] += 1
        name = f"{label}{round_number}" if label == "k" else f"{label}-{round_number}" if round_number else label
        slots = self._processes()
        told = self._seen_by_holder()
        marks = [(slots[0], f"result {self._plan.scenario} gup-reader-sees-original {told}")] if told else []
        for slot in slots:
            marks += self._pair(slot, name)
        rows = self._rows([slot for slot, _ in marks], first_text)
        # However many marks there are, something happens before the next.
        m.s[k.S_MARK], m.s[k.S_MARK_AT] = -1, max(m.s[k.S_MARK_AT] + m.p[k.P_MARK_EVERY], m.s[k.S_EVENTS] + LEAST_BETWEEN)
        return [text for _, text in marks], rows, self._lines(slots, name, told)

    def _processes(self) -> list[int]:
        m = self._m
        if m.s[k.S_MARK_OF] != EVERYBODY:
            return [int(m.s[k.S_MARK_OF])]
        return [int(slot) for slot in m.live[: min(int(m.s[k.S_LIVE]), max(1, MOST_ENTRIES // self._plan.area_pages))]]

    def _pair(self, slot: int, name: str) -> list[tuple[int, str]]:
        pid, scenario = self._m.tasks[slot, k.T_PID], self._plan.scenario
        where = f"addr={self._m.p[k.P_AREA]:#x} pages={self._plan.area_pages}"
        return [(slot, f"ckpt-begin {scenario} {name} pid={pid}"), (slot, f"ckpt-end {scenario} {name} pid={pid} {where}")]

    def _rows(self, slots: list[int], first_text: int) -> Ints:
        """A mark every 20 us, each by its process."""
        m = self._m
        rows = np.zeros((len(slots), m.rows.shape[1]), np.int64)
        rows[:, k.E_KIND] = e.PRINT
        rows[:, k.E_CPU] = m.tasks[slots, k.T_CPU]
        rows[:, k.E_TID] = m.tasks[slots, k.T_PID]
        rows[:, k.E_TIME] = m.s[k.S_TIME] + 20_000 * np.arange(1, len(slots) + 1)
        rows[:, k.E_FIRST] = first_text + np.arange(len(slots))
        m.s[k.S_TIME] += 20_000 * (len(slots) + 1)
        m.s[k.S_EVENTS] += len(slots)
        return rows

    def _seen_by_holder(self) -> str:
        """In the mail: does the holder of the references still see what was there when it took them?"""
        m = self._m
        if self._plan.scenario != "mail" or m.s[k.S_MARK] not in (A_PINNED, B_WROTE):
            return ""
        held = {n: int(m.contents[m.refs[n, k.R_FRAME]]) for n in range(int(m.s[k.S_REFS]))}
        if m.s[k.S_MARK] == A_PINNED:
            self._original = held
            return ""
        return "kept" if held == self._original else "LEAKED"

    def _lines(self, slots: list[int], name: str, told: str) -> Iterator[str]:
        scenario, pages = self._plan.scenario, self._plan.area_pages
        if told:
            yield f"{scenario}\tRESULT\tgup-reader-sees-original\t{told}\n"
        for slot in slots:
            pid = int(self._m.tasks[slot, k.T_PID])
            for first in range(0, pages, MOST_ENTRIES):
                for page in self._pages(slot, first, min(pages, first + MOST_ENTRIES)):
                    yield f"{scenario}\t{name}\t{pid}\t{page}\n"

    def _pages(self, slot: int, first: int, end: int) -> Iterator[str]:
        """Pages of a process's area, from the address on."""
        m = self._m
        at, area = slot * int(m.p[k.P_WIDTH]) + 1, int(m.p[k.P_AREA])
        entries = m.entries[at + first : at + end]
        zero = entries & k.ZERO != 0
        mapped = (entries != 0) & ~zero
        frame = np.where(mapped, entries >> k.FRAME_SHIFT, 0)
        mapcount = np.where(mapped, m.frames[frame, k.F_MAPCOUNT], 0)
        exclusive = mapped & (m.frames[frame, k.F_EXCLUSIVE] != 0)
        flags = np.where(mapped, ANON_FLAGS + EXCLUSIVE_FLAG * exclusive, np.where(zero, ZERO_FLAGS, 0))
        pfn = np.where(mapped, k.FIRST_PFN + frame, np.where(zero, k.ZERO_PFN, 0))
        alone = mapped & (mapcount == 1)
        columns = (pfn.tolist(), mapcount.tolist(), flags.tolist(), (entries != 0).tolist(), alone.tolist())
        for n, (number, count, bits, present, one) in enumerate(zip(*columns, strict=True), first):
            yield f"{area + (n << 12):#x}\t{number}\t{count}\t{bits:#x}\t{int(present)}\t0\t{int(one)}"
