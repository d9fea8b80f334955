import numpy as np
import pytest

from edgelathe.compress.integer import int8_dynamic
from edgelathe.compress.types import Context
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from support.tiny_onnx import Graph, node_names, operators, optimized, outputs, samples, sqnr


def quantized(model, overrides=None, **options):
    return int8_dynamic.apply(model, int8_dynamic.Options(reduce=False, **options), Context(overrides=overrides or {}))


def close(model, result, decibel):
    data = samples(model)
    return all(sqnr(a, b) > decibel for a, b in zip(outputs(model, data), outputs(result.model, data), strict=True))


def mixed(opset):
    g = Graph()
    y = g.op("Relu", g.conv("x", 3, 16))
    y = g.op("Flatten", g.op("GlobalAveragePool", g.conv(y, 16, 32)))
    y = g.op(
        "Relu", g.op("Gemm", y, g.weights(64, 32), g.const(np.ones(64, np.float32)), transB=1, alpha=0.5, name="fc1")
    )
    return g.build(g.op("MatMul", y, g.weights(64, 40), name="fc2"), opset=opset, ir_version=6 if opset < 13 else 8)


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_products_are_integer_and_convolutions_cost_nothing_at_run_time(opset):
    model = mixed(opset)
    result = quantized(model)
    assert close(model, result, 25)
    ran = optimized(result.model)
    assert ran["DynamicQuantizeMatMul"] == 2
    assert ran["Conv"] == 2
    assert not set(ran) & {"Cast", "Mul", "DequantizeLinear", "MatMulInteger"}  # fused, or computed at load
    assert result.model.bytes < 0.45 * model.bytes
    assert node_names(model) <= node_names(result.model)
    assert result.model.signature == model.signature
    assert quantized(model).model.sha256 == result.model.sha256


def test_inputs_are_quantized_once_for_all_that_read_them():
    g = Graph()
    y = g.op("Flatten", "x")
    model = g.build([g.op("MatMul", y, g.weights(192, 32)) for _ in range(3)])
    result = quantized(model)
    assert operators(result.model).count("DynamicQuantizeLinear") == 1
    assert close(model, result, 30)


def test_small_and_skipped_layers_stay_and_say_why():
    g = Graph()
    y = g.op("Flatten", g.op("GlobalAveragePool", g.conv("x", 3, 32, name="big")))
    model = g.build(g.op("Gemm", y, g.weights(32, 2), g.const(np.zeros(2, np.float32)), name="small"))
    notes = {n.layer: (n.done, n.what) for n in quantized(model, {"big": {"skip": True}}).notes}
    assert notes["small"] == (False, "too small to pay")
    assert notes["big"] == (False, "skipped by the recipe")
    assert notes["model"][0] is False


def test_seven_bits_where_sums_saturate():
    def reduced(machine, *features):
        return int8_dynamic.resolve(int8_dynamic.Options(), Hardware(machine, frozenset(features))).reduce

    assert reduced("x86_64", "avx2")
    assert not reduced("x86_64", "vnni")
    assert not reduced("aarch64", "sdot")


def test_resnet8_is_a_quarter(data_dir):
    from edgelathe.model import io

    model = io.load(data_dir / "cifar10_resnet8" / "model.onnx")
    result = quantized(model)
    assert result.model.bytes < 0.28 * model.bytes
    x = np.load(data_dir / "cifar10_resnet8" / "calib.npz")["x"][:100].astype(np.float32)
    from edgelathe.core.dataset import Dataset

    data = Dataset("calib", {"input": x})
    changed = (outputs(model, data)[0].argmax(1) != outputs(result.model, data)[0].argmax(1)).sum()
    assert changed <= 4


def test_bad_models_are_refused_in_one_line_and_dead_channels_are_none():
    def dense(w):
        g = Graph()
        return g.build(g.op("MatMul", g.op("Flatten", "x"), g.const(w.astype(np.float32), "w"), name="fc"))

    w = np.random.default_rng(0).normal(size=(192, 32))
    w[:, :16] = 0
    w[:, 16] = 0.5
    assert close(dense(w), quantized(dense(w)), 30)
    np.testing.assert_array_equal(outputs(quantized(dense(w * 0)).model, samples(dense(w)))[0], 0)
    w[3, 3] = np.inf
    with pytest.raises(UserError, match="tiny: fc: 'w' holds NaN or infinite numbers"):
        quantized(dense(w))
    with pytest.raises(UserError, match="is quantized already"):
        quantized(quantized(mixed(13)).model)


def recurrent(kind, gates, directions=1):
    g = Graph()
    y = g.op("Transpose", g.op("Reshape", "x", g.const(np.array([0, 8, 24], np.int64))), perm=[1, 0, 2])
    w, r = g.weights(directions, gates * 32, 24), g.weights(directions, gates * 32, 32)
    b = g.const(g.rng.normal(size=(directions, 2 * gates * 32)).astype(np.float32) * 0.1)
    direction = "forward" if directions == 1 else "bidirectional"
    outs = g.op(kind, y, w, r, b, outputs=3 if kind == "LSTM" else 2, hidden_size=32, direction=direction, name="cell")
    last = g.op("Transpose", outs[1], perm=[1, 0, 2])
    return g.build(last)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("directions", [1, 2])
def test_an_lstm_multiplies_integers(directions, per_channel):
    model = recurrent("LSTM", 4, directions)
    result = quantized(model, per_channel=per_channel)
    ran = optimized(result.model)
    assert ran["DynamicQuantizeLSTM"] == 1
    assert not set(ran) & {"LSTM", "Cast"}
    assert close(model, result, 20)
    assert result.model.bytes < 0.35 * model.bytes
    assert node_names(model) <= node_names(result.model)
    with pytest.raises(UserError, match="is quantized already"):
        quantized(result.model)


@pytest.mark.parametrize(("kind", "gates"), [("GRU", 3), ("RNN", 1)])
def test_other_recurrent_layers_are_stored_as_int8_and_run_in_float(kind, gates):
    model = recurrent(kind, gates)
    result = quantized(model)
    assert optimized(result.model) == optimized(model)
    assert close(model, result, 25)
    assert result.model.bytes < 0.5 * model.bytes
    assert [n.done for n in result.notes if n.layer == "cell"] == [True]
