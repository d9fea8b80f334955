"""One layer's constants at each width, and the grid that its input is rounded to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.calibrate import scales
from edgelathe.compress.integer import weighted
from edgelathe.compress.sensitivity.reference import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgelathe.compress.integer.weighted import Weighted
    from edgelathe.compress.sensitivity.passes import Block
    from edgelathe.compress.sensitivity.scene import Scene

_COUNTED = 1 << 16  # values that the grid of a layer's input is fitted to


def changes(
    scene: Scene, layer: Weighted, block: Block, widths: Sequence[int], activations: int | None
) -> list[Change]:
    """The layer's constants at each width, and its input's rounding, to the range that the first block has."""
    source = rounding(block.real(layer.source), activations) if activations else None
    return [Change(weighted.rounded(layer, bits, scene.means[layer.source]), source) for bits in widths]


def rounding(values: NDArray[np.float32], bits: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """To the grid of least squared error, of those whose range is the values' or a part of it."""
    flat = values.reshape(-1)
    some = flat[:: max(1, flat.size // _COUNTED) | 1]  # an odd step misses no channel of 2, 4, 8, ...
    low, high = float(values.min()), float(values.max())

    def onto(part: float) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        grid = scales.affine(low * part, high * part, signed=False, bits=bits)
        scale = np.float32(grid.scale)
        return lambda x: np.clip(np.rint(x / scale), grid.low - grid.zero, grid.high - grid.zero) * scale

    found = [onto(part) for part in np.linspace(1.0, 0.1, 46)]
    return min(found, key=lambda f: float(np.square(f(some) - some).mean(dtype=np.float64)))
