"""Sensitivity of TFLite models by layer and width, against whole files in which the same weights are rounded."""

import numpy as np
import pytest

from edgelathe.compress.forward import partial
from edgelathe.compress.sensitivity.run import Plan
from edgelathe.compress.sensitivity.screening import Screen
from edgelathe.compress.tflite import passes, steps
from edgelathe.compress.tflite import sensitivity as s
from edgelathe.compress.tflite.file import File
from edgelathe.compress.tflite.frontier import interpreter
from edgelathe.compress.tflite.sensitive import Scene
from edgelathe.compress.tflite.suffix import changed, suffix
from edgelathe.compress.types import Context
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.model import tflite
from support import schemas
from support.float_tflite import from_onnx
from support.tiny_onnx import Graph, sqnr


@pytest.fixture(scope="module")
def model():
    """A residual block and a classifier."""
    g = Graph()
    first = g.op("Relu", g.conv("x", 3, 8), name="relu")
    both = g.op("Relu", g.op("Add", first, g.conv(g.op("Relu", g.conv(first, 8, 8)), 8, 8)))
    flat = g.op("Flatten", g.op("GlobalAveragePool", both))
    return from_onnx(g.build(g.op("Gemm", flat, g.weights(8, 5), g.weights(5)), shape=(1, 3, 8, 8)))


def data_for(model, n):
    (given,) = model.signature.inputs
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(n, *given.shape[1:])) + 2 * rng.normal(size=(n, 1, 1, 3))).astype(np.float32)
    return Dataset("d.npz", {given.name: x}, np.arange(n) % 5)


@pytest.fixture(scope="module")
def data(model):
    return data_for(model, 200)


def measured(model, data, widths=(8, 3), threads=1, **more):
    with partial.workers(threads) as run_all:
        scene = Scene.of(model, data, run_all, {})
        return scene, s.measure(scene, widths, **more)


def answers(data_bytes, data):
    graph = tflite.parse(data_bytes).main
    call = interpreter(data_bytes, graph.inputs, graph.outputs)
    (x,) = data.inputs.values()
    return np.concatenate([call([x[i : i + 1]])[0] for i in range(len(x))])


def test_each_layer_scores_as_the_whole_file_with_its_weights_rounded(model, data, monkeypatch):
    monkeypatch.setattr(Screen, "rows", lambda *_: None)
    scene, found = measured(model, data)
    want = answers(model.data, data)
    assert len(found.layers) == 4
    assert [la.mean_db for la in found.layers] == sorted(la.mean_db for la in found.layers)
    for layer in scene.layers:
        entry = next(la for la in found.layers if la.layer == layer.name)
        for width in entry.widths:
            file = File(model.data)
            for tensor, values in layer.rounded(width.bits, scene.means[layer.name]).items():
                file.set_constant(tensor, values)
            have = answers(file.data(), data)
            assert width.sqnr_db == pytest.approx(sqnr(want, have), abs=1e-3)
            assert width.changed == (have.argmax(1) != want.argmax(1)).sum()
            assert width.accuracy.value == pytest.approx((have.argmax(1) == data.labels).mean())
            assert (width.n, width.sampled) == (200, 200)


def test_the_bias_takes_out_the_mean_error_of_what_the_layer_makes(model, data):
    """Padding changes means at the border; the classifier has none."""
    with partial.workers(1) as run_all:
        scene = Scene.of(model, data, run_all, {})
    head = next(la for la in scene.layers if la.layer.op == "FULLY_CONNECTED")
    made = head.rounded(2, scene.means[head.name])
    x = scene.means[head.name]
    np.testing.assert_allclose(
        x @ made[head.layer.weight].T + made[head.layer.bias], x @ head.weights.T + head.bias, atol=1e-5
    )


def test_answers_are_those_of_all_samples_by_any_number_of_threads_and_blocks(model, data, monkeypatch):
    _, quick = measured(model, data, (8, 2), 3)
    assert min(w.sampled for la in quick.layers for w in la.widths) < 150
    monkeypatch.setattr(Screen, "rows", lambda *_: None)
    monkeypatch.setattr(passes, "BLOCK_BYTES", 200_000)
    _, whole = measured(model, data, (8, 2))
    for a, b in ((a, next(b for b in quick.layers if b.layer == a.layer)) for a in whole.layers):
        assert [(w.accuracy, w.changed, w.n) for w in a.widths] == [(w.accuracy, w.changed, w.n) for w in b.widths]
    assert max(w.changed for la in whole.layers for w in la.widths) > 5


def test_rounded_activations_add_their_error(model, data):
    few = Dataset(data.name, {k: v[:40] for k, v in data.inputs.items()}, data.labels[:40])
    _, without = measured(model, few, (8,))
    _, with_ = measured(model, few, (8,), activations=4)
    for layer in with_.layers:
        other = next(la for la in without.layers if la.layer == layer.layer)
        assert layer.widths[0].activations == 4
        assert layer.widths[0].sqnr_db < other.widths[0].sqnr_db - 3


def test_sixteen_bits_lose_next_to_nothing(model, data):
    few = Dataset(data.name, {k: v[:20] for k, v in data.inputs.items()}, data.labels[:20])
    _, found = measured(model, few, (16, 8))
    for layer in found.layers:
        assert layer.at(16).weights_db > layer.at(8).weights_db + 42
        assert layer.at(16).sqnr_db > layer.at(8).sqnr_db + 30
        assert layer.at(16).bytes - layer.at(8).bytes == layer.parameters


def test_only_what_hangs_on_a_layer_is_in_its_file_and_the_model_stays_as_it_was(model):
    graph, file = tflite.parse(model.data).main, File(model.data)
    before = file.data()
    last = max(i for i, op in enumerate(graph.operators) if op.op == "CONV_2D")
    cut = suffix(graph, {last}, graph.outputs)
    weight = graph.operators[last].inputs[1]
    part, inputs = changed(file, cut, {weight: file.constant(weight) * 2}, ({last}, graph.operators[last].inputs[0]))
    assert len(tflite.parse(part).main.operators) < len(graph.operators)
    assert len(cut.boundary) == 2  # the other term of the sum as well
    assert len(inputs) == 2
    assert inputs[-1] == len(graph.tensors)  # what the layer reads has a place of its own
    assert file.data() == before


def test_the_document_keeps_its_schema(model, data):
    few = Dataset(data.name, {k: v[:20] for k, v in data.inputs.items()})
    found = s.document("m.tflite", model, few, Plan(widths=(4, 2), keep=2, threads=2))
    schemas.validate(found)
    assert found["model"]["format"] == "tflite"
    assert found["options"]["chunk"] == 1
    assert sum(la["macs_share"] for la in found["layers"]) == pytest.approx(1)
    for kept in found["keep"]:
        assert kept["kept"]["sqnr_db"] > kept["all"]["sqnr_db"]
        assert kept["extra_bytes"] > 0


def test_a_quantized_file_is_refused(model, data):
    few = Dataset(data.name, {k: v[:8] for k, v in data.inputs.items()})
    done = steps.int8(model, steps.Int8Options(equalize="never", scale="minmax"), Context(data=few)).model
    with pytest.raises(UserError, match="quantized already"), partial.workers(1) as run_all:
        Scene.of(done, data, run_all, {})


def test_labels_that_do_not_fit_are_told_before_the_work(model, data, monkeypatch):
    monkeypatch.setattr(passes.Block, "settle", lambda *_: pytest.fail("it went to work"))
    with pytest.raises(UserError):
        measured(model, Dataset(data.name, data.inputs, data.labels + 90))
