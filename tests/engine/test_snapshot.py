"""Snapshot events: what was there when the recording began, or where a trace was cut."""

from __future__ import annotations

import pytest

from engine.build import BASE, PAGE, VMEMMAP, Machine, Process, address, references
from tracetool.memory_events import codes as c
from tracetool.schema import VIA

VMSPLICE = VIA.index("vmsplice")


def before(m: Machine, tid: int, pages: dict[int, int], *, whole: int = 1) -> Process:
    """A process that a snapshot lists, with the frames of its pages."""
    p = m.older(tid)
    m.event("snapshot_task", 1, pid=tid, tgid=tid, mm=p.mm, whole=whole, vmemmap=VMEMMAP)
    for number, pfn in pages.items():
        m.event("snapshot_page", 1, mm=p.mm, address=address(number), pfn=pfn, state=c.IS_PAGE, order=0)
    return p


def test_pages_of_a_snapshot_are_there_since_before_the_trace() -> None:
    m = Machine()
    a = before(m, 10, {0: 5, 1: 6})
    before(m, 11, {0: 5})
    m.event("snapshot_page", 1, mm=a.mm, address=address(2), pfn=0, state=c.IS_ZERO, order=0)
    m.event("snapshot_page", 1, mm=a.mm, address=address(3), pfn=0, state=c.IS_SWAPPED, order=0)
    found = m.pages()
    assert {key: (row["pfn"], row["mapcount"]) for key, row in found.items()} == {
        (10, address(0)): (5, 2), (10, address(1)): (6, 1), (11, address(0)): (5, 2), (10, address(2)): (0, 0), (10, address(3)): (0, 0),
    }  # fmt: skip
    assert [row["zero"] for row in found.values()].count(True) == 1
    assert found[10, address(3)]["swapped"]
    began = m.replay().ownership.collect()
    assert began["began"].cast(str).to_list() == ["before-trace"] * 3
    assert began["from_ns"].null_count() == 3


@pytest.mark.parametrize(("policy", "copied"), [("mapcount", False), ("page-count", True)])
def test_policies_decide_on_what_a_snapshot_tells(policy: str, copied: bool) -> None:
    """A page that only one process maps and somebody references, both since before."""
    m = Machine()
    a = before(m, 10, {0: 5})
    m.event("snapshot_reference", 10, mm=a.mm, address=BASE, pages=1, flags=VMSPLICE << c.VIA_SHIFT)
    m.cow(a, BASE, 5, 7)
    (fault,) = m.replay(policy).faults.collect().to_dicts()
    assert fault["decision"] == ("copy" if copied else "reuse")
    assert fault["references"] == 1


def test_a_reference_of_a_snapshot_is_released_like_another() -> None:
    m = Machine()
    a = before(m, 10, {0: 5, 1: 6})
    m.event("snapshot_reference", 10, mm=a.mm, address=BASE, pages=2, flags=VMSPLICE << c.VIA_SHIFT)
    m.pipe_release(10, 6)
    first, second = sorted(references(m), key=lambda each: each["address"])
    assert (first["pfn"], first["via"], first["released"], first["to_ns"]) == (5, "vmsplice", "unknown", None)
    assert (second["pfn"], second["released"], second["to_ns"]) == (6, "exact", m.now)


def test_only_a_whole_snapshot_makes_what_it_does_not_list_untouched() -> None:
    for whole in (0, 1):
        m = Machine()
        a = before(m, 10, {}, whole=whole)
        m.read_zero(a, BASE)
        assert len(m.pages()) == whole


@pytest.mark.parametrize(
    "fields",
    [
        {"address": 1 << 60, "pfn": 5, "state": 0, "order": 0},
        {"address": BASE, "pfn": 5, "state": 77, "order": 0},
        {"address": BASE, "pfn": 5, "state": -1, "order": 0},
    ],
)
def test_what_is_no_page_is_left_out(fields: dict[str, int]) -> None:
    m = Machine()
    a = before(m, 10, {})
    m.event("snapshot_page", 1, mm=a.mm, **fields)
    m.event("snapshot_reference", 10, mm=a.mm, address=BASE, pages=1 << 40, flags=0)
    m.event("snapshot_reference", 10, mm=a.mm, address=BASE, pages=1, flags=99 << c.VIA_SHIFT)
    assert m.pages() == {}
    assert references(m) == []


def test_a_huge_mapping_keeps_its_order() -> None:
    m = Machine()
    a = m.older(10)
    m.event("snapshot_task", 1, pid=10, tgid=10, mm=a.mm, whole=1, vmemmap=VMEMMAP)
    for number in range(512):
        m.event("snapshot_page", 1, mm=a.mm, address=BASE + number * PAGE, pfn=512 + number, state=c.IS_PAGE, order=9)
    owned = m.replay().ownership.collect()
    assert owned["order"].to_list() == [9] * 512
    assert len(m.pages()) == 512
