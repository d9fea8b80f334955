from __future__ import annotations

import subprocess
import sys

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelathe.core.errors import UserError
from edgelathe.model import io, run
from edgelathe.model import onnx as onnx_model
from edgelathe.model.fixed import onnx as fixed_onnx
from support.tiny_onnx import Graph

MODELS = ["cifar10_resnet8/model.onnx", "cifar10_mobilenetv2/model.onnx"]
AGAIN = """
import sys
from pathlib import Path
from edgelathe.model import io, onnx
model = io.from_bytes(Path(sys.argv[1]).read_bytes(), "onnx", "m")
print(onnx.from_ir(onnx.to_ir(model), "m").sha256)
"""


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back_keeps_names_signature_and_answers(data_dir, name):
    model = io.load(data_dir / name)
    back = onnx_model.from_ir(onnx_model.to_ir(model), model.name)
    before, after = (onnx.load_from_string(m.data) for m in (model, back))
    assert [(n.name, n.op_type, list(n.output)) for n in after.graph.node] == [
        (n.name, n.op_type, list(n.output)) for n in before.graph.node
    ]
    assert back.signature == model.signature
    assert back.bytes <= model.bytes + 16
    x = {
        model.signature.inputs[0].name: np.random.default_rng(0).random(
            (2, *model.signature.inputs[0].shape[1:]), np.float32
        )
    }
    np.testing.assert_array_equal(run.outputs(back, x)[0], run.outputs(model, x)[0])


def test_equal_graphs_are_equal_bytes_in_every_process(data_dir):
    path = data_dir / MODELS[0]
    texts = {
        subprocess.run([sys.executable, "-c", AGAIN, str(path)], capture_output=True, text=True, check=True,
                       env={"PYTHONHASHSEED": str(seed)}).stdout
        for seed in (1, 2)
    }  # fmt: skip
    assert len(texts) == 1


def test_metadata_docs_and_nameless_nodes_survive():
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"], name="second")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        value_info=[helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", 4])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="p", doc_string="d")
    helper.set_model_props(proto, {"b": "2", "a": "1"})
    model = onnx_model.from_proto(proto, "m")
    back = onnx_model.to_proto(onnx_model.from_ir(onnx_model.to_ir(model), "m"))
    assert [n.name for n in back.graph.node] == ["", "second"]
    assert {p.key: p.value for p in back.metadata_props} == {"a": "1", "b": "2"}
    assert (back.producer_name, back.doc_string, back.ir_version) == ("p", "d", proto.ir_version)
    assert back.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_proto_or_graph_is_a_fresh_copy(data_dir):
    model = io.load(data_dir / MODELS[0])
    onnx_model.to_proto(model).graph.node[0].name = "changed"
    graph = onnx_model.to_ir(model).graph
    graph.remove(list(graph)[-1])
    assert onnx_model.from_proto(onnx_model.to_proto(model), "m").sha256 == model.sha256
    assert len(onnx_model.to_ir(model).graph) == len(graph) + 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [(TensorProto.FLOAT, "float32"), (TensorProto.FLOAT16, "float16"), (TensorProto.BFLOAT16, "bfloat16"),
     (TensorProto.INT64, "int64"), (TensorProto.BOOL, "bool"), (TensorProto.INT4, "int4"), (TensorProto.STRING, "str"),
     (TensorProto.UNDEFINED, "undefined")],
)  # fmt: skip
def test_dtype_names(kind, name):
    assert onnx_model.dtype_name(kind) == name


@pytest.mark.parametrize("form", ["initializer", "Constant"])
def test_weights_in_sparse_form_run_and_are_refused_by_name_where_they_would_be_lost(tmp_path, form):
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("at", TensorProto.INT64, [2], [0, 5]), [4, 2])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
    )
    if form == "Constant":
        graph.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=sparse))
    else:
        graph.sparse_initializer.append(sparse)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, tmp_path / "m.onnx")
    model = io.load(tmp_path / "m.onnx")
    np.testing.assert_array_equal(run.outputs(model, {"x": np.eye(4, dtype=np.float32)})[0].sum(0), [1, 2])
    for use in (onnx_model.to_ir, fixed_onnx.prepared):
        with pytest.raises(UserError, match=r"m: constant 'w' is stored in sparse form.*; export"):
            use(model)


def test_a_model_lies_apart_without_a_copy_of_its_weights(monkeypatch):
    monkeypatch.setattr(onnx_model, "_APART", 4000)
    g = Graph()
    y = g.op("Gemm", g.op("MatMul", "x", g.weights(64, 64)), g.weights(64, 32), g.weights(32))
    proto = onnx_model.to_proto(g.build(g.op("Reshape", y, g.const(np.array([-1, 4, 8]))), shape=("n", 64)))
    proto.graph.initializer.insert(1, numpy_helper.from_array(np.ones(1100, ml_dtypes.bfloat16), "unread"))  # smaller
    model = onnx_model.from_proto(proto, "tiny")
    apart = onnx_model.apart(model)
    assert len(apart.data) < 4000 < len(model.data)
    assert [len(p) for p in apart.external.parts] == [4 * 64 * 64, 4 * 64 * 32]
    held = np.frombuffer(model.data, np.uint8)
    assert all(np.shares_memory(np.frombuffer(p, np.uint8), held) for p in apart.external.parts)
    x = {"x": np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)}
    np.testing.assert_array_equal(run.outputs(apart, x)[0], run.outputs(model, x)[0])
    monkeypatch.setattr(onnx_model, "_APART", 10**6)
    assert onnx_model.apart(model) is model


def test_large_models_are_proved_apart(monkeypatch):
    monkeypatch.setattr(onnx_model, "_APART", 4000)
    monkeypatch.setattr(run, "_LARGE", 5000)
    seen = []
    monkeypatch.setattr(run, "open_onnx", lambda m, so, p, real=run.open_onnx: seen.append((m, so)) or real(m, so, p))
    g = Graph()
    model = g.build(g.op("MatMul", "x", g.weights(64, 64)), shape=("n", 64))
    io.validate(model)
    ((proved, options),) = seen
    assert proved.external is not None
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = onnx_model.to_proto(model)
    proto.graph.node[0].input[0] = "nobody"
    with pytest.raises(UserError, match="refuses the model"):
        io.validate(onnx_model.from_proto(proto, "tiny"))
