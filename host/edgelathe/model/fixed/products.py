"""Exact sums of products of integers, by floating-point matrix multiplication wherever its sums are exact.

A sum of integers in binary floating point is exact in any order while no partial sum passes 2**24 (float32) or 2**53
(float64). The bound is max |x| times the largest sum of |w| over an output, so that partial sums keep it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 1 << 15  # numbers that stay in a processor's cache
_EXACT = ((np.float32, 1 << 24), (np.float64, 1 << 53))


@dataclass(frozen=True)
class Window:
    """How a kernel moves over an image: (height, width) each; `pads` are (top, bottom), (left, right)."""

    size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))

    def output(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of what comes out."""
        reach = [(k - 1) * d + 1 for k, d in zip(self.size, self.dilations, strict=True)]
        return tuple(  # type: ignore[return-value]  # two of two
            (n + sum(p) - r) // s + 1 for n, p, r, s in zip(shape, self.pads, reach, self.strides, strict=True)
        )

    def cut(self, x: NDArray[Any], fill: float = 0) -> NDArray[Any]:
        """Windows of x [n, h, w, c] as a view [n, oh, ow, c, kh, kw]; outside of the image lies `fill`."""
        (top, bottom), (left, right) = self.pads
        if top or bottom or left or right:
            x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
        reach = tuple((k - 1) * d + 1 for k, d in zip(self.size, self.dilations, strict=True))
        cut = sliding_window_view(x, reach, axis=(1, 2))  # type: ignore[call-overload]  # its stub wants one axis
        (sy, sx), (dy, dx) = self.strides, self.dilations
        return np.asarray(cut[:, ::sy, ::sx, :, ::dy, ::dx])


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
    if window == Window((1, 1)):
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
