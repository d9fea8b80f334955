"""The same operators on real numbers, in float32: what fixed point is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed import resize
from edgelathe.model.fixed.limits import clamp_real
from edgelathe.model.fixed.pooling import counts
from edgelathe.model.fixed.products import Filter
from edgelathe.model.fixed.tflite_windows import conv_window, pool_window, spread_window
from edgelathe.model.fixed.transposed import Spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.tflite_graph import Site

Arrays = Sequence["NDArray[Any]"]
Real = Callable[[Arrays], "NDArray[Any]"]


def conv(site: Site) -> Real:
    """CONV_2D: [n, h, w, c] with [out, kh, kw, c / groups]."""

    def run(x: Arrays) -> NDArray[Any]:
        image, w = x[0], x[1]
        window = conv_window(site, w, image)
        out = Filter(w, window, image.shape[3] // w.shape[3])(image)
        return clamp_real(out + x[2] if len(x) > 2 else out, site.number(3))

    return run


def depthwise(site: Site) -> Real:
    """DEPTHWISE_CONV_2D: weights [1, kh, kw, c * each]."""

    def run(x: Arrays) -> NDArray[Any]:
        image, w = x[0], x[1].transpose(3, 1, 2, 0)
        out = Filter(w, conv_window(site, w, image), image.shape[3])(image)
        return clamp_real(out + x[2] if len(x) > 2 else out, site.number(4))

    return run


def layer(site: Site) -> Site:
    """A TRANSPOSE_CONV, whose first input is the shape of its output, as other layers are: input, weights, bias."""
    return replace(site, inputs=(site.optional(2), site.optional(1), site.optional(3)))


def transpose_conv(site: Site) -> Real:
    """TRANSPOSE_CONV: the shape of the output, weights [out, kh, kw, c], input, bias."""

    def run(x: Arrays) -> NDArray[Any]:
        size = (int(x[0][1]), int(x[0][2]))
        out = Spread.of(x[1], spread_window(site, x[1], size), size)(x[2])
        return clamp_real(out + x[3] if len(x) > 3 else out, site.number(3))

    return run


def fully_connected(site: Site) -> Real:
    """FULLY_CONNECTED: weights [out, in]."""

    def run(x: Arrays) -> NDArray[Any]:
        out = rows(site, x[0], x[1].shape[1]) @ x[1].T
        return clamp_real(out + x[2] if len(x) > 2 else out, site.number(0))

    return run


def rows(site: Site, x: NDArray[Any], depth: int) -> NDArray[Any]:
    """The input of a fully connected layer as it is multiplied: [..., depth], or [all the rest, depth]."""
    return x if site.number(2) and x.shape[-1] == depth else x.reshape(-1, depth)


def batch_matmul(site: Site) -> Real:
    """BATCH_MATMUL."""

    def run(x: Arrays) -> NDArray[Any]:
        a, b = (np.swapaxes(v, -1, -2) if site.number(i) else v for i, v in enumerate(x))
        return np.asarray(a @ b)

    return run


def average_pool(site: Site) -> Real:
    """AVERAGE_POOL_2D."""

    def run(x: Arrays) -> NDArray[Any]:
        window = pool_window(site, x[0])
        total = window.cut(x[0]).sum(axis=(4, 5))
        count = counts(window, x[0].shape[1], x[0].shape[2])[None, :, :, None].astype(np.float32)
        return clamp_real(total / count, site.number(5))

    return run


def max_pool(site: Site) -> Real:
    """MAX_POOL_2D."""

    def run(x: Arrays) -> NDArray[Any]:
        return clamp_real(pool_window(site, x[0]).cut(x[0], -np.inf).max(axis=(4, 5)), site.number(5))

    return run


def reduced(function: Callable[..., Any]) -> Callable[[Site], Real]:
    """MEAN, SUM, REDUCE_MAX and REDUCE_MIN over axes."""

    def bind(site: Site) -> Real:
        axes, keep = reduced_axes(site), bool(site.number(0))
        return lambda x: np.asarray(function(x[0], axis=axes, keepdims=keep), x[0].dtype)

    return bind


def reduced_axes(site: Site) -> tuple[int, ...]:
    """Ascending, each once."""
    rank = max(1, len(site.input(0).shape))
    return tuple(sorted({int(v) % rank for v in site.setting(1).reshape(-1)}))


def resize_bilinear(site: Site) -> Real:
    """RESIZE_BILINEAR."""
    return lambda x: resize.real(x[0], *places(site, x[0], x[1]))


def places(site: Site, image: NDArray[Any], size: NDArray[Any]) -> tuple[resize.Places, resize.Places]:
    """Where the rows and columns of the output lie in the image."""
    how = bool(site.number(2)), bool(site.number(3))
    return resize.Places(image.shape[1], int(size[0]), *how), resize.Places(image.shape[2], int(size[1]), *how)


def prelu(_: Site) -> Real:
    """PRELU: a slope of its own for each value, or for each channel."""
    return lambda x: np.asarray(np.where(x[0] >= 0, x[0], x[0] * x[1]))


def softmax(site: Site) -> Real:
    """SOFTMAX over the last axis."""
    beta = np.float32(site.real(0))

    def run(x: Arrays) -> NDArray[Any]:
        exps = np.exp((x[0] - x[0].max(axis=-1, keepdims=True)) * beta)
        return np.asarray(exps / exps.sum(axis=-1, keepdims=True))

    return run


def log_softmax(_: Site) -> Real:
    """LOG_SOFTMAX over the last axis."""

    def run(x: Arrays) -> NDArray[Any]:
        moved = x[0] - x[0].max(axis=-1, keepdims=True)
        return np.asarray(moved - np.log(np.exp(moved).sum(axis=-1, keepdims=True)))

    return run


def _two(function: Callable[..., Any]) -> Callable[[Site], Real]:
    """An operator of two inputs that broadcast, with a fused activation."""
    return lambda site: lambda x: clamp_real(function(x[0], x[1]), site.number(0))


def _one(function: Callable[..., Any]) -> Callable[[Site], Real]:
    """An operator of single values."""
    return lambda _: lambda x: np.asarray(function(x[0]))


def _integer_if(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Division: of indices in whole numbers, towards zero."""
    return np.asarray(x / y if x.dtype.kind == "f" else np.trunc(x / y).astype(x.dtype))


def logistic(x: NDArray[Any]) -> NDArray[Any]:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(np.where(x >= 0, 1, np.exp(-np.abs(x))) / (1 + np.exp(-np.abs(x))))


def gelu(site: Site) -> Real:
    """GELU, exact or by tanh."""
    from math import erf, pi, sqrt

    if site.number(0):
        return lambda x: np.asarray(
            0.5 * x[0] * (1 + np.tanh(sqrt(2 / pi) * (x[0] + 0.044715 * x[0] ** 3))), x[0].dtype
        )
    exact = np.vectorize(erf, otypes=[np.float32])
    return lambda x: np.asarray(x[0] * np.float32(0.5) * (1 + exact(x[0] / np.float32(sqrt(2)))))


def leaky_relu(site: Site) -> Real:
    """LEAKY_RELU."""
    alpha = np.float32(site.real(0))
    return lambda x: np.asarray(np.where(x[0] >= 0, x[0], alpha * x[0]))


def cast(site: Site) -> Real:
    """CAST to the type of the output."""
    return lambda x: np.asarray(x[0].astype(site.outputs[0].dtype))


#: What an operator does with real numbers (and with indices), from where it stands.
REAL: dict[str, Callable[[Site], Real]] = {
    "CONV_2D": conv, "DEPTHWISE_CONV_2D": depthwise, "FULLY_CONNECTED": fully_connected, "BATCH_MATMUL": batch_matmul,
    "TRANSPOSE_CONV": transpose_conv, "AVERAGE_POOL_2D": average_pool, "MAX_POOL_2D": max_pool,
    "RESIZE_BILINEAR": resize_bilinear, "MEAN": reduced(np.mean), "SUM": reduced(np.sum),
    "REDUCE_MAX": reduced(np.max), "REDUCE_MIN": reduced(np.min), "PRELU": prelu, "SOFTMAX": softmax,
    "LOG_SOFTMAX": log_softmax, "ADD": _two(np.add), "SUB": _two(np.subtract), "MUL": _two(np.multiply),
    "DIV": _two(_integer_if), "MAXIMUM": lambda _: lambda x: np.maximum(x[0], x[1]),
    "MINIMUM": lambda _: lambda x: np.minimum(x[0], x[1]), "RELU": _one(lambda x: np.maximum(x, 0)),
    "RELU6": _one(lambda x: np.clip(x, 0, 6)), "RELU_N1_TO_1": _one(lambda x: np.clip(x, -1, 1)),
    "LEAKY_RELU": leaky_relu, "LOGISTIC": _one(logistic), "TANH": _one(np.tanh), "GELU": gelu,
    "HARD_SWISH": _one(lambda x: x * np.clip(x + 3, 0, 6) / 6), "RSQRT": _one(lambda x: 1 / np.sqrt(x)),
    "SQRT": _one(np.sqrt), "EXP": _one(np.exp), "ABS": _one(np.abs), "NEG": _one(np.negative),
    "SQUARE": _one(np.square), "SQUARED_DIFFERENCE": lambda _: lambda x: np.square(x[0] - x[1]), "CAST": cast,
}  # fmt: skip
