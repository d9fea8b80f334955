"""TFLite's layers of products in fixed point: from where one stands to a function of its integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed import tflite_common as common
from edgelathe.model.fixed.limits import Limits
from edgelathe.model.fixed.linear import Linear, Rescale, centred
from edgelathe.model.fixed.products import Filter, Window, kind
from edgelathe.model.fixed.real import layer, rows
from edgelathe.model.fixed.tflite_common import Arrays, Fixed, Result
from edgelathe.model.fixed.tflite_windows import conv_window, spread_window
from edgelathe.model.fixed.transposed import Spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.rescaling import Way
    from edgelathe.model.fixed.tflite_graph import Site
    from edgelathe.model.fixed.types import Grid

_INT32 = 2  # TensorType of the schema
# The option that says the type of a bias, and with it how wide sums are.
_BIAS_TYPE = {"CONV_2D": 6, "FULLY_CONNECTED": 4, "TRANSPOSE_CONV": 4}


def conv(site: Site) -> Fixed:
    """CONV_2D. Weights may be computed by no operator."""
    a, w = common.grid(site, site.input(0)), site.setting(1)
    rescale, made = _rescale(site, 0, site.number(3), real=False), Once()

    def run(x: Arrays) -> Result:
        window = conv_window(site, w, x[0])
        linear = made(window, lambda: _linear(site, a, w, window, x[0].shape[3] // w.shape[3], rescale))
        data, clipped, overflows = linear(x[0])
        return Result((data,), clipped, overflows)

    return run


def depthwise(site: Site) -> Fixed:
    """DEPTHWISE_CONV_2D."""
    a, w = common.grid(site, site.input(0)), site.setting(1).transpose(3, 1, 2, 0)
    rescale, made = _rescale(site, 3, site.number(4), real=False), Once()

    def run(x: Arrays) -> Result:
        window = conv_window(site, w, x[0])
        linear = made(window, lambda: _linear(site, a, w, window, x[0].shape[3], rescale))
        data, clipped, overflows = linear(x[0])
        return Result((data,), clipped, overflows)

    return run


def fully_connected(site: Site) -> Fixed:
    """FULLY_CONNECTED: the reference kernels of today rescale in float64 here."""
    a, w = common.grid(site, site.input(0)), site.setting(1)
    if site.number(1):
        raise site.refused("with shuffled weights is not simulated")
    linear = _linear(site, a, w[:, None, None], Window((1, 1)), 1, _rescale(site, 0, site.number(0), real=True))

    def run(x: Arrays) -> Result:
        flat = rows(site, x[0], w.shape[1])
        data, clipped, overflows = linear(flat.reshape(-1, 1, 1, w.shape[1]))
        return Result((data.reshape(*flat.shape[:-1], len(w)),), clipped, overflows)

    return run


def transpose_conv(site: Site) -> Fixed:
    """TRANSPOSE_CONV."""
    usual = layer(site)
    a, w = common.grid(usual, usual.input(0)), usual.setting(1)
    rescale, made = _rescale(usual, 0, site.number(3), real=False), Once()
    centred, bound = _centred(usual, w), _bound(a)

    def run(x: Arrays) -> Result:
        size = (int(x[0][1]), int(x[0][2]))

        def make() -> Linear:
            return Linear(Spread.exact(centred, spread_window(site, w, size), size, bound=bound), a.zero_point, rescale)

        data, clipped, overflows = made(size, make)(x[2])
        return Result((data,), clipped, overflows)

    return run


def batch_matmul(site: Site) -> Fixed:
    """BATCH_MATMUL of two computed tensors, each with one scale. Their factor is a float32 product over a float64."""
    a, b, out = common.grid(site, site.input(0)), common.grid(site, site.input(1)), common.grid(site, site.outputs[0])
    factor = np.array([float(np.float32(a.scale) * np.float32(b.scale)) / out.scale])
    wide = a.bits > 8
    bits = site.arithmetic.wide if wide else site.arithmetic.accumulator
    way: Way = "even32" if common.default(site, out) else "wide" if wide and bits > 32 else common.way(site)
    rescale = Rescale(factor, None, out, Limits.of(out), way, bits, site.arithmetic.overflow)

    def run(x: Arrays) -> Result:
        left, right = (np.swapaxes(v, -1, -2) if site.number(i) else v for i, v in enumerate(x))
        dtype = kind(float(_bound(a)) * _bound(b) * left.shape[-1])
        sums = centred(left, a.zero_point, dtype) @ centred(right, b.zero_point, dtype)
        data, clipped, overflows = rescale(sums)
        return Result((data,), clipped, overflows)

    return run


def _linear(site: Site, a: Grid, w: NDArray[Any], window: Window, groups: int, rescale: Rescale) -> Linear:
    return Linear(Filter.exact(_centred(site, w), window, groups, bound=_bound(a)), a.zero_point, rescale)


def _centred(site: Site, w: NDArray[Any]) -> NDArray[np.int64]:
    """Weights [out, ...] without their zero points."""
    return w.astype(np.int64) - common.grid(site, site.input(1)).zero_points.reshape(-1, 1, 1, 1)


def _bound(a: Grid) -> int:
    """The size that an input without its zero point may have."""
    return max(a.high - a.zero_point, a.zero_point - a.low)


def _rescale(site: Site, axis: int, activation: int, *, real: bool) -> Rescale:
    (a, out), weights_slot, bias = common.ends(site), site.input(1), site.optional(2)
    weights = common.grid(site, weights_slot)
    if weights.axis not in (None, axis):
        raise site.refused(f"has a scale a channel along axis {weights.axis} of its weights")
    factors = a.scale * weights.scales / out.scale
    if not a.signed and not real:  # kernels of old: the product of scales is a float32 number
        factors = (np.float32(a.scale) * weights.scales.astype(np.float32)).astype(np.float64) / out.scale
    wide = a.bits > 8
    bits = site.arithmetic.wide if wide else site.arithmetic.accumulator
    if wide and site.number(_BIAS_TYPE.get(site.op, 99)) == _INT32:
        bits = min(bits, 32)
    asked = site.arithmetic.rounding
    way: Way = "away" if real else "wide" if wide and bits > 32 else "double"
    if asked == "float" or (site.arithmetic.kernels == "optimized" and not wide):
        way = "even32"
        factors = np.float32(a.scale) * weights.scales.astype(np.float32) / np.float32(out.scale)
    values = None if bias is None else site.setting(2).reshape(-1)
    if bias is not None and bias.exact is not None and (weights_slot.assigned or site.input(0).assigned):
        values = np.rint(bias.exact.reshape(-1) / (a.scale * weights.scales))
    values = None if values is None else values.astype(np.int64)
    limits = Limits.of(out, activation)
    if asked in ("single", "double") and way in ("away", "double"):
        way = asked
    return Rescale(np.asarray(factors, np.float64), values, out, limits, way, bits, site.arithmetic.overflow)


class Once:
    """What depends on the size of the image, made for the last one seen."""

    def __init__(self) -> None:
        self._key: object = None
        self._made: Any = None

    def __call__(self, key: object, make: Callable[[], Any]) -> Any:
        """What belongs to `key`, made if need be."""
        if key != self._key:
            self._key, self._made = key, make()
        return self._made
