"""TensorRT by its Python module: an agent with stand-ins for the module, of two releases, and for the CUDA runtime."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

STAND_INS = Path(__file__).parents[1] / "support" / "tensorrt"


@pytest.fixture(scope="session")
def cuda_runtime(tmp_path_factory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("cuda")
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "libcudart.so"), str(STAND_INS / "cudart.c")]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def with_tensorrt(start, tmp_path, cuda_runtime):
    def begin(release: str, cuda: bool = True):
        (tmp_path / "python").mkdir(exist_ok=True)
        (tmp_path / "python" / "tensorrt").mkdir(exist_ok=True)
        shutil.copy(STAND_INS / "stand_in.py", tmp_path / "python" / "tensorrt" / "__init__.py")
        package = str(Path(__file__).parents[2] / "agent")
        env = {"PYTHONPATH": f"{package}{os.pathsep}{tmp_path / 'python'}", "STAND_IN_TENSORRT": release}
        return start(env={**env, "LD_LIBRARY_PATH": str(cuda_runtime)} if cuda else env)

    return begin


def opened(agent, model: bytes, **more) -> dict:
    return agent.open(model, "tensorrt", **{"format": "onnx", "provider": "TensorRT", **more})


def images(data_dir: Path, n: int) -> np.ndarray:
    with np.load(data_dir / "cifar10_resnet8" / "eval.npz") as z:
        return z["x"][:n].astype(np.float32)


@pytest.mark.parametrize("release", ["8.2.1", "10.3.0"])
def test_answers_times_and_layers(with_tensorrt, data_dir, release, tmp_path):
    agent = with_tensorrt(release)
    assert "tensorrt" in agent.hello["runtimes"]
    model, x = (data_dir / "cifar10_resnet8" / "model.onnx").read_bytes(), images(data_dir, 6)
    agent.open(model)
    agent.feed(1, input=x)
    (wanted,) = agent.infer(1, 6)
    there = opened(agent, model, profile=True, config={"provider.fp16": "1", "provider.sparsity": "1"})
    assert (there["version"], there["provider"], there["warnings"]) == (release, "TensorRT", [])
    assert there["build_ms"] > 0
    agent.feed(2, input=x)
    (got,) = agent.infer(2, 6)
    assert (got == wanted).all()
    frame = agent.ask("time", session=2, calls=3)
    assert len(np.frombuffer(frame.body, "<i8")) == 3
    assert set(frame.head["split"]) == {"copy_in_ns", "compute_ns", "copy_out_ns"}
    assert frame.head["split"]["compute_ns"] > 0
    agent.ask("trace", session=2, first=0, calls=2)
    (node,) = json.loads(agent.ask("trace", session=2, first=0, calls=0).body)["nodes"]
    assert (node["name"], node["op"], node["provider"]) == ("all of it", "FP16+SPARSE_WEIGHTS", "TensorRT")
    assert set(node["ns"]) == {250_000}
    assert opened(agent, model, config={"provider.fp16": "1", "provider.sparsity": "1"})["build_ms"] == 0
    (home,) = (tmp_path / "root" / "engines").iterdir()
    assert (home / "timing.cache").read_bytes() == b"t"


@pytest.mark.parametrize("release", ["8.2.1", "10.3.0"])
def test_batches_have_engines_of_their_own_and_streams_contexts(with_tensorrt, data_dir, release):
    agent = with_tensorrt(release)
    model, x = (data_dir / "cifar10_resnet8" / "model.onnx").read_bytes(), images(data_dir, 8)
    agent.open(model)
    agent.feed(1, input=x)
    (wanted,) = agent.infer(1, 8)
    opened(agent, model)
    agent.feed(2, batch=4, streams=2, input=x)
    (got,) = agent.infer(2, 8)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-7)
    assert agent.ask("time", session=2, calls=2, samples=8).head["calls"] == 2
    agent.feed(2, input=x)
    assert (agent.infer(2, 8)[0] == wanted).all()


def test_what_cannot_be_built_is_an_answer_with_the_reason(with_tensorrt, onnx_model):
    agent = with_tensorrt("10.3.0")
    asked = {"format": "onnx", "runtime": "tensorrt", "provider": "TensorRT", "threads": 1, "config": {}}
    foo = onnx_model([("Foo", ["x"], ["y"], {})], {"x": ("FLOAT", [1, 4])}, {"y": ("FLOAT", [1, 4])})
    error = agent.refused("open", model=agent.put(foo), **asked)
    assert (error["kind"], "Foo" in error["what"]) == ("model", True)
    wide = onnx_model([("Neg", ["x"], ["y"], {})], {"x": ("FLOAT", ["n", "k"])}, {"y": ("FLOAT", ["n", "k"])})
    assert opened(agent, wide)["build_ms"] is None
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    agent.feed(1, x=x)
    assert (agent.infer(1, 2)[0] == -x).all()


def test_without_the_cuda_runtime_the_module_is_of_no_use(with_tensorrt, linear):
    agent = with_tensorrt("10.3.0", cuda=False)
    asked = {"format": "onnx", "runtime": "tensorrt", "provider": "TensorRT", "threads": 1, "config": {}}
    error = agent.refused("open", model=agent.put(linear), **asked)
    assert error["kind"] == "missing"  # there is none, or one that finds no driver
    assert "cuda" in error["what"].lower() or "libcudart" in error["what"]
    assert "trtexec" in error["mend"]
