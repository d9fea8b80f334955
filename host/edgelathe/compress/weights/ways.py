"""Rounding that keeps several ways open, those of least loss so far, until the last input is rounded.

As `second_order` rounds: one input after the other, each made up for the errors of those before. The level that costs a
little more now may cost less later (the M-algorithm: Anderson and Mohan, Sequential Coding Algorithms, 1984; K-best in
sphere decoding).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgelathe.compress.weights.levels import Levels

Array = NDArray[np.float64]
_MOST = 16  # ways
_WORK = 1 << 20  # weights times ways of one layer; larger layers have fewer ways
_ENTRIES = 1 << 20  # weights times ways that are held at once
_BLOCK = 32  # inputs that are rounded between two matrix products


class Near(Protocol):
    """The levels that numbers may become."""

    def __call__(self, real: Array, at: tuple[slice, slice]) -> tuple[Array, Array]:
        """Next to each number [g, o, ways], in units, of groups and outputs `at`; and the next on its other side.

        Where there is none, the same again.
        """


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


def factored(hessian: Array) -> Array:
    """V [g, f, f], lower triangular with H = V'V, from Cholesky's of H with rows and columns turned round."""
    turned = np.linalg.cholesky(hessian[:, ::-1, ::-1])
    return np.swapaxes(turned[:, ::-1, ::-1], 1, 2)


def followed(found: Rounded, weights: Array, factor: Array, levels: Levels) -> Rounded:
    """Round real `weights` [g, o, f] once more, with scales and offsets as found; outputs that lose less take it over.

    `factor` [g, f, f] is lower triangular, V of H = V'V.
    """
    ways = count(weights.size)
    if ways < 2:
        return found
    offset = found.offset.astype(np.float64)

    def near(real: Array, at: tuple[slice, slice]) -> tuple[Array, Array]:
        zero = offset[at][:, :, None]
        first, second = levels.two_nearest(real - zero)
        return first + zero, second + zero

    q, loss = rounded(weights, factor, found.scale.astype(np.float64), near, ways)
    won = loss < found.loss
    integers = np.where(won[:, :, None], q, found.integers).astype(np.int8)
    return replace(found, integers=integers, loss=np.where(won, loss, found.loss))


def count(weights: int) -> int:
    """How many ways are kept open in a layer of so many weights; below 2: none beside the nearest."""
    return min(_MOST, _WORK // max(weights, 1))


def rounded(weights: Array, factor: Array, unit: Array, near: Near, ways: int) -> tuple[Array, Array]:
    """Levels [g, o, f], in units [g, o], that stand for real `weights`, and what they lose [g, o].

    `factor` [g, f, f] as for `followed`.
    """
    g, o, f = weights.shape
    outputs = max(1, _ENTRIES // (f * ways))
    groups = max(1, outputs // o)
    out, loss = np.empty(weights.shape), np.empty((g, o))
    for i in range(0, g, groups):
        for j in range(0, o, outputs):
            at = slice(i, i + groups), slice(j, j + outputs)
            own = functools.partial(near, at=at)
            out[at], loss[at] = _rounded(weights[at], factor[at[0]], unit[at][:, :, None], own, ways)
    return out, loss


def _rounded(
    weights: Array, factor: Array, unit: Array, near: Callable[[Array], tuple[Array, Array]], ways: int
) -> tuple[Array, Array]:
    """The same at once, in units [g, o, 1]."""
    g, o, f = weights.shape
    diagonal = np.diagonal(factor, axis1=1, axis2=2)
    ratio = (factor / diagonal[:, :, None])[:, None]
    own = np.arange(g)[:, None, None], np.arange(o)[:, None]
    loss = np.broadcast_to(np.where(np.arange(ways) > 0, np.inf, 0.0), (g, o, ways))  # one way so far
    taken, parents = np.empty((f, g, o, ways)), np.empty((f, g, o, ways), np.int8)
    rest = np.repeat(weights[:, :, None], ways, axis=2)  # real weights still to be rounded, made up for errors
    for start in range(0, f, _BLOCK):
        stop = min(start + _BLOCK, f)
        came = np.broadcast_to(np.arange(ways), loss.shape)  # from which way at the block's start
        errors = np.zeros((g, o, ways, stop - start))
        for i in range(start, stop):
            k = i - start
            past = errors[:, :, :, :k] @ ratio[:, :, i, start:i, None]
            w = rest[(*own, came, k)] + past[:, :, :, 0]
            q = np.stack(near(w / unit), axis=3)
            cost = np.square((w[:, :, :, None] - q * unit[:, :, :, None]) * diagonal[:, None, None, i, None])
            cost[:, :, :, 1][q[:, :, :, 0] == q[:, :, :, 1]] = np.inf
            cost = (loss[:, :, :, None] + cost).reshape(g, o, -1)
            kept = np.argpartition(cost, ways - 1, axis=2)[:, :, :ways]
            parent = kept >> 1
            loss, came = cost[(*own, kept)], came[(*own, parent)]
            errors[:, :, :, :k] = errors[(*own, parent, slice(k))]
            taken[i], parents[i] = q.reshape(g, o, -1)[(*own, kept)], parent
            errors[:, :, :, k] = weights[:, :, i, None] - taken[i] * unit
        rest = rest[(*own, came, slice(stop - start, None))]
        rest += errors @ np.swapaxes(ratio[:, :, stop:, start:stop], 2, 3)
    way, least = loss.argmin(axis=2)[:, :, None], loss.min(axis=2)
    out = np.empty((g, o, f))
    for i in range(f - 1, -1, -1):
        out[:, :, i] = taken[i][(*own, way)][:, :, 0]
        way = parents[i][(*own, way)]
    return out, least
