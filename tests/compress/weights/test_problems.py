from __future__ import annotations

import numpy as np

from edgelathe.compress.graph import fold
from edgelathe.compress.graph import moves as g
from edgelathe.compress.weights import problems
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph, outputs, samples, sqnr


def residual():
    net = Graph()
    x = net.op("Relu", net.conv("x", 3, 8, name="first"))
    y = net.op("Add", net.conv(x, 8, 8, name="second"), x)
    return net.build(net.op("Conv", y, net.weights(8, 1, 3, 3), group=8, name="depthwise"))


def pairs(model):
    graphs = [onnx_model.to_ir(model) for _ in range(2)]
    for graph in graphs:
        fold.infer_shapes(graph)
    convolutions = zip(*[[n for n in m.graph if n.op_type == "Conv"] for m in graphs], strict=True)
    return (*graphs, [problems.Pair(a, b) for a, b in convolutions])


def test_where_nothing_was_changed_the_weights_themselves_are_wanted():
    model = residual()
    work, before, layers = pairs(model)
    for pair, problem in problems.problems(work, before, layers, samples(model), 0):
        np.testing.assert_allclose(problem.wanted, problem.weights, atol=1e-5)
        bias = problem.bias(problem.weights)
        if g.layer(pair.node) == "depthwise":
            assert problem.weights.shape == (8, 1, 9)
            assert bias is None
        else:
            np.testing.assert_allclose(bias, g.array(pair.twin.inputs[2]), atol=1e-5)


def test_a_layer_makes_up_for_the_error_of_the_sum_that_it_goes_into():
    model = residual()
    data = samples(model, 32)
    work, before, layers = pairs(model)
    names = g.Names(work.graph)
    made = {}
    for pair, problem in problems.problems(work, before, layers, data, 0):
        real = problem.wanted
        if g.layer(pair.node) == "first":
            real = np.round(problem.weights * 4) / 4
        made[g.layer(pair.node)] = problem
        g.set_constant(pair.node, 1, real.reshape(g.array(pair.twin.inputs[1]).shape).astype(np.float32), names)
        if problem.has_bias:
            g.set_constant(pair.node, 2, problem.bias(real), names)
    moved = np.abs(made["second"].wanted - made["second"].weights).mean()
    assert moved > 0.01
    plain = onnx_model.to_ir(model)
    first = next(n for n in plain.graph if n.op_type == "Conv")
    g.set_constant(first, 1, np.round(g.array(first.inputs[1]) * 4) / 4, g.Names(plain.graph))
    want, have, without = (onnx_model.from_ir(m, "m") for m in (before, work, plain))
    unseen = samples(model, 16, seed=4)
    y = outputs(want, unseen)[0]
    assert sqnr(y, outputs(have, unseen)[0]) > sqnr(y, outputs(without, unseen)[0]) + 1.5


def test_samples_are_spread_over_all():
    data = samples(residual(), 300)
    chunks = problems.chunks_of(onnx_model.to_ir(residual()), data)
    assert sum(len(c["x"]) for c in chunks) == 256
    np.testing.assert_array_equal(chunks[-1]["x"][-1], data.inputs["x"][-1])


def test_large_values_run_for_few_samples_at_once(monkeypatch):
    model = onnx_model.to_ir(residual())
    fold.infer_shapes(model)
    data = samples(residual(), 40)
    whole = problems.chunks_of(model, data)
    largest = max(4 * np.prod(v.shape[1:]) for n in model.graph for v in n.outputs)
    monkeypatch.setattr(problems, "_AT_ONCE", 3 * largest)
    parts = problems.chunks_of(model, data)
    assert {len(c["x"]) for c in parts} == {3, 1}
    np.testing.assert_array_equal(*(np.concatenate([c["x"] for c in many]) for many in (whole, parts)))


def test_clamps_behind_layers_and_behind_their_sums_are_seen():
    net = Graph()
    x = net.op("Relu", net.conv("x", 3, 8, name="relu"))
    y = net.op("Clip", net.conv(x, 8, 8, name="clip"), net.const(np.float32(0)), net.const(np.float32(6)))
    z = net.op("Relu", net.op("Add", net.conv(y, 8, 8, name="sum"), x))
    model = net.build(net.conv(z, 8, 4, name="last"))
    work, before, layers = pairs(model)
    found = {g.layer(p.node): q.rows for p, q in problems.problems(work, before, layers, samples(model), 0)}
    assert {k: (r.low, r.high) for k, r in found.items()} == {
        "relu": (0, np.inf), "clip": (0, 6), "sum": (0, np.inf), "last": (-np.inf, np.inf)
    }  # fmt: skip
    assert [k for k, r in found.items() if r.beside is not None] == ["sum"]


def test_a_sample_may_have_several_maps():
    net = Graph()
    maps = net.op("Reshape", "x", net.const(np.array([-1, 3, 8, 8])))
    model = net.build(net.conv(net.op("Relu", net.conv(maps, 3, 8)), 8, 4), shape=("n", 5, 3, 8, 8))
    work, before, layers = pairs(model)
    for _, problem in problems.problems(work, before, layers, samples(model, 34), 0):  # more than a chunk
        assert problem.moments.n == 34 * 5 * 64
        np.testing.assert_allclose(problem.wanted, problem.weights, atol=1e-5)
