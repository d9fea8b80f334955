"""Exponentials and reciprocals of 32-bit fixed-point numbers, and softmax by them.

Qm.n is m integer and n fraction bits beside the sign. Source: gemmlowp's fixed-point functions: a Taylor series about
-1/8 and exact powers for the exponential, three Newton steps for the reciprocal.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed.limits import half_away, stored
from edgelathe.model.fixed.rounding import divide_by_power, high_mul, multiplier, multiply

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.types import Grid, Integers

_ONE = (1 << 31) - 1  # of Q0.31
_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)  # exp(-1/4), exp(-1/2), ... exp(-16)
_DIFFERENCE = 5  # integer bits of x - max
_SUM = 12  # integer bits of the sum of exponentials


def exp_of_negative(x: Integers) -> Integers:
    """exp(x) in Q0.31 for x <= 0 in Q5.26."""
    quarter = 1 << 24
    rest = (x & (quarter - 1)) - quarter
    result = _exp_about_an_eighth(_left(rest, _DIFFERENCE))
    remainder = rest - x
    for i, power in enumerate(_POWERS):
        taken = (remainder & (1 << (24 + i))) != 0
        result = np.where(taken, high_mul(result, np.asarray(power)), result)
    return np.where(x == 0, _ONE, result)


def _exp_about_an_eighth(a: Integers) -> Integers:
    """exp(a) for a in [-1/4, 0), Q0.31."""
    constant, third = np.asarray(1895147668), np.asarray(715827883)
    x = a + (1 << 28)
    x2 = high_mul(x, x)
    x3, x4 = high_mul(x2, x), high_mul(x2, x2)
    tail = divide_by_power(high_mul(divide_by_power(x4, 2) + x3, third) + x2, 1)
    return constant + high_mul(constant, x + tail)


def one_over_one_plus(a: Integers) -> Integers:
    """1 / (1 + a) in Q0.31 for a in [0, 1), Q0.31."""
    total = a + _ONE
    half = (total + np.where(total >= 0, 1, -1)) // 2  # total is not negative: no truncation to mind
    x = 1515870810 + high_mul(half, np.asarray(-1010580540))
    for _ in range(3):
        x = x + _left(high_mul(x, (1 << 29) - high_mul(half, x)), 2)
    return _left(x, 1)


def _left(x: Integers, bits: int) -> Integers:
    return np.clip(x << bits, -(1 << 31), _ONE)


@dataclass(frozen=True, eq=False)
class Softmax:
    """Softmax over the last axis. The output's grid is that of 0..1: a power of two a step, from its zero point."""

    a: Grid
    out: Grid
    beta: float

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """The output's integers."""
        factor = min(self.beta * self.a.scale * (1 << (31 - _DIFFERENCE)), 2.0**31 - 1)
        fixed, shift = multiplier(factor)
        # What underflows is left out: the radius is that of the largest difference the fixed point holds.
        least = -floor(((1 << _DIFFERENCE) - 1) * (1 << (31 - _DIFFERENCE)) / (1 << int(shift)))
        difference = x.astype(np.int64) - x.max(axis=-1, keepdims=True).astype(np.int64)
        counted = difference >= least
        exps = exp_of_negative(multiply(np.where(counted, difference, 0), fixed, shift))
        total = np.where(counted, divide_by_power(exps, _SUM), 0).sum(axis=-1, keepdims=True)
        zeros = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)  # leading ones of 32 bits that are 0
        reciprocal = one_over_one_plus((total << zeros) - (1 << 31))
        fraction = round(-np.log2(self.out.scale))  # bits: all of the output's, but for the sign where it is symmetric
        share = divide_by_power(high_mul(reciprocal, exps), (_SUM - zeros) + 31 - fraction)
        share = np.where(counted, share, 0) + self.out.zero_point
        return np.asarray(np.clip(share, self.out.low, self.out.high).astype(stored(self.out)))


@dataclass(frozen=True, eq=False)
class Softmax16:
    """Softmax over the last axis for 16-bit inputs and outputs, by tables of 513 values that are interpolated."""

    a: Grid
    out: Grid
    beta: float

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """The output's integers."""
        exps_of = table16(10.0 / 65535, 32767, 2.0 / 65535, np.exp)
        over = table16(1.0 / 65535, -32768, 2.0 / 65535, lambda v: 1.0 / (1.0 + v))
        factor = float(np.float32(self.a.scale) * np.float32(self.beta)) / (10.0 / 65535.0)
        fixed, shift = multiplier(factor)
        difference = x.astype(np.int64) - x.max(axis=-1, keepdims=True).astype(np.int64)
        exps = look_up16(np.clip(multiply(difference, fixed, shift) + 32767, -32768, 32767), exps_of)
        total = exps.sum(axis=-1, keepdims=True)
        zeros = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)
        shifted = ((total << (zeros - 1)) + (1 << 13)) >> 14
        reciprocal = look_up16(np.clip(shifted - ((1 << 15) + (1 << 16)), -32768, 32767), over)
        right = 31 - zeros
        share = (exps * reciprocal + (np.int64(1) << (right - 1))) >> right
        return np.asarray(np.clip(share, 0, 32767).astype(np.int16))


def table16(scale: float, zero: int, out_scale: float, function: Any) -> Integers:
    """513 values of a function at every 128th of the 16-bit inputs, shifted to halve the error midway between two."""
    low, high = scale * (-32768 - zero), scale * (32767 - zero)
    step, inverse = (high - low) / 512, 65536 / (out_scale * 32767 - out_scale * -32768)
    at = low + np.arange(513) * step
    values = function(at[:512]) * inverse
    middle = half_away(function(at[:512] + step / 2) * inverse)
    between = half_away((function(low + (np.arange(512) + 1) * step) * inverse + half_away(values)) / 2)
    table = np.append(
        half_away(values) - half_away((between - middle) / 2), half_away(function(np.array([high])) * inverse)
    )
    return np.asarray(np.clip(table, -32768, 32767).astype(np.int64))


def look_up16(x: Integers, table: Integers) -> Integers:
    """The function of a table at 16-bit integers, linear between its values."""
    index = 256 + (x >> 7)
    base = table[index]
    return np.asarray(base + (((table[index + 1] - base) * (x & 127) + 64) >> 7))
