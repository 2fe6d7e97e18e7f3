"""Threads, processes and address spaces over time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

import tracetool
from conftest import fixture_path
from engine.build import BASE, CLONE_THREAD, CLONE_VM, READ_FAULT, Machine, Process, Recording, address
from tracetool.memory_events import memory_events
from tracetool.processes import owners, processes, with_names
from tracetool.schema import PROCESSES, polars_schema


def lives(recording: Recording, tid: int) -> list[dict[str, Any]]:
    """The stretches of one thread's life."""
    return recording.processes().filter(pl.col("tid") == tid).to_dicts()


def test_no_events_are_no_processes() -> None:
    assert Recording().processes().schema == polars_schema(PROCESSES)


def test_the_table_is_what_the_schema_says() -> None:
    m = Machine()
    m.fork(m.spawn(10), 11, [(BASE, 1)])
    assert m.processes().schema == polars_schema(PROCESSES)


def test_a_fork_makes_a_process_on_a_new_address_space() -> None:
    m = Machine()
    a = m.spawn(10)
    m.fault(a, BASE, READ_FAULT)
    m.fork(a, 11, [(BASE, 1)])
    (child,) = lives(m, 11)
    assert (child["pid"], child["parent"], child["how"]) == (11, 10, "fork")
    assert child["mm"] not in {life["mm"] for life in lives(m, 10)}


def test_a_thread_belongs_to_its_maker_s_process_and_address_space() -> None:
    m = Machine()
    a = m.spawn(10)
    m.fault(a, BASE, READ_FAULT)
    m.new_task(a, 12, CLONE_VM | CLONE_THREAD)
    m.new_task(Process(12, a.mm), 13, CLONE_VM | CLONE_THREAD)
    for tid in (12, 13):
        (thread,) = lives(m, tid)
        assert (thread["pid"], thread["mm"], thread["how"]) == (10, lives(m, 10)[-1]["mm"], "thread")


def test_vfork_shares_the_address_space_until_exec() -> None:
    m = Machine()
    a = m.spawn(10)
    m.fault(a, BASE, READ_FAULT)
    m.new_task(a, 11, CLONE_VM | 0x4000)
    m.spawn(11)
    before, after = lives(m, 11)
    parent = lives(m, 10)[-1]["mm"]
    assert (before["pid"], before["mm"], before["how"]) == (11, parent, "fork")
    assert (after["pid"], after["how"]) == (11, "exec")
    assert after["mm"] != parent
    found = dict(owners(m.processes()).iter_rows())
    assert (found[parent], found[after["mm"]]) == (10, 11)


def test_exec_keeps_the_process_and_changes_its_address_space() -> None:
    m = Machine()
    a = m.spawn(10)
    m.fault(a, BASE, READ_FAULT)
    b = m.spawn(10)
    m.fault(b, BASE, READ_FAULT)
    stretches = lives(m, 10)
    assert {life["pid"] for life in stretches} == {10}
    assert [life["how"] for life in stretches if life["how"] == "exec"] == ["exec", "exec"]
    assert stretches[-1]["mm"] != stretches[-2]["mm"]


def test_stretches_of_a_life_follow_each_other_without_a_gap() -> None:
    m = Machine()
    a = m.spawn(10)
    m.fault(a, BASE, READ_FAULT)
    m.event("task_rename", 10, pid=10, oldcomm="prog", newcomm="other")
    m.exit(a, [])
    stretches = lives(m, 10)
    end = m.source().table("sched_process_exit").column("ts")[0].as_py()
    assert [life["to_ns"] for life in stretches] == [*(life["from_ns"] for life in stretches[1:]), end]


def test_a_number_that_comes_back_is_another_process() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    first = m.fork(a, 11, [(BASE, 1)])
    m.exit(first, [5])
    m.new_task(a, 20, CLONE_VM | CLONE_THREAD)
    m.event("sched_process_exit", 20, pid=20)
    m.fork(a, 20, [(BASE, 1)])
    m.fork(Process(10, a.mm), 11, [(BASE, 1)])
    one, two = (life for life in lives(m, 11) if life["how"] == "fork")
    assert one["mm"] != two["mm"]
    assert one["to_ns"] < two["from_ns"]
    assert two["to_ns"] is None
    thread, process = lives(m, 20)
    assert (thread["pid"], process["pid"]) == (10, 20)
    assert thread["to_ns"] < process["from_ns"]


def test_pages_of_a_number_that_came_back_are_each_its_own_process_s() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 5)
    first = m.fork(a, 11, [(BASE, 1)])
    m.touch(first, address(1), 6)
    alive = m.now
    m.exit(first, [5, 6])
    m.free(11, 6)
    second = m.fork(a, 11, [(BASE, 1)])
    m.touch(second, address(2), 6)
    assert {at for pid, at in m.pages(alive) if pid == 11} == {address(0), address(1)}
    assert {at for pid, at in m.pages() if pid == 11} == {address(0), address(2)}


# --- names ----------------------------------------------------------------------------------------------------------------------------


def named(recording: Recording, tid: int) -> list[str]:
    return [life["comm"] for life in lives(recording, tid)]


def test_a_child_is_named_by_its_fork_and_renamed_by_exec() -> None:
    m = Machine()
    a = m.spawn(10)
    m.new_task(a, 11, 0x1200000, comm="shell")
    m.fault(Process(11, m.mm()), BASE, READ_FAULT)
    m.event("task_rename", 11, pid=11, oldcomm="shell", newcomm="sleep")
    assert named(m, 11) == ["shell", "shell", "sleep"]


def test_the_name_before_the_first_rename_is_what_the_rename_says() -> None:
    r = Recording()
    r.event("mm_fault", 10, mm=7, address=BASE, fault_flags=READ_FAULT, vm_flags=0, vm_ops=0)
    r.event("task_rename", 10, pid=10, oldcomm="young", newcomm="old")
    assert named(r, 10)[0] == "young"
    assert named(r, 10)[-1] == "old"


def test_a_rename_of_a_thread_that_did_nothing_yet_makes_it_known() -> None:
    """A write to /proc/PID/comm: of the thread the trace knows its number, which stands for its process."""
    r = Recording()
    r.event("task_rename", 10, pid=55, oldcomm="a", newcomm="b")
    r.event("mm_fault", 55, mm=7, address=BASE, fault_flags=READ_FAULT, vm_flags=0, vm_ops=0)
    assert {life["pid"] for life in lives(r, 55)} == {55}
    assert named(r, 55)[-1] == "b"


def test_an_ended_thread_s_name_is_not_inherited_by_the_next_of_its_number() -> None:
    m = Machine()
    a = m.spawn(10)
    m.new_task(a, 11, comm="first")
    m.event("task_rename", 11, pid=11, oldcomm="first", newcomm="renamed")
    m.event("sched_process_exit", 11, pid=11)
    m.new_task(a, 11, comm="second")
    assert named(m, 11) == ["first", "renamed", "second"]


def test_saved_command_lines_name_what_nothing_else_does() -> None:
    r = Recording()
    for tid in (10, 11, 12):
        r.event("mm_fault", tid, mm=7, address=BASE, fault_flags=READ_FAULT, vm_flags=0, vm_ops=0)
    r.event("task_rename", 11, pid=11, oldcomm="was", newcomm="is")

    class Saved:
        def __init__(self) -> None:
            self.metadata = SimpleNamespace(cmdlines={10: "saved", 11: "never shown"})

        def __getattr__(self, name: str) -> Any:
            return getattr(r.source(), name)

    table = processes(memory_events(Saved(), "6.1.0"), Saved())
    names = dict(table.group_by("tid", maintain_order=True).agg("comm").iter_rows())
    assert names[10][0] == "saved"
    assert names[11] == ["was", "was", "is"]
    assert names[12][0] == "<...>"


@pytest.mark.parametrize(("at", "name"), [(None, "a"), (0, "a"), (100, "a"), (199, "a"), (200, "b"), (10**9, "b")])
def test_the_name_at_a_time(at: int | None, name: str) -> None:
    table = pl.DataFrame(
        {"tid": [5, 5, 6], "pid": [5, 5, 5], "comm": ["a", "b", "thread"], "from_ns": [100, 200, 150]},
        schema_overrides={"tid": pl.Int32, "pid": pl.Int32},
    )
    frame = pl.DataFrame({"pid": [5, 9], "when": [at, at]}, schema={"pid": pl.Int32, "when": pl.Int64})
    named_frame = with_names(frame, table, "when")
    assert named_frame["comm"].to_list() == [name, None]
    assert named_frame.select("pid", "when").equals(frame)


def test_the_program_of_the_mail_recording() -> None:
    """The checkpoints name the processes: 115 the parent, 116 its child, both cowlab."""
    table = tracetool.open(fixture_path("mail-6.1.dat")).processes
    (child,) = table.filter(pl.col("tid") == 116, pl.col("how") == "fork").to_dicts()
    assert (child["pid"], child["parent"], child["comm"]) == (116, 115, "cowlab")
    assert table.filter(pl.col("tid") == 115)["comm"].to_list()[-1] == "cowlab"


def test_names_and_processes_of_a_perf_recording_come_from_its_records() -> None:
    """perf.data has no saved command lines; of what runs before exec perf itself tells the name."""
    found = tracetool.open(fixture_path("mail-6.1.perf.data")).processes
    named = {(row["tid"], row["how"]): row["comm"] for row in found.to_dicts()}
    assert named[108, "before-trace"] == "perf-exec"
    assert named[106, "before-trace"] == "perf"
    assert "<...>" not in named.values()


def test_a_thread_older_than_the_trace_is_of_the_process_that_the_trace_names() -> None:
    r = Recording()
    for tid in (31, 32):
        r.event("mm_fault", tid, mm=7, address=BASE, fault_flags=READ_FAULT, vm_flags=0, vm_ops=0)
    r.event("task_newtask", 32, pid=33, comm_field="third", clone_flags=CLONE_VM | CLONE_THREAD)
    source = r.source()
    plain = source.table

    def told(name: str, fields: Any = None) -> Any:
        table = plain(name, fields)
        return table.append_column("tgid", pl.Series([30] * table.num_rows, dtype=pl.Int32).to_arrow())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "table", told)
        rows = processes(r.events(), source)
    assert {row["tid"]: row["pid"] for row in rows.to_dicts()} == {31: 30, 32: 30, 33: 30}
