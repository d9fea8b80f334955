import numpy as np
import pytest

from edgelathe.compress.graph import fold
from edgelathe.compress.integer import int8, placement
from edgelathe.compress.types import Context
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import ARM, Graph, optimized, outputs, samples, sqnr

ARM_CPU = Hardware("aarch64", frozenset({"sdot"}))


def quantized(model, hardware=ARM_CPU, **options):
    chosen = int8.resolve(int8.Options(**options), hardware)
    return int8.apply(fold.apply(model, fold.Options(), Context()).model, chosen, Context(data=samples(model, 16)))


def silu(g, x):
    return g.op("Mul", x, g.op("Sigmoid", x))


@pytest.fixture(scope="module")
def model():
    g = Graph()
    a = silu(g, g.conv("x", 3, 8, name="stem"))
    b = g.op("Add", g.conv(a, 8, 8, name="b"), a, name="sum1")
    c = g.op("Add", g.conv(silu(g, g.conv(b, 8, 8, name="c")), 8, 8, name="d"), b, name="sum2")
    y = g.op("Flatten", g.op("GlobalAveragePool", g.conv(c, 8, 8, name="e")))
    return g.build(g.op("Gemm", y, g.weights(8, 5), g.const(np.ones(5, np.float32)), name="head"))


def test_patterns_find_their_nodes(model):
    graph = onnx_model.to_ir(model).graph

    def names(pattern):
        return [n.name for n in placement.PATTERNS[pattern](graph)]

    assert names("first") == ["stem"]
    assert names("last") == ["head"]
    assert names("add") == ["sum1", "sum2"]
    assert [n.split("_")[0] for n in names("gate")] == ["Sigmoid", "Mul"] * 2


@pytest.mark.parametrize(
    ("text", "float_", "gone"),
    [
        ("first", {"Conv": 1}, {"QLinearConv": 1}),
        ("last", {"Gemm": 1}, {"QGemm": 1}),
        ("add", {"Add": 2}, {"QLinearAdd": 2}),
        ("gate", {"Sigmoid": 2}, {"QLinearSigmoid": 2, "QLinearMul": 2}),
    ],
)
def test_a_pattern_in_float_runs_so_and_loses_no_more(model, text, float_, gone):
    plain, placed = quantized(model), quantized(model, in_float=text)
    before, after = optimized(plain.model, ARM), optimized(placed.model, ARM)
    assert {k: before[k] - after[k] for k in gone} == gone
    assert {k: after[k] for k in float_} == float_ or (text == "gate" and after["QuickGelu"] == 2)
    data = samples(model, 32)
    reference = outputs(model, data)[0]
    quality = [sqnr(reference, outputs(r.model, data)[0]) for r in (plain, placed)]
    assert quality[1] > quality[0] - 0.5


def test_layers_say_why_they_stay_float(model):
    notes = {n.layer: (n.done, n.what) for n in quantized(model, in_float="last/first").notes}
    assert notes["stem"] == (False, "stays float by in_float=first")
    assert notes["head"] == (False, "stays float by in_float=last")
    assert notes["b"][0]


def test_names_are_put_in_order_and_mistakes_are_told():
    assert int8.resolve(int8.Options(in_float="add/first"), ARM_CPU).in_float == "first/add"
    assert int8.resolve(int8.Options(), ARM_CPU).in_float == "none"
    with pytest.raises(UserError, match="did you mean 'first'"):
        int8.resolve(int8.Options(in_float="frist"), ARM_CPU)
    with pytest.raises(UserError, match="only a device can tell"):
        int8.resolve(int8.Options(in_float="measured"), ARM_CPU)


def test_products_too_narrow_for_tensor_cores_stay_float():
    g = Graph()
    y = g.op("Flatten", g.op("GlobalAveragePool", g.conv("x", 3, 32)))
    y = g.op("Relu", g.op("Gemm", y, g.weights(32, 16), g.const(np.zeros(16, np.float32)), name="wide"))
    y = g.op("Gemm", y, g.weights(16, 15), g.const(np.zeros(15, np.float32)), name="narrow")
    model = g.build(y)
    on_cores = {n.layer: n for n in quantized(model, Hardware("aarch64", frozenset({"tensor-cores"}))).notes}
    assert on_cores["wide"].done
    assert not on_cores["narrow"].done
    assert "16 inputs and 15 outputs" in on_cores["narrow"].what
    assert all(n.done for n in quantized(model).notes if n.layer in ("wide", "narrow"))


def test_what_tensorrt_takes(model):
    import onnx

    result = quantized(model, Hardware("aarch64", frozenset({"tensor-cores"})))
    graph = onnx_model.to_proto(result.model).graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    zeros = [constants[n.input[2]] for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(zeros) > 10
    assert all(z.dtype == np.int8 and not z.any() for z in zeros)
    assert not any(a.dtype == np.int32 for a in constants.values())
    data = samples(model, 32)
    assert sqnr(outputs(model, data)[0], outputs(result.model, data)[0]) > 20


def test_a_relu_stays_where_no_grid_ends_at_zero():
    g = Graph()
    model = g.build(g.conv(g.op("Relu", g.conv("x", 3, 8)), 8, 8))
    result = quantized(model, symmetric=True)
    assert [n.op_type for n in onnx_model.to_proto(result.model).graph.node].count("Relu") == 1
    data = samples(model, 32)
    assert sqnr(outputs(model, data)[0], outputs(result.model, data)[0]) > 25
