from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgelathe.compress.tflite import equalize as tflite_equalize
from edgelathe.compress.tflite.file import File
from edgelathe.compress.tflite.layers import layers
from edgelathe.model import tflite as reader
from support.tiny_tflite import DEFAULT, Net, T, answers

ACTIVATIONS = schema.ActivationFunctionType
CHANNELS = 4


def unbalanced(fused=ACTIVATIONS.RELU, between="mean"):
    """conv, depthwise, then a dense layer behind a mean or a flattening; channels differ 1000 times between them."""
    rng = np.random.default_rng(0)
    uneven = np.geomspace(0.03, 30, CHANNELS).astype(np.float32)
    x, net = T("x", (1, 4, 4, 2), "float32"), Net()
    a, b = (T(n, (1, 4, 4, CHANNELS), "float32") for n in "ab")
    w = rng.normal(size=(CHANNELS, 3, 3, 2)).astype(np.float32) * uneven[:, None, None, None]
    d = rng.normal(size=(1, 3, 3, CHANNELS)).astype(np.float32) / uneven
    bias = rng.normal(size=CHANNELS).astype(np.float32) * uneven
    net.op(
        "CONV_2D", [x, T("w", dtype="float32", values=w), T("wb", dtype="float32", values=bias)], [a],
        table="Conv2DOptions", padding=0, strideH=1, strideW=1, fusedActivationFunction=fused,
    )  # fmt: skip
    net.op(
        "DEPTHWISE_CONV_2D",
        [a, T("d", dtype="float32", values=d), T("db", dtype="float32", values=np.zeros(CHANNELS, np.float32))], [b],
        table="DepthwiseConv2DOptions", padding=0, strideH=1, strideW=1, depthMultiplier=1, fusedActivationFunction=1,
    )  # fmt: skip
    if between == "flatten":
        c = T("c", (1, 16 * CHANNELS), "float32")
        net.op(
            "RESHAPE",
            [b, T("shape", dtype="int32", values=[1, 16 * CHANNELS])],
            [c],
            table="ReshapeOptions",
            newShape=[1, 16 * CHANNELS],
        )
    else:
        axes = [1, 2] if between == "mean" else [1, 3]  # the second leaves 4 rows, which are no channels
        c = T("c", (1, CHANNELS), "float32")
        net.op("MEAN", [b, T("axes", dtype="int32", values=axes)], [c], table="ReducerOptions", keepDims=False)
    y = T("y", (1, 3), "float32")
    f = rng.normal(size=(3, c.shape[1])).astype(np.float32) * np.tile(uneven, c.shape[1] // CHANNELS)
    net.op("FULLY_CONNECTED", [c, T("f", dtype="float32", values=f), None], [y], table="FullyConnectedOptions")
    return net.build([x], [y])


def output_spread(model):
    """Largest channel over the smallest of the weights of each layer but the last."""
    file, out = File(model.data), []
    for layer in layers(reader.parse(model.data).main)[:-1]:
        size = np.abs(layer.grouped(file.constant(layer.weight))).max(axis=2)
        out.append(float(size.max() / size.min()))
    return out


@pytest.mark.parametrize("between", ["mean", "flatten"])
def test_the_function_stays_and_channels_become_alike(between):
    model = unbalanced(between=between)
    even, notes = tflite_equalize.balance(model, "auto", lambda _: True)
    x = np.random.default_rng(1).normal(size=(5, 4, 4, 2)).astype(np.float32)
    want, have = (answers(m, {"x": x}, DEFAULT)[0] for m in (model, even))
    np.testing.assert_allclose(have, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())
    assert [n.done for n in notes] == [True, True]
    assert max(output_spread(model)) > 300
    assert max(output_spread(even)) < 30


def test_a_mean_over_channels_is_not_crossed():
    parsed = reader.parse(unbalanced(between="rows").data)
    assert [(p.first.name, p.second.name) for p in tflite_equalize.find(parsed)] == [("a", "b")]


def test_relu6_is_left_and_named():
    model = unbalanced(fused=ACTIVATIONS.RELU6)
    even, notes = tflite_equalize.balance(model, "auto", lambda _: True)
    (left,) = [n for n in notes if not n.done]
    assert left.layer == "a"
    assert "RELU6" in left.what
    x = np.random.default_rng(1).normal(size=(5, 4, 4, 2)).astype(np.float32)
    want, have = (answers(m, {"x": x}, DEFAULT)[0] for m in (model, even))
    np.testing.assert_allclose(have, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())


def test_never_and_skipped_layers_stay_as_they_are():
    model = unbalanced()
    assert tflite_equalize.balance(model, "never", lambda _: True) == (model, ())
    same, notes = tflite_equalize.balance(model, "auto", lambda name: name != "b")
    assert same is model
    assert notes == ()
