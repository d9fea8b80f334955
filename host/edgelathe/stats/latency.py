"""Latencies: from the nanoseconds that a device answered to a summary with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.claim import Claim
from edgelathe.core.interval import Interval
from edgelathe.core.result import Latency
from edgelathe.stats.boundary import repeated
from edgelathe.stats.quantile import bounds, quantile
from edgelathe.stats.series import effective_size
from edgelathe.stats.special import student

BlocksNs = Sequence[NDArray[np.int64]]

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
STATISTICS: tuple[str, ...] = (*QUANTILES, "mean")


def summarize(blocks_ns: BlocksNs) -> Latency:
    """Percentiles, mean, least and most of all samples, in ms, with two-sided 95% intervals.

    `blocks_ns` holds the samples of each block in the order they were taken, int64 nanoseconds. Intervals are those
    of `bounded` at 0.025. min <= p50 <= p90 <= p95 <= p99 <= max, and each statistic lies within its interval.
    Raises ValueError where there is no sample.
    """
    blocks, ordered = _milliseconds(blocks_ns)
    values, ci = {}, {}
    for name in STATISTICS:
        values[name], ci[name] = bounded(blocks, ordered, name, 0.025)
    return Latency(**values, min=float(ordered[0]), max=float(ordered[-1]), n=len(ordered), ci=ci)


def claim(blocks_ns: BlocksNs, statistic: str, looks: int = 1) -> Claim:
    """One statistic (`p50 p90 p95 p99 mean`) in ms with a one-sided 95% bound on each side.

    With `looks` = K each bound holds although the measurement ended at any of K looks (`sequential.looks`).
    """
    blocks, ordered = _milliseconds(blocks_ns)
    value, ends = bounded(blocks, ordered, statistic, repeated(0.05, looks))
    return Claim(value, ends.low, ends.high, n=len(ordered))


def bounded(
    blocks: Sequence[NDArray[np.float64]], ordered: NDArray[np.float64], name: str, alpha: float
) -> tuple[float, Interval]:
    """A statistic and its bounds, each alone with confidence 1 - alpha.

    Percentiles: order statistics at the effective number of samples, that of the indicator "at or below the
    percentile" (Heidelberger and Lewis, 1984). Mean: Student's t at the effective number of samples.
    """
    if name == "mean":
        value, ends = float(ordered.mean()), _mean_bounds(blocks, ordered, alpha)
    else:
        q = QUANTILES[name]
        value = quantile(ordered, q)
        ends = bounds(ordered, q, alpha, effective_size([b <= value for b in blocks]))
    return value, Interval(min(ends.low, value), max(ends.high, value))


def _mean_bounds(blocks: Sequence[NDArray[np.float64]], ordered: NDArray[np.float64], alpha: float) -> Interval:
    size = effective_size(blocks)
    if size < 2:
        return Interval(-math.inf, math.inf)
    mean, reach = float(ordered.mean()), student(alpha, size - 1) * float(ordered.std(ddof=1)) / math.sqrt(size)
    return Interval(mean - reach, mean + reach)


def _milliseconds(blocks_ns: BlocksNs) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    blocks = [np.asarray(b).reshape(-1) / 1e6 for b in blocks_ns if np.size(b)]
    if not blocks:
        raise ValueError("no latency samples")
    return blocks, np.sort(np.concatenate(blocks))


def statistic(name: str) -> Callable[[NDArray[np.generic]], float]:
    """The point estimate by name, as a function of samples in any order. Raises KeyError for an unknown name."""
    if name == "mean":
        return lambda samples: float(np.mean(samples.astype(np.float64)))
    q = QUANTILES[name]
    return lambda samples: quantile(np.sort(samples), q)
