"""The options on how a model runs are the same for every command that measures, and do the same."""

from __future__ import annotations

import json
import re

import pytest

from edgelathe.cli import main
from support.benching import BUNDLED

MODEL = str(BUNDLED / "digits.onnx")
COMMANDS = {
    "bench": [MODEL, "--max-time", "0.1", "--cool-down", "0"],
    "eval": [MODEL, "--data", str(BUNDLED / "eval.npz"), "--parity", "8"],
    "trace": [MODEL, "--rounds", "6"],
}
SAME = {"--threads", "--cpus", "--runtime", "--provider", "--require-provider", "--set", "--profile", "--device"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_them(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([command, "--help"]) == 0
    assert set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) >= SAME


@pytest.mark.parametrize("command", COMMANDS)
def test_they_reach_the_session(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--threads", "2", "--cpus", "0", "--set", "session.use_device_allocator_for_initializers=1", "--json"]
    assert main.run([command, *COMMANDS[command], *more]) == 0
    document = json.loads(capsys.readouterr().out)
    (result,) = document["models" if command == "trace" else "results"]
    options = result["options"]
    assert (options["threads"], options["cpus"]) == (2, [0])
    assert options["config"]["session.use_device_allocator_for_initializers"] == "1"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--runtime", "onnxruntim"], 2, "did you mean 'onnxruntime'?"),
        (["--provider", "CUDA"], 2, "has no provider 'CUDA'"),
        (["--cpus", "4096"], 2, "has no CPU 4096"),
        (["--set", "verbose"], 2, "KEY=VALUE"),
        (["--require-provider", "CUDAExecutionProvider"], 3, "CUDAExecutionProvider"),
    ],
)
def test_refusals(command: str, options: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([command, *COMMANDS[command], *options]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err.splitlines()[-1]


def test_lengths_of_open_axes_reach_the_calls(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    from support.tiny_onnx import Graph

    g = Graph()
    path = tmp_path / "image.onnx"
    path.write_bytes(g.build(g.conv("x", 3, 4), shape=("n", 3, "h", "w")).data)
    times = {}
    for shape in ("1,3,8,8", "1,3,256,256"):
        assert main.run(["bench", str(path), *COMMANDS["bench"][1:], "--shape", shape, "--json"]) == 0
        (result,) = json.loads(capsys.readouterr().out)["results"]
        assert result["inputs"] == {"x": [int(n) for n in shape.split(",")[1:]]}
        times[shape] = result["latency_ms"]["min"]
    assert times["1,3,256,256"] > times["1,3,8,8"]  # a thousand times the work
    assert main.run(["trace", str(path), "--rounds", "6", "--json"]) == 0
    assert any("--shape x=1,3,N,N" in w for w in json.loads(capsys.readouterr().out)["warnings"])


def test_a_runtime_is_for_the_models_of_its_format(data_dir, capsys: pytest.CaptureFixture[str]) -> None:
    pair = [str(data_dir / "cifar10_resnet8" / f"model.{kind}") for kind in ("onnx", "tflite")]
    assert main.run(["bench", *pair, *COMMANDS["bench"][1:], "--runtime", "ai-edge-litert", "--json"]) == 0
    assert [r["runtime"] for r in json.loads(capsys.readouterr().out)["results"]] == ["onnxruntime", "ai-edge-litert"]
    assert main.run(["bench", pair[0], *COMMANDS["bench"][1:], "--runtime", "ai-edge-litert"]) == 2
    assert "takes tflite models, not onnx" in capsys.readouterr().err
