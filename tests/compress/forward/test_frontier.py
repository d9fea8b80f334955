from __future__ import annotations

import numpy as np
import pytest

from edgelathe.compress.forward import frontier
from edgelathe.compress.forward.frontier import Frontier
from edgelathe.compress.graph import moves as g
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph, samples


@pytest.fixture(scope="module")
def model():
    """A bottleneck that is 16 times as wide inside."""
    net = Graph()
    x = net.op("Relu", net.conv("x", 3, 4, name="stem"))
    y = net.op("Relu", net.conv(x, 4, 64, name="wide"))
    y = net.conv(y, 64, 4, name="project")
    return net.build(net.conv(net.op("Add", x, y), 4, 4, name="last"))


def walked(model, chunks, *, narrow):
    """What each convolution reads, each halved once it has been asked for, and the numbers kept behind each."""
    graph = onnx_model.to_ir(model)
    names, walk = g.Names(graph.graph), Frontier(graph, chunks, "samples", narrow=narrow)
    read, kept = [], []
    for node in [n for n in graph.graph if n.op_type == "Conv"]:
        read.append(np.concatenate([next(iter(c.values())) for c in walk.advance([node.inputs[0]])]))
        kept.append(sum(v.size for c in walk._live for v in c.values()))
        g.set_constant(node, 1, g.array(node.inputs[1]) / 2, names)
    return read, kept


def test_a_narrow_frontier_gives_equal_values_and_never_keeps_the_wide_ones(model, monkeypatch):
    x = samples(model, 6).inputs["x"]
    chunks = [{"x": x[:4]}, {"x": x[4:]}]
    read, kept = walked(model, chunks, narrow=False)
    monkeypatch.setattr(frontier, "_KEEPS", 0)
    again, least = walked(model, chunks, narrow=True)
    for a, b in zip(read, again, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    wide, stem = read[2].size, read[1].size
    assert max(kept) >= wide
    assert max(least) == stem < wide
    assert least[-1] == kept[-1]


def test_a_narrow_frontier_keeps_what_is_small_in_all(model):
    x = samples(model, 4).inputs["x"]
    assert walked(model, [{"x": x}], narrow=True)[1] == walked(model, [{"x": x}], narrow=False)[1]


def test_a_narrow_frontier_refuses_a_shift_that_it_would_lose(model):
    graph = onnx_model.to_ir(model)
    value = next(iter(graph.graph)).outputs[0]
    for narrow in (False, True):
        walk = Frontier(graph, [{"x": samples(model, 4).inputs["x"]}], "samples", narrow=narrow)
        list(walk.advance([value]))
        if narrow:
            with pytest.raises(RuntimeError, match="would lose the shift"):
                walk.shift(value, np.ones(4), 1)
        else:
            walk.shift(value, np.ones(4), 1)
