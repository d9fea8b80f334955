"""What a layer is held to lose is what it loses as `int8` makes it: behind rescaled channels."""

import numpy as np
import pytest

from edgelathe.compress.forward import partial
from edgelathe.compress.graph import moves as g
from edgelathe.compress.integer import int8
from edgelathe.compress.mixed import alone, mixed
from edgelathe.compress.sensitivity import reference
from edgelathe.compress.types import Context
from edgelathe.core.profile import Hardware
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph, samples

ARM = Hardware("aarch64", frozenset({"sdot"}))


@pytest.fixture(scope="module")
def case():
    """Channels that differ 25 times are pooled and read by a dense layer."""
    graph = Graph()
    spread = np.geomspace(0.2, 5, 16).astype(np.float32)
    w = graph.rng.normal(size=(16, 3, 3, 3)).astype(np.float32) * spread.reshape(-1, 1, 1, 1)
    y = graph.op("Relu", graph.op("Conv", "x", graph.const(w), graph.const(spread * 0.1), pads=[1] * 4))
    y = graph.op("Flatten", graph.op("GlobalAveragePool", y))
    model = graph.build(graph.op("Gemm", y, graph.weights(16, 6), graph.weights(6), name="head"))
    return model, samples(model, 32)


def alone_at(case, bits, **options):
    """The constants of the dense layer, and what it loses."""
    model, data = case
    of = alone.subject(model, mixed.resolve(mixed.Options(size="1x", **options), ARM), Context(data=data))
    with partial.workers(1) as run_all:
        judge = of.run(data, run_all)
        made = alone.forms(of, {la.name: (bits,) for la in of.layers}, data, reference.input_means(judge, of.layers), 0)
        return made["head"][bits], alone.losses(judge, of.layers, made)["head"][bits]


def test_the_weights_are_those_that_int8_stores_with_the_factors_taken_out(case):
    model, data = case
    made, _ = alone_at(case, 3, rounding="nearest")
    options = int8.resolve(int8.Options(rounding="nearest"), ARM)
    applied = int8.apply(model, options, Context(data=data, overrides={"head": {"weights": 3}}))
    before, after = (
        next(g.array(n.inputs[1]) for n in onnx_model.to_ir(m).graph if g.layer(n) == "head")
        for m in (model, applied.twin)
    )
    before = before if before.shape == after.shape else before.T
    factors = (after / before).mean(axis=1)  # of each channel; rows of these weights, or their columns
    factors = factors[:, None] if len(factors) == 16 else (after / before).mean(axis=0)[None]
    assert factors.max() / factors.min() > 2
    weights = next(v for v in made.values() if v.ndim == 2)
    weights = weights if weights.shape == after.shape else weights.T
    axis = 0 if factors.shape[0] == 16 else 1
    scale = np.abs(after).max(axis=axis, keepdims=True) / 3
    assert np.abs(weights * factors - np.rint(after / scale) * scale).max() < 1e-4 * scale.max()


@pytest.mark.parametrize("rounding", ["nearest", "second-order"])
def test_few_bits_are_held_to_lose_less_where_int8_rescales_for_them(case, rounding):
    with_factors, without = (
        alone_at(case, 4, rounding=rounding, equalize=mode, levels="even")[1] for mode in ("auto", "never")
    )
    assert with_factors < 0.8 * without


def test_8_bits_are_rescaled_for_only_where_asked(case):
    auto, never, noise = (alone_at(case, 8, equalize=mode)[0] for mode in ("auto", "never", "noise"))
    assert all(np.array_equal(auto[k], never[k]) for k in auto)
    assert not all(np.array_equal(noise[k], never[k]) for k in noise)
