import numpy as np
import pytest

from edgelathe.calibrate.scales import store_weights, weight_scales
from edgelathe.compress.graph import fold
from edgelathe.compress.integer import int8
from edgelathe.compress.types import Context
from edgelathe.compress.weights.saturation import FULL, SAFE, pairs_up, widened
from edgelathe.core.profile import Hardware
from edgelathe.model import onnx as onnx_model
from edgelathe.model.fixed import onnx_narrow
from edgelathe.model.fixed.onnx_saturate import saturating
from support.tiny_onnx import Graph, outputs, samples, sqnr

X86_PLAIN = Hardware("x86_64", frozenset({"avx2"}))


def quantized(model, **options):
    chosen = int8.resolve(int8.Options(**options), X86_PLAIN)
    return int8.apply(fold.apply(model, fold.Options(), Context()).model, chosen, Context(data=samples(model, 16)))


def network():
    g = Graph()
    x = g.op("Relu", g.conv("x", 3, 16))
    x = g.op("Relu", g.conv(x, 16, 16, group=16, name="dw"))
    x = g.op("Flatten", g.op("GlobalAveragePool", g.op("Relu", g.conv(x, 16, 8, 1, name="point"))))
    return g.build(g.op("Gemm", x, g.weights(8, 5), g.const(np.ones(5, np.float32)), name="head"))


@pytest.mark.parametrize("axis", [0, None])
def test_a_channel_gives_up_what_its_worst_pair_asks_for_and_no_more(axis):
    w = np.random.default_rng(0).normal(size=(64, 8, 3, 3)).astype(np.float32)
    w[0] = 0
    w[1] = 0
    w[1, 0, 0, 0] = 3  # alone: nothing to add up
    w[2] = 2  # all the same: the worst case
    before = weight_scales(w, axis, FULL)
    scale = widened(w, before, 0, axis)
    q = store_weights(w, scale, axis, FULL).astype(int)
    rows = np.moveaxis(q, 1, -1).reshape(64, -1)
    assert onnx_narrow.reach(rows).max() <= 1
    largest = np.abs(rows).max(axis=1)
    if axis == 0:
        assert largest[2] == SAFE
        assert list(largest[:2]) == [0, FULL]
        assert np.median(largest[3:]) > 80  # of -64..64 little is asked for
    assert (scale <= before * np.float32(FULL / SAFE)).all()


def test_no_pair_saturates_and_less_is_lost_than_by_half_the_range_everywhere():
    model = network()
    auto, always, never = (quantized(model, reduce=r) for r in ("auto", True, False))
    assert max(n.reach for n in saturating(auto.model)) <= 1 < max(n.reach for n in saturating(never.model))
    data = samples(model, 32)
    reference = outputs(model, data)[0]
    quality = {k: sqnr(reference, outputs(r.model, data)[0]) for k, r in {"auto": auto, "always": always}.items()}
    assert quality["auto"] > quality["always"] + 0.3


def test_depthwise_layers_keep_all_of_their_range():
    result = quantized(network())
    largest = {
        t.name: int(np.abs(onnx_model_array(t)).max())
        for t in onnx_model.to_proto(result.model).graph.initializer
        if len(t.dims) == 4
    }
    assert max(largest.values()) == FULL
    notes = {n.layer: n.what for n in result.notes}
    assert "less range" not in notes["dw"]
    assert "of 8 outputs: two products would leave 16 bits" in notes["point"]


def onnx_model_array(tensor):
    import onnx

    return onnx.numpy_helper.to_array(tensor).astype(int)


def test_which_layers_add_products_in_pairs():
    model = onnx_model.to_ir(network())
    convs = {n.name: n for n in model.graph if n.op_type == "Conv"}
    assert not pairs_up(convs["dw"], np.zeros((16, 1, 3, 3)))
    assert pairs_up(convs["point"], np.zeros((8, 16, 1, 1)))
