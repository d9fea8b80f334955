"""Two models on the same samples: what was lost, what was won, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.claim import Claim
from edgelathe.stats.special import binomial_below, student, z

Weighted = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A metric as a function of how often each sample counts: weights [r, n] -> values [r], nan where undefined."""


@dataclass(frozen=True)
class Estimate:
    """A value with a two-sided 95% interval [low, high] and a one-sided 95% bound at each side."""

    value: float
    low: float
    high: float
    lower: float
    upper: float
    n: int

    @property
    def claim(self) -> Claim:
        """The value with its one-sided bounds."""
        return Claim(self.value, self.lower, self.upper, n=self.n)

    def within(self, low: float, high: float) -> Estimate:
        """The same with its bounds cut to the metric's own range."""

        def cut(bound: float) -> float:
            return min(max(bound, low), high)

        return Estimate(self.value, cut(self.low), cut(self.high), cut(self.lower), cut(self.upper), self.n)


@dataclass(frozen=True)
class Drop(Estimate):
    """The share of samples lost, net of those won, with the counts behind it and McNemar's two-sided p."""

    lost: int
    won: int
    p: float


def paired_drop(base_ok: NDArray[np.bool_], ok: NDArray[np.bool_]) -> Drop:
    """(lost - won) / n from whether each sample [n] was right before and is right now.

    Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions, 3rd ed., 13.1: the difference of paired
    proportions, standard error sqrt(lost + won - (lost - won)^2 / n) / n, with the continuity correction 1/n. Assumes
    independent samples. Where no sample changed the standard error is 0 and the bound is the correction alone, 1/n;
    the exact bound on the share of samples that could have been lost unseen is 3/n (-ln 0.05). We keep the 1/n: a
    model that gives the same answers on every sample, as fp16 and folding often do, is then judged by one rule with
    all others, and the difference is far below what a budget can ask of n samples. Bounds stay within [-1, 1].
    Raises ValueError where there is no sample or the lengths differ.
    """
    base_ok, ok = np.asarray(base_ok, bool), np.asarray(ok, bool)
    if base_ok.shape != ok.shape or base_ok.ndim != 1 or not len(ok):
        raise ValueError(f"no paired samples: {base_ok.shape} and {ok.shape}")
    n, lost, won = len(ok), int((base_ok & ~ok).sum()), int((~base_ok & ok).sum())
    value, error = (lost - won) / n, math.sqrt(lost + won - (lost - won) ** 2 / n) / n
    wide, narrow = (z(alpha) * error + 1 / n for alpha in (0.025, 0.05))
    low, lower = max(-1.0, value - wide), max(-1.0, value - narrow)
    high, upper = min(1.0, value + wide), min(1.0, value + narrow)
    return Drop(value, low, high, lower, upper, n, lost, won, mcnemar(lost, won))


def mcnemar(lost: int, won: int) -> float:
    """Two-sided p of McNemar's exact test: of the samples that changed, as many are lost as are won.

    Conover, Practical Nonparametric Statistics, 3.5 (the sign test). Nothing changed: 1.
    """
    changed = lost + won
    return min(1.0, 2 * binomial_below(min(lost, won), changed, 0.5)) if changed else 1.0


@dataclass(frozen=True)
class Bootstrap:
    """Resampling: how often, from which seed, and a correction added to each bound for metrics that move in steps."""

    resamples: int = 2000
    seed: int = 0
    step: float = 0.0


FEWEST = 8  # with fewer samples resampling says nothing, and the bounds are infinite


def bootstrap(metric: Weighted, n: int, how: Bootstrap = Bootstrap()) -> Estimate:
    """A metric over n samples with percentile bootstrap bounds, see `percentile`."""
    return percentile(float(metric(np.ones((1, n)))[0]), replicates(metric, n, how), n, how.step)


def replicates(metric: Weighted, n: int, how: Bootstrap = Bootstrap()) -> NDArray[np.float64]:
    """The metric of `how.resamples` resamples of n samples; equal seeds resample alike, so differences are paired."""
    if n < FEWEST:
        return np.empty(0)
    return np.concatenate([metric(counts) for counts in resampled(n, how)])


def percentile(value: float, values: NDArray[np.float64], n: int, step: float = 0.0) -> Estimate:
    """Bounds of a value from its bootstrap replicates; `step` is added on each side.

    Efron and Tibshirani, An Introduction to the Bootstrap, 13.3, at the expanded levels of Hesterberg (2015), What
    Teachers Should Know About the Bootstrap, which allow for the sample's own spread being too small. Assumes
    independent samples. No replicates, or undefined ones in a tenth of the resamples: infinite bounds.
    """
    defined = values[np.isfinite(values)]
    if len(values) == 0 or len(defined) < 0.9 * len(values):
        return Estimate(value, -math.inf, math.inf, -math.inf, math.inf, n)
    wide, narrow = (_tail(alpha, n) for alpha in (0.025, 0.05))
    low, high, lower, upper = (float(v) for v in np.quantile(defined, [wide, 1 - wide, narrow, 1 - narrow]))
    return Estimate(
        value, min(low - step, value), max(high + step, value), min(lower - step, value), max(upper + step, value), n
    )


def resampled(n: int, how: Bootstrap) -> list[NDArray[np.float64]]:
    """Counts [r, n] of how often each of n samples is drawn, in chunks of at most 4M numbers; the same for a seed."""
    rng = np.random.default_rng(how.seed)
    chunk = max(1, min(how.resamples, 4_000_000 // n))
    sizes = [min(chunk, how.resamples - at) for at in range(0, how.resamples, chunk)]
    return [_counts(rng, size, n) for size in sizes]


def _counts(rng: np.random.Generator, rows: int, n: int) -> NDArray[np.float64]:
    drawn = rng.integers(0, n, (rows, n)) + np.arange(rows)[:, None] * n
    return np.bincount(drawn.reshape(-1), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _tail(alpha: float, n: int) -> float:
    """Hesterberg's expanded level: that of the normal at sqrt(n/(n-1)) times Student's quantile."""
    return 0.5 * math.erfc(math.sqrt(n / (n - 1)) * student(alpha, n - 1) / math.sqrt(2))
