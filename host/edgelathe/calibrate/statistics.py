"""What a tensor held over some samples, as a value: statistics of two sets of samples merge into those of both.

Everything that a scale rule asks for is derived from these, so that one pass over the samples serves every rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.calibrate import histogram

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.calibrate.histogram import Histogram

# Values of a tensor that one sample adds to the histogram: the same number whatever the number of samples, so that
# statistics of parts merge into those of the whole. Ranges and moments see every value.
COUNTED = 1 << 13


@dataclass(frozen=True, eq=False)
class Channels:
    """Moments and range of each channel: float64 [channels] each, in the unit of the tensor.

    `count` values of each channel were seen; `m2` is the sum of squared distances from the mean.
    """

    axis: int
    count: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def variance(self) -> NDArray[np.float64]:
        """Population variance, [channels]."""
        return self.m2 / max(1, self.count)


@dataclass(frozen=True, eq=False)
class Statistics:
    """What one tensor held over all samples.

    Attributes:
        name: of the tensor.
        low, high: its exact range; 0 where it held no value.
        histogram: of at most `COUNTED` values a sample.
        shape: of one run, batch first.
        channels: along the axis that was asked for, None where none was.
        samples: runs of the model that held values.
    """

    name: str
    low: float
    high: float
    histogram: Histogram
    shape: tuple[int, ...]
    channels: Channels | None = None
    samples: int = 1

    @property
    def mean(self) -> NDArray[np.float64] | None:
        """float64 [channels], None where no axis was asked for."""
        return None if self.channels is None else self.channels.mean

    @property
    def constant(self) -> bool:
        """Whether it held one value only: a dead or constant activation."""
        return self.low == self.high


def nothing(name: str) -> Statistics:
    """Of a tensor that held no value: the neutral element of `merge`."""
    return Statistics(name, 0.0, 0.0, histogram.EMPTY, (), None, 0)


def of(name: str, values: NDArray[np.float32], axis: int | None) -> Statistics:
    """Statistics of one run's tensor; `axis` counts the channels, None: none are wanted. Raises ValueError for NaN."""
    if not values.size:
        return nothing(name)
    channels = _channels(values, axis) if axis is not None and values.ndim else None
    if channels is None:
        low, high = float(values.min()), float(values.max())
    else:
        low, high = float(channels.low.min()), float(channels.high.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"tensor '{name}' is not finite")
    counted = histogram.extend(histogram.EMPTY, thin(values, COUNTED))
    return Statistics(name, low, high, counted, values.shape, channels, 1)


def merge(a: Statistics, b: Statistics) -> Statistics:
    """Statistics of the samples of `a` and of `b`; associative but for rounding.

    Moments by the pairwise update of Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing
    Sample Variances (1979), which does not cancel.
    """
    if not a.samples or not b.samples:
        return a if a.samples else b
    both = None
    if a.channels is not None and b.channels is not None:
        both = _merge_channels(a.channels, b.channels)
    return Statistics(
        a.name,
        min(a.low, b.low),
        max(a.high, b.high),
        histogram.merge(a.histogram, b.histogram),
        b.shape,
        both,
        a.samples + b.samples,
    )


def thin(values: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """At most so many of the values: every k-th, k prime to the size so that no row or channel is missed."""
    step = stride(values.size, most)
    # `reshape` would copy all of an array that is not in one piece.
    return values.reshape(-1)[::step] if values.flags.c_contiguous else np.asarray(values.flat[::step], values.dtype)


def stride(size: int, most: int) -> int:
    """The least k that leaves at most so many of `size` values, prime to `size` (1 where all may stay)."""
    step = max(1, -(-size // most))
    while math.gcd(step, size) != 1:
        step += 1
    return step


def _channels(values: NDArray[np.float32], axis: int) -> Channels:
    axis %= values.ndim
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    count = rows.shape[1]
    # numpy adds float32 pairwise along the inner axis: the error of a mean stays near 1e-7 of the largest value.
    low, high = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
    wide = count >= 1 << 20 or max(abs(float(low.min())), abs(float(high.max()))) > 1e15  # their squares would overflow
    with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite are refused by their range
        mean = rows.mean(axis=1, dtype=np.float64 if wide else np.float32).astype(np.float64)
        squares = np.einsum("cn,cn->c", rows, rows, dtype=np.float64 if wide or count >= 1 << 16 else np.float32)
        m2 = np.maximum(squares.astype(np.float64) - count * mean**2, 0)
    return Channels(axis, count, mean, m2, low, high)


def _merge_channels(a: Channels, b: Channels) -> Channels | None:
    if a.axis != b.axis or len(a.mean) != len(b.mean):
        return None
    total = a.count + b.count
    apart = b.mean - a.mean
    return Channels(
        a.axis,
        total,
        a.mean + apart * (b.count / total),
        a.m2 + b.m2 + apart**2 * (a.count * b.count / total),
        np.minimum(a.low, b.low),
        np.maximum(a.high, b.high),
    )
