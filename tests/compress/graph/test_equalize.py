import numpy as np
import pytest
from onnx import numpy_helper

from edgelathe.compress.graph import equalize
from edgelathe.compress.types import Context
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph, outputs, samples, sqnr


def unbalanced(g, x, inputs, outputs, group=1):
    """A convolution whose output channels differ by up to 10,000 times, bias too."""
    factor = np.geomspace(1e-2, 1e2, outputs).astype(np.float32)
    w = g.rng.normal(size=(outputs, inputs // group, 3, 3)).astype(np.float32) * factor.reshape(-1, 1, 1, 1)
    return g.op("Conv", x, g.const(w), g.const(factor * 0.1), pads=[1] * 4, group=group)


def depthwise(g):
    y = g.op("Relu", unbalanced(g, "x", 3, 8))
    y = g.op("LeakyRelu", g.conv(y, 8, 8, group=8), alpha=0.1)
    return g.conv(y, 8, 4, 1)


def flattened(g):
    y = g.op("MaxPool", g.op("Relu", unbalanced(g, "x", 3, 8)), kernel_shape=[2, 2], strides=[2, 2])
    return g.op("Gemm", g.op("Flatten", y), g.weights(128, 5), g.const(np.zeros(5, np.float32)))


def grouped(g):
    y = g.op("AveragePool", unbalanced(g, "x", 3, 8), kernel_shape=[2, 2])
    return g.conv(y, 8, 6, group=2)


@pytest.mark.parametrize("build", [depthwise, flattened, grouped])
def test_the_function_stays_and_the_channels_agree(build):
    g = Graph()
    model = g.build(build(g))
    result = equalize.apply(model, equalize.Options(), Context())
    data = samples(model)
    assert sqnr(outputs(model, data)[0], outputs(result.model, data)[0]) > 100
    assert result.model.signature == model.signature
    again = equalize.apply(result.model, equalize.Options(spread=1.01), Context())
    assert not any(n.done for n in again.notes)  # nothing is left to do
    assert all(n.done for n in result.notes)


def test_two_layers_by_hand():
    g = Graph()
    first, second = np.array([4.0, 1.0]), np.array([1.0, 9.0])
    y = g.op("Conv", "x", g.const(np.float32(first.reshape(2, 1, 1, 1)), "a"))
    model = g.build(g.op("Conv", y, g.const(np.float32(second.reshape(1, 2, 1, 1)), "b")), shape=("n", 1, 4, 4))
    result = equalize.apply(model, equalize.Options(), Context())
    w = {t.name: numpy_helper.to_array(t).reshape(-1) for t in onnx_model.to_proto(result.model).graph.initializer}
    assert w["a"] == pytest.approx([2, 3])  # sqrt(4 * 1), sqrt(1 * 9)
    assert w["b"] == pytest.approx([2, 3])


def test_nothing_moves_past_a_clip_a_branch_or_a_skipped_layer():
    g = Graph()
    y = g.op("Clip", unbalanced(g, "x", 3, 8), g.const(np.float32(0)), g.const(np.float32(6)))
    model = g.build(g.conv(y, 8, 4))
    assert equalize.apply(model, equalize.Options(), Context()).notes[0].what == "no pair of layers"
    g = Graph()
    y = unbalanced(g, "x", 3, 8)
    model = g.build([g.conv(y, 8, 4), y])
    assert not equalize.find(onnx_model.to_ir(model).graph)
    g = Graph()
    model = g.build(depthwise(g))
    everything = Context(overrides={"*": {"skip": True}})
    assert equalize.apply(model, equalize.Options(), everything).notes[0].done is False


def test_dead_channels_are_left_as_they_are():
    g = Graph()
    w = g.rng.normal(size=(4, 3, 1, 1)).astype(np.float32)
    w[1] = 0
    y = g.op("Relu", g.op("Conv", "x", g.const(w), g.const(np.ones(4, np.float32))))
    model = g.build(g.conv(y, 4, 2))
    result = equalize.apply(model, equalize.Options(), Context())
    data = samples(model)
    assert sqnr(outputs(model, data)[0], outputs(result.model, data)[0]) > 100
