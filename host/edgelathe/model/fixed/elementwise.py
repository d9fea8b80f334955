"""Sums, products and changes of grid of single values in fixed point, with TFLite's rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed import rounding
from edgelathe.model.fixed.limits import Limits, half_away, settle, store, stored
from edgelathe.model.fixed.rescaling import by

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.rescaling import Way
    from edgelathe.model.fixed.types import Grid, Integers

_BLOCK = 1 << 15
Done = tuple["NDArray[Any]", int]  # integers of the output, and how many of them were clipped


@dataclass(frozen=True, eq=False)
class Sum:
    """a + b, or a - b with `sign` -1, of three different grids.

    Both are brought to twice the larger scale with 20 bits to spare (15 where they have more than 8), then added.
    """

    a: Grid
    b: Grid
    out: Grid
    limits: Limits
    sign: int = 1
    way: Way = "double"

    def __call__(self, x: NDArray[Any], y: NDArray[Any]) -> Done:
        """The output's integers; x and y broadcast."""
        return in_blocks(self._sum, x, y, stored(self.out))

    def _sum(self, x: NDArray[Any], y: NDArray[Any]) -> Done:
        spare = 20 if self.out.bits <= 8 else 15
        twice = 2 * max(self.a.scale, self.b.scale)
        left = by(self.a.scale / twice, self.way)((x.astype(np.int64) - self.a.zero_point) << spare)
        right = by(self.b.scale / twice, self.way)((y.astype(np.int64) - self.b.zero_point) << spare)
        factor = twice / ((1 << spare) * self.out.scale)
        total = by(factor, self.way)(left + self.sign * right)
        return settle(total, self.out.zero_point, self.out, self.limits)


@dataclass(frozen=True, eq=False)
class ShiftedSum:
    """The same for 16 bits where all scales are powers of two: the finer input is shifted right, no more is rounded."""

    a: int
    b: int
    limits: Limits
    sign: int = 1

    def __call__(self, x: NDArray[Any], y: NDArray[Any]) -> Done:
        """`a`, `b`: by how many bits each input is finer than the output."""
        left = rounding.divide_by_power(x.astype(np.int64), self.a)
        right = rounding.divide_by_power(y.astype(np.int64), self.b)
        return self.limits.clamp(left + self.sign * right, np.dtype(np.int16))


@dataclass(frozen=True, eq=False)
class Product:
    """a * b of three different grids. Their factor is computed in float32, as TFLite does."""

    a: Grid
    b: Grid
    out: Grid
    limits: Limits
    way: Way = "double"

    def __call__(self, x: NDArray[Any], y: NDArray[Any]) -> Done:
        """The output's integers; x and y broadcast."""
        factor = np.float32(self.a.scale) * np.float32(self.b.scale) / np.float32(self.out.scale)
        product = (x.astype(np.int64) - self.a.zero_point) * (y.astype(np.int64) - self.b.zero_point)
        return settle(by(factor, self.way)(product), self.out.zero_point, self.out, self.limits)


@dataclass(frozen=True, eq=False)
class Regrid:
    """From one grid to another, cut off by an activation. `single`: the factor is a float32 number, as for ReLU."""

    a: Grid
    out: Grid
    limits: Limits
    way: Way = "double"
    single: bool = False

    def __call__(self, x: NDArray[Any]) -> Done:
        """The output's integers."""
        factor = self.a.scale / self.out.scale
        if self.single:
            factor = float(np.float32(self.a.scale) / np.float32(self.out.scale))
        scaled = by(factor, self.way)(x.astype(np.int64) - self.a.zero_point)
        return settle(scaled, self.out.zero_point, self.out, self.limits)


@dataclass(frozen=True, eq=False)
class LeakyRelu:
    """x where it is positive, else alpha x."""

    a: Grid
    out: Grid
    alpha: float
    way: Way = "double"

    def __call__(self, x: NDArray[Any]) -> Done:
        """The output's integers."""
        centred = x.astype(np.int64) - self.a.zero_point
        return _bent(centred, centred, self.a, self.out, np.float32(self.alpha), self.way)


@dataclass(frozen=True, eq=False)
class Prelu:
    """x where it is positive, else x times a slope; slopes broadcast."""

    a: Grid
    slope: Grid
    out: Grid
    way: Way = "double"

    def __call__(self, x: NDArray[Any], slope: NDArray[Any]) -> Done:
        """The output's integers."""
        centred = x.astype(np.int64) - self.a.zero_point
        product = centred * (slope.astype(np.int64) - self.slope.zero_point)
        return _bent(centred, product, self.a, self.out, np.float32(self.slope.scale), self.way)


def in_blocks(kernel: Callable[..., Done], x: NDArray[Any], y: NDArray[Any], dtype: np.dtype[Any]) -> Done:
    """A kernel of two inputs of one shape a block at a time, so that what it holds stays in a processor's cache."""
    if x.shape != y.shape:
        return kernel(x, y)
    a, b, out, clipped = x.reshape(-1), y.reshape(-1), np.empty(x.size, dtype), 0
    for start in range(0, x.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        out[block], cut = kernel(a[block], b[block])
        clipped += cut
    return out.reshape(x.shape), clipped


def _bent(above: Integers, below: Integers, a: Grid, out: Grid, slope: np.float32, way: Way) -> Done:
    """`above` where it is positive, else `below` times the slope; factors are float32 numbers, as TFLite has them."""
    same = np.float32(a.scale) / np.float32(out.scale)
    less = np.float32(a.scale) * slope / np.float32(out.scale)
    scaled = np.where(above >= 0, by(same, way)(above), by(less, way)(below))
    return settle(scaled, out.zero_point, out, Limits.of(out))


def quantize(x: NDArray[Any], grid: Grid) -> Done:
    """Reals to integers: divided by the scale in float32, halves away from zero."""
    return store(x, grid, Limits.of(grid), half_away)
