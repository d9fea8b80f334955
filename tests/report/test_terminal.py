"""What stands on the terminal."""

import copy
import io

import pytest

from edgelathe.report import terminal, view
from support import documents


def shown(renderable, encoding="utf-8", width=None):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    console = terminal.console(stream)
    console.print(renderable, width=width)
    stream.flush()
    return "\n".join(line.rstrip() for line in raw.getvalue().decode(encoding).splitlines())


def test_a_fit():
    assert (
        shown(terminal.fit(documents.fit(), documents.judged()))
        == """\
digits <b>.onnx   ONNX · 140 kB
local             x86_64 · AMD EPYC <7B13> · 2 cores · profile x86-cpu
budget            size<=0.35x · accuracy.drop<=2%

  candidate                  p50 us       top-1 drop       size
  baseline                   61.2 ± 0.8   -                140 kB
  int8                       38.1 ± 0.6   0.1 ± 0.3 pt ✓   0.31x ✓   <- chosen
  prune(channels=0.3)+int8   31 ± 1       1.6 ± 0.3 pt ?   0.18x ✓
  fp16                       64 ± 2       0.0 ± 0.3 pt ✓   0.52x ✗
  sparse(threshold=<0.5>)    -            -                -         failed
  int4                       -            0.0 ± 0.3 pt     0.52x     rejected
  sparse(threshold=<0.5>) failed: the runtime ended with signal 11
  int4 rejected: accuracy fell to chance

met by int8: size 43.4 kB, drop 0.1 points; 1.6x faster
holds for onnxruntime 1.32.0 · CPUExecutionProvider · 1 thread · session.x64quantprecision=1
! int8: the governor is 'ondemand'"""
    )


def test_a_missed_budget_shows_each_limit_with_its_bound():
    line = documents.BudgetLine("size<=10kB", "size", 1e4, 43_400.0, 43_400.0, 140_000.0, "missed")
    text = shown(terminal.fit(documents.fit(met=False, reason="missed: size", budget=[line, documents.DROP])))
    assert "  ✗ size<=10kB: missed: size 43.4 kB, limit 10.0 kB\n" in text
    assert "  ✓ accuracy.drop<=2%: met: accuracy.drop 0.10 pt, 95 % bound 0.46 pt, limit 2.00 pt\n" in text
    assert "faster" not in text


def test_a_running_fit_shows_what_is_there():
    text = shown(terminal.fit(documents.running()))
    assert "running: 1 of 1 candidates measured" in text
    assert "chosen" not in text
    assert shown(terminal.fit(documents.fit(baseline=None, met=None, chosen=None, reason="", budget=[], candidates=[])))


def test_the_budget_decides_the_columns():
    p95 = documents.BudgetLine("latency.p95<=4ms", "latency.p95", 4.0, 0.04, 0.05, 0.07, "met")
    memory = documents.BudgetLine("memory<=50MB", "memory", 5e7, 4.1e7, 4.2e7, 4.1e7, "met")
    text = shown(terminal.candidates(documents.fit(budget=[p95, memory, documents.SIZE])))
    assert "p95 us" in text
    assert "p50 us" not in text
    assert "41.0 MB ✓" in text


def test_speed_is_claimed_only_where_the_intervals_are_apart():
    base, near = (documents.candidate("a", "a", 1, p50, reach=1.0, drop=0.0).to_json() for p50 in (10.0, 11.0))
    far = documents.candidate("a", "a", 1, 20.0, reach=1.0, drop=0.0).to_json()
    assert view.speed(base, near) == ""
    assert view.speed(base, far) == "2.0x slower"
    assert view.speed(far, base) == "2.0x faster"


def test_candidates_of_several_runtimes_are_told_apart():
    other = documents.FP16.with_(options=documents.SessionOptions("ai-edge-litert", "XNNPACK"), format="tflite")
    text = shown(terminal.candidates(documents.fit(candidates=[documents.INT8, other])))
    assert "int8 · onnxruntime" in text
    assert "fp16 · ai-edge-litert" in text


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_every_document_has_a_view(name):
    document = documents.DOCUMENTS[name]
    text = shown(terminal.render(document))
    assert text
    assert shown(terminal.render(document), encoding="ascii").isascii()
    narrow = shown(terminal.render(document), width=40)
    assert max(map(len, narrow.splitlines())) <= 40


def test_without_unicode_signs_become_words():
    text = shown(terminal.fit(documents.fit(), documents.judged()), encoding="ascii")
    assert "0.1 +- 0.3 pt ok" in text
    assert "0.52x no" in text
    assert "1.6 +- 0.3 pt ?" in text


def test_nothing_is_told_by_colour_alone(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    for name in ("doctor", "rollout", "probe"):
        monkeypatch.setenv("NO_COLOR", "1")
        plain = shown(terminal.render(documents.DOCUMENTS[name]))
        assert "\x1b[3" not in plain
    doctor = shown(terminal.doctor(documents.DOCUMENTS["doctor"]))
    assert "✓ key" in doctor
    assert "! governor: 'ondemand': latencies will wander. Mend: set 'performance'" in doctor
    assert "✗ runtime: none found. Mend: edgelathe device install cam" in doctor


def test_bench_eval_inspect_and_compress():
    bench = shown(terminal.render(documents.DOCUMENTS["bench"]))
    assert "3.05 [3.04, 3.06]" in bench
    assert "[3.96, ?]" in bench
    assert "b.onnx is faster than a.onnx: 0.944x [0.939, 0.949]" in bench
    assert (
        "top-1 87.6 % [85.6, 89.1] of 540 · parity with the host: 539 of 540 same answers, largest difference 0.031"
        in shown(terminal.render(documents.DOCUMENTS["eval"]))
    )
    assert "ONNX · 140 kB · 34 k parameters · 0.9 M MACs" in shown(terminal.render(documents.DOCUMENTS["inspect"]))
    compress = shown(terminal.render(documents.DOCUMENTS["compress"]))
    assert "1 of 2" in compress
    assert "fc (8 channels only)" in compress
    assert "out.onnx   140 kB -> 43.4 kB (0.31x)" in compress


def test_empty_lists_say_what_to_do_next():
    assert "next: edgelathe fit" in shown(terminal.runs({"runs": []}))
    assert "next: edgelathe device add" in shown(terminal.devices({"devices": []}))


def test_little_trust_in_times_is_said_with_its_reasons():
    document = documents.fit()
    for letter, told in (("B", False), ("D", True)):
        graded = {**document["baseline"], "grade": {"letter": letter, "reasons": ["the device throttled"]}}
        text = shown(terminal.fit({**document, "baseline": graded}))
        assert ("times of the baseline: trust D: the device throttled" in text) == told


def test_a_warning_of_a_fit_names_its_candidate_unless_it_is_about_both():
    document = documents.fit()
    base = {**document["baseline"], "warnings": ["kernels were replaced", "the governor is 'ondemand'"]}
    assert view.warnings({**document, "baseline": base}) == [
        "baseline: kernels were replaced",
        "the governor is 'ondemand'",
    ]


def test_parity_says_with_what_and_of_outputs_that_decide_nothing_too():
    document = copy.deepcopy(documents.DOCUMENTS["eval"])
    (result,) = document["results"]
    result["parity"] |= {"same": None, "missing": "tensorrt (TensorRT)"}
    assert "· parity with the host's CPU: largest difference 0.031" in shown(terminal.render(document))
