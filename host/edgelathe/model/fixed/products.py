"""Exact sums of products of integers, by floating-point matrix multiplication wherever its sums are exact.

A sum of integers in binary floating point is exact in any order while no partial sum passes 2**24 (float32) or 2**53
(float64). The bound is max |x| times the largest sum of |w| over an output, so that partial sums keep it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_BLOCK = 1 << 15  # numbers that stay in a processor's cache
_EXACT = ((np.float32, 1 << 24), (np.float64, 1 << 53))


@dataclass(frozen=True)
class Window:
    """How a kernel moves over the spatial axes of an image.

    Attributes:
        size, strides, dilations: of the kernel, an axis each.
        pads: (before, after) of each axis.
        more: what ceil_mode adds after each axis; it counts for no mean.
        first: the first spatial axis: 1 where channels come last, 2 where they come before.
    """

    size: tuple[int, ...]
    strides: tuple[int, ...] = (1, 1)
    dilations: tuple[int, ...] = (1, 1)
    pads: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))
    more: tuple[int, ...] = (0, 0)
    first: int = 1

    @property
    def pointwise(self) -> bool:
        """Whether each output sees one position."""
        return prod(self.size) == 1 and not any(a or b for a, b in self._sides)

    def output(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The spatial axes of what comes out."""
        lengths = zip(shape, self._sides, self._reach, self.strides, strict=True)
        return tuple((n + sum(p) - r) // s + 1 for n, p, r, s in lengths)

    def cut(self, x: NDArray[Any], fill: float = 0) -> NDArray[Any]:
        """Windows of x as a view [..., *size] with the output's spatial axes; outside of the image lies `fill`."""
        axes, rest = tuple(range(self.first, self.first + len(self.size))), x.ndim - self.first - len(self.size)
        if any(a or b for a, b in self._sides):
            x = np.pad(x, [*[(0, 0)] * self.first, *self._sides, *[(0, 0)] * rest], constant_values=fill)
        windows = sliding_window_view(x, self._reach, axis=axes)  # type: ignore[call-overload]  # its stub wants one axis
        steps, holes = ([slice(None, None, s) for s in each] for each in (self.strides, self.dilations))
        return np.asarray(windows[(*[slice(None)] * self.first, *steps, *[slice(None)] * rest, *holes)])

    @property
    def _reach(self) -> tuple[int, ...]:
        return tuple((k - 1) * d + 1 for k, d in zip(self.size, self.dilations, strict=True))

    @property
    def _sides(self) -> list[tuple[int, int]]:
        return [(a, b + m) for (a, b), m in zip(self.pads, self.more, strict=True)]


def same(length: int, size: int, stride: int, dilation: int) -> tuple[int, int]:
    """(before, after) such that ceil(length / stride) windows fit; an odd one goes after."""
    total = max(0, (-(-length // stride) - 1) * stride + (size - 1) * dilation + 1 - length)
    return total // 2, total - total // 2


def kind(bound: float) -> type[np.floating[Any]] | type[np.int64]:
    """The quickest type in which sums up to `bound` are exact. Raises OverflowError from 2**63 on."""
    for dtype, limit in _EXACT:
        if bound <= limit:
            return dtype
    if bound >= 2.0**63:
        raise OverflowError(f"sums of products may reach {bound:.3g}")
    return np.int64


def matmul(a: NDArray[Any], b: NDArray[Any], bound: float | None = None) -> NDArray[Any]:
    """a [..., k] times b [k, m] of integers, exact. `bound` of |a| where known, else that of the data.

    The result is of the type that holds it exactly: float32, float64 or int64.
    """
    largest = _largest(a) if bound is None else bound
    dtype = kind(largest * float(np.abs(b.astype(np.float64)).sum(axis=-2).max(initial=0)))
    return np.asarray(a.astype(dtype, copy=False) @ b.astype(dtype))


@dataclass(frozen=True, eq=False)
class Filter:
    """The weights of a convolution, ready for many images.

    Attributes:
        w: [out, kh, kw, c / groups], in the type that is computed in.
        window: how they move.
        groups: of channels that are convolved on their own; as many as channels: depthwise.
    """

    w: NDArray[Any]
    window: Window
    groups: int = 1

    @classmethod
    def exact(cls, w: NDArray[Any], window: Window, groups: int = 1, *, bound: float) -> Filter:
        """Integer weights for integer inputs of at most `bound` in size: every sum will be exact."""
        largest = float(np.abs(w.astype(np.float64)).reshape(len(w), -1).sum(axis=1).max(initial=0))
        return cls(w.astype(kind(bound * largest)), window, groups)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What inputs are to be cast to."""
        return self.w.dtype

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """x [n, h, w, c] -> [n, oh, ow, out], in `dtype`. Padding is 0."""
        depth = self.w.shape[3]
        if depth == 1 and self.groups == x.shape[3] > 1:
            return _depthwise(x, self.w, self.window)
        if self.groups == 1:
            return _dense(x, self.w, self.window)
        xs, ws = np.split(x, self.groups, axis=3), np.split(self.w, self.groups, axis=0)
        return np.concatenate([_dense(a, b, self.window) for a, b in zip(xs, ws, strict=True)], axis=3)


def _dense(x: NDArray[Any], w: NDArray[Any], window: Window) -> NDArray[Any]:
    out = w.shape[0]
    if window.pointwise and set(window.strides) == {1}:
        n, h, wide, c = x.shape
        return np.asarray((x.reshape(-1, c) @ w.reshape(out, -1).T).reshape(n, h, wide, out))
    rows = window.cut(x).transpose(0, 1, 2, 4, 5, 3)  # copied by the reshape: im2col
    n, oh, ow = rows.shape[:3]
    return np.asarray((rows.reshape(n * oh * ow, -1) @ w.reshape(out, -1).T).reshape(n, oh, ow, out))


def _depthwise(x: NDArray[Any], w: NDArray[Any], window: Window) -> NDArray[Any]:
    """Each input channel has w.shape[0] / c outputs of its own, side by side. Row by row, to stay in a cache."""
    n, _, _, c = x.shape
    cut, each = window.cut(x), w.shape[0] // c
    if each > 1:
        cut = np.repeat(cut, each, axis=3)
    taps = w.transpose(1, 2, 3, 0)[:, :, 0]
    total = np.zeros((*cut.shape[:3], c * each), x.dtype)
    rows = max(1, _BLOCK // (total.shape[2] * c * each))
    part = np.empty((rows, *total.shape[2:]), x.dtype)
    for sample in range(n):
        for start in range(0, total.shape[1], rows):
            seen, done = cut[sample, start : start + rows], total[sample, start : start + rows]
            for i, j in np.ndindex(window.size):
                done += np.multiply(seen[..., i, j], taps[i, j], out=part[: len(done)])
    return total


def _largest(a: NDArray[Any]) -> float:
    return max(abs(float(a.max(initial=0))), abs(float(a.min(initial=0))))
