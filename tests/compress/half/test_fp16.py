import numpy as np
import onnx
import pytest

from edgelathe.compress.half import fp16
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


def half(model, arithmetic=None, data=None):
    result = fp16.apply(model, fp16.Options("half", arithmetic), Context(data=data))
    return result, {n.layer: n for n in result.notes}


def masked(mask):
    """Scores of which some are masked by a large number, and a softmax of them."""
    g = Graph()
    m = np.where(np.eye(8) > 0, np.float32(0), np.float32(mask)).astype(np.float32)
    return g.build(g.op("Softmax", g.op("Add", "x", g.const(m, "mask"), name="add"), axis=-1, name="soft"))


def test_masks_are_clipped_where_sums_with_them_stay_finite():
    model = masked(-1e9)
    result, notes = half(model)
    assert any(n.what == "'mask' clipped to 32752" for n in result.notes)
    assert notes["soft"].done
    assert close(model, result)
    offset, kept = half(masked(1e6))
    assert not kept["add"].done
    assert kept["add"].what == "its constant 'mask' is beyond float16's 65504"
    assert not kept["soft"].done  # it reads what may be beyond
    assert close(masked(1e6), offset)


def test_factors_and_epsilons_that_vanish_in_float16_keep_their_nodes_in_float():
    g = Graph()
    small = g.op("Mul", g.conv("x", 3, 8, name="conv"), g.const(np.float32(1e-9), "factor"), name="mul")
    y = g.op("Div", small, g.op("Add", g.op("Abs", small, name="abs"), g.const(np.float32(1e-9), "eps"), name="add"))
    model = g.build(y)
    result, notes = half(model, data=samples(model))
    assert notes["conv"].done
    assert [notes[n].what for n in ("mul", "add")] == [
        f"its constant '{n}' is too small for float16: 1e+02% would be lost" for n in ("factor", "eps")
    ]
    assert np.isfinite(outputs(result.model, samples(model))[0]).all()


def test_weights_beyond_the_range_keep_their_layer_in_float():
    g = Graph()
    w = np.full((4, 3, 1, 1), 1e6, np.float32)
    y = g.op("Mul", g.op("Conv", "x", g.const(w, "w"), name="wide"), g.const(np.float32(1e-3)), name="scaled")
    model = g.build(g.op("Mul", y, g.const(np.float32(1e-3)), name="again"))
    result, notes = half(model, data=samples(model))
    assert [notes[n].done for n in ("wide", "again")] == [False, True]
    assert close(model, result)
    _, without = half(model)
    assert without["wide"].what == "its constant 'w' is beyond float16's 65504"


def test_what_computes_float16_follows_from_the_device_and_is_told():
    def options(machine, *features):
        return fp16.resolve(fp16.Options(), Hardware(machine, frozenset(features)))

    assert options("aarch64", "fp16", "tensor-cores") == fp16.Options("half", "tensor-cores")
    assert options("aarch64", "gpu-fp16") == fp16.Options("half", "gpu")
    assert options("aarch64", "fp16", "sdot") == fp16.Options("float", "vector")
    assert options("x86_64", "avx2", "vnni") == fp16.Options("float", "none")
    assert options(None) == fp16.Options("float", None)

    def said(arithmetic):
        return [n.what for n in half(network(), arithmetic, samples(network()))[0].notes if n.layer == "model"]

    assert [w.split(":")[0] for w in said("none")] == ["slower than float"]
    assert [w.split(":")[0] for w in said("vector")] == ["likely slower than float"]
    assert said("gpu") == said(None) == []
    assert said("tensor-cores") == ["tensor cores fit 1 of 3 layers with weights"]


def test_layers_that_tensor_cores_do_not_fit_are_named():
    _, notes = half(network(), "tensor-cores", samples(network()))
    assert notes["c2"].what == "computed in float16"
    assert any("3 inputs: no multiple of 8" in n.what for n in notes.values())


def test_without_data_nobody_looked_for_overflow():
    assert any("overflow was not looked for" in n.what for n in half(network())[0].notes)


def test_what_becomes_zero_or_subnormal_is_told():
    g = Graph()
    w = g.rng.normal(size=(192, 10)).astype(np.float32)
    w[:30], w[30:60] = 1e-9, 1e-5
    model = g.build(g.op("MatMul", g.op("Flatten", "x"), g.const(w, "w"), name="fc"))
    (note,) = converted(model, "float").notes
    assert note.what == "'w' stored as float16, 16% become 0, 16% are subnormal"
