"""Requantization: a real factor as a 32-bit multiplier and a shift, applied with the rounding of the target.

Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference"
(2018), 2.2; the rounding of gemmlowp's fixed-point functions as TFLite's reference kernels call them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from edgelathe.model.fixed.types import Integers, Overflow, Rounding

_HIGHEST = (1 << 31) - 1
_UPPER = 1 if sys.byteorder == "little" else 0  # which of the two int32 in an int64 is its upper half


def multiplier(factor: ArrayLike) -> tuple[Integers, Integers]:
    """Real factors >= 0 as (multiplier, shift), each int64: factor ~ multiplier * 2**(shift - 31).

    The multiplier has its highest bit, number 30, set; factors too small for a shift of -31 become 0.
    """
    mantissa, exponent = np.frexp(np.asarray(factor, np.float64))
    fixed = np.floor(mantissa * (1 << 31) + 0.5).astype(np.int64)  # half away from zero: the factor is not negative
    shift = exponent.astype(np.int64)
    carried = fixed == 1 << 31
    fixed, shift = np.where(carried, fixed // 2, fixed), shift + carried
    tiny = shift < -31
    return np.where(tiny, 0, fixed), np.where(tiny, 0, shift)


def high_mul(a: Integers, b: Integers) -> Integers:
    """Saturating rounding doubling high multiplication of int32 values: the upper half of 2ab, halves up."""
    high: Integers = np.minimum((a * b + (1 << 30)) >> 31, _HIGHEST)
    return high


def divide_by_power(x: Integers, exponent: Integers | int) -> Integers:
    """x / 2**exponent to the nearest integer, halves away from zero."""
    half = np.where(np.asarray(exponent) > 0, np.left_shift(np.int64(1), np.maximum(exponent, 1) - 1), 0)
    quotient: Integers = (x + half - ((x < 0) & (half > 0))) >> np.asarray(exponent)
    return quotient


def multiply(x: Integers, fixed: Integers, shift: Integers, rounding: Rounding = "double") -> Integers:
    """x * multiplier * 2**(shift - 31) for int32 values of x, held as int64; multiplier and shift broadcast.

    `double` rounds twice, after the high multiplication and after the shift (TFLite's default build); `single` once.
    """
    if rounding == "single":
        total = 31 - shift
        once: Integers = (x * fixed + (np.int64(1) << (total - 1))) >> total
        return once
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    if left.any():
        x = wrap(x << left, 32)
    high = _high(x, fixed)
    if right.any():
        sign = high >> 63
        if not right.all():
            sign = np.where(right > 0, sign, 0)
        high += sign
        high += np.where(right > 0, np.left_shift(np.int64(1), np.maximum(right, 1) - 1), 0)
        high >>= right
    return high


@dataclass(frozen=True, eq=False)
class Narrow:
    """`multiply` with rounding twice, for int32 sums and factors below 1/2, in int32 wherever that holds the values.

    Attributes:
        doubled: multipliers times 2, int64 [width]: the upper half of the product is the high multiplication.
        half, right: int32 [width], of the shift, at least 1.
    """

    doubled: Integers
    half: NDArray[np.int32]
    right: NDArray[np.int32]

    @classmethod
    def of(cls, fixed: Integers, shift: Integers, width: int) -> Narrow | None:
        """For rows of `width`, a multiple of the number of channels; None where a factor is 1/2 or more."""
        if (shift > -1).any():
            return None
        fixed, right = (np.resize(a, width) for a in (fixed, -shift))
        return cls(fixed * 2, (1 << (right - 1)).astype(np.int32), right.astype(np.int32))

    def __call__(self, x: NDArray[np.int32]) -> NDArray[np.int32]:
        """x: [rows, width]."""
        product = np.multiply(x, self.doubled, dtype=np.int64)
        product += 1 << 31
        high: NDArray[np.int32] = (product.view(np.int32)[:, _UPPER::2]).copy()
        sign = high >> 31
        sign += self.half
        high += sign
        high >>= self.right
        return high


def _high(x: Integers, fixed: Integers) -> Integers:
    """`high_mul` for multipliers that are not the smallest int32, in one new array; sums of up to 48 bits are exact."""
    if x.size and max(int(x.max()), -int(x.min())) >= 1 << 32:
        upper, lower = x >> 16, x & 0xFFFF
        wide: Integers = (upper * fixed + ((lower * fixed + (1 << 30)) >> 16)) >> 15
        return wide
    product: Integers = np.asarray(x * fixed)
    product += 1 << 30
    product >>= 31
    return product


def multiply_wide(x: Integers, fixed: Integers, shift: Integers) -> Integers:
    """The same for sums of 48 bits, TFLite's with 16-bit activations: a multiplier of 15 bits, one rounding."""
    reduced = np.where(fixed < 0x7FFF0000, (fixed + (1 << 15)) >> 16, 0x7FFF)
    total = 15 - shift
    product: Integers = (x * reduced + (np.int64(1) << (total - 1))) >> total
    return product


def wrap(x: Integers, bits: int) -> Integers:
    """Two's complement of so many bits."""
    if bits >= 64:
        return x
    half = np.int64(1) << (bits - 1)
    return ((x + half) & ((half << 1) - 1)) - half


def accumulate(x: Integers, bits: int, overflow: Overflow) -> tuple[Integers, int]:
    """Finished sums as an accumulator of `bits` holds them, and how many of them did not fit."""
    if bits >= 64:
        return x, 0
    half = np.int64(1) << (bits - 1)
    outside = int(((x < -half) | (x >= half)).sum())
    if not outside:
        return x, 0
    held: NDArray[Any] = np.clip(x, -half, half - 1) if overflow == "saturate" else wrap(x, bits)
    return held, outside
