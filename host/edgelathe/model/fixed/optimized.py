"""Operators of 8 bits as TFLite computes them by default on CPUs, by XNNPACK: the ones that round in ways of their own.

Layers and products are rescaled there by a float32 factor, halves to even (`even32` of `rescaling`). The figures below
are those of XNNPACK's parameters: 20 bits of multiplier for sums, 8 bits of fraction for changes of grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed.elementwise import in_blocks
from edgelathe.model.fixed.limits import Limits, settle, stored
from edgelathe.model.fixed.rescaling import by

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.elementwise import Done
    from edgelathe.model.fixed.types import Grid


@dataclass(frozen=True, eq=False)
class Sum:
    """a + b, or a - b with `sign` -1: both times a multiplier of 20 bits, one shift, halves up."""

    a: Grid
    b: Grid
    out: Grid
    limits: Limits
    sign: int = 1

    def __call__(self, x: NDArray[Any], y: NDArray[Any]) -> Done:
        """The output's integers; x and y broadcast."""
        return in_blocks(self._sum, x, y, stored(self.out))

    def _sum(self, x: NDArray[Any], y: NDArray[Any]) -> Done:
        first, second = (np.float32(g.scale) / np.float32(self.out.scale) for g in (self.a, self.b))
        shift = 20 - (int(np.frexp(max(first, second))[1]) - 1)
        left, right = (int(np.rint(np.ldexp(s, shift))) for s in (first, second))
        total = (x.astype(np.int64) - self.a.zero_point) * left
        total = total + (y.astype(np.int64) - self.b.zero_point) * (self.sign * right)
        total += 1 << (shift - 1)
        total >>= shift
        return settle(total, self.out.zero_point, self.out, self.limits)


@dataclass(frozen=True, eq=False)
class Regrid:
    """From one grid to another, times a multiplier with 8 bits of fraction, halves up; `slope` where x is negative."""

    a: Grid
    out: Grid
    slope: float = 1.0

    def __call__(self, x: NDArray[Any]) -> Done:
        """The output's integers."""
        scale = np.float32(self.a.scale) / np.float32(self.out.scale)
        above, below = (int(np.rint(np.float32(256) * (scale * np.float32(s)))) for s in (1.0, self.slope))
        centred = x.astype(np.int64) - self.a.zero_point
        scaled = centred * np.where(centred >= 0, above, below) + 128 >> 8
        return settle(scaled, self.out.zero_point, self.out, Limits.of(self.out))


@dataclass(frozen=True, eq=False)
class Mean:
    """Mean over axes, or the sum: times a float32 factor, halves to even."""

    a: Grid
    out: Grid
    axes: tuple[int, ...]
    keep: bool
    total: bool = False

    def __call__(self, x: NDArray[Any]) -> Done:
        """The output's integers."""
        n = int(np.prod([x.shape[a] for a in self.axes]))
        total = x.astype(np.int64).sum(axis=self.axes, keepdims=self.keep) - self.a.zero_point * n
        factor = np.float32(self.a.scale) / np.float32(self.out.scale) / np.float32(1 if self.total else n)
        return settle(by(factor, "even32")(total), self.out.zero_point, self.out, Limits.of(self.out))
