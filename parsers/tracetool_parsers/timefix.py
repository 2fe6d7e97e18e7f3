"""From the ticks of a trace clock to nanoseconds, as trace-cmd goes: the host's clock, then the clock's rate, then an offset.

trace-cmd, lib/trace-cmd/trace-input.c (`timestamp_calc`, `timestamp_host_sync`, `timestamp_correction_calc`, `mul_u64_u32_shr`). Products
are exact here, where trace-cmd's own wrap at 64 bits: the times of a guest whose clock is scaled (fractions of 48 bits) come out right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.uint64]

#: How many times are turned at once: what a step needs stays in the cache.
_BLOCK: Final = 1 << 15
_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)


@dataclass(frozen=True, slots=True, eq=False)
class ClockSamples:
    """What was measured of one guest CPU's clock against the host's: arrays of one length, by time, no time twice.

    Attributes:
        times: int64, ticks of the guest's clock.
        offsets: int64, what to add from then on.
        scalings: uint64, what to multiply by, before.
        fractions: uint64, below 64: by how many bits to shift the product right.
    """

    times: Times
    offsets: Times
    scalings: Numbers
    fractions: Numbers

    @classmethod
    def of(cls, times: Numbers, offsets: Numbers, scalings: Numbers, fractions: Numbers) -> ClockSamples:
        """From the numbers of a TIME_SHIFT option, in any order; of samples of one time the first counts."""
        distinct, first = np.unique(times.view(np.int64), return_index=True)
        return cls(distinct, offsets[first].view(np.int64), scalings[first], fractions[first])

    def apply(self, times: Times, *, interpolate: bool) -> Times:
        """The host's times for the guest's."""
        if self.times.size == 1:
            return times + self.offsets
        # The pair of samples around a time; before the first and after the last the nearest pair.
        at = np.clip(np.searchsorted(self.times, times, "right") - 1, 0, self.times.size - 2)
        offset = self.offsets[at]
        if interpolate:
            apart = self.times[at + 1] - self.times[at]
            grown = (times - self.times[at]) * (self.offsets[at + 1] - offset) + apart // 2
            offset = offset + _divided(grown, apart)
        return _scaled(times, self.scalings[at], self.fractions[at]) + offset


@dataclass(frozen=True, slots=True)
class TimeFix:
    """How time stamps become nanoseconds.

    Attributes:
        host: of each CPU of a guest, its clock against the host's (option TIME_SHIFT); CPUs beyond are left as they are.
        interpolate: whether offsets between two samples are interpolated, or those of the earlier one.
        tsc: multiplier and right shift (0 to 63) that turn ticks into nanoseconds (option TSC2NSEC).
        shift_ns: nanoseconds to add in the end (options DATE and OFFSET).
    """

    host: tuple[ClockSamples | None, ...] = ()
    interpolate: bool = False
    tsc: tuple[int, int] | None = None
    shift_ns: int = 0

    @property
    def trivial(self) -> bool:
        """Whether every time stays what it is."""
        return not any(self.host) and self.tsc is None and not self.shift_ns

    def apply(self, times: npt.NDArray[Any], cpu: int, *, top: bool = True) -> Times:
        """Nanoseconds for the time stamps of one CPU; a new array unless nothing is to be done.

        Args:
            times: int64, at least 0, ticks of the trace clock.
            cpu: the CPU.
            top: whether they are of the top buffer: trace-cmd gives no other buffer the host's clock.
        """
        samples = self.host[cpu] if top and 0 <= cpu < len(self.host) else None
        if samples is None and self.tsc is None and not self.shift_ns:
            return times
        fixed = np.empty_like(times)
        for begin in range(0, times.size, _BLOCK):
            block = slice(begin, begin + _BLOCK)
            fixed[block] = self._block(times[block], samples)
        return fixed

    def _block(self, times: Times, samples: ClockSamples | None) -> Times:
        if samples is not None:
            times = samples.apply(times, interpolate=self.interpolate)
        if self.tsc is not None:
            multiplier, shift = (np.full(times.size, number, np.uint64) for number in self.tsc)
            times = _scaled(times, multiplier, shift)
        return times + np.int64(self.shift_ns)


def _scaled(ticks: Times, multiplier: Numbers, shift: Numbers) -> Times:
    """(ticks * multiplier) >> shift, the product in 128 bits; shifts below 64."""
    a, b = ticks.view(np.uint64), multiplier
    a_low, a_high, b_low, b_high = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    lowest, left, right = a_low * b_low, a_low * b_high, a_high * b_low
    middle = (lowest >> _HALF) + (left & _LOW) + (right & _LOW)
    low = (middle << _HALF) | (lowest & _LOW)
    high = a_high * b_high + (left >> _HALF) + (right >> _HALF) + (middle >> _HALF)
    # A shift by 64 is not defined, hence the upper half goes in two steps.
    scaled: Times = ((low >> shift) | (high << np.uint64(1) << (np.uint64(63) - shift))).view(np.int64)
    return scaled


def _divided(number: Times, by: Times) -> Times:
    """Division that rounds toward zero, as C does; `by` is more than 0."""
    floor: Times = number // by
    toward_zero: Times = floor + ((number < 0) & (floor * by != number))
    return toward_zero
