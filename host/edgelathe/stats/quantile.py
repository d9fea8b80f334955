"""Quantiles of a sample and the order statistics that enclose them, whatever the distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.claim import Claim
from edgelathe.core.interval import Interval
from edgelathe.stats.special import binomial_window

Sorted = NDArray[np.generic]


@lru_cache(maxsize=4096)
def upper_rank(n: int, q: float, alpha: float = 0.05) -> int | None:
    """1-based rank of the smallest sample that is at or above quantile q with confidence 1 - alpha; None: too few.

    The smallest s with P(Y >= s) <= alpha, Y ~ Binomial(n, q): the construction of MLPerf LoadGen's early stopping
    (MLPerf inference rules, appendix on it), which is the one-sided Conover, Practical
    Nonparametric Statistics, 3.2. Assumes independent samples of one distribution, continuous or not.
    """
    _check(n, q, alpha)
    if n == 0:
        return None
    first, pmf = binomial_window(n, q)
    tails = np.cumsum(pmf[::-1])[::-1]  # tails[i] = P(Y >= first + i)
    rank = first + int(np.searchsorted(-tails, -alpha))
    return rank if rank <= n else None


@lru_cache(maxsize=4096)
def lower_rank(n: int, q: float, alpha: float = 0.05) -> int | None:
    """1-based rank of the largest sample that is at or below quantile q with confidence 1 - alpha; None: too few.

    The mirror image of `upper_rank`: the largest r with P(Y <= r - 1) <= alpha.
    """
    _check(n, q, alpha)
    mirrored = upper_rank(n, 1 - q, alpha)
    return None if mirrored is None else n + 1 - mirrored


def quantile_ranks(n: int, q: float, alpha: float = 0.05) -> tuple[int, int] | None:
    """1-based ranks of the samples that enclose quantile q, each tail at most alpha/2; None: too few samples.

    Conover, Practical Nonparametric Statistics, 3.2, with exact binomial tails.
    """
    low, high = lower_rank(n, q, alpha / 2), upper_rank(n, q, alpha / 2)
    return None if low is None or high is None else (low, high)


def samples_needed(q: float, alpha: float = 0.05) -> int:
    """How many samples an upper bound on quantile q needs to exist with confidence 1 - alpha: q^n <= alpha."""
    _check(0, q, alpha)
    return math.ceil(math.log(alpha) / math.log(q) - 1e-9)


def quantile(ordered: Sorted, q: float) -> float:
    """Quantile q of ascending samples, 1 at least, linear between neighbours (Hyndman and Fan, 1996, type 7)."""
    if len(ordered) == 0:
        raise ValueError("no samples")
    at = (len(ordered) - 1) * q
    low = math.floor(at)
    a, b = float(ordered[low]), float(ordered[min(low + 1, len(ordered) - 1)])
    return a if a == b else a + (b - a) * (at - low)


def bounds(ordered: Sorted, q: float, alpha: float, size: float | None = None) -> Interval:
    """A bound on quantile q at each side, each alone with confidence 1 - alpha; infinite where unsupported.

    `size` is the effective number of samples where they are correlated (`series.effective_size`): the ranks are those
    of a sample of that size, taken at the same position in the larger one (Heidelberger and Lewis, 1984:
    the variance of an empirical quantile grows as that of the indicator's mean).
    """
    n = len(ordered)
    size = n if size is None else min(n, math.floor(size))
    low, high = lower_rank(size, q, alpha), upper_rank(size, q, alpha)
    stretch = (n + 1) / (size + 1)
    return Interval(
        -math.inf if low is None else float(ordered[max(1, math.floor(low * stretch)) - 1]),
        math.inf if high is None else float(ordered[min(n, math.ceil(high * stretch)) - 1]),
    )


def interval(ordered: Sorted, q: float, size: float | None = None) -> Interval:
    """The two-sided 95% interval of quantile q, from ascending samples; see `bounds`."""
    return bounds(ordered, q, 0.025, size)


def claim(samples: Sequence[float], q: float) -> Claim:
    """Quantile q of independent samples in any order, 1 at least, with a one-sided 95% bound on each side."""
    ordered = np.sort(np.asarray(samples, np.float64))
    value, ends = quantile(ordered, q), bounds(ordered, q, 0.05)
    return Claim(value, min(ends.low, value), max(ends.high, value), n=len(ordered))


def _check(n: int, q: float, alpha: float) -> None:
    if n < 0 or not 0 < q < 1 or not 0 < alpha < 1:
        raise ValueError(f"n {n}, q {q} and alpha {alpha}: n from 0 up, the others between 0 and 1")
