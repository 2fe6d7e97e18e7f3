"""Raw events full of values that no kernel writes."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from engine.build import (
    BASE,
    FOLL_GET,
    FOLL_PIN,
    FORK_FLAGS,
    PAGE,
    PTE_SPECIAL,
    VMEMMAP,
    Recording,
)
from tracetool.probes import PROBES

WILD: Final = [0, 1, 2, 7, 511, 512, PAGE, BASE, BASE + PAGE, 1 << 40, (1 << 57) - PAGE, 1 << 57, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
               (1 << 64) - PAGE, VMEMMAP, VMEMMAP + 64, VMEMMAP - 64, FOLL_GET, FOLL_PIN, FORK_FLAGS, PTE_SPECIAL]  # fmt: skip
NAMES: Final = [probe.event for probe in PROBES]
FIELDS: Final = {
    probe.event: [name for name in (probe.mm, probe.other_mm, *probe.args, *(["vmemmap"] if probe.event == "fork_range" else [])) if name]
    for probe in PROBES
}
FIELDS["mm_page_alloc"] = ["pfn", "order", "migratetype"]
#: Most happens on two of them.
CPUS: Final = (0, 0, 1, 0, 1, 8191, 8192)
NAMED: Final[dict[str, dict[str, int | str]]] = {
    "task_newtask": {"comm_field": "x"},
    "task_rename": {"oldcomm": "x", "newcomm": "y"},
    "print": {"buf": "z"},
}
#: (event, thread, values of its fields)
wild_events = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(-1, 3), st.lists(st.sampled_from(WILD), min_size=6, max_size=6)), max_size=40
)


def wild_recording(drawn: list[tuple[str, int, list[int]]]) -> Recording:
    """The events as a recording. Threads, address spaces and most frames are few: what happens must happen to the same ones."""
    r = Recording()
    for name, tid, values in drawn:
        fields: dict[str, int | str] = {field: _meeting(field, value) for field, value in zip(FIELDS[name], values, strict=False)}
        r.add(name, tid, fields | NAMED.get(name, {}), cpu=CPUS[values[-1] % len(CPUS)])
    return r


def _meeting(field: str, value: int) -> int:
    if field in ("pid", "old_pid"):
        return value % 5
    if field in ("mm", "src_mm"):
        return value % 3
    if field == "migratetype":
        return value % 2
    if field == "page":
        return VMEMMAP + value % 7 * 64 if value < 1 << 40 else value
    return VMEMMAP if field == "vmemmap" and value < 1 << 63 else value
