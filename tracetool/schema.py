"""Every table of tracetool: its columns with Arrow type, unit and meaning. Documentation, `tracetool schema` and checks are made from this.

Types are polars types; every table is a LazyFrame in Python and converts to Arrow without a copy. Times are integer nanoseconds of the
clock that the trace was recorded with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy.typing as npt
    import polars as pl

SCHEMA_VERSION: Final = 1

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT


@dataclass(frozen=True)
class Column:
    """One column: the name of its polars type (`Int64`, `String`, ...), what it means, and its unit where it has one."""

    type: str
    meaning: str
    unit: str = ""
    values: tuple[str, ...] = ()


Table = Mapping[str, Column]

_TS = Column("Int64", "time stamp on the trace's clock", "ns")
_MM = Column("Int32", "the address space: a number counted from 0 in order of appearance; -1: not known")
_PID = Column("Int32", "the process as a user means it (the kernel's tgid)")
_TID = Column("Int32", "the thread (the kernel's pid)")
_COMM = Column("String", "the name of the process at that time")
_ADDRESS = Column("UInt64", "virtual address, page-aligned", "bytes")
_PAGE = Column("Int32", "one life of a page frame, from allocation to free; numbered in order of appearance")
_PFN = Column("Int64", "page frame number; null: a frame that only a policy makes, or not known", "pages")
_FROM = Column("Int64", "when it began, on the trace's clock; null: before the trace", "ns")
_TO = Column("Int64", "when it ended; null: it still was so at the end of the trace", "ns")

OPS: Final = (
    "snapshot",
    "fork",
    "fork_range",
    "exec",
    "exit",
    "map_new",
    "map_again",
    "unmap",
    "fault",
    "cow_begin",
    "cow_end",
    "gup",
    "ref_get",
    "ref_put",
    "free",
    "swap_out",
    "swap_in",
    "ksm_merge",
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "mark",
)

MEMORY_EVENTS: Final[Table] = {
    "ts": _TS,
    "cpu": Column("Int32", "the CPU that recorded it"),
    "tid": _TID,
    "op": Column("Enum", "what happened", values=OPS),
    "mm": _MM,
    "address": _ADDRESS,
    "pages": Column("Int64", "how many pages from `address` or `pfn` on", "pages"),
    "pfn": Column("Int64", "page frame number, 0: none named", "pages"),
    "flags": Column("Int64", "bits by `op`, see tracetool.memory_events"),
    "arg": Column("Int64", "by `op`: the other address space, the new address, a reference's number, a return value"),
    "source": Column("Categorical", "the raw event that says so"),
    "source_row": Column("Int64", "its row in that event's table"),
}

PROCESSES: Final[Table] = {
    "tid": _TID,
    "pid": _PID,
    "comm": _COMM,
    "mm": _MM,
    "parent": Column("Int32", "the tid of the thread that made it; null: older than the trace"),
    "how": Column("String", "how this stretch began", values=("before-trace", "fork", "thread", "exec", "rename", "mm")),
    "from_ns": _FROM,
    "to_ns": _TO,
}

BEGAN: Final = (
    "before-trace", "touch", "copy", "fork", "early-copy", "zero-fill", "unshare", "swap-in", "again", "move", "zero-page", "migration",
)  # fmt: skip
ENDED: Final = ("open", "unmapped", "copied", "exit", "moved", "swapped-out", "replaced", "merged", "migrated")

OWNERSHIP: Final[Table] = {
    "page_id": _PAGE,
    "pfn": _PFN,
    "mm": _MM,
    "pid": _PID,
    "comm": _COMM,
    "address": _ADDRESS,
    "from_ns": _FROM,
    "to_ns": _TO,
    "began": Column("Enum", "how the stay began", values=BEGAN),
    "ended": Column("Enum", "how it ended", values=ENDED),
    "order": Column("Int32", "log2 of the pages of the mapping that it belongs to (0: one page)"),
}

VIA: Final = (
    "other", "vmsplice", "process_vm", "io_uring", "direct-io", "zerocopy", "af_xdp", "rdma", "vfio", "kvm", "ptrace", "exec",
)  # fmt: skip
RELEASED: Final = ("exact", "at-latest", "unknown")

REFERENCES: Final[Table] = {
    "reference": Column("Int32", "number of the reference, in order of appearance"),
    "page_id": _PAGE,
    "pfn": _PFN,
    "mm": _MM,
    "pid": Column("Int32", "the process whose memory it is"),
    "by_pid": Column("Int32", "the process that took it"),
    "comm": Column("String", "the name of the process that took it"),
    "address": _ADDRESS,
    "kind": Column("Enum", "FOLL_GET or FOLL_PIN", values=("get", "pin")),
    "access": Column("Enum", "what its holder does with the page", values=("read", "write")),
    "longterm": Column("Boolean", "FOLL_LONGTERM: may be held for ever"),
    "via": Column("Enum", "the interface that took it", values=VIA),
    "holder": Column("String", "what holds it (fd, ring, buffer), where traced"),
    "from_ns": _FROM,
    "to_ns": _TO,
    "released": Column("Enum", "how well the end is known", values=RELEASED),
}

DECISIONS: Final = ("copy", "reuse", "zero-fill", "early-copy", "unshare", "split", "in-place", "undetermined", "none", "unseen")
#: Those that copy a page.
COPIES: Final = ("copy", "early-copy", "unshare")
REASONS: Final = (
    "unknown", "another-mapping", "reference", "swap-cache", "lru-batch", "ksm", "exclusive", "sole-owner", "lock",
    "not-anonymous", "zero-page", "pinned-at-fork", "writable", "large-page", "unmapping",
)  # fmt: skip

FAULTS: Final[Table] = {
    "ts": _TS,
    "mm": _MM,
    "tid": _TID,
    "pid": _PID,
    "comm": _COMM,
    "address": _ADDRESS,
    "page_before": Column("Int32", "page_id before the decision; null: not known or no anonymous page"),
    "page_after": Column("Int32", "page_id after it"),
    "pfn_before": _PFN,
    "pfn_after": _PFN,
    "decision": Column(
        "Enum",
        "what was decided; in-place: a store that needed no decision; unseen: of stores from here on, which the trace cannot show",
        values=DECISIONS,
    ),
    "reason": Column("Enum", "what decided it", values=REASONS),
    "mapcount": Column("Int32", "mappings of the page before the decision, this one included"),
    "references": Column("Int32", "GUP references to the page at that moment"),
    "duration_ns": Column("Int64", "from the fault's begin to its end; null: not recorded", "ns"),
    "in_kernel": Column("Boolean", "taken by kernel code (GUP, copy_to_user), not by an instruction of the program"),
    "event": Column("Int64", "row of the memory event it rests on"),
    "pages": Column("Int64", "how many pages it is about: more than one only where all of a huge page is copied", "pages"),
}

RULES: Final = ("missed-cow", "wrong-cow", "cross-write", "fork-after-pin", "unnecessary-copy")
#: Kinds of memory; unknown: made before the trace, or by calls that were not recorded, and no page fault there says what it is.
AREAS: Final = ("heap", "stack", "file", "anonymous", "unknown")

FINDINGS: Final[Table] = {
    "id": Column("String", "name of the finding, stable for a trace"),
    "rule": Column("String", "the rule", values=RULES),
    "policy": Column("String", "the policy, or `observed`"),
    "certainty": Column("String", "what the trace proves, or what needs an access that it cannot show", values=("certain", "possible")),
    "severity": Column("String", "a defect, or something the kernel never promised", values=("defect", "info")),
    "pid": Column("Int32", "the process that holds the reference"),
    "comm": _COMM,
    "mm": _MM,
    "address": _ADDRESS,
    "pfn": _PFN,
    "page_id": _PAGE,
    "from_ns": Column("Int64", "the act that makes it unsafe", "ns"),
    "to_ns": Column("Int64", "the end of the danger: the reference is released; null: not known", "ns"),
    "by_pid": Column("Int32", "the process whose act it was"),
    "via": Column("String", "the interface that took the reference", values=VIA),
    "area": Column("String", "the kind of memory, as far as the trace tells", values=AREAS),
    "call_site": Column("String", "the last three hexadecimal digits of the instruction that stored, `kernel`, or `unknown`"),
    "fingerprint": Column("String", "the same in every run of a program (tracetool.fingerprints); two findings of a run can share one"),
    "summary": Column("String", "one sentence"),
    "evidence": Column("List(Int64)", "rows of the memory events that prove it"),
}

COMPARISON: Final[Table] = {
    "ts": _TS,
    "event": Column("Int64", "row of the memory event that the decision rests on"),
    "access": Column(
        "Enum", "what met the page: a store, a fork, a GUP request, memory made writable again", values=("store", "fork", "gup", "protect")
    ),
    "tid": _TID,
    "pid": _PID,
    "comm": _COMM,
    "mm": _MM,
    "address": _ADDRESS,
    "policy_a": Column("String", "the first policy, or `observed`"),
    "decision_a": Column("Enum", "what it decides; null: it has nothing to decide there, and copies nothing", values=DECISIONS),
    "reason_a": Column("Enum", "what decided it", values=REASONS),
    "page_a": Column("Int32", "page_id before the decision; null: not known, or nothing decided"),
    "pfn_a": _PFN,
    "mapcount_a": Column("Int32", "mappings of the page before the decision"),
    "references_a": Column("Int32", "GUP references to the page at that moment"),
    "policy_b": Column("String", "the second policy, or `observed`"),
    "decision_b": Column("Enum", "what it decides; null as above", values=DECISIONS),
    "reason_b": Column("Enum", "what decided it", values=REASONS),
    "page_b": Column("Int32", "as page_a"),
    "pfn_b": _PFN,
    "mapcount_b": Column("Int32", "as mapcount_a"),
    "references_b": Column("Int32", "as references_a"),
    "certainty": Column("String", "possible: either side rests on accesses that the trace cannot show", values=("certain", "possible")),
    "family": Column("Int32", "the page that the page's family began with: copies followed back to their source"),
    "findings_a": Column("List(String)", "findings of a in that family from then on that b has not"),
    "findings_b": Column("List(String)", "findings of b in that family from then on that a has not"),
    "copies_later": Column("Int64", "copies in that family after it: those of b less those of a", "pages"),
    "differences_later": Column("Int64", "decisions in that family after it that differ, too"),
}

LEVELS: Final = ("total", "program", "area", "call_site", "finding")
QUANTITIES: Final = (
    "copies", "reuses", "early_copies", "unshares", "zero_fills", "splits", "undetermined", "decisions", "copied_pages", "copied_bytes",
    "copied_ns", "findings",
)  # fmt: skip

BEFORE_AFTER: Final[Table] = {
    "level": Column(
        "Enum", "what the row sums up: all, a program, one kind of its memory, one call site of that; or a finding", values=LEVELS
    ),
    "program": Column("String", "the name of the process, numbers in it as 0; null: all programs"),
    "area": Column("String", "the kind of memory; null: all kinds", values=AREAS),
    "call_site": Column("String", "the last three hexadecimal digits of the instruction, `kernel`, or `unknown`; null: all"),
    "quantity": Column("Enum", "what is counted: decisions by kind (in pages), their cost, or findings", values=QUANTITIES),
    "because": Column("String", "what decided it; null: whatever did"),
    "rule": Column("String", "of a finding", values=RULES),
    "certainty": Column("String", "of a finding", values=("certain", "possible")),
    "severity": Column("String", "of a finding", values=("defect", "info")),
    "via": Column("String", "of a finding: the interface that took the reference", values=VIA),
    "fingerprint": Column("String", "of a finding; null: traces of which not all tell areas or call sites have none in common"),
    "policy": Column("String", "the policy that either side was replayed under, or `observed`"),
    "per": Column("String", "what counts are for", values=("trace", "second", "fork")),
    "before": Column("Float64", "the mean of the traces before"),
    "after": Column("Float64", "the mean of those after"),
    "difference": Column("Float64", "after less before"),
    "low": Column("Float64", "its 95 % bootstrap interval; null: a side has one trace, whose spread is not known"),
    "high": Column("Float64", "as low"),
    "shown": Column("Boolean", "the interval leaves out 0; null: there is none"),
    "only": Column("String", "the one side that has it at all; null: both, or neither", values=("before", "after")),
    "before_in": Column("Int64", "in how many traces before it is not 0"),
    "after_in": Column("Int64", "in how many after"),
    "before_traces": Column("Int64", "how many traces there are before"),
    "after_traces": Column("Int64", "and after"),
    "time": Column("String", "of copied_ns: where the price of a copy is from", values=("measured", "measured, uncorrected", "assumed")),
}

PAGES: Final[Table] = {
    "mark": Column("String", "text of the mark that was asked for, or empty"),
    "ts": _TS,
    "pid": Column("Int32", "the process as a user means it (the kernel's tgid); -1: not known"),
    "mm": _MM,
    "address": Column("String", "virtual address in hexadecimal"),
    "pfn": Column("Int64", "page frame number; 0: none, -1: mapped, not known", "pages"),
    "mapcount": Column("Int32", "places that map the frame"),
    "references": Column("Int32", "GUP references (FOLL_GET) to it"),
    "pins": Column("Int32", "GUP pins (FOLL_PIN) of it"),
    "zero": Column("Boolean", "it is the zero page"),
    "swapped": Column("Boolean", "it is swapped out"),
    "ksm": Column("Boolean", "it is a page merged by KSM"),
    "exclusive": Column("Boolean", "mapped once and known to be: pagemap's bit 56"),
    "uncertain": Column("Boolean", "lost events may have changed it"),
}

ACTS: Final = (*BEGAN, *(ended for ended in ENDED if ended != "open"), "get", "pin", "release", *(f"decided-{each}" for each in DECISIONS))

HISTORY: Final[Table] = {
    "ts": Column("Int64", "time stamp on the trace's clock; null: before the trace", "ns"),
    "act": Column("Enum", "how a stay began or ended, a reference taken or released, a COW decision", values=ACTS),
    "page_id": Column("Int32", "the page; null: the zero page, or not known"),
    "pfn": _PFN,
    "mm": _MM,
    "pid": Column("Int32", "the process whose memory it is"),
    "comm": Column("String", "the name of the process at that time; of a reference, of the one that took it"),
    "address": _ADDRESS,
    "text": Column("String", "the same in words"),
    "event": Column("Int64", "row of the memory event it rests on"),
}

LOSSES: Final[Table] = {
    "cpu": Column("Int32", "the CPU whose events are missing; -1: not known"),
    "from_ns": Column("Int64", "the last event before the gap", "ns"),
    "to_ns": Column("Int64", "the first event after it", "ns"),
    "events": Column("Int64", "how many; null: not known"),
    "source": Column("String", "what says so"),
    "offset": Column("Int64", "byte of the file; null: it has no place there"),
}

COSTS: Final[Table] = {
    "policy": Column("String", "the policy, or `observed`"),
    "cow_faults": Column("Int64", "COW decisions"),
    "copies": Column("Int64", "decided by a copy (not counting early copies, unshares and zero-fills)"),
    "reuses": Column("Int64", "decided by writing in place"),
    "early_copies": Column("Int64", "pages copied by fork itself, because they were pinned"),
    "unshares": Column("Int64", "pages copied for a read pin"),
    "zero_fills": Column("Int64", "copies of the zero page"),
    "extra_copies": Column("Int64", "copies, early copies and unshares beyond those of mapcount"),
    "extra_bytes": Column("Int64", "the same in bytes", "bytes"),
    "extra_ns": Column("Int64", "the same in time: copies alone, TLB shootdowns only as far as a measured price has them in it", "ns"),
    "time": Column("String", "where the time per copy comes from", values=("measured", "assumed")),
    "peak_pages": Column("Int64", "anonymous page frames at the fullest moment, of those the trace saw", "pages"),
}

TABLES: Final[Mapping[str, Table]] = {
    "memory_events": MEMORY_EVENTS,
    "processes": PROCESSES,
    "ownership": OWNERSHIP,
    "references": REFERENCES,
    "faults": FAULTS,
    "findings": FINDINGS,
    "comparison": COMPARISON,
    "before_after": BEFORE_AFTER,
    "pages": PAGES,
    "history": HISTORY,
    "losses": LOSSES,
    "costs": COSTS,
}


def polars_schema(table: Table) -> dict[str, pl.DataType]:
    """The polars types of a table, in the order of its columns."""
    import polars as pl

    def of(column: Column) -> pl.DataType:
        if column.type == "Enum":
            return pl.Enum(column.values)
        if column.type.startswith("List("):
            return pl.List(getattr(pl, column.type[5:-1]))
        dtype: pl.DataType = getattr(pl, column.type)()
        return dtype

    return {name: of(column) for name, column in table.items()}


def labels(name: str, values: tuple[str, ...] | list[str], codes: npt.NDArray[Any]) -> pl.Series:
    """Codes (indexes into `values`) as an Enum column of that name."""
    import polars as pl

    return pl.Series(name, list(values), dtype=pl.Enum(list(values))).gather(pl.Series(codes, dtype=pl.UInt32))
