"""Traces: rows that add up to an unprofiled call, and two models side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgelathe.core.device import SessionOptions
from edgelathe.measure.trace import _remarks as remarks
from edgelathe.measure.trace_compare import compare
from edgelathe.measure.trace_prefixes import monotone
from edgelathe.measure.trace_rows import HELD_UP, OUTSIDE, Estimate, Row, Trace, centre, middle, reconciled
from edgelathe.model import io
from edgelathe.model.graph import Layer, layers
from support import cli, schemas

CPU = SessionOptions("onnxruntime", "CPUExecutionProvider")
RNG = np.random.default_rng(0)


def row(layers, ms, kernel, dtype="float32", provider="CPUExecutionProvider", kind="operator", cost=1.0):
    noise = 1 + 0.01 * RNG.standard_normal(16)
    return Row(tuple(layers), kernel, kernel, provider, dtype, kind, ms * noise, 1.0, cost)


def layer(name, op, inputs, macs=0):
    return Layer(name, op, tuple(inputs.split()), (name,), 0, macs, 0, "float32", None)


def trace(layers, rows, options=CPU, unit_ms=0.0):
    total = sum(r.measured.ms for r in rows)
    return Trace("m", "onnx", tuple(layers), options, "profiler", Estimate(total, 0, 9), None, tuple(rows), unit_ms)


FLOAT = [
    layer("conv", "Conv", "x", 1000), layer("bn", "BatchNormalization", "conv"), layer("act", "Relu", "bn"),
    layer("fc", "Gemm", "act", 10), layer("soft", "Softmax", "fc"),
]  # fmt: skip
INTEGER = [
    layer("x_q", "QuantizeLinear", "x"), layer("x_d", "DequantizeLinear", "x_q"), layer("conv", "Conv", "x_d", 1000),
    layer("act", "Relu", "conv"), layer("act_q", "QuantizeLinear", "act"), layer("act_d", "DequantizeLinear", "act_q"),
    layer("fc", "Gemm", "act_d", 10), layer("soft", "Softmax", "fc"),
]  # fmt: skip


def before():
    rows = [row((0, 1, 2), 2.0, "Conv"), row((), 0.2, "ReorderOutput", kind="runtime"), row((3,), 1.0, "Gemm")]
    return trace(FLOAT, [*rows, row((4,), 0.5, "Softmax")])


def test_layers_are_compared_through_fusions_and_conversions():
    rows = [row((0,), 0.3, "QuantizeLinear"), row((1, 2, 3, 4, 5), 1.0, "QLinearConv", "uint8")]
    rows += [row((6,), 1.5, "QGemm", "uint8"), row((7,), 0.5, "Softmax")]
    lines = compare(before(), trace(INTEGER, rows))
    found = {tuple(x["layers"]) or x["op"]: x for x in lines}
    assert list(found) == [("conv", "bn", "act"), ("fc",), ("soft",), "ReorderOutput", "QuantizeLinear"]
    conv, fc, soft = (found[k] for k in list(found)[:3])
    assert (conv["layer"], conv["op"], conv["verdict"], conv["notes"]) == ("conv", "Conv", "faster", [])
    assert conv["low"] < 0.5 < conv["high"] < 0.52
    assert (fc["verdict"], fc["a"]["kernels"], fc["b"]["kernels"]) == ("slower", ["Gemm"], ["QGemm"])
    assert (soft["verdict"], soft["notes"]) == ("same", ["Softmax stays in float32"])
    added = found["QuantizeLinear"]
    assert (added["kind"], added["a"], added["ratio"], added["notes"]) == (
        "added", None, None, ["QuantizeLinear added"]
    )  # fmt: skip
    assert found["ReorderOutput"]["b"] is None
    for side, ms in (("a", 3.7), ("b", 3.3)):
        assert sum(x[side]["ms"] for x in lines if x[side]) == pytest.approx(ms, rel=0.01)


def test_what_fell_back_to_another_provider_is_named():
    cuda = SessionOptions("onnxruntime", "CUDAExecutionProvider")
    rows = [row((0, 1, 2), 0.5, "Conv", provider="CUDAExecutionProvider"), row((3,), 1.0, "Gemm")]
    rows += [row((), 0.1, "MemcpyToHost", provider="CUDAExecutionProvider", kind="runtime"), row((4,), 0.5, "Softmax")]
    lines = compare(before(), trace(FLOAT, rows, cuda))
    notes = {x["op"]: x["notes"] for x in lines}
    assert notes["Conv"] == []
    assert notes["Gemm"] == ["Gemm fell back to CPUExecutionProvider"]
    assert notes["MemcpyToHost"] == ["MemcpyToHost added"]


def test_that_a_gpu_s_kernels_are_only_launched_is_said():
    cuda = trace(FLOAT, [row((0, 1, 2, 3, 4), 0.5, "Conv", provider="CUDAExecutionProvider")])
    assert any("launch" in w for w in remarks([cuda], []))
    assert not any("launch" in w for w in remarks([before()], []))


def test_remarks_call_models_by_their_short_names():
    a, b = (replace(before(), name=f"/long/way/{k}/model.onnx", unit_ms=0.001) for k in "ab")
    (taken,) = remarks([a, b], [])
    assert taken.startswith("a/model.onnx: ")
    assert ", b/model.onnx: " in taken


def test_what_float_parts_and_conversions_cost_is_summed_up_where_it_matters():
    rows = [row((0,), 0.3, "QuantizeLinear"), row((1, 2, 3, 4, 5), 1.0, "QLinearConv", "uint8")]
    b = trace(INTEGER, [*rows, row((6,), 1.5, "QGemm", "uint8"), row((7,), 0.5, "Softmax")])
    float_part, conversions = remarks([before(), b], compare(before(), b))
    assert "Softmax stays in float32" in float_part
    assert "QuantizeLinear" in conversions


def test_models_fused_in_different_ways_are_compared_where_both_have_borders():
    rows = [row((0,), 1.0, "Conv"), row((1, 2), 0.5, "Mul"), row((3, 4), 1.0, "Fused")]
    lines = compare(before(), trace(FLOAT, rows))
    assert [x["layers"] for x in lines if x["layers"]] == [["conv", "bn", "act"], ["fc", "soft"]]


def test_the_name_of_an_output_that_a_conversion_took_over_is_that_of_the_layer_before_it():
    small = [layer("c", "QLinearConv", "x", 1000), layer("y_q", "SOFTMAX", "c"), layer("y", "DEQUANTIZE", "y_q")]
    large = [layer("c", "Conv", "x", 1000), layer("y", "SOFTMAX", "c")]
    a = trace(large, [row((0,), 2.0, "Conv"), row((1,), 1.0, "SOFTMAX")])
    b = trace(small, [row((0,), 1.0, "Conv", "int8"), row((1, 2), 0.5, "SOFTMAX", "int8")])
    soft = next(x for x in compare(a, b) if x["layers"] == ["y"])
    assert (soft["kind"], soft["verdict"]) == ("operator", "faster")


def test_a_difference_within_the_profiler_s_own_time_decides_nothing():
    a, b = ([row((i,), ms, "k", cost=1.0) for i in range(5)] for ms in (4.0, 4.5))
    assert {x["verdict"] for x in compare(trace(FLOAT, a), trace(FLOAT, b))} == {"slower"}
    doubtful = compare(trace(FLOAT, a, unit_ms=3.0), trace(FLOAT, b, unit_ms=3.0))
    assert {x["verdict"] for x in doubtful} == {"undecided"}


def test_the_profiler_s_part_makes_the_rows_add_up_to_a_call_without_it():
    rows = [row((), 1.0, "a", cost=1), row((), 2.0, "b", cost=3), row((), 0.01, "c", cost=1)]
    unit, more = reconciled(rows, Estimate(2.0, 0, 0), 0.3)
    assert more == []
    t = trace([], rows, unit_ms=unit)
    assert sum(t.estimate(r).ms for r in rows) == pytest.approx(2.0)
    assert t.estimate(rows[2]).ms == 0
    assert t.taken(rows[1]) == pytest.approx(3 * t.taken(rows[0]))


def test_time_that_no_kernel_explains_has_rows_of_its_own():
    rows = [row((), 1.0, "a"), row((), 2.0, "b")]
    measured = sum(r.measured.ms for r in rows)
    unit, more = reconciled(rows, Estimate(measured + 1.0, 0, 0), 0.3)
    assert unit == 0
    assert {r.op: r.measured.ms for r in more} == {OUTSIDE: pytest.approx(0.3), HELD_UP: pytest.approx(0.7)}
    (only,) = reconciled(rows, Estimate(measured + 0.2, 0, 0), 0.3)[1]
    assert (only.op, only.measured.ms) == (OUTSIDE, pytest.approx(0.2))


def test_disturbed_calls_and_rounds_move_a_time_little():
    assert middle(np.array([3000] * 8 + [4000] + [9_000_000])) == pytest.approx(0.003, rel=0.05)
    estimate = centre(np.array([1.0] * 15 + [50.0]))
    assert estimate.ms == 1.0
    assert centre(np.array([1.0, 2.0])).high == np.inf  # too few rounds say nothing


def test_beginnings_never_get_shorter():
    assert monotone([1.0, 3.0, 2.0, 2.5, 5.0]) == [1.0, 2.5, 2.5, 2.5, 5.0]
    assert monotone([]) == []


@pytest.fixture(scope="module")
def resnet(data_dir):
    return data_dir / "cifar10_resnet8"


def test_a_real_onnx_model_and_its_integer_form(resnet, tmp_path):
    small = tmp_path / "int8.onnx"
    cli.run("compress", resnet / "model.onnx", "--recipe", "int8", "--data", resnet / "calib.npz", "-o", small)
    document = cli.answer("trace", resnet / "model.onnx", small, "--rounds", 6, "--data", resnet / "eval.npz")
    schemas.validate(document)
    names = [x.name for x in layers(io.load(resnet / "model.onnx"))]
    for m in document["models"]:
        assert (m["method"], m["profiled_ms"] > 0) == ("profiler", True)
        assert sum(r["ms"] for r in m["rows"]) == pytest.approx(m["total_ms"], rel=1e-6)
    covered = [n for r in document["models"][0]["rows"] for n in r["layers"]]
    assert sorted(covered) == sorted(names)  # each layer of the model once
    lines = document["layers"]
    assert sorted(n for line in lines for n in line["layers"]) == sorted(names)
    convs = [line for line in lines if line["op"] == "Conv"]
    assert len(convs) == 9
    assert all("QLinearConv" in line["b"]["kernels"] for line in convs)
    assert any(line["kind"] == "added" and line["op"] == "QuantizeLinear" for line in lines)
    assert any("stays in float32" in n for line in lines if line["op"] == "Softmax" for n in line["notes"])


def test_a_real_tflite_model_by_parts(resnet):
    pytest.importorskip("ai_edge_litert")
    document = cli.answer("trace", resnet / "model.tflite", "--rounds", 6, "--parts", 3, fresh=True)
    schemas.validate(document)
    (m,) = document["models"]
    assert (m["method"], m["profiled_ms"], len(m["rows"])) == ("prefixes", None, 3)
    covered = [n for r in m["rows"] for n in r["layers"]]
    assert covered == [x.name for x in layers(io.load(resnet / "model.tflite"))]
    assert sum(r["ms"] for r in m["rows"]) == pytest.approx(m["total_ms"], rel=1e-6)
    assert any("cut off" in w for w in document["warnings"])


def test_bad_input_is_told_in_a_line(resnet, tmp_path):
    assert "no such file" in cli.error("trace", tmp_path / "none.onnx", code=2)
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, x=np.zeros((4, 7), np.float32))
    assert cli.error("trace", resnet / "model.onnx", "--data", wrong, code=2).count("\n") <= 1
