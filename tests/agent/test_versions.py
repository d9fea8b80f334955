"""The agent on the oldest and the newest Python that a device may have: real interpreters, those found here."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgelathe_agent.protocol import RUNTIMES
from support.pythons import interpreter

PACKAGE = Path(__file__).parents[2] / "agent" / "edgelathe_agent"


def equipped(version: str, folder: Path, *requirements: str) -> str:
    """A Python of that version in an environment of its own with the newest of these that there are for it."""
    subprocess.run([interpreter(version), "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary=:all:", *requirements]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NO RUNTIME FOR PYTHON {version} TO BE HAD: {done.stderr.strip()[-200:]}")
    return python


@pytest.mark.slow
@pytest.mark.parametrize(("version", "runtime"), [("3.8", "tflite-runtime"), ("3.13", "ai-edge-litert")])
def test_a_tflite_model_answers_as_the_host_s_runtime(start, data_dir, tmp_path, version, runtime):
    from edgelathe.model import io, run

    python = equipped(version, tmp_path / "venv", runtime, "numpy<2" if runtime == "tflite-runtime" else "numpy")
    agent = start([python, "-m", "edgelathe_agent"])
    with np.load(data_dir / "cifar10_resnet8" / "eval.npz") as z:
        x = z["x"][:8].astype(np.float32)
    path = data_dir / "cifar10_resnet8" / "model.tflite"
    agent.open(path.read_bytes(), runtime)
    (name,) = [i.name for i in io.load(path).signature.inputs]
    agent.feed(1, **{name: x})
    (here,) = run.outputs(io.load(path), {name: x})
    np.testing.assert_allclose(agent.infer(1, 8)[0], here, atol=1e-4)
    assert len(agent.ask("time", session=1, first=0, calls=3, min_ms=0).body) == 3 * 8
    assert agent.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_a_model_runs_with_the_newest_runtime_for_this_python(start, data_dir, tmp_path, version):
    python = equipped(version, tmp_path / "venv", "numpy", "onnxruntime")
    agent = start([python, "-W", "error", "-m", "edgelathe_agent"])
    with np.load(data_dir / "cifar10_resnet8" / "eval.npz") as z:
        x = z["x"][:8].astype(np.float32)
    model = (data_dir / "cifar10_resnet8" / "model.onnx").read_bytes()
    assert agent.open(model, cold=True, cpus=[min(os.sched_getaffinity(0))])["provider"] == "CPUExecutionProvider"
    agent.feed(1, input=x, batch=2, streams=2)
    for load in ({}, {"samples": 16}, {"period_ms": 2}):
        assert agent.ask("time", session=1, calls=3, **load).head["calls"] == 3
    assert agent.infer(1, 8)[0].shape == (8, 10)
    assert agent.ask("close", session=1).head["peak_bytes"] > 0
    agent.open(model, profile=True)
    agent.feed(2, input=x)
    agent.ask("trace", session=2, first=0, calls=2)
    assert b'"nodes"' in agent.ask("trace", session=2, first=0, calls=0).body
    assert agent.end() == 0


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.13"])
def test_every_module_compiles_and_the_agent_answers(start, archive, tmp_path, version):
    python = interpreter(version)
    copy = tmp_path / "edgelathe_agent"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([python, "-W", "error", "-m", "compileall", "-q", str(copy)], check=True)
    agent = start([python, "-W", "error", str(archive)], env={"PYTHONPATH": "", "PYENV_VERSION": ""})
    assert agent.hello["python"].startswith(version + ".")
    data = os.urandom(3 << 20)
    assert agent.put(data) == hashlib.sha256(data).hexdigest()
    probe = agent.ask("probe").head
    assert probe["python"] == agent.hello["python"]
    assert probe["cores"] >= 1
    assert agent.ask("sense").head["time_ns"]["monotonic"] > 0
    assert agent.ask("watch", seconds=0.01).head["power"] is None
    assert agent.ask("have", sha256=[hashlib.sha256(data).hexdigest()]).head["sizes"]
    assert agent.ask("tune", on=False).head["changed"] == []
    for runtime in RUNTIMES:
        if runtime not in [r["name"] for r in probe["runtimes"]]:
            asked = {"runtime": runtime, "format": RUNTIMES[runtime].format, "model": agent.put(b"model")}
            error = agent.refused("open", **asked)
            assert error["kind"] == "missing"
            assert runtime in error["what"]
    assert agent.children() == []
    agent.ask("install", requirements=[], wheels=[])
    assert agent.ask("probe").head["executable"] == str(tmp_path / "root" / "venv" / "bin" / "python")
    assert agent.ask("wipe").head["left"] == []
    assert agent.process.wait(120) == 0
    assert agent.process.stderr.read() == b""
