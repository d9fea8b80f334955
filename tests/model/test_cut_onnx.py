"""ONNX graphs cut in two: boundaries behind branches, and parts that run."""

import numpy as np
import onnx
import onnxruntime as ort

from edgelathe.model import cut_onnx
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph


def residual():
    """conv0 -> relu -> (conv1 -> conv2) + relu -> mean -> output."""
    g = Graph()
    first = g.op("Relu", g.conv("x", 3, 4), name="relu")
    inner = g.conv(g.conv(first, 4, 4), 4, 4)
    return onnx_model.to_proto(g.build(g.op("GlobalAveragePool", g.op("Add", first, inner)), shape=(1, 3, 8, 8)))


def run(proto, feed):
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)


def test_behind_a_branch_both_arms_are_boundaries():
    graph = residual().graph
    relu, conv1, conv2 = (graph.node[i].output[0] for i in (1, 2, 3))
    assert cut_onnx.suffix(graph, {3}).boundary == (conv1, relu)
    assert cut_onnx.suffix(graph, {3}).nodes == (3, 4, 5)
    assert cut_onnx.suffix(graph, {4}).boundary == (relu, conv2)
    assert cut_onnx.suffix(graph, {0}).boundary == ("x",)


def test_prefix_and_suffix_together_are_the_model():
    proto, x = residual(), np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    for at in range(len(proto.graph.node)):
        cut = cut_onnx.suffix(proto.graph, {at})
        inner = [n for n in cut.boundary if n != "x"]
        values = {"x": x, **dict(zip(inner, run(cut_onnx.upto(proto, inner), {"x": x}) if inner else [], strict=True))}
        given = {n: values[n] for n in cut.boundary}
        part = cut_onnx.behind(proto, cut, given, cut.outputs)
        np.testing.assert_allclose(run(part, given)[0], run(proto, {"x": x})[0], atol=1e-5)


def test_a_constant_becomes_an_input_where_it_is_named():
    proto = residual()
    cut = cut_onnx.suffix(proto.graph, {3})
    weight = proto.graph.node[3].input[1]
    given = {n: np.zeros((1, 4, 8, 8), np.float32) for n in cut.boundary} | {weight: np.ones((4, 4, 3, 3), np.float32)}
    part = cut_onnx.behind(proto, cut, given, cut.outputs)
    assert weight not in {t.name for t in part.graph.initializer}
    assert weight in {i.name for i in part.graph.input}


def test_nodes_that_lead_nowhere_change_no_output():
    proto = residual()
    proto.graph.node.append(onnx.helper.make_node("Relu", ["x"], ["aside"]))
    assert cut_onnx.suffix(proto.graph, {6}).outputs == ()


def test_a_branch_reads_what_its_body_reads():
    helper = onnx.helper
    body = helper.make_graph(
        [helper.make_node("Add", ["outer", "local"], ["inner"])], "b", [],
        [helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.ones(1, np.float32), "local")],
    )  # fmt: skip
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    assert set(cut_onnx.reads(node)) == {"c", "outer"}
