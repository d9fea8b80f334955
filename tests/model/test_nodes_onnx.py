"""Graphs whose nodes stand in any order, as ONNX Runtime takes them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelathe.core.errors import UserError
from edgelathe.model import io, nodes_onnx, run


def branching():
    """`if` reads `late` in its branches alone; branches have two nodes each."""

    def branch(op):
        inner = [helper.make_node(op, ["late", "w"], [f"{op}1"]), helper.make_node("Relu", [f"{op}1"], [f"{op}2"])]
        return helper.make_graph(inner, op, [], [helper.make_tensor_value_info(f"{op}2", TensorProto.FLOAT, None)])

    nodes = [
        helper.make_node("MatMul", ["x", "m"], ["late"], name="late"),
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0, name="sum"),
        helper.make_node("Greater", ["s", "z"], ["c"], name="greater"),
        helper.make_node("If", ["c"], ["o"], name="if", then_branch=branch("Add"), else_branch=branch("Mul")),
        helper.make_node("MatMul", ["o", "m"], ["y"], name="out"),
    ]
    rng = np.random.default_rng(0)
    constants = {"m": rng.normal(size=(4, 4)), "w": np.full(4, 3.0), "z": np.float32(0)}
    graph = helper.make_graph(
        nodes, "g", *([helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4])] for n in "xy"),
        [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def placed(proto, order):
    out = onnx.ModelProto()
    out.CopyFrom(proto)
    del out.graph.node[:]
    out.graph.node.extend(proto.graph.node[at] for at in order)
    return out


def written(proto, path):
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_model_in_order_is_left_byte_for_byte(tmp_path):
    proto = branching()
    assert not nodes_onnx.sort(proto.graph)
    assert proto == branching()
    assert io.load(written(proto, tmp_path / "m.onnx")).data == proto.SerializeToString()


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [1, 2, 3, 0, 4]], ids=["backwards", "read by branches only"])
def test_nodes_in_any_order_are_taken_and_answer_alike(tmp_path, order):
    want, have = (
        io.load(written(p, tmp_path / f"{i}.onnx")) for i, p in enumerate((branching(), placed(branching(), order)))
    )
    assert have.signature == want.signature
    for sign in (1, -1):  # either branch
        x = {"x": np.full((1, 4), sign, np.float32)}
        np.testing.assert_array_equal(run.session(have)(x), run.session(want)(x))


def test_nodes_of_branches_are_put_in_order_too():
    proto = branching()
    branch = proto.graph.node[3].attribute[0].g
    nodes = [*branch.node][::-1]
    del branch.node[:]
    branch.node.extend(nodes)
    assert nodes_onnx.sort(proto.graph)
    assert proto == branching()


def test_nodes_that_wait_for_one_another_are_refused_in_one_line(tmp_path):
    proto = branching()
    proto.graph.node[0].input[0] = "y"
    with pytest.raises(UserError, match=r"m\.onnx: some of its nodes wait for one another; export the model again"):
        io.load(written(proto, tmp_path / "m.onnx"))


def test_nodes_of_one_name_are_refused_in_one_line(tmp_path):
    proto = branching()
    proto.graph.node[0].name = proto.graph.node[2].name = "same"
    with pytest.raises(UserError, match=r"m\.onnx: 2 nodes are called 'same', and layers are told apart by name; give"):
        io.load(written(proto, tmp_path / "m.onnx"))
