"""Rounding that keeps several ways open, those of least loss so far, until the last input is rounded.

As `second_order` rounds: one input after the other, each made up for the errors of those before. The level that costs a
little more now may cost less later (the M-algorithm: Anderson and Mohan, Sequential Coding Algorithms, 1984; K-best in
sphere decoding).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgelathe.compress.weights.levels import Levels

Array = NDArray[np.float64]
_MOST = 16  # ways
_WORK = 1 << 21  # weights times ways of one layer; larger layers have fewer ways
_ENTRIES = 1 << 20  # weights times ways that are held at once
_BLOCK = 32  # inputs that are rounded between two matrix products


@dataclass(frozen=True, eq=False)
class Rounded:
    """What weights became.

    Attributes:
        integers: int8 [g, o, f].
        scale: float32 [g, o].
        offset: int8 [g, o], by how much the levels of an output are moved.
        loss: [g, o], in the unit of y^2.
    """

    integers: NDArray[np.int8]
    scale: NDArray[np.float32]
    offset: NDArray[np.int8]
    loss: Array

    def real(self) -> Array:
        """The weights [g, o, f] that they stand for."""
        return self.integers.astype(np.float64) * self.scale[:, :, None]


def followed(found: Rounded, weights: Array, factor: Array, levels: Levels) -> Rounded:
    """Round real `weights` [g, o, f] once more, with scales and offsets as found; outputs that lose less take it over.

    `factor` [g, f, f] is lower triangular, V of H = V'V.
    """
    g, o, f = weights.shape
    ways = min(_MOST, _WORK // weights.size)
    if ways < 2:
        return found
    integers, loss = found.integers.copy(), found.loss.copy()
    step = max(1, _ENTRIES // (f * ways))
    for i in range(g):
        for start in range(0, o, step):
            at = (i, slice(start, start + step))
            q, lost = _rounded(weights[at], factor[i], found.scale[at], found.offset[at], levels, ways)
            won = lost < loss[at]
            integers[at][won], loss[at][won] = q[won], lost[won]
    return replace(found, integers=integers, loss=loss)


def _rounded(
    weights: Array, factor: Array, scale: NDArray[np.float32], offset: NDArray[np.int8], levels: Levels, ways: int
) -> tuple[NDArray[np.int8], Array]:
    """Integers [o, f] and losses [o] of rows [o, f] under one factor [f, f], with scales and offsets [o]."""
    o, f = weights.shape
    diagonal = np.diagonal(factor)
    ratio = factor / diagonal[:, None]
    unit, zero = scale.astype(np.float64)[:, None, None], offset.astype(np.float64)[:, None, None]
    own = np.arange(o)[:, None]
    loss = np.where(np.arange(ways) > 0, np.inf, np.zeros((o, 1)))  # one way so far
    taken, parents = np.empty((f, o, ways), np.int8), np.empty((f, o, ways), np.int8)
    rest = np.repeat(weights[:, None], ways, axis=1)  # real weights still to be rounded, made up for errors
    for start in range(0, f, _BLOCK):
        stop = min(start + _BLOCK, f)
        came = np.broadcast_to(np.arange(ways), (o, ways))  # from which way at the block's start
        errors = np.zeros((o, ways, stop - start))
        for i in range(start, stop):
            k = i - start
            w = (rest[own, came, k] + errors[:, :, :k] @ ratio[i, start:i])[:, :, None]
            first, second = levels.two_nearest(w[:, :, 0] / unit[:, :, 0] - zero[:, :, 0])
            q = np.stack((first, second), axis=2) + zero
            cost = loss[:, :, None] + np.square((w - q * unit) * diagonal[i])
            cost[:, :, 1][first == second] = np.inf
            cost = cost.reshape(o, -1)
            kept = np.argpartition(cost, ways - 1, axis=1)[:, :ways]
            parent = kept >> 1
            loss, came, errors[:, :, :k] = cost[own, kept], came[own, parent], errors[own, parent, :k]
            q = q.reshape(o, -1)[own, kept]
            taken[i], parents[i] = q, parent
            errors[:, :, k] = weights[:, i, None] - q * unit[:, :, 0]
        rest = rest[:, :, stop - start :][own, came] + errors @ ratio[stop:, start:stop].T
    way = loss.argmin(axis=1)
    out, rows, least = np.empty((o, f), np.int8), own[:, 0], loss.min(axis=1)
    for i in range(f - 1, -1, -1):
        out[:, i], way = taken[i, rows, way], parents[i, rows, way]
    return out, least
