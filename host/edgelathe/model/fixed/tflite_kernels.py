"""TFLite's operators in fixed point: from where one stands to a function of its integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed import elementwise, optimized, resize, tables
from edgelathe.model.fixed.exponent import Softmax, Softmax16
from edgelathe.model.fixed.limits import RELU, RELU6, RELU_N1_TO_1, Limits
from edgelathe.model.fixed.pooling import AveragePool, MaxPool, Mean
from edgelathe.model.fixed.real import places, reduced_axes
from edgelathe.model.fixed.tflite_common import Arrays, Fixed, Result, default, ends, grid, way
from edgelathe.model.fixed.tflite_linear import batch_matmul, conv, depthwise, fully_connected, transpose_conv
from edgelathe.model.fixed.tflite_windows import pool_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.tflite_graph import Site
    from edgelathe.model.fixed.types import Grid


def add(site: Site, sign: int = 1) -> Fixed:
    """ADD, and SUB with the other sign."""
    a, b, out = grid(site, site.input(0)), grid(site, site.input(1)), grid(site, site.outputs[0])
    limits = Limits.of(out, site.number(0))
    kernel: Callable[..., elementwise.Done] = elementwise.Sum(a, b, out, limits, sign, way(site))
    if default(site, out):
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
    kernel = elementwise.Product(a, b, out, limits, "even32" if default(site, out) else way(site))

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
    axes = reduced_axes(site)
    how = optimized.Mean if default(site, out) and axes == (1, 2) else Mean
    return _one(how(a, out, axes, bool(site.number(0))))


def total(site: Site) -> Fixed:
    """SUM. The reference kernels of int8 and int16 write no answer; theirs is that of uint8."""
    a, out = ends(site)
    how = optimized.Mean if site.arithmetic.kernels == "optimized" else Mean
    return _one(how(a, out, reduced_axes(site), bool(site.number(0)), total=True))


def reduced(function: Callable[..., Any]) -> Callable[[Site], Fixed]:
    """REDUCE_MAX and REDUCE_MIN, within one grid."""

    def bind(site: Site) -> Fixed:
        _one_grid(site)
        axes, keep = reduced_axes(site), bool(site.number(0))
        return lambda x: Result((function(x[0], axis=axes, keepdims=keep),))

    return bind


def resize_bilinear(site: Site) -> Fixed:
    """RESIZE_BILINEAR, within one grid."""
    out = _one_grid(site)
    kernel: Callable[..., NDArray[Any]] = resize.integers if out.signed else resize.half_up
    if default(site, out):
        kernel = resize.eleven_bits
    return lambda x: Result((kernel(x[0], *places(site, x[0], x[1])),))


def prelu(site: Site) -> Fixed:
    """PRELU."""
    a, out = ends(site)
    kernel = elementwise.Prelu(a, grid(site, site.input(1)), out, way(site))

    def run(x: Arrays) -> Result:
        data, clipped = kernel(x[0], x[1])
        return Result((data,), clipped)

    return run


def softmax(site: Site) -> Fixed:
    """SOFTMAX."""
    a, out = ends(site)
    beta = site.real(0)
    kernel: Callable[[NDArray[Any]], NDArray[Any]] = Softmax(a, out, beta)
    if a.bits == out.bits == 16:
        kernel = Softmax16(a, out, beta)
    elif default(site, out):
        kernel = tables.SoftmaxTable(a, out, beta)
    return lambda x: Result((kernel(x[0]),))


def relu(activation: int) -> Callable[[Site], Fixed]:
    """RELU and its kin as operators of their own."""

    def bind(site: Site) -> Fixed:
        a, out = ends(site)
        return _one(elementwise.Regrid(a, out, Limits.of(out, activation), way(site), single=True))

    return bind


def leaky_relu(site: Site) -> Fixed:
    """LEAKY_RELU."""
    a, out = ends(site)
    if default(site, out):
        return _one(optimized.Regrid(a, out, site.real(0)))
    return _one(elementwise.LeakyRelu(a, out, site.real(0), way(site)))


def hard_swish(site: Site) -> Fixed:
    """HARD_SWISH of 8 bits."""
    a, out = ends(site)
    if a.bits > 8 and not site.outputs[0].assigned:
        raise site.refused("of 16 bits is not simulated")
    return _one(tables.hard_swish(a, out) if a.bits <= 8 else tables.of(site, a, out))


def quantize(site: Site) -> Fixed:
    """QUANTIZE: from reals, or from one grid to another."""
    out, a = grid(site, site.outputs[0]), site.input(0).grid
    if a is None:
        return _one(lambda x: elementwise.quantize(x, out))
    if default(site, out) and a.bits == 8 and a.signed == out.signed:
        return _one(optimized.Regrid(a, out))
    return _one(elementwise.Regrid(a, out, Limits.of(out), way(site)))


def table(site: Site) -> Fixed:
    """LOGISTIC, TANH and others that are a table of every input."""
    return _one(tables.of(site, *ends(site)))


def extremum(function: Callable[..., Any]) -> Callable[[Site], Fixed]:
    """MAXIMUM and MINIMUM of tensors of one grid."""
    return lambda site: lambda x: Result((function(x[0], x[1]),)) if ends(site) else Result(())


def _one_grid(site: Site) -> Grid:
    """The grid of input and output. Raises UserError where these differ."""
    a, out = ends(site)
    if (a.scale, a.zero_point) != (out.scale, out.zero_point):
        raise site.refused("changes the scale, which its kernel cannot")
    return out


def _one(kernel: Callable[[NDArray[Any]], elementwise.Done]) -> Fixed:
    def run(x: Arrays) -> Result:
        data, clipped = kernel(x[0])
        return Result((data,), clipped)

    return run


#: What an operator does with integers, from where it stands.
FIXED: dict[str, Callable[[Site], Fixed]] = {
    "CONV_2D": conv, "DEPTHWISE_CONV_2D": depthwise, "FULLY_CONNECTED": fully_connected, "BATCH_MATMUL": batch_matmul,
    "TRANSPOSE_CONV": transpose_conv, "ADD": add, "SUB": lambda site: add(site, -1), "MUL": mul,
    "MAXIMUM": extremum(np.maximum), "MINIMUM": extremum(np.minimum), "AVERAGE_POOL_2D": average_pool,
    "MAX_POOL_2D": max_pool, "MEAN": mean, "SUM": total, "REDUCE_MAX": reduced(np.max), "REDUCE_MIN": reduced(np.min),
    "RESIZE_BILINEAR": resize_bilinear, "SOFTMAX": softmax, "RELU": relu(RELU), "RELU6": relu(RELU6),
    "RELU_N1_TO_1": relu(RELU_N1_TO_1), "LEAKY_RELU": leaky_relu, "PRELU": prelu, "HARD_SWISH": hard_swish,
    "LOGISTIC": table, "TANH": table, "GELU": table, "QUANTIZE": quantize,
}  # fmt: skip
