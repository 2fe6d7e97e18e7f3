"""Calibration: this machine's own prices, as a table that `--costs` takes. Only what holds on any machine is asserted of its times."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tracetool.costs import calibrate, prices
from tracetool.costs.calibrate import Calibration
from tracetool.costs.prices import Price
from tracetool.errors import Unanswerable

#: A process of its own: this one may have threads, and other tests run beside it.
PROGRAM: Final = """
import json, os, time
from tracetool.costs import calibrate
begin = time.perf_counter()
found = calibrate.measure(pages=1024, rounds=4)
took = time.perf_counter() - begin
try:
    left = os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    left = None
files = len(os.listdir("/proc/self/fd"))
calibrate.measure(pages=256, rounds=3)
print(json.dumps({"toml": found.toml(), "took": took, "left": left, "files": len(os.listdir("/proc/self/fd")) - files}))
"""


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_it_prints_is_a_cost_table(measured: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "here.toml"
    path.write_text(measured["toml"], encoding="utf-8")
    table, shipped = prices.load(str(path)), prices.load(None)
    names = list(tomllib.loads(measured["toml"]))
    assert names == ["reuse_fault", "copy_fault", "zero_fill_fault", "read_zero_fault", "copy_4k", "fork_gib"]
    assert all(getattr(table, name).source.startswith("measured on ") for name in names)
    assert table.tlb_shootdown == shipped.tlb_shootdown


def test_what_it_measures_can_be_true(measured: dict[str, Any]) -> None:
    """A fault takes longer than no fault and shorter than a disk; a copy's fault longer than the copy, and than a reuse."""
    table = {name: entry["value_ns"] for name, entry in tomllib.loads(measured["toml"]).items()}
    for name in ("reuse_fault", "copy_fault", "zero_fill_fault", "read_zero_fault"):
        assert 50 < table[name] < 1_000_000, name
    assert table["copy_fault"] > table["reuse_fault"]
    assert table["copy_fault"] > table["copy_4k"] > 10
    assert table["zero_fill_fault"] > table["read_zero_fault"] / 2
    assert 0 <= table["fork_gib"] < 60e9


def test_it_leaves_no_child_and_no_file_behind(measured: dict[str, Any]) -> None:
    assert (measured["left"], measured["files"]) == (None, 0)


def test_it_takes_seconds(measured: dict[str, Any]) -> None:
    assert measured["took"] < 20


def test_the_table_is_toml_whatever_a_machine_is_called() -> None:
    name = 'Odd "CPU" \\ 9 µ 😀'
    found = Calibration(name, {"reuse_fault": Price(812.345, 800, 1e6, f"measured on {name}")})
    assert tomllib.loads(found.toml()) == {
        "reuse_fault": {"value_ns": 812.3, "low_ns": 800, "high_ns": 1_000_000, "source": f"measured on {name}"}
    }
    assert found.toml().startswith("# ")


def test_the_price_is_the_median_and_the_middle_half_lies_around_it() -> None:
    found = calibrate._price([5.0, 1.0, 3.0, 2.0, 4.0], "here")
    assert (found.low_ns, found.value_ns, found.high_ns) == (2, 3, 4)


def test_the_first_round_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two rounds the median is between them. Fork takes 30 ns with the memory and 10 without; 256 pages are 1 MiB."""
    names = ("reuse_fault", "copy_fault", "fork", "empty")
    rounds = iter([dict.fromkeys(names, 77e9), dict(zip(names, (900.0, 2_900.0, 30.0, 10.0), strict=True)),
                   dict(zip(names, (1_100.0, 3_900.0, 30.0, 10.0), strict=True))])  # fmt: skip
    monkeypatch.setattr(calibrate, "_round", lambda _: next(rounds))
    found = calibrate.measure(pages=256, rounds=3).prices
    assert {name: price.value_ns for name, price in found.items()} == {"reuse_fault": 1_000, "copy_fault": 3_400, "fork_gib": 20 * 1024}


def test_what_touching_takes_without_faults_comes_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 256 pages, of known times: a read of the zero page 3 ns a page more than the next read, a copy 40 ns more than a store."""
    every = iter([3 * 256 + 100, 120, 100, 110, 30 * 256 + 50, 60, 50, 70, 9 * 256 + 50, 8 * 256 + 50, 7 * 256 + 50, 40 * 256 + 50, 2_560])
    timed = calibrate._timed

    def known(work: Callable[[], None]) -> int:
        timed(work)
        return next(every)

    monkeypatch.setattr(calibrate, "_timed", known)
    monkeypatch.setattr(calibrate, "_child", lambda: contextlib.nullcontext(5))
    found = calibrate._round(256)
    per_page = {"read_zero_fault": 3, "zero_fill_fault": 30, "reuse_fault": 8, "copy_fault": 40, "copy_4k": 10}
    assert found == {**per_page, "fork": 5, "empty": 5}


@pytest.mark.parametrize(("pages", "rounds"), [(255, 9), (1024, 2), (-1, -1)])
def test_too_little_is_refused(pages: int, rounds: int) -> None:
    with pytest.raises(ValueError, match="256 pages and 3 rounds"):
        calibrate.measure(pages, rounds)


def test_a_system_without_fork_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    with pytest.raises(Unanswerable, match="no fork"):
        calibrate.measure()


def test_a_system_that_refuses_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int) -> dict[str, float]:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(calibrate, "_round", refused)
    with pytest.raises(Unanswerable, match="Cannot allocate memory") as raised:
        calibrate.measure()
    assert "64 MiB" in str(raised.value.hint)


def test_the_machine_is_named() -> None:
    assert os.uname().release in calibrate.machine()
