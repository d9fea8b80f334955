"""TFLite's hybrid operators: float32 activations, quantized while they come, and integer weights.

Each sample of a convolution and each row of a fully connected layer gets a grid of its own, of 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed.limits import clamp_real, half_away
from edgelathe.model.fixed.products import Filter, Window
from edgelathe.model.fixed.real import rows
from edgelathe.model.fixed.tflite_windows import conv_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.tflite_graph import Site
    from edgelathe.model.fixed.types import Integers

Arrays = Sequence["NDArray[Any]"]
Hybrid = Callable[[Arrays], "NDArray[Any]"]


def asymmetric(x: NDArray[np.float32]) -> tuple[Integers, NDArray[np.float32], Integers]:
    """Rows [n, k] on 256 levels between their smallest and largest value, with 0: integers, scales [n], zero points."""
    low, high = (np.asarray(v, np.float64) for v in (np.minimum(x.min(1), 0), np.maximum(x.max(1), 0)))
    empty = low == high
    scale = np.where(empty, 1.0, (high - low) / 255)
    from_low, from_high = -128 - low / scale, 127 - high / scale
    nearer = 128 + np.abs(low / scale) < 127 + np.abs(high / scale)
    zero = np.clip(half_away(np.where(nearer, from_low, from_high)), -128, 127).astype(np.int64) * ~empty
    single = scale.astype(np.float32)
    whole = half_away(x * (np.float32(1) / single)[:, None]).astype(np.int64) + zero[:, None]
    return np.clip(whole, -128, 127) * ~empty[:, None], single, zero


def symmetric(x: NDArray[np.float32]) -> tuple[Integers, NDArray[np.float32], Integers]:
    """Rows [n, k] on -127..127, the zero point 0."""
    size = np.abs(x).max(1)
    size = np.where(size == 0, np.float32(127), size).astype(np.float32)
    whole = half_away(x * (np.float32(127) / size)[:, None])
    return np.clip(whole, -127, 127).astype(np.int64), size / np.float32(127), np.zeros(len(x), np.int64)


def conv(site: Site) -> Hybrid:
    """CONV_2D with a scale a channel: each sample quantized asymmetrically, the sums scaled in float32."""
    w, scales = site.setting(1), _scales(site)
    if len(scales) == 1:
        raise site.refused("with float activations and one scale for all weights is not simulated")
    return _image(site, w, 3, lambda image: conv_window(site, w, image), scales, first=False)


def depthwise(site: Site) -> Hybrid:
    """DEPTHWISE_CONV_2D, likewise."""
    w = site.setting(1).transpose(3, 1, 2, 0)
    scales = np.broadcast_to(_scales(site), (len(w),))
    return _image(site, w, 4, lambda image: conv_window(site, w, image), scales, first=True)


def _image(
    site: Site,
    w: NDArray[Any],
    activation: int,
    window: Callable[[NDArray[Any]], Window],
    scales: NDArray[np.float32],
    *,
    first: bool,
) -> Hybrid:
    """`first`: both scales are multiplied before the sum is."""

    def run(x: Arrays) -> NDArray[Any]:
        image, depth = x[0], w.shape[3]
        data, single, zero = asymmetric(image.reshape(len(image), -1))
        centred = (data - zero[:, None]).reshape(image.shape)
        filter_ = Filter.exact(w, window(image), image.shape[3] // depth, bound=255)
        sums = filter_(centred.astype(filter_.dtype)).astype(np.float32)
        sample = single[:, None, None, None]
        out = sums * (scales * sample) if first else sums * scales * sample
        return clamp_real(out + x[2] if len(x) > 2 else out, site.number(activation))

    return run


def fully_connected(site: Site) -> Hybrid:
    """FULLY_CONNECTED: each row quantized, symmetrically unless the operator says otherwise."""
    w, scales = site.setting(1), _scales(site)
    how = asymmetric if site.number(3) else symmetric
    filter_ = Filter.exact(w[:, None, None], Window((1, 1)), bound=255)

    def run(x: Arrays) -> NDArray[Any]:
        flat = rows(site, x[0], w.shape[1])
        data, single, zero = how(flat.reshape(-1, w.shape[1]))
        centred = (data - zero[:, None])[:, None, None].astype(filter_.dtype)
        sums = filter_(centred)[:, 0, 0].astype(np.float32)
        out = sums * (single[:, None] * scales)
        if len(x) > 2:
            out = x[2] + out
        return clamp_real(out, site.number(0)).reshape(*flat.shape[:-1], len(w))

    return run


def _scales(site: Site) -> NDArray[np.float32]:
    weights = site.input(1).grid
    if weights is None or weights.zero_points.any():
        raise site.refused("with float activations wants weights whose zero point is 0")
    return weights.scales.astype(np.float32)


#: What an operator does with float activations and integer weights, from where it stands.
HYBRID: dict[str, Callable[[Site], Hybrid]] = {
    "CONV_2D": conv, "DEPTHWISE_CONV_2D": depthwise, "FULLY_CONNECTED": fully_connected,
}  # fmt: skip
