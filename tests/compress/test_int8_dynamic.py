import numpy as np
import pytest

from edgelathe.compress import int8_dynamic
from edgelathe.compress.types import Context
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
