import numpy as np
import onnx
import pytest

from edgelathe.compress.half import bf16, fp16
from edgelathe.compress.types import Context
from edgelathe.core.errors import UserError
from edgelathe.model import io
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph, optimized, outputs, samples, sqnr


def converted(model, overrides=None):
    return bf16.apply(model, bf16.Options(), Context(overrides=overrides or {}))


def network(opset=13, scale=1.0):
    g = Graph()
    y = g.op("Relu", g.conv("x", 3, 16))
    y = g.op("Flatten", g.op("GlobalAveragePool", g.conv(y, 16, 32, name="c2")))
    w = g.const((g.rng.normal(size=(32, 40)) * scale).astype(np.float32), "w")
    return g.build(g.op("MatMul", y, w, name="fc"), opset=opset, ir_version=6 if opset < 13 else 8)


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_half_the_bytes_and_the_same_graph_at_run_time(opset):
    model = network(opset)
    result = converted(model)
    onnx.checker.check_model(onnx_model.to_proto(result.model), full_check=True)
    assert optimized(result.model) == optimized(model)  # the Casts are computed at load
    data = samples(model)
    assert sqnr(outputs(model, data)[0], outputs(result.model, data)[0]) > 40
    assert result.model.bytes < 0.62 * model.bytes
    assert result.model.signature == model.signature
    assert converted(model).model.sha256 == result.model.sha256


def test_weights_that_float16_cannot_hold_keep_their_range():
    model = network(scale=1e6)
    kept = {n.layer: n for n in fp16.apply(model, fp16.Options("float"), Context()).notes}["fc"]
    assert (kept.done, kept.what) == (False, "'w' has values beyond float16's 65504")
    result = converted(model)
    assert {n.layer: n for n in result.notes}["fc"].what == "'w' stored as bfloat16"
    data = samples(model)
    assert sqnr(outputs(model, data)[0], outputs(result.model, data)[0]) > 40


def test_skipped_layers_and_models_without_weights():
    notes = {n.layer: n.what for n in converted(network(), {"c2": {"skip": True}}).notes}
    assert notes["c2"] == "skipped by the recipe"
    g = Graph()
    assert [n.what for n in converted(g.build(g.op("Relu", "x"))).notes] == ["no weights that pay"]


@pytest.mark.parametrize(
    "step", [converted, lambda m: fp16.apply(m, fp16.Options("half"), Context())], ids=["bf16", "fp16"]
)
def test_bad_models_are_refused_in_one_line(step):
    from edgelathe.compress.weight_only import int4

    with pytest.raises(UserError, match="tiny: fc: 'w' holds NaN or infinite numbers"):
        step(network(scale=np.inf))
    with pytest.raises(UserError, match=r"is quantized already \(MatMulNBits\)"):
        step(int4.apply(network(), int4.Options(), Context()).model)


def test_a_real_model_is_halved(data_dir):
    model = io.load(data_dir / "cifar10_resnet8" / "model.onnx")
    assert converted(model).model.bytes < 0.51 * model.bytes
