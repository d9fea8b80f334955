"""How many samples run at once."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgelathe.compress.forward import partial
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model


def test_text_that_comes_out_is_compared_and_a_sequence_is_refused_by_name():
    outputs = {
        "words": helper.make_tensor_value_info("o", TensorProto.STRING, None),
        "many": helper.make_tensor_sequence_value_info("o", TensorProto.FLOAT, None),
    }
    made = {}
    for name, value in outputs.items():
        cast = helper.make_node("Cast", ["x"], ["o"], to=TensorProto.STRING)
        node = cast if name == "words" else helper.make_node("SequenceConstruct", ["x"], ["o"])
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
        graph = helper.make_graph([node], "g", [given], [value])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        made[name] = onnx_model.from_proto(proto, "m")
    data = Dataset("d", {"x": np.arange(40, dtype=np.float32).reshape(20, 2)})
    assert partial.chunks_of(made["words"], data).size > 1
    with pytest.raises(UserError, match=r"m: output 'o' is no array \(sequence\)"):
        partial.chunks_of(made["many"], data)
