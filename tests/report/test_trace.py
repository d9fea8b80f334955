"""A trace on the terminal."""

from __future__ import annotations

import copy

from edgelathe.report import terminal, trace
from support import documents

DOCUMENT = documents.DOCUMENTS["trace"]


def single():
    return {**DOCUMENT, "models": DOCUMENT["models"][:1], "layers": []}


def test_one_model_with_shares_that_add_up():
    shown = terminal.text(terminal.render(single()))
    assert (
        shown
        == """\
a.onnx   180 ± 2 us a call · 270 us with the profiler (1.5x) · operators 210 us as measured, by profiler
  onnxruntime · CPUExecutionProvider · 1 thread · session.x64quantprecision=1 · trust A
  layer                  op     kernel   type      provider   us                 share    sum
  conv1 +1               Conv            float32   CPU        179.5 [178.0, ?]   99.7 %   99.7 %
  outside of operators                                        0.500              0.3 %    100.0 %"""
    )


def test_only_the_longest_rows_and_how_many_were_left_out():
    document = single()
    model = copy.deepcopy(document["models"][0])
    model["rows"] = [{**model["rows"][0], "layer": f"l{i}", "layers": [f"l{i}"], "ms": i / 1000} for i in range(1, 26)]
    document = {**document, "models": [model]}
    shown = terminal.text(trace.trace(document))
    assert "l25 " in shown
    assert "l6 " in shown
    assert "l5 " not in shown
    assert "and 5 more, 15.0 us together; --all shows them" in shown
    assert "l1 " in terminal.text(trace.trace(document, None))


def test_two_models_side_by_side():
    a = DOCUMENT["models"][0]
    b = {**a, "model": "b.onnx", "total_ms": 0.12}
    half = {"ms": 0.09, "kernels": ["QLinearConv"], "dtypes": ["uint8"], "providers": []}
    lines = [
        {**DOCUMENT["layers"][0], "b": half, "ratio": 0.5, "verdict": "faster"},
        {**DOCUMENT["layers"][0], "layer": None, "layers": [], "op": "QuantizeLinear", "kind": "added", "a": None,
         "b": half, "notes": ["QuantizeLinear added"]},
    ]  # fmt: skip
    shown = terminal.text(terminal.render({**DOCUMENT, "models": [a, b], "layers": lines, "warnings": ["read this"]}))
    conv, added, whole, warning = shown.splitlines()[-4:]
    assert conv.split() == ["conv1", "+1", "Conv", "180.0", "90.0", "0.50x", "faster", "QLinearConv", "uint8"]
    assert added.split() == ["added", "QuantizeLinear", "-", "90.0", "-", "undecided", "QuantizeLinear", "added"]
    assert whole.split() == ["all", "180.0", "120.0", "0.67x"]
    assert warning == "! read this"
