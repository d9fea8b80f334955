"""Bilinear resizing of images [n, h, w, c] as TFLite computes it: on reals, and on integers by kernels of each type.

Source: TFLite's reference kernels (resize_bilinear.h) and, for default sessions, XNNPACK's indirection of 11 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ONE = 1 << 10  # of a place in fixed point


@dataclass(frozen=True)
class Places:
    """Where the values of an output's axis lie between two of the input's.

    `corners`: the first and last values of both coincide; `centers`: values stand for the middle of their pixel.
    """

    size: int
    wanted: int
    corners: bool
    centers: bool

    def real(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """(lower neighbour, upper neighbour, share of the upper one in float32), each [wanted]."""
        scale = np.float32(self.size) / np.float32(self.wanted)
        if self._cornered:
            scale = np.float32(self.size - 1) / np.float32(self.wanted - 1)
        at = np.arange(self.wanted, dtype=np.float32)
        at = (at + np.float32(0.5)) * scale - np.float32(0.5) if self.centers else at * scale
        low = np.maximum(np.floor(at).astype(np.int64), 0)
        return low, np.minimum(np.ceil(at).astype(np.int64), self.size - 1), at - low.astype(np.float32)

    def fixed(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The same with the share in units of 2**-10."""
        scale = (_ONE * self.size + self.wanted // 2) // self.wanted
        if self._cornered:
            last = self.wanted - 1
            scale = (_ONE * (self.size - 1) + last // 2) // last
        at = np.arange(self.wanted, dtype=np.int64) * scale
        if self.centers:
            at += scale // 2 - _ONE // 2
        low = np.maximum(at // _ONE, 0)  # below 0 only a part of a pixel, which C rounds to 0
        return low, np.minimum((at + _ONE - 1) // _ONE, self.size - 1), at - _ONE * low

    @property
    def _cornered(self) -> bool:
        return self.corners and self.wanted > 1


def real(x: NDArray[Any], rows: Places, columns: Places, offset: float = 0.0) -> NDArray[np.float32]:
    """float32, products and sums in the order of the kernel; `offset` is added last."""
    (y0, y1, v), (x0, x1, u) = rows.real(), columns.real()
    image, one = x.astype(np.float32, copy=False), np.float32(1)
    v, u = v[:, None, None], u[:, None]

    def corner(at_y: NDArray[np.int64], at_x: NDArray[np.int64]) -> NDArray[np.float32]:
        return image[:, at_y][:, :, at_x]

    total = corner(y0, x0) * (one - v) * (one - u) + corner(y1, x0) * v * (one - u)
    total = total + corner(y0, x1) * (one - v) * u
    return np.asarray(total + corner(y1, x1) * v * u + np.float32(offset), np.float32)


def half_up(x: NDArray[np.uint8], rows: Places, columns: Places) -> NDArray[np.uint8]:
    """uint8: by way of float32, a half added and cut off."""
    return real(x, rows, columns, 0.5).astype(np.uint8)


def integers(x: NDArray[Any], rows: Places, columns: Places) -> NDArray[Any]:
    """int8 and int16: shares of 10 bits each, halves away from zero."""
    (y0, y1, v), (x0, x1, u) = rows.fixed(), columns.fixed()
    image = x.astype(np.int64)
    v, u = v[:, None, None], u[:, None]
    upper = image[:, y0] * (_ONE - v) + image[:, y1] * v
    total = upper[:, :, x0] * (_ONE - u) + upper[:, :, x1] * u
    unit = _ONE * _ONE
    rounded = np.where(total > 0, (total + unit // 2) // unit, -((unit // 2 - total) // unit))
    return rounded.astype(x.dtype)


def eleven_bits(x: NDArray[Any], rows: Places, columns: Places) -> NDArray[Any]:
    """8 bits in a default session: shares of 11 bits, halves up."""
    (y0, y1, v), (x0, x1, u) = _shares(rows), _shares(columns)
    image = x.astype(np.int64)
    v, u = v[:, None, None], u[:, None]
    rows_of = [(part[:, :, x0] << 11) + (part[:, :, x1] - part[:, :, x0]) * u for part in (image[:, y0], image[:, y1])]
    total = (rows_of[0] << 11) + (rows_of[1] - rows_of[0]) * v
    return ((total + (1 << 21)) >> 22).astype(x.dtype)


def _shares(of: Places) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    less = int(of.corners and of.wanted != 1)
    scale = np.float32(of.size - less) / np.float32(of.wanted - less)
    at = np.arange(of.wanted, dtype=np.float32) * scale
    if of.centers and not of.corners:
        at = np.clip(at + (np.float32(0.5) * scale - np.float32(0.5)), 0, np.float32(of.size - 1))
    low = at.astype(np.int64)
    share = np.rint(np.float32(2048) * (at - low.astype(np.float32))).astype(np.int64)
    return low, np.minimum(low + 1, of.size - 1), share
