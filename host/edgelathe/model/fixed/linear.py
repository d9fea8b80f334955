"""Sums of products in fixed point: convolution, depthwise convolution and fully connected, for TFLite's rounding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgelathe.model.fixed import rounding
from edgelathe.model.fixed.limits import half_away, stored
from edgelathe.model.fixed.products import Filter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.limits import Limits
    from edgelathe.model.fixed.types import Grid, Integers, Overflow, Rounding

_BLOCK = 1 << 15  # sums that stay in a processor's cache
Way = Literal["shift", "wide", "real", "even"]


@dataclass(frozen=True, eq=False)
class Rescale:
    """Finished sums -> integers of the output.

    Attributes:
        factors: input scale * weight scale / output scale, float64, one for all or one a channel (the last axis).
        bias: int64 of the same length, or None.
        way: `shift`: multiplier and shift on 32 bits; `wide`: the same on 48 bits, with a multiplier of 15 bits;
            `real`: factor in float64, halves away from zero; `even`: factor in float32, clamped, halves to even.
        bits, overflow: of the accumulator, the bias added.
        rounding: of `shift`: once or twice.
    """

    factors: NDArray[np.float64]
    bias: Integers | None
    grid: Grid
    limits: Limits
    way: Way = "shift"
    bits: int = 32
    overflow: Overflow = "wrap"
    rounding: Rounding = "double"

    def __call__(self, sums: NDArray[Any]) -> tuple[NDArray[Any], int, int]:
        """(integers, how many were clipped, how many sums overflowed). `sums` hold whole numbers in any type."""
        rows = sums.reshape(-1, sums.shape[-1])
        data, clipped, overflows = np.empty(rows.shape, stored(self.grid)), 0, 0
        for start in range(0, len(rows), step := max(1, _BLOCK // rows.shape[1])):
            total = rows[start : start + step].astype(np.int64)
            if self.bias is not None:
                total += self.bias
            total, outside = rounding.accumulate(total, self.bits, self.overflow)
            data[start : start + step], cut = self.limits.clamp(self._scaled(total), data.dtype)
            clipped, overflows = clipped + cut, overflows + outside
        return data.reshape(sums.shape), clipped, overflows

    @cached_property
    def _multiplier(self) -> tuple[Integers, Integers]:
        return rounding.multiplier(self.factors)

    def _scaled(self, total: Integers) -> Integers:
        if self.way == "real":
            scaled = half_away(total * self.factors).astype(np.int64)
        elif self.way == "even":
            scaled = np.rint(total.astype(np.float32) * self.factors.astype(np.float32)).astype(np.int64)
        elif self.way == "wide":
            scaled = rounding.multiply_wide(total, *self._multiplier)
        else:
            scaled = rounding.multiply(total, *self._multiplier, self.rounding)
        scaled += self.grid.zero_point
        return scaled


@dataclass(frozen=True, eq=False)
class Linear:
    """One such layer: x minus its zero point, through the filter, rescaled."""

    filter: Filter
    zero: int
    rescale: Rescale

    def __call__(self, x: NDArray[Any]) -> tuple[NDArray[Any], int, int]:
        """x: integers [n, h, w, c] as stored. Padding stands for the zero point."""
        return self.rescale(self.filter(centred(x, self.zero, self.filter.dtype)))


def centred(x: NDArray[Any], zero: int, dtype: Any) -> NDArray[Any]:
    """Integers without their zero point, in a type that the sums are exact in."""
    out = x.astype(dtype)
    if zero:
        out -= zero
    return out
