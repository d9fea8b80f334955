from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgelathe.compress.tflite import layers as tflite_layers
from edgelathe.compress.tflite.file import File
from edgelathe.model import tflite as reader
from support.tiny_tflite import DEFAULT, Net, T, answers

RNG = np.random.default_rng(0)
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID


def conv(kind, shape, weights, bias, padding=SAME, stride=(1, 1), dilation=(1, 1), multiplier=1):
    """A model of one convolution, and its size by the interpreter."""
    x, y = T("x", shape, "float32"), T("y", (1, 1, 1, len(bias)), "float32")
    table = "Conv2DOptions" if kind == "CONV_2D" else "DepthwiseConv2DOptions"
    more = {} if kind == "CONV_2D" else {"depthMultiplier": multiplier}
    net = Net()
    net.op(
        kind, [x, T("w", dtype="float32", values=weights), T("b", dtype="float32", values=bias)], [y], table=table,
        padding=padding, strideH=stride[0], strideW=stride[1], dilationHFactor=dilation[0], dilationWFactor=dilation[1],
        **more,
    )  # fmt: skip
    return net.build([x], [y])


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


CASES = {
    "same": lambda: conv("CONV_2D", (1, 7, 6, 3), normal(5, 3, 2, 3), normal(5), stride=(2, 1)),
    "valid, dilated": lambda: conv("CONV_2D", (1, 9, 8, 2), normal(4, 3, 3, 2), normal(4), VALID, dilation=(2, 1)),
    "groups": lambda: conv("CONV_2D", (1, 5, 5, 4), normal(6, 3, 3, 2), normal(6)),
    "depthwise": lambda: conv("DEPTHWISE_CONV_2D", (1, 8, 7, 3), normal(1, 3, 3, 3), normal(3), stride=(2, 2)),
    "multiplier 2": lambda: conv("DEPTHWISE_CONV_2D", (1, 6, 6, 3), normal(1, 3, 2, 6), normal(6), VALID, multiplier=2),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_times_grouped_weights_are_the_layers_output(name):
    model = CASES[name]()
    graph = reader.parse(model.data).main
    (layer,) = tflite_layers.layers(graph)
    x = normal(1, *graph.tensors[0].shape[1:])
    (want,) = answers(model, {"x": x}, DEFAULT)
    file = File(model.data)
    weights, bias = layer.grouped(file.constant(layer.weight)), file.constant(layer.bias)
    at = np.arange(layer.places(x))
    got = np.einsum("rgf,gof->rgo", layer.rows(x, at), weights) + bias.reshape(layer.groups, -1)
    assert len(at) == want.size // len(bias)
    np.testing.assert_allclose(got, layer.made(want, at), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(layer.filed(weights), file.constant(layer.weight))


def test_a_dense_layer_reads_rows_of_features():
    x, y = T("x", (1, 6), "float32"), T("y", (1, 4), "float32")
    net = Net()
    w, b = T("w", dtype="float32", values=normal(4, 6)), T("b", dtype="float32", values=normal(4))
    net.op("FULLY_CONNECTED", [x, w, b], [y], table="FullyConnectedOptions")
    model = net.build([x], [y])
    (layer,) = tflite_layers.layers(reader.parse(model.data).main)
    sample = normal(1, 6)
    got = layer.rows(sample, np.arange(layer.places(sample)))[:, 0] @ w.values.T + b.values
    np.testing.assert_allclose(got, answers(model, {"x": sample}, DEFAULT)[0], rtol=1e-5)


def test_weights_that_two_layers_read_are_shared():
    x, y, z = (T(n, (1, 4), "float32") for n in "xyz")
    w, net = T("w", dtype="float32", values=normal(4, 4)), Net()
    net.op("FULLY_CONNECTED", [x, w, None], [y], table="FullyConnectedOptions")
    net.op("FULLY_CONNECTED", [y, w, None], [z], table="FullyConnectedOptions")
    graph = reader.parse(net.build([x], [z]).data).main
    assert [la.shared for la in tflite_layers.layers(graph)] == [True, True]
