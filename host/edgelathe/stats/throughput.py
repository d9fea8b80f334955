"""Samples a second, from blocks that each took some samples some time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgelathe.core.claim import Claim
from edgelathe.core.interval import Interval
from edgelathe.stats.boundary import repeated
from edgelathe.stats.series import effective_size
from edgelathe.stats.special import student

FEWEST = 4
"""With fewer blocks there is no interval."""


def throughput(blocks: Sequence[tuple[int, int]]) -> tuple[float, Interval]:
    """Samples a second with a two-sided 95% interval, from (samples, ns) of each block; see `bounded`."""
    return bounded(blocks, 0.025)


def claim(blocks: Sequence[tuple[int, int]], looks: int = 1) -> Claim:
    """Samples a second with one-sided 95% bounds, which hold at whichever of `looks` one stopped; see `bounded`."""
    value, ends = bounded(blocks, repeated(0.05, looks))
    return Claim(value, ends.low, ends.high, n=sum(samples for samples, _ in blocks))


def bounded(blocks: Sequence[tuple[int, int]], alpha: float) -> tuple[float, Interval]:
    """All samples over all time, and its bounds, each alone with confidence 1 - alpha; infinite below FEWEST blocks.

    A ratio estimator with the variance of its residuals (Cochran, Sampling Techniques, 2.11 and 6.4), on the scale of
    logarithms, with Student's t at the number of independent blocks they are worth (`series.effective_size`).
    Raises ValueError where there is no block, or one took no time or no samples.
    """
    if not blocks or any(samples <= 0 or ns <= 0 for samples, ns in blocks):
        raise ValueError("every block needs samples and time")
    done, seconds = np.array([b[0] for b in blocks], np.float64), np.array([b[1] for b in blocks], np.float64) / 1e9
    n, rate = len(blocks), float(done.sum() / seconds.sum())
    if n < FEWEST:
        return rate, Interval(0.0, math.inf)
    residuals = (done - rate * seconds) / float(done.mean())
    size = effective_size([residuals])
    if size < 2:
        return rate, Interval(0.0, math.inf)
    reach = student(alpha, size - 1) * math.sqrt(float(residuals @ residuals) / (n - 1) / size)
    return rate, Interval(rate * math.exp(-reach), rate * math.exp(reach))
