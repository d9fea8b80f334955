"""Loading, first inference and memory of real models, in fresh processes of a real agent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgelathe
from edgelathe.core.device import SessionOptions
from edgelathe.device.errors import ModelFailure
from edgelathe.device.open import Device
from edgelathe.device.session import Closed
from edgelathe.measure.footprint import FRESH, Start, _summary, footprint
from edgelathe.measure.inputs import random_inputs
from edgelathe.model import io
from support.tiny_onnx import Graph

BUNDLED = Path(edgelathe.__file__).parent / "bundled"
OPTIONS = SessionOptions("onnxruntime", "CPUExecutionProvider")


def test_loading_and_memory_have_bounds_cold_and_warm(device: Device) -> None:
    model = io.load(BUNDLED / "digits.onnx")
    told: list[tuple[str, float]] = []
    found = footprint(device, model, OPTIONS, random_inputs(model.signature, 0), runs=5, tick=lambda *a: told.append(a))
    for claim in (found.load, found.first, found.load_cold, found.first_cold, found.memory):
        assert claim is not None
        assert 0 < claim.lower <= claim.value <= claim.upper < float("inf")
        assert claim.n == 5
    assert found.build_ms is None
    assert 1e5 < found.peak_bytes < 1e9
    assert [part for _, part in told] == pytest.approx([i / 10 for i in range(10)])
    document = found.to_json()
    assert document["runs"] == 5
    assert document["load_cold_ms"]["value"] == found.load_cold.value


def test_a_larger_model_takes_more_memory(device: Device) -> None:
    def peak(width: int) -> float:
        graph = Graph()
        model = graph.build(graph.op("MatMul", "x", graph.weights(256, width)), shape=("n", 256))
        options = SessionOptions("onnxruntime", "CPUExecutionProvider")
        found = footprint(device, model, options, {"x": np.ones((1, 256), np.float32)}, runs=1, cold=False)
        assert found.load_cold is None
        assert found.to_json()["first_cold_ms"] is None
        return found.memory.value

    small, large = peak(16), peak(16 << 10)  # 16 kB and 16 MB of weights
    assert 0.8 * 16 * (1 << 20) < large - small < 4 * 16 * (1 << 20)


def test_too_few_processes_have_a_median_and_no_bound(device: Device) -> None:
    model = io.load(BUNDLED / "digits.onnx")
    found = footprint(device, model, OPTIONS, random_inputs(model.signature, 0), runs=2, cold=False)
    assert found.load.value > 0
    assert found.to_json()["load_ms"]["upper"] is None


def test_a_model_that_cannot_be_loaded_is_the_devices_answer(device: Device) -> None:
    model = io.load(BUNDLED / "digits.onnx")
    with pytest.raises(ModelFailure):
        footprint(device, model, OPTIONS, random_inputs(model.signature, 0), require_provider="CUDAExecutionProvider")


def test_building_is_told_apart_and_what_is_unknown_stays_so() -> None:
    warm = [Start(10.0 + i, 1.0, build, Closed(1000 + i, None, None, 50)) for i, build in enumerate([9000.0, 0.0, 0.0])]
    found = _summary(warm, [], ("engine built",))
    assert found.build_ms == 9000.0
    assert found.load.value == 11.0
    assert found.memory.value == 1001
    assert found.memory_gpu.value == 50
    assert (found.memory_pss, found.memory_cgroup, found.load_cold) == (None, None, None)
    assert found.warnings == ("engine built",)


def test_seven_processes_bound_a_median_on_both_sides() -> None:
    found = _summary([Start(float(i), 1.0, None, Closed(i)) for i in range(FRESH)], [], ())
    assert (found.load.lower, found.load.value, found.load.upper) == (0.0, 3.0, 6.0)
