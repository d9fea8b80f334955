"""What a budget asks of a model beside plain calls, on the local device with its real agent."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import edgelathe
from edgelathe.core import dataset
from edgelathe.core.budget import parse_all
from edgelathe.core.device import SessionOptions
from edgelathe.core.result import Candidate
from edgelathe.device.open import Device
from edgelathe.fit import beside
from edgelathe.fit.beside import Asked
from edgelathe.fit.measured import Entry
from edgelathe.fit.rig import Rig
from edgelathe.measure import energy
from edgelathe.measure.interleave import BenchPlan
from edgelathe.model import io
from edgelathe.stats.metrics import load_metric

BUNDLED = Path(edgelathe.__file__).parent / "bundled"
OPTIONS = SessionOptions("onnxruntime", "CPUExecutionProvider")
METER = """
import itertools, time
for i in itertools.count():
    print(f"{time.time():.4f} {3 + i % 7 / 100}", flush=True)
    time.sleep(0.01)
"""


def rig(device: Device, asked: Asked) -> Rig:
    model = io.load(BUNDLED / "digits.onnx")
    data = dataset.take(dataset.bind(dataset.load(BUNDLED / "eval.npz"), model.signature, "digits.onnx"), range(40))
    return Rig(device, model, data, load_metric(data.metric), asked, OPTIONS)


def test_pace_endurance_and_grade_reach_the_candidate(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "PACED", BenchPlan(min_ms=200.0, min_calls=20, max_ms=2000.0, warm_ms=50.0))
    asked = Asked(parse_all(("latency.paced<=9x", "latency.sustained<=9s")), period_ms=5.0, sustain_ms=1500.0)
    with rig(device, asked) as it:
        base = it.baseline()
        found = it.candidate(io.load(BUNDLED / "digits.onnx"), OPTIONS, base.outputs, whole=True)
    paced = found.claims["latency.paced"]
    assert paced.lower <= paced.value <= paced.upper
    assert found.latency.paced == paced.value
    assert found.latency.sustained == found.claims["latency.sustained"].value
    assert found.ratios["latency.paced"].value > 0
    candidate = Entry.of(Candidate("c1", "int8", "onnx", OPTIONS), found, "").candidate
    doc = candidate.to_json()
    assert doc["grade"]["letter"] in "ABCD"
    assert {"paced", "sustained"} <= doc["latency_ms"].keys()
    assert Candidate.from_json(doc) == candidate


def test_energy_by_an_external_meter(device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "meter.py"
    script.write_text(METER)
    quick, measure = energy.EnergyPlan(blocks=3, window_s=0.4, settle_s=0.05), energy.measure
    monkeypatch.setattr(energy, "measure", lambda *args, **more: measure(*args, **more, plan=quick))
    asked = Asked(parse_all(("energy<=1J",)), meter=f"{sys.executable} {script}")
    with rig(device, asked) as it:
        found = it.baseline()
    assert found.energy is not None
    assert found.energy["tier"]["source"] == "meter"
    assert found.energy["low"] <= found.claims["energy"].value <= found.energy["high"]
    assert found.energy["tier"]["rate_hz"] < 150, "a hundred readings a second, whenever the meter was started"
