"""TFLite's operators in fixed point: from where one stands to a function of its integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed import elementwise, optimized, tables
from edgelathe.model.fixed.exponent import Softmax, Softmax16
from edgelathe.model.fixed.limits import RELU, RELU6, RELU_N1_TO_1, Limits
from edgelathe.model.fixed.pooling import AveragePool, MaxPool, Mean
from edgelathe.model.fixed.tflite_common import Arrays, Fixed, Result, default, ends, grid, rounding
from edgelathe.model.fixed.tflite_linear import batch_matmul, conv, depthwise, fully_connected
from edgelathe.model.fixed.tflite_windows import pool_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.tflite_graph import Site


def add(site: Site, sign: int = 1) -> Fixed:
    """ADD, and SUB with the other sign."""
    a, b, out = grid(site, site.input(0)), grid(site, site.input(1)), grid(site, site.outputs[0])
    limits = Limits.of(out, site.number(0))
    kernel: Callable[..., elementwise.Done] = elementwise.Sum(a, b, out, limits, sign, rounding(site))
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
    kernel: Callable[..., elementwise.Done] = elementwise.Product(a, b, out, limits, rounding(site))
    if default(site, out):
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
    how = optimized.Mean if default(site, out) and axes == (1, 2) else Mean
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
    elif default(site, out):
        kernel = tables.SoftmaxTable(a, out, beta)
    return lambda x: Result((kernel(x[0]),))


def relu(activation: int) -> Callable[[Site], Fixed]:
    """RELU and its kin as operators of their own."""

    def bind(site: Site) -> Fixed:
        a, out = ends(site)
        return _one(elementwise.Regrid(a, out, Limits.of(out, activation), rounding(site), single=True))

    return bind


def leaky_relu(site: Site) -> Fixed:
    """LEAKY_RELU."""
    a, out = ends(site)
    if default(site, out):
        return _one(optimized.Regrid(a, out, site.real(0)))
    return _one(elementwise.LeakyRelu(a, out, site.real(0), rounding(site)))


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
    return _one(elementwise.Regrid(a, out, Limits.of(out), rounding(site)))


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
    "CONV_2D": conv, "DEPTHWISE_CONV_2D": depthwise, "FULLY_CONNECTED": fully_connected, "BATCH_MATMUL": batch_matmul,
    "ADD": add, "SUB": lambda site: add(site, -1), "MUL": mul, "MAXIMUM": extremum(np.maximum),
    "MINIMUM": extremum(np.minimum), "AVERAGE_POOL_2D": average_pool, "MAX_POOL_2D": max_pool, "MEAN": mean,
    "SOFTMAX": softmax, "RELU": relu(RELU), "RELU6": relu(RELU6), "RELU_N1_TO_1": relu(RELU_N1_TO_1),
    "LEAKY_RELU": leaky_relu, "HARD_SWISH": hard_swish, "LOGISTIC": table, "TANH": table, "GELU": table,
    "QUANTIZE": quantize,
}  # fmt: skip
