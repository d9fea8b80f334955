"""Sensitivity by layer and width, against whole models in which the same weights are rounded."""

import functools

import numpy as np
import onnx
import pytest

from edgelathe.compress.forward import partial
from edgelathe.compress.integer import weighted
from edgelathe.compress.sensitivity import measure as s
from edgelathe.compress.sensitivity import passes
from edgelathe.compress.sensitivity.keep import keep, run_together
from edgelathe.compress.sensitivity.run import Plan, document, parse_widths
from edgelathe.compress.sensitivity.scene import Scene
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model
from edgelathe.model import run
from edgelathe.model.types import Model
from support import schemas
from support.tiny_onnx import Graph, samples, sqnr


def network(batch="n"):
    """A residual block with BatchNormalization, a classifier, a closing Softmax."""
    g = Graph()
    first = g.op("Relu", g.bn(g.conv("x", 3, 8), 8), name="relu")
    both = g.op("Add", first, g.conv(g.op("Relu", g.conv(first, 8, 8)), 8, 8), name="sum")
    flat = g.op("Flatten", g.op("GlobalAveragePool", both))
    logits = g.op("Gemm", flat, g.weights(8, 5), g.weights(5), name="head")
    return g.build(g.op("Softmax", logits), shape=(batch, 3, 8, 8))


def data_for(model, n=48):
    data = samples(model, n)
    out = run.outputs(model, data.inputs)[0].reshape(n, -1)
    labels = out.argmax(1)
    labels[::7] = (labels[::7] + 1) % out.shape[1]
    return Dataset(data.name, data.inputs, labels)


def measured(model, data, widths=(8, 3), **more):
    with partial.workers(1) as run_all:
        scene = Scene.of(model, data, run_all)
        return scene, s.measure(scene, widths, **more)


def whole(scene, layer, bits, data):
    """The model's output with one layer rounded, run as any model is: sample by sample."""
    constants = weighted.rounded(layer, bits, scene.means[layer.source])
    proto = onnx.ModelProto.FromString(scene.float.proto.SerializeToString())
    for t in proto.graph.initializer:
        if t.name in constants:
            t.CopyFrom(onnx.numpy_helper.from_array(constants[t.name], t.name))
    data_bytes = proto.SerializeToString()
    return run.outputs(Model("onnx", data_bytes, "whole", onnx_model.signature(proto)), data.inputs)[0]


def test_each_layer_scores_as_the_whole_model_with_its_weights_rounded():
    model = network()
    data = data_for(model)
    scene, found = measured(model, data)
    want = run.outputs(model, data.inputs)[0]
    assert {la.layer for la in found.layers} == {la.name for la in scene.layers}
    assert len(found.layers) == 4
    for layer in scene.layers:
        entry = next(la for la in found.layers if la.layer == layer.name)
        for width in entry.widths:
            have = whole(scene, layer, width.bits, data)
            assert width.sqnr_db == pytest.approx(sqnr(want, have), abs=0.02)
            right = (have.argmax(1) == data.labels).mean()
            assert width.accuracy.value == pytest.approx(right)
            assert width.changed == (have.argmax(1) != want.argmax(1)).sum()
            assert width.n == 48


def test_worst_first_and_fewer_bits_cost_more():
    _, found = measured(network(), data_for(network()))
    assert [la.mean_db for la in found.layers] == sorted(la.mean_db for la in found.layers)
    for layer in found.layers:
        assert layer.at(8).sqnr_db > layer.at(3).sqnr_db + 15
        assert layer.at(8).hidden_db is not None
        assert layer.at(8).bytes > layer.at(3).bytes


def test_each_bit_more_is_worth_six_decibels_up_to_sixteen():
    model = network()
    _, found = measured(model, data_for(model, 20), tuple(range(16, 7, -1)), activations=16)
    for layer in found.layers:
        weights = [w.weights_db for w in layer.widths]
        np.testing.assert_allclose(np.diff(weights), -6.02, atol=1.5)
        assert layer.at(16).hidden_db > layer.at(8).hidden_db + 25  # float32 itself ends near 100 dB here
        assert layer.at(16).bytes == 2 * layer.parameters + (layer.at(8).bytes - layer.parameters)


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e12])
@pytest.mark.parametrize("bits", [2, 16])
def test_a_bias_of_any_size_takes_the_mean_error_of_the_rounding(size, bits):
    g = Graph()
    bias = g.const(np.full(4, size, np.float32))
    model = g.build(g.op("Gemm", g.op("Flatten", g.op("GlobalAveragePool", "x")), g.weights(3, 4), bias, name="head"))
    with partial.workers(1) as run_all:
        scene = Scene.of(model, data_for(model, 20), run_all)
    (layer,), mean = scene.layers, scene.means[scene.layers[0].source]
    made = weighted.rounded(layer, bits, mean)
    w = layer.node.inputs[1].const_value.numpy()
    want = mean @ w.astype(np.float64) + size
    np.testing.assert_allclose(
        mean @ made[layer.weight].astype(np.float64) + made[layer.bias], want, rtol=1e-6, atol=1e-6
    )


def test_memory_for_one_chunk_gives_the_same_figures(monkeypatch):
    model = network()
    data = data_for(model)
    monkeypatch.setattr(partial, "CHUNK", 10)
    _, at_once = measured(model, data)
    monkeypatch.setattr(passes, "BLOCK_BYTES", 200_000)  # two chunks
    monkeypatch.setattr(passes, "SESSION_BYTES", 0)
    _, in_pieces = measured(model, data)
    for a, b in zip(at_once.layers, in_pieces.layers, strict=True):
        assert a.layer == b.layer
        assert [w.changed for w in a.widths] == [w.changed for w in b.widths]
        assert [w.sqnr_db for w in a.widths] == pytest.approx([w.sqnr_db for w in b.widths], abs=1e-6)


def test_wide_inner_values_come_in_smaller_chunks(monkeypatch):
    model = network()  # about 11 kB of inner values a sample
    monkeypatch.setattr(passes, "BLOCK_BYTES", 100_000)
    scene, _ = measured(model, data_for(model), (4,))
    assert 1 < scene.float.chunks.size < 20


def test_a_fixed_batch_runs_as_it_is():
    model = network(batch=4)
    scene, found = measured(model, data_for(model, 10))
    assert scene.float.chunks.size == 4
    assert found.baseline.n == 10


def test_a_graph_with_a_batch_of_its_own_inside_goes_sample_by_sample():
    g = Graph()
    flat = g.op("Reshape", g.conv("x", 3, 2), g.const(np.array([1, 128], np.int64)))
    model = g.build(g.op("MatMul", flat, g.weights(128, 4)))
    with partial.workers(1) as run_all:
        assert Scene.of(model, data_for(model, 8), run_all).float.chunks.size == 1


def test_layers_that_share_weights_are_one():
    g = Graph()
    w = g.weights(3, 3, 1, 1)
    y = g.op("Conv", g.op("Conv", "x", w, name="once"), w, name="twice")
    model = g.build(g.op("Flatten", g.op("GlobalAveragePool", y)))
    data = data_for(model)
    scene, found = measured(model, data, (4,))
    assert [la.layer for la in found.layers] == ["once"]
    have = whole(scene, scene.layers[0], 4, data)
    assert found.layers[0].widths[0].sqnr_db == pytest.approx(sqnr(run.outputs(model, data.inputs)[0], have), abs=0.02)


def test_equal_biases_of_two_layers_are_corrected_apart():
    g = Graph()
    bias = g.const(np.zeros(4, np.float32))
    first = g.op("Relu", g.op("Conv", "x", g.weights(4, 3, 1, 1), bias, name="a"))
    model = g.build(
        g.op("Flatten", g.op("GlobalAveragePool", g.op("Conv", first, g.weights(4, 4, 1, 1), bias, name="b")))
    )
    scene, _ = measured(model, data_for(model))
    assert len({la.bias for la in scene.layers}) == 2


def test_rounded_activations_add_their_error():
    model = network()
    data = data_for(model)
    _, without = measured(model, data, (8,))
    _, with_ = measured(model, data, (8,), activations=4)
    for layer in with_.layers:
        assert layer.widths[0].activations == 4
        other = next(la for la in without.layers if la.layer == layer.layer)
        assert layer.widths[0].sqnr_db < other.widths[0].sqnr_db


def test_an_early_end_is_on_fewer_samples_and_close():
    model = network()
    data = data_for(model, 640)
    _, whole_ = measured(model, data, (8, 2))
    _, early = measured(model, data, (8, 2), early=True)
    assert min(w.n for la in early.layers for w in la.widths) < 640
    for a in whole_.layers:
        b = next(la for la in early.layers if la.layer == a.layer)
        for x, y in zip(a.widths, b.widths, strict=True):
            assert x.hidden_db == pytest.approx(y.hidden_db, abs=1.5)


def test_keeping_layers_in_float_is_measured_together():
    model = network()
    data = data_for(model)
    scene, found = measured(model, data, (3,))
    (kept,) = keep(found, (3,), functools.partial(run_together, scene), 2)
    worst = sorted(found.layers, key=lambda la: la.at(3).sqnr_db)[:2]
    assert kept.layers == tuple(la.layer for la in worst)
    assert kept.extra_bytes == sum(la.float_bytes - la.at(3).bytes for la in worst)
    assert kept.everything.bytes == sum(la.at(3).bytes for la in found.layers)
    assert kept.kept.sqnr_db > kept.everything.sqnr_db
    assert kept.gain == pytest.approx(kept.everything.accuracy.drop - kept.kept.accuracy.drop)


def test_targets_have_a_loss_and_no_answers():
    model = network()
    data = samples(model, 20)
    targets = run.outputs(model, data.inputs)[0].astype(np.float64)
    _, found = measured(model, Dataset(data.name, data.inputs, targets, "mae"), (4,))
    assert all(w.changed is None and w.accuracy.drop > 0 for la in found.layers for w in la.widths)


def test_the_document_keeps_its_schema_without_labels_too():
    model = network()
    data = samples(model, 20)
    found = document("m.onnx", model, data, Plan(widths=(4, 2), keep=2, threads=2))
    schemas.validate(found)
    assert found["labels"] is False
    assert found["baseline"]["value"] == 1.0
    assert [k["bits"] for k in found["keep"]] == [4, 2]


@pytest.mark.parametrize("text", ["", "8,", "17", "1", "four", "8;4"])
def test_widths_that_are_none_are_refused(text):
    with pytest.raises(UserError, match="--widths"):
        parse_widths(text)


def test_a_model_without_weights_is_refused():
    g = Graph()
    model = g.build(g.op("Flatten", g.op("Relu", "x")))
    with pytest.raises(UserError, match="no layer whose weights can be rounded"), partial.workers(1) as run_all:
        Scene.of(model, samples(model), run_all)


def test_values_that_are_not_finite_are_refused():
    g = Graph()
    model = g.build(g.op("Flatten", g.op("Log", g.conv("x", 3, 2))))
    with pytest.raises(UserError, match="not finite"), partial.workers(1) as run_all:
        Scene.of(model, samples(model), run_all)


def test_layers_of_other_kinds_are_said_to_be_left_out():
    g = Graph()
    up = g.op("ConvTranspose", g.conv("x", 3, 4), g.weights(4, 3, 2, 2), strides=[2, 2], name="up")
    model = g.build(g.op("Flatten", g.op("GlobalAveragePool", up)))
    _, found = measured(model, data_for(model), (4,))
    assert [(n.layer, n.what) for n in found.skipped] == [("up", "ConvTranspose has no integer form here")]


def test_threads_change_no_figure():
    model = network()
    data = data_for(model)
    found = []
    for threads in (1, 3):
        with partial.workers(threads) as run_all:
            found.append(s.measure(Scene.of(model, data, run_all), (8, 2)).to_json())
    assert found[0] == found[1]


def test_the_float_model_runs_but_once():
    """Its outputs come from the pass that leaves the inner values behind, and are those of single samples."""
    model = network()
    data = data_for(model)
    with partial.workers(1) as run_all:
        scene = Scene.of(model, data, run_all)
        assert [v is not None for v in scene.float.values] == [True, False]
        s.measure(scene, (4,))
    assert all(v is not None for v in scene.float.values)
    np.testing.assert_allclose(scene.float.first, run.outputs(model, data.inputs)[0], rtol=0, atol=1e-6)


def test_labels_that_do_not_fit_are_told_before_the_work(monkeypatch):
    model = network()
    data = data_for(model)
    monkeypatch.setattr(passes.Block, "settle", lambda *_: pytest.fail("it went to work"))
    with partial.workers(1) as run_all, pytest.raises(UserError):
        s.measure(Scene.of(model, Dataset(data.name, data.inputs, data.labels + 90), run_all), (4,))


def test_a_block_takes_over_the_memory_of_the_one_before():
    """Values that suffixes start from are those of the block's own samples, whole and in any order."""
    model = network()
    data = data_for(model, 80)
    with partial.workers(2) as run_all:
        scene = Scene.of(model, data, run_all)
        cuts = {la.name: passes.cut(scene.float.proto.graph, la) for la in scene.layers}
        seen, places = 0, set()
        for block in passes.blocks(scene.float, cuts, 32):
            want = data.inputs["x"][seen : seen + block.count]
            assert block.apart
            np.testing.assert_array_equal(block.real("x"), want)
            rows = np.array([block.count - 1, 0, 3], np.intp)
            np.testing.assert_array_equal(block.inner.rows(["x"], rows)["x"], want[rows])
            places.add(block.inner.chunks[0]["x"].ctypes.data)
            seen += block.count
    assert seen == 80
    assert len(places) == 1


def test_values_of_another_shape_stay_as_they_are_and_are_told():
    first = {"v": np.zeros((2, 3), np.float32)}
    inner = passes.Inner(first, 2)
    inner.put(0, first)
    assert inner.even
    inner.put(1, {"v": np.ones((2, 4), np.float32)})
    assert not inner.even
    assert inner.chunks[1]["v"].shape == (2, 4)
