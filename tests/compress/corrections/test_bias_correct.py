from dataclasses import replace

import numpy as np
import pytest

from edgelathe.compress.corrections import bias_correct, ends, held_out
from edgelathe.compress.graph import fold
from edgelathe.compress.graph.moves import array
from edgelathe.compress.half import fp16
from edgelathe.compress.integer import int8, int8_dynamic
from edgelathe.compress.types import Context
from edgelathe.compress.weight_only import codebook
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import ARM, Graph, operators, optimized, outputs, samples, sqnr

COARSE = int8.resolve(
    int8.Options(weights=3, depthwise=3, rounding="nearest", correct=False), Hardware("aarch64", frozenset({"sdot"}))
)


def network(bias=True, batch="n"):
    """Two convolutions, a sum, a depthwise one and a classifier; none but the first has a bias where `bias` is off."""
    g = Graph()
    x = g.op("Relu", g.conv("x", 3, 12))
    extra = [g.const(np.full(12, 0.1, np.float32))] if bias else []
    y = g.op("Relu", g.op("Conv", x, g.weights(12, 12, 3, 3), *extra, pads=[1] * 4, name="middle"))
    y = g.op("Relu", g.op("Add", g.op("Conv", y, g.weights(12, 1, 3, 3), *extra, pads=[1] * 4, group=12), x))
    y = g.op("Reshape", g.op("GlobalAveragePool", y), g.const(np.array([0, -1], np.int64)))
    last = [g.const(np.zeros(10, np.float32))] if bias else []
    return g.build(g.op("Gemm", y, g.weights(12, 10), *last), shape=(batch, 3, 8, 8))


def context(model, n=64, **more):
    data = samples(model, n)
    return Context(
        data=Dataset("calib", {k: v + np.float32(0.5) for k, v in data.inputs.items()}), reference=model, **more
    )


def coarse(model, step=int8.apply, options=COARSE, **more):
    """(compressed, what the next step is told)."""
    folded = fold.apply(model, fold.Options(), Context()).model
    told = context(model, **more)
    done = step(folded, options, told)
    return done.model, replace(told, twin=done.twin or folded)


def quality(model, other):
    unseen = Dataset("unseen", {k: v + np.float32(0.5) for k, v in samples(model, 48, seed=9).inputs.items()})
    return sqnr(outputs(model, unseen)[0], outputs(other, unseen)[0])


@pytest.mark.parametrize("bias", [True, False])
def test_the_corrected_model_is_nearer_to_float_and_runs_in_the_same_kernels(bias):
    model = network(bias)
    before, told = coarse(model)
    result = bias_correct.apply(before, bias_correct.Options(), told)
    assert quality(model, result.model) > quality(model, before) + 1
    assert optimized(result.model, ARM) == optimized(before, ARM)
    assert optimized(result.model, ARM)["QLinearConv"] == 3
    assert optimized(result.model, ARM)["QGemm"] == 1
    assert {n.layer for n in result.notes if n.done} >= {"middle", "model"}


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (codebook.apply, codebook.Options(entries=4, per="tensor", by="frequency")),
        (int8_dynamic.apply, int8_dynamic.Options(reduce=True, per_channel=False)),
        (fp16.apply, fp16.Options("float")),
    ],
)
def test_biases_of_every_form_can_be_corrected(step, options):
    model = network()
    before, told = coarse(model, step, options)
    result = bias_correct.apply(before, bias_correct.Options(), told)
    assert quality(model, result.model) >= quality(model, before) - 0.1
    assert any(n.done for n in result.notes) == (result.model.sha256 != before.sha256)
    assert set(operators(result.model)) <= set(operators(before))


def test_nothing_is_changed_where_nothing_is_wrong():
    model = fold.apply(network(), fold.Options(), Context()).model
    result = bias_correct.apply(model, bias_correct.Options(), context(model, twin=model))
    assert result.model is model
    assert result.notes[-1].what == "no bias gains"


def test_what_does_not_hold_on_the_samples_held_out_is_not_taken_over(monkeypatch):
    model = network()
    before, told = coarse(model)
    x = told.data.inputs["x"]
    strange = np.concatenate([x[:48], np.float32(0.01) * x[48:]])  # those held out are nothing like the others
    monkeypatch.setattr(held_out, "folds", lambda data, step: np.where(np.arange(64) < 48, np.arange(64) % 3, 3))
    result = bias_correct.apply(before, bias_correct.Options(), replace(told, data=Dataset("calib", {"x": strange})))
    assert result.model is before
    assert not any(n.done for n in result.notes)
    assert result.notes[-1].what.startswith("biases left as they were, answers on 16 samples held out: ")


def test_layers_that_the_recipe_skips_keep_their_bias():
    model = network()
    before, told = coarse(model)
    result = bias_correct.apply(before, bias_correct.Options(), replace(told, overrides={"*": {"skip": True}}))
    assert result.model is before
    assert {n.what for n in result.notes[:-1]} == {"skipped by the recipe"}


def test_a_fixed_batch_and_equal_runs():
    model = network(batch=4)
    before, told = coarse(model)
    first, again = (bias_correct.apply(before, bias_correct.Options(), told).model for _ in range(2))
    assert first.sha256 == again.sha256 != before.sha256
    assert quality(model, first) > quality(model, before)


def normalized(*, dense=False):
    """A model whose BatchNormalization knows what its samples make, as training leaves it."""

    def build(mean, var, *, whole):
        g = Graph(5)
        y = g.op("Conv", "x", g.weights(16, 3, 3, 3), pads=[1] * 4)
        given = (
            g.const(g.rng.uniform(0.5, 1.5, 16).astype(np.float32)),
            g.const(g.rng.normal(size=16).astype(np.float32)),
        )
        z = g.op("BatchNormalization", y, *given, g.const(mean), g.const(var))
        z = g.op("Relu", z)
        if dense:
            w = g.rng.normal(size=(16, 10)).astype(np.float32)
            w *= np.geomspace(0.2, 5, 16).astype(np.float32)[:, None]
            z = g.op("Reshape", g.op("GlobalAveragePool", z), g.const(np.array([0, -1], np.int64)))
            z = g.op("Gemm", z, g.const(w), g.const(g.rng.normal(size=10).astype(np.float32)), name="dense")
        else:
            z = g.op("Conv", z, g.weights(16, 16, 3, 3), pads=[1] * 4, name="second")
        return g.build(z if whole else y)

    plain = build(np.zeros(16, np.float32), np.ones(16, np.float32), whole=False)
    y = outputs(plain, context(plain).data)[0]
    return build(y.mean(axis=(0, 2, 3)), y.var(axis=(0, 2, 3)), whole=True)


def test_statistics_of_batch_normalization_foretell_the_errors():
    model = normalized()
    before, told = coarse(model)
    result = bias_correct.apply(before, bias_correct.Options("analytic"), told)
    notes = {n.layer: n for n in result.notes}
    assert notes["Conv_0"].what == "no BatchNormalization tells the mean of its input"
    assert notes["second"].done
    assert quality(model, result.model) > quality(model, before)


def test_statistics_hold_for_channels_that_int8_has_rescaled():
    model = normalized(dense=True)
    before, told = coarse(model, options=replace(COARSE, equalize="auto"))
    graphs = (onnx_model.to_ir(m).graph for m in (model, told.twin))
    plain, rescaled = (array(n.inputs[1]) for graph in graphs for n in graph if n.op_type == "Gemm")
    assert not np.allclose(plain, rescaled)
    result = bias_correct.apply(before, bias_correct.Options("analytic"), told)
    assert {n.layer: n.done for n in result.notes}["dense"]
    assert quality(model, result.model) > quality(model, before)


def test_without_batch_normalization_the_analytic_form_is_refused():
    before, told = coarse(network())
    with pytest.raises(UserError, match=r"tiny: bias-correct: mode: no BatchNormalization .* use mode=empirical"):
        bias_correct.apply(before, bias_correct.Options("analytic"), told)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"data": None}, "needs calibration data"), ({"twin": None}, "no step before it has quantized the model")],
)
def test_what_is_missing_is_said(change, says):
    before, told = coarse(network())
    with pytest.raises(UserError, match=says):
        bias_correct.apply(before, bias_correct.Options(), replace(told, **change))


def test_ends_are_compared_before_softmax_and_without_what_it_ignores():
    g = Graph()
    y = g.op("Gemm", "x", g.weights(4, 3), g.const(np.zeros(3, np.float32)))
    model = onnx_model.to_ir(g.build([y, g.op("Softmax", y)], shape=("n", 4)))
    (end,) = ends.matching(model.graph, model.graph)
    assert end.mine.producer().op_type == "Gemm"
    h = Graph()
    only = onnx_model.to_ir(h.build(h.op("Softmax", h.op("Gemm", "x", h.weights(4, 3))), shape=("n", 4)))
    (end,) = ends.matching(only.graph, only.graph)
    assert end.closing == "Softmax"
    assert ends.seen(end, np.array([[1.0, 2, 3]])) == pytest.approx(ends.seen(end, np.array([[5.0, 6, 7]])))
