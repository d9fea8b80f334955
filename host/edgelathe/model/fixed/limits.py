"""Where an output ends: by its grid, or sooner by a fused activation; and how much of it was cut off by the grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.types import Grid

NONE, RELU, RELU_N1_TO_1, RELU6 = range(4)  # ActivationFunctionType of the TFLite schema
BOUNDS: dict[int, tuple[float | None, float | None]] = {
    NONE: (None, None), RELU: (0.0, None), RELU_N1_TO_1: (-1.0, 1.0), RELU6: (0.0, 6.0),
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """The smallest and largest integer of an output; `grid_low`, `grid_high`: whether the grid ends it there."""

    low: int
    high: int
    grid_low: bool = True
    grid_high: bool = True

    @classmethod
    def of(cls, grid: Grid, activation: int = NONE) -> Limits:
        """Those of a grid under a fused activation. Bounds are rounded in float32, halves away from zero."""
        if activation not in BOUNDS:
            what = f"fused activation number {activation} is not simulated"
            raise UserError("the model", what, "measure it on a device instead")
        low, high = (None if b is None else grid.zero_point + _nearest(b, grid.scale) for b in BOUNDS[activation])
        return cls(
            grid.low if low is None else max(grid.low, low),
            grid.high if high is None else min(grid.high, high),
            low is None or low < grid.low,
            high is None or high > grid.high,
        )

    def clamp(self, x: NDArray[Any], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
        """The values within the limits, and how many lay outside of the grid. Overwrites x."""
        clipped = 0
        if self.grid_high:
            clipped += int(np.count_nonzero(x > self.high))
        if self.grid_low:
            clipped += int(np.count_nonzero(x < self.low))
        np.clip(x, self.low, self.high, out=x)
        return x.astype(dtype), clipped


def clamp_real(x: NDArray[Any], activation: int) -> NDArray[Any]:
    """A fused activation on real numbers."""
    low, high = BOUNDS[activation]
    return x if low is None and high is None else np.clip(x, low, high)


def stored(grid: Grid) -> np.dtype[Any]:
    """The smallest type that holds the integers of a grid."""
    for bits, name in ((8, "int8"), (16, "int16"), (32, "int32")):
        if grid.bits <= bits:
            return np.dtype(name if grid.signed else f"u{name}")
    return np.dtype(np.int64)


def half_away(x: NDArray[Any]) -> NDArray[Any]:
    """The nearest whole number, halves away from zero, of float32 or float64 values in their type: C's round."""
    whole = np.trunc(x)
    return np.asarray(whole + np.copysign(np.abs(x - whole) >= 0.5, x).astype(x.dtype))


def _nearest(bound: float, scale: float) -> int:
    return int(half_away(np.float32(bound) / np.asarray(np.float32(scale))))
