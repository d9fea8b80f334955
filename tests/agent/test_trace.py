"""Time per node from the runtime's own profile: each microsecond in one node, and nothing left behind."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgelathe_agent.trace import by_node


def kernel(name, ts, dur, op="Conv", types=("float",)):
    args = {"op_name": op, "provider": "CPUExecutionProvider", "input_type_shape": [{t: [1]} for t in types]}
    return {"cat": "Node", "ph": "X", "name": name + "_kernel_time", "ts": ts, "dur": dur, "args": args}


def call(ts, dur):
    return {"cat": "Session", "ph": "X", "name": "model_run", "ts": ts, "dur": dur, "args": {}}


def test_nodes_of_a_subgraph_are_taken_out_of_the_node_that_holds_them():
    # events are written when they end: inner ones first
    events = [
        {"cat": "Session", "ph": "X", "name": "session_initialization", "ts": 0, "dur": 9, "args": {}},
        kernel("a", 12, 5), kernel("in", 20, 3, "Relu"), kernel("in", 25, 3, "Relu"), kernel("loop", 19, 12, "Loop"),
        call(10, 25), kernel("a", 41, 4), kernel("loop", 46, 2, "Loop"), call(40, 10),
    ]  # fmt: skip
    found = by_node(events)
    assert (found["calls"], found["call_ns"]) == (2, [25_000, 10_000])
    rows = {n["name"]: n for n in found["nodes"]}
    assert list(rows) == ["a", "loop", "in"]
    assert rows["a"]["ns"] == [5_000, 4_000]
    assert (rows["in"]["ns"], rows["in"]["times"], rows["in"]["within"]) == ([6_000, 0], 2, "loop")
    assert rows["loop"]["ns"] == [6_000, 2_000]
    assert sum(sum(n["ns"]) for n in found["nodes"]) == (5 + 12 + 4 + 2) * 1000


def test_neighbours_are_not_taken_for_one_another_s_inside():
    events = [kernel("a", 10, 4), kernel("b", 14, 0), kernel("c", 14, 3, types=("uint8", "float")), call(9, 20)]
    rows = by_node(events)["nodes"]
    assert [(n["name"], n["within"], n["ns"]) for n in rows] == [
        ("a", None, [4000]), ("c", None, [3000]), ("b", "c", [0])
    ]  # fmt: skip
    assert rows[1]["types"] == ["uint8", "float"]


def test_a_session_with_a_profile_is_traced_over_several_requests(agent, data_dir):
    model = (data_dir / "cifar10_resnet8" / "model.onnx").read_bytes()
    x = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    agent.open(model, profile=True)
    agent.feed(1, input=x)
    assert list((agent.root / "tmp").iterdir()) == []  # the file has no name any more: a crash leaves nothing
    for first in (0, 4):
        frame = agent.ask("trace", session=1, first=first, calls=4)
        ns = np.frombuffer(frame.body, "<i8")
        assert (len(ns), ns.sum()) == (4, frame.head["total_ns"])
    found = json.loads(agent.ask("trace", session=1, first=0, calls=0).body)
    assert found["calls"] == 8
    assert {len(n["ns"]) for n in found["nodes"]} == {8}
    assert {n["times"] for n in found["nodes"]} == {8}
    spent = np.sum([n["ns"] for n in found["nodes"]], axis=0)
    assert (spent > 0).all()
    assert (spent <= np.array(found["call_ns"])).all()
    assert "Conv" in {n["op"] for n in found["nodes"]}
    assert agent.infer(1, 3)[0].shape == (3, 10)  # it lives on


def test_what_cannot_be_traced_is_told(agent, linear, data_dir):
    agent.open(linear)
    agent.feed(1, x=np.zeros((2, 4), np.float32))
    assert agent.refused("trace", session=1, first=0, calls=0)["kind"] == "request"
    pytest.importorskip("ai_edge_litert")
    agent.open((data_dir / "cifar10_resnet8" / "model.tflite").read_bytes(), "ai-edge-litert", profile=True)
    agent.feed(2, input_1=np.zeros((1, 32, 32, 3), np.float32))
    assert agent.refused("trace", session=2, first=0, calls=0)["kind"] == "missing"
