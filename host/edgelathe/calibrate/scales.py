"""Scale and zero point from statistics: real = scale * (stored - zero), 0 on the grid (Jacob et al., 2018, 2.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.calibrate.statistics import Statistics

_SMALLEST = 2.0**-100  # of a scale: products of two stay normal float32 numbers
_CANDIDATES = 160  # ends of the range that are tried on each side of zero


@dataclass(frozen=True)
class Grid:
    """The integers low..high that stand for reals; `scale` is a float32 number."""

    scale: float
    zero: int
    low: int
    high: int

    @property
    def signed(self) -> bool:
        """Whether the integers are int8, else uint8."""
        return self.low < 0

    def store(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Nearest stored integers, ties to even, clipped."""
        q = np.clip(np.rint(values / np.float32(self.scale)) + self.zero, self.low, self.high)
        return np.asarray(q, np.int8 if self.signed else np.uint8)


def affine(low: float, high: float, signed: bool, bits: int = 8) -> Grid:
    """The grid of 2**bits integers that spans [low, high] and 0; nothing is spanned from 0 on, as a Relu."""
    first = -(2 ** (bits - 1)) if signed else 0
    last = first + 2**bits - 1
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / (last - first)))
    if scale < _SMALLEST:
        return Grid(1.0, first, first, last)
    return Grid(scale, min(max(round(first - low / scale), first), last), first, last)


def symmetric(low: float, high: float) -> Grid:
    """The int8 grid with zero in its middle that spans both ends, as runtimes without zero points want it."""
    scale = float(np.float32(max(-low, high, 0.0) / 127))
    return Grid(scale if scale >= _SMALLEST else 1.0, 0, -128, 127)


def fit(values: NDArray[np.float32], spans: Sequence[tuple[float, float]], signed: bool) -> Grid:
    """The grid of least squared error on real values, of those over `spans` and over spans a little off them.

    For inputs of a model: images were 256 levels once. On those nothing is lost, but on a grid half a step beside them,
    as zero in the middle of [-1, 1] makes it, every value is half a step wrong; a step a little off is better.
    """
    found = []
    for low, high in spans:
        for stretch in (1.0, *np.linspace(0.97, 1.03, 12)):
            grid = affine(low * stretch, high * stretch, signed)
            error = (grid.store(values).astype(np.float32) - grid.zero) * np.float32(grid.scale) - values
            found.append((float((error * error).mean(dtype=np.float64)), grid))
    return min(found, key=lambda f: f[0])[1]


def minmax(s: Statistics, _levels: int, _percentile: float) -> tuple[float, float]:
    """The exact range: nothing is clipped."""
    return s.low, s.high


def percentile(s: Statistics, _levels: int, percentile: float) -> tuple[float, float]:
    """The range that holds `percentile` % of the values on each side."""
    counts = s.histogram.counts
    if not len(counts):
        return s.low, s.high
    share = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    low, high = np.interp([1 - percentile / 100, percentile / 100], share, s.histogram.edges)
    return max(float(low), s.low), min(float(high), s.high)


def mse(s: Statistics, levels: int, _percentile: float, share: float = 1.0) -> tuple[float, float]:
    """The range of least mean squared error, clipping and rounding together; rounding counts for `share` of the values.

    Rounding costs scale**2 / 12 per value inside (Bennett, 1948; not for the zeros, which are exact), clipping the
    squared distance; both ends are searched (as in Banner et al., 2019, with the histogram for the density).
    """
    counts, centres = s.histogram.counts.astype(np.float64), s.histogram.centres
    if not len(counts):
        return s.low, s.high
    lows, highs = _ends(s)
    at_zero = -s.histogram.first
    inside = counts.copy()
    if 0 <= at_zero < len(counts):
        inside[at_zero] = 0
    below = _beyond(-centres[::-1], counts[::-1], inside[::-1], -lows)
    above = _beyond(centres, counts, inside, highs)
    step = (highs[None, :] - lows[:, None]) / (levels - 1)
    kept = inside.sum() - below[1][:, None] - above[1][None, :]
    cost = share * kept * step**2 / 12 + below[0][:, None] + above[0][None, :]
    i, j = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return float(lows[i]), float(highs[j])


def seen(s: Statistics, clamped: Statistics, levels: int) -> tuple[float, float]:
    """The range of a term a of least error of a clamped sum.

    Args:
        s: of what the clamp lets through, clamp(a + b) - b.
        clamped: of the clamped sum.
        levels: of the grid.

    Where the sum is clamped, rounding a changes nothing; clipping it does.
    """
    counts = clamped.histogram.counts
    share = 1 - float(counts[0] / counts.sum()) if len(counts) else 1.0
    return mse(s, levels, 0, max(share, 1e-3))


def entropy(s: Statistics, levels: int, _percentile: float) -> tuple[float, float]:
    """The symmetric cut of |x| that loses least information (Migacz, 8-bit inference with TensorRT, 2017)."""
    counts, centres = s.histogram.counts, s.histogram.centres
    if not len(counts):
        return s.low, s.high
    bins = 2048
    width = max(abs(s.low), abs(s.high)) / bins or 1.0
    p = np.bincount(np.minimum((np.abs(centres) / width).astype(np.int64), bins - 1), counts, bins).astype(np.float64)
    p[0] = p[1]  # zeros are stored exactly, they say nothing of the range
    cells = levels // 2 if s.low < 0 < s.high else levels
    best, cut = np.inf, bins
    for end in range(cells, bins + 1, 16):
        loss = _divergence(p, end, cells)
        if loss < best:
            best, cut = loss, end
    limit = (cut + 0.5) * width
    return max(s.low, -limit), min(s.high, limit)


Rule = Callable[["Statistics", int, float], tuple[float, float]]
# `auto` is `mse`, and `seen` where the caller knows that readers see less.
RULES: Mapping[str, Rule] = {"auto": mse, "minmax": minmax, "percentile": percentile, "mse": mse, "entropy": entropy}


def weight_scales(w: NDArray[np.float32], axis: int | None, largest: int) -> NDArray[np.float32]:
    """Symmetric scales, max |w| / largest: one per index of `axis`, or one (shape ()) for None; 1 where all is zero."""
    axes = None if axis is None else tuple(i for i in range(w.ndim) if i != axis % w.ndim)
    scale = (np.abs(w).max(axis=axes) / np.float32(largest)).astype(np.float32)
    return np.where(scale < _SMALLEST, np.float32(1), scale).astype(np.float32)


def store_weights(w: NDArray[np.float32], scale: NDArray[np.float32], axis: int | None, largest: int) -> NDArray[Any]:
    """Weights as integers in -largest..largest, to nearest: int8, above 127 int16."""
    full = scale if axis is None else scale.reshape([-1 if i == axis % w.ndim else 1 for i in range(w.ndim)])
    return np.asarray(np.clip(np.rint(w / full), -largest, largest), np.int8 if largest <= 127 else np.int16)


def _ends(s: Statistics) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Candidates for both ends of the range: from the exact range inwards to a tenth of it."""
    inwards = np.linspace(1.0, 0.1, _CANDIDATES)
    return (s.low * inwards if s.low < 0 else np.zeros(1)), (s.high * inwards if s.high > 0 else np.zeros(1))


def _beyond(
    x: NDArray[np.float64], counts: NDArray[np.float64], inside: NDArray[np.float64], ends: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Summed squared distance of the values above each end, and how many of `inside` they are; x ascends."""
    at = np.searchsorted(x, ends, side="right")

    def tail(v: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.concatenate([np.cumsum(v[::-1])[::-1], [0.0]])[at], np.float64)

    squares = tail(counts * x * x) - 2 * ends * tail(counts * x) + ends**2 * tail(counts)
    return np.maximum(squares, 0), tail(inside)


def _divergence(p: NDArray[np.float64], end: int, cells: int) -> float:
    """Kullback-Leibler divergence of the first `end` bins, the rest added to the last, from their `cells` averages."""
    reference = p[:end].copy()
    reference[-1] += p[end:].sum()
    start = (np.arange(cells) * end) // cells
    filled = (p[:end] > 0).astype(np.float64)
    mean = np.add.reduceat(p[:end], start) / np.maximum(np.add.reduceat(filled, start), 1)
    coarse = np.repeat(mean, np.diff(np.append(start, end))) * filled
    both = (reference > 0) & (coarse > 0)
    if not both.any():
        return float("inf")
    a, b = reference / reference.sum(), coarse / coarse.sum()
    lost = float(a[(reference > 0) & (coarse <= 0)].sum())
    return float((a[both] * np.log(a[both] / b[both])).sum()) + lost * 20
