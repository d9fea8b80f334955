import numpy as np
import onnx
import pytest

from edgelathe.compress import fp16
from edgelathe.compress.types import Context
from edgelathe.core.dataset import Dataset
from edgelathe.core.profile import Hardware
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph, operators, optimized, outputs, samples, sqnr


def converted(model, compute, data=None, overrides=None):
    return fp16.apply(model, fp16.Options(compute), Context(data=data, overrides=overrides or {}))


def network(opset=13, scale=1.0):
    g = Graph()
    y = g.op("Relu", g.bn(g.conv("x", 3, 16), 16), name="relu")
    y = g.op("Clip", g.conv(y, 16, 16, name="c2"), g.const(np.float32(0)), g.const(np.float32(6 * scale)))
    y = g.op("Resize", y, g.const(np.zeros(0, np.float32)), g.const(np.array([1, 1, 2, 2], np.float32)), mode="linear")
    y = g.op("Flatten", g.op("GlobalAveragePool", g.op("Add", y, y)))
    y = g.op("Gemm", y, g.weights(16, 10), g.const(np.zeros(10, np.float32)))
    return g.build([g.op("Softmax", y, axis=1), y], opset=opset, ir_version=6 if opset < 13 else 8)


def close(model, result, decibel=45):
    data = samples(model)
    return all(sqnr(a, b) > decibel for a, b in zip(outputs(model, data), outputs(result.model, data), strict=True))


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
@pytest.mark.parametrize("compute", ["float", "half"])
def test_both_ways_keep_the_function_and_its_types(opset, compute):
    model = network(opset)
    result = converted(model, compute)
    onnx.checker.check_model(onnx_model.to_proto(result.model), full_check=True)
    assert close(model, result)
    assert [(o.name, o.dtype) for o in result.model.signature.outputs] == [
        (o.name, "float32") for o in model.signature.outputs
    ]
    assert result.model.bytes < model.bytes
    assert converted(model, compute).model.sha256 == result.model.sha256


def test_stored_weights_are_float_again_before_the_first_call():
    model = network()
    ran = optimized(converted(model, "float").model)
    assert "Cast" not in ran
    assert ran == optimized(model)


def test_a_large_model_is_halved(data_dir):
    from edgelathe.model import io

    model = io.load(data_dir / "cifar10_resnet8" / "model.onnx")
    assert converted(model, "float").model.bytes < 0.51 * model.bytes
    assert converted(model, "half").model.bytes < 0.51 * model.bytes


def test_half_where_there_are_tensor_cores_only():
    def chosen(*features, **options):
        return fp16.resolve(fp16.Options(**options), Hardware("aarch64", frozenset(features))).compute

    assert chosen("tensor-cores", "fp16") == "half"
    assert chosen("fp16", "sdot") == "float"
    assert chosen("tensor-cores", compute="float") == "float"


def test_values_that_overflow_stay_float():
    g = Graph()
    big = g.op("Mul", g.conv("x", 3, 4, name="small"), g.const(np.float32(1e5)), name="big")
    model = g.build(g.op("Mul", big, g.const(np.float32(1e-5)), name="back"))
    result = converted(model, "half", data=samples(model))
    notes = {n.layer: n for n in result.notes}
    assert notes["small"].done
    assert not notes["big"].done
    assert notes["big"].what == "its values leave the range of float16"
    assert close(model, result)


def test_constants_beyond_the_range_are_clipped_with_a_note_or_stay():
    g = Graph()
    y = g.op("Clip", "x", g.const(np.float32(-1e9), "floor"), g.const(np.float32(1e9)), name="clip")
    model = g.build(y)
    result = converted(model, "half", data=samples(model))
    assert any("'floor' clipped to 65504" in n.what for n in result.notes)
    assert close(model, result)
    g = Graph()
    w = np.full((64, 3, 1, 1), 1e6, np.float32)
    kept = converted(g.build(g.op("Conv", "x", g.const(w, "w"), name="wide")), "float")
    assert [(n.layer, n.done) for n in kept.notes] == [("wide", False)]


def test_skip_and_operators_without_a_half_form():
    model = network()
    notes = {n.layer: n for n in converted(model, "half", overrides={"c2": {"skip": True}}).notes}
    assert notes["c2"].what == "skipped by the recipe"
    assert any(n.what == "Resize stays in float32" for n in notes.values())
    assert "Cast" in operators(converted(model, "half").model)
    left = converted(model, "float", overrides={"c2": {"skip": True}})
    assert [n.what for n in left.notes if n.layer == "c2"] == ["skipped by the recipe"] * 1


def test_a_model_of_integers_is_left_alone():
    info = [onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, [1])]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Abs", ["i"], ["o"])], "g", info, [onnx.helper.make_tensor_value_info("o", 7, [1])]
    )
    model = onnx_model.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)]), "m")
    for compute in ("float", "half"):
        result = converted(model, compute, data=Dataset("d", {"i": np.zeros((2, 1), np.int64)}))
        assert result.notes[0].done is False
        assert operators(result.model) == ["Abs"]
