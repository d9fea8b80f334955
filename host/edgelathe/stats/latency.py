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


def summarize(blocks_ns: BlocksNs, looks: int = 1) -> Latency:
    """Percentiles, mean, least and most of all samples, in ms, with two-sided 95% intervals.

    `blocks_ns` holds the samples of each block in the order they were taken, int64 nanoseconds. Intervals are those
    of `bounded`; with `looks` = K they hold although the measurement ended at any of K looks. min <= p50 <= p90 <= p95
    <= p99 <= max, and each statistic lies within its interval. Raises ValueError where there is no sample.
    """
    blocks, ordered = _milliseconds(blocks_ns)
    values, ci = {}, {}
    for name in STATISTICS:
        values[name], ci[name] = bounded(blocks, ordered, name, repeated(0.025, looks))
    return Latency(**values, min=float(ordered[0]), max=float(ordered[-1]), n=len(ordered), ci=ci)


def claim(blocks_ns: BlocksNs, statistic: str, looks: int = 1) -> Claim:
    """One statistic (`p50 p90 p95 p99 mean`) in ms with a one-sided 95% bound on each side.

    With `looks` = K each bound holds although the measurement ended at any of K looks (`sequential.looks`).
    """
    blocks, ordered = _milliseconds(blocks_ns)
    value, ends = bounded(blocks, ordered, statistic, repeated(0.05, looks))
    return Claim(value, ends.low, ends.high, n=len(ordered))


def located(blocks_ns: BlocksNs) -> bool:
    """Whether these samples are enough for an interval of the median with both ends."""
    ends = bounded(*_milliseconds(blocks_ns), "p50", 0.025)[1]
    return math.isfinite(ends.low) and math.isfinite(ends.high)


def bounded(
    blocks: Sequence[NDArray[np.float64]], ordered: NDArray[np.float64], name: str, alpha: float
) -> tuple[float, Interval]:
    """A statistic and its bounds, each alone with confidence 1 - alpha.

    Percentiles: order statistics at the effective number of samples, see `_sizes`. Mean: Student's t at the effective
    number of samples.
    """
    if name == "mean":
        value, ends = float(ordered.mean()), _mean_bounds(blocks, ordered, alpha)
    else:
        q = QUANTILES[name]
        value = quantile(ordered, q)
        below, above = _sizes(blocks, ordered, q)
        ends = Interval(bounds(ordered, q, alpha, below).low, bounds(ordered, q, alpha, above).high)
    return value, Interval(min(ends.low, value), max(ends.high, value))


def _sizes(blocks: Sequence[NDArray[np.float64]], ordered: NDArray[np.float64], q: float) -> tuple[float, float]:
    """How many independent samples the lower and the upper bound on quantile q rest on.

    Those of the indicator "at or below the percentile": the variance of an empirical quantile grows as that of the
    indicator's mean (Heidelberger and Lewis, 1984). It is taken at the bound (that of the 95% interval) as well as at
    the estimate, whichever is less, as a score test does: of two modes, the slow one may have come too rarely to be
    felt at the estimate.
    """

    def size(value: float) -> float:
        return effective_size([b <= value for b in blocks])

    at_value, sizes = size(quantile(ordered, q)), []
    for side in ("low", "high"):
        least = at_value
        for _ in range(2):
            end: float = getattr(bounds(ordered, q, 0.025, least), side)
            # a lower bound has below it what is less than itself
            found = least if math.isinf(end) else size(end if side == "high" else math.nextafter(end, -math.inf))
            if found >= least:
                break
            least = found
        sizes.append(least)
    return sizes[0], sizes[1]


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
