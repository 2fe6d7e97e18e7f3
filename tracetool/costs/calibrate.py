"""Calibrate: what faults and fork take on this machine, measured by forking and touching pages, without privileges.

Pages are touched by `mmap`'s own assignment to a slice with a step of one page, so that a batch of them is one call; what the same call
takes where no page faults is taken off. Of each batch the mean is kept; of the rounds the median is the price, and the middle half of them
lies between its low and high.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Final

from tracetool.costs.prices import Price, Prices
from tracetool.errors import Unanswerable

#: Pages of a batch (64 MiB), and batches of each kind; the first is thrown away.
PAGES: Final = 1 << 14
ROUNDS: Final = 9
#: How often fork is tried in each round: what else the machine does only ever makes it longer, so that the least counts.
FORKS: Final = 3

_GIB: Final = 1 << 30


@dataclass(frozen=True)
class Calibration:
    """Measured prices by their entry in the cost table, and the `machine` they were measured on."""

    machine: str
    prices: dict[str, Price]

    def toml(self) -> str:
        """The prices as a TOML file that `--costs` takes."""
        lines = [f"# Measured by `tracetool costs calibrate` on {self.machine}. Times are in ns."]
        for name, price in self.prices.items():
            numbers = (f"{key} = {round(getattr(price, key), 1)}" for key in ("value_ns", "low_ns", "high_ns"))
            # JSON's strings are TOML's basic strings.
            lines += ["", f"[{name}]", *numbers, f"source = {json.dumps(price.source, ensure_ascii=False)}"]
        return "\n".join(lines) + "\n"


def measure(pages: int = PAGES, rounds: int = ROUNDS) -> Calibration:
    """Measure what faults and fork take here: `reuse_fault`, `copy_fault`, `zero_fill_fault`, `read_zero_fault`, `copy_4k`, `fork_gib`.

    Takes some seconds, and four times the memory of the batch for a moment.

    Args:
        pages: pages of a batch, 256 or more, so that what surrounds it weighs little.
        rounds: how often each kind is measured, 3 or more; the first of them only warms up.

    Raises:
        ValueError: too few pages or rounds.
        Unanswerable: this system has no fork, or gives too little memory.
    """
    if pages < 256 or rounds < 3:
        raise ValueError("a measurement needs 256 pages and 3 rounds")
    if not hasattr(os, "fork"):
        raise Unanswerable("this system has no fork", hint="calibrate on the machine whose traces are to be priced")
    taken: dict[str, list[float]] = {}
    try:
        for number in range(rounds):
            for name, ns in _round(pages).items():
                if number:
                    taken.setdefault(name, []).append(ns)
    except OSError as error:
        hint = f"a batch has {pages * mmap.PAGESIZE >> 20} MiB, and four times that are taken for a moment"
        raise Unanswerable(f"this system does not let pages be measured: {error.strerror}", hint=hint) from error
    # How long fork takes without the memory changes less from round to round than fork itself does.
    empty = statistics.median(taken.pop("empty"))
    taken["fork_gib"] = [max(ns - empty, 0) / (pages * mmap.PAGESIZE) * _GIB for ns in taken.pop("fork")]
    source = f"measured on {machine()}: median and middle half of {rounds - 1} batches of {pages:,} pages"
    order = [field.name for field in fields(Prices) if field.name in taken]
    return Calibration(machine(), {name: _price(taken[name], source) for name in order})


def _price(taken: list[float], source: str) -> Price:
    low, middle, high = statistics.quantiles(taken, n=4, method="inclusive")
    return Price(middle, low, high, source)


def _round(pages: int) -> dict[str, float]:
    """One batch of each kind: what a page takes, in ns; and what `fork` takes with the memory and with the memory `empty`."""
    size = pages * mmap.PAGESIZE
    values = bytes(pages)
    with _memory(size) as memory, _memory(size) as other:

        def write() -> None:
            memory[0 : size : mmap.PAGESIZE] = values

        def read() -> None:
            _ = memory[0 : size : mmap.PAGESIZE]

        read_zero = _timed(read)
        read_again = min(_timed(read) for _ in range(3))
        _forget(memory)
        zero_fill = _timed(write)
        write_again = min(_timed(write) for _ in range(3))
        forks, reuses = [], []
        for _ in range(FORKS):
            with _child() as forked:
                forks.append(forked)
            # All pages are read-only after fork; the child is gone, and nobody else maps them.
            reuses.append(_timed(write))
        # The child still maps them.
        with _child():
            copy = _timed(write)
        memcpy = _copied(memory, other)
        _forget(memory)
        _forget(other)
        empty = []
        for _ in range(FORKS):
            with _child() as forked:
                empty.append(forked)
    faults = {"reuse_fault": statistics.median(reuses), "copy_fault": copy, "zero_fill_fault": zero_fill}
    return {
        **{name: max(ns - write_again, 0) / pages for name, ns in faults.items()},
        "read_zero_fault": max(read_zero - read_again, 0) / pages,
        "copy_4k": memcpy / size * 4096,
        "fork": min(forks),
        "empty": min(empty),
    }


def _timed(work: Callable[[], None]) -> int:
    """How long it takes, in ns."""
    begin = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - begin


def _copied(source: mmap.mmap, target: mmap.mmap) -> int:
    """How long it takes to copy memory that has pages already, in ns."""
    with memoryview(source) as given, memoryview(target) as taken:

        def copy() -> None:
            taken[:] = given

        copy()
        return _timed(copy)


@contextlib.contextmanager
def _memory(size: int) -> Iterator[mmap.mmap]:
    """Private anonymous memory without pages yet, of base pages only."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        # A kernel without huge pages knows no such advice.
        with contextlib.suppress(OSError, AttributeError):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        yield memory


def _forget(memory: mmap.mmap) -> None:
    """Give its pages back."""
    memory.madvise(mmap.MADV_DONTNEED)


@contextlib.contextmanager
def _child() -> Iterator[int]:
    """A child that maps what this process maps, and touches nothing until the end; gives how long fork took, in ns."""
    reader, writer = os.pipe()
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns where other threads run: the child only waits and goes.
            warnings.simplefilter("ignore", DeprecationWarning)
            begin = time.perf_counter_ns()
            child = os.fork()
            if not child:
                _wait(reader, writer)
            took = time.perf_counter_ns() - begin
    except BaseException:
        os.close(reader)
        os.close(writer)
        raise
    os.close(reader)
    try:
        yield took
    finally:
        os.close(writer)
        os.waitpid(child, 0)


def _wait(reader: int, writer: int) -> None:
    """The child: wait until the parent closes its end, or is gone, and go without a trace."""
    try:
        os.close(writer)
        os.read(reader, 1)
    finally:
        os._exit(0)


def machine() -> str:
    """This machine in a few words: CPU, whether it is a virtual one, and kernel."""
    model, flags = platform.machine(), ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                model = value.strip()
            elif name.strip() == "flags":
                flags = value
                break
    virtual = " in a virtual machine" if "hypervisor" in flags.split() else ""
    return f"{model}{virtual}, {platform.system()} {platform.release()}"
