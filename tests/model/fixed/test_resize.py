"""RESIZE_BILINEAR in fixed point against the interpreter: every bit of every type and way to place pixels."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.core.errors import UserError
from edgelathe.model.fixed import tflite
from edgelathe.model.fixed.types import Arithmetic
from support.fixed_tflite import agree, drawn
from support.tiny_tflite import Net, T, answers

WAYS = {"plain": {}, "corners": {"alignCorners": True}, "centers": {"halfPixelCenters": True}}


def resized(dtype, size, way, shape=(1, 5, 7, 3), out=None):
    grid = {"int8": (0.1, -9), "uint8": (0.1, 120), "int16": (0.001, 0), "float32": ()}[dtype]
    x, y = T("x", shape, dtype, *grid), T("y", (1, *size, shape[3]), dtype, *(out or grid))
    net = Net()
    net.op("RESIZE_BILINEAR", [x, T("size", (), "int32", values=size)], [y], table="ResizeBilinearOptions", **WAYS[way])
    return net.build([x], [y])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [(10, 14), (13, 3), (1, 1), (5, 7)])
def test_integers(dtype, way, size):
    agree(resized(dtype, size, way), {"x": drawn(3, 5, 7, 3, dtype=dtype)})


@pytest.mark.parametrize("way", WAYS)
def test_reals(way):
    model = resized("float32", (9, 11), way)
    x = np.random.default_rng(0).normal(size=(3, 5, 7, 3)).astype(np.float32)
    got = tflite.program(model, Arithmetic()).run({"x": x}, lambda _: None).simulated[0].data
    np.testing.assert_allclose(got, answers(model, {"x": x})[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("way", WAYS)
def test_a_default_session(dtype, way):
    agree(resized(dtype, (13, 10), way), {"x": drawn(3, 5, 7, 3, dtype=dtype)}, Arithmetic(kernels="optimized"))


def test_a_resize_that_changes_the_scale_is_refused():
    with pytest.raises(UserError, match="RESIZE_BILINEAR changes the scale"):
        tflite.program(resized("int8", (10, 14), "plain", out=(0.2, -9)), Arithmetic())
