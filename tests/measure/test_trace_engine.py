"""Layers of TensorRT's engines, matched to the model's own."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest

from edgelathe.core.device import SessionOptions
from edgelathe.measure import trace_engine
from edgelathe.measure.trace_profiler import Subject
from edgelathe.model import graph, io, marked
from edgelathe.model.graph import layers
from support import cli, schemas, trtexec
from support.tiny_onnx import Graph


def chain():
    g = Graph()
    y = g.conv("x", 3, 4)
    for _ in range(2):
        y = g.op("Relu", y)
        y = g.conv(y, 4, 4)
    return g.build(g.op("GlobalAveragePool", y))


def subject(recorded, *, calls=3, dropped=2, call_ms=1.0, rounds=6):
    """A model whose plain calls take `call_ms`, and what the profiler says, one answer after the other."""
    model = chain()
    block = SimpleNamespace(ns=np.full(calls, int(call_ms * 1e6)), conditions=(), more={})
    block.more["split"] = {"copy_in_ns": 20_000, "compute_ns": 1, "copy_out_ns": 10_000}
    answers = iter(recorded)
    profiled = SimpleNamespace(traced=lambda: next(answers), warnings=())
    return Subject(
        "m", model, graph.layers(model), marked.mark(model), SessionOptions("tensorrt", "TensorRT"),
        SimpleNamespace(warnings=()), profiled, calls, [block] * rounds, [1.5] * rounds, dropped,
    )  # fmt: skip


def node(name, ns, op="CaskConvolution"):
    return {"name": name, "op": op, "provider": "TensorRT", "types": [], "within": None, "times": len(ns), "ns": ns}


def test_layers_are_found_by_the_nodes_that_a_name_mentions():
    ns = [300_000] * 20
    names = ["Reformatting CopyNode for Input Tensor 0 to ~0~", "~0~ + ~1~", "{ForeignNode[~2~...~4~]}", "__myl_Mean"]
    found = {"calls": 20, "call_ns": [], "nodes": [node(n, ns) for n in names]}
    trace = trace_engine._trace(subject([found], call_ms=1.4))
    assert [r.layers for r in trace.rows if r.kind != "outside"] == [(), (0, 1), (2, 3, 4), (5,)]
    assert [r.kind for r in trace.rows][:2] == ["runtime", "operator"]
    assert sum(trace.estimate(r).ms for r in trace.rows) == pytest.approx(trace.total.ms)
    assert trace.rows[-1].op == "outside of operators"  # copies and the start, not other processes
    assert any("copies to the GPU take 20 us, back 10 us" in w for w in trace.warnings)


def test_calls_of_the_warm_up_do_not_count_and_what_the_profiler_adds_is_taken_off():
    slow, quick = [9_000_000] * 2, [800_000] * 18
    found = {
        "calls": 20,
        "call_ns": [],
        "nodes": [node("~0~ + ~1~ + ~2~", slow + quick), node("~3~ + ~4~ + ~5~", slow + quick)],
    }
    trace = trace_engine._trace(subject([found], call_ms=1.0))
    assert [r.measured.ms for r in trace.rows] == [pytest.approx(0.8005)] * 2
    assert [trace.estimate(r).ms for r in trace.rows] == [pytest.approx(0.5)] * 2


def test_averages_of_a_program_get_an_interval_from_several_runs():
    runs = [
        {
            "calls": 1,
            "call_ns": [],
            "nodes": [node("~0~ + ~1~ + ~2~", [ns]), node("~3~ + ~4~ + ~5~", [100_000])],
        }
        for ns in (203_000, 200_000, 204_000, 201_000, 202_000, 200_500)
    ]
    trace = trace_engine._trace(subject(runs))
    low, high = (getattr(trace.rows[0].measured, end) for end in ("low", "high"))
    assert 0.199 < low < trace.rows[0].measured.ms < high < 0.21
    assert trace.profiled is None  # the program takes no time of a call beside its profile


def test_trtexec_s_layers_of_a_real_model(data_dir, tmp_path, monkeypatch):
    trtexec.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    path = data_dir / "cifar10_resnet8" / "model.onnx"
    document = cli.answer("trace", path, "--runtime", "tensorrt", "--rounds", 6)
    schemas.validate(document)
    (m,) = document["models"]
    first, second, rest = m["rows"]
    names = [x.name for x in layers(io.load(path))]
    assert sorted([*first["layers"], *second["layers"]]) == sorted(names)  # each layer of the model once
    assert (first["kernel"], first["provider"], second["kernel"]) == ("CaskConvolution", "TensorRT", "gemm")
    assert (first["measured_ms"], second["measured_ms"]) == (
        pytest.approx(0.5, abs=0.001),
        pytest.approx(0.125, abs=0.001),
    )
    assert rest["op"] == "outside of operators"
    assert sum(r["ms"] for r in m["rows"]) == pytest.approx(m["total_ms"])
    assert any("copies to the GPU take 500 us" in w for w in m["warnings"])
