from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelathe.model import graph_tflite, io, tflite
from edgelathe.model import onnx as onnx_model
from edgelathe.model.graph import layers
from edgelathe.model.inspect import inspect
from support import schemas

# READMEs of the data: parameters, multiply-accumulates.
KNOWN = {
    "cifar10_resnet8/model.onnx": (77_706, 12_501_632),
    "cifar10_resnet8/model.tflite": (77_706, 12_501_632),
    "cifar10_resnet8/model_int8_reference.tflite": (77_706, 12_501_632),
    "cifar10_mobilenetv2/model.onnx": (396_970, 19_491_328),
    "imagenet_mobilenetv2/model.onnx": (3_489_097, 300_775_552),
    "imagenet_mobilenetv2/model_int8_reference.tflite": (3_489_097, 300_775_552),
}


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_and_macs_of_real_models(data_dir, name):
    model = io.load(data_dir / name)
    found = inspect(model)
    assert (found.parameters, found.macs) == KNOWN[name]
    schemas.validate(found.to_json())
    assert found.unknown == ()
    assert 0.75 < sum(layer.bytes for layer in found.layers) / model.bytes < 1
    assert len({layer.name for layer in found.layers}) == len(found.layers)


def test_depthwise_layers_are_counted_by_group(data_dir):
    found = layers(io.load(data_dir / "cifar10_mobilenetv2/model.onnx"))
    convs = [layer for layer in found if layer.op == "Conv"]
    depthwise = sum(c.macs for c in convs if c.parameters == 9 * c.shape[1])
    assert depthwise == pytest.approx(1.47e6, rel=0.01)


def test_the_document_is_json_and_says_what_applies(data_dir):
    found = inspect(
        io.load(data_dir / "cifar10_resnet8/model.onnx"), {"Conv": ("int8", "prune"), "LSTM": ("int8-dynamic",)}
    )
    doc = json.loads(json.dumps(found.to_json()))
    assert doc["schema"] == "edgelathe.inspect/1"
    assert doc["steps"] == ["int8", "prune"]
    assert doc["inputs"] == [{"name": "input", "shape": [None, 32, 32, 3], "dtype": "float32"}]
    conv = next(layer for layer in doc["layers"] if layer["op"] == "Conv")
    assert conv["steps"] == ["int8", "prune"]
    assert (conv["dtype"], conv["shape"], conv["parameters"]) == ("float32", [1, 16, 32, 32], 448)
    assert conv["share"] == conv["bytes"] / doc["bytes"]


def model(*nodes, x=(None, 6), constants=(), opset=17, domain=""):
    graph = helper.make_graph(
        list(nodes), "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [d or f"d{i}" for i, d in enumerate(x)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in dict(constants).items()],
    )  # fmt: skip
    sets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return onnx_model.from_proto(helper.make_model(graph, opset_imports=sets, ir_version=8), "m")


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


node = helper.make_node
HALVES = [node("DequantizeLinear", ["w", "s", "z"], ["t"], axis=1), node("MatMul", ["x", "t"], ["y"])]
HELD = node("Constant", [], ["w"], value=numpy_helper.from_array(ones(6, 3)))
GELU = node("Gelu", ["x"], ["h"], domain="com.microsoft")
W = {"w": ones(6, 3)}
# name: nodes, what else the model has, (parameters, multiply-accumulates) of the layer that makes y
CASES = {
    "conv": (
        [node("Conv", ["x", "w", "b"], ["y"], group=2)],
        {"x": (None, 4, 8, 8), "constants": {"w": ones(6, 2, 3, 3), "b": ones(6)}},
        (6 * 2 * 9 + 6, 6 * 36 * 2 * 9),
    ),
    "conv-transpose": (
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])],
        {"x": (None, 4, 8, 8), "constants": {"w": ones(4, 5, 3, 3)}},
        (180, 4 * 64 * 5 * 9),
    ),
    "gemm": ([node("Gemm", ["x", "w"], ["y"], transB=1)], {"constants": {"w": ones(3, 6)}}, (18, 18)),
    "gemm-transposed": ([node("Gemm", ["x", "w"], ["y"], transA=1)], {"x": (6, 5), "constants": W}, (18, 90)),
    "matmul": ([node("MatMul", ["x", "w"], ["y"])], {"x": (None, 7, 6), "constants": W}, (18, 7 * 18)),
    "matmul-of-activations": ([node("MatMul", ["x", "x"], ["y"])], {"x": (None, 6, 6)}, (0, 216)),
    "einsum": (
        [node("Einsum", ["x", "w"], ["y"], equation="bij,jk->bik")],
        {"x": (None, 7, 6), "constants": W},
        (18, 126),
    ),
    "lstm": (
        [node("LSTM", ["x", "w", "r"], ["y"], hidden_size=5)],
        {"x": (9, 1, 6), "constants": {"w": ones(1, 20, 6), "r": ones(1, 20, 5)}},
        (220, 9 * 220),
    ),
    "shared": (
        [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "w"], ["y"])],
        {"constants": {"w": ones(6, 6)}},
        (0, 36),
    ),
    "constant-node": ([HELD, node("MatMul", ["x", "w"], ["y"])], {}, (18, 18)),
    "computed": (
        [node("Transpose", ["w"], ["t"]), node("MatMul", ["x", "t"], ["y"])],
        {"constants": {"w": ones(3, 6)}},
        (18, 18),
    ),
    "shapes": ([node("Reshape", ["x", "s"], ["y"])], {"constants": {"s": np.array([-1, 2, 3])}}, (0, 0)),
    "clip": ([node("Clip", ["x", "l", "h"], ["y"])], {"constants": {"l": np.float32(0), "h": np.float32(6)}}, (0, 0)),
    "qdq": (
        HALVES,
        {"constants": {"w": ones(6, 3, dtype=np.int8), "s": ones(3), "z": ones(3, dtype=np.int8)}},
        (18, 18),
    ),
    "behind-a-foreign-operator": (
        [GELU, node("MatMul", ["h", "w"], ["y"])],
        {"constants": W, "domain": "com.microsoft"},
        (18, 18),
    ),
    "open-axis": ([node("MatMul", ["x", "w"], ["y"])], {"x": (None, None, 6), "constants": W}, (18, None)),
}


@pytest.mark.parametrize("name", CASES)
def test_onnx_layers(name):
    nodes, rest, want = CASES[name]
    last = layers(model(*nodes, **rest))[-1]
    assert last.outputs == ("y",)
    assert (last.parameters, last.macs) == want
    assert last.name == "y"  # nameless nodes go by their output


# operation, shapes of its inputs, shape of its output, multiply-accumulates
TFLITE = [
    ("CONV_2D", [(None, 8, 8, 4), (6, 3, 3, 4), (6,)], (None, 6, 6, 6), 36 * 6 * 36),
    ("CONV_2D", [(1, 8, 8, 4), (6, 3, 3, 2), (6,)], (1, 6, 6, 6), 36 * 6 * 18),  # two groups
    ("DEPTHWISE_CONV_2D", [(1, 8, 8, 4), (1, 3, 3, 8), (8,)], (1, 6, 6, 8), 36 * 8 * 9),
    ("CONV_3D", [(1, 4, 8, 8, 2), (3, 3, 3, 2, 5)], (1, 2, 6, 6, 5), 72 * 5 * 54),
    ("TRANSPOSE_CONV", [(4,), (6, 3, 3, 4), (1, 8, 8, 4)], (1, 16, 16, 6), 64 * 4 * 6 * 9),
    ("FULLY_CONNECTED", [(1, 7, 12), (5, 12)], (1, 7, 5), 7 * 60),
    ("BATCH_MATMUL", [(1, 3, 7, 12), (1, 3, 12, 5)], (1, 3, 7, 5), 3 * 7 * 60),
    ("BATCH_MATMUL", [(1, 3, 12, 7), (1, 3, 12, 5)], (1, 3, 7, 5), 3 * 7 * 60),  # adj_x
    ("UNIDIRECTIONAL_SEQUENCE_LSTM", [(1, 9, 6), *[(5, 6)] * 4, *[(5, 5)] * 4, (5,), (1, 5)], (1, 9, 5), 9 * 220),
    ("CONV_2D", [(1, None, 8, 4), (6, 3, 3, 4), (6,)], (1, None, 6, 6), None),
    ("ADD", [(1, 4), (1, 4)], (1, 4), 0),
]


@pytest.mark.parametrize(("op", "inputs", "output", "macs"), TFLITE)
def test_tflite_macs(op, inputs, output, macs):
    tensors = tuple(tflite.Tensor(f"t{i}", s, "float32", 0, 0) for i, s in enumerate([*inputs, output]))
    operator = tflite.Operator(op, (*range(len(inputs)), -1), (len(inputs),))
    assert graph_tflite.macs(tflite.Subgraph("g", tensors, (operator,), (0,), (len(inputs),)), operator) == macs


def test_a_quantized_weight_is_one_byte_and_named_so():
    nodes, rest, _ = CASES["qdq"]
    (layer,) = layers(model(*nodes, **rest))
    assert layer.dtype == "int8"
    assert 18 + 12 + 3 < layer.bytes < 80


def test_loops_count_their_constants():
    body = helper.make_graph(
        [node("MatMul", ["x", "wb"], ["o"])], "b", [], [helper.make_tensor_value_info("o", 1, None)],
        [numpy_helper.from_array(ones(6, 3), "wb")],
    )  # fmt: skip
    other = helper.make_graph(
        [node("MatMul", ["x", "wo"], ["p"])], "o", [], [helper.make_tensor_value_info("p", 1, None)],
        [numpy_helper.from_array(ones(6, 3), "wo")],
    )  # fmt: skip
    made = model(
        node("ReduceMax", ["x"], ["m"], keepdims=0), node("Cast", ["m"], ["c"], to=TensorProto.BOOL),
        node("If", ["c"], ["y"], then_branch=body, else_branch=other),
    )  # fmt: skip
    assert (layers(made)[-1].parameters, layers(made)[-1].macs) == (36, None)
