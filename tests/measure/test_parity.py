"""Answers of a device against this host's."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelathe.core.device import Probe, SessionOptions
from edgelathe.core.profile_types import Hardware
from edgelathe.measure.parity import cause, parity, remarks
from edgelathe.model import io, run

CPU = SessionOptions("onnxruntime", "CPUExecutionProvider")
PROBE = Probe("board", "aarch64", "Cortex-A72", 4, 1 << 30, "3.11", (), False, frozenset({"asimd"}))
X86, VNNI = Hardware("x86_64", frozenset({"avx2"}), 1), Hardware("x86_64", frozenset({"avx2", "vnni"}), 1)
ARM = Hardware("aarch64", frozenset(), 1)


def quantized(largest):
    """uint8 inputs times int8 weights up to `largest`, in QDQ form."""
    inits = [
        numpy_helper.from_array(np.float32(0.02), "s"), numpy_helper.from_array(np.uint8(0), "z"),
        numpy_helper.from_array(np.full((4, 3), largest, np.int8), "w"), numpy_helper.from_array(np.int8(0), "wz"),
    ]  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s", "wz"], ["wd"]),
        helper.make_node("MatMul", ["d", "wd"], ["y"]),
    ]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [tensor("x", TensorProto.FLOAT, [1, 4])], [tensor("y", TensorProto.FLOAT, [1, 3])], inits
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return io.from_bytes(model.SerializeToString(), "onnx", "m.onnx")


@pytest.fixture
def answers():
    model, x = quantized(50), {"x": np.random.default_rng(0).random((20, 4), np.float32)}
    return model, x, run.outputs(model, x, CPU)[0]


def test_equal_answers_are_equal_to_the_last_bit(answers):
    model, x, y = answers
    got = parity(model, x, CPU, y, PROBE, decides=True)
    assert (got.n, got.same, got.flips, got.exact, got.max_abs, got.why) == (20, 20, 0, 20, 0.0, "")


def test_flips_are_counted_and_the_first_is_named(answers):
    model, x, y = answers
    other = y.copy()
    other[7, 2] += 9
    got = parity(model, x, CPU, other, PROBE, decides=True)
    assert (got.same, got.flips, got.first_flip, got.exact) == (19, 1, 7, 19)
    assert got.max_abs == pytest.approx(9)
    assert "aarch64" in got.why


def test_the_same_infinity_is_no_difference(answers):
    model, x, y = answers
    y[4] = np.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "outputs", lambda *_: [y.copy()])
        got = parity(model, x, CPU, y, PROBE, decides=True)
    assert (got.exact, got.max_abs, got.why) == (20, 0.0, "")


def test_outputs_that_decide_nothing_have_no_flips(answers):
    model, x, y = answers
    got = parity(model, x, CPU, y + 1, PROBE, decides=False)
    assert got.same is None
    assert got.max_abs == pytest.approx(1)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (SessionOptions("tensorrt", "TensorRT", 1, {"provider.fp16": "1"}), "half precision"),
        (SessionOptions("onnxruntime", "CUDAExecutionProvider", 2, {"provider.device_id": "0"}), "other kernels"),
    ],
)
def test_for_a_provider_that_this_host_lacks_its_cpu_stands_in_and_that_is_said(answers, how, why):
    model, x, y = answers
    got = parity(model, x, how, y, PROBE, decides=True)
    assert (got.same, got.max_abs) == (20, 0.0)
    assert got.reference.startswith("onnxruntime (CPUExecutionProvider) on ")
    (said,) = remarks(got)
    assert said.startswith(f"this host has no {how.runtime} ({how.provider}): parity is with onnxruntime (CPU")
    other = y.copy()
    other[3, 1] += 9
    got = parity(model, x, how, other, PROBE, decides=True)
    assert got.flips == 1
    assert why in got.why


def test_nothing_stands_in_where_nothing_here_runs_the_format(monkeypatch, answers):
    model, x, y = answers
    monkeypatch.setattr(run, "available", lambda options: False)
    tflite = replace(model, format="tflite")
    assert parity(tflite, x, SessionOptions("tflite-runtime", "CPU"), y, PROBE, decides=True) is None
    assert "unknown" in remarks(None)[0]


def test_saturation_is_told_where_it_can_happen_and_nowhere_else():
    wide, narrow = quantized(127), quantized(64)
    assert "saturate" in cause(wide, X86, ARM)
    assert "this host" in cause(wide, X86, ARM)
    assert "the device" in cause(wide, ARM, X86)
    assert "saturate" not in cause(narrow, X86, ARM)
    assert "saturate" not in cause(wide, VNNI, ARM)
    assert cause(wide, VNNI, VNNI) == ""
