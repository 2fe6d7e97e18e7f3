"""Records that cannot be true, as those of a probe with another kernel's offsets: told, and nothing is called clean for them."""

from __future__ import annotations

import pytest

from engine.build import WRITE_FAULT, Machine, address
from handmade import trace_of
from tracetool.analysing import analyse
from tracetool.trace import Trace


def recorded(at: int, flags: int) -> Trace:
    """A process stores to a page that it shares; its child, where and how the record says."""
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 0x50)
    b = m.fork(a, 11, [(address(0), 1)])
    m.cow(a, address(0), 0x50, 0x51)
    m.cow(b, at, 0x50, flags=flags)
    return trace_of(m)


def test_what_kernels_say_is_plausible() -> None:
    analysis = analyse(recorded(address(0), WRITE_FAULT))
    assert {v.verdict for v in analysis.verdicts} == {"clean"}
    assert not any("cannot be true" in note for note in analysis.coverage.notes)


@pytest.mark.parametrize(
    ("at", "flags"),
    [
        pytest.param(0x0080_0000_0299_D845 << 8, WRITE_FAULT, id="an address above user space"),
        pytest.param(0xFFFF_8880_0299_D000 - (1 << 64), WRITE_FAULT, id="one of the kernel's"),
        pytest.param(address(0), 0x100CCA, id="a mask of allocation flags for those of the fault"),
    ],
)
def test_offsets_of_another_kernel_make_nothing_clean(at: int, flags: int) -> None:
    analysis = analyse(recorded(at, flags))
    assert {v.verdict for v in analysis.verdicts} == {"inconclusive"}
    assert all(any("records of faults that can be true" in what for what in v.missing) for v in analysis.verdicts)
    assert any("cannot be true" in note and "offsets of the probes" in note for note in analysis.coverage.notes)
