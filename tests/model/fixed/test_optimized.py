"""TFLite's default kernels, simulated: as the interpreter answers, and where it differs from the reference ones."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.model.fixed import tflite
from edgelathe.model.fixed.types import Arithmetic
from support.tiny_tflite import DEFAULT, REFERENCE, Net, T, answers

OPTIMIZED = Arithmetic(kernels="optimized")


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


def two(kind, table):
    rng = np.random.default_rng(len(kind))
    zeros = [int(z) for z in rng.integers(-100, 100, 3)]
    sizes = rng.uniform(0.01, 0.1, 3)
    a, b = (T(n, (1, 5000), "int8", s, z) for n, s, z in zip("ab", sizes, zeros, strict=False))
    y = T("y", (1, 5000), "int8", sizes[2] * (0.1 if kind == "MUL" else 1), zeros[2])
    net = Net()
    net.op(kind, [a, b], [y], table=table)
    return net.build([a, b], [y]), {"a": drawn(6, 5000), "b": drawn(6, 5000, seed=1)}


def one(kind, shape, out, **options):
    x, y = T("x", (1, *shape), "int8", 0.061, 23), T("y", (1, *out[0]), "int8", *out[1:])
    net = Net()
    inputs = [x, T("axes", (), "int32", values=options.pop("axes"))] if "axes" in options else [x]
    net.op(kind, inputs, [y], **options)
    return net.build([x], [y]), {"x": drawn(8, *shape)}


def old_conv():
    w = np.random.default_rng(0).integers(0, 256, (16, 3, 3, 8))
    x, y = T("x", (1, 12, 12, 8), "uint8", 0.05, 90), T("y", (1, 12, 12, 16), "uint8", 0.31, 124)
    b = T("b", (), "int32", np.float32(0.05) * np.float32(0.01), 0, np.random.default_rng(2).integers(-9000, 9000, 16))
    net = Net()
    net.op("CONV_2D", [x, T("w", (), "uint8", 0.01, 128, w), b], [y], table="Conv2DOptions", strideH=1, strideW=1)
    return net.build([x], [y]), {"x": drawn(20, 12, 12, 8).view(np.uint8)}


def conv():
    w = np.random.default_rng(0).integers(-127, 128, (16, 3, 3, 8))
    scale = np.random.default_rng(1).uniform(0.001, 0.02, 16).astype(np.float32)
    x, y = T("x", (1, 12, 12, 8), "int8", 0.05, -100), T("y", (1, 12, 12, 16), "int8", 0.31, 4)
    b = T("b", (), "int32", scale * np.float32(0.05), 0, np.random.default_rng(2).integers(-9000, 9000, 16))
    net = Net()
    net.op("CONV_2D", [x, T("w", (), "int8", scale, 0, w), b], [y], table="Conv2DOptions", strideH=1, strideW=1)
    return net.build([x], [y]), {"x": drawn(20, 12, 12, 8)}


CASES = {
    "conv": conv,
    "conv of uint8": old_conv,
    "add": lambda: two("ADD", "AddOptions"),
    "sub": lambda: two("SUB", "SubOptions"),
    "mul": lambda: two("MUL", "MulOptions"),
    "leaky relu": lambda: one("LEAKY_RELU", (4000,), ((4000,), 0.04, -9), table="LeakyReluOptions", alpha=0.3),
    "change of grid": lambda: one("QUANTIZE", (4000,), ((4000,), 0.0337, 8)),
    "mean": lambda: one(
        "MEAN", (7, 7, 300), ((1, 1, 300), 0.004, -3), axes=[1, 2], table="ReducerOptions", keepDims=True
    ),
    "softmax": lambda: one("SOFTMAX", (400, 9), ((400, 9), 1 / 256, -128), table="SoftmaxOptions", beta=1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_every_answer_is_that_of_a_default_session(case):
    model, inputs = CASES[case]()
    got = tflite.program(model, OPTIMIZED).run(inputs, lambda _: None).simulated[0].data
    np.testing.assert_array_equal(got, answers(model, inputs, DEFAULT)[0])


@pytest.mark.parametrize("case", ["leaky relu", "change of grid"])
def test_reference_and_default_kernels_are_told_apart(case):
    model, inputs = CASES[case]()
    reference, default = (answers(model, inputs, o)[0] for o in (REFERENCE, DEFAULT))
    simulated = [
        tflite.program(model, a).run(inputs, lambda _: None).simulated[0].data for a in (Arithmetic(), OPTIMIZED)
    ]
    assert (reference != default).any()
    np.testing.assert_array_equal(simulated[0] != simulated[1], reference != default)
