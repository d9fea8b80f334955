import numpy as np
import pytest

from edgelathe.compress.graph import fold
from edgelathe.compress.integer import int8
from edgelathe.compress.types import Context
from edgelathe.core.dataset import Dataset
from edgelathe.core.profile import Hardware
from edgelathe.core.recipe import parse
from edgelathe.recipes.resolve import resolve
from edgelathe.recipes.run import run
from support.tiny_onnx import ARM, Graph, optimized, outputs, samples, sqnr


def quantized(model, data=None, overrides=None, **options):
    chosen = int8.resolve(int8.Options(**options), Hardware("aarch64", frozenset({"sdot"})))
    context = Context(data=data or samples(model, 32), overrides=overrides or {})
    return int8.apply(fold.apply(model, fold.Options(), Context()).model, chosen, context)


def network(batch="n"):
    g = Graph()
    x = g.op("Relu", g.conv("x", 3, 24))
    y = g.op("Clip", g.conv(x, 24, 24, group=24, name="dw"), g.const(np.float32(0)), g.const(np.float32(6)))
    x = g.op("Relu", g.op("Add", g.conv(y, 24, 24, 1), x))
    y = g.op("Reshape", g.op("GlobalAveragePool", x), g.const(np.array([0, -1], np.int64)))
    return g.build(g.op("Gemm", y, g.weights(24, 10), g.const(np.ones(10, np.float32))), shape=(batch, 3, 8, 8))


def quality(model, result):
    unseen = samples(model, 32, seed=9)
    return sqnr(outputs(model, unseen)[0], outputs(result.model, unseen)[0])


@pytest.mark.parametrize("bits", [4, 3])
def test_few_bits_by_second_order_are_nearer_to_float_than_nearest(bits):
    model = network()
    learned, nearest = (quantized(model, weights=bits, rounding=r) for r in ("auto", "nearest"))
    assert quality(model, learned) > quality(model, nearest) + 3


def test_narrow_weights_run_in_integer_kernels_and_take_their_bits():
    model = network()
    four, eight = quantized(model, weights=4), quantized(model)
    assert optimized(four.model, ARM) == optimized(eight.model, ARM)
    assert optimized(four.model, ARM)["QLinearConv"] == 3
    notes = {n.layer: n.what for n in four.notes}
    assert notes["dw"].startswith("int8,")
    assert notes["model"] == "4.51 bits a weight on average"
    assert {n.layer: n.what for n in quantized(model, weights=4, depthwise=4).notes}["dw"].startswith("int4,")


def test_layers_may_have_bits_of_their_own():
    result = quantized(network(), weights=4, overrides={"Gemm_*": {"weights": 8}})
    notes = {n.layer: n.what for n in result.notes}
    assert next(v for k, v in notes.items() if k.startswith("Gemm")).startswith("int8, a scale per channel")
    assert "second-order" in notes["dw"]


@pytest.mark.parametrize("samples_", [1, 5])
def test_few_samples_and_a_fixed_batch_make_no_nonsense(samples_):
    for batch in ("n", 1, 4):
        model = network(batch)
        data = Dataset("few", {"x": samples(model, samples_).inputs["x"]})
        if batch == 4:
            data = Dataset("few", {"x": np.resize(data.inputs["x"], (8, 3, 8, 8))})
        result = quantized(model, data=data, weights=4)
        out = outputs(result.model, Dataset("t", {"x": np.resize(data.inputs["x"], (8, 3, 8, 8))}))[0]
        assert np.isfinite(out).all()
        assert out.std() > 0


def test_a_network_of_products_with_open_lengths():
    g = Graph()
    q, k = (g.op("MatMul", "x", g.weights(16, 16)) for _ in range(2))
    scores = g.op("Softmax", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    y = g.op("Add", g.op("MatMul", scores, g.op("MatMul", "x", g.weights(16, 16))), "x")
    y = g.op("MatMul", g.op("Relu", g.op("MatMul", y, g.weights(16, 32))), g.weights(32, 16))
    model = g.build(y, shape=("n", 12, 16))
    assert quality(model, quantized(model, weights=4)) > quality(model, quantized(model, weights=4, rounding="nearest"))


def test_shared_weights_dead_channels_and_no_weights_at_all():
    g = Graph()
    w, b = g.weights(8, 8, 3, 3), g.const(np.zeros(8, np.float32))
    first = g.const(np.concatenate([np.zeros((2, 3, 1, 1)), np.ones((6, 3, 1, 1))]).astype(np.float32))
    x = g.op("Relu", g.op("Conv", "x", first, g.const(np.full(8, -0.1, np.float32))))
    y = g.op("Relu", g.op("Conv", g.op("Relu", g.op("Conv", x, w, b, pads=[1] * 4)), w, b, pads=[1] * 4))
    y = g.op(
        "Conv",
        g.op("Conv", y, g.const(np.zeros((4, 8, 1, 1), np.float32)), g.const(np.ones(4, np.float32))),
        g.weights(2, 4, 1, 1),
    )
    model = g.build([y, g.op("Conv", x, g.weights(3, 8, 1, 1))])
    result = quantized(model, weights=4)
    assert all(np.isfinite(o).all() for o in outputs(result.model, samples(model, 4)))


def test_equal_inputs_give_equal_bytes():
    model = network()
    assert quantized(model, weights=4).model.sha256 == quantized(model, weights=4).model.sha256


def test_layers_that_read_constants_or_nothing_at_all_keep_their_weights():
    g = Graph()
    x = g.op("Relu", g.conv("x", 3, 8))
    flat = g.op("Conv", x, g.const(np.zeros((8, 8, 1, 1), np.float32)), g.const(np.linspace(1, 3, 8, dtype=np.float32)))
    far = g.op("Greater", g.op("ReduceMax", x, axes=[1, 2, 3], keepdims=0), g.const(np.float32(1e6)))
    none = g.op("Gather", x, g.op("Reshape", g.op("NonZero", far), g.const(np.array([-1], np.int64))), axis=0)
    rare = g.op("ReduceSum", g.conv(none, 8, 4, name="rare"), g.const(np.array([0, 2, 3], np.int64)), keepdims=0)
    mean = g.op("Reshape", g.op("GlobalAveragePool", flat), g.const(np.array([0, -1], np.int64)))
    y = g.op("Gemm", mean, g.weights(8, 4), g.const(np.ones(4, np.float32)), name="constant")
    y = g.op("Add", g.op("Add", y, g.op("ReduceMean", g.conv(x, 8, 4), axes=[2, 3], keepdims=0)), rare)
    model = g.build(y)
    assert quality(model, quantized(model, weights=4)) > 20
    for text in ("codebook", "int4"):
        made = run(resolve(parse(text), "onnx", Hardware(None, frozenset()), text), model, samples(model, 8), text)
        unseen = samples(model, 8, seed=9)
        assert sqnr(outputs(model, unseen)[0], outputs(made.model, unseen)[0]) > 10
