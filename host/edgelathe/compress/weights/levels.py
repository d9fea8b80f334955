"""The integers that weights of few bits may be: evenly spaced, or denser near zero, as weights mostly lie.

The file holds indices of so many bits, which are looked up once, at load; kernels then compute in int8 whichever they
are. So levels need not be evenly spaced, nor begin at the same place in every output.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

#: How levels may be spaced.
SPACINGS = ("auto", "even", "normal")
# What a quantizer of least squared error makes of positive normal values, by bits (Max, 1960, table I).
_NORMAL = {
    2: (0.4528, 1.510),
    3: (0.2451, 0.7560, 1.344, 2.152),
    4: (0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733),
    5: (
        0.0659, 0.1981, 0.3314, 0.4668, 0.6050, 0.7473, 0.8947, 1.049,
        1.212, 1.387, 1.577, 1.788, 2.029, 2.319, 2.692, 3.263,
    ),
}  # fmt: skip
#: Bits for which there are levels of a normal distribution.
NORMAL_BITS = frozenset(_NORMAL)
_SAFE = 64  # a kernel that adds two products in 16 bits saturates beyond


@dataclass(frozen=True)
class Levels:
    """The integers low..high, or these `values`, ascending; an output may move all of its own by one of `offsets`."""

    low: int
    high: int
    values: tuple[int, ...] | None = None
    offsets: tuple[int, ...] = (0,)

    @classmethod
    def of(cls, bits: int, *, reduce: bool) -> Levels:
        """All that the bits hold; of 8 bits -127..127, or -64..64 where a kernel adds two products in 16 bits."""
        if bits == 8:
            return cls(-_SAFE, _SAFE) if reduce else cls(-127, 127)
        return cls(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)

    @classmethod
    def normal(cls, bits: int) -> Levels:
        """Those of a normal distribution, for 2 to 5 bits; moved or not in -64..64. Zero is one of them where moved."""
        real = np.asarray(_NORMAL[bits]) / _NORMAL[bits][-1]
        first = min(1, len(real) - 2)
        sizes = [int(v) for v in np.rint(real * (_SAFE // (1 + real[first + 1])))]
        moves = sizes[first : first + 2]
        return cls(-sizes[-1], sizes[-1], (*(-v for v in reversed(sizes)), *sizes), (0, *moves, *(-v for v in moves)))

    @property
    def bits(self) -> int:
        """That tell which of them a weight is."""
        if self.values is not None:
            return (len(self.values) - 1).bit_length()
        return max(self.high.bit_length(), (-self.low - 1).bit_length()) + 1

    def nearest(self, real: Array) -> Array:
        """The level next to each number."""
        if self.values is None:
            return np.asarray(np.clip(np.rint(real), self.low, self.high))
        return np.asarray(_level_of(self.values)[self._half(real)])

    def two_nearest(self, real: Array) -> tuple[Array, Array]:
        """The level next to each number, and the next one on its other side; the same again at the ends."""
        first = self.nearest(real)
        side = np.where(real < first, -1, 1)
        if self.values is None:
            return first, np.asarray(np.clip(first + side, self.low, self.high))
        place = np.clip(_place_of(self.values)[self._half(real)] + side, 0, len(self.values) - 1)
        return first, np.asarray(self.values, np.float64)[place]

    def _half(self, real: Array) -> NDArray[np.int64]:
        """In which half of one each number lies, from `low` on: borders between levels are whole halves."""
        return np.asarray(np.floor(2 * np.clip(real, self.low, self.high)) - 2 * self.low, np.int64)


def chosen(weights: Array, hessian: Array, bits: int, spacing: str, *, reduce: bool) -> Levels:
    """Levels of so many bits for real `weights` [g, o, f] whose inputs have moments `hessian` [g, f, f].

    `spacing` "auto" takes, for the whole layer, what loses less when each weight goes to the nearest level: weights
    that lie on an even grid already stay there. Beyond 5 bits levels are even.
    """
    even = Levels.of(bits, reduce=reduce)
    if spacing == "even" or bits not in _NORMAL:
        return even
    normal = Levels.normal(bits)
    if spacing == "normal":
        return normal
    share = np.diagonal(hessian, axis1=1, axis2=2)[:, None]
    return min(normal, even, key=lambda levels: _error(weights, share, levels))


def _error(weights: Array, share: Array, levels: Levels) -> float:
    """Weighted squares of what rounding to nearest loses, each output at its best scale."""
    largest = np.maximum(weights.max(axis=2) / levels.high, weights.min(axis=2) / levels.low)
    least = np.full(largest.shape, np.inf)
    for ratio in (1.0, 0.9, 0.8, 0.7, 0.6):
        scale = np.where(largest > 0, largest * ratio, 1.0)[:, :, None]
        error = (weights - levels.nearest(weights / scale) * scale) ** 2 * share
        least = np.minimum(least, error.sum(axis=2))
    return float(least[largest > 0].sum())


@functools.cache
def _place_of(values: tuple[int, ...]) -> NDArray[np.int64]:
    """Which of the values is next to a number, for each half of one between the lowest and the highest."""
    borders = np.add(values[1:], values[:-1])
    return np.searchsorted(borders, np.arange(2 * values[0], 2 * values[-1] + 1), side="right")


@functools.cache
def _level_of(values: tuple[int, ...]) -> Array:
    return np.asarray(values, np.float64)[_place_of(values)]
