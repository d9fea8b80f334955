"""How far a statistic may go when one looks at it several times: Pocock's boundary for any spacing of the looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

GROWTH = 1.4
"""Looks at a measurement are placed so that from one to the next there are so many times as many samples."""

_POINTS = 401
_FAR = 8.0  # below this many standard deviations there is nothing


def level(alpha: float, information: Sequence[float]) -> float:
    """The one-sided level to use at each look, so that the chance to err at any of them is `alpha` < 0.5.

    Statistics standardized to Z_1 ... Z_K at information I_1 < ... < I_K have correlations sqrt(I_j / I_k) (the
    canonical distribution: Jennison and Turnbull, Group Sequential Methods, 3.1). The boundary is constant (Pocock,
    1977), found by recursive integration (Armitage, McPherson and Rowe, 1969). An interval at this level holds at
    whichever look one stops (repeated confidence intervals: Jennison and Turnbull, ch. 9). One look: `alpha` itself.
    """
    if not 0 < alpha < 0.5 or not information or information[0] <= 0:
        raise ValueError(f"alpha {alpha} below 0.5 and positive information are needed")
    return _level(alpha, tuple(math.sqrt(i / k) for i, k in pairwise(information)))


def repeated(alpha: float, count: int) -> float:
    """As `level`, for `count` looks placed by GROWTH; closer ones make it conservative."""
    if count < 1:
        raise ValueError(f"{count} looks")
    return level(alpha, [GROWTH**i for i in range(count)])


@lru_cache(maxsize=512)
def _level(alpha: float, correlations: tuple[float, ...]) -> float:
    normal = NormalDist()
    low, high = normal.inv_cdf(1 - alpha), normal.inv_cdf(1 - alpha / (len(correlations) + 1))
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if crossing(middle, correlations) > alpha else (low, middle)
    return 1 - normal.cdf(high)


def crossing(boundary: float, correlations: Sequence[float]) -> float:
    """P(Z_k >= boundary for some k) of a Markov chain of standard normals with these correlations of neighbours."""
    x = np.linspace(-_FAR, boundary, _POINTS)
    step = x[1] - x[0]
    weights = np.full(_POINTS, step)
    weights[[0, -1]] = step / 2
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    for r in correlations:
        spread = math.sqrt(1 - r * r)
        density = _kernel(x, r, spread) @ (weights * density) if spread > 2 * step else density
    return 1 - float(weights @ density)


def _kernel(x: NDArray[np.float64], r: float, spread: float) -> NDArray[np.float64]:
    away = (x[:, None] - r * x[None, :]) / spread
    kernel: NDArray[np.float64] = np.exp(-(away**2) / 2) / (spread * math.sqrt(2 * math.pi))
    return kernel
