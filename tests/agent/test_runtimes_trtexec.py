"""TensorRT by its program: command lines, files, and the whole way through an agent with a stand-in for the program."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from edgelathe_agent import protocol
from edgelathe_agent.runtimes import trtexec
from support import trtexec as program

# Written by trtexec of TensorRT 8.5 (samples/common/sampleReporting.cpp: warm-up calls too, six digits a number).
TIMES = """[
  { "startEnqMs" : 0.0301, "endEnqMs" : 0.41, "startH2dMs" : 0.0512, "endH2dMs" : 0.12, "startComputeMs" : 0.121,
    "endComputeMs" : 9.1, "startD2hMs" : 9.11, "endD2hMs" : 9.12, "h2dMs" : 0.0688, "computeMs" : 8.979, "d2hMs" : 0.01,
    "latencyMs" : 9.0578, "endToEndMs" : 9.0688 }
, { "startEnqMs" : 200.4, "endEnqMs" : 200.6, "startH2dMs" : 200.41, "endH2dMs" : 200.48, "startComputeMs" : 200.49,
    "endComputeMs" : 202.1, "startD2hMs" : 202.11, "endD2hMs" : 202.12, "h2dMs" : 0.0693359, "computeMs" : 1.61792,
    "d2hMs" : 0.0078125, "latencyMs" : 1.69507, "endToEndMs" : 1.71 }
]
"""
OUTPUT = """[
  { "name" : "scores:0"
  , "dimensions" : "1x2x2"
  , "values" : [ 0.25, -inf, nan, 1e-05 ]
  }
, { "name" : "nan inf"
  , "dimensions" : "1"
  , "values" : [ 3 ]
  }
]
"""


def test_a_warm_up_is_not_among_the_times():
    found = trtexec.timing(TIMES)
    assert found == ([1695070], [69336], [1617920], [7812])


def test_outputs_that_are_no_numbers_are_kept():
    found = trtexec.outputs(OUTPUT)
    assert found["scores:0"][0] == [1, 2, 2]
    np.testing.assert_equal(found["scores:0"][1], [0.25, -np.inf, np.nan, 1e-05])
    assert found["nan inf"] == ([1], [3])


@pytest.mark.parametrize(
    ("words", "release"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # trtexec --help", "8.2.1"),
        ("[I] noise\n&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # ...", "10.3.0"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101303] [b9] # trtexec", "10.13.3"),
        ("usage: another program", ""),
    ],
)
def test_the_version_that_the_program_says(words, release):
    assert trtexec.version(words) == release


def test_its_last_error_without_the_time_in_front():
    words = "[09/01/2026-10:00:00] [I] Start\n[09/01/2026-10:00:01] [E] No importer for op: Foo\n&&&& FAILED TensorRT"
    assert trtexec.complaint(words) == "No importer for op: Foo"


@pytest.mark.parametrize("release", program.FLAGS)
@pytest.mark.parametrize("flags", [trtexec.Flags(), trtexec.Flags(fp16=True, int8=True, sparsity=True)])
def test_each_release_knows_all_options(release, flags):
    shapes, inputs = {"in:0": (1, 3, 8, 8)}, {"in:0": "input0"}
    lines = [
        trtexec.build("trtexec", "m.onnx", "e", "t", shapes, flags, release),
        trtexec.time("trtexec", "e", shapes, inputs, 10, "times"),
        trtexec.infer("trtexec", "e", shapes, inputs, "out"),
        trtexec.profile("trtexec", "e", shapes, inputs, 10, ("p", "l")),
    ]
    found = [program.parsed(release, line[1:]) for line in lines]
    assert all(program.pairs(f["shapes"]) == {"in:0": "1x3x8x8"} for f in found)
    assert {"fp16", "int8"} <= set(found[0]) or not flags.fp16 or release.startswith("11")
    assert (found[0].get("sparsity") == "enable") == flags.sparsity


@pytest.fixture
def with_trtexec(start, tmp_path):
    """An agent on whose PATH the stand-in is, of the release asked for."""

    def begin(release: str = "8.2.1"):
        program.install(tmp_path / "bin", release)
        return start(env={"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"})

    return begin


def runs(tmp_path: Path) -> list[list[str]]:
    return [json.loads(line) for line in (tmp_path / "bin" / "log").read_text().splitlines()]


def opened(agent, model: bytes, **more) -> dict:
    return agent.open(model, "tensorrt", **{"format": "onnx", "provider": "TensorRT", **more})


def images(data_dir: Path, n: int) -> np.ndarray:
    with np.load(data_dir / "cifar10_resnet8" / "eval.npz") as z:
        return z["x"][:n].astype(np.float32)


def test_answers_are_those_of_the_model_to_six_digits(with_trtexec, data_dir):
    agent = with_trtexec()
    assert "tensorrt" in agent.hello["runtimes"]
    model = (data_dir / "cifar10_resnet8" / "model.onnx").read_bytes()
    x = images(data_dir, 3)
    agent.open(model)
    agent.feed(1, input=x)
    (wanted,) = agent.infer(1, 3)
    there = opened(agent, model)
    assert (there["provider"], there["version"]) == ("TensorRT", "8.2.1")
    assert there["build_ms"] > 0
    assert [(i["name"], i["shape"], i["dtype"]) for i in there["inputs"]] == [("input", [None, 32, 32, 3], "float32")]
    agent.feed(2, input=x)
    (got,) = agent.infer(2, 3)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_times_are_those_that_the_program_took(with_trtexec, data_dir):
    agent = with_trtexec()
    opened(agent, (data_dir / "cifar10_resnet8" / "model.onnx").read_bytes())
    agent.feed(1, input=images(data_dir, 2))
    frame = agent.ask("time", session=1, calls=5)
    assert np.frombuffer(frame.body, "<i8").tolist() == [2_000_000 + 1000 * k for k in range(5)]
    assert frame.head["split"] == {"copy_in_ns": 500_000, "compute_ns": 1_252_000, "copy_out_ns": 250_000}
    frame = agent.ask("time", session=1, calls=1, min_ms=100)
    ns = np.frombuffer(frame.body, "<i8")
    assert ns.sum() >= 100e6


def test_layers_reach_the_trace(with_trtexec, data_dir):
    agent = with_trtexec()
    opened(agent, (data_dir / "cifar10_resnet8" / "model.onnx").read_bytes(), profile=True)
    agent.feed(1, input=images(data_dir, 1))
    assert agent.ask("trace", session=1, first=0, calls=2).head["calls"] == 2
    nodes = json.loads(agent.ask("trace", session=1, first=0, calls=0).body)["nodes"]
    assert [(n["name"], n["op"], n["ns"]) for n in nodes] == [
        ("conv1 + relu1", "CaskConvolution", [500_000]), ("dense", "gemm", [125_000]),
    ]  # fmt: skip


def test_an_engine_is_built_once_and_again_for_other_options_shapes_and_versions(with_trtexec, data_dir, tmp_path):
    agent = with_trtexec()
    model = (data_dir / "cifar10_resnet8" / "model.onnx").read_bytes()
    fp16 = {"provider.fp16": "1", "provider.sparsity": "True"}
    times = [opened(agent, model, config=config)["build_ms"] for config in ({}, {}, fp16, fp16)]
    assert [t > 0 for t in times] == [True, False, True, False]
    built = [line for line in runs(tmp_path) if any(word.startswith("--onnx=") for word in line)]
    assert ["--fp16" in line for line in built] == [False, True]
    assert "--sparsity=enable" in built[1]
    agent.feed(1, batch=4, input=images(data_dir, 4))
    assert agent.infer(1, 4)[0].shape == (4, 10)
    assert sum(any(w.startswith("--onnx=") for w in line) for line in runs(tmp_path)) == 3
    agent.end()
    assert len(list((tmp_path / "root" / "engines").iterdir())) == 1
    newer = with_trtexec("11.0.0")
    again = opened(newer, model, config=fp16)
    assert again["build_ms"] > 0
    assert any("fp16 has no effect" in w for w in again["warnings"])
    (kept,) = (tmp_path / "root" / "engines").iterdir()
    assert json.loads((kept / "about.json").read_text())["versions"] == {"tensorrt": "11.0.0"}


def test_bad_options_models_and_streams_are_answers(with_trtexec, linear, data_dir):
    agent = with_trtexec()
    asked = {"format": "onnx", "runtime": "tensorrt", "provider": "TensorRT", "threads": 1}
    good = agent.put((data_dir / "cifar10_resnet8" / "model.onnx").read_bytes())
    for change, kind, word in [
        ({"config": {"provider.fp61": "1"}}, "request", "fp61"),
        ({"config": {"provider.fp16": "maybe"}}, "request", "maybe"),
        ({"config": {"session.x": "1"}}, "request", "session.x"),
        ({"config": {"edgelathe.io_binding": "1"}}, "request", "io_binding"),
        ({"provider": "CUDAExecutionProvider"}, "missing", "CUDAExecutionProvider"),
        ({"model": agent.put(b"not a model")}, "model", "no ONNX model"),
        ({"model": agent.put(b"")}, "model", "no ONNX model"),
    ]:
        error = agent.refused("open", **{"model": good, **asked, "config": {}, "limits": {}, **change})
        assert (error["kind"], word in error["what"]) == (kind, True), error
    opened(agent, linear)
    x = np.ones((2, 4), np.float32)
    inputs = {"x": {"sha256": agent.put(x.tobytes()), "dtype": "float32", "shape": [2, 4]}}
    assert "trtexec" in agent.refused("feed", session=1, inputs=inputs, streams=2)["what"]


def test_what_the_program_complains_of_is_told(with_trtexec, onnx_model):
    agent = with_trtexec()
    model = onnx_model([("Foo", ["x"], ["y"], {})], {"x": ("FLOAT", [1, 4])}, {"y": ("FLOAT", [1, 4])})
    asked = {"format": "onnx", "runtime": "tensorrt", "provider": "TensorRT", "threads": 1}
    error = agent.refused("open", model=agent.put(model), config={}, limits={}, **asked)
    assert error["kind"] == "model"
    assert "ModelImporter.cpp" in error["what"]
    assert "Foo" in error["what"]


def test_probe_says_what_is_there(with_trtexec):
    found = {r["name"]: r for r in with_trtexec("10.3.0").ask("probe").head["runtimes"]}
    assert found["tensorrt"] == {"name": "tensorrt", "version": "10.3.0", "providers": ["TensorRT"]}
    assert protocol.RUNTIMES["tensorrt"].program == "trtexec"
