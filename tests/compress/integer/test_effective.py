import numpy as np
from onnx import numpy_helper

from edgelathe.compress.graph import fold
from edgelathe.compress.integer import int8
from edgelathe.compress.types import Context
from edgelathe.core.profile import Hardware
from edgelathe.model import onnx as onnx_model
from edgelathe.model import run
from support.tiny_onnx import EXACT, Graph, samples


def residual(clamp=True):
    """x and a branch that reaches far below zero meet in a sum, which is clamped."""
    g = Graph()
    w, bias = g.weights(3, 3, 1, 1, scale=4.0), g.const(np.full(3, -2, np.float32))
    x = g.op("Relu", "x")
    total = g.op("Add", x, g.op("Conv", x, w, bias, name="branch"))
    return g.build(g.conv(g.op("Relu", total) if clamp else total, 3, 4))


def branch_scale(model, scale):
    options = int8.resolve(int8.Options(scale=scale), Hardware("aarch64", frozenset()))
    made = int8.apply(fold.apply(model, fold.Options(), Context()).model, options, Context(data=samples(model, 32)))
    proto = onnx_model.to_proto(made.model)
    branch = next(n for n in proto.graph.node if n.name == "branch")
    quantize = next(n for n in proto.graph.node if branch.output[0] in n.input)
    stored = next(t for t in proto.graph.initializer if t.name == quantize.input[1])
    return made.model, float(numpy_helper.to_array(stored).reshape(()))


def error(model, made):
    data = samples(model, 64, seed=5).inputs
    want, have = run.outputs(model, data)[0], run.outputs(made, data, EXACT)[0]
    return float(((want - have) ** 2).mean())


def test_a_branch_below_zero_is_cut_where_the_clamped_sum_cuts_it():
    model = residual()
    made, scale = branch_scale(model, "auto")
    whole, wide = branch_scale(model, "mse")
    assert scale < 0.9 * wide
    assert error(model, made) < 0.95 * error(model, whole)


def test_a_sum_that_is_read_whole_keeps_its_terms_whole():
    model = residual(clamp=False)
    assert branch_scale(model, "auto")[1] == branch_scale(model, "mse")[1]
