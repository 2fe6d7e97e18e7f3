"""The life of a page frame and of an address: rows in order, each resting on its event, told in words."""

from __future__ import annotations

import pytest

from engine.build import Machine, Process, address
from tracetool import schema
from tracetool.replay.lifeline import _BEGINNINGS, _DECISIONS, _ENDS


@pytest.fixture
def m() -> Machine:
    return Machine()


def acts(machine: Machine, **asked: int) -> list[tuple[str, int | None]]:
    return machine.replay().history_of(**asked).select("act", "pid").rows()


def mail(m: Machine) -> tuple[Process, Process]:
    """The example of the mail: A references P0 (0x50) and writes, B writes, then the reference goes."""
    a = m.spawn(10)
    m.touch(a, address(0), 0x50)
    b = m.fork(a, 11, [(address(0), 1)])
    m.vmsplice(a, address(0), 0x50)
    m.cow(a, address(0), 0x50, 0x51)
    m.cow(b, address(0), 0x50, 0x52)
    m.pipe_release(10, 0x50)
    return a, b


def test_the_frame_of_the_mail(m: Machine) -> None:
    mail(m)
    assert acts(m, pfn=0x50) == [
        ("touch", 10),
        ("fork", 11),
        ("get", 10),
        ("decided-copy", 10),
        ("copied", 10),
        ("decided-copy", 11),
        ("copied", 11),
        ("release", 10),
    ]


def test_the_address_of_one_process(m: Machine) -> None:
    mail(m)
    found = m.replay().history_of(pid=11, address=address(0) + 0x123)
    assert found["act"].to_list() == ["fork", "decided-copy", "copied", "copy"]
    assert found["pfn"].to_list() == [0x50, 0x52, 0x50, 0x52]
    assert found["ts"].is_sorted()
    assert "shared by fork" in found["text"][0]
    assert "copied (reference)" in found["text"][1]


def test_a_frame_has_one_life_after_the_other(m: Machine) -> None:
    a = m.spawn(10)
    m.touch(a, address(0), 0x50)
    m.dontneed(a, address(0), 0x50)
    m.free(10, 0x50)
    m.touch(a, address(1), 0x50)
    found = m.replay().history_of(pfn=0x50)
    assert found["act"].to_list() == ["touch", "unmapped", "touch"]
    assert found["page_id"].n_unique() == 2


def test_frame_and_process_together(m: Machine) -> None:
    mail(m)
    assert acts(m, pfn=0x50, pid=11) == [("fork", 11), ("decided-copy", 11), ("copied", 11)]


def test_under_a_policy_the_story_is_another(m: Machine) -> None:
    mail(m)
    found = m.replay("mapcount").history_of(pid=11, address=address(0))
    assert found["act"].to_list() == ["fork", "decided-reuse"]


def test_what_is_not_known_has_no_rows(m: Machine) -> None:
    mail(m)
    found = m.replay().history_of(pfn=0x99)
    assert found.height == 0
    assert dict(found.schema) == schema.polars_schema(schema.HISTORY)


def test_there_are_words_for_everything() -> None:
    assert set(_BEGINNINGS) == set(schema.BEGAN)
    assert set(_ENDS) == set(schema.ENDED) - {"open"}
    assert set(_DECISIONS) == set(schema.DECISIONS)
