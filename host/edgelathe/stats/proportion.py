"""Intervals of a share."""

from __future__ import annotations

import math

from edgelathe.core.interval import Interval
from edgelathe.stats.special import z


def wilson(successes: int, n: int, alpha: float = 0.025) -> Interval:
    """Wilson's score bounds of a share, each alone with confidence 1 - alpha: by default the two-sided 95% interval.

    Wilson (1927); recommended over Wald's by Brown, Cai and DasGupta (2001), section 3.1.1. Assumes independent
    samples. For one-sided 95% bounds give alpha = 0.05. No samples: [0, 1].
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no share")
    if n == 0:
        return Interval(0.0, 1.0)
    p, k = successes / n, z(alpha) ** 2
    middle = (successes + k / 2) / (n + k)
    reach = math.sqrt(k * (n * p * (1 - p) + k / 4)) / (n + k)
    # at 0 and n the formula gives 0 and 1 but for rounding
    return Interval(
        0.0 if successes == 0 else min(p, middle - reach), 1.0 if successes == n else max(p, middle + reach)
    )
