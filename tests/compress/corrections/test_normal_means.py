import math

import numpy as np
import pytest

from edgelathe.compress.corrections.normal_means import clipped, mean_of
from edgelathe.compress.graph.fold import infer_shapes
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph


@pytest.mark.parametrize(("low", "high"), [(0, math.inf), (0, 6), (-1, 0.5), (-math.inf, 0.2), (-math.inf, math.inf)])
def test_the_mean_of_a_clipped_normal_is_that_of_drawn_numbers(low, high):
    mean, deviation = np.array([-1.0, 0.3, 5.5]), np.array([0.5, 2.0, 1.5])
    drawn = np.random.default_rng(0).normal(size=(400_000, 3)) * deviation + mean
    assert clipped(mean, deviation, low, high) == pytest.approx(np.clip(drawn, low, high).mean(axis=0), abs=0.01)


def test_a_channel_without_spread_is_clipped_as_a_number():
    assert clipped(np.array([-2.0, 3.0, 9.0]), np.zeros(3), 0, 6) == pytest.approx([0, 3, 6])


def test_means_go_through_what_keeps_or_adds_them_and_stop_at_the_rest():
    g = Graph()
    a, b = g.bn(g.conv("x", 3, 4), 4), g.bn(g.conv("x", 3, 4), 4)
    total = g.op("GlobalAveragePool", g.op("Add", a, g.op("Relu", b)))
    unknown = g.op("Relu", total)
    model = onnx_model.to_ir(g.build([total, unknown]))
    infer_shapes(model)
    found = mean_of(model.graph.outputs[0])
    beta, gamma = (model.graph.initializers[n].const_value.numpy() for n in ("c3", "c2"))
    assert found.shape == (4,)
    first = mean_of(next(v for n in model.graph for v in n.outputs if n.op_type == "BatchNormalization"))
    assert first == pytest.approx(beta)
    assert gamma.min() >= 0.5  # the builder's own: constants 0 and 1 are weights and bias
    assert (found > first).all()  # what a Relu gives is positive
    assert mean_of(model.graph.outputs[1]) is None
