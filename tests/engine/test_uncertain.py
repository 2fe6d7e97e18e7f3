"""Lost events make states uncertain until something settles them; KSM pages are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tracetool
from engine.build import PAGE, Machine, address
from engine.test_ownership_fixtures import replayed, truths
from tracetool.replay import Replay
from tracetool.synth import Plan, synthesise

KSM_FLAG = 1 << 21


def uncertain(m: Machine, losses: list[tuple[int, int]]) -> dict[int, bool]:
    """Page number -> whether it is uncertain at the end."""
    replay = Replay(m.history(), m.processes(), None, np.array(losses, np.int64).reshape(-1, 2))
    rows = [(row["pid"], int(row["address"], 16), row["uncertain"]) for row in replay.pages_at(m.now).to_dicts()]
    return {(at - address(0)) // PAGE: doubt for pid, at, doubt in rows if pid == 10 and at < address(9)}


def test_what_began_before_a_loss_is_uncertain_what_began_after_is_not() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 0x50)
    begin = m.now + 1
    m.now += 10_000
    m.touch(a, address(1), 0x51)
    assert uncertain(m, [(begin, begin + 5_000)]) == {0: True, 1: False}
    assert uncertain(m, [(m.now + 1, m.now + 9)]) == {0: False, 1: False}
    assert uncertain(m, []) == {0: False, 1: False}


def test_a_loss_without_an_end_leaves_nothing_certain() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 0x50)
    assert uncertain(m, [(0, np.iinfo(np.int64).max)]) == {0: True}


def test_a_copy_settles_what_is_at_an_address() -> None:
    m = Machine()
    a = m.spawn(10)
    m.touch(a, address(0), 0x50)
    m.fork(a, 11, [(address(0), 1)])
    begin = m.now + 1
    m.now += 10_000
    m.cow(a, address(0), 0x50, 0x51)
    assert uncertain(m, [(begin, begin + 5_000)]) == {0: False}


def test_wrong_rows_of_a_trace_with_losses_are_uncertain(tmp_path: Path) -> None:
    """Some are not: who an event is about may itself be lost. Rows that are missing altogether cannot say so."""
    wrong = certain = 0
    for seed in range(1, 5):
        trace, truth = tmp_path / f"{seed}.dat", tmp_path / f"{seed}.tsv"
        synthesise(Plan("random", seed=seed, events=20_000, losses=0.1), trace, truth=truth)
        (begin, _), (end, _) = (replayed(tracetool.open(trace), which, "observed") for which in ("begin", "end"))
        for key, said in truths(truth):
            row, other = begin.get(key), end.get(key)
            if row is not None and said.denies(row, other) and said.denies(other, row):
                wrong += 1
                certain += not row["uncertain"]
    assert wrong > 100
    assert certain <= wrong * 0.05


@pytest.mark.exhaustive
@pytest.mark.parametrize("kernel", ["5.10", "6.1", "7.2"])
def test_ksm_pages_are_those_of_the_kernel(traces: Path, kernel: str) -> None:
    """On 6.12 the flag is set of other pages, too."""
    path = traces / kernel / "ksm.dat"
    rows, _ = replayed(tracetool.open(path), "begin", "observed")
    said = {key: bool(truth.flags & KSM_FLAG) for key, truth in truths(path.with_suffix(".truth.tsv")) if truth.present}
    assert {key: rows[key]["ksm"] for key in said} == said
    assert sum(said.values()) > 10
