"""Where an output ends, by its grid or sooner by an activation, and numbers put on it: what is cut off is counted."""

from __future__ import annotations

from collections.abc import Callable
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
Nearest = Callable[["NDArray[Any]"], "NDArray[Any]"]  # reals to whole numbers


@dataclass(frozen=True)
class Limits:
    """The smallest and largest integer of an output; `grid_low`, `grid_high`: whether the grid ends it there."""

    low: int
    high: int
    grid_low: bool = True
    grid_high: bool = True

    @classmethod
    def of(cls, grid: Grid, activation: int = NONE) -> Limits:
        """Those of a grid under a fused activation of TFLite, whose bounds are rounded away from zero at halves."""
        if activation not in BOUNDS:
            what = f"fused activation number {activation} is not simulated"
            raise UserError("the model", what, "measure it on a device instead")
        return cls.between(grid, *BOUNDS[activation], half_away)

    @classmethod
    def between(cls, grid: Grid, low: float | None, high: float | None, nearest: Nearest = np.rint) -> Limits:
        """Those of a grid whose values an activation clamps to low..high (real numbers, None: no bound).

        Rounding is monotone: clamping reals and then rounding gives the same as clamping to the rounded bounds, which
        are rounded in float32.
        """
        first, last = (
            None if b is None else int(nearest(np.float32(b) / np.asarray(np.float32(grid.scale)))) + grid.zero_point
            for b in (low, high)
        )
        return cls(
            grid.low if first is None else min(max(first, grid.low), grid.high),
            grid.high if last is None else max(min(last, grid.high), grid.low),
            first is None or first < grid.low,
            last is None or last > grid.high,
        )

    def clamp(self, x: NDArray[Any], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
        """Whole numbers within the limits, and how many lay outside of the grid. Overwrites x; NaN becomes lowest."""
        x, clipped = np.asarray(x), 0
        if self.grid_high and x.size and x.max() > self.high:
            clipped += int(np.count_nonzero(x > self.high))
        if self.grid_low and x.size and x.min() < self.low:
            clipped += int(np.count_nonzero(x < self.low))
        if x.dtype.kind == "f":
            np.fmax(x, self.low, out=x)
            np.fmin(x, self.high, out=x)
        else:
            np.clip(x, self.low, self.high, out=x)
        return x.astype(dtype), clipped


def settle(rounded: NDArray[Any], zeros: Any, grid: Grid, within: Limits) -> tuple[NDArray[Any], int]:
    """Whole numbers without the zero point -> integers of the grid, and how many were clipped. Overwrites `rounded`."""
    rounded = np.asarray(rounded)
    if rounded.dtype == np.float32 and grid.bits <= 16:
        zeros = np.asarray(zeros, np.float32)  # such numbers are exact
    same = rounded.dtype == np.result_type(rounded, zeros) and rounded.shape == np.broadcast(rounded, zeros).shape
    return within.clamp(np.add(rounded, zeros, out=rounded if same else None), stored(grid))


def store(real: NDArray[Any], grid: Grid, within: Limits, nearest: Nearest = np.rint) -> tuple[NDArray[Any], int]:
    """Reals on a grid: divided by the scale in float32, rounded by `nearest`; and how many it had no room for."""
    scales, zeros = (grid.spread(a, real.shape) for a in (grid.scales, grid.zero_points))
    return settle(nearest(real.astype(np.float32, copy=False) / scales.astype(np.float32)), zeros, grid, within)


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
