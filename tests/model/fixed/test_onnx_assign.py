"""Float models on grids of any bit widths."""

import numpy as np
import pytest

from edgelathe.compress.integer import int8_dynamic
from edgelathe.compress.types import Context
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.model import run
from edgelathe.model.fixed import onnx
from edgelathe.model.fixed.onnx_assign import affine, requantized
from edgelathe.model.fixed.simulate import simulate
from edgelathe.model.fixed.types import Bits, Grid
from support.onnx_quantized import MODELS, quantized
from support.tiny_onnx import Graph, samples


def simulated(model, bits, seed=3, **more):
    data = dict(samples(model, 16, seed=seed).inputs)
    return simulate(requantized(model, bits, data, **more), data)


def batch_normalized():
    g = Graph()
    a = g.op("Relu", g.bn(g.conv("x", 3, 8), 8), name="relu")
    b = g.op("Relu", g.bn(g.op("Conv", a, g.weights(8, 1, 3, 3), group=8, pads=[1] * 4, name="deep"), 8))
    return g.build(g.op("Flatten", g.op("GlobalAveragePool", g.conv(b, 8, 5, 1))))


@pytest.mark.parametrize("name", [*MODELS, "batch_normalized"])
def test_more_bits_are_nearer_and_sixteen_are_close(name):
    model = (MODELS | {"batch_normalized": batch_normalized})[name]()
    errors = [float(np.mean((s.real - s.exact) ** 2) / np.mean(s.exact**2)) for s in
              (simulated(model, Bits(b, b)) for b in (4, 8, 12, 16))]  # fmt: skip
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-7
    assert errors[0] > 1e-3


@pytest.mark.parametrize("name", [*MODELS, "batch_normalized"])
def test_the_float_side_is_the_float_model(name):
    model = (MODELS | {"batch_normalized": batch_normalized})[name]()
    data = dict(samples(model, 16, seed=3).inputs)
    found = simulate(requantized(model, Bits(4, 4), data), data)
    np.testing.assert_allclose(found.exact, run.outputs(model, data)[0], rtol=1e-4, atol=1e-5)


def test_weights_alone_and_activations_alone():
    model = MODELS["convolutions"]()
    both, weights, activations = (simulated(model, b) for b in (Bits(4, 4), Bits(4, None), Bits(None, 4)))
    assert {layer.bits for layer in weights.layers} == {None}
    assert {layer.bits for layer in activations.layers} == {4, None}
    noise = [np.mean((s.real - s.exact) ** 2) for s in (both, weights, activations)]
    assert min(noise) > 0
    assert len(set(noise)) == 3


def test_layers_have_the_models_names_and_the_head_stays_real():
    found = simulated(batch_normalized(), Bits(8, 8))
    names = [layer.name for layer in found.layers]
    assert names[0] == "x"
    assert "deep" in names
    assert not any("/" in n for n in names)
    assert found.layers[-1].bits is None
    assert {layer.bits for layer in found.layers[:3]} == {8}


def test_grids_of_the_caller_take_the_place_of_ranges():
    model = MODELS["sequence"]()
    data = dict(samples(model, 8).inputs)
    program = requantized(model, Bits(8, 8), data, grids={"x": Grid.of(100.0, 7, 8, signed=False)})
    heard = []
    program.run(data, heard.append)
    assert heard[0].layer == "x"
    assert heard[0].simulated.grid.scale == 100
    assert set(np.unique(heard[0].simulated.data)) == {7}


@pytest.mark.parametrize(("low", "high"), [(0, 0), (1, 3), (-3, -1), (-1e-40, 1e-40), (-2, 5)])
def test_ranges_hold_zero(low, high):
    grid = affine(low, high, 4)
    assert grid.low <= grid.zero_point <= grid.high
    assert np.isfinite(grid.scale)
    assert grid.dequantize(grid.quantize(np.zeros(1)))[0] == 0


@pytest.mark.parametrize(("bits", "text"), [(Bits(1, 8), "1 bits"), (Bits(8, 17), "17 bits")])
def test_bits_out_of_range_are_refused(bits, text):
    with pytest.raises(UserError, match=text):
        simulated(MODELS["sequence"](), bits)


@pytest.mark.parametrize("name", ["convolutions", "pools", "transformer"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_an_integer_model_takes_new_widths_from_its_own_grids(name, form):
    model = quantized(MODELS[name](), form)
    data = dict(samples(model, 8, seed=3).inputs)

    def error(bits):
        found = simulate(requantized(model, bits, {}), data)
        return float(np.mean((found.real - found.exact) ** 2) / np.mean(found.exact**2)), found

    errors = {b: error(Bits(b, b)) for b in (4, 8, 12)}
    assert errors[4][0] > errors[8][0] > errors[12][0] > 0
    assert {layer.bits for layer in errors[12][1].layers} <= {12, None}
    as_it_is = simulate(onnx.program(model), data)
    own = float(np.mean((as_it_is.real - as_it_is.exact) ** 2) / np.mean(as_it_is.exact**2))
    assert 0.3 * own < errors[8][0] < 3 * own
    _, only_weights = error(Bits(4, None))
    _, only_activations = error(Bits(None, 4))
    assert {layer.bits for layer in only_weights.layers} <= {8, None}
    assert {layer.bits for layer in only_activations.layers} <= {4, None}
    np.testing.assert_allclose(only_weights.exact, as_it_is.exact, rtol=1e-3, atol=1e-4)
    known = simulate(requantized(model, Bits(4, 4), {}, reference=MODELS[name]()), data)
    np.testing.assert_allclose(known.exact, run.outputs(MODELS[name](), data)[0], rtol=1e-4, atol=1e-5)


def test_grids_made_on_the_fly_and_infinite_activations_are_refused():
    options = int8_dynamic.resolve(int8_dynamic.Options(), Hardware(None, frozenset()))
    made = int8_dynamic.apply(MODELS["transformer"](), options, Context()).model
    with pytest.raises(UserError, match="not in the file"):
        simulated(made, Bits(4, 4))
    model = MODELS["sequence"]()
    bad = {"x": np.full((2, 3, 17), np.inf, np.float32)}
    with pytest.raises(UserError, match="not finite"):
        requantized(model, Bits(4, 4), bad)


def test_a_bias_too_large_for_its_scale_widens_the_weights():
    g = Graph()
    w = g.const(np.full((2, 3, 1, 1), 1e-12, np.float32))
    model = g.build(g.op("Conv", "x", w, g.const(np.array([5, -5], np.float32))))
    found = simulated(model, Bits(8, 8))
    np.testing.assert_allclose(found.real, found.exact, rtol=1e-3)
