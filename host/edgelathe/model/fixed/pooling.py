"""Pooling, means and sums in fixed point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed import rounding
from edgelathe.model.fixed.limits import Limits, stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.products import Window
    from edgelathe.model.fixed.types import Grid


@dataclass(frozen=True, eq=False)
class AveragePool:
    """Mean of each window over the places that lie within the image, halves away from zero. One grid for in and out."""

    window: Window
    grid: Grid
    limits: Limits

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """x [n, h, w, c] as stored."""
        total = self.window.cut(x.astype(np.int64)).sum(axis=(4, 5))
        count = counts(self.window, x.shape[1], x.shape[2])[None, :, :, None]
        half = count // 2
        mean = np.where(total > 0, (total + half) // count, -((half - total) // count))
        return self.limits.clamp(mean, stored(self.grid))[0]


@dataclass(frozen=True, eq=False)
class MaxPool:
    """Largest value of each window. One grid for in and out."""

    window: Window
    grid: Grid
    limits: Limits

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """x [n, h, w, c] as stored."""
        most = self.window.cut(x, self.grid.low).max(axis=(4, 5))
        return self.limits.clamp(most, stored(self.grid))[0]


@dataclass(frozen=True, eq=False)
class Mean:
    """Mean over axes, or the sum: of a mean the number of values goes into the multiplier, as in TFLite."""

    a: Grid
    out: Grid
    axes: tuple[int, ...]
    keep: bool
    total: bool = False

    def __call__(self, x: NDArray[Any]) -> tuple[NDArray[Any], int]:
        """The output's integers, and how many were clipped."""
        n = int(np.prod([x.shape[a] for a in self.axes]))
        fixed, shift = (int(v) for v in rounding.multiplier(self.a.scale / self.out.scale))
        count = 1 if self.total else n
        more = min(count.bit_length() - 1, 32, 31 + shift)
        scale = np.int64((fixed << more) // count), np.int64(shift - more)
        total = rounding.wrap(x.astype(np.int64).sum(axis=self.axes, keepdims=self.keep) - self.a.zero_point * n, 32)
        mean = rounding.multiply(total, np.asarray(scale[0]), np.asarray(scale[1])) + self.out.zero_point
        return Limits.of(self.out).clamp(mean, stored(self.out))


def counts(window: Window, height: int, width: int) -> NDArray[np.int64]:
    """How many places of each window lie within the image: [oh, ow]."""
    ones = np.ones((1, height, width, 1), np.int64)
    return np.asarray(window.cut(ones).sum(axis=(4, 5))[0, :, :, 0])
