"""The few distribution functions that the rest needs: normal, binomial, Student's t."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def z(alpha: float) -> float:
    """The standard normal quantile that leaves `alpha` above it: z(0.05) = 1.645."""
    return NormalDist().inv_cdf(1 - alpha)


def binomial_window(n: int, p: float) -> tuple[int, NDArray[np.float64]]:
    """The first count k and the probabilities of k, k+1, ... under Binomial(n, p), 0 < p < 1.

    Counts more than 12 standard deviations (and 30) from the mean are left out: together they have less than 1e-15.
    Summed logarithms (DLMF 5.4.1 for the first term, then the ratio of neighbours), so that no n overflows.
    """
    reach = 12 * math.sqrt(n * p * (1 - p)) + 30
    first, last = max(0, math.floor(n * p - reach)), min(n, math.ceil(n * p + reach))
    start = math.lgamma(n + 1) - math.lgamma(first + 1) - math.lgamma(n - first + 1)
    start += first * math.log(p) + (n - first) * math.log1p(-p)
    k = np.arange(first, last)
    steps = np.log(n - k) - np.log(k + 1.0) + (math.log(p) - math.log1p(-p))
    return first, np.exp(start + np.concatenate([[0.0], np.cumsum(steps)]))


def binomial_below(k: int, n: int, p: float) -> float:
    """P(Y <= k) for Y ~ Binomial(n, p)."""
    if p <= 0 or k >= n:
        return 1.0 if k >= 0 else 0.0
    if k < 0 or p >= 1:
        return 0.0
    first, pmf = binomial_window(n, p)
    return min(1.0, float(pmf[: max(0, k - first + 1)].sum()))


def binomial_above(k: int, n: int, p: float) -> float:
    """P(Y >= k) for Y ~ Binomial(n, p)."""
    return binomial_below(n - k, n, 1 - p)


def beta_below(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22, Lentz's method)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges quickly on the other side only
        return 1 - beta_below(1 - x, b, a)
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    h = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            h *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) * h / a


@lru_cache(maxsize=1024)
def student(alpha: float, df: float) -> float:
    """The quantile of Student's t with `df` > 0 degrees of freedom that leaves `alpha` < 0.5 above it.

    By bisection on P(T > t) = I_{df/(df+t^2)}(df/2, 1/2) / 2 (Abramowitz and Stegun 26.7.1).
    """
    if df > 1e6:
        return z(alpha)
    low, high = 0.0, 1.0

    def above(t: float) -> float:
        return beta_below(df / (df + t * t), df / 2, 0.5) / 2

    while above(high) > alpha:
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) > alpha else (low, middle)
    return high
