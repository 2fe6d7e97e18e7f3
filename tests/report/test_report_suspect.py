"""What a trace says of wrong data at an address: for a person, and for a program."""

from __future__ import annotations

import json

import pytest

from engine.build import BASE, Machine, address
from handmade import trace_of
from tracetool.report import suspect as report
from tracetool.suspecting import Suspicion, suspect

A, B = 10, 11
P0, P1, P2 = 0x50, 0x51, 0x52


def parted(name: str = "alpha") -> Suspicion:
    """A's pin keeps P0, A goes on with P1; its child B had P0, too, and copied it."""
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    m.pin(a, address(0), P0)
    b = m.fork(a, B, [(BASE, 1)])
    m.cow(b, address(0), P0, P2)
    m.cow(a, address(0), P0, P1)
    m.unpin(A, P0)
    return suspect(trace_of(m, {A: name}), A, address(0))


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_text_answers_first() -> None:
    told = parted()
    text = report.text(told)
    assert one_line(text).startswith(f"Wrong data at {address(0):#x} of process {A} (alpha), at any time: COW is the cause")
    for said in (
        "wrong-cow-1@observed (certain defect)",
        f"alpha {A} maps frame {P0:#x} at {address(0):#x} (touch), until",
        f"alpha {A} holds a long-term write pin to frame {P0:#x} of process {A} (io_uring, ring fd 5, buffer 0), until",
        f"{B} stores to frame {P0:#x}: copy (another-mapping).",
        "tracetool explain folder/hand-made wrong-cow-1@observed",
    ):
        assert said in one_line(text), said
    assert all(len(line) <= 80 for line in text.splitlines() if "tracetool explain" not in line)


def test_times_count_from_the_start_of_the_trace() -> None:
    told = parted()
    (born,) = told.lifeline.filter(act="touch")["ts"].to_list()
    assert f"{told.trace.from_ns} ns" in report.text(told)
    assert f"{(born - told.trace.from_ns) / 1e6:+.3f} ms  alpha {A} touches" in report.text(told)


def test_what_is_missing_is_told() -> None:
    m = Machine()
    m.cow(m.older(A), address(0), P0)
    text = one_line(report.text(suspect(trace_of(m), A, address(0))))
    assert "cannot be ruled out" in text
    assert f"What would have to be known to rule it out What was before the trace: frame {P0:#x} is older" in text


def test_foreign_names_are_escaped() -> None:
    text = report.text(parted("a\x1b[2J\n"))
    assert "\x1b" not in text
    assert "a\\x1b[2J\\n" in text


@pytest.mark.parametrize("key", ["findings", "stays", "others", "references", "stores", "lifeline"])
def test_json_has_every_table(key: str) -> None:
    told = parted()
    document = json.loads(report.to_json(told))
    assert document["verdict"] == "COW is the cause"
    assert document["asked"] == {"pid": A, "address": hex(address(0)), "at_ns": None}
    assert len(document[key]) == getattr(told, key).height > 0
    assert all(row["address"] == hex(address(0)) for row in document[key])


def test_long_lists_are_cut_and_the_cut_is_told() -> None:
    m = Machine()
    a = m.spawn(A)
    m.touch(a, address(0), P0)
    for number in range(50):
        child = m.fork(a, 100 + number, [(BASE, 1)])
        m.cow(child, address(0), P0, 0x100 + number)
    text = one_line(report.text(suspect(trace_of(m), A, address(0))))
    assert f"showing {report.ROWS} of 50" in text
    assert f"showing the last {report.LIFELINE} of" in text
