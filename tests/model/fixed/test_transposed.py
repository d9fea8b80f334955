"""TRANSPOSE_CONV in fixed point against the interpreter: every bit."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.model.fixed import tflite, tflite_assign
from edgelathe.model.fixed.types import Arithmetic, Bits
from support.fixed_tflite import SAME, VALID, agree, drawn, scales
from support.tiny_tflite import Net, T, answers

ZEROS = {"int8": (-7, 3), "uint8": (120, 90), "int16": (0, 0), "float32": (0, 0)}


def length(n, stride, size, padding):
    return n * stride if padding == SAME else (n - 1) * stride + size


def up(dtype="int8", *, stride=2, size=(3, 3), padding=SAME, bias=True, activation=0, out=4, one_scale=False):
    real, zero = dtype == "float32", ZEROS[dtype]
    x = T("x", (1, 5, 4, 3), dtype, None if real else 0.04, zero[0])
    per_tensor = dtype == "uint8" or one_scale
    w_scale = 0.011 if per_tensor else scales(out)
    values = np.random.default_rng(1).integers(*((0, 256) if dtype == "uint8" else (-127, 128)), (out, *size, 3))
    w = T("w", (), "uint8" if dtype == "uint8" else "int8", w_scale, 131 if dtype == "uint8" else 0, values)
    b_type = "int64" if dtype == "int16" else "int32"
    b_scale = np.float32(0.04) * np.asarray(w_scale, np.float32)
    b = T("b", (), b_type, b_scale, 0, np.random.default_rng(2).integers(-3000, 3000, out))
    if real:
        w, b = T("w", (), "float32", values=values * 0.01), T("b", (), "float32", values=np.linspace(-1, 1, out))
    shape = (1, *(length(n, stride, k, padding) for n, k in zip((5, 4), size, strict=True)), out)
    y = T("y", shape, dtype, None if real else 0.9 if dtype != "int16" else 0.01, zero[1])
    net = Net()
    wanted = T("shape", (), "int32", values=np.array(shape))
    net.op("TRANSPOSE_CONV", [wanted, w, x, *([b] if bias else [])], [y], table="TransposeConvOptions",
           padding=padding, strideH=stride, strideW=stride, fusedActivationFunction=activation)  # fmt: skip
    return net.build([x], [y])


@pytest.mark.parametrize(
    "options",
    [
        {}, {"padding": VALID}, {"stride": 1}, {"stride": 3, "size": (2, 2)}, {"size": (4, 2), "padding": VALID},
        {"bias": False}, {"one_scale": True}, {"activation": 1},
        {"dtype": "uint8"}, {"dtype": "int16"}, {"dtype": "int16", "padding": VALID},
    ],
    ids=str,
)  # fmt: skip
def test_every_bit(options):
    agree(up(**options), {"x": drawn(3, 5, 4, 3, dtype=options.get("dtype", "int8"))})


@pytest.mark.parametrize("padding", [SAME, VALID])
def test_a_default_session(padding):
    agree(up(padding=padding), {"x": drawn(3, 5, 4, 3)}, Arithmetic(kernels="optimized"))


@pytest.mark.parametrize("options", [{}, {"padding": VALID, "size": (4, 2), "activation": 1}], ids=str)
def test_reals(options):
    model = up("float32", **options)
    x = np.random.default_rng(0).normal(size=(3, 5, 4, 3)).astype(np.float32)
    got = tflite.program(model, Arithmetic()).run({"x": x}, lambda _: None).simulated[0].data
    np.testing.assert_allclose(got, answers(model, {"x": x})[0], rtol=0, atol=1e-5)


def test_a_float_model_gets_bits_as_other_layers_do():
    model = up("float32")
    x = np.random.default_rng(0).normal(size=(16, 5, 4, 3)).astype(np.float32)
    want = answers(model, {"x": x})[0]
    noise = []
    for bits in (8, 4):
        grids = tflite_assign.grids(model, Bits(bits, 8), {"x": x})
        got = tflite.program(model, Arithmetic(), grids).run({"x": x}, lambda _: None).simulated[0].real
        noise.append(float(np.square(got - want).mean() / np.square(want).mean()))
    assert noise[0] < 3e-4 < noise[1] < 0.1
