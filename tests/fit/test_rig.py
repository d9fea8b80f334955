"""Measuring for a fit, on the local device with its real agent."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgelathe
from edgelathe.core import dataset
from edgelathe.core.budget import parse_all
from edgelathe.core.dataset import Dataset
from edgelathe.core.device import SessionOptions
from edgelathe.device.open import Device
from edgelathe.fit.beside import Asked
from edgelathe.fit.rig import Rig
from edgelathe.model import io
from edgelathe.model.types import Model
from edgelathe.stats.metrics import load_metric

BUNDLED = Path(edgelathe.__file__).parent / "bundled"
OPTIONS = SessionOptions("onnxruntime", "CPUExecutionProvider")


@pytest.fixture(scope="module")
def digits() -> tuple[Model, Dataset]:
    model = io.load(BUNDLED / "digits.onnx")
    return model, dataset.bind(dataset.load(BUNDLED / "eval.npz"), model.signature, "digits.onnx")


def rig(device: Device, digits: tuple[Model, Dataset], *budget: str) -> Rig:
    model, data = digits
    return Rig(device, model, data, load_metric(data.metric), Asked(parse_all(budget or ("size<=0.5x",))), OPTIONS)


def test_the_baseline_is_measured_on_every_sample(device: Device, digits: tuple[Model, Dataset]) -> None:
    with rig(device, digits) as it:
        found = it.baseline()
    assert found.accuracy.n == len(digits[1]) == len(found.outputs)
    assert found.accuracy.value > 0.98
    assert found.claims["size"].exact
    assert found.claims["latency.p95"].lower <= found.latency.p95 <= found.claims["latency.p95"].upper
    assert found.claims["accuracy.drop"].value == 0


def test_a_model_against_itself_loses_nothing_and_takes_as_long(device: Device, digits: tuple[Model, Dataset]) -> None:
    with rig(device, digits) as it:
        base = it.baseline()
        found = it.candidate(digits[0], OPTIONS, base.outputs, whole=False)
    assert found.accuracy.drop == 0
    assert found.claims["accuracy.drop"].upper <= 2 / len(digits[1])
    assert 0.5 < found.ratios["latency.p50"].value < 2
    assert np.array_equal(found.outputs, base.outputs)


def test_a_hopeless_candidate_stops_early_and_chance_is_named(device: Device, digits: tuple[Model, Dataset]) -> None:
    broken = zeroed(digits[0])
    with rig(device, digits, "accuracy.drop<=1%") as it:
        base = it.baseline()
        found = it.candidate(broken, OPTIONS, base.outputs, whole=False)
        whole = it.candidate(broken, OPTIONS, base.outputs, whole=True)
    assert found.accuracy.n < whole.accuracy.n == len(digits[1])
    assert "chance" in whole.rejected


def test_a_baseline_that_died_is_opened_again(device: Device, digits: tuple[Model, Dataset]) -> None:
    with rig(device, digits) as it:
        base = it.baseline()
        for child in children(device):
            os.kill(child, signal.SIGKILL)
        found = it.candidate(digits[0], OPTIONS, base.outputs, whole=False)
    assert found.accuracy.drop == 0


def test_a_candidate_is_opened_once_and_its_peak_is_like_the_baseline_s(
    device: Device, digits: tuple[Model, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    request = device.client.request
    monkeypatch.setattr(device.client, "request", lambda verb, *a, **k: opened.append(verb) or request(verb, *a, **k))
    with rig(device, digits) as it:
        base = it.baseline()
        opened.clear()
        found = it.candidate(digits[0], OPTIONS, base.outputs, whole=False)
    assert opened.count("open") == 1
    assert base.peak_bytes
    assert found.peak_bytes == pytest.approx(base.peak_bytes, rel=0.3)


def test_load_and_memory_have_bounds_where_the_budget_asks(device: Device, digits: tuple[Model, Dataset]) -> None:
    with rig(device, digits, "load<=10s", "memory<=1GB") as it:
        claims = it.baseline().claims
    for name in ("load", "memory"):
        assert claims[name].lower <= claims[name].value <= claims[name].upper < float("inf")


def zeroed(model: Model) -> Model:
    """The same network with a last layer that knows nothing."""
    from edgelathe.model import onnx

    proto = onnx.to_proto(model)
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("fc") or "fc" in tensor.name:
            tensor.raw_data = bytes(len(tensor.raw_data))
    return replace(onnx.from_proto(proto, model.name))


def children(device: Device) -> list[int]:
    """Processes that run models for the local device's agent."""
    agent = device.client.hello["pid"]
    out = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        fields = stat.read_text().rpartition(")")[2].split()
        if int(fields[1]) == agent:
            out.append(int(stat.parent.name))
    return out
