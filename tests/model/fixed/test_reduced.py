"""TFLite's sums and extremes over axes, and slopes below zero, against the interpreter: every bit."""

from __future__ import annotations

import pytest

from edgelathe.core.errors import UserError
from edgelathe.model.fixed import tflite
from edgelathe.model.fixed.types import Arithmetic
from support.fixed_tflite import agree, drawn
from support.tiny_tflite import Net, T

ZEROS = {"int8": 15, "uint8": 99, "int16": 0}
SHAPE = (1, 7, 6, 5)


def over(kind, axes, dtype, scale, zero, *, keep=False):
    left = tuple(1 if i in axes else n for i, n in enumerate(SHAPE) if keep or i not in axes)
    x, y = T("x", SHAPE, dtype, 0.1, ZEROS[dtype]), T("y", left, dtype, scale, zero)
    net = Net()
    net.op(kind, [x, T("axes", (), "int32", values=axes)], [y], table="ReducerOptions", keepDims=keep)
    return net.build([x], [y])


@pytest.mark.parametrize("axes", [[1, 2], [1], [3], [1, 2, 3]])
@pytest.mark.parametrize(("scale", "keep"), [(0.7, True), (0.1, True), (0.03, False)])
def test_sum_by_the_reference_kernel(axes, scale, keep):
    """Of uint8: those of int8 and int16 leave the output as it was in memory."""
    zero = 99 if scale == 0.1 else 60
    agree(over("SUM", axes, "uint8", scale, zero, keep=keep), {"x": drawn(4, *SHAPE[1:], dtype="uint8")})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize(("axes", "keep"), [([1, 2], True), ([3], False), ([1, 2, 3], False)])
def test_sum_in_a_default_session(dtype, axes, keep):
    model = over("SUM", axes, dtype, 2.3, ZEROS[dtype] and ZEROS[dtype] - 11, keep=keep)
    agree(model, {"x": drawn(20, *SHAPE[1:], dtype=dtype)}, Arithmetic(kernels="optimized"))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("kind", ["REDUCE_MAX", "REDUCE_MIN"])
@pytest.mark.parametrize(("axes", "keep"), [([1, 2], True), ([3], False), ([1, 2, 3], False)])
def test_extremes(dtype, kind, axes, keep):
    agree(over(kind, axes, dtype, 0.1, ZEROS[dtype], keep=keep), {"x": drawn(4, *SHAPE[1:], dtype=dtype)})


def test_an_extreme_that_changes_the_scale_is_refused():
    with pytest.raises(UserError, match="REDUCE_MAX changes the scale"):
        tflite.program(over("REDUCE_MAX", [3], "int8", 0.2, 15), Arithmetic())


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("slopes", [(1, 1, 5), (7, 6, 5)])
@pytest.mark.parametrize("scale", [0.05, 0.9])
def test_prelu(dtype, slopes, scale):
    x, y = T("x", SHAPE, dtype, 0.1, ZEROS[dtype]), T("y", SHAPE, dtype, scale, ZEROS[dtype] - 20)
    alpha = T("alpha", (), dtype, 0.007, ZEROS[dtype] + 9, drawn(*slopes, dtype=dtype, seed=1))
    net = Net()
    net.op("PRELU", [x, alpha], [y])
    agree(net.build([x], [y]), {"x": drawn(4, *SHAPE[1:], dtype=dtype)})


@pytest.mark.parametrize("kind", ["PRELU", "REDUCE_MAX"])
def test_the_others_in_a_default_session(kind):
    if kind == "PRELU":
        x, y = T("x", SHAPE, "int8", 0.1, 15), T("y", SHAPE, "int8", 0.05, -5)
        net = Net()
        net.op(kind, [x, T("alpha", (), "int8", 0.007, 24, drawn(1, 1, 5, seed=1))], [y])
        model = net.build([x], [y])
    else:
        model = over(kind, [1, 2], "int8", 0.1, 15)
    agree(model, {"x": drawn(4, *SHAPE[1:])}, Arithmetic(kernels="optimized"))
