"""Why answers changed: faults put into models on purpose are named, at the right layer, with the mend."""

import numpy as np
import onnx
import pytest

from edgelathe.compress.graph import fold
from edgelathe.compress.half import fp16
from edgelathe.compress.integer import int8
from edgelathe.compress.pruning import prune
from edgelathe.compress.sensitivity.explain import brief, explain
from edgelathe.compress.types import Context
from edgelathe.core.dataset import Dataset
from edgelathe.core.profile import Hardware
from edgelathe.model import onnx as onnx_model
from edgelathe.model import run
from support.tiny_onnx import Graph, samples, sqnr

X86 = Hardware("x86_64", frozenset())


def network(spread=1.0, weight=1.0):
    """Three convolutions; `spread`: how unlike the channels between the first two are."""
    g = Graph()
    factors = np.geomspace(1, spread, 8).astype(np.float32)
    first = g.rng.normal(size=(8, 3, 3, 3)).astype(np.float32) * factors[:, None, None, None]
    second = g.rng.normal(size=(8, 8, 3, 3)).astype(np.float32) / factors[None, :, None, None]
    y = g.op("Relu", g.op("Conv", "x", g.const(first), pads=[1] * 4, name="first"), name="r1")
    y = g.op("Relu", g.op("Conv", y, g.const(second), g.weights(8), pads=[1] * 4, name="second"), name="r2")
    y = g.op(
        "Conv", y, g.const(g.rng.normal(size=(5, 8, 1, 1)).astype(np.float32) * weight), g.weights(5), name="third"
    )
    return g.build(g.op("Flatten", g.op("GlobalAveragePool", y)))


def quantized(model, data, **options):
    wanted = int8.resolve(int8.Options(**options), Hardware(None, frozenset()))
    return int8.apply(model, wanted, Context(data=data))


def layer(found, name):
    return next(la for la in found.layers if la.layer == name)


def labelled(model, n=32):
    data = samples(model, n)
    return Dataset(data.name, data.inputs, run.outputs(model, data.inputs)[0].argmax(1))


def test_nothing_changed_is_exact():
    model = network()
    found = explain(model, model, labelled(model))
    assert found.sqnr_db == 200
    assert found.changed == 0
    assert {la.sqnr_db for la in found.layers} == {200}
    assert found.tries == ()


def test_one_output_without_labels_is_compared_by_its_error_alone():
    g = Graph()
    model = g.build(g.op("Gemm", g.op("Flatten", g.op("GlobalAveragePool", g.conv("x", 3, 8))), g.weights(8, 1)))
    data = samples(model, 16)
    found = explain(model, quantized(model, data).model, data)
    assert 20 < found.sqnr_db < 80
    assert (found.accuracy, found.changed, found.chance) == (None, None, False)


def test_layers_are_compared_at_original_names_behind_the_clamp_that_vanished():
    model = network()
    data = labelled(model)
    made = quantized(model, data, equalize="never").model
    found = explain(model, made, data)
    assert [la.sqnr_db for la in found.layers] == sorted(la.sqnr_db for la in found.layers)
    assert {la.layer for la in found.layers} == {"first", "second", "third"}
    assert all(25 < la.sqnr_db < 60 for la in found.layers)
    assert found.sqnr_db == pytest.approx(sqnr(*(run.outputs(m, data.inputs)[0] for m in (model, made))), abs=0.01)


def test_unlike_channels_are_named_and_equalization_is_tried_and_mends_it():
    model = network(spread=3000.0)
    data = labelled(model)
    broken = explain(model, quantized(model, data, equalize="never").model, data)
    assert any("widest channel" in c for c in layer(broken, "first").causes)
    assert broken.tries[0] == "int8(equalize=always)"
    mended = explain(model, quantized(model, data, equalize="always").model, data)
    # the factors that equalization gave to the channels are no error
    assert layer(mended, "first").sqnr_db > 25
    assert mended.sqnr_db > broken.sqnr_db + 10


def test_one_scale_for_unlike_weights_is_named():
    model = network(spread=3000.0)
    data = labelled(model)
    found = explain(model, quantized(model, data, equalize="never", per_channel=False).model, data)
    first = layer(found, "first")
    assert first.weight_ratio > 8
    assert "int8(per_channel=true)" in found.tries


def test_values_beyond_the_grid_are_counted():
    model = network()
    quiet, loud = labelled(model), samples(model, 32)
    made = quantized(model, Dataset("quiet", {"x": quiet.inputs["x"] * np.float32(0.2)}), equalize="never").model
    found = explain(model, made, loud)
    assert layer(found, "second").clipped > 0.03
    assert any("clipped" in c for c in layer(found, "second").causes)
    # zeros of a Relu that the grid does now are not clipped
    assert layer(explain(model, quantized(model, quiet, equalize="never").model, quiet), "second").clipped < 0.01


def test_sums_that_can_saturate_are_named_unless_products_are_exact():
    model = network(weight=30.0)
    data = labelled(model)
    made = quantized(model, data, equalize="never", signed=False, reduce=False, exact=False)
    found = explain(model, made.model, data, made.config)
    assert layer(found, "second").saturating > 0
    assert "int8(reduce=auto)" in found.tries
    exact = explain(model, made.model, data, {"session.x64quantprecision": "1"})
    assert layer(exact, "second").saturating == 0


def test_overflow_of_float16_is_named():
    model = network(weight=8000.0)  # weights that float16 holds, and sums that it does not
    data = labelled(model)
    found = explain(model, fp16.apply(model, fp16.Options(compute="half"), Context()).model, data)
    assert layer(found, "third").overflow
    assert found.layers[0].layer == "third"
    assert "bf16" in found.tries


def test_a_model_of_one_answer_fell_to_chance():
    model = network()
    data = labelled(model)
    proto = onnx_model.to_proto(model)
    for t in proto.graph.initializer:
        t.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(t) * 0, t.name))
    found = explain(model, onnx_model.from_proto(proto, "dead"), data)
    assert found.chance
    assert layer(found, "first").lost == 8
    assert "skip = true for layer 'first'" in found.tries  # the error begins there
    assert "worst layers" in found.sentence()


def test_pruned_layers_of_another_shape_are_left_out():
    model = network()
    data = labelled(model)
    made = prune.apply(model, prune.Options(channels=0.5), Context(data=data)).model
    found = explain(model, made, data)
    assert "third" in {la.layer for la in found.layers}
    assert "first" not in {la.layer for la in found.layers}


def test_batch_normalization_that_was_folded_belongs_to_its_layer():
    g = Graph()
    y = g.op("Relu", g.bn(g.op("Conv", "x", g.weights(4, 3, 3, 3), name="conv"), 4))
    model = g.build(g.op("Flatten", g.op("GlobalAveragePool", y)))
    made = fold.apply(model, fold.Options(), Context()).model
    (found,) = explain(model, made, labelled(model)).layers
    assert found.sqnr_db > 100


def test_long_names_are_told_by_their_end():
    assert brief("a" * 60 + "conv_7") == "..." + "a" * 31 + "conv_7"


def test_layers_of_few_bits_are_told_and_get_more():
    model = network()
    data = labelled(model)
    made = quantized(model, data, equalize="never", weights=2, rounding="nearest").model
    found = explain(model, made, data)
    assert {la.layer: la.bits for la in found.layers} == {"first": 2, "second": 2, "third": 2}
    assert "weights = 4 for layer 'first'" in found.tries
    assert found.tries[-1].startswith("mixed(size=2bits")
    assert not any(t.startswith("skip") for t in found.tries)
    eight = explain(model, quantized(model, data, equalize="never").model, data)
    assert {la.bits for la in eight.layers} == {None}
