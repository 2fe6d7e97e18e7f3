"""The one list of events that the tool knows: what records each, what it means, and which of its fields the replay reads.

A recording says by its event formats which probes it has: kernels differ in what is inlined or renamed, so an absent event is looked up
here by name, never by kernel version. `memory_events` reads the raw tables through this list alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Kind(IntEnum):
    """What a raw event is to the replay; several events can be of one kind."""

    IGNORED = 0
    MM_FAULT = 1
    COW_FAULT = 2
    COW_FAULT_DONE = 3
    ANON_NEW = 4
    ANON_ADD = 5
    RMAP_REMOVE = 6
    FORK_RANGE = 7
    FORK_RANGE_DONE = 8
    TABLE_MOVE = 9
    MM_EXIT = 10
    GUP = 11
    GUP_DONE = 12
    GUP_FAST = 13
    GUP_FAST_DONE = 14
    GUP_GRAB = 15
    GUP_PUT = 16
    UNPIN = 17
    PIPE_RELEASE = 18
    SWAP_UNMAP = 19
    MIGRATE_UNMAP = 20
    SWAP_FAULT = 21
    SWAP_FAULT_DONE = 22
    NEW_TASK = 23
    EXEC = 24
    TASK_EXIT = 25
    RENAME = 26
    PAGE_FREE = 27
    MARK = 28
    SYSCALL_EXIT = 29
    ENTER_MMAP = 30
    ENTER_MUNMAP = 31
    ENTER_MREMAP = 32
    ENTER_MPROTECT = 33
    ENTER_MADVISE = 34
    ENTER_BRK = 35
    ENTER_VMSPLICE = 36
    ENTER_BORROWS = 37
    ENTER_TAKES = 38
    HUGE_COW_FAULT = 39
    HUGE_COW_FAULT_DONE = 40
    HUGE_ANON_FAULT = 41
    RMAP_REMOVE_PMD = 42
    HUGE_SPLIT = 43
    ENTER_IOCTL = 44
    SNAPSHOT_TASK = 45
    SNAPSHOT_PAGE = 46
    SNAPSHOT_REFERENCE = 47


@dataclass(frozen=True)
class Probe:
    """One event: `mm` and `other_mm` name fields that hold a `struct mm_struct *`, `args` up to four more fields, in the order the replay
    reads them; one that the event lacks reads as 0. `via` is the interface of references that a system call takes (`schema.VIA`).
    """

    event: str
    kind: Kind
    site: str
    meaning: str
    mm: str = ""
    other_mm: str = ""
    args: tuple[str, ...] = ()
    via: str = "other"


def _call(name: str, kind: Kind, *args: str, via: str = "other") -> tuple[Probe, Probe]:
    """A system call and its return."""
    return (
        Probe(f"sys_enter_{name}", kind, f"syscalls:sys_enter_{name}", f"{name}(2) is called", args=args, via=via),
        Probe(f"sys_exit_{name}", Kind.SYSCALL_EXIT, f"syscalls:sys_exit_{name}", f"{name}(2) returns", args=("ret",)),
    )


def _unpin(event: str, function: str) -> Probe:
    return Probe(event, Kind.UNPIN, function, "FOLL_PIN references are released", args=("page", "nr_pages"))


PROBES: Final[tuple[Probe, ...]] = (
    Probe(
        "mm_fault",
        Kind.MM_FAULT,
        "handle_mm_fault",
        "a page fault is handled, one of GUP too",
        mm="mm",
        args=("address", "fault_flags", "vm_flags", "vm_ops"),
    ),
    Probe(
        "cow_fault",
        Kind.COW_FAULT,
        "do_wp_page",
        "a write to a present read-only page: copy or reuse?",
        mm="mm",
        args=("address", "fault_flags", "vm_flags", "pte"),
    ),
    Probe("cow_fault_done", Kind.COW_FAULT_DONE, "do_wp_page returns", "the COW decision is done", args=("ret",)),
    Probe("cow_copy", Kind.IGNORED, "wp_page_copy", "this fault copies (anon_new tells the new page)", mm="mm", args=("address",)),
    Probe(
        "anon_new",
        Kind.ANON_NEW,
        "page_add_new_anon_rmap, folio_add_new_anon_rmap",
        "a new anonymous page is mapped",
        mm="mm",
        args=("address", "page"),
    ),
    Probe(
        "anon_add",
        Kind.ANON_ADD,
        "do_page_add_anon_rmap, page_add_anon_rmap, folio_add_anon_rmap_ptes",
        "an existing anonymous page is mapped again",
        mm="mm",
        args=("address", "page", "nr", "flags"),
    ),
    Probe(
        "rmap_remove",
        Kind.RMAP_REMOVE,
        "page_remove_rmap, folio_remove_rmap_ptes",
        "a mapping goes",
        mm="mm",
        args=("", "page", "nr", "compound"),
    ),
    Probe(
        "fork_range",
        Kind.FORK_RANGE,
        "copy_page_range",
        "fork copies the page table of an area",
        mm="mm",
        other_mm="src_mm",
        args=("start", "end", "vm_flags", "anon_vma"),
    ),
    Probe("fork_range_done", Kind.FORK_RANGE_DONE, "copy_page_range returns", "the area is copied", args=("ret",)),
    Probe("table_move", Kind.TABLE_MOVE, "move_page_tables", "mremap or exec moves pages", mm="mm", args=("old", "new", "len")),
    Probe("mm_exit", Kind.MM_EXIT, "exit_mmap", "an address space is torn down", mm="mm"),
    Probe("gup", Kind.GUP, "__get_user_pages", "GUP by the slow path", mm="mm", args=("start", "nr_pages", "flags")),
    Probe("gup_done", Kind.GUP_DONE, "__get_user_pages returns", "pages taken, or -errno", args=("ret",)),
    Probe(
        "gup_fast",
        Kind.GUP_FAST,
        "internal_get_user_pages_fast, gup_fast_fallback",
        "GUP of the current process; may fall back to the slow path",
        args=("start", "nr_pages", "flags"),
    ),
    Probe("gup_fast_done", Kind.GUP_FAST_DONE, "the same returns", "pages taken, or -errno", args=("ret",)),
    Probe(
        "gup_grab",
        Kind.GUP_GRAB,
        "try_grab_compound_head, try_grab_folio",
        "GUP takes references",
        args=("page", "refs", "flags"),
    ),
    Probe("gup_grab_page", Kind.GUP_GRAB, "try_grab_page", "GUP takes a reference", args=("page", "", "flags")),
    Probe("gup_put", Kind.GUP_PUT, "put_compound_head, gup_put_folio", "GUP gives references back", args=("page", "refs", "flags")),
    _unpin("unpin_page", "unpin_user_page"),
    _unpin("unpin_pages", "unpin_user_pages"),
    _unpin("unpin_pages_dirty", "unpin_user_pages_dirty_lock"),
    _unpin("unpin_range", "unpin_user_page_range_dirty_lock"),
    _unpin("unpin_folio", "unpin_user_folio"),
    Probe("pipe_release", Kind.PIPE_RELEASE, "page_cache_pipe_buf_release", "a pipe drops a page that vmsplice gave it", args=("page",)),
    Probe("swap_unmap", Kind.SWAP_UNMAP, "try_to_unmap_one", "a page is unmapped for reclaim", mm="mm", args=("address", "page")),
    Probe("migrate_unmap", Kind.MIGRATE_UNMAP, "try_to_migrate_one", "a page is unmapped for migration", mm="mm", args=("address", "page")),
    Probe("swap_fault", Kind.SWAP_FAULT, "do_swap_page", "a swapped page is touched", mm="mm", args=("address", "fault_flags", "", "pte")),
    Probe("swap_fault_done", Kind.SWAP_FAULT_DONE, "do_swap_page returns", "the swap fault is done", args=("ret",)),
    Probe("task_newtask", Kind.NEW_TASK, "task:task_newtask", "a thread or process is made", args=("pid", "clone_flags")),
    Probe("task_rename", Kind.RENAME, "task:task_rename", "a thread gets another name", args=("pid",)),
    Probe("sched_process_exec", Kind.EXEC, "sched:sched_process_exec", "a process runs a new program", args=("pid", "old_pid")),
    Probe("sched_process_exit", Kind.TASK_EXIT, "sched:sched_process_exit", "a thread ends", args=("pid",)),
    Probe("sched_process_fork", Kind.IGNORED, "sched:sched_process_fork", "fork (task_newtask says more)"),
    Probe("mm_page_free", Kind.PAGE_FREE, "kmem:mm_page_free", "page frames are freed", args=("pfn", "order")),
    Probe("mm_page_free_batched", Kind.PAGE_FREE, "kmem:mm_page_free_batched", "a page frame is freed", args=("pfn",)),
    Probe("mm_page_alloc", Kind.IGNORED, "kmem:mm_page_alloc", "page frames are allocated"),
    Probe("page_fault_user", Kind.IGNORED, "exceptions:page_fault_user", "an instruction of a program faults"),
    Probe("page_fault_kernel", Kind.IGNORED, "exceptions:page_fault_kernel", "an instruction of the kernel faults"),
    Probe(
        "huge_cow_fault",
        Kind.HUGE_COW_FAULT,
        "do_huge_pmd_wp_page",
        "a write to a read-only huge page: reuse all of it, or split its mapping?",
        mm="mm",
        args=("address", "fault_flags", "vm_flags", "pmd"),
    ),
    Probe("huge_cow_fault_done", Kind.HUGE_COW_FAULT_DONE, "do_huge_pmd_wp_page returns", "the decision is done", args=("ret",)),
    Probe("huge_anon_fault", Kind.HUGE_ANON_FAULT, "do_huge_pmd_anonymous_page", "a fault where a huge page could be", args=("address",)),
    Probe("huge_split", Kind.HUGE_SPLIT, "__split_huge_pmd", "the mapping of a huge page is split", mm="mm", args=("address",)),
    Probe("rmap_remove_pmd", Kind.RMAP_REMOVE_PMD, "folio_remove_rmap_pmd", "a mapping of a huge page goes", mm="mm", args=("", "page")),
    Probe("print", Kind.MARK, "ftrace:print", "a program wrote to trace_marker"),
    *_call("mmap", Kind.ENTER_MMAP, "addr", "len", "prot", "flags"),
    *_call("munmap", Kind.ENTER_MUNMAP, "addr", "len"),
    *_call("mremap", Kind.ENTER_MREMAP, "addr", "old_len", "new_len", "new_addr"),
    *_call("mprotect", Kind.ENTER_MPROTECT, "start", "len", "prot"),
    *_call("madvise", Kind.ENTER_MADVISE, "start", "len_in", "behavior"),
    *_call("brk", Kind.ENTER_BRK, "brk"),
    *_call("vmsplice", Kind.ENTER_VMSPLICE, "fd", via="vmsplice"),
    # Synchronous calls drop what they took before they return. Of plain reads and writes only those with O_DIRECT take references.
    *(probe for name in ("process_vm_readv", "process_vm_writev")
      for probe in _call(name, Kind.ENTER_BORROWS, via="process_vm")),
    *(probe for name in ("read", "pread64", "readv", "preadv", "preadv2", "write", "pwrite64", "writev", "pwritev", "pwritev2")
      for probe in _call(name, Kind.ENTER_BORROWS, "fd", via="direct-io")),
    *_call("ptrace", Kind.ENTER_BORROWS, "pid", via="ptrace"),
    *_call("futex", Kind.ENTER_BORROWS),
    *_call("io_uring_register", Kind.ENTER_TAKES, "fd", "opcode", via="io_uring"),
    *_call("io_uring_enter", Kind.ENTER_TAKES, "fd", via="io_uring"),
    *_call("io_submit", Kind.ENTER_TAKES, "ctx_id", via="direct-io"),
    *(probe for name in ("sendto", "sendmsg", "sendmmsg") for probe in _call(name, Kind.ENTER_TAKES, "fd", via="zerocopy")),
    *_call("setsockopt", Kind.ENTER_TAKES, "fd", "optname", via="af_xdp"),
    *_call("ioctl", Kind.ENTER_IOCTL, "fd", "cmd"),
    # What was there when the recording began, or where a trace was cut: written by the recorder or by who cuts, not by the kernel.
    Probe("snapshot_task", Kind.SNAPSHOT_TASK, "-", "a thread that was there before", mm="mm", args=("pid", "tgid", "whole")),
    Probe("snapshot_page", Kind.SNAPSHOT_PAGE, "-", "a page that was mapped before", mm="mm", args=("address", "pfn", "state", "order")),
    Probe("snapshot_reference", Kind.SNAPSHOT_REFERENCE, "-", "held by this thread since before", mm="mm",
          args=("address", "pages", "flags")),
    *(
        Probe(f"ksm_{name}", Kind.IGNORED, f"ksm:ksm_{name}", "KSM at work")
        for name in ("start_scan", "stop_scan", "enter", "exit", "merge_one_page", "merge_with_ksm_page", "remove_ksm_page",
                     "remove_rmap_item", "advisor")
    ),
)  # fmt: skip

BY_EVENT: Final = {probe.event: probe for probe in PROBES}
