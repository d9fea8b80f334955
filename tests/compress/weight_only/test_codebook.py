from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edgelathe.compress.types import Context
from edgelathe.compress.weight_only import codebook
from edgelathe.core import dataset
from edgelathe.core.errors import UserError
from edgelathe.model import io, run
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph, operators, optimized, outputs, samples, sqnr


def coded(model, data=None, overrides=None, **options):
    return codebook.apply(model, codebook.Options(**options), Context(data=data, overrides=overrides or {}))


def network(opset=13):
    g = Graph()
    y = g.op("Relu", g.conv("x", 3, 32, name="first"))
    y = g.op("Relu", g.conv(y, 32, 32, group=32, name="depthwise"))
    y = g.op("Add", y, g.op("Relu", g.conv(y, 32, 32, name="inner")))
    y = g.op("Flatten", g.op("GlobalAveragePool", y))
    y = g.op("Gemm", y, g.weights(64, 32), g.const(np.zeros(64, np.float32)), transB=1, name="wide")
    y = g.op("MatMul", y, g.weights(64, 40), name="last")
    return g.build(y, opset=opset, ir_version=6 if opset < 13 else 8)


def constants(model):
    return {t.name: numpy_helper.to_array(t) for t in onnx_model.to_proto(model).graph.initializer}


@pytest.mark.parametrize(
    ("opset", "per", "by"),
    [(11, "channel", "kmeans"), (13, "tensor", "kmeans"), (13, "channel", "frequency"), (17, "tensor", "frequency")],
)
def test_the_function_is_kept_in_a_fraction_of_the_bytes(opset, per, by):
    model = network(opset)
    data, unseen = samples(model, 64), samples(model, 16, seed=9)
    result = coded(model, data, entries=32, per=per, by=by)
    onnx.checker.check_model(onnx_model.to_proto(result.model), full_check=True)
    want, have = outputs(model, unseen)[0], outputs(result.model, unseen)[0]
    assert sqnr(want, have) > (15 if by == "kmeans" else 8)
    assert result.model.bytes < 0.32 * model.bytes
    assert coded(model, data, entries=32, per=per, by=by).model.sha256 == result.model.sha256


@pytest.mark.parametrize("entries", [3, 16, 256])
def test_no_layer_has_more_values_than_entries(entries, tmp_path):
    model = network()
    result = coded(model, samples(model, 32), entries=entries)
    weights = real_weights(result.model, tmp_path)
    assert len(np.unique(weights["wide"])) > entries or entries == 256  # a step a channel
    for w in (weights["wide"], weights["inner"].reshape(32, -1)):
        assert max(len(np.unique(row)) for row in w) <= entries
    alone = real_weights(coded(model, samples(model, 32), entries=entries, per="tensor").model, tmp_path)
    assert len(np.unique(alone["inner"])) <= entries


def real_weights(model, folder):
    """Weights by layer as ONNX Runtime has them once the session is loaded."""
    path = folder / "optimized.onnx"
    so = ort.SessionOptions()
    so.optimized_model_filepath, so.log_severity_level = str(path), 4
    so.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    ort.InferenceSession(model.data, so, providers=["CPUExecutionProvider"])
    graph = onnx.load(path).graph
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    return {n.name: values[n.input[1]] for n in graph.node if len(n.input) > 1 and n.input[1] in values}


def test_nothing_is_looked_up_in_a_run():
    model = network()
    assert optimized(coded(model, samples(model)).model) == optimized(model)


def test_second_order_loses_less_than_the_nearest_and_samples_help():
    model = network()
    unseen = samples(model, 32, seed=9)
    want = outputs(model, unseen)[0]
    with_data = sqnr(want, outputs(coded(model, samples(model, 128), entries=8).model, unseen)[0])
    without = sqnr(want, outputs(coded(model, entries=8).model, unseen)[0])
    assert with_data > without + 2


def test_weights_of_few_values_are_kept_to_the_bit():
    g = Graph()
    w = g.rng.choice(np.float32([-0.3, 0.0, 0.1, 0.7]), (16, 3, 5, 5))
    model = g.build(g.op("Conv", "x", g.const(w, "w"), pads=[2] * 4, name="conv"))
    result = coded(model, samples(model))
    assert result.notes[0].what.startswith("4 entries")
    np.testing.assert_array_equal(outputs(model, samples(model))[0], outputs(result.model, samples(model))[0])


def test_small_layers_stay_float_and_skipped_ones_as_they_are():
    model = network()
    result = coded(
        model, samples(model), overrides={"inner": {"skip": True}, "wide": {"entries": 4}, "depth*": {"entries": 256}}
    )
    notes = {n.layer: n for n in result.notes}
    assert (notes["inner"].done, notes["inner"].what) == (False, "skipped by the recipe")
    assert not notes["depthwise"].done
    assert "stays float" in notes["depthwise"].what
    assert notes["wide"].what.startswith("4 entries")
    assert any(a.shape == (32, 32, 3, 3) and a.dtype == np.float32 for a in constants(result.model).values())


def test_step_and_range_are_those_given():
    model = network()
    result = coded(model, samples(model), step=0.125, range=0.5, per="tensor", by="frequency")
    tables = [a for a in constants(result.model).values() if a.dtype == np.float32 and 2 < a.size <= 16 and a.ndim == 1]
    assert [n.what[:9] for n in result.notes] == 5 * ["9 entries"]
    assert tables  # equal ones are stored once
    for table in tables:
        assert np.abs(table).max() == 0.5
        np.testing.assert_array_equal(table, np.rint(table / 0.125) * 0.125)


def test_a_step_of_too_many_levels_is_refused():
    with pytest.raises(UserError, match="too many levels"):
        coded(network(), step=1e-9)


def test_inputs_become_few_values():
    model = network()
    data = samples(model, 32)
    result = coded(model, data, entries=4, inputs=True, overrides={"*": {"entries": 256}})
    rounded = run.session(result.model)
    x = data.inputs["x"][:1]
    note = next(n for n in result.notes if n.layer == "x")
    assert note.what.startswith("input: 4 values")
    near = x + np.float32(1e-4) * (np.abs(x) < 0.01)  # the same representative
    np.testing.assert_array_equal(rounded({"x": x})[0], rounded({"x": near})[0])
    far = np.full_like(x, 1e6)
    assert np.isfinite(rounded({"x": far})[0]).all()


def test_inputs_need_samples_and_integer_models_are_refused():
    with pytest.raises(UserError, match="needs calibration data"):
        coded(network(), inputs=True)
    g = Graph()
    scale, zero = g.const(np.float32(0.1)), g.const(np.uint8(3))
    model = g.build(g.op("DequantizeLinear", g.op("QuantizeLinear", "x", scale, zero), scale, zero))
    with pytest.raises(UserError, match="quantized already"):
        coded(model)


def test_shared_weights_recurrent_and_transposed_layers():
    g = Graph()
    w = g.weights(32, 32)
    y = g.op("MatMul", "x", w, name="one")
    y = g.op("MatMul", y, w, name="two")
    y = g.op("LSTM", y, g.weights(1, 128, 32), g.weights(1, 128, 32), hidden_size=32, outputs=3, name="lstm")[0]
    model = g.build(y, shape=(5, 4, 32))
    result = coded(model, samples(model, 5), entries=64)
    assert [n.layer for n in result.notes if n.done] == ["one", "lstm", "lstm"]
    data = {"x": np.random.default_rng(0).normal(size=(5, 4, 32)).astype(np.float32)}
    assert sqnr(run.session(model)(data)[0], run.session(result.model)(data)[0]) > 25
    g = Graph()
    y = g.op("ConvTranspose", "x", g.weights(3, 64, 5, 5), name="up")
    model = g.build(y)
    result = coded(model, samples(model), entries=16)
    assert sqnr(outputs(model, samples(model))[0], outputs(result.model, samples(model))[0]) > 15


def test_dead_and_constant_channels():
    g = Graph()
    w = g.rng.normal(size=(32, 3, 5, 5)).astype(np.float32)
    w[0], w[1] = 0, 0.5
    y = g.op("Relu", g.op("Conv", "x", g.const(w), pads=[2] * 4, name="conv"))
    model = g.build(g.op("Conv", y, g.const(np.zeros((32, 32, 3, 3), np.float32)), name="zeros"))
    data = samples(model)
    result = coded(model, data)
    assert np.isfinite(outputs(result.model, data)[0]).all()
    np.testing.assert_array_equal(outputs(result.model, data)[0], 0)


def test_a_model_without_weights_stays_and_says_so():
    g = Graph()
    model = g.build(g.op("Relu", "x"))
    result = coded(model)
    assert result.model.sha256 == model.sha256
    assert result.notes[-1].what == "no weights that pay"


def test_real_model_in_a_sixth_of_its_bytes(data_dir):
    model = io.load(data_dir / "cifar10_resnet8/model.onnx")
    images = {k: np.load(data_dir / f"cifar10_resnet8/{k}.npz") for k in ("calib", "train")}
    x = {k: v["x"][:n].astype(np.float32) for (k, v), n in zip(images.items(), (48, 300), strict=True)}
    result = coded(model, dataset.Dataset("calib", {"input": x["calib"]}))
    want, have = (run.outputs(m, {"input": x["train"]})[0].argmax(1) for m in (model, result.model))
    assert result.model.bytes < 0.17 * model.bytes
    assert (want != have).sum() <= 15
    assert "GatherElements" in operators(result.model)
