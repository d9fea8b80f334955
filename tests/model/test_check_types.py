"""Types of tensors: what is wrong is named by tensor, what is unusual but valid is taken."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgelathe.core.errors import UserError
from edgelathe.model import io
from edgelathe.model.inspect import inspect
from support.tiny_onnx import Graph


def model() -> onnx.ModelProto:
    g = Graph()
    y = g.op("MatMul", "x", g.const([[1.0, 2.0], [3.0, 4.0]], "w"))
    built = onnx.ModelProto()
    built.ParseFromString(g.build(g.op("Relu", y), shape=("n", 2)).data)
    return built


def load(tmp_path, proto: onnx.ModelProto):
    onnx.save(proto, tmp_path / "m.onnx")
    return io.load(tmp_path / "m.onnx")


def inner(proto: onnx.ModelProto, elem_type: int) -> None:
    value = helper.make_tensor_value_info(proto.graph.node[0].output[0], TensorProto.FLOAT, None)
    value.type.tensor_type.elem_type = elem_type
    proto.graph.value_info.append(value)


def constant(proto: onnx.ModelProto, elem_type: int) -> None:
    proto.graph.initializer[0].data_type = elem_type


def within(proto: onnx.ModelProto, elem_type: int) -> None:
    c = helper.make_tensor("c", TensorProto.FLOAT, [], [1.0])
    c.data_type = elem_type
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Identity", ["c"], ["o"])], "b", [], [out], [c])
    proto.graph.node.append(helper.make_node("If", ["x"], ["i"], then_branch=body, else_branch=body))


SPOILED = {
    "input 'x'": lambda p, e: setattr(p.graph.input[0].type.tensor_type, "elem_type", e),
    "output": lambda p, e: setattr(p.graph.output[0].type.tensor_type, "elem_type", e),
    "tensor 't0_0'": inner,
    "constant 'w'": constant,
    "constant 'c'": within,
}


@pytest.mark.parametrize(("elem_type", "word"), [(0, "UNDEFINED"), (77, "none of ONNX")])
@pytest.mark.parametrize("named", SPOILED)
def test_an_invalid_type_is_refused_by_the_name_of_its_tensor(tmp_path, named, elem_type, word):
    proto = model()
    SPOILED[named](proto, elem_type)
    with pytest.raises(UserError, match=rf"m\.onnx: {named}.* element type {elem_type}, which is {word}; export"):
        load(tmp_path, proto)


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize(("elem_type", "word"), [(0, "UNDEFINED"), (77, "none of ONNX")])
def test_a_cast_to_no_type_is_refused_by_its_name(tmp_path, elem_type, word, within):
    proto = model()
    y = proto.graph.output[0].name
    cast = helper.make_node("Cast", [y], ["z"], name="c", to=elem_type)
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    if within:
        body = helper.make_graph([cast], "b", [], [out])
        proto.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
        proto.graph.node.append(helper.make_node("If", ["yes"], ["i"], then_branch=body, else_branch=body))
    else:
        proto.graph.node.append(cast)
    says = rf"m\.onnx: node 'c' \(Cast\) is told element type {elem_type}, which is {word}; export"
    with pytest.raises(UserError, match=says):
        load(tmp_path, proto)


def test_types_that_are_told_or_left_to_the_scale_are_taken(tmp_path):
    g = Graph()
    q = g.op("QuantizeLinear", "x", g.const(np.float32(0.1)), g.const(np.int8(0)), output_dtype=0)
    built = g.build(g.op("Cast", q, to=TensorProto.FLOAT), opset=21, ir_version=10)
    assert load(tmp_path, onnx.load_model_from_string(built.data)).signature.outputs[0].dtype == "float32"


def test_an_input_without_a_type_is_refused_by_its_name(tmp_path):
    proto = model()
    proto.graph.input[0].ClearField("type")
    with pytest.raises(UserError, match=r"input 'x' has no type; export"):
        load(tmp_path, proto)


def test_an_input_for_no_samples_is_refused(tmp_path):
    proto = model()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 0
    with pytest.raises(UserError, match=r"input 'x' has 0 samples .*batch of 1"):
        load(tmp_path, proto)


def test_text_sequences_and_optional_values_may_come_and_go(tmp_path):
    words, numbers = TensorProto.STRING, TensorProto.FLOAT
    optional = helper.make_optional_type_proto(helper.make_tensor_type_proto(numbers, ["n", 2]))
    inputs = [
        helper.make_tensor_value_info("text", words, ["n", 3]),
        helper.make_tensor_sequence_value_info("many", numbers, ["n", 2]),
        helper.make_value_info("perhaps", optional),
    ]
    outputs = [
        helper.make_tensor_value_info("same", words, ["n", 3]),
        helper.make_tensor_sequence_value_info("some", numbers, ["n", 2]),
        helper.make_tensor_value_info("last", numbers, None),
    ]
    w = helper.make_tensor("w", numbers, [2, 2], [1.0] * 4)
    nodes = [
        helper.make_node("Identity", ["text"], ["same"]),
        helper.make_node("Identity", ["many"], ["some"]),
        helper.make_node("OptionalGetElement", ["perhaps"], ["one"]),
        helper.make_node("MatMul", ["one", "w"], ["last"], name="product"),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [w])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    taken = inspect(load(tmp_path, proto))
    assert [t.dtype for t in taken.signature.inputs] == ["str", "sequence", "optional"]
    assert [t.dtype for t in taken.signature.outputs] == ["str", "sequence", "float32"]
    assert (taken.parameters, taken.unknown) == (4, ("product",))  # as many as samples come
