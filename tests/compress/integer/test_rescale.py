import numpy as np
import pytest

from edgelathe.compress.graph.fold import infer_shapes
from edgelathe.compress.graph.moves import Names
from edgelathe.compress.integer import int8, rescale, tied
from edgelathe.compress.integer.rescale import Term, least
from edgelathe.compress.types import Context
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph, outputs, samples, sqnr


def unequal(g, inputs, channels):
    """A convolution whose channels differ by up to 25 times."""
    spread = np.geomspace(0.2, 5, channels).astype(np.float32)
    w = g.rng.normal(size=(channels, inputs, 3, 3)).astype(np.float32) * spread.reshape(-1, 1, 1, 1)
    return g.op("Conv", "x", g.const(w), g.const(spread * 0.1), pads=[1] * 4)


def residual(g):
    """A sum of two convolutions whose 16 channels differ; another convolution and a pooled dense layer read it."""
    first = unequal(g, 3, 16)
    second = g.conv(g.op("Relu", g.conv("x", 3, 8)), 8, 16)
    y = g.op("Relu", g.op("Add", first, second))
    z = g.op("Relu", g.conv(g.op("Relu", g.conv(y, 16, 16, group=16)), 16, 24, 1))
    pooled = g.op("Reshape", g.op("GlobalAveragePool", z), g.const(np.array([-1, 24])))
    return g.op("Gemm", pooled, g.weights(24, 5), g.const(np.zeros(5, np.float32)))


def rescaled(model, allowed=lambda _: True, bits=8):
    work = onnx_model.to_ir(model)
    infer_shapes(work)
    data = samples(model)
    notes = rescale.rescale(work, "m", Names(work.graph), data, allowed, lambda _: bits)
    return onnx_model.from_ir(work, "m"), notes


def test_the_function_stays_where_sums_depthwise_layers_and_pools_tie_channels():
    g = Graph()
    model = g.build(residual(g))
    other, notes = rescaled(model)
    assert len(notes) == 4  # before the sum, the sum, behind the depthwise layer, and before the dense one
    data = samples(model, seed=5)
    assert sqnr(outputs(model, data)[0], outputs(other, data)[0]) > 100
    assert other.data != model.data


def test_int8_is_nearer_to_the_float_model():
    gained = []
    for seed in range(3):
        g = Graph(seed)
        y = g.op("Relu", unequal(g, 3, 16))
        y = g.op("Relu", g.conv(y, 16, 16, group=16))
        model = g.build(g.conv(y, 16, 8, 1))
        data, error = samples(model, 16), {}
        for mode in ("noise", "never"):
            made = int8.apply(model, int8.Options(equalize=mode, scale="minmax"), Context(data=data, seed=0))
            error[mode] = sqnr(outputs(model, data)[0], outputs(made.model, data)[0])
            assert any("channels rescaled" in n.what for n in made.notes) == (mode == "noise")
        gained.append(error["noise"] - error["never"])
    assert min(gained) > 0.5


def test_few_bits_of_a_dense_layer_are_rescaled_for_without_being_asked():
    g = Graph()
    model = g.build(residual(g))
    context = Context(data=samples(model, 16), seed=0)
    for bits, times in ((8, 0), (4, 1)):
        notes = int8.apply(model, int8.Options(weights=bits, rounding="nearest"), context).notes
        assert sum("channels rescaled" in n.what for n in notes) == times


def test_which_readers_are_dense():
    g = Graph()
    y = g.op("Relu", g.conv("x", 3, 8))
    pooled = g.op("Relu", g.conv(g.op("GlobalAveragePool", y), 8, 6, 1))
    model = onnx_model.to_ir(g.build(g.conv(pooled, 6, 4, 1)))
    infer_shapes(model)
    assert [t.is_dense for t in tied.find(model.graph, lambda _: True)] == [True, True]
    h = Graph()
    model = onnx_model.to_ir(h.build(h.conv(h.op("Relu", h.conv("x", 3, 8)), 8, 4, 1)))
    infer_shapes(model)
    assert [t.is_dense for t in tied.find(model.graph, lambda _: True)] == [False]


def test_by_hand_one_layer_reads_one_value():
    # Two channels of ranges 1 and 4, read with equal weights; the weights' own noise does not count.
    value = Term(np.ones(1), np.array([[1.0, 4.0]]), np.ones(2), True)
    factors, gained = least([value], 2)
    ratio = np.linspace(1, 5, 4001)  # of the factors; both channels would fill the range at 4
    size = (1 + (4 / ratio) ** 8) ** 0.25 * (1 + ratio**2)
    assert factors[1] / factors[0] == pytest.approx(ratio[np.argmin(size)], rel=0.01)
    assert gained == pytest.approx(np.log(size[0] / size.min()), abs=1e-3)
    assert np.prod(factors) == pytest.approx(1)


@pytest.mark.parametrize("small", [1, 2, 31])
def test_factors_stay_within_8_times(small):
    reach = np.where(np.arange(32) < small, 1.0, 1e6)
    factors, gained = least([Term(np.ones(1), reach[None], np.ones(32), True)], 32)
    assert 1 / 8.001 < factors.min() < factors.max() < 8.001
    assert factors.max() / factors.min() > 8  # which is for each, not for their ratio
    assert gained > 0


def test_what_is_not_homogeneous_or_leaves_the_model_is_left_alone():
    for build in (
        lambda g: g.conv(g.op("Sigmoid", g.conv("x", 3, 8)), 8, 4),
        lambda g: g.conv(g.op("Clip", g.conv("x", 3, 8), g.const(np.float32(0)), g.const(np.float32(6))), 8, 4),
        lambda g: g.conv(g.op("Add", g.conv("x", 3, 8), g.const(np.ones((1, 8, 1, 1), np.float32))), 8, 4),
        lambda g: [y := g.conv("x", 3, 8), g.conv(y, 8, 4)],
        lambda g: g.op("Flatten", g.conv("x", 3, 8)),
    ):
        g = Graph()
        work = onnx_model.to_ir(g.build(build(g)))
        infer_shapes(work)
        assert not tied.find(work.graph, lambda _: True)


def test_a_skipped_layer_keeps_its_weights():
    g = Graph()
    model = g.build(residual(g))
    other, notes = rescaled(model, allowed=lambda n: n.op_type != "Add")
    assert len(notes) == 3  # not around the sum
    assert sqnr(outputs(model, samples(model))[0], outputs(other, samples(model))[0]) > 100


def test_gain_through_weights_relu_and_pool():
    g = Graph()
    first = g.op("Conv", "x", g.const(np.ones((2, 3, 1, 1), np.float32)))
    w = np.array([[3.0, 1.0]], np.float32).reshape(1, 2, 1, 1)
    y = g.op("GlobalAveragePool", g.op("Conv", g.op("Relu", first), g.const(w)))
    work = onnx_model.to_ir(g.build(y, shape=("n", 3, 4, 4)))
    infer_shapes(work)
    gain = {str(v.name): found for v, found in tied.gains(work.graph).items()}
    assert gain[first] == pytest.approx(np.array([9, 1]) / 16 / 2)
