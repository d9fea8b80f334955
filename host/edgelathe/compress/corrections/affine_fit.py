"""Affine maps per channel, o' = c o + b, fitted in closed form to wanted values, or to labels by their likelihood.

To values: least squares, each channel on its own. To labels: the class probabilities softmax(c o + b) of highest
likelihood, drawn toward the map that changes nothing (vector scaling: Guo et al., On Calibration of Modern Neural
Networks, 2017, section 4.2); the loss is convex, Newton's steps find its least value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgelathe.compress.corrections.held_out import FOLDS, HELD

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[np.float64]
_FIT = tuple(range(HELD))  # the folds that fits see
_SLOPES = (0.25, 4.0)  # what a channel may be scaled by: beyond, it has lost what could be scaled
_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # of the pull toward no change, against the mean loss of a sample
_STEPS, _ENOUGH = 30, 1e-9  # Newton's


@dataclass(frozen=True, eq=False)
class Map:
    """o' = scale * o + shift, both float64 [channels], scale positive."""

    scale: Array
    shift: Array

    @classmethod
    def none(cls, channels: int) -> Map:
        """The map that changes nothing."""
        return cls(np.ones(channels), np.zeros(channels))

    @property
    def changes(self) -> NDArray[np.bool_]:
        """Which channels it changes."""
        return np.asarray((self.scale != 1) | (self.shift != 0))

    def __call__(self, values: Array) -> Array:
        """Of values [..., channels]."""
        return values * self.scale + self.shift


class Sums:
    """What least squares needs of values o and wanted f [rows, channels], by fold: n, o, f, oo, of, ff."""

    def __init__(self, channels: int) -> None:
        self.n = np.zeros(FOLDS)
        self.o, self.f, self.oo, self.of, self.ff = (np.zeros((FOLDS, channels)) for _ in range(5))

    def add(self, fold: int, o: Array, f: Array) -> None:
        """Take in rows."""
        self.n[fold] += len(o)
        pairs = ((self.o, o), (self.f, f), (self.oo, o * o), (self.of, o * f), (self.ff, f * f))
        for total, values in pairs:
            total[fold] += values.sum(axis=0)

    def fit(self, folds: Sequence[int], *, scaled: bool) -> Map:
        """The map [channels] of least squared error on some folds; only shifted where not `scaled`, or not sound."""
        which = list(folds)
        n = max(self.n[which].sum(), 1.0)
        o, f, oo, of = (v[which].sum(axis=0) / n for v in (self.o, self.f, self.oo, self.of))
        variance, together = oo - o * o, of - o * f
        sound = variance > 1e-12 * np.maximum(oo, 1e-30)
        slope = np.where(sound, together / np.where(sound, variance, 1.0), 1.0) if scaled else np.ones_like(o)
        slope = np.where((slope >= _SLOPES[0]) & (slope <= _SLOPES[1]), slope, 1.0)
        return Map(slope, f - slope * o)

    def error(self, folds: Sequence[int], by: Map) -> Array:
        """Summed squared error [channels] on some folds."""
        which = list(folds)
        n = self.n[which].sum()
        o, f, oo, of, ff = (v[which].sum(axis=0) for v in (self.o, self.f, self.oo, self.of, self.ff))
        c, b = by.scale, by.shift
        found = c * c * oo + 2 * c * b * o + n * b * b - 2 * c * of - 2 * b * f + ff
        return np.asarray(np.maximum(found, 0.0))


def least_squares(sums: Sums, *, scaled: bool = True) -> Map:
    """The map fitted to all folds but the held one; `scaled` false: it may only shift.

    Each channel is left, shifted, or scaled and shifted: what has the least error on folds outside of the fit.
    """
    channels = sums.o.shape[1]
    best, chosen = sums.error(_FIT, Map.none(channels)), Map.none(channels)
    for also in (False, True) if scaled else (False,):
        error = np.zeros(channels)
        for k in _FIT:
            error += sums.error([k], sums.fit([j for j in _FIT if j != k], scaled=also))
        full, wins = sums.fit(_FIT, scaled=also), error < best
        best = np.where(wins, error, best)
        chosen = Map(np.where(wins, full.scale, chosen.scale), np.where(wins, full.shift, chosen.shift))
    return chosen


def likeliest(o: Array, labels: NDArray[np.int64], fold: NDArray[np.int64]) -> Map:
    """The map of outputs o [n, classes] under which labels [n] are likely, fitted to all folds but the held one.

    How strongly it is drawn to no change is what makes labels outside of the fit likeliest.
    """
    seen = fold != HELD

    def outside(strength: float) -> float:
        total = 0.0
        for k in _FIT:
            own, others = fold == k, seen & (fold != k)
            total += log_loss(_newton(o[others], labels[others], strength)(o[own]), labels[own]) * own.sum()
        return total

    return _newton(o[seen], labels[seen], min(_STRENGTHS, key=outside))


def log_loss(o: Array, labels: NDArray[np.int64]) -> float:
    """Mean of -log softmax(o)[label]."""
    shifted = o - o.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(o)), labels]).mean())


def _newton(o: Array, labels: NDArray[np.int64], strength: float) -> Map:
    """The map of least log loss plus strength / 2 (|c - 1|^2 + |b|^2 / variance of o) by Newton's method."""
    n, k = o.shape
    unit = max(float(o.std()), 1e-12)
    x, y = o / unit, np.zeros((n, k))  # of size one, so that both parts of the pull mean the same
    y[np.arange(n), labels] = 1
    theta = np.concatenate([np.full(k, unit), np.zeros(k)])
    start, pull = theta.copy(), strength * np.concatenate([np.full(k, 1 / unit**2), np.full(k, 1 / unit**2)])

    def loss(at: Array) -> float:
        return log_loss(x * at[:k] + at[k:], labels) + 0.5 * float(pull @ np.square(at - start))

    now = loss(theta)
    for _ in range(_STEPS):
        z = x * theta[:k] + theta[k:]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        slope, px = (p - y) / n, p * x
        gradient = np.concatenate([(slope * x).sum(axis=0), slope.sum(axis=0)]) + pull * (theta - start)
        hessian = np.diag(pull)
        for (i, a), (j, b), own in (
            ((0, px), (0, px), px * x), ((0, px), (1, p), px), ((1, p), (0, px), px), ((1, p), (1, p), p),
        ):  # fmt: skip
            block = hessian[i * k : (i + 1) * k, j * k : (j + 1) * k]
            block += (np.diag(own.sum(axis=0)) - a.T @ b) / n
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while (after := loss(theta - size * step)) > now and size > 1e-6:
            size /= 2
        if not after < now - _ENOUGH:
            break
        theta, now = theta - size * step, after
    scale = theta[:k] / unit
    return Map(np.clip(scale, *_SLOPES), theta[k:])
