"""When loops are compiled: not for a short trace, not for a middling one before that has paid, for all of a large one."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np
import pytest

from tracetool_parsers import loops
from tracetool_parsers.loops import COMPILE_FROM, FIRST_COMPILE_FROM, LOAD_FROM, Loop, guarded, loop, part


@part
def doubled(values: np.ndarray, at: int) -> int:
    return int(values[at]) * 2


def double(values: np.ndarray, out: np.ndarray) -> None:
    for at in range(len(values)):
        out[at] = doubled(values, at)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loop, "_large", False)
    monkeypatch.setattr(Loop, "_is_cached", lambda _: False)
    monkeypatch.delenv("TRACETOOL_LOOPS", raising=False)
    monkeypatch.delitem(sys.modules, "numba", raising=False)


def test_a_short_input_waits_for_no_compiler() -> None:
    assert not loop(double)._pays(COMPILE_FROM - 1)


def test_a_middling_input_is_worth_a_cached_loop_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not loop(double)._pays(COMPILE_FROM)
    monkeypatch.setattr(Loop, "_is_cached", lambda _: True)
    assert loop(double)._pays(COMPILE_FROM)


def test_after_one_large_input_all_loops_are_compiled() -> None:
    assert loop(double)._pays(FIRST_COMPILE_FROM)
    assert loop(double)._pays(COMPILE_FROM)
    assert not loop(double)._pays(COMPILE_FROM - 1)


def test_many_small_pieces_are_worth_a_cached_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loop, "_is_cached", lambda _: True)
    doubling, out = loop(double), np.zeros(10, np.int64)
    doubling.run(COMPILE_FROM - 10, np.arange(10, dtype=np.int64), out)
    assert not doubling._pays(9)
    assert doubling._pays(10)


def test_with_numba_at_hand_a_cached_loop_pays_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loop, "_is_cached", lambda _: True)
    assert not loop(double)._pays(LOAD_FROM)
    monkeypatch.setitem(sys.modules, "numba", object())
    assert not loop(double)._pays(LOAD_FROM - 1)
    assert loop(double)._pays(LOAD_FROM)


@guarded
def doubled_all(values: np.ndarray, out: np.ndarray) -> None:
    if len(out) < len(values):
        raise IndexError("no room")
    for at in range(len(values)):
        out[at] = values[at] * 2


def double_all(values: np.ndarray, out: np.ndarray) -> None:
    doubled_all(values, out)


@pytest.mark.parametrize("way", ["python", "compiled"])
def test_a_part_that_tests_its_bounds_refuses_what_does_not_fit(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACETOOL_LOOPS", way)
    values, out = np.arange(10, dtype=np.int64), np.zeros(10, np.int64)
    loop(double_all).run(10, values, out)
    assert out.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    with pytest.raises(IndexError):
        loop(double_all).run(10, values, out[:9])


@pytest.mark.parametrize("way", ["python", "compiled"])
def test_both_ways_give_the_same(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACETOOL_LOOPS", way)
    values, out = np.arange(10, dtype=np.int64), np.zeros(10, np.int64)
    loop(double).run(10, values, out)
    assert out.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]


def test_compiled_loops_check_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACETOOL_LOOPS", "compiled")
    with pytest.raises(IndexError):
        loop(double).run(10, np.arange(10, dtype=np.int64), np.zeros(9, np.int64))


def test_the_cache_moves_with_the_source(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    loops._cache_folder.cache_clear()
    here = loops._cache_folder("tracetool_parsers")
    assert here.parent.parent.parent == tmp_path
    assert here.name.startswith("tracetool_parsers-")
    loops._cache_folder.cache_clear()


def test_an_interrupt_waits_for_a_loop_to_end() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done: list[str] = []

    def pressed_within() -> None:
        with loops._uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            done.append("the loop")
        done.append("what comes after it")

    try:
        with pytest.raises(KeyboardInterrupt):
            pressed_within()
        assert done == ["the loop"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
