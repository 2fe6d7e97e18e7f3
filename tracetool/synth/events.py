"""The events of recording profile 1 as Linux 6.1 has them: ids, fields and their places in a record, format texts.

Names, types, offsets and ids are those of recordings of kernel 6.1.0-53-amd64 (tracefs `events/*/*/format`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tracetool_parsers.writing import Field, format_text

Ints = npt.NDArray[Any]

# Kinds of events: indexes into EVENTS.
(MM_FAULT, COW_FAULT, COW_FAULT_DONE, COW_COPY, ANON_NEW, RMAP_REMOVE, FORK_RANGE, FORK_RANGE_DONE, TABLE_MOVE, MM_EXIT, GUP, GUP_DONE,
 GUP_FAST, GUP_FAST_DONE, GUP_GRAB, GUP_GRAB_PAGE, GUP_PUT, UNPIN_PAGE, UNPIN_PAGES_DIRTY, PIPE_RELEASE, PAGE_FAULT_USER, PAGE_ALLOC,
 PAGE_FREE, PAGE_FREE_BATCHED, NEW_TASK, RENAME, PROCESS_FORK, PROCESS_EXEC, PROCESS_EXIT, ENTER_MMAP, EXIT_MMAP, ENTER_MADVISE,
 EXIT_MADVISE, ENTER_MPROTECT, EXIT_MPROTECT, ENTER_VMSPLICE, EXIT_VMSPLICE, ENTER_READV, EXIT_READV, ENTER_WRITEV, EXIT_WRITEV,
 ENTER_IO_URING, EXIT_IO_URING, PRINT) = range(44)  # fmt: skip

#: What lies in a record: a number of so many bytes, text in a fixed space, text at the end that a word tells of, text to the end.
NUMBER, TEXT, FAR_TEXT, TAIL = range(4)
#: Layout columns: offset, bytes, how (above), argument of the row (-1: always `value`), value.
L_OFFSET, L_SIZE, L_HOW, L_ARGUMENT, L_VALUE = range(5)

_SIZES: Final = {
    "u8": 1, "short": 2, "int": 4, "unsigned int": 4, "pid_t": 4, "u32": 4, "s32": 4, "u64": 8, "s64": 8, "long": 8, "unsigned long": 8,
    "size_t": 8, "struct iovec *": 8, "void *": 8,
}  # fmt: skip
_SIGNED: Final = ("short", "int", "pid_t", "s32", "s64", "long", "char")
#: Where the probed functions of the imagined kernel lie, and the code that writes marks.
PROBED_AT: Final = 0xFFFFFFFF81200000
MARKS_AT: Final = 0xFFFFFFFF811C0000


@dataclass(frozen=True)
class Event:
    """One event: `fields` are "type name" (with "=VALUE" after it where the value is always the same), `site` the function probed."""

    system: str
    name: str
    number: int
    fields: tuple[str, ...]
    site: str = ""
    print_format: str = ""


def _p(number: int, name: str, site: str, *fields: str) -> Event:
    """A kprobe."""
    return Event("tracetool", name, number, (f"unsigned long __probe_ip={_site(number)}", *fields), site)


def _r(number: int, name: str, site: str, field: str) -> Event:
    """A kretprobe."""
    at = _site(number)
    return Event("tracetool", name, number, (f"unsigned long __probe_func={at}", f"unsigned long __probe_ret_ip={at + 0x80}", field), site)


def _site(number: int) -> int:
    return PROBED_AT + 0x1000 * (number - 1359)


def _enter(number: int, name: str, nr: int, *fields: str) -> Event:
    return Event("syscalls", f"sys_enter_{name}", number, (f"int __syscall_nr={nr}", *fields))


def _exit(number: int, name: str, nr: int) -> Event:
    return Event("syscalls", f"sys_exit_{name}", number, (f"int __syscall_nr={nr}", "long ret"), print_format='"0x%lx", REC->ret')


_VM: Final = ("pid_t pid", "struct iovec * lvec=140722308000000", "unsigned long liovcnt=1", "struct iovec * rvec=140722308000032",
              "unsigned long riovcnt=1", "unsigned long flags=0")  # fmt: skip

#: The events that the imagined kernel fires, by kind.
EVENTS: Final[dict[int, Event]] = {
    MM_FAULT: _p(1359, "mm_fault", "handle_mm_fault", "u64 mm", "u64 address", "u32 fault_flags", "u64 vm_flags", "u64 vm_ops"),
    COW_FAULT: _p(1360, "cow_fault", "do_wp_page", "u64 mm", "u64 address", "u64 vm_flags", "u32 fault_flags", "u64 pte"),
    COW_FAULT_DONE: _r(1361, "cow_fault_done", "do_wp_page", "u32 ret"),
    COW_COPY: _p(1362, "cow_copy", "wp_page_copy", "u64 mm", "u64 address"),
    ANON_NEW: _p(1366, "anon_new", "page_add_new_anon_rmap", "u64 page", "u64 mm", "u64 address"),
    RMAP_REMOVE: _p(1367, "rmap_remove", "page_remove_rmap", "u64 page", "u64 mm", "u8 compound"),
    FORK_RANGE: _p(
        1376, "fork_range", "copy_page_range", "u64 mm", "u64 src_mm", "u64 start", "u64 end", "u64 vm_flags", "u64 anon_vma", "u64 vmemmap"
    ),
    FORK_RANGE_DONE: _r(1377, "fork_range_done", "copy_page_range", "s32 ret"),
    TABLE_MOVE: _p(1378, "table_move", "move_page_tables", "u64 mm", "u64 old", "u64 new", "u64 len"),
    MM_EXIT: _p(1379, "mm_exit", "exit_mmap", "u64 mm"),
    GUP: _p(1380, "gup", "__get_user_pages", "u64 mm", "u64 start", "u64 nr_pages", "u32 flags"),
    GUP_DONE: _r(1381, "gup_done", "__get_user_pages", "s64 ret"),
    GUP_FAST: _p(1382, "gup_fast", "internal_get_user_pages_fast", "u64 start", "u64 nr_pages", "u32 flags"),
    GUP_FAST_DONE: _r(1383, "gup_fast_done", "internal_get_user_pages_fast", "s32 ret"),
    GUP_GRAB: _p(1369, "gup_grab", "try_grab_folio", "u64 page", "s32 refs", "u32 flags"),
    GUP_GRAB_PAGE: _p(1370, "gup_grab_page", "try_grab_page", "u64 page", "u32 flags"),
    GUP_PUT: _p(1368, "gup_put", "gup_put_folio", "u64 page", "s32 refs", "u32 flags"),
    UNPIN_PAGE: _p(1386, "unpin_page", "unpin_user_page", "u64 page"),
    UNPIN_PAGES_DIRTY: _p(1388, "unpin_pages_dirty", "unpin_user_pages_dirty_lock", "u64 nr_pages", "u64 page"),
    PIPE_RELEASE: _p(1390, "pipe_release", "page_cache_pipe_buf_release", "u64 page"),
    PAGE_FAULT_USER: Event(
        "exceptions", "page_fault_user", 118, ("unsigned long address", "unsigned long ip", "unsigned long error_code"),
        print_format='"address=0x%lx ip=0x%lx error_code=0x%lx", REC->address, REC->ip, REC->error_code',
    ),
    PAGE_ALLOC: Event(
        "kmem", "mm_page_alloc", 547, ("unsigned long pfn", "unsigned int order=0", "unsigned long gfp_flags", "int migratetype"),
        print_format='"pfn=0x%lx order=%d migratetype=%d gfp_flags=0x%lx", REC->pfn, REC->order, REC->migratetype, REC->gfp_flags',
    ),
    PAGE_FREE: Event(
        "kmem", "mm_page_free", 549, ("unsigned long pfn", "unsigned int order=0"),
        print_format='"pfn=0x%lx order=%d", REC->pfn, REC->order',
    ),
    PAGE_FREE_BATCHED: Event(
        "kmem", "mm_page_free_batched", 548, ("unsigned long pfn",), print_format='"pfn=0x%lx order=0", REC->pfn'
    ),
    NEW_TASK: Event(
        "task", "task_newtask", 132, ("pid_t pid", "char comm[16]", "unsigned long clone_flags", "short oom_score_adj=0"),
        print_format='"pid=%d comm=%s clone_flags=%lx oom_score_adj=%hd", REC->pid, REC->comm, REC->clone_flags, REC->oom_score_adj',
    ),
    RENAME: Event(
        "task", "task_rename", 131, ("pid_t pid", "char oldcomm[16]", "char newcomm[16]", "short oom_score_adj=0"),
        print_format='"pid=%d oldcomm=%s newcomm=%s oom_score_adj=%hd", REC->pid, REC->oldcomm, REC->newcomm, REC->oom_score_adj',
    ),
    PROCESS_FORK: Event(
        "sched", "sched_process_fork", 313, ("char parent_comm[16]", "pid_t parent_pid", "char child_comm[16]", "pid_t child_pid"),
        print_format='"comm=%s pid=%d child_comm=%s child_pid=%d", REC->parent_comm, REC->parent_pid, REC->child_comm, REC->child_pid',
    ),
    PROCESS_EXEC: Event(
        "sched", "sched_process_exec", 312, ("__data_loc char[] filename", "pid_t pid", "pid_t old_pid"),
        print_format='"filename=%s pid=%d old_pid=%d", __get_str(filename), REC->pid, REC->old_pid',
    ),
    PROCESS_EXIT: Event(
        "sched", "sched_process_exit", 316, ("char comm[16]", "pid_t pid", "int prio=120"),
        print_format='"comm=%s pid=%d prio=%d", REC->comm, REC->pid, REC->prio',
    ),
    ENTER_MMAP: _enter(
        101, "mmap", 9, "unsigned long addr", "unsigned long len", "unsigned long prot", "unsigned long flags", "unsigned long fd=-1",
        "unsigned long off=0",
    ),
    EXIT_MMAP: _exit(100, "mmap", 9),
    ENTER_MADVISE: _enter(617, "madvise", 28, "unsigned long start", "size_t len_in", "int behavior"),
    EXIT_MADVISE: _exit(616, "madvise", 28),
    ENTER_MPROTECT: _enter(600, "mprotect", 10, "unsigned long start", "size_t len", "unsigned long prot"),
    EXIT_MPROTECT: _exit(599, "mprotect", 10),
    ENTER_VMSPLICE: _enter(
        869, "vmsplice", 278, "int fd", "struct iovec * uiov=140722308000000", "unsigned long nr_segs=1", "unsigned int flags=0"
    ),
    EXIT_VMSPLICE: _exit(868, "vmsplice", 278),
    ENTER_READV: _enter(613, "process_vm_readv", 310, *_VM),
    EXIT_READV: _exit(612, "process_vm_readv", 310),
    ENTER_WRITEV: _enter(611, "process_vm_writev", 311, *_VM),
    EXIT_WRITEV: _exit(610, "process_vm_writev", 311),
    ENTER_IO_URING: _enter(
        1084, "io_uring_register", 427, "unsigned int fd=5", "unsigned int opcode", "void * arg", "unsigned int nr_args"
    ),
    EXIT_IO_URING: _exit(1083, "io_uring_register", 427),
    PRINT: Event("ftrace", "print", 5, (f"unsigned long ip={MARKS_AT}", "char buf[]"), print_format='"%ps: %s", (void *)REC->ip, REC->buf'),
}  # fmt: skip

#: Events that a recording of profile 1 has the formats of, and that this kernel has no cause to fire: no huge pages, swap, migration.
SILENT: Final = (
    _p(1364, "huge_cow_fault", "do_huge_pmd_wp_page", "u64 mm", "u64 address", "u64 vm_flags", "u32 fault_flags", "u64 pmd"),
    _r(1371, "huge_cow_fault_done", "do_huge_pmd_wp_page", "u32 ret"),
    _p(1365, "anon_add", "page_add_anon_rmap", "u64 page", "u64 mm", "u64 address", "u32 flags"),
    _p(1372, "huge_anon_fault", "do_huge_pmd_anonymous_page", "u64 mm", "u64 address"),
    _p(1373, "huge_split", "__split_huge_pmd", "u64 mm", "u64 address"),
    _p(1374, "swap_fault", "do_swap_page", "u64 mm", "u64 address", "u32 fault_flags", "u64 pte"),
    _r(1375, "swap_fault_done", "do_swap_page", "u32 ret"),
    _p(1384, "swap_unmap", "try_to_unmap_one", "u64 page", "u64 mm", "u64 address"),
    _p(1385, "migrate_unmap", "try_to_migrate_one", "u64 page", "u64 mm", "u64 address"),
    _p(1387, "unpin_pages", "unpin_user_pages", "u64 nr_pages", "u64 page"),
    _p(1389, "unpin_range", "unpin_user_page_range_dirty_lock", "u64 page", "u64 nr_pages"),
    _enter(586, "munmap", 11, "unsigned long addr", "size_t len"),
    _exit(585, "munmap", 11),
    _enter(588, "brk", 12, "unsigned long brk"),
    _exit(587, "brk", 12),
    _enter(
        602, "mremap", 25, "unsigned long addr", "unsigned long old_len", "unsigned long new_len", "unsigned long flags",
        "unsigned long new_addr",
    ),
    _exit(601, "mremap", 25),
)  # fmt: skip


class Layouts(NamedTuple):
    """How a row of each kind becomes a record: `number` (event id), `size` (bytes without text at the end), `first` (kind: its slice of
    `fields`, whose columns are L_*), all int64.
    """

    number: Ints
    size: Ints
    first: Ints
    fields: Ints


@dataclass(frozen=True)
class _Placed:
    """A field in its record."""

    type: str
    name: str
    value: int | None
    offset: int
    size: int
    signed: bool

    @property
    def how(self) -> int:
        if self.name.endswith("[]"):
            return TAIL
        return FAR_TEXT if self.type.startswith("__data_loc") else TEXT if self.name.endswith("]") else NUMBER

    def described(self) -> Field:
        return f"{self.type} {self.name}", self.offset, self.size, int(self.signed)


def placed(event: Event) -> list[_Placed]:
    """The fields in their places: probes pack them, system calls give each 8 bytes, tracepoints align each as C does."""
    at, fields = 8, []
    for text in event.fields:
        declared, _, value = text.partition("=")
        kind, _, name = declared.rpartition(" ")
        size = 0 if name.endswith("[]") else 16 if name.endswith("]") else 4 if kind.startswith("__data_loc") else _SIZES[kind]
        align = 4 if kind.startswith("__data_loc") else 1 if kind == "char" else size
        if event.system == "syscalls":
            size, align = (4, 4) if name == "__syscall_nr" else (8, 8)
        if event.system != "tracetool":
            at += -at % align
        # What a system call is given is shown as unsigned whatever its type (kernel/trace/trace_syscalls.c).
        signed = (kind in _SIGNED or "char" in kind) and (event.system != "syscalls" or name in ("__syscall_nr", "ret"))
        fields.append(_Placed(kind, name, int(value) if value else None, at, size, signed))
        at += size
    return fields


def _print_format(event: Event, fields: list[_Placed]) -> str:
    """As the kernel makes it for probes and system calls."""
    if event.print_format:
        return event.print_format
    if event.system == "syscalls":
        shown = [field for field in fields if field.name != "__syscall_nr"]
        texts = ", ".join(f"{field.name}: 0x%08lx" for field in shown)
        return f'"{texts}"' + "".join(f", ((unsigned long)(REC->{field.name}))" for field in shown)
    forms = {"u8": "%u", "u32": "0x%x", "s32": "%d", "u64": "0x%Lx", "s64": "%Ld"}
    own = [field for field in fields if not field.name.startswith("__probe")]
    probe = [field for field in fields if field.name.startswith("__probe")]
    texts = " ".join(
        [
            "(" + " <- ".join("%lx" for _ in probe) + ")",
            *(f"{field.name}={'%Lu' if field.name == 'nr_pages' else forms[field.type]}" for field in own),
        ]
    )
    return f'"{texts}"' + "".join(f", REC->{field.name}" for field in (*probe, *own))


def format_of(event: Event) -> str:
    """Its format as tracefs shows it."""
    fields = placed(event)
    return format_text(event.name, event.number, [field.described() for field in fields], _print_format(event, fields))


def formats() -> dict[str, list[str]]:
    """System -> the formats of its events."""
    systems: dict[str, list[str]] = {}
    for event in sorted((*EVENTS.values(), *SILENT), key=lambda event: event.number):
        systems.setdefault(event.system, []).append(format_of(event))
    return systems


def kallsyms() -> str:
    """The symbols that the records name, as /proc/kallsyms has them."""
    sites = {_site(event.number): event.site for event in (*EVENTS.values(), *SILENT) if event.site}
    return "".join(f"{at:016x} T {name}\n" for at, name in sorted({MARKS_AT: "tracing_mark_write", **sites}.items()))


def layouts() -> Layouts:
    """All kinds as arrays."""
    first, rows, sizes = [0], [], []
    for kind in range(len(EVENTS)):
        fields, argument = placed(EVENTS[kind]), 0
        for field in fields:
            fixed = field.value is not None
            # Values above the range of int64 are kept bit for bit.
            value = ((field.value or 0) + (1 << 63)) % (1 << 64) - (1 << 63)
            rows.append((field.offset, field.size, field.how, -1 if fixed else argument, value))
            argument += not fixed
        first.append(len(rows))
        end = fields[-1].offset + fields[-1].size
        align = 4 if EVENTS[kind].system == "tracetool" else 8 if any(field.size == 8 for field in fields) else 4
        sizes.append(end + -end % align)
    numbers = [EVENTS[kind].number for kind in range(len(EVENTS))]
    return Layouts(*(np.array(column, np.int64) for column in (numbers, sizes, first, rows)))
