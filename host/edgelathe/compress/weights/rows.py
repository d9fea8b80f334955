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
_AT_ONCE = 1 << 21  # numbers of what a layer makes that are looked at together


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
        return self._unhidden(weights, bias, slice(None))

    def unhidden_sum(self, weights: Array, bias: Array) -> Array:
        """`unhidden` summed over rows, float64 [g, o], without holding all of it."""
        groups, count, outputs = self.y.shape
        step = max(1, _AT_ONCE // (groups * outputs * _BLOCK)) * _BLOCK
        total = np.zeros((groups, outputs))
        for start in range(0, count, step):
            total += self._unhidden(weights, bias, slice(start, start + step)).sum(axis=1, dtype=np.float64)
        return total

    def _unhidden(self, weights: Array, bias: Array, at: slice) -> Rows32:
        made = self.x[:, at] @ np.swapaxes(weights, 1, 2).astype(np.float32) + bias[:, None].astype(np.float32)
        wanted = self.y[:, at]
        beside = None if self.beside is None else self.beside[:, at]
        if beside is not None:
            made, wanted = made + beside, wanted + beside
        out = wanted
        if np.isfinite(self.low):
            low = np.float32(self.low)
            out = np.where(wanted > low, out, np.minimum(made, low))
        if np.isfinite(self.high):
            high = np.float32(self.high)
            out = np.where(wanted < high, out, np.maximum(made, high))
        return out if beside is None else out - beside


class Stack:
    """Rows [groups, r, n] that come chunk by chunk, put where they stay: they are held once."""

    def __init__(self, expected: int) -> None:
        """`expected`: rows, about."""
        self._rows, self._count = np.empty((0, expected, 0), np.float32), 0

    def add(self, rows: Rows32) -> None:
        """Take in rows [r, groups, n]."""
        end = self._count + len(rows)
        held = self._rows.shape
        if not self._count:
            self._rows = np.empty((rows.shape[1], max(held[1], end), rows.shape[2]), np.float32)
        elif end > held[1]:
            wider = np.empty((held[0], max(2 * held[1], end), held[2]), np.float32)
            wider[:, : self._count] = self._rows[:, : self._count]
            self._rows = wider
        self._rows[:, self._count : end] = np.moveaxis(rows, 1, 0)
        self._count = end

    def whole(self) -> Rows32:
        """All of them, contiguous."""
        return np.ascontiguousarray(self._rows[:, : self._count])


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
