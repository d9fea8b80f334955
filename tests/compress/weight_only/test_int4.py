import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgelathe.compress.graph import fold
from edgelathe.compress.integer import int8_dynamic
from edgelathe.compress.types import Context
from edgelathe.compress.weight_only import int4
from edgelathe.compress.weights import blockwise
from edgelathe.compress.weights.blockwise import Form
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.model import io
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph, node_names, operators, optimized, outputs, samples, sqnr


def quantized(model, data=None, overrides=None, **options):
    return int4.apply(model, int4.Options(**options), Context(data=data, overrides=overrides or {}))


def products(opset=13):
    """A Gemm and a MatMul whose inputs fill no block, with a bias and without."""
    g = Graph()
    x = g.op("Flatten", "x")
    b = g.const(g.rng.normal(size=40).astype(np.float32))
    y = g.op("Relu", g.op("Gemm", x, g.weights(40, 192), b, transB=1, alpha=0.5, beta=2.0, name="fc1"))
    return g.build(g.op("MatMul", y, g.weights(40, 72), name="fc2"), opset=opset, ir_version=6 if opset < 13 else 8)


def transformer(dim=64, words=6, opset=17):
    """One block of one head, and a classifier on the mean of the words."""
    g = Graph(3)

    def norm(x):
        # some channels stand out, as they do in language models
        scale = g.rng.uniform(0.2, 1.0, dim).astype(np.float32)
        scale[:3] = 6
        return g.op("LayerNormalization", x, g.const(scale), g.const(np.zeros(dim, np.float32)), axis=-1)

    def linear(x, inputs, outputs, name):
        y = g.op("MatMul", x, g.weights(inputs, outputs), name=name)
        return g.op("Add", y, g.const(g.rng.normal(size=outputs).astype(np.float32) * 0.1))

    h = norm("x")
    q, k, v = (linear(h, dim, dim, name) for name in "qkv")
    scores = g.op("Softmax", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    y = g.op("Add", "x", linear(g.op("MatMul", scores, v), dim, dim, "o"))
    up = linear(norm(y), dim, 2 * dim, "up")
    half = g.op("Mul", up, g.const(np.float32(0.5)))
    erf = g.op("Erf", g.op("Mul", up, g.const(np.float32(2**-0.5))))
    y = g.op("Add", y, linear(g.op("Mul", half, g.op("Add", erf, g.const(np.float32(1)))), 2 * dim, dim, "down"))
    pooled = g.op("ReduceMean", y, axes=[1], keepdims=0)
    head = g.op("Gemm", pooled, g.weights(dim, 10), g.const(np.zeros(10, np.float32)), name="head")
    return g.build(head, shape=("n", words, dim), opset=opset)


@pytest.fixture(scope="module")
def attention():
    model = transformer()
    return model, samples(model, 96, seed=5), samples(model, 64, seed=6)


@pytest.mark.parametrize("form", ["nbits", "qdq", "packed"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_each_form_computes_with_the_same_weights(form, symmetric):
    model = products()
    data = samples(model)
    result = quantized(model, form=form, symmetric=symmetric, scales="float32")
    onnx.checker.check_model(onnx_model.to_proto(result.model), full_check=True)
    want, have = outputs(model, data)[0], outputs(result.model, data)[0]
    assert sqnr(want, have) > 18
    assert result.model.signature == model.signature
    assert node_names(model) <= node_names(result.model)


@pytest.mark.parametrize("form", ["nbits", "qdq"])
@pytest.mark.parametrize("block", [16, 32, 64, 128])
@pytest.mark.parametrize("symmetric", [True, False])
def test_what_onnx_runtime_multiplies_by_are_the_weights_that_were_chosen(form, block, symmetric):
    g = Graph()
    model = g.build(g.op("MatMul", "x", g.weights(72, 24), name="fc"), shape=("n", 72))
    w = onnx.numpy_helper.to_array(onnx_model.to_proto(model).graph.initializer[0])
    kind = Form(4, block, symmetric, negative=form == "nbits", half=form == "nbits")
    want = blockwise.nearest(w.T.astype(np.float64), kind).real()
    made = quantized(model, block=block, symmetric=symmetric, form=form, rounding="nearest").model
    have = outputs(made, Dataset("unit", {"x": np.eye(72, dtype=np.float32)}))[0]
    np.testing.assert_allclose(have, want.T, atol=1e-6)


def theirs(model, block, symmetric):
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    made = MatMulNBitsQuantizer(onnx_model.to_proto(model), block_size=block, is_symmetric=symmetric)
    made.process()
    return onnx_model.from_proto(made.model.model, "theirs")


@pytest.mark.parametrize("symmetric", [True, False])
def test_smaller_and_closer_than_onnx_runtimes_quantizer_without_data(symmetric):
    g = Graph()
    model = g.build(g.op("MatMul", "x", g.weights(256, 64), name="fc"), shape=("n", 256))
    unit = Dataset("unit", {"x": np.eye(256, dtype=np.float32)})  # the answers are the weights
    want = outputs(model, unit)[0]
    ours, other = quantized(model, symmetric=symmetric, rounding="nearest").model, theirs(model, 32, symmetric)
    assert sqnr(want, outputs(ours, unit)[0]) > sqnr(want, outputs(other, unit)[0]) + 0.2
    assert ours.bytes < 0.93 * other.bytes


def test_second_order_is_closer_than_nearest_on_samples_not_seen(attention):
    model, calib, held = attention
    want = outputs(model, held)[0]
    learned, nearest = (quantized(model, data=calib, rounding=r) for r in ("auto", "nearest"))
    assert sqnr(want, outputs(learned.model, held)[0]) > sqnr(want, outputs(nearest.model, held)[0]) + 0.5
    assert quantized(model, data=calib).model.sha256 == learned.model.sha256
    with pytest.raises(UserError, match="needs calibration data"):
        quantized(model, rounding="second-order")


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_onnx_runtime_runs_products_in_4_bits(opset):
    ran = optimized(quantized(products(opset)).model)
    assert ran["MatMulNBits"] == 2
    assert not set(ran) & {"MatMul", "Gemm", "Cast"}  # scales are made float32 once, at load


def test_standard_int4_is_fused_and_unpacked_weights_are_folded():
    standard = quantized(products(), form="qdq", compute="int8")
    assert operators(standard.model).count("DequantizeLinear") == 2
    assert optimized(standard.model, standard.config)["MatMulNBits"] == 2
    assert "DequantizeLinear" not in optimized(standard.model, standard.config)
    ran = optimized(quantized(products(), form="packed").model)
    assert set(ran) == set(optimized(products()))


def test_integer_activations_are_asked_for_and_cost_accuracy(attention):
    model, _, held = attention
    exact, integer = (quantized(model, compute=c).model for c in ("float", "int8"))
    levels = [a.i for n in onnx_model.to_proto(integer).graph.node for a in n.attribute if a.name == "accuracy_level"]
    assert levels == [4] * 7
    want = outputs(exact, held)[0]
    assert 15 < sqnr(want, outputs(integer, held)[0]) <= 200


def convolutions():
    g = Graph()
    y = g.op("Relu", g.conv("x", 3, 32, name="stem"))
    y = g.op("Relu", g.conv(y, 32, 32, group=32, name="depthwise"))
    y = g.op("Relu", g.conv(y, 32, 64, k=1, pads=[0] * 4, name="wide"))
    y = g.op("Flatten", g.op("GlobalAveragePool", y))
    return g.build(g.op("Gemm", y, g.weights(64, 10), g.const(np.zeros(10, np.float32)), name="head"))


def test_convolutions_are_packed_and_depthwise_ones_keep_8_bits():
    model = convolutions()
    data = samples(model)
    result = quantized(model, data=data)
    notes = {n.layer: n.what for n in result.notes}
    assert notes["depthwise"].startswith("int8 in blocks of 9, made float at load")
    assert notes["wide"].startswith("int4 in blocks of 32, made float at load")
    ran = optimized(result.model)
    assert ran["Conv"] + ran["FusedConv"] == 3
    assert not set(ran) & {"Gather", "Cast", "BitShift", "Mul"}
    assert sqnr(outputs(model, data)[0], outputs(result.model, data)[0]) > 20
    wild = {n.layer: n.what for n in quantized(model, data=data, depthwise=4).notes}
    assert wild["depthwise"].startswith("int4 in blocks of 9")


def test_recurrent_layers_and_tables_shrink_too():
    g = Graph()
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 5])
    y = g.op("Gather", g.weights(50, 32), "ids", name="table")
    y = g.op("Transpose", y, perm=[1, 0, 2])
    w, r = g.weights(1, 4 * 24, 32), g.weights(1, 4 * 24, 24)
    y, _, _ = g.op("LSTM", y, w, r, outputs=3, hidden_size=24, name="lstm")
    model = g.build([y, g.op("Identity", "x")], inputs=[ids])
    result = quantized(model)
    assert {n.layer for n in result.notes if n.done} == {"table", "lstm"}
    rng = np.random.default_rng(0)
    fed = Dataset("d", {"x": np.zeros((4, 3, 8, 8), np.float32), "ids": rng.integers(0, 50, (4, 5))})
    assert sqnr(outputs(model, fed)[0], outputs(result.model, fed)[0]) > 15
    assert result.model.bytes < 0.3 * model.bytes


def test_weights_that_two_layers_read_are_stored_once():
    g = Graph()
    x, w = g.op("Flatten", "x"), g.weights(192, 64)
    y = [g.op("MatMul", x, w, name="a"), g.op("MatMul", g.op("Relu", x), w, name="b")]
    model = g.build(y)
    result = quantized(model)
    assert operators(result.model).count("MatMulNBits") == 2
    assert result.model.bytes < 0.2 * model.bytes
    data = samples(model)
    for a, b in zip(outputs(model, data), outputs(result.model, data), strict=True):
        assert sqnr(a, b) > 18


def test_layers_that_stay_say_why():
    g = Graph()
    x = g.op("Flatten", "x")
    big = g.op("MatMul", x, g.weights(192, 64), name="big")
    y = [g.op("MatMul", big, g.weights(64, 1), name="small"), g.op("MatMul", big, g.weights(64, 64), name="skipped")]
    result = quantized(g.build(y), overrides={"skipped": {"skip": True}, "big": {"block": 64}})
    notes = {n.layer: (n.done, n.what) for n in result.notes}
    assert notes["skipped"] == (False, "skipped by the recipe")
    assert notes["small"][0] is False
    assert notes["small"][1].startswith("stays float: 256 -> ")
    assert notes["big"][1].startswith("int4 in blocks of 64, MatMulNBits, error ")


def test_zero_and_constant_weights_stay_what_they_are():
    g = Graph()
    x = g.op("Flatten", "x")
    w = np.zeros((192, 64), np.float32)
    w[:, :32] = 0.5
    model = g.build(g.op("MatMul", x, g.const(w), name="fc"))
    for data in (None, samples(model)):
        have = outputs(quantized(model, data=data).model, samples(model))[0]
        assert not have[:, 32:].any()
        assert sqnr(outputs(model, samples(model))[0], have) > 40


def test_bad_models_are_refused_in_one_line():
    g = Graph()
    w = np.ones((192, 64), np.float32)
    w[3, 3] = np.nan
    with pytest.raises(UserError, match="tiny: fc: 'w' holds NaN or infinite numbers"):
        quantized(g.build(g.op("MatMul", g.op("Flatten", "x"), g.const(w, "w"), name="fc")))
    model = products()
    for made in (quantized(model).model, int8_dynamic.apply(model, int8_dynamic.Options(), Context()).model):
        with pytest.raises(UserError, match="is quantized already"):
            quantized(made)


def test_resnet8_takes_a_sixth(data_dir):
    model = io.load(data_dir / "cifar10_resnet8" / "model.onnx")
    model = fold.apply(model, fold.Options(), Context()).model
    x = np.load(data_dir / "cifar10_resnet8" / "calib.npz")["x"].astype(np.float32)
    name = model.signature.inputs[0].name
    result = quantized(model, data=Dataset("calib", {name: x[:32]}))
    assert result.model.bytes < 0.17 * model.bytes
    want, have = (outputs(m, Dataset("d", {name: x[32:132]}))[0].argmax(1) for m in (model, result.model))
    assert (want != have).sum() <= 10


def test_without_data_errors_cancel_where_inputs_have_one_sign():
    g = Graph()
    y = g.op("Relu", g.op("Flatten", "x"), name="relu")
    model = g.build(g.op("MatMul", y, g.weights(192, 64), name="fc"))
    data = Dataset("d", {"x": samples(model).inputs["x"] + 1})
    want = outputs(model, data)[0]
    plain, ours = (quantized(model, rounding=r).model for r in ("nearest", "auto"))
    assert sqnr(want, outputs(ours, data)[0]) > sqnr(want, outputs(plain, data)[0]) + 2
