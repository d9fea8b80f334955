"""Samples that follow one another in time: how many independent ones they are worth, and whether they have settled."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Blocks = Sequence[NDArray[np.generic]]


def effective_size(blocks: Blocks) -> float:
    """How many independent samples the mean of these is worth, from 1 to the number of samples.

    n over the integrated autocorrelation time, whose sum is cut by the initial monotone sequence of Geyer (1992),
    Practical Markov Chain Monte Carlo, 3.3, on the blocks one after the other. An effect that a block's samples share
    is a correlation over the block's length, and so counts. Values that are all equal count as independent.
    Assumes a stationary series; a drift lowers the answer, which is the safe side.
    """
    x = np.concatenate([np.asarray(b, np.float64) for b in blocks]) if len(blocks) else np.empty(0)
    n = len(x)
    if n < 4:
        return float(n)
    x = x - x.mean()
    size = 1 << (2 * n - 1).bit_length()  # padded, so that the ends do not meet
    power = np.abs(np.fft.rfft(x, size)) ** 2
    covariance = np.fft.irfft(power, size)[:n]
    if covariance[0] <= 1e-12 * n * max(1e-300, float(np.abs(x).max()) ** 2) or not x.any():
        return float(n)
    rho = covariance / covariance[0]
    pairs = rho[: n - n % 2].reshape(-1, 2).sum(1)
    ends = np.flatnonzero(pairs <= 0)
    kept = np.minimum.accumulate(pairs[: ends[0] if len(ends) else len(pairs)])
    time = 2 * float(kept.sum()) - 1
    return float(min(n, max(1.0, n / max(time, 1e-9)))) if time > 0 else float(n)


def steady(blocks: Blocks, window: int = 8, tolerance: float = 0.01) -> bool:
    """Whether the last blocks show that the warm-up is over; False as long as fewer than 5 blocks are there.

    Over the medians of the last `window` blocks: steady where they agree within `tolerance` of their median (the
    criterion of Georges, Buytaert and Eeckhout, 2007, 3.2, with the range for the coefficient of variation), or where
    Mann and Kendall's exact trend test (Conover 5.4; Kendall, Rank Correlation Methods, 5) sees no trend at one-sided
    5% either way, or where the trend over the window is less than `tolerance`.
    """
    medians = np.array([np.median(b.astype(np.float64)) for b in blocks[-window:] if len(b)], np.float64)
    if len(medians) < 5:
        return False
    middle = float(np.median(medians))
    if np.ptp(medians) <= tolerance * abs(middle):
        return True
    i, j = np.triu_indices(len(medians), 1)
    differences = medians[j] - medians[i]
    score = abs(int(np.sign(differences).sum()))
    if trend_probability(len(medians), score) > 0.05:
        return True
    slope = float(np.median(differences / (j - i)))  # Theil and Sen's
    return abs(slope) * (len(medians) - 1) <= tolerance * abs(middle)


@lru_cache(maxsize=256)
def trend_probability(n: int, score: int) -> float:
    """P(S >= score) of Kendall's S = concordant - discordant pairs over n values without trend or ties, exactly.

    The number of discordant pairs of a random order has the generating function of the Mahonian numbers.
    """
    counts = np.ones(1)
    for size in range(2, n + 1):
        counts = np.convolve(counts, np.full(size, 1 / size))
    pairs = n * (n - 1) // 2
    most = (pairs - score) // 2  # S = pairs - 2 discordant
    return float(counts[: most + 1].sum()) if most >= 0 else 0.0
