"""Samples that follow one another in time: how many independent ones they are worth, and whether they have settled."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgelathe.stats.special import beta_below, student, z

Blocks = Sequence[NDArray[np.generic]]


MOST = 50_000
"""Longer series are looked at in groups of neighbours."""


def effective_size(blocks: Blocks) -> float:
    """How many independent samples the mean of these is worth, from 1 to the number of samples.

    n divided by the greater of two estimates of the variance's inflation: `autocorrelation_time` over the samples one
    after the other, and `block_effect` for what a block's samples share. Values that are all equal count as
    independent. Assumes a stationary series; a drift lowers the answer, which is the safe side. Chosen by simulation:
    from 50 samples up, 95% intervals at this size cover 94% or more for independent samples and for AR(1) with rho 0.5,
    93% or more where blocks share a fifth of the variance, and are at most a tenth wider than they need be where
    samples are independent.
    """
    series = [np.asarray(b, np.float64) for b in blocks if len(b)]
    n = sum(map(len, series))
    if n < 4:
        return float(n)
    values = np.concatenate(series)
    centred = values - values.mean()
    if float(centred @ centred) <= 1e-20 * float(values @ values):
        return float(n)
    return n / min(n, max(1.0, autocorrelation_time(centred), block_effect(series)))


def autocorrelation_time(centred: NDArray[np.float64]) -> float:
    """Variance of the mean over that of independent values, for a series with mean 0.

    Geyer (1992), Practical Markov Chain Monte Carlo, 3.3: the initial monotone sequence of pair sums of
    autocorrelations. Subtracting the sample's mean makes each of these too small by about the time / n, and the pairs
    are summed over a few times the time: hence the last factor, whose 4 is from simulation.
    """
    group = len(centred) // MOST
    if group > 1:  # means of neighbours say the same, and the transform below stays quick
        means = centred[: len(centred) - len(centred) % group].reshape(-1, group).mean(1)
        share = group * float(means @ means) / len(means) / (float(centred @ centred) / len(centred))
        return max(1.0, share * autocorrelation_time(means))
    n = len(centred)
    size = 1 << (2 * n - 1).bit_length()  # padded, so that the ends do not meet
    covariance = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2, size)[:n]
    pairs = (covariance / covariance[0])[: n - n % 2].reshape(-1, 2).sum(1)
    ends = np.flatnonzero(pairs <= 0)
    kept = np.minimum.accumulate(pairs[: ends[0]] if len(ends) else pairs)
    time = max(1.0, 2 * float(kept.sum()) - 1)
    return time * (1 + 4 * (time - 1) / n)


def block_effect(blocks: Sequence[NDArray[np.float64]]) -> float:
    """Variance of the mean over that of independent values, from the means of the blocks; 1 where they do not differ.

    Batch means (Law, Simulation Modeling and Analysis, 9.5.3), with Student's t for the few blocks there are, once
    the F test of a one-way layout sees a difference at 20%: without that test 10 blocks of independent samples would
    cost intervals a sixth wider. Fewer than 4 blocks, or one sample in each, say nothing: 1.
    """
    many, n = len(blocks), sum(map(len, blocks))
    if many < 4 or n < 2 * many:
        return 1.0
    values = np.concatenate(blocks)
    mean = float(values.mean())
    total = float(((values - mean) ** 2).sum())
    between = sum(len(b) * (float(b.mean()) - mean) ** 2 for b in blocks)
    if total <= 0 or beta_below(min(1.0, between / total), (many - 1) / 2, (n - many) / 2) < 0.8:
        return 1.0
    return between / (many - 1) / (total / n) * (student(0.025, many - 1) / z(0.025)) ** 2


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, the mean rank for ties."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranked: NDArray[np.float64] = (ends - (counts - 1) / 2)[at.reshape(-1)]
    return ranked


def steady(blocks: Blocks, window: int = 8, tolerance: float = 0.01) -> bool:
    """Whether the last blocks show that the warm-up is over; False as long as fewer than 5 blocks are there.

    Over the medians of the last `window` blocks: steady where they agree within `tolerance` of their median (the
    criterion of Georges, Buytaert and Eeckhout, 2007, with the range for the coefficient of variation), or where
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
