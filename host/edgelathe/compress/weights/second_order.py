"""Second-order rounding: integers for a linear layer that lose least of its output, in closed form, column by column.

With inputs x, wanted outputs y and moments H = E[x x'], C = E[y x'], the loss |W x - y|^2 of real weights is least at
W* = C H^-1, and any other weights lose e H e' more, e = W* - W, per output. With H = V'V, V lower triangular, this is
the sum over i of V_ii^2 (e_i + sum_j<i V_ij / V_ii e_j)^2: rounding one input after the other, each made up for the
errors of those before it. Frantar and Alistarh, Optimal Brain Compression, 2022, and GPTQ, 2023 (their updates by the
inverse of H are the same numbers); in lattice terms Babai's nearest plane, 1986. With its scale chosen, an output is
rounded once more with several ways kept open at each input, those of least loss so far (the M-algorithm of Anderson and
Mohan, 1984; K-best sphere decoding).

Layers are stacks of groups: W [g, o, f], H [g, f, f], a scale per output [g, o]. A plain layer has g = 1, a depthwise
convolution one group per channel.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgelathe.compress.weights import ways
from edgelathe.compress.weights.ways import Rounded

if TYPE_CHECKING:
    from edgelathe.compress.weights.levels import Levels

Array = NDArray[np.float64]
_BLOCK = 64  # inputs that are rounded between two matrix products
_ENTRIES = 1 << 22  # weights times candidates of scales that are rounded at once
_SMALLEST = 2.0**-100  # of a scale, as elsewhere
# Fractions of the range that the largest weight asks for. Few bits want to clip; 8 bits do not.
_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45)
_BESIDE = (0.95, 1.0, 1.05)  # of the best of them, where levels are moved


def damped(hessian: Array, damp: float, least: Array | float = 0.0) -> tuple[Array, Array]:
    """H + d I and d [g], d = damp * mean diagonal of H, at least `least` [g]; 1 where H is zero, to be factored."""
    mean = np.trace(hessian, axis1=1, axis2=2) / hessian.shape[1]
    d = np.where(mean > _SMALLEST, np.maximum(damp * mean, least), 1.0)
    return hessian + d[:, None, None] * np.eye(hessian.shape[1]), d


def pulled(weights: Array, hessian: Array, cross: Array, damp: Array) -> Array:
    """The real weights of least |W x - y|^2 + damp |W - weights|^2, `hessian` damped already, `cross` = E[y x']."""
    wanted = cross + damp[:, None, None] * weights
    return np.swapaxes(np.linalg.solve(hessian, np.swapaxes(wanted, 1, 2)), 1, 2)


def round_to(
    weights: Array, hessian: Array, levels: Levels, least: NDArray[np.float32], *, shared: bool = False
) -> Rounded:
    """Integers and scales for real `weights` [g, o, f] under a `hessian` [g, f, f] that can be factored.

    Each output (`shared`: all of them together) takes, of scales that clip more or less of its largest weight, the one
    that loses least after rounding; none is below `least` [g, o]. Then moved levels are tried, with scales beside that.
    With scale and offset fixed, several ways of rounding are followed.
    """
    factor = ways.factored(hessian)
    if shared:
        least = np.full_like(least, least.max())

    def largest(offset: int) -> Array:
        high, low = max(levels.high + offset, 1), min(levels.low + offset, -1)
        found = np.maximum(weights.max(axis=2) / high, weights.min(axis=2) / low)
        return np.full_like(found, found.max()) if shared else np.asarray(found)

    def best(candidates: list[tuple[Array, int]]) -> Rounded:
        """Of scales [g, o] with offsets."""
        scale = np.stack([s for s, _ in candidates], axis=1).astype(np.float32)
        scale = np.maximum(np.where(scale < _SMALLEST, np.float32(1), scale), least[:, None])
        offset = np.asarray([c for _, c in candidates], np.int8)
        step = max(1, _ENTRIES // weights.size)
        parts = (
            _best_of(
                _round(weights, factor, scale[:, i : i + step], offset[i : i + step], levels),
                len(offset[i : i + step]), weights.shape, shared=shared,
            )
            for i in range(0, len(offset), step)
        )  # fmt: skip
        return functools.reduce(functools.partial(_better, shared=shared), parts)

    plain = largest(0)
    found = best([(plain * ratio, 0) for ratio in _RATIOS])
    moves = [c for c in levels.offsets if c]
    if not moves:
        return ways.followed(found, weights, factor, levels)
    ratio = np.where(plain > _SMALLEST, found.scale / np.maximum(plain, _SMALLEST), 1.0)
    moved = best([(largest(c) * np.minimum(ratio * near, 1.0), c) for c in moves for near in _BESIDE])
    return ways.followed(_better(found, moved, shared=shared), weights, factor, levels)


def nearest_to(weights: Array, scale: NDArray[np.float32], levels: Levels) -> NDArray[np.int8]:
    """Integers [g, o, f] next to the weights, without second order."""
    return levels.nearest(weights / scale[:, :, None]).astype(np.int8)


def _round(
    weights: Array, factor: Array, scale: NDArray[np.float32], offset: NDArray[np.int8], levels: Levels
) -> Rounded:
    """Round [g, o, f] for each of the scales [g, k, o] and offsets [k]: integers [g, k * o, f] and their losses."""
    g, o, f = weights.shape
    k = scale.shape[1]
    grid, start_at = scale.reshape(g, k * o).astype(np.float64), np.repeat(offset, o)
    diagonal = np.diagonal(factor, axis1=1, axis2=2)
    ratio = factor / diagonal[:, :, None]
    rows = np.broadcast_to(weights[:, None], (g, k, o, f)).reshape(g, k * o, f)
    errors, out = np.empty((g, k * o, f)), np.empty((g, k * o, f), np.int8)
    loss = np.zeros((g, k * o))
    for start in range(0, f, _BLOCK):
        stop = min(start + _BLOCK, f)
        moved = rows[:, :, start:stop] + errors[:, :, :start] @ np.swapaxes(ratio[:, start:stop, :start], 1, 2)
        for i in range(start, stop):
            w = moved[:, :, i - start]
            if i > start:
                w = w + np.einsum("gof,gf->go", errors[:, :, start:i], ratio[:, i, start:i])
            q = levels.nearest(w / grid - start_at) + start_at
            out[:, :, i] = q
            errors[:, :, i] = rows[:, :, i] - q * grid
            loss += np.square((w - q * grid) * diagonal[:, None, i])
    return Rounded(out, scale.reshape(g, k * o), np.broadcast_to(start_at, (g, k * o)), loss)


def _best_of(found: Rounded, k: int, shape: tuple[int, ...], *, shared: bool) -> Rounded:
    """Of k candidates the best for each output, or for all."""
    g, o, f = shape
    loss = found.loss.reshape(g, k, o)
    if shared:
        loss = np.broadcast_to(loss.sum(axis=(0, 2))[None, :, None], loss.shape)
    at = np.argmin(loss, axis=1)[:, None]  # the first of equals: the one that clips least

    def taken(values: NDArray[np.generic], *tail: int) -> NDArray[np.generic]:
        index = at.reshape(g, 1, o, *(1 for _ in tail))
        return np.take_along_axis(values.reshape(g, k, o, *tail), index, axis=1)[:, 0]

    return Rounded(taken(found.integers, f), taken(found.scale), taken(found.offset), taken(found.loss))  # type: ignore[arg-type]  # kept


def _better(a: Rounded, b: Rounded, *, shared: bool) -> Rounded:
    wins = np.full_like(a.loss, b.loss.sum() < a.loss.sum(), bool) if shared else b.loss < a.loss
    return Rounded(
        np.where(wins[:, :, None], b.integers, a.integers),
        np.where(wins, b.scale, a.scale),
        np.where(wins, b.offset, a.offset),
        np.where(wins, b.loss, a.loss),
    )
