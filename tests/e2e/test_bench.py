"""`bench` on this machine with its real agent and runtimes. Nothing here depends on how fast it is."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import numpy as np
import pytest

import edgelathe
from support import cli, schemas

BUNDLED = Path(edgelathe.__file__).parent / "bundled"
ONNX, TFLITE = BUNDLED / "digits.onnx", BUNDLED / "digits.tflite"
QUICK = ("--min-time", "0.3s", "--max-time", "0.6s", "--cool-down", "0")


def bench(*args: object, code: int = 0) -> dict:
    document = cli.answer("bench", *QUICK, *args, code=code)
    schemas.validate(document)
    return document


def test_two_runtimes_in_turns_with_all_that_is_asked_for(tmp_path: Path) -> None:
    raw = tmp_path / "raw.csv"
    document = bench(ONNX, TFLITE, "--data", BUNDLED / "eval.npz", "--threads", 1, "--raw", raw,
                     "--budget", "latency.p95<=10s", "--budget", "throughput>=0.1/s", "--max-time", "30s")  # fmt: skip
    assert [line["verdict"] for line in document["budget"]] == ["met"] * 4
    with raw.open() as f:
        rows = list(csv.DictReader(f))
    for r in document["results"]:
        mine = [int(row["ns"]) for row in rows if row["model"] == r["model"]]
        assert len(mine) == r["latency_ms"]["n"]
        assert np.median(mine) / 1e6 == pytest.approx(r["latency_ms"]["p50"])
        assert r["grade"]["letter"] in "ABCD"
    assert document["comparisons"][0]["pairs"] >= 3


def test_memory_and_load_in_fresh_processes() -> None:
    limits = ("--budget", "memory<=10GB", "--budget", "load<=60s")
    document = bench(TFLITE, "--memory", "--load", *limits)
    assert document["results"][0]["memory"]["peak_bytes"] > 0
    assert document["results"][0]["footprint"]["first_ms"]["value"] > 0
    assert [line["verdict"] for line in document["budget"]] == ["met", "met"]


def test_streams_batches_and_pauses() -> None:
    (multi,) = bench(ONNX, "--scenario", "multi-stream", "--streams", 4, "--batch", 2)["results"]
    assert multi["scenario"] == {"name": "multi-stream", "streams": 4, "batch": 2, "samples": 4}
    (offline,) = bench(ONNX, "--scenario", "offline", "--batch", 8, "--streams", 1)["results"]
    assert offline["scenario"]["samples"] % 8 == 0
    assert offline["throughput"] > 0
    (paced,) = bench(ONNX, "--period", "10ms")["results"]
    assert paced["paced"]["low"] <= paced["paced"]["ratio"]


def test_a_session_is_opened_as_asked() -> None:
    (r,) = bench(ONNX, "--io-binding", "--set", "session.intra_op.allow_spinning=0", "--cpus", "0")["results"]
    assert r["options"]["config"]["edgelathe.io_binding"] == "1"
    assert r["options"]["config"]["session.intra_op.allow_spinning"] == "0"
    assert r["options"]["cpus"] == [0]
    assert "no provider 'CUDAExecutionProvide'" in cli.error("bench", ONNX, "--provider", "CUDAExecutionProvide")
    assert "takes tflite models" in cli.error("bench", ONNX, "--runtime", "ai-edge-litert")
    assert "its CPUs are" in cli.error("bench", ONNX, "--cpus", "999")


def test_fresh_processes(tmp_path: Path) -> None:
    raw = tmp_path / "raw.npz"
    (r,) = bench(ONNX, "--processes", 3, "--raw", raw)["results"]
    assert len(r["processes"]["values"]) == 3
    assert set(np.load(raw)["process"]) == {0, 1, 2}


def test_a_missed_budget_is_exit_code_1_and_shown() -> None:
    done = cli.run("bench", ONNX, "--budget", "latency.p95<=1us", *QUICK, code=1, fresh=True)
    assert "✗" in done.stdout
    assert "latency.p95<=1us missed" in done.stdout


def test_a_broken_model_fails_alone(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [7])
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [7])], [shape])  # fmt: skip
    bad = tmp_path / "bad.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(bad))
    document = bench(ONNX, bad, code=1)
    assert document["results"][0]["latency_ms"]["n"] > 0
    assert document["results"][1]["error"]["what"]
    alone = cli.run("bench", bad, *QUICK, code=3)
    assert alone.stdout == ""
    assert alone.stderr.strip().splitlines()[-1].startswith("error: ")


def test_ctrl_c_gives_what_is_there() -> None:
    watched = cli.watch("bench", ONNX, "--sustain", "5min", "--json")
    watched.wait_for(" of 300 s · ")  # a window is over
    code, out, shown = watched.end(signal.SIGINT)
    assert code == 130
    document = json.loads(out)
    schemas.validate(document)
    assert document["interrupted"]
    assert len(document["results"][0]["sustained"]["windows"]) >= 1
    assert "interrupted" in shown
