"""Numbers as text traces print them, for the loops of `textscan` and `textread`: decimal, and hexadecimal with `0x` or without."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .loops import index, part
from .textlines import after_spaces, is_digit
from .textmemory import VALUE

Array = npt.NDArray[Any]

#: The longest text of a number.
MOST_DIGITS: Final = 24
# Before the 16 digits of a hexadecimal one: what `0x` leaves.
_MOST_ZEROS: Final = MOST_DIGITS - 18

#: How a field is read.
UNASKED: Final = 0
NUMBER: Final = 1
HEX_NUMBER: Final = 2
STRING: Final = 3

#: What the values of a field are; a field has all that occur.
DECIMAL: Final = 1
NEGATIVE: Final = 2
BIG: Final = 4
HEXADECIMAL: Final = 8
BARE: Final = 16
OTHER: Final = 32
#: Not of the value: a symbol follows the address.
SYMBOL: Final = 64

#: The value of each hexadecimal digit, 99 for other bytes.
DIGITS: Final[Array] = np.full(256, 99, np.int64)
DIGITS[list(b"0123456789abcdef")] = range(16)
DIGITS[list(b"ABCDEF")] = range(10, 16)


@part
def wrapped(high: int, low: int) -> int:
    """Two halves of 32 bits as one int64, the sign of which is the highest bit."""
    if high >= 1 << 31:
        high -= 1 << 32
    return high * (1 << 32) + low


@part
def number_at(data: Array, at: int, end: int, mode: int) -> tuple[int, int, int]:
    """What the number is that starts at `at`, `OTHER` where none does; its value, and where it ends.

    Of a number that needs all of 64 bits without a sign the value has its bits. `mode` is `HEX_NUMBER` where all digits are hexadecimal
    ones, with `0x` or without.
    """
    if at + 1 < end and data[index(at)] == 48 and data[index(at + 1)] == 120:
        return hexadecimal_at(data, at + 2, end)
    if mode == HEX_NUMBER:
        return hexadecimal_at(data, at, end)
    negative = at < end and data[index(at)] == 45
    if negative:
        at += 1
    start = at
    last = min(end, at + 18)
    value = 0
    while at < last:
        digit = DIGITS[data[index(at)]]
        if digit > 9:
            break
        value = value * 10 + digit
        at += 1
    if at == start:
        return OTHER, 0, at
    if at == start + 18 and at < end and is_digit(data[index(at)]):
        return long_at(data, value, at, end, negative)
    return (NEGATIVE, -value, at) if negative else (DECIMAL, value, at)


@part
def long_at(data: Array, value: int, at: int, end: int, negative: bool) -> tuple[int, int, int]:
    """The same for a decimal number of 19 or 20 digits, the first 18 of which are read."""
    high, low = value >> 32, value & 0xFFFFFFFF
    start = at
    while at < end and at < start + 3 and is_digit(data[at]):
        low = low * 10 + (data[at] - 48)
        high = high * 10 + (low >> 32)
        low &= 0xFFFFFFFF
        at += 1
    least = negative and high == 1 << 31 and low == 0
    if at == start + 3 or high >= 1 << 32 or (negative and high >= 1 << 31 and not least):
        return OTHER, 0, at
    value = wrapped(high, low)
    if negative:
        return NEGATIVE, value if least else -value, at
    return BIG if high >= 1 << 31 else DECIMAL, value, at


@part
def hexadecimal_half(data: Array, at: int, last: int) -> tuple[int, int]:
    """The number that the hexadecimal digits from `at` on make, before `last`, and where they end."""
    value = 0
    while at < last:
        digit = DIGITS[data[index(at)]]
        if digit > 15:
            break
        value = value << 4 | digit
        at += 1
    return value, at


@part
def hexadecimal_at(data: Array, at: int, end: int) -> tuple[int, int, int]:
    """The same for hexadecimal digits, at most 16 but for zeros before them."""
    start = at
    while at + 16 < end and data[index(at)] == 48 and DIGITS[data[index(at + 16)]] < 16:
        at += 1
    if at - start > _MOST_ZEROS:
        return OTHER, 0, at
    last = min(end, at + 8)
    high, at = hexadecimal_half(data, at, last)
    value = high
    if at == last and at < end:
        middle = at
        low, at = hexadecimal_half(data, at, min(end, at + 8))
        value = wrapped(high, low) if at - middle == 8 else high << 4 * (at - middle) | low
    if at == start or (at < end and DIGITS[data[index(at)]] < 16):
        return OTHER, 0, at
    return HEXADECIMAL, value, at


@part
def read_number(data: Array, at: int, end: int, mode: int, memory: Array) -> int:
    """Write the number between two places, and spaces around it, to `VALUE`; what it is, `OTHER` where something else stands there."""
    found, memory[VALUE], stop = number_at(data, after_spaces(data, at, end), end, mode)
    return found if after_spaces(data, stop, end) == end else OTHER
