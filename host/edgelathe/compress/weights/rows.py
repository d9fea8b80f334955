"""What a layer reads and is to make at sampled places of its output: rows, their products, and what a clamp hides.

Arrays are stacks of groups: x [g, r, f], y [g, r, o]; a plain layer has g = 1, a depthwise convolution one group per
channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows32 = NDArray[np.float32]
_BLOCK = 4096  # rows whose products are summed in float32; blocks add up in float64


@dataclass(frozen=True, eq=False)
class Rows:
    """Places of a layer's output.

    Attributes:
        x: what is read there.
        y: what is wanted of the layer.
        beside: the other term of the sum that the layer's output goes into, None where there is none.
        low, high: of the clamp that the output, or the sum, goes through; infinite where there is none.
    """

    x: Rows32
    y: Rows32
    beside: Rows32 | None = None
    low: float = -np.inf
    high: float = np.inf

    @property
    def is_clamped(self) -> bool:
        """Whether some of the output is hidden."""
        return bool(np.isfinite(self.low) or np.isfinite(self.high))

    def unhidden(self, weights: Array, bias: Array) -> Rows32:
        """What is wanted of a layer that makes W x + b: where a clamp hides the error of its output, what it makes.

        With u made and t wanted before a clamp to [low, high], |clamp(u) - t|^2, t clamped too, is at most the squared
        distance of u to this, and equal where nothing is made outside that is wanted inside: a fit to it lowers what
        counts (majorization; Zhang et al., Accelerating Very Deep Convolutional Networks, 2015, 3.2, split it so too).
        """
        made = self.x @ np.swapaxes(weights, 1, 2).astype(np.float32) + bias[:, None].astype(np.float32)
        wanted = self.y
        if self.beside is not None:
            made, wanted = made + self.beside, wanted + self.beside
        out = wanted
        if np.isfinite(self.low):
            low = np.float32(self.low)
            out = np.where(wanted > low, out, np.minimum(made, low))
        if np.isfinite(self.high):
            high = np.float32(self.high)
            out = np.where(wanted < high, out, np.maximum(made, high))
        return out if self.beside is None else out - self.beside


def products(a: Rows32, b: Rows32) -> Array:
    """Sums over rows of a b', [g, r, m] and [g, r, n] to [g, m, n]."""
    out = np.zeros((len(a), a.shape[2], b.shape[2]))
    for start in range(0, a.shape[1], _BLOCK):
        left, right = a[:, start : start + _BLOCK], b[:, start : start + _BLOCK]
        if len(a) == 1:
            out[0] += left[0].T @ (left[0] if a is b else right[0])  # one call that may know it to be symmetric
        else:
            out += np.swapaxes(left, 1, 2) @ right
    return out
