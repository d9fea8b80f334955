"""Convolutions on ONNX's layout [n, channels, *space], for floats and for integers held in floats.

Sums of integers in floating point are exact where they stay in the bounds that `products.kind` chooses the type by.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed.products import Window, same

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgelathe.model.fixed.onnx_graph import Node


def window(node: Node, space: Sequence[int], size: Sequence[int]) -> Window:
    """The window of a Conv or pooling node for an image of `space`, `auto_pad` and `ceil_mode` resolved."""
    axes = len(space)
    strides = tuple(node.get("strides", [1] * axes))
    dilations = tuple(node.get("dilations", [1] * axes))
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilations, strict=True)]
    auto = node.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = [same(n, k, s, d) for n, k, s, d in zip(space, size, strides, dilations, strict=True)]
        if auto == "SAME_LOWER":
            pads = [(after, before) for before, after in pads]
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
    return Window(tuple(size), strides, dilations, tuple(pads), tuple(more), first=2)


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
