"""Values as people read them: times, sizes, addresses, and strings from a trace that must not reach a terminal as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_TIMES: Final = (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000))
_SIZES: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def duration(ns: int) -> str:
    """A length of time in three digits: 2000 ns are `2.00 µs`."""
    for unit, scale in _TIMES:
        if abs(ns) >= scale:
            return f"{_three_digits(ns / scale)} {unit}"
    return f"{ns} ns"


def time_unit(span_ns: int) -> tuple[str, int]:
    """The unit in which moments within `span_ns` are told, and its length in ns: steps of a microsecond or less stay visible."""
    if span_ns >= 10_000_000_000:
        return "s", 1_000_000_000
    return ("ms", 1_000_000) if span_ns >= 1_000_000 else ("µs", 1_000)


def since(ns: int, span_ns: int) -> str:
    """A moment as the time since an origin, all of a span in one unit: `+4.252 ms`."""
    unit, scale = time_unit(span_ns)
    return f"{ns / scale:+,.{6 if unit == 's' else 3}f} {unit}"


def size(length: int) -> str:
    """A number of bytes in binary units: `4 KiB`."""
    value = float(length)
    for unit in _SIZES:
        if abs(value) < 1000 or unit == _SIZES[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value == int(value) or abs(value) >= 10 else f"{value:.1f} {unit}"


def hexadecimal(number: int | None) -> str:
    """An address or frame number as `0x...`, or `?` where none is known."""
    return "?" if number is None else f"{number:#x}"


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 copy`, `2 copies`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(items: Sequence[str]) -> str:
    """An enumeration: `a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def _three_digits(value: float) -> str:
    decimals = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{decimals}f}"
