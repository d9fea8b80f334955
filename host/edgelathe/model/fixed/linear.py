"""Sums of products in fixed point: convolution, depthwise convolution and fully connected, for TFLite's rounding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed import rounding
from edgelathe.model.fixed.limits import settle, stored
from edgelathe.model.fixed.rescaling import by

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from edgelathe.model.fixed.limits import Limits
    from edgelathe.model.fixed.products import Filter
    from edgelathe.model.fixed.rescaling import Scaler, Way
    from edgelathe.model.fixed.transposed import Spread
    from edgelathe.model.fixed.types import Grid, Integers, Overflow

_BLOCK = 1 << 15  # sums that stay in a processor's cache
_ROW = 2048  # values in a row, below which the cost of beginning one shows


@dataclass(frozen=True, eq=False)
class Rescale:
    """Finished sums -> integers of the output.

    Attributes:
        factors: input scale * weight scale / output scale, float64, one for all or one a channel (the last axis).
        bias: int64 of the same length, or None.
        way: how they are rescaled.
        bits, overflow: of the accumulator, the bias added.
    """

    factors: NDArray[np.float64]
    bias: Integers | None
    grid: Grid
    limits: Limits
    way: Way = "double"
    bits: int = 32
    overflow: Overflow = "wrap"

    def __call__(self, sums: NDArray[Any]) -> tuple[NDArray[Any], int, int]:
        """(integers, how many were clipped, how many sums overflowed). `sums` hold whole numbers in any type."""
        if sums.dtype == np.float32 and self._quick is not None:
            return self._quickly(sums, self._quick)
        rows = sums.reshape(-1, sums.shape[-1])
        data, clipped, overflows = np.empty(rows.shape, stored(self.grid)), 0, 0
        for start in range(0, len(rows), step := max(1, _BLOCK // rows.shape[1])):
            total = rows[start : start + step].astype(np.int64)
            if self.bias is not None:
                total += self.bias
            total, outside = rounding.accumulate(total, self.bits, self.overflow)
            data[start : start + step], cut = settle(self._scaler(total), self.grid.zero_point, self.grid, self.limits)
            clipped, overflows = clipped + cut, overflows + outside
        return data.reshape(sums.shape), clipped, overflows

    @cached_property
    def _scaler(self) -> Scaler:
        return by(self.factors, self.way)

    @cached_property
    def _quick(self) -> Quick | None:
        """The way for float32 sums, which are below 2**24, where with the bias added they cannot overflow."""
        most = 0 if self.bias is None else int(np.abs(self.bias).max(initial=0))
        if self.way != "double" or most + (1 << 24) >= 1 << 31:
            return None
        return Quick.of(self.bias, *rounding.multiplier(self.factors))

    def _quickly(self, sums: NDArray[Any], quick: Quick) -> tuple[NDArray[Any], int, int]:
        flat, dtype, clipped = sums.reshape(-1), stored(self.grid), 0
        data = np.empty(flat.size, dtype)
        for start, stop, width in spans(flat.size, sums.shape[-1]):
            scaled = quick(flat[start:stop].reshape(-1, width))
            scaled += self.grid.zero_point
            block, cut = self.limits.clamp(scaled, dtype)
            data[start:stop], clipped = block.reshape(-1), clipped + cut
        return data.reshape(sums.shape), clipped, 0


@dataclass(frozen=True, eq=False)
class Quick:
    """Bias and rescaling of float32 sums, its settings repeated over rows of several channels' lengths."""

    bias: Integers
    multiplier: tuple[Integers, Integers]
    made: dict[int, tuple[NDArray[np.int32], rounding.Narrow]]

    @classmethod
    def of(cls, bias: Integers | None, fixed: Integers, shift: Integers) -> Quick | None:
        """None where a factor is 1/2 or more."""
        if (shift > -1).any():
            return None
        return cls(np.zeros(1, np.int64) if bias is None else bias, (fixed, shift), {})

    def __call__(self, sums: NDArray[np.float32]) -> NDArray[np.int32]:
        """sums: [rows, width], width a multiple of the number of channels."""
        width = sums.shape[1]
        if width not in self.made:
            narrow = rounding.Narrow.of(*self.multiplier, width)
            assert narrow is not None
            self.made[width] = np.resize(self.bias, width).astype(np.int32), narrow
        bias, narrow = self.made[width]
        total = sums.astype(np.int32)
        total += bias
        return narrow(total)


def spans(size: int, channels: int) -> Iterator[tuple[int, int, int]]:
    """Pieces (start, stop, width) of `size` values that stay in a cache, their rows long enough for the processor."""
    width = channels * max(1, _ROW // channels)
    step, main = width * max(1, _BLOCK // width), size // width * width
    for start in range(0, main, step):
        yield start, min(main, start + step), width
    if main < size:
        yield main, size, channels


@dataclass(frozen=True, eq=False)
class Linear:
    """One such layer: x minus its zero point, through the filter, rescaled."""

    filter: Filter | Spread
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
