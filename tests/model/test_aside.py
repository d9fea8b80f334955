"""Weights that stay in the model's bytes: nothing else changes, and nothing is copied until it is looked at."""

import numpy as np
import onnx
import onnx_ir
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from edgelathe.model import aside
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph

RNG = np.random.default_rng(0)


def tensors():
    """Constants as exporters write them: raw, as numbers, packed, of two bytes, with words beside them, and small."""
    large = RNG.normal(size=(30, 30)).astype(np.float32)
    raw = numpy_helper.from_array(large, "raw")
    raw.doc_string = "weights"
    raw.metadata_props.add(key="from", value="here")
    half = helper.make_tensor("half", TensorProto.BFLOAT16, (40, 40), RNG.normal(size=1600))
    packed = helper.make_tensor("packed", TensorProto.INT4, (60, 60), RNG.integers(-8, 8, 3600))
    for tensor in (half, packed):
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx_ir.serde.serialize_tensor(onnx_ir.tensor(values, name=tensor.name)))
        assert len(tensor.raw_data) > 1024
    numbers = helper.make_tensor("numbers", TensorProto.FLOAT, (30, 30), RNG.normal(size=900))
    assert not numbers.HasField("raw_data")
    return [raw, numpy_helper.from_array(np.array([0, -1], np.int64), "small"), half, packed, numbers]


def model(initializers):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_a_graph_over_the_bytes_is_written_as_one_over_the_message():
    proto = model(tensors())
    given = onnx_model.from_proto(proto, "m")
    assert onnx_model.from_ir(onnx_model.to_ir(given), "m").data == given.data
    for name, value in onnx_model.to_ir(given).graph.initializers.items():
        (tensor,) = (t for t in proto.graph.initializer if t.name == name)
        want = onnx_ir.serde.deserialize_tensor(tensor)
        np.testing.assert_array_equal(value.const_value.numpy(), want.numpy())
        assert (value.const_value.dtype, value.const_value.shape) == (want.dtype, want.shape)
        assert value.const_value.numpy().flags.aligned  # sums of what is not aligned come out another way


def test_only_large_raw_weights_are_left_out():
    proto, parts = aside.parse(model(tensors()).SerializeToString())
    assert [proto.graph.initializer[i].name for i in parts] == ["raw", "half"]
    assert [len(t.raw_data) > 0 for t in proto.graph.initializer] == [False, True, False, True, False]
    assert proto.graph.initializer[0].doc_string == "weights"


def test_a_message_in_several_pieces_is_one():
    whole = model(tensors()).SerializeToString()
    more = onnx.ModelProto()
    more.graph.initializer.append(numpy_helper.from_array(np.ones((20, 20), np.float32), "more"))
    proto, parts = aside.parse(whole + more.SerializeToString())
    assert [proto.graph.initializer[i].name for i in parts] == ["raw", "half", "more"]
    assert len(parts[5]) == 1600


def test_weights_of_equal_bytes_move_with_the_model():
    g = Graph()
    given = g.build(g.op("Relu", g.conv("x", 3, 64)))
    graph = onnx_model.to_ir(given)
    again = onnx_model.from_ir(graph, "again")
    onnx_model.rest_on(graph, again)
    (weights,) = (v.const_value for v in graph.graph.initializers.values() if v.const_value.nbytes > 1024)
    assert weights.raw._part.obj is again.data
    assert onnx_model.from_ir(graph, "again").data == again.data


@pytest.mark.parametrize("cut", [1, 5, 400, 1500])
def test_what_is_cut_off_is_refused_by_the_parser(cut):
    data = model(tensors()).SerializeToString()
    with pytest.raises(DecodeError):
        aside.parse(data[:-cut])
    with pytest.raises(DecodeError):
        aside.parse(b"\xff" * cut)
