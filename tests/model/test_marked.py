"""Marks in names: the model stays what it is, and what a runtime makes of it can be told apart."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from edgelathe.core.device import SessionOptions
from edgelathe.model import marked, run
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph, samples

CPU = SessionOptions("onnxruntime", "CPUExecutionProvider")


def branching():
    """y = relu(x w) where the largest value exceeds 0.5, else sigmoid(x w), in an If that reads an outer tensor."""
    g = Graph()
    h = g.op("MatMul", "x", g.const(g.rng.normal(size=(6, 6)).astype(np.float32)), name="fc")
    top = g.op("ReduceMax", h, name="", keepdims=0)
    yes = g.op("Greater", top, g.const(np.float32(0.5)), name="")
    bodies = {}
    for key, op in (("then_branch", "Relu"), ("else_branch", "Sigmoid")):
        out = helper.make_tensor_value_info(key, TensorProto.FLOAT, ["n", 6])
        bodies[key] = helper.make_graph([helper.make_node(op, [h], [key])], key, [], [out])
    return g.build(g.op("If", yes, **bodies), ("n", 6))


def test_a_marked_model_computes_the_same_under_its_own_inputs_and_outputs():
    model = branching()
    m = marked.mark(model)
    assert m.model.signature == model.signature
    data = samples(model, 8).inputs
    for a, b in zip(run.outputs(model, data), run.outputs(m.model, data), strict=True):
        assert (a == b).all()
    assert m.outputs == tuple(n.output[0] for n in onnx_model.to_proto(model).graph.node)
    nodes = onnx_model.to_proto(m.model).graph.node
    assert [n.name for n in nodes] == ["~0~", "~1~", "~2~", "~3~"]
    inner = [n.name for a in nodes[3].attribute for n in a.g.node]
    assert [marked.marks(n) for n in inner] == [(3,), (3,)]
    assert len(set(inner)) == 2


def test_marks_survive_the_endings_of_runtimes_and_are_never_part_of_another():
    assert marked.marks("~12~_token_3") == (12,)
    assert marked.marks("~1.0~_nchwc") == (1,)
    assert marked.marks("fused ~4~/~14~/MatMulAddFusion ~4.1~") == (4, 14)
    assert marked.marks("ReorderOutput_token_31") == ()


def test_a_fusion_is_told_by_what_it_puts_out_and_reads():
    g = Graph()
    h = g.op("Relu", "x")
    mean = g.op("ReduceMean", h, axes=[-1])
    gap = g.op("Sub", h, mean)
    var = g.op("ReduceMean", g.op("Pow", gap, g.const(np.float32(2))), axes=[-1])
    norm = g.op("Div", gap, g.op("Sqrt", g.op("Add", var, g.const(np.float32(1e-5)))))
    scaled = g.op("Mul", norm, g.const(np.ones(6, np.float32)))
    model = g.build(g.op("Neg", g.op("Add", scaled, g.const(np.ones(6, np.float32)))), ("n", 6))
    made = marked.made_for(marked.mark(model), CPU)
    assert marked.Made(outputs=(9,), inputs=(0,)) in made.values()
    assert marked.made_for(marked.mark(model), SessionOptions("onnxruntime", "NoSuchProvider")) == {}


def test_a_kernel_named_after_an_output_of_the_model_is_known():
    g = Graph()
    h = g.op("Relu", g.conv("x", 3, 8))
    m = marked.mark(g.build([h, g.op("Sigmoid", h)]))
    assert list(m.kept.values()) == [1, 2]
    first, second = m.kept
    assert m.numbers(first + "_nchwc") == (1,)
    assert m.numbers(second) == (2,)
    assert m.numbers("ReorderOutput_token_3") == ()
    made = marked.made_for(m, CPU)
    assert {k for name in made for k in m.numbers(name)} >= {1, 2} or {0, 2} <= {k for n in made for k in m.numbers(n)}
