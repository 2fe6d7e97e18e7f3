"""Traces made by hand: raw events as recording profile 1 writes them, one call each, and what a kernel 6.1 says when it does something.

`Recording` knows events and nothing of memory; `Machine` writes the events of a touch, a fork, a COW fault, with the frames that the test
names: what happens is the test's to decide, so that every kernel's decisions can be written down.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from tracetool.memory_events import EventSource, MemoryEvents, Op, memory_events, with_tables
from tracetool.policies import Policy, policy
from tracetool.processes import processes
from tracetool.replay import Replay, rebuild
from tracetool.replay.history import History

PAGE: Final = 4096
VMEMMAP: Final = 0xFFD4_0000_0000_0000
#: Where tests put pages: far from stacks and heaps.
BASE: Final = 0x7F00_0000_0000
STACK: Final = 0x7FFF_FFFF_E000

#: Linux 6.1: FAULT_FLAG_*, VM_*, FOLL_*, MADV_DONTNEED, PROT_*, CLONE_*.
READ_FAULT, WRITE_FAULT, REMOTE_FAULT, UNSHARE_FAULT = 0x254, 0x255, 0x80, 0x400
VM_ANON, VM_SHARED = 0x100073, 0x8
FOLL_WRITE, FOLL_TOUCH, FOLL_GET, FOLL_FORCE, FOLL_REMOTE, FOLL_LONGTERM, FOLL_PIN = 0x1, 0x2, 0x4, 0x10, 0x2000, 0x10000, 0x40000
DONTNEED = 4
READ_ONLY, READ_WRITE = 1, 3
CLONE_VM, CLONE_THREAD, FORK_FLAGS = 0x100, 0x10000, 0x1200000
PTE_SPECIAL = 0x200
VM_FAULT_WRITE = 8
#: Returned by a fault of a huge page: its mapping was split (VM_FAULT_FALLBACK), or all of it is the writer's.
SPLIT_UP, REUSED = 0x800, 0
#: MIGRATE_MOVABLE: what anonymous pages are allocated as.
MOVABLE = 1

#: Threads of the kernel.
KSMD, KSWAPD = 4000, 4001
#: An order-0 frame that nothing else uses.
FIRST_FRAME: Final = 0x1000
#: The first frame of a huge page, and its size.
HEAD, HUGE_SIZE = 0x8A00, 512 * PAGE


def struct_page(pfn: int) -> int:
    """The address of a frame's `struct page`."""
    return VMEMMAP + (pfn << 6)


def address(number: int) -> int:
    """The address of the test's page of that number."""
    return BASE + number * PAGE


class Recording:
    """Raw events in the order of the calls, a microsecond apart unless told otherwise, on CPU `cpu` of a kernel `release`.

    `without` names fields that this recording lacks, as `rmap_remove.mm` on 5.10.
    """

    def __init__(self, without: Collection[str] = ()) -> None:
        self.now = 1_000_000
        self.cpu = 0
        self.release: str | None = "6.1.0"
        self._without = set(without)
        self._rows: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def event(self, name: str, tid: int, *, cpu: int | None = None, later_ns: int = 1_000, **fields: int | str) -> int:
        """Record one event; returns its time stamp."""
        return self.add(name, tid, fields, self.cpu if cpu is None else cpu, later_ns)

    def add(self, name: str, tid: int, fields: Mapping[str, int | str], cpu: int = 0, later_ns: int = 1_000) -> int:
        """The same, with its fields as a mapping."""
        self.now += later_ns
        kept = {field: value for field, value in fields.items() if f"{name}.{field}" not in self._without}
        self._rows[name].append({"ts": self.now, "cpu": cpu, "tid": tid, **kept})
        return self.now

    def source(self) -> EventSource:
        """The events as tables, ordered by time."""
        return with_tables({name: _table(rows) for name, rows in self._rows.items()})

    def events(self) -> MemoryEvents:
        """Their memory events."""
        return memory_events(self.source(), self.release)

    def processes(self) -> pl.DataFrame:
        """Their processes."""
        return processes(self.events(), self.source())

    def history(self) -> History:
        """The observed replay as arrays."""
        return rebuild(self.events())

    def replay(self, under: str | Policy | None = None) -> Replay:
        """The observed replay, or that under a policy."""
        decided = policy(under) if isinstance(under, str) else under
        return Replay(self.history(), self.processes(), decided)

    def pages(self, at: int | None = None, under: str | Policy | None = None) -> dict[tuple[int, int], dict[str, Any]]:
        """What is mapped at time `at` (None: at the end), by (pid, address), but for the stacks that exec made."""
        return pages_of(self.replay(under), self.now if at is None else at)


def references(machine: Machine) -> list[dict[str, Any]]:
    """The references that the observed replay finds, but for exec's."""
    return machine.replay().references.filter(pl.col("via").cast(pl.String) != "exec").collect().to_dicts()


def pages_of(replay: Replay, at: int) -> dict[tuple[int, int], dict[str, Any]]:
    """`Replay.pages_at` by (pid, address), but for the stacks that exec made; an address may be there once only."""
    rows = replay.pages_at(at).to_dicts()
    found = {(row["pid"], int(row["address"], 16)): row for row in rows}
    assert len(found) == len(rows), "an address twice at one moment"
    return {key: row for key, row in found.items() if key[1] != STACK}


def rows(events: MemoryEvents, *ops: Op) -> list[dict[str, Any]]:
    """The memory events of these operations as dictionaries, with their `row`."""
    wanted = [op.name.lower() for op in ops]
    return events.table().with_row_index("row").filter(pl.col("op").cast(pl.String).is_in(wanted)).collect().to_dicts()


def only(events: MemoryEvents, *ops: Op) -> dict[str, Any]:
    """The one memory event of these operations."""
    found = rows(events, *ops)
    assert len(found) == 1
    return found[0]


def _table(rows: Sequence[Mapping[str, int | str]]) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _column(name, [row.get(name, 0) for row in rows]) for name in names})


def _column(name: str, values: Sequence[int | str]) -> pa.Array:
    if any(isinstance(value, str) for value in values):
        return pa.array([str(value) for value in values])
    if name == "ts":
        return pa.array(values, pa.int64())
    if name in ("cpu", "tid", "pid", "old_pid"):
        return pa.array(values, pa.int32())
    return pa.array(np.array([int(value) & 0xFFFF_FFFF_FFFF_FFFF for value in values], np.uint64))


@dataclass(frozen=True)
class Process:
    """A process with one thread: its number and the pointer to its mm."""

    tid: int
    mm: int


class Machine(Recording):
    """A kernel 6.1 that says what it does. Every verb names the frames; addresses are those of `address`, unless given.

    `batches`: allocations say that they are movable, so that new pages wait in the LRU batch of their CPU.
    """

    def __init__(self, without: Collection[str] = (), *, batches: bool = False) -> None:
        super().__init__(without)
        self._spaces = 0
        self._batches = batches

    def mm(self) -> int:
        """A pointer to an mm that no process has had yet."""
        self._spaces += 1
        return 0xFF11_0000_0000_0000 + 0xD80 * self._spaces

    def spawn(self, tid: int, mm: int | None = None) -> Process:
        """A process that execs, and so is known from its first page on; one page of stack comes with it."""
        process = Process(tid, mm or self.mm())
        self.event("gup", tid, mm=process.mm, start=STACK, nr_pages=1, flags=FOLL_WRITE | FOLL_TOUCH | FOLL_GET | FOLL_REMOTE)
        self.fault(process, STACK, WRITE_FAULT | REMOTE_FAULT)
        self.map_new(tid, process.mm, STACK, FIRST_FRAME - tid)
        self.event("gup_done", tid, ret=1)
        self.event("sched_process_exec", tid, pid=tid, old_pid=tid)
        return process

    def older(self, tid: int) -> Process:
        """A process that is older than the trace."""
        return Process(tid, self.mm())

    def fault(self, p: Process, at: int, flags: int, *, anonymous: bool = True, shared: bool = False) -> int:
        """handle_mm_fault."""
        vm_flags = VM_ANON | (VM_SHARED if shared else 0)
        return self.event("mm_fault", p.tid, mm=p.mm, address=at, fault_flags=flags, vm_flags=vm_flags, vm_ops=0 if anonymous else 1)

    def touch(self, p: Process, at: int, pfn: int) -> int:
        """The first store to an address of an anonymous area."""
        self.fault(p, at, WRITE_FAULT)
        return self.map_new(p.tid, p.mm, at, pfn)

    def map_new(self, tid: int, mm: int, at: int, pfn: int) -> int:
        """A new frame is allocated and mapped."""
        self.allocate(tid, pfn)
        return self.event("anon_new", tid, mm=mm, address=at, page=struct_page(pfn))

    def allocate(self, tid: int, pfn: int, order: int = 0) -> int:
        """A frame, or several at once, is taken from the allocator."""
        return self.event("mm_page_alloc", tid, pfn=pfn, order=order, **({"migratetype": MOVABLE} if self._batches else {}))

    def read_zero(self, p: Process, at: int) -> int:
        """A read of an untouched address: the zero page, of which nothing is said."""
        return self.fault(p, at, READ_FAULT)

    def cow(self, p: Process, at: int, pfn: int, new: int | None = None, *, flags: int = WRITE_FAULT, shared: bool = False) -> int:
        """A store to a read-only page of frame `pfn`: copied to frame `new`, or reused (None). Returns the time of the decision."""
        begin = self.cow_begin(p, at, (pfn << 12) | 0x65, flags, shared=shared)
        if new is not None:
            self.map_new(p.tid, p.mm, at, new)
            self.event("rmap_remove", p.tid, mm=p.mm, page=struct_page(pfn))
        self.event("cow_fault_done", p.tid, ret=0 if flags & UNSHARE_FAULT else VM_FAULT_WRITE)
        return begin

    def cow_begin(self, p: Process, at: int, pte: int, flags: int = WRITE_FAULT, *, shared: bool = False) -> int:
        """A COW fault begins."""
        self.fault(p, at, flags, shared=shared)
        vm_flags = VM_ANON | (VM_SHARED if shared else 0)
        return self.event("cow_fault", p.tid, mm=p.mm, address=at, vm_flags=vm_flags, fault_flags=flags, pte=pte)

    def zero_fill(self, p: Process, at: int, new: int) -> int:
        """A store where the zero page is."""
        begin = self.cow_begin(p, at, PTE_SPECIAL | 0x65)
        self.map_new(p.tid, p.mm, at, new)
        self.event("cow_fault_done", p.tid, ret=VM_FAULT_WRITE)
        return begin

    def fork(
        self, p: Process, tid: int, ranges: Iterable[tuple[int, int]], early: Mapping[int, int] | None = None, mm: int | None = None
    ) -> Process:
        """fork of `p`: (start, pages) of its areas; `early`: address -> frame of each page that fork copies for the child."""
        child = Process(tid, mm or self.mm())
        for start, pages in ranges:
            self.fork_range(p, child, start, pages, early)
        self.new_task(p, tid)
        return child

    def fork_range(
        self, p: Process, child: Process, start: int, pages: int, early: Mapping[int, int] | None = None, anon_vma: int = 1
    ) -> None:
        """fork copies one area."""
        end = start + pages * PAGE
        fields = {"start": start, "end": end, "vm_flags": VM_ANON, "anon_vma": anon_vma, "vmemmap": VMEMMAP}
        self.event("fork_range", p.tid, mm=child.mm, src_mm=p.mm, **fields)
        self.copy_early(p, child, {at: pfn for at, pfn in (early or {}).items() if start <= at < end})
        self.event("fork_range_done", p.tid, ret=0)

    def copy_early(self, p: Process, child: Process, early: Mapping[int, int]) -> None:
        """fork copies pages for the child: address -> frame."""
        for at, pfn in early.items():
            self.map_new(p.tid, child.mm, at, pfn)

    def new_task(self, p: Process, tid: int, flags: int = FORK_FLAGS, comm: str = "prog") -> int:
        """The child is there."""
        return self.event("task_newtask", p.tid, pid=tid, comm_field=comm, clone_flags=flags)

    def dontneed(self, p: Process, at: int, pfn: int | None, pages: int = 1) -> int:
        """MADV_DONTNEED of an address that maps frame `pfn`, or one that the trace says nothing of (None)."""
        self.event("sys_enter_madvise", p.tid, start=at, len_in=pages * PAGE, behavior=DONTNEED)
        self._unmap(p, pfn)
        return self.event("sys_exit_madvise", p.tid, ret=0)

    def munmap(self, p: Process, at: int, pfn: int | None, pages: int = 1) -> int:
        """munmap, likewise."""
        self.event("sys_enter_munmap", p.tid, addr=at, len=pages * PAGE)
        self._unmap(p, pfn)
        return self.event("sys_exit_munmap", p.tid, ret=0)

    def _unmap(self, p: Process, pfn: int | None) -> None:
        if pfn is not None:
            self.event("rmap_remove", p.tid, mm=p.mm, page=struct_page(pfn))

    def mprotect(self, p: Process, at: int, protection: int, pages: int = 1) -> int:
        """mprotect."""
        self.event("sys_enter_mprotect", p.tid, start=at, len=pages * PAGE, prot=protection)
        return self.event("sys_exit_mprotect", p.tid, ret=0)

    def mremap(self, p: Process, old: int, new: int, there: int | None = None) -> int:
        """mremap moves one page; `there` is the frame that the new address maps until then."""
        self.event("sys_enter_mremap", p.tid, addr=old, old_len=PAGE, new_len=PAGE, flags=3, new_addr=new)
        self._unmap(p, there)
        self.event("table_move", p.tid, mm=p.mm, old=old, new=new, len=PAGE)
        return self.event("sys_exit_mremap", p.tid, ret=new)

    def swap_out(self, tid: int, pfn: int, mappings: Iterable[tuple[Process, int]]) -> None:
        """Reclaim unmaps a page wherever it is mapped."""
        for p, at in mappings:
            self.event("swap_unmap", tid, mm=p.mm, address=at, page=struct_page(pfn))
            self.event("rmap_remove", tid, mm=p.mm, page=struct_page(pfn))

    def swap_in(
        self, p: Process, at: int, pfn: int, *, write: bool, then: int | None = None, exclusive: bool = False, read: int = 0
    ) -> None:
        """A swapped page is touched and mapped as frame `pfn`; a store that may not go there copies it to frame `then`.

        `read`: how many pages are read into memory for it, those read ahead included, which get the frames after `pfn`; 0: it was there
        still, or nothing tells.
        """
        flags = WRITE_FAULT if write else READ_FAULT
        self.fault(p, at, flags)
        self.event("swap_fault", p.tid, mm=p.mm, address=at, fault_flags=flags, pte=1 << 59)
        for number in range(read):
            self.allocate(p.tid, pfn + number)
        self.map_again(p.tid, p.mm, at, pfn)
        if write and not exclusive:
            self.event("cow_fault", p.tid, mm=p.mm, address=at, vm_flags=VM_ANON, fault_flags=flags, pte=(pfn << 12) | 0x65)
            if then is not None:
                self.map_new(p.tid, p.mm, at, then)
                self.event("rmap_remove", p.tid, mm=p.mm, page=struct_page(pfn))
            self.event("cow_fault_done", p.tid, ret=VM_FAULT_WRITE)
        self.event("swap_fault_done", p.tid, ret=0)

    def map_again(self, tid: int, mm: int, at: int, pfn: int) -> int:
        """A page that there is already is mapped."""
        return self.event("anon_add", tid, mm=mm, address=at, page=struct_page(pfn), flags=0)

    def ksm_merge(self, p: Process, at: int, old: int, merged: int) -> int:
        """ksmd puts the merged page in the place of an equal one."""
        self.map_again(KSMD, p.mm, at, merged)
        return self.event("rmap_remove", KSMD, mm=p.mm, page=struct_page(old))

    def exit(self, p: Process, frames: Iterable[int]) -> None:
        """The process ends; `frames` are those that its mm still maps."""
        self.event("sched_process_exit", p.tid, pid=p.tid)
        self.event("mm_exit", p.tid, mm=p.mm)
        for pfn in frames:
            self.event("rmap_remove", p.tid, mm=p.mm, page=struct_page(pfn))
        self.event("print", p.tid, buf="gone")

    def free(self, tid: int, pfn: int) -> int:
        """A frame goes back to the allocator."""
        return self.event("mm_page_free", tid, pfn=pfn, order=0)

    def vmsplice(self, p: Process, at: int, pfn: int, pages: int = 1) -> int:
        """A FOLL_GET read reference by vmsplice; returns the time at which it is held."""
        self.event("sys_enter_vmsplice", p.tid, fd=4)
        self.event("gup_fast", p.tid, start=at, nr_pages=pages, flags=FOLL_GET)
        for number in range(pages):
            self.event("gup_grab", p.tid, page=struct_page(pfn + number), refs=1, flags=FOLL_GET)
        held = self.event("gup_fast_done", p.tid, ret=pages)
        self.event("sys_exit_vmsplice", p.tid, ret=pages * PAGE)
        return held

    def pipe_release(self, tid: int, pfn: int) -> int:
        """The pipe drops the page."""
        return self.event("pipe_release", tid, page=struct_page(pfn))

    def pin(self, p: Process, at: int, pfn: int, flags: int = FOLL_WRITE | FOLL_LONGTERM) -> int:
        """A FOLL_PIN reference by io_uring_register; returns the time at which it is held."""
        self.pin_begin(p, at, flags)
        return self.pin_end(p, pfn)

    def pin_begin(self, p: Process, at: int, flags: int = FOLL_WRITE | FOLL_LONGTERM) -> None:
        """The pin is asked for; faults come between the two."""
        self.event("sys_enter_io_uring_register", p.tid, fd=5, opcode=0)
        self.event("gup", p.tid, mm=p.mm, start=at, nr_pages=1, flags=flags | FOLL_PIN)

    def pin_end(self, p: Process, pfn: int) -> int:
        """The pin is taken."""
        self.event("gup_grab_page", p.tid, page=struct_page(pfn), flags=FOLL_PIN)
        held = self.event("gup_done", p.tid, ret=1)
        self.event("sys_exit_io_uring_register", p.tid, ret=0)
        return held

    def unpin(self, tid: int, pfn: int, pages: int = 1) -> int:
        """unpin_user_pages."""
        return self.event("unpin_pages", tid, page=struct_page(pfn), nr_pages=pages)

    def mark(self, tid: int, text: str) -> int:
        """A program writes to trace_marker."""
        return self.event("print", tid, buf=f"{text}\n")


class Huge(Machine):
    """A machine with huge pages: one at a time, of frame `HEAD` at `BASE`. `folios`: with the probes of Linux 6.12, else those of 6.1."""

    def __init__(self, folios: bool = False, without: Collection[str] = (), *, batches: bool = False) -> None:
        super().__init__(without, batches=batches)
        self.folios = folios

    def touch_huge(self, p: Process, at: int = BASE, pfn: int = HEAD, order: int | None = 9) -> int:
        """The first store to a huge page's area; `order`: what is allocated, None: nothing says what."""
        self.fault(p, at, WRITE_FAULT)
        self.event("huge_anon_fault", p.tid, mm=p.mm, address=at)
        if order is not None:
            self.allocate(p.tid, pfn, order)
        return self.event("anon_new", p.tid, mm=p.mm, address=at & ~(HUGE_SIZE - 1), page=struct_page(pfn))

    def huge_cow(self, p: Process, at: int, ret: int, flags: int = WRITE_FAULT) -> int:
        """A store to a huge page that is mapped read-only as one: `SPLIT_UP` or `REUSED`."""
        self.fault(p, at, flags)
        begin = self.event("huge_cow_fault", p.tid, mm=p.mm, address=at, vm_flags=VM_ANON, fault_flags=flags, pmd=HEAD << 12 | 0x8E5)
        if ret == SPLIT_UP:
            self.split(p)
        self.event("huge_cow_fault_done", p.tid, ret=ret)
        return begin

    def split(self, p: Process) -> None:
        """The mapping as one becomes one of 512 pages."""
        self.event("huge_split", p.tid, mm=p.mm, address=BASE)
        if self.folios:
            self.event("anon_add", p.tid, mm=p.mm, address=BASE, page=struct_page(HEAD), nr=512, flags=0)
            self.unmap_huge(p)

    def unmap_huge(self, p: Process) -> None:
        """The mapping as one goes."""
        if self.folios:
            self.event("rmap_remove_pmd", p.tid, mm=p.mm, page=struct_page(HEAD))
        else:
            self.event("rmap_remove", p.tid, mm=p.mm, page=struct_page(HEAD), compound=1)

    def exit_huge(self, p: Process) -> None:
        """The process ends, and with it the mapping as one."""
        self.event("sched_process_exit", p.tid, pid=p.tid)
        self.event("mm_exit", p.tid, mm=p.mm)
        self.unmap_huge(p)
        self.event("print", p.tid, buf="gone")
