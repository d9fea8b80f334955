"""Models under load: batches, streams, offline queries, pacing, chosen CPUs, a cold page cache."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

RUNTIMES = ["onnxruntime", "ai-edge-litert", "tflite-runtime"]


def opened(agent, data_dir: Path, runtime: str, **more) -> str:
    """Open the float ResNet8; the name of its input."""
    pytest.importorskip(runtime.replace("-", "_"))
    file = "model.onnx" if runtime == "onnxruntime" else "model.tflite"
    info = agent.open((data_dir / "cifar10_resnet8" / file).read_bytes(), runtime, **more)["inputs"][0]
    if runtime != "onnxruntime" and info["shape"][0] is not None:
        pytest.skip(f"the batch of {file} is fixed at {info['shape'][0]}")
    return info["name"]


def images(data_dir: Path, n: int) -> np.ndarray:
    with np.load(data_dir / "cifar10_resnet8" / "eval.npz") as z:
        return z["x"][:n].astype(np.float32)


def threads(pid: int) -> list[int]:
    return [int(t.name) for t in Path(f"/proc/{pid}/task").iterdir()]


def times(frame) -> np.ndarray:
    ns = np.frombuffer(frame.body, "<i8")
    assert len(ns) == frame.head["calls"]
    return ns


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_open_batch_takes_what_is_asked_and_the_outputs_are_the_same(agent, data_dir, runtime):
    name, x = opened(agent, data_dir, runtime), images(data_dir, 11)
    answers = []
    for batch in (0, 4, 16):
        agent.feed(1, **{name: x}, batch=batch)
        answers.append(agent.infer(1, 11)[0])
        times(agent.ask("time", session=1, calls=2))
    for other in answers[1:]:
        np.testing.assert_allclose(other, answers[0], rtol=1e-4, atol=1e-6)


def test_the_answer_says_what_a_call_takes(agent, linear):
    agent.open(linear)
    x = np.zeros((5, 4), np.float32)
    fed = {"x": {"sha256": agent.put(x.tobytes()), "dtype": "float32", "shape": [5, 4]}}
    assert [agent.ask("feed", session=1, inputs=fed, batch=b).head["batch"] for b in (0, 3, 8)] == [1, 3, 8]


def test_a_fixed_batch_takes_no_other_number(agent, onnx_model):
    agent.open(onnx_model([("Neg", ["x"], ["y"], {})], {"x": ("FLOAT", [4, 2])}, {"y": ("FLOAT", [4, 2])}))
    x = np.zeros((8, 2), np.float32)
    fed = {"x": {"sha256": agent.put(x.tobytes()), "dtype": "float32", "shape": [8, 2]}}
    error = agent.refused("feed", session=1, inputs=fed, batch=8)
    assert error["kind"] == "model"
    assert error["what"] == "input x takes batches of 4, not of 8"
    assert "open batch axis" in error["mend"]
    assert agent.ask("feed", session=1, inputs=fed, batch=4).head["batch"] == 4


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_streams_answer_offline_queries_of_thousands_of_samples(agent, data_dir, runtime):
    name, x = opened(agent, data_dir, runtime), images(data_dir, 100)
    agent.feed(1, **{name: x}, streams=3)
    (child,) = agent.children()
    frame = agent.ask("time", session=1, samples=300, calls=2)
    assert (times(frame) > 1_000_000).all()
    assert frame.head["cpu_ns"] > 0
    assert frame.head["wall_ns"] >= times(frame).sum()
    most = len(threads(child))
    times(agent.ask("time", session=1, samples=3, calls=20))
    agent.ask("time", session=1, calls=3)
    assert len(threads(child)) <= most
    with_streams = agent.infer(1, 20)[0]
    agent.feed(1, **{name: x})
    assert (agent.infer(1, 20)[0] == with_streams).all()


def test_memory_does_not_grow_with_the_samples_of_a_query(agent, onnx_model):
    nodes = [("ReduceMax", ["x"], ["y"], {"axes": [1], "keepdims": 1})]
    agent.open(onnx_model(nodes, {"x": ("FLOAT", ["n", 25_000])}, {"y": ("FLOAT", ["n", 1])}))
    agent.feed(1, x=np.ones((1000, 25_000), np.float32), streams=2)  # 100 MB
    agent.ask("time", session=1, samples=3000, calls=1)
    assert agent.ask("close", session=1).head["peak_bytes"] < 30e6


def test_paced_calls_sleep_and_use_no_processor_meanwhile(agent, linear):
    agent.open(linear)
    agent.feed(1, x=np.zeros((3, 4), np.float32))
    frame = agent.ask("time", session=1, calls=20, period_ms=20)
    assert len(times(frame)) == 20
    assert frame.head["wall_ns"] >= 19 * 20e6
    assert frame.head["cpu_ns"] < frame.head["wall_ns"] / 4
    assert 0 <= frame.head["late"] <= 19


@pytest.mark.parametrize(
    ("do", "fields", "word"),
    [
        ("feed", {"inputs": {}, "batch": -1}, "feed.batch is -1"),
        ("feed", {"inputs": {}, "streams": 0}, "feed.streams is 0"),
        ("feed", {"inputs": {}, "streams": 100_000}, "feed.streams"),
        ("time", {"samples": -1}, "time.samples is -1"),
        ("time", {"period_ms": float("nan")}, "time.period_ms is nan"),
        ("time", {"period_ms": -5}, "time.period_ms is -5"),
        ("time", {"min_ms": float("inf")}, "time.min_ms is inf"),
        ("time", {"first": -1}, "time.first is -1"),
    ],
)
def test_what_no_load_can_be_is_refused_by_name(agent, linear, do, fields, word):
    agent.open(linear)
    error = agent.refused(do, session=1, **fields)
    assert error["kind"] == "request"
    assert word in error["what"]


def test_a_session_runs_on_the_cpus_that_were_chosen_with_all_its_threads(agent, linear):
    cpu = max(os.sched_getaffinity(0))
    agent.open(linear, cpus=[cpu], threads=2)
    agent.feed(1, x=np.ones((4, 4), np.float32), streams=2)
    agent.ask("time", session=1, samples=2, calls=2)
    (child,) = agent.children()
    assert len(threads(child)) >= 3
    assert all(os.sched_getaffinity(t) == {cpu} for t in threads(child))
    assert os.sched_getaffinity(agent.process.pid) == os.sched_getaffinity(0)


@pytest.mark.parametrize("cpus", [[4096], [-1], ["0"], [True], [0.0]])
def test_a_cpu_that_is_not_there_is_refused_with_those_that_are(agent, linear, cpus):
    error = agent.refused("open", model=agent.put(linear), cpus=cpus)
    assert (error["kind"], repr(cpus[0]) in error["what"]) == ("request", True)
    assert str(max(os.sched_getaffinity(0))) in error["mend"]
    assert agent.children() == []


def test_refused_feeds_leave_no_file_open(agent, data_dir):
    name = opened(agent, data_dir, "ai-edge-litert")
    x = images(data_dir, 2)[:, :31]
    fed = {name: {"sha256": agent.put(np.ascontiguousarray(x).tobytes()), "dtype": "float32", "shape": list(x.shape)}}
    (child,) = agent.children()
    agent.feed(1, **{name: images(data_dir, 2)})
    before = len(list(Path(f"/proc/{child}/fd").iterdir()))
    for _ in range(5):
        agent.refused("feed", session=1, inputs=fed)
    assert len(list(Path(f"/proc/{child}/fd").iterdir())) <= before


def test_a_cold_session_answers_as_a_warm_one(agent, data_dir):
    name = opened(agent, data_dir, "onnxruntime", cold=True)
    agent.feed(1, **{name: images(data_dir, 1)})
    assert agent.infer(1, 1)[0].shape == (1, 10)
