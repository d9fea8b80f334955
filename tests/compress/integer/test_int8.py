import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgelathe.calibrate.scales import RULES
from edgelathe.compress.graph import fold
from edgelathe.compress.integer import int8
from edgelathe.compress.types import Context
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import ARM, Graph, node_names, operators, optimized, outputs, samples, sqnr

ARM_CPU = Hardware("aarch64", frozenset({"sdot"}))
X86_VNNI = Hardware("x86_64", frozenset({"avx2", "avx512", "vnni"}))
X86_PLAIN = Hardware("x86_64", frozenset({"avx2"}))


def quantized(model, hardware=ARM_CPU, data=None, overrides=None, **options):
    chosen = int8.resolve(int8.Options(**options), hardware)
    context = Context(data=data or samples(model, 32), overrides=overrides or {})
    return int8.apply(fold.apply(model, fold.Options(), Context()).model, chosen, context)


def quality(model, result):
    data = samples(model, 32)
    return min(sqnr(a, b) for a, b in zip(outputs(model, data), outputs(result.model, data), strict=True))


def residual(opset=13):
    g = Graph()
    a = g.op("Relu", g.bn(g.conv("x", 3, 8), 8), name="stem")
    b = g.op("Relu", g.conv(a, 8, 8))
    c = g.op("Relu", g.op("Add", a, g.conv(b, 8, 8)))
    d = g.op("Concat", g.op("MaxPool", c, kernel_shape=[2, 2]), g.op("AveragePool", c, kernel_shape=[2, 2]), axis=1)
    y = g.op("Flatten", g.op("GlobalAveragePool", g.conv(d, 16, 8, 1)))
    y = g.op("Gemm", y, g.weights(8, 5), g.const(np.ones(5, np.float32)), name="head")
    return g.build(g.op("Softmax", y, axis=1), opset=opset, ir_version=6 if opset < 13 else 8)


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
@pytest.mark.parametrize("hardware", [ARM_CPU, X86_VNNI], ids=["arm", "vnni"])
def test_onnx_runtime_runs_integer_kernels_from_the_input_to_the_last_layer(opset, hardware):
    model = residual(opset)
    result = quantized(model, hardware)
    assert quality(model, result) > 25
    ran = optimized(result.model, ARM if hardware is ARM_CPU else {})
    assert ran["QLinearConv"] == 4
    assert (
        ran["QLinearAdd"] == ran["QLinearConcat"] == ran["QLinearAveragePool"] == ran["QLinearGlobalAveragePool"] == 1
    )
    assert ran["QGemm"] == ran["QuantizeLinear"] == 1
    assert not set(ran) & {
        "Conv",
        "Add",
        "Concat",
        "AveragePool",
        "GlobalAveragePool",
        "Gemm",
        "DequantizeLinear",
        "Relu",
    }


def test_the_head_answers_in_float_and_stays_a_classifier():
    g = Graph()
    y = g.op("GlobalAveragePool", g.op("Relu", g.conv("x", 3, 8)))
    model = g.build(g.op("Flatten", g.conv(y, 8, 5, 1)))
    ran = optimized(quantized(model).model, ARM)
    assert ran["QGemm"] == 1
    assert "DequantizeLinear" not in ran


def test_resolve_knows_which_products_are_exact():
    def chosen(hardware, **options):
        o = int8.resolve(int8.Options(**options), hardware)
        return o.signed, o.reduce, o.exact

    assert chosen(ARM_CPU) == (True, False, False)
    assert chosen(Hardware("armv7l", frozenset())) == (True, False, False)
    assert chosen(X86_VNNI) == (False, False, False)
    assert chosen(X86_PLAIN) == (False, "auto", False)
    assert chosen(X86_PLAIN, reduce=True) == (False, True, False)
    assert chosen(X86_PLAIN, reduce=False) == (False, False, True)
    assert chosen(X86_PLAIN, exact=True) == (False, False, True)
    assert chosen(Hardware(None, frozenset())) == (True, False, True)
    assert chosen(ARM_CPU, signed=False) == (False, False, False)


def test_reduced_weights_never_saturate_sixteen_bits():
    result = quantized(residual(), X86_PLAIN, reduce=True)
    weights = [onnx.numpy_helper.to_array(t) for t in onnx_model.to_proto(result.model).graph.initializer]
    largest = max(int(np.abs(w.astype(int)).max()) for w in weights if w.dtype == np.int8 and w.ndim > 1)
    assert largest == 64
    assert 255 * largest * 2 < 2**15
    assert result.config == {}


def test_exact_products_are_asked_for_where_the_machine_is_unknown():
    assert quantized(residual(), Hardware(None, frozenset())).config == {"session.x64quantprecision": "1"}


@pytest.mark.parametrize("rule", RULES)
def test_every_scale_rule_keeps_the_function(rule):
    model = residual()
    assert quality(model, quantized(model, scale=rule, percentile=99.9)) > 15


def test_bias_correction_removes_the_mean_error_of_rounded_weights():
    g = Graph()
    model = g.build(g.op("Relu", g.conv("x", 3, 16, 1)), shape=("n", 3, 8, 8))
    data = Dataset("c", {"x": np.random.default_rng(0).uniform(1, 2, (32, 3, 8, 8)).astype(np.float32)})
    reference = outputs(model, data)[0]

    def offset(correct):
        out = outputs(quantized(model, data=data, per_channel=False, correct=correct).model, data)[0]
        return np.abs((out - reference).mean(axis=(0, 2, 3))).max()

    assert offset(True) < 0.5 * offset(False)


def test_skip_and_layer_options_hold_for_the_layers_named():
    model = residual()
    result = quantized(model, overrides={"Conv_*": {"per_channel": False}, "head": {"skip": True}})
    notes = {n.layer: (n.done, n.what) for n in result.notes}
    assert notes["head"] == (False, "skipped by the recipe")
    assert notes["Conv_0"] == (True, "int8, one scale")
    assert "Gemm" in optimized(result.model, ARM)


def test_names_of_layers_inputs_and_outputs_stay():
    model = residual()
    result = quantized(model)
    kept = {n for n in node_names(model) if n.startswith(("Conv", "head", "Concat"))}
    assert kept <= node_names(result.model)
    assert result.model.signature == model.signature


def test_unbalanced_channels_are_equalized_first():
    g = Graph()
    factor = np.geomspace(1e-2, 1e2, 8).astype(np.float32)
    w1, w2 = (g.rng.normal(size=s).astype(np.float32) for s in ((8, 3, 1, 1), (4, 8, 1, 1)))
    y = g.op("Relu", g.op("Conv", "x", g.const(w1 * factor.reshape(8, 1, 1, 1)), g.const(factor * 0.1)))
    model = g.build(g.op("Conv", y, g.const(w2 / factor.reshape(1, 8, 1, 1)), g.const(np.zeros(4, np.float32))))
    assert quality(model, quantized(model)) > 30
    assert quality(model, quantized(model, equalize="never")) < 20


def test_layers_without_an_integer_form_are_named():
    g = Graph()
    a = g.op("Relu", g.conv("x", 3, 4))
    model = g.build(g.op("ConvTranspose", a, g.weights(4, 2, 2, 2), name="up"))
    notes = {n.layer: n.what for n in quantized(model).notes}
    assert notes["up"] == "ONNX Runtime has no integer kernel for it"
    g = Graph()
    nothing = quantized(g.build(g.op("Relu", "x")))
    assert nothing.notes[-1].what == "no layer that can be integer"
    assert operators(nothing.model) == ["Relu"]


def test_what_follows_the_last_layer_stays_float():
    g = Graph()
    y = g.conv("x", 3, 4)
    model = g.build(g.op("Mul", g.op("Sigmoid", y), g.const(np.float32(100))))
    assert optimized(quantized(model).model, ARM)["Sigmoid"] == 1


def test_dead_channels_zero_weights_and_huge_biases():
    g = Graph()
    w = np.zeros((4, 3, 1, 1), np.float32)
    w[0], w[1] = 1, 1e-12
    a = g.op("Conv", "x", g.const(w), g.const(np.array([0, 1e4, -3, 1e-9], np.float32)))
    b = g.op("Conv", a, g.const(np.zeros((4, 4, 1, 1), np.float32)), g.const(np.zeros(4, np.float32)))
    model = g.build(g.op("Add", g.conv(b, 4, 4), g.conv(a, 4, 4)))
    result = quantized(model)
    assert quality(model, result) > 30
    for t in onnx_model.to_proto(result.model).graph.initializer:
        assert np.isfinite(onnx.numpy_helper.to_array(t)).all()


def test_calibration_data_are_needed_and_have_to_be_finite():
    model = residual()
    with pytest.raises(UserError, match="needs calibration data"):
        int8.apply(model, int8.Options(), Context())
    bad = samples(model, 3)
    bad.inputs["x"][2] = np.nan
    with pytest.raises(UserError, match="tensor 'x' is not finite"):
        quantized(model, data=bad)


def test_weights_that_are_not_finite_stay_float_by_name():
    g = Graph()
    w = np.ones((4, 3, 1, 1), np.float32)
    w[0, 0] = np.inf
    model = g.build([g.conv("x", 3, 4), g.op("Conv", "x", g.const(w), name="broken")])
    assert {n.layer: n.what for n in quantized(model).notes}["broken"] == "its weights are not finite"


SCRIPT = """
import importlib.util, sys
sys.path.insert(0, sys.argv[1])
spec = importlib.util.spec_from_file_location("t", sys.argv[2])
t = importlib.util.module_from_spec(spec)
spec.loader.exec_module(t)
print(t.quantized(t.residual()).model.sha256)
"""


def test_equal_inputs_give_equal_bytes_in_every_process():
    here = quantized(residual()).model
    assert quantized(residual()).model.sha256 == here.sha256
    tests = str(Path(__file__).parents[2])
    out = subprocess.run([sys.executable, "-c", SCRIPT, tests, __file__], check=True, capture_output=True, text=True)
    assert out.stdout.split()[-1] == hashlib.sha256(here.data).hexdigest()


@pytest.fixture(scope="module")
def resnet8(data_dir):
    from edgelathe.model import io

    arrays = np.load(data_dir / "cifar10_resnet8" / "calib.npz")
    calib = Dataset("calib", {"input": arrays["x"][:256].astype(np.float32)})
    held_out = arrays["x"][256:556].astype(np.float32)
    return io.load(data_dir / "cifar10_resnet8" / "model.onnx"), calib, held_out


def test_resnet8_is_under_105_kb_and_answers_as_in_float(resnet8):
    model, calib, held_out = resnet8
    result = quantized(model, data=calib)
    assert result.model.bytes < 105_000
    data = Dataset("held out", {"input": held_out})
    changed = (outputs(model, data)[0].argmax(1) != outputs(result.model, data)[0].argmax(1)).sum()
    assert changed <= 12  # 4 %; min-max scales without correction change more
    ran = optimized(result.model, ARM)
    assert (ran["QLinearConv"], ran["QLinearAdd"], ran["QGemm"]) == (9, 3, 1)
    assert "DequantizeLinear" not in ran


def test_a_digits_network_of_34_thousand_parameters_is_a_third():
    g = Graph()
    y = g.op("Relu", g.conv("x", 1, 16))
    y = g.op("MaxPool", g.op("Relu", g.conv(y, 16, 32)), kernel_shape=[2, 2], strides=[2, 2])
    y = g.op("Relu", g.conv(y, 32, 64))
    y = g.op("Flatten", g.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]))
    model = g.build(g.op("Gemm", y, g.weights(256, 40), g.const(np.zeros(40, np.float32))), shape=("n", 1, 8, 8))
    assert quantized(model).model.bytes <= 0.33 * model.bytes


def test_values_that_no_sample_has_stay_float():
    g = Graph()
    x = g.op("Relu", g.conv("x", 3, 8))
    far = g.op("Greater", g.op("ReduceMax", x, axes=[1, 2, 3], keepdims=0), g.const(np.float32(1e6)))
    some = g.op("Reshape", g.op("NonZero", far), g.const(np.array([-1], np.int64)))
    rare = g.op("Relu", g.conv(g.op("Gather", x, some, axis=0), 8, 8, name="rare"))
    rare = g.op("ReduceSum", g.conv(rare, 8, 8, name="rarer"), g.const(np.array([0, 2, 3], np.int64)), keepdims=0)
    y = g.op("Flatten", g.op("GlobalAveragePool", g.conv(x, 8, 8, name="usual")))
    model = g.build(g.op("Add", g.op("Gemm", y, g.weights(8, 8), g.const(np.zeros(8, np.float32))), rare))
    notes = {n.layer: n for n in quantized(model).notes}
    assert notes["usual"].done
    assert not notes["rare"].done
    assert "holds no value on any sample" in notes["rare"].what
    assert not notes["rarer"].done


def test_constant_values_are_told():
    g = Graph()
    w = np.zeros((4, 3, 1, 1), np.float32)
    dead = g.op("Relu", g.op("Conv", "x", g.const(w), g.const(np.full(4, -1, np.float32))))
    model = g.build(g.conv(g.op("Concat", dead, g.op("Relu", g.conv("x", 3, 4)), axis=1), 8, 4))
    said = [n.what for n in quantized(model).notes if "on every sample" in n.what]
    assert said == ["is 0 on every sample: other values that occur elsewhere are clipped"]


def test_what_only_float_operators_read_is_not_rounded_first():
    g = Graph()
    w = g.const((g.rng.normal(size=(16, 16)) / 4).astype(np.float32))
    x = g.op("Add", g.op("MatMul", "x", w), g.const(g.rng.normal(size=16).astype(np.float32)))
    x = g.op("MatMul", g.op("Erf", g.op("Reshape", x, g.const(np.array([0, 4, 16], np.int64)))), w)
    model = g.build(x, shape=("n", 4, 16))
    result = quantized(model)
    ran = optimized(result.model, ARM)
    assert ran["MatMulIntegerToFloat"] == 2
    assert ran["QuantizeLinear"] == 2
    assert not ran["DequantizeLinear"]
    assert quality(model, result) > 30


def test_a_relu_that_lets_nothing_through_stays_one():
    g = Graph()
    dead = g.op("Relu", g.op("Conv", "x", g.weights(4, 3, 1, 1), g.const(np.full(4, -100, np.float32))))
    model = g.build(g.op("Add", g.conv(dead, 4, 4), g.conv("x", 3, 4)))
    assert quality(model, quantized(model)) > 25


def test_biases_of_channels_without_weights_are_exact():
    g = Graph()
    w = np.zeros((4, 3, 1, 1), np.float32)
    flat = g.op("Conv", "x", g.const(w), g.const(np.array([1.013, -0.512, 0.257, 0], np.float32)))
    model = g.build(g.conv(flat, 4, 4, 5))
    assert quality(model, quantized(model, per_channel=True)) > 35
    assert quality(model, quantized(model, per_channel=False)) > 30


def test_constants_of_several_sums_run_with_exact_products():
    g = Graph()
    b = g.const(np.linspace(-1, 1, 8).astype(np.float32))
    c = g.const(np.linspace(-1, 1, 8).astype(np.float32)[::-1].copy())
    w = [g.const(g.rng.normal(size=(8, 8)).astype(np.float32)) for _ in range(3)]
    x = g.op("Add", g.op("MatMul", "x", w[0]), b)
    x = g.op("Add", g.op("MatMul", x, w[1]), c)
    model = g.build(g.op("MatMul", x, w[2]), shape=("n", 4, 8))
    assert quality(model, quantized(model)) > 25  # ONNX Runtime refused such a model


def test_layer_normalization_and_gelu_of_older_opsets_are_fused_as_in_float():
    g = Graph()
    d = g.op("Sub", "x", g.op("ReduceMean", "x", axes=[-1]))
    v = g.op("ReduceMean", g.op("Pow", d, g.const(np.float32(2))), axes=[-1])
    n = g.op("Div", d, g.op("Sqrt", g.op("Add", v, g.const(np.float32(1e-5)))))
    n = g.op("Add", g.op("Mul", n, g.const(np.ones(16, np.float32))), g.const(np.zeros(16, np.float32)))
    w = [g.const((g.rng.normal(size=(16, 16)) / 4).astype(np.float32)) for _ in range(2)]
    y = g.op("Add", g.op("MatMul", n, w[0]), g.const(g.rng.normal(size=16).astype(np.float32)))
    e = g.op("Erf", g.op("Div", y, g.const(np.float32(np.sqrt(2)))))
    y = g.op("Mul", g.op("Mul", y, g.op("Add", e, g.const(np.float32(1)))), g.const(np.float32(0.5)))
    model = g.build(g.op("MatMul", y, w[1]), shape=("n", 4, 16))
    result = quantized(model)
    ran = optimized(result.model, ARM)
    assert ran["LayerNormalization"] == ran["BiasGelu"] == 1
    assert ran["MatMulIntegerToFloat"] == ran["QuantizeLinear"] == 2
    assert quality(model, result) > 30
