"""Threads that are kept."""

from __future__ import annotations

import os
import threading
import time

import pytest

from tracetool_parsers.workers import aside, spread


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_what_is_made_keeps_the_order_of_the_items(threads: int) -> None:
    assert spread(lambda item: item * item, range(20), threads) == [item * item for item in range(20)]


def test_no_items_make_nothing() -> None:
    assert spread(str, (), 4) == []


def test_the_work_is_done_by_several_threads() -> None:
    both = threading.Barrier(2, timeout=30)
    assert len(spread(lambda _: both.wait(), range(2), 2)) == 2


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_comes_when_all_have_ended(bad: int) -> None:
    ended = []
    both = threading.Barrier(2, timeout=30)

    def work(item: int) -> None:
        both.wait()
        if item == bad:
            raise ValueError(item)
        time.sleep(0.05)
        ended.append(item)

    with pytest.raises(ValueError, match=str(bad)):
        spread(work, range(2), 2)
    assert ended == [1 - bad]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    assert aside(int, "1").result() == 1
    child = os.fork()
    if child == 0:
        os._exit(0 if aside(int, "2").result(timeout=30) == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
