"""No value in a trace, however absurd, does harm: fields are numbers, and any number is taken for what it can mean."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given

from engine.build import (
    BASE,
    FOLL_GET,
    FOLL_TOUCH,
    PAGE,
    PTE_SPECIAL,
    VMEMMAP,
    Machine,
    Recording,
    address,
    struct_page,
)
from engine.wild import wild_events, wild_recording
from tracetool.agreement import judge
from tracetool.errors import TraceError
from tracetool.memory_events import memory_events, with_tables
from tracetool.policies import POLICIES
from tracetool.processes import processes
from tracetool.replay import Replay, rebuild


def replay_all(r: Recording) -> None:
    """Everything that is made of raw events, in full."""
    events = r.events()
    history, people = rebuild(events), processes(events, r.source())
    assert events.table().collect().height == len(events)
    replay = Replay(history, people)
    replay.ownership.collect()
    replay.references.collect()
    replay.faults.collect()
    replay.pages_at(r.now)
    for policy in POLICIES.values():
        under = Replay(history, people, policy)
        under.faults.collect()
        under.pages_at(r.now)
    agreements = judge(history).agreements(list(POLICIES))
    assert all(sum(each.reasons.values()) == each.undetermined for each in agreements)


@given(wild_events)
@example([("anon_new", 1, [VMEMMAP, BASE, 0, 0, 0, 0]), ("fork_range", 1, [1, 2, 3, 4, 5, 6])])
@example([("cow_fault", 1, [0, BASE, 1, 0, PTE_SPECIAL, 0]), ("cow_fault_done", 1, [8] * 6)])
@example([("mm_page_free", 1, [(1 << 63) - 1, 0, 0, 0, 0, 0]), ("anon_new", 1, [1, BASE, VMEMMAP, 0, 0, 0])])
def test_absurd_values_do_no_harm(drawn: list[tuple[str, int, list[int]]]) -> None:
    replay_all(wild_recording(drawn))


@pytest.mark.parametrize("kernel_address", [0xFFFF_8000_0000_0000, 1 << 57, (1 << 64) - PAGE])
def test_what_is_mapped_at_no_user_address_is_no_page_of_a_process(kernel_address: int) -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, kernel_address, 5)
    m.touch(a, address(0), 6)
    assert set(m.pages()) == {(10, address(0))}


def test_a_page_below_all_frames_is_none() -> None:
    """A `struct page` pointer below vmemmap names no frame: nothing else may be taken for it."""
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    m.fork(a, 11, [(BASE, 1)])
    m.event("anon_new", 10, mm=a.mm, address=address(1), page=VMEMMAP - 64)
    pages = m.pages()
    assert pages[10, address(0)]["pfn"] == 5
    assert (10, address(1)) not in pages or pages[10, address(1)]["pfn"] == -1


def test_a_field_of_the_wrong_type_is_an_error_that_names_it() -> None:
    r = Recording()
    r.event("anon_new", 10, mm=7, address="somewhere", page=struct_page(1))
    with pytest.raises(TraceError, match="address") as caught:
        r.events()
    assert caught.value.event == "anon_new"


def test_huge_lengths_and_orders_cost_no_memory() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    for length in (1 << 47, (1 << 63) - 1, (1 << 64) - 1):
        m.event("sys_enter_munmap", 10, addr=0, len=length)
        m.event("sys_exit_munmap", 10, ret=0)
        m.event("gup", 10, mm=a.mm, start=0, nr_pages=(1 << 40) - 1, flags=FOLL_GET | FOLL_TOUCH)
        m.event("gup_done", 10, ret=(1 << 40) - 1)
        m.event("unpin_pages", 10, page=struct_page(5), nr_pages=length)
        m.event("mm_page_free", 10, pfn=0, order=20)
        m.event("mm_page_free", 10, pfn=0, order=63)
        m.event("anon_add", 10, mm=a.mm, address=address(7), page=struct_page(9), nr=length, flags=0)
        m.event("rmap_remove", 10, mm=a.mm, page=struct_page(9), nr=length)
    tracemalloc.start()
    replay_all(m)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_positions_of_hand_made_tables_are_ordered_by_time_then_cpu() -> None:
    def table(ts: list[int], cpu: list[int]) -> pa.Table:
        return pa.table({"ts": pa.array(ts, pa.int64()), "cpu": pa.array(cpu, pa.int32()), "tid": pa.array([1] * len(ts), pa.int32())})

    source = with_tables({"gup_done": table([5, 7, 7], [0, 1, 0]), "print": table([7, 5], [0, 0])})
    placed = source.tables({"gup_done": (), "print": ()}, positions=True)
    assert placed["gup_done"]["position"].to_pylist() == [0, 4, 2]
    assert placed["print"]["position"].to_pylist() == [3, 1]
    assert np.array_equal(memory_events(source).ts, np.array([5, 7]))
