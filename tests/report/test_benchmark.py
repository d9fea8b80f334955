"""A bench as people read it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edgelathe.measure.conditions import BUSY_SHARE
from edgelathe.report import benchmark, terminal
from edgelathe.report.benchmark import span
from support import documents

CONDITIONS = {
    "blocks": 42, "marked": {}, "temperature_c": {"cpu": [52.0, 55.0]}, "clock_khz": [1_800_000, 1_800_000],
    "others": 0.0, "unknown": [],
}  # fmt: skip


def document(**changes: Any) -> dict[str, Any]:
    made = copy.deepcopy(documents.DOCUMENTS["bench"])
    for r in made["results"]:
        r |= {"conditions": CONDITIONS, "blocks": 42, "grade": {"letter": "A", "reasons": []}, **changes}
    return made


def shown(doc: dict[str, Any]) -> str:
    return terminal.text(terminal.render(doc))


def test_the_answer_the_blocks_and_the_conditions() -> None:
    text = shown(document())
    assert "b.onnx is faster than a.onnx: 0.944x [0.939, 0.949]" in text
    assert "interleaved in 42 blocks · 52-55 °C, 1.8 GHz throughout" in text


def test_a_figure_without_any_bound_says_so() -> None:
    doc = document()
    doc["results"][0]["latency_ms"]["p50_ci"] = [None, None]
    assert "3.05 [?, ?]" in shown(doc)


def test_reasons_of_a_grade_are_told_once_where_they_are_the_same() -> None:
    same = {"letter": "C", "reasons": ["the device throttled in 12 of 42 blocks"]}
    assert shown(document(grade=same)).count("12 of 42") == 1
    doc = document(grade=same)
    doc["results"][1]["grade"] = {"letter": "A", "reasons": []}
    assert "trust C of a.onnx: the device throttled" in shown(doc)


def test_a_remark_names_the_model_unless_it_is_about_all() -> None:
    doc = document(warnings=["the provider fell back"])
    assert "! the provider fell back" in shown(doc)
    doc["results"][0]["warnings"] = ["did not settle"]
    text = shown(doc)
    assert "! a.onnx: did not settle" in text
    assert "! b.onnx: the provider fell back" in text


def test_a_failed_model_is_a_line_and_the_others_keep_theirs() -> None:
    doc = document()
    error = {"kind": "crash", "what": "the runtime ended with signal 11", "mend": "choose another"}
    doc["results"][1] |= {"latency_ms": None, "error": error}
    doc["comparisons"] = []
    text = shown(doc)
    assert "✗ b.onnx: the runtime ended with signal 11" in text
    assert "3.05" in text
    doc["results"] = doc["results"][1:]
    assert "signal 11" in shown(doc)


@pytest.mark.parametrize(("verdict", "says"), [
    ("met", "✓ a.onnx: latency.p95<=4ms met: 3.12 ms, 95 % sure of 3.14 ms"),
    ("undecided", "? a.onnx: latency.p95<=4ms undecided: 3.12 ms, 95 % sure of 3.14 ms · about 2 times the samples"),
])  # fmt: skip
def test_a_limit_shows_its_value_and_bound(verdict: str, says: str) -> None:
    line = {"model": "a.onnx", "expr": "latency.p95<=4ms", "metric": "latency.p95", "limit": 4.0, "value": 3.12,
            "bound": 3.14, "baseline": None, "verdict": verdict, "note": ""}  # fmt: skip
    line["note"] = "about 2 times the samples would settle it" if verdict == "undecided" else ""
    assert says in shown({**document(), "budget": [line]})


def test_each_scenario_says_what_its_figures_are() -> None:
    beside = documents.latency(1.0, 0.01).to_json()
    paced = {"p50_ms": 3.05, "late": 4, "back_to_back_ms": beside, "ratio": 3.05, "low": 3.0, "high": 3.1}
    text = shown(document(scenario={"name": "paced", "period_ms": 33.0, "samples": 1}, paced=paced))
    assert "a call every 33 ms" in text
    assert "a.onnx with pauses takes 3.05x [3.00, 3.10] of calls back to back (1.00 ms) · 4 calls began late" in text
    text = shown(document(scenario={"name": "offline", "samples": 64}, throughput=1234.5, throughput_ci=[1200, 1300]))
    assert "1,234 [1,200, 1,300]" in text or "1,235 [1,200, 1,300]" in text
    assert "p95" not in text
    sustained = {"steady_ms": {"value": 3.4, "low": 3.3, "high": 3.5}, "settled_s": 140.0, "onset_s": 120.0,
                 "throttled_s": 118.0, "before_ms": 3.0, "slowdown": 1.13, "windows": []}  # fmt: skip
    text = shown(document(scenario={"name": "sustained", "sustain_ms": 600e3}, sustained=sustained))
    assert "sustained: 10 min without a pause" in text
    assert "steady at 3.4 ± 0.1 ms from 2.33 min on, 1.13x of the start · slower from 2 min on" in text
    assert "interleaved" not in text
    text = shown(
        document(scenario={"name": "sustained", "sustain_ms": 600e3}, sustained={**sustained, "steady_ms": None})
    )
    assert "did not come to a steady state" in text


def test_emulated_devices_are_labelled_and_interruptions_told() -> None:
    text = shown(document(emulated=True))
    assert text.count("1 thread · session.x64quantprecision=1 · emulated") == 1  # both ran alike
    doc = document()
    doc["results"][0]["emulated"] = True
    assert "  a.onnx: onnxruntime · CPUExecutionProvider · 1 thread · session.x64quantprecision=1 · emulated" in shown(
        doc
    )
    assert "interrupted" in shown({**document(), "interrupted": True})


def test_what_is_measured_beside_the_calls() -> None:
    def claim(value: float) -> dict[str, Any]:
        return {"value": value, "lower": value, "upper": value}

    energy = {"mj_per_inference": 12.0, "low": 11.0, "high": 13.0, "tier": {"rail": "VDD_IN"}}
    footprint = {"load_ms": claim(41.0), "first_ms": claim(9.0), "peak_bytes": claim(4.1e6), "load_cold_ms": None}
    outliers = {"n": 12, "share": 0.01, "worst_ms": 9.5, "at": "clustered", "blocks": 3}
    split = {"copy_in_ms": 0.1, "compute_ms": 1.5, "copy_out_ms": 0.02}
    spread = {"values": [3.0, 3.1, 3.05], "spread": 0.033, "matters": True}
    text = shown(document(energy=energy, footprint=footprint, outliers=outliers, split=split, processes=spread))
    for part in (
        "energy 12 ± 1 mJ per inference above idling · VDD_IN", "loads in 41.0 ms", "peak memory 4.10 MB",
        "12 outliers kept, 1.0% of the calls, in 3 blocks, the slowest 9.50 ms", "copy in 100 us, compute 1.50 ms",
        "3 processes: their medians differ by 3.3 %",
    ):  # fmt: skip
        assert part in text, text


def test_a_fifth_of_the_calls_are_no_outliers() -> None:
    outliers = {"n": 300, "share": 0.21, "worst_ms": 9.5, "at": "spread", "blocks": 40}
    assert "21% of the calls are far above the median: a second level" in shown(document(outliers=outliers))


def test_spans() -> None:
    assert [span(ms) for ms in (33.0, 250.5, 8000.0, 600e3)] == ["33 ms", "250 ms", "8 s", "10 min"]


@pytest.mark.parametrize(("n", "share", "says"), [
    (1, 0.00024, "1 outlier kept, 0.02% of the calls, in 1 block, the slowest"),
    (52, 0.01237, "52 outliers kept, 1.2% of the calls"),
])  # fmt: skip
def test_outliers_are_counted_to_the_digits_that_so_few_support(n: int, share: float, says: str) -> None:
    assert says in shown(document(outliers={"n": n, "share": share, "worst_ms": 9.5, "at": "clustered", "blocks": n}))


def test_other_processes_are_told_of_where_a_grade_minds_them() -> None:
    assert benchmark.BUSY == BUSY_SHARE
    assert "others took" not in shown(document(conditions={**CONDITIONS, "others": 0.06}))
    assert "others took 12% of the CPU" in shown(document(conditions={**CONDITIONS, "others": 0.12}))


def test_models_of_the_same_file_name_are_told_apart() -> None:
    doc = document()
    doc["results"][0]["model"], doc["results"][1]["model"] = "runs/a/model.onnx", "runs/b/model.onnx"
    doc["comparisons"][0] |= {"a": "runs/a/model.onnx", "b": "runs/b/model.onnx"}
    doc["results"][1]["warnings"] = ["did not settle"]
    text = shown(doc)
    assert "\n  a/model.onnx   3.05" in text
    assert "b/model.onnx is faster than a/model.onnx" in text
    assert "! b/model.onnx: did not settle" in text


def test_grades_that_differ_in_figures_only_are_told_once() -> None:
    doc = document()
    for r, share, times in zip(doc["results"], ("82", "78"), ("1.5", "1.5"), strict=True):
        reasons = [f"other processes took {share}% of the CPU on average", f"{times} of 10 blocks"]
        r["grade"] = {"letter": "D", "reasons": reasons}
    text = shown(doc)
    assert "trust D: other processes took 78-82% of the CPU on average; 1.5 of 10 blocks" in text
    doc["results"][1]["grade"]["letter"] = "C"
    assert "trust C of b.onnx: other processes took 78%" in shown(doc)


def test_a_model_against_itself_is_told_apart_by_number() -> None:
    doc = document(warnings=[])
    for r in doc["results"]:
        r["model"] = "m.onnx"
    doc["comparisons"][0] |= {"a": "m.onnx", "b": "m.onnx", "verdict": "same"}
    line = {"model": "m.onnx", "metric": "latency.p50", "limit": 4.0, "value": 3.0, "bound": 3.0, "baseline": None,
            "verdict": "met", "note": ""}  # fmt: skip
    absolute, relative = {**line, "expr": "latency<=4ms"}, {**line, "expr": "latency<=1x"}
    doc["budget"] = [absolute, absolute, relative]
    doc["results"][1]["warnings"] = ["did not settle"]
    text = shown(doc)
    assert "m.onnx (2) and m.onnx (1) are equally fast" in text
    assert "! m.onnx (2): did not settle" in text
    assert "✓ m.onnx (1): latency<=4ms" in text
    assert "✓ m.onnx (2): latency<=4ms" in text
    assert "✓ m.onnx (2): latency<=1x" in text
    assert doc["results"][0]["model"] == "m.onnx"  # the document stays as it is
