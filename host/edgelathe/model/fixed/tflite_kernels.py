"""TFLite's operators in fixed point: from where one stands to a function of its integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed import elementwise, optimized, tables
from edgelathe.model.fixed.exponent import Softmax, Softmax16
from edgelathe.model.fixed.limits import RELU, RELU6, RELU_N1_TO_1, Limits
from edgelathe.model.fixed.linear import Linear, Rescale, Way
from edgelathe.model.fixed.pooling import AveragePool, MaxPool, Mean
from edgelathe.model.fixed.products import Filter, Window
from edgelathe.model.fixed.real import rows
from edgelathe.model.fixed.tflite_windows import conv_window, pool_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.tflite_graph import Site, Slot
    from edgelathe.model.fixed.types import Grid, Rounding

Arrays = Sequence["NDArray[Any]"]
_INT32 = 2  # TensorType of the schema
_BIAS_TYPE = {"CONV_2D": 6, "FULLY_CONNECTED": 4}  # the option that says it, and with it how wide sums are


@dataclass(frozen=True, eq=False)
class Result:
    """Integers of the outputs, how many were clipped, how many sums overflowed."""

    outputs: tuple[NDArray[Any], ...]
    clipped: int = 0
    overflows: int = 0


Fixed = Callable[[Arrays], Result]


def grid(site: Site, slot: Slot) -> Grid:
    """The grid of a tensor that must have one. Raises UserError."""
    if slot.grid is None:
        raise site.refused(f"mixes integers with '{slot.name}', which has no scale")
    return slot.grid


def ends(site: Site) -> tuple[Grid, Grid]:
    """The grids of the first input and the first output."""
    return grid(site, site.input(0)), grid(site, site.outputs[0])


def conv(site: Site) -> Fixed:
    """CONV_2D. Weights may be computed by no operator."""
    a, w = grid(site, site.input(0)), site.setting(1)
    rescale, made = _rescale(site, 0, site.number(3), real=False), _Once()

    def run(x: Arrays) -> Result:
        window = conv_window(site, w, x[0])
        linear = made(window, lambda: _linear(site, a, w, window, x[0].shape[3] // w.shape[3], rescale))
        data, clipped, overflows = linear(x[0])
        return Result((data,), clipped, overflows)

    return run


def depthwise(site: Site) -> Fixed:
    """DEPTHWISE_CONV_2D."""
    a, w = grid(site, site.input(0)), site.setting(1).transpose(3, 1, 2, 0)
    rescale, made = _rescale(site, 3, site.number(4), real=False), _Once()

    def run(x: Arrays) -> Result:
        window = conv_window(site, w, x[0])
        linear = made(window, lambda: _linear(site, a, w, window, x[0].shape[3], rescale))
        data, clipped, overflows = linear(x[0])
        return Result((data,), clipped, overflows)

    return run


def fully_connected(site: Site) -> Fixed:
    """FULLY_CONNECTED: the reference kernels of today rescale in float64 here."""
    a, w = grid(site, site.input(0)), site.setting(1)
    linear = _linear(site, a, w[:, None, None], Window((1, 1)), 1, _rescale(site, 0, site.number(0), real=True))

    def run(x: Arrays) -> Result:
        flat = rows(site, x[0], w.shape[1])
        data, clipped, overflows = linear(flat.reshape(-1, 1, 1, w.shape[1]))
        return Result((data.reshape(*flat.shape[:-1], len(w)),), clipped, overflows)

    return run


def _linear(site: Site, a: Grid, w: NDArray[Any], window: Window, groups: int, rescale: Rescale) -> Linear:
    weights = grid(site, site.input(1))
    centred = w.astype(np.int64) - weights.zero_points.reshape(-1, 1, 1, 1)
    bound = max(a.high - a.zero_point, a.zero_point - a.low)
    return Linear(Filter.exact(centred, window, groups, bound=bound), a.zero_point, rescale)


def _rescale(site: Site, axis: int, activation: int, *, real: bool) -> Rescale:
    (a, out), weights_slot, bias = ends(site), site.input(1), site.optional(2)
    weights = grid(site, weights_slot)
    if weights.axis not in (None, axis):
        raise site.refused(f"has a scale a channel along axis {weights.axis} of its weights")
    factors = a.scale * weights.scales / out.scale
    if not a.signed and not real:  # kernels of old: the product of scales is a float32 number
        factors = (np.float32(a.scale) * weights.scales.astype(np.float32)).astype(np.float64) / out.scale
    wide = a.bits > 8
    bits = site.arithmetic.wide if wide else site.arithmetic.accumulator
    if wide and site.number(_BIAS_TYPE.get(site.op, 99)) == _INT32:
        bits = min(bits, 32)
    way: Way = "real" if real else "wide" if wide and bits > 32 else "shift"
    rounding = site.arithmetic.rounding or "double"
    if rounding == "float" or (site.arithmetic.kernels == "optimized" and not wide and a.signed):
        way = "even"
        factors = np.float32(a.scale) * weights.scales.astype(np.float32) / np.float32(out.scale)
    values = None if bias is None else site.setting(2).reshape(-1)
    if bias is not None and bias.exact is not None and (weights_slot.assigned or site.input(0).assigned):
        values = np.rint(bias.exact.reshape(-1) / (a.scale * weights.scales))
    values = None if values is None else values.astype(np.int64)
    limits = Limits.of(out, activation)
    if site.arithmetic.rounding in ("single", "double") and way == "real":
        way = "shift"
    held = np.asarray(factors, np.float64)
    return Rescale(held, values, out, limits, way, bits, site.arithmetic.overflow, rounding)


def _rounding(site: Site) -> Rounding:
    return site.arithmetic.rounding or "double"


def _default(site: Site, out: Grid) -> bool:
    """Whether the kernels of a default TFLite session are wanted, which differ for 8 bits."""
    return site.arithmetic.kernels == "optimized" and out.bits == 8 and out.signed


class _Once:
    """What depends on the size of the image, made for the last one seen."""

    def __init__(self) -> None:
        self._key: object = None
        self._made: Any = None

    def __call__(self, key: object, make: Callable[[], Any]) -> Any:
        if key != self._key:
            self._key, self._made = key, make()
        return self._made


def add(site: Site, sign: int = 1) -> Fixed:
    """ADD, and SUB with the other sign."""
    a, b, out = grid(site, site.input(0)), grid(site, site.input(1)), grid(site, site.outputs[0])
    limits = Limits.of(out, site.number(0))
    kernel: Callable[..., elementwise.Done] = elementwise.Sum(a, b, out, limits, sign, _rounding(site))
    if _default(site, out):
        kernel = optimized.Sum(a, b, out, limits, sign)
    elif out.bits == 16 and site.number(1, default=1):
        powers = [tables.power_of_two(g.scale) for g in (a, b, out)]
        if None not in powers:
            first, second, last = (int(p or 0) for p in powers)
            kernel = elementwise.ShiftedSum(last - first, last - second, limits, sign)

    def run(x: Arrays) -> Result:
        data, clipped = kernel(x[0], x[1])
        return Result((data,), clipped)

    return run


def mul(site: Site) -> Fixed:
    """MUL."""
    a, b, out = grid(site, site.input(0)), grid(site, site.input(1)), grid(site, site.outputs[0])
    limits = Limits.of(out, site.number(0))
    kernel: Callable[..., elementwise.Done] = elementwise.Product(a, b, out, limits, _rounding(site))
    if _default(site, out):
        kernel = optimized.Product(a, b, out, limits)

    def run(x: Arrays) -> Result:
        data, clipped = kernel(x[0], x[1])
        return Result((data,), clipped)

    return run


def average_pool(site: Site) -> Fixed:
    """AVERAGE_POOL_2D."""
    _, out = ends(site)
    limits = Limits.of(out, site.number(5))
    return lambda x: Result((AveragePool(pool_window(site, x[0]), out, limits)(x[0]),))


def max_pool(site: Site) -> Fixed:
    """MAX_POOL_2D."""
    _, out = ends(site)
    limits = Limits.of(out, site.number(5))
    return lambda x: Result((MaxPool(pool_window(site, x[0]), out, limits)(x[0]),))


def mean(site: Site) -> Fixed:
    """MEAN."""
    a, out = ends(site)
    rank = len(site.input(0).shape)
    axes = tuple(sorted({int(v) % rank for v in site.setting(1).reshape(-1)}))
    how = optimized.Mean if _default(site, out) and axes == (1, 2) else Mean
    kernel = how(a, out, axes, bool(site.number(0)))

    def run(x: Arrays) -> Result:
        data, clipped = kernel(x[0])
        return Result((data,), clipped)

    return run


def softmax(site: Site) -> Fixed:
    """SOFTMAX."""
    a, out = ends(site)
    beta = site.real(0)
    kernel: Callable[[NDArray[Any]], NDArray[Any]] = Softmax(a, out, beta)
    if a.bits == out.bits == 16:
        kernel = Softmax16(a, out, beta)
    elif _default(site, out):
        kernel = tables.SoftmaxTable(a, out, beta)
    return lambda x: Result((kernel(x[0]),))


def relu(activation: int) -> Callable[[Site], Fixed]:
    """RELU and its kin as operators of their own."""

    def bind(site: Site) -> Fixed:
        a, out = ends(site)
        return _one(elementwise.Regrid(a, out, Limits.of(out, activation), _rounding(site), single=True))

    return bind


def leaky_relu(site: Site) -> Fixed:
    """LEAKY_RELU."""
    a, out = ends(site)
    if _default(site, out):
        return _one(optimized.Regrid(a, out, site.real(0)))
    return _one(elementwise.LeakyRelu(a, out, site.real(0), _rounding(site)))


def quantize(site: Site) -> Fixed:
    """QUANTIZE: from reals, or from one grid to another."""
    out, a = grid(site, site.outputs[0]), site.input(0).grid
    if a is None:
        return _one(lambda x: elementwise.quantize(x, out))
    if _default(site, out) and a.bits == 8 and a.signed == out.signed:
        return _one(optimized.Regrid(a, out))
    return _one(elementwise.Regrid(a, out, Limits.of(out), _rounding(site)))


def table(site: Site) -> Fixed:
    """LOGISTIC, TANH and others that are a table of every input."""
    return _one(tables.of(site, *ends(site)))


def extremum(function: Callable[..., Any]) -> Callable[[Site], Fixed]:
    """MAXIMUM and MINIMUM of tensors of one grid."""
    return lambda site: lambda x: Result((function(x[0], x[1]),)) if ends(site) else Result(())


def _one(kernel: Callable[[NDArray[Any]], elementwise.Done]) -> Fixed:
    def run(x: Arrays) -> Result:
        data, clipped = kernel(x[0])
        return Result((data,), clipped)

    return run


#: What an operator does with integers, from where it stands.
FIXED: dict[str, Callable[[Site], Fixed]] = {
    "CONV_2D": conv, "DEPTHWISE_CONV_2D": depthwise, "FULLY_CONNECTED": fully_connected, "ADD": add,
    "SUB": lambda site: add(site, -1), "MUL": mul, "AVERAGE_POOL_2D": average_pool, "MAX_POOL_2D": max_pool,
    "MEAN": mean, "SOFTMAX": softmax, "RELU": relu(RELU), "RELU6": relu(RELU6), "RELU_N1_TO_1": relu(RELU_N1_TO_1),
    "LEAKY_RELU": leaky_relu, "QUANTIZE": quantize, "LOGISTIC": table, "TANH": table,
    "GELU": table, "MAXIMUM": extremum(np.maximum), "MINIMUM": extremum(np.minimum),
}  # fmt: skip
