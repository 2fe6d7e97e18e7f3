"""Prices: the cost table, what each kind of work takes where a trace does not show it; `costs.toml` beside this module, and a user's own.

A user's table is a TOML file with some of the same entries, each a table (`value_ns`, and where they are known `low_ns`, `high_ns`,
`source`) or just the number of ns:

    reuse_fault = 800

    [copy_fault]
    value_ns = 2_500
    low_ns = 2_400
    high_ns = 2_700
    source = "measured on db7"
"""

from __future__ import annotations

import functools
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tracetool.errors import TraceError, UnknownName, Unusable

#: An entry's own keys.
_KEYS: Final = ("value_ns", "low_ns", "high_ns", "source")
_HINT: Final = "an entry is a number of ns, or a table of value_ns, low_ns, high_ns and source; `tracetool costs calibrate` prints some"


@dataclass(frozen=True)
class Price:
    """What one piece of work takes, in ns: the price, how far measurements of it lie apart, and who says so."""

    value_ns: float
    low_ns: float
    high_ns: float
    source: str


@dataclass(frozen=True)
class Prices:
    """The cost table; `fork_gib` and `fork_huge_gib` are for a GiB, all others for one fault, page or interrupt. See `costs.toml`."""

    reuse_fault: Price
    copy_fault: Price
    zero_fill_fault: Price
    read_zero_fault: Price
    copy_4k: Price
    copy_2m: Price
    huge_split_fault: Price
    huge_reuse_fault: Price
    hugetlb_copy_fault: Price
    vmsplice_page: Price
    process_vm_readv_page: Price
    fork_gib: Price
    fork_huge_gib: Price
    tlb_shootdown: Price
    tlb_shootdown_cpu: Price

    @property
    def extra_copy(self) -> Price:
        """What a COW fault that copies 4 KiB takes more than one that reuses: the price of one more copy, never below 0."""
        copy, reuse = self.copy_fault, self.reuse_fault
        low, value, high = copy.low_ns - reuse.high_ns, copy.value_ns - reuse.value_ns, copy.high_ns - reuse.low_ns
        source = f"a copy ({copy.source}) less a reuse ({reuse.source})"
        return Price(max(value, 0.0), max(low, 0.0), max(high, 0.0), source)

    def shootdown_ns(self, threads: npt.ArrayLike, cpus: int) -> npt.NDArray[np.float64]:
        """What telling other CPUs of a copy adds to it, in ns (float64, shape of `threads`): 0 in an address space of one thread.

        Args:
            threads: threads of the address space at that moment.
            cpus: CPUs of the machine; 0: not known. No more of them can have to be told than there are threads.
        """
        running = np.asarray(threads, np.int64)
        reached = np.minimum(running, cpus) if cpus > 0 else running
        told = self.tlb_shootdown.value_ns + self.tlb_shootdown_cpu.value_ns * (reached - 1)
        return np.where(reached > 1, told, 0.0)


def load(path: str | None) -> Prices:
    """The cost table, with the entries of a user's TOML file (`path`; None: without) in the place of its own.

    An entry that gives no `low_ns` or `high_ns` has none: they are its `value_ns`.

    Raises:
        UnknownName: the file has an entry that the table has not; the hint lists what there is.
        Unusable: it is no TOML, or an entry's value cannot be one: the message names entry, key and line.
        TraceError: it cannot be read.
    """
    table = _shipped()
    return table if path is None else replace(table, **_read(path))


@functools.cache
def _shipped() -> Prices:
    text = resources.files("tracetool.costs").joinpath("costs.toml").read_text("utf-8")
    return Prices(**{name: Price(**entry) for name, entry in tomllib.loads(text).items()})


def _read(path: str) -> dict[str, Price]:
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
        table = tomllib.loads(text)
    except OSError as error:
        raise TraceError(f"cannot be read: {error.strerror}", path=path, hint="--costs takes a TOML file") from error
    except UnicodeDecodeError as error:
        raise Unusable("is no TOML: not UTF-8", path=path, offset=error.start, hint=_HINT) from error
    except tomllib.TOMLDecodeError as error:
        raise Unusable(f"is no TOML: {error}", path=path, hint=_HINT) from error
    return {name: _Entry(path, text, name).price(entry) for name, entry in table.items()}


@dataclass(frozen=True)
class _Entry:
    """An entry of a user's file, and where it stands, for what is wrong with it."""

    path: str
    text: str
    name: str

    def price(self, entry: Any) -> Price:
        known = [field.name for field in fields(Prices)]
        if self.name not in known:
            raise self._placed(UnknownName("entry of the cost table", self.name, known))
        if not isinstance(entry, Mapping):
            value = self._number("", entry)
            return Price(value, value, value, self.path)
        for key in entry:
            if key not in _KEYS:
                raise self._placed(UnknownName(f"key of {self.name}", key, _KEYS), key)
        if "value_ns" not in entry:
            raise self._wrong("", "has no value_ns")
        value = self._number("value_ns", entry["value_ns"])
        low, high = (self._number(key, entry.get(key, value)) for key in ("low_ns", "high_ns"))
        if not low <= value:
            raise self._wrong("low_ns", f"is {low:g}, above value_ns, which is {value:g}")
        if not value <= high:
            raise self._wrong("high_ns", f"is {high:g}, below value_ns, which is {value:g}")
        source = entry.get("source", self.path)
        if not isinstance(source, str):
            raise self._wrong("source", f"is {source!r}, where a text is expected")
        return Price(value, low, high, source)

    def _number(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, f"is {value!r}, where a number of ns is expected")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number) or number < 0:
            raise self._wrong(key, f"is {value}, where a time in ns is expected: finite, and not below 0")
        return number

    def _wrong(self, key: str, what: str) -> Unusable:
        return Unusable(f"{self._at(key)}{self._key(key)} {what}", path=self.path, hint=_HINT)

    def _placed(self, error: UnknownName, key: str = "") -> UnknownName:
        error.message, error.path = f"{self._at(key)}{error.message}", self.path
        return error

    def _key(self, key: str) -> str:
        return f"{self.name}.{key}" if key else self.name

    def _at(self, key: str) -> str:
        """`line N: ` where the key stands; nothing where it is written in a way that is not looked for."""
        lines = self.text.splitlines()
        header = re.compile(rf"""\s*\[\s*["']?{re.escape(self.name)}["']?\s*\]""")
        inline = re.compile(rf"""\s*["']?{re.escape(self.name)}["']?\s*[=.]""")
        begin = next((n for n, line in enumerate(lines) if header.match(line) or inline.match(line)), None)
        if begin is None:
            return ""
        own = re.compile(rf"""\s*(?:{re.escape(self.name)}\s*\.\s*)?["']?{re.escape(key)}["']?\s*=""")
        if key and not own.match(lines[begin]):
            for number, line in enumerate(lines[begin + 1 :], begin + 1):
                if re.match(r"\s*\[", line):
                    break
                if own.match(line):
                    begin = number
                    break
        return f"line {begin + 1}: "
