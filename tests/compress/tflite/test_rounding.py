from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgelathe.compress.tflite import statistics as tflite_statistics
from edgelathe.compress.tflite import steps as tflite
from edgelathe.compress.types import Context
from edgelathe.core.dataset import Dataset
from edgelathe.model import tflite as reader
from support.tiny_tflite import REFERENCE, Net, T, answers

RELU = schema.ActivationFunctionType.RELU


def const(name, *shape, scale=1.0, seed=0):
    values = np.random.default_rng(seed).normal(size=shape) * scale
    return T(name, dtype="float32", values=values.astype(np.float32))


@pytest.fixture(scope="module")
def residual():
    """conv, depthwise, conv, the first's output added, relu, mean, dense; inputs are correlated."""
    x, net = T("x", (1, 8, 8, 3), "float32"), Net()
    a, b, c, d = (T(n, (1, 8, 8, 8), "float32") for n in "abcd")
    plain = {"table": "Conv2DOptions", "padding": 0, "strideH": 1, "strideW": 1}
    net.op(
        "CONV_2D", [x, const("aw", 8, 3, 3, 3, scale=0.3), const("ab", 8)], [a], **plain, fusedActivationFunction=RELU
    )
    net.op(
        "DEPTHWISE_CONV_2D", [a, const("bw", 1, 3, 3, 8, scale=0.4, seed=1), const("bb", 8, seed=1)], [b],
        **{**plain, "table": "DepthwiseConv2DOptions"}, depthMultiplier=1, fusedActivationFunction=RELU,
    )  # fmt: skip
    net.op("CONV_2D", [b, const("cw", 8, 1, 1, 8, scale=0.4, seed=2), const("cb", 8, seed=2)], [c], **plain)
    net.op("ADD", [c, a], [d], table="AddOptions", fusedActivationFunction=RELU)
    e, y = T("e", (1, 8), "float32"), T("y", (1, 5), "float32")
    net.op("MEAN", [d, T("axes", dtype="int32", values=[1, 2])], [e], table="ReducerOptions", keepDims=False)
    net.op(
        "FULLY_CONNECTED", [e, const("yw", 5, 8, seed=3), const("yb", 5, seed=3)], [y], table="FullyConnectedOptions"
    )
    return net.build([x], [y])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(160, 8, 8, 3)) + 2 * rng.normal(size=(160, 1, 1, 3))
    return Dataset("calib", {"x": x.astype(np.float32)})


def part(data, start, stop):
    return Dataset(data.name, {k: v[start:stop] for k, v in data.inputs.items()})


def loss(model, made, x):
    want, have = (answers(m, {"x": x}, REFERENCE)[0] for m in (model, made))
    return float(np.square(want - have).mean())


def test_second_order_rounding_loses_less_on_other_samples(residual, data):
    context, x = Context(data=part(data, 0, 96)), data.inputs["x"][96:]
    errors = {
        how: loss(residual, tflite.int8(residual, tflite.Int8Options(weights=4, rounding=how), context).model, x)
        for how in ("nearest", "second-order")
    }
    assert errors["second-order"] < 0.6 * errors["nearest"]


def test_int4_is_rounded_by_second_order_where_there_are_samples(residual, data):
    x = data.inputs["x"][96:]
    blind = tflite.int4(residual, tflite.Int4Options(), Context())
    seeing = tflite.int4(residual, tflite.Int4Options(), Context(data=part(data, 0, 96)))
    assert loss(residual, seeing.model, x) < 0.6 * loss(residual, blind.model, x)
    assert any("second-order" in n.what for n in seeing.notes)
    assert not any("second-order" in n.what for n in blind.notes)


def test_corrected_biases_take_the_mean_error_out(residual, data):
    context, x = Context(data=part(data, 0, 96)), data.inputs["x"][96:]
    want = answers(residual, {"x": x}, REFERENCE)[0]
    means = {}
    for correct in (False, True):
        options = tflite.Int8Options(weights=4, rounding="nearest", correct=correct)
        have = answers(tflite.int8(residual, options, context).model, {"x": x}, REFERENCE)[0]
        means[correct] = float(np.square((have - want).mean(axis=0)).sum())
    assert means[True] < 0.2 * means[False]


def test_a_layer_may_keep_its_rounding(residual, data):
    context = Context(data=part(data, 0, 32), overrides={"c": {"rounding": "nearest"}})
    notes = {n.layer: n.what for n in tflite.int8(residual, tflite.Int8Options(weights=4), context).notes}
    assert "second-order" not in notes["c"]
    assert "second-order" in notes["a"]


def test_a_term_of_a_clamped_sum_counts_as_it_is_seen(residual, data):
    """What the sum's clamp cuts off is nowhere in the statistics of what is seen of the term."""
    graph = reader.parse(residual.data).main
    names = [graph.tensors[p.term].name for p in tflite_statistics.parts(graph)]
    assert names == ["c"]  # the other term is read elsewhere too
    found = tflite_statistics.collect(residual, part(data, 0, 8))
    seen = found[tflite_statistics.seen("c")]
    assert seen.low > found["c"].low
    assert seen.high == pytest.approx(found["c"].high, rel=1e-5)
