"""From sums and reals to the integers of a grid, with the rounding of ONNX Runtime or of a fixed-point target."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed.limits import Limits, settle
from edgelathe.model.fixed.limits import store as put
from edgelathe.model.fixed.rescaling import Way, by
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

    A grid that begins at 0 stands for a Relu that the quantizer took out: what lies below is cut off by that.
    """
    found = Limits.between(grid, low, high)
    return replace(found, grid_low=found.grid_low and (grid.axis is not None or grid.zero_point != grid.low))


def store(real: NDArray[Any], grid: Grid, within: Limits | None = None) -> tuple[NDArray[Any], int]:
    """QuantizeLinear: real / scale in float32, halves to even; and how many values the grid had no room for."""
    return put(real, grid, within or limits(grid))


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
    way: Way = "even32" if target.rounding == "float" else "wide" if wide else target.rounding
    return settle(by(factor, way)(sums), np.int64(grid.zero_point), grid, within)
