"""From sums and reals to the integers of a grid, with the rounding of ONNX Runtime or of a fixed-point target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed import rounding
from edgelathe.model.fixed.limits import Limits, stored
from edgelathe.model.fixed.types import Arithmetic, Grid, Rounding

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Target:
    """What an ONNX model is to be computed by.

    Attributes:
        arithmetic: accumulators.
        rounding: `float` multiplies sums by a float32 factor and rounds halves to even, as ONNX Runtime does on every
            machine; `single` and `double` multiply by an integer and shift, as targets without floating point do.
        narrow: two products of uint8 and int8 are added in saturating 16 bits, as x86 without VNNI does (vpmaddubsw).
    """

    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    rounding: Rounding = "float"
    narrow: bool = False

    def accumulator(self, grid: Grid) -> int:
        """Bits of the sums of products of activations on `grid`."""
        return self.arithmetic.wide if grid.bits > 8 else self.arithmetic.accumulator


def limits(grid: Grid, low: float | None = None, high: float | None = None) -> Limits:
    """The limits of a grid whose values an activation clamps to low..high (real numbers, None: no bound).

    Rounding is monotone: clamping reals and then rounding gives the same as clamping to the rounded bounds. A grid that
    begins at 0 stands for a Relu that the quantizer took out: what lies below is cut off by that.
    """
    first, last = (
        None if b is None else int(np.rint(np.float32(b) / np.float32(grid.scale))) + grid.zero_point
        for b in (low, high)
    )
    return Limits(
        grid.low if first is None else min(max(first, grid.low), grid.high),
        grid.high if last is None else max(min(last, grid.high), grid.low),
        (first is None or first < grid.low) and grid.zero_point != grid.low,
        last is None or last > grid.high,
    )


def store(real: NDArray[Any], grid: Grid, within: Limits | None = None) -> tuple[NDArray[Any], int]:
    """QuantizeLinear: real / scale in float32, halves to even; and how many values the grid had no room for."""
    scales, zeros = (grid.spread(a, real.shape) for a in (grid.scales, grid.zero_points))
    scaled = real.astype(np.float32, copy=False) / scales.astype(np.float32)
    return settle(np.rint(scaled, out=scaled), zeros, grid, within)


def shifted(scaled: NDArray[Any], grid: Grid, within: Limits) -> tuple[NDArray[Any], int]:
    """As the kernels do that add the zero point before they round: ties fall otherwise where it is odd."""
    with_zero = scaled.astype(np.float32, copy=False) + np.float32(grid.zero_point)
    return settle(np.rint(with_zero), np.int64(0), grid, within)


def rescale(
    sums: NDArray[Any], factor: NDArray[Any], grid: Grid, within: Limits, target: Target, *, wide: bool = False
) -> tuple[NDArray[Any], int]:
    """Sums of products times `factor` (float32, broadcasts; input scales over output scale) on the output's grid.

    `wide` sums come of activations of more than 8 bits and may take 48.
    """
    if target.rounding == "float":
        scaled = sums.astype(np.float32)
        scaled *= factor
        return settle(np.rint(scaled, out=scaled), np.int64(grid.zero_point), grid, within)
    fixed, shift = rounding.multiplier(factor)
    whole = sums.astype(np.int64)
    if not wide:
        moved = rounding.multiply(whole, fixed, shift, target.rounding)
    else:
        moved = rounding.multiply_wide(whole, fixed, shift)
    return settle(moved, np.int64(grid.zero_point), grid, within)


def settle(rounded: NDArray[Any], zeros: Any, grid: Grid, within: Limits | None) -> tuple[NDArray[Any], int]:
    """Add the zero point, clamp, and count what lay outside of the grid and was not cut off by an activation.

    `rounded` may be overwritten.
    """
    bounds = within or Limits(grid.low, grid.high, grid.axis is not None or grid.zero_point != grid.low, True)
    if rounded.dtype == np.float32 and grid.bits <= 16:
        zeros = np.asarray(zeros, np.float32)  # such numbers are exact
    whole = np.add(rounded, zeros, out=rounded if rounded.dtype == np.result_type(rounded, zeros) else None)
    clipped = 0
    if bounds.grid_low and whole.size and whole.min() < grid.low:
        clipped += int(np.count_nonzero(whole < grid.low))
    if bounds.grid_high and whole.size and whole.max() > grid.high:
        clipped += int(np.count_nonzero(whole > grid.high))
    np.fmax(whole, bounds.low, out=whole)  # NaN becomes the lowest, as in the kernels
    np.fmin(whole, bounds.high, out=whole)
    return whole.astype(stored(grid)), clipped
