"""Convolutions on ONNX's layout [n, channels, *space], for floats and for integers held in floats.

Sums of integers in floating point are exact where they stay in the bounds that `products.kind` chooses the type by.
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

    from edgelathe.model.fixed.onnx_graph import Node


@dataclass(frozen=True)
class Window:
    """How a kernel moves over the spatial axes; `pads` are (before, after), `more` what ceil_mode adds after."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    more: tuple[int, ...]

    @property
    def pointwise(self) -> bool:
        """Whether each output sees one position."""
        return prod(self.size) == 1 and not any(a or b for a, b in self.pads) and not any(self.more)

    def padded(self, x: NDArray[Any], fill: float) -> NDArray[Any]:
        """x [n, c, *space] with `fill` around it."""
        sides = [(a, b + m) for (a, b), m in zip(self.pads, self.more, strict=True)]
        if not any(a or b for a, b in sides):
            return x
        return np.pad(x, ((0, 0), (0, 0), *sides), constant_values=fill)

    def cut(self, x: NDArray[Any], fill: float = 0) -> NDArray[Any]:
        """Windows of x [n, c, *space] as a view [n, c, *out, *size]; outside of the image lies `fill`."""
        reach = tuple((k - 1) * d + 1 for k, d in zip(self.size, self.dilations, strict=True))
        axes = tuple(range(2, 2 + len(self.size)))
        windows = sliding_window_view(self.padded(x, fill), reach, axis=axes)  # type: ignore[call-overload]
        steps = [slice(None, None, s) for s in self.strides]
        return np.asarray(windows[(slice(None), slice(None), *steps, *[slice(None, None, d) for d in self.dilations])])


def window(node: Node, space: Sequence[int], size: Sequence[int]) -> Window:
    """The window of a Conv or pooling node for an image of `space`, `auto_pad` and `ceil_mode` resolved."""
    axes = len(space)
    strides = tuple(node.get("strides", [1] * axes))
    dilations = tuple(node.get("dilations", [1] * axes))
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilations, strict=True)]
    auto = node.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for n, s, r in zip(space, strides, reach, strict=True):
            total = max(0, (-(-n // s) - 1) * s + r - n)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if auto == "SAME_UPPER" else (large, small))
    else:
        flat = node.get("pads", [0] * 2 * axes) if auto == "NOTSET" else [0] * 2 * axes
        pads = list(zip(flat[:axes], flat[axes:], strict=True))
    more = [0] * axes
    if node.get("ceil_mode", 0):
        for i, (n, s, r, (a, b)) in enumerate(zip(space, strides, reach, pads, strict=True)):
            outputs = -(-(n + a + b - r) // s) + 1
            if (outputs - 1) * s >= n + a:  # a window that starts behind the image counts for nothing
                outputs -= 1
            more[i] = max(0, (outputs - 1) * s + r - n - a - b)
    return Window(tuple(size), strides, dilations, tuple(pads), tuple(more))


def conv(x: NDArray[Any], w: NDArray[Any], window: Window, groups: int = 1) -> NDArray[Any]:
    """x [n, c, *space], w [out, c / groups, *size] -> sums [n, out, *space]; both of one dtype. Padding is 0."""
    out, depth = w.shape[:2]
    if depth == 1 and groups > 1:
        return _depthwise(x, w, window, groups)
    rows = w.reshape(groups, out // groups, -1)
    if window.pointwise:
        picked = x[(slice(None), slice(None), *[slice(None, None, s) for s in window.strides])]
        n, c, *space = picked.shape
        sums = np.matmul(rows, picked.reshape(n, groups, c // groups, -1))
        return np.asarray(sums.reshape(n, out, *space))
    cut = window.cut(x)
    axes = len(window.size)
    n, _, *space = cut.shape[: 2 + axes]
    order = (0, *range(1 + axes, 1 + 2 * axes), *range(1, 1 + axes))
    total = np.empty((n, groups, out // groups, prod(space)), x.dtype)
    for image, sums in zip(cut, total, strict=True):  # one by one: their columns stay in the cache
        np.matmul(rows, image.transpose(order).reshape(groups, -1, prod(space)), out=sums)
    return total.reshape(n, out, *space)


def tap(cut: NDArray[Any], at: Sequence[int]) -> NDArray[Any]:
    """One position of all windows: `at` counts along the last axes."""
    index: tuple[Any, ...] = (Ellipsis, *at)
    return np.asarray(cut[index])


def _depthwise(x: NDArray[Any], w: NDArray[Any], window: Window, groups: int) -> NDArray[Any]:
    """Each input channel has out / groups outputs of its own, side by side."""
    each = w.shape[0] // groups
    if each > 1:
        x = np.repeat(x, each, axis=1)
    cut = window.cut(x)
    axes = len(window.size)
    total = np.empty(cut.shape[: 2 + axes], x.dtype)
    part = np.empty(total.shape[1:], x.dtype)
    factors = [(at, tap(w[:, 0], at).reshape(-1, *[1] * axes)) for at in np.ndindex(*window.size)]
    for image, sums in zip(cut, total, strict=True):  # one by one: they stay in the cache
        for first, (at, factor) in zip((True, *[False] * len(factors)), factors, strict=False):
            np.multiply(tap(image, at), factor, out=sums if first else part)
            if not first:
                np.add(sums, part, out=sums)
    return total
