"""A histogram of a stream in constant memory: bins of a power-of-two width, merged in pairs as the range grows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of values in [k * width, (k + 1) * width) for k = first, first + 1, ...

    Since widths are powers of two and 0 is always an edge, merging pairs of bins is exact: the counts are those of
    one pass with the final width. `counts` is int64, at most `BINS` long.
    """

    width: float = 0.0
    first: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def last(self) -> int:
        """The index k of the last bin."""
        return self.first + len(self.counts) - 1

    @property
    def edges(self) -> NDArray[np.float64]:
        """The len(counts) + 1 edges."""
        return (self.first + np.arange(len(self.counts) + 1)) * self.width

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        return (self.first + 0.5 + np.arange(len(self.counts))) * self.width


BINS = 4096
EMPTY = Histogram()


def extend(histogram: Histogram, values: NDArray[np.float32]) -> Histogram:
    """The histogram with finite `values` [n] counted too."""
    if not values.size:
        return histogram
    low, high = float(values.min()), float(values.max())
    width = histogram.width or _width(high - low, max(abs(low), abs(high)))
    while True:
        old = rescale(histogram, width)
        first, last = math.floor(low / width), math.floor(high / width)
        if len(old.counts):
            first, last = min(first, old.first), max(last, old.first + len(old.counts) - 1)
        if last - first < BINS:
            break
        width *= 2
    index = np.floor(values * np.float32(1 / width)).astype(np.int64) - first
    counts = np.bincount(np.clip(index, 0, last - first), minlength=last - first + 1)
    at = old.first - first
    counts[at : at + len(old.counts)] += old.counts
    return Histogram(width, first, counts)


def merge(a: Histogram, b: Histogram) -> Histogram:
    """The histogram of both streams: exact counts in the wider bins, pairs of which are joined until all fit."""
    if not len(a.counts) or not len(b.counts):
        return a if len(a.counts) else b
    width = max(a.width, b.width)
    while True:
        one, two = rescale(a, width), rescale(b, width)
        first, last = min(one.first, two.first), max(one.last, two.last)
        if last - first < BINS:
            break
        width *= 2
    counts = np.zeros(last - first + 1, np.int64)
    for h in (one, two):
        counts[h.first - first : h.last + 1 - first] += h.counts
    return Histogram(width, first, counts)


def rescale(histogram: Histogram, width: float) -> Histogram:
    """The same counts in bins of a multiple (a power of two) of the width."""
    if not len(histogram.counts) or width == histogram.width:
        return Histogram(width, histogram.first, histogram.counts)
    # Exact: edges and the ratio of powers of two are float64 numbers, however far the widths lie apart.
    index = np.floor((histogram.first + np.arange(len(histogram.counts))) * (histogram.width / width)).astype(np.int64)
    first = int(index[0])
    counts = np.zeros(int(index[-1]) - first + 1, np.int64)
    np.add.at(counts, index - first, histogram.counts)
    return Histogram(width, first, counts)


def _width(span: float, largest: float) -> float:
    """The power of two that cuts `span` into at most half of the bins; never below what float32 tells apart."""
    finest = max(largest * 2.0**-22, 2.0**-100)
    return 2.0 ** math.ceil(math.log2(max(2 * span / BINS, finest)))
