"""The document of a bench, from sessions on a made-up clock."""

import json
from functools import partial

import pytest

from edgelathe.core.budget import parse_all
from edgelathe.device.errors import ModelFailure
from edgelathe.measure import bench as benches
from edgelathe.measure import interleave, turns
from edgelathe.measure.bench import bench_document, code
from edgelathe.measure.cooldown import cool_down
from edgelathe.measure.plan import Job, scenario
from edgelathe.report import terminal
from support import schemas
from support.benching import OPTIONS, FakeDevice, models

CRASH = ModelFailure("fake", "the runtime ended with signal 11", "choose another runtime", "crash")


def bench(device, n=1, **job):
    more = {"min_ms": 500.0, "max_ms": 3000.0, "cool_down_ms": 0.0, **job}
    document = bench_document(device, models(n), [OPTIONS] * n, None, Job(**more))
    schemas.validate(document)
    json.dumps(document, allow_nan=False)
    assert terminal.text(terminal.render(document))
    return document


def noisy(*ms, **more):
    device = FakeDevice(**more)
    device._calls = tuple(device.noisy(m) for m in ms)
    return device


def test_one_model_without_a_question_takes_the_least_time():
    device = noisy(1.0)
    (r,) = bench(device)["results"]
    assert 0.9 < r["latency_ms"]["p50"] < 1.1
    assert r["latency_ms"]["p95"] <= r["latency_ms"]["p95_bound"] <= r["latency_ms"]["p95_ci"][1]
    assert 500 <= device.machine.ns / 1e6 < 1500
    assert r["looks"] == 1
    assert all(s.closed for s in device.sessions)


def test_quiet_machines_earn_an_a_and_what_was_the_matter_is_told():
    assert bench(noisy(1.0))["results"][0]["grade"] == {"letter": "A", "reasons": []}
    hot = noisy(1.0)
    hot.machine.throttled = True
    r = bench(hot)["results"][0]
    assert r["grade"]["letter"] == "D"
    assert r["conditions"]["marked"] == {"throttled": r["blocks"]}


def test_a_comparison_ends_once_it_has_a_verdict():
    quick = noisy(1.0, 1.5)
    document = bench(quick, 2, max_ms=30_000.0)
    assert [c["verdict"] for c in document["comparisons"]] == ["slower"]
    assert quick.machine.ns / 1e9 < 5
    device = FakeDevice()
    device._calls = (device.noisy(1.0, 0.5), device.noisy(1.03, 0.5))
    again = bench(device, 2, max_ms=30_000.0)
    assert again["results"][0]["looks"] > 1
    assert device.machine.ns > quick.machine.ns


def test_all_pairs_are_compared():
    document = bench(noisy(1.0, 1.2, 2.0), 3)
    assert [(c["a"], c["b"]) for c in document["comparisons"]] == [
        ("a.onnx", "b.onnx"), ("a.onnx", "c.onnx"), ("b.onnx", "c.onnx"),
    ]  # fmt: skip
    assert all(c["low"] <= c["ratio"] <= c["high"] for c in document["comparisons"])


def test_a_budget_is_judged_by_its_bound_for_each_model():
    limits = parse_all(["latency.p95<=1.5ms", "throughput>=100/s", "size<=0.5x"])
    document = bench(noisy(1.0, 2.0), 2, limits=limits)
    verdicts = {(line["model"], line["metric"]): line["verdict"] for line in document["budget"]}
    assert verdicts == {
        ("a.onnx", "latency.p95"): "met", ("b.onnx", "latency.p95"): "missed",
        ("a.onnx", "throughput"): "met", ("b.onnx", "throughput"): "met",
        ("b.onnx", "size"): "missed",
    }  # fmt: skip
    assert code(document) == 1
    assert code(bench(noisy(1.0), limits=parse_all(["latency<=2ms"]))) == 0


def test_relative_limits_are_judged_by_the_ratio_in_turns():
    document = bench(noisy(1.0, 0.4), 2, limits=parse_all(["latency<=0.5x", "throughput>=2x"]))
    assert [(line["model"], line["verdict"]) for line in document["budget"]] == [("b.onnx", "met")] * 2
    assert document["budget"][0]["limit"] == pytest.approx(0.5 * document["budget"][0]["baseline"])


def test_an_emulated_device_proves_no_time_unless_allowed():
    limits = parse_all(["latency<=2ms", "size<=1MB"])
    document = bench(noisy(1.0, emulated=True), limits=limits)
    assert [line["verdict"] for line in document["budget"]] == ["undecided", "met"]
    assert document["results"][0]["emulated"] is True
    assert document["results"][0]["grade"]["letter"] == "D"
    assert code(document) == 1
    assert code(bench(noisy(1.0, emulated=True), limits=limits, allow_emulated=True)) == 0


def test_a_model_that_fails_leaves_the_others_their_results():
    device = FakeDevice()
    device._calls = (device.noisy(1.0), CRASH, device.noisy(2.0))
    document = bench(device, 3)
    assert [bool(r["latency_ms"]) for r in document["results"]] == [True, False, True]
    assert document["results"][1]["error"]["kind"] == "crash"
    assert [(c["a"], c["b"]) for c in document["comparisons"]] == [("a.onnx", "c.onnx")]
    assert code(document) == 1


def test_a_model_that_fails_while_it_is_timed():
    device = FakeDevice()

    def dying(i):
        if i > 700:
            raise CRASH
        return 1e6

    device._calls = (device.noisy(1.0), dying)
    document = bench(device, 2, min_ms=2000.0)
    assert document["results"][1]["error"]["what"] == "the runtime ended with signal 11"
    assert document["results"][0]["latency_ms"]["n"] > 500


def test_when_all_fail_the_first_reason_is_the_answer():
    with pytest.raises(ModelFailure, match="signal 11"):
        bench(FakeDevice(CRASH), 2)


def test_paced_calls_are_compared_with_calls_back_to_back():
    device = FakeDevice()
    session_gap = lambda i: (3e6 if device.sessions[0].asked[-1][1].period_ms else 1e6) + (i % 7) * 1e3  # noqa: E731
    device._calls = (session_gap,)
    document = bench(device, scenario=scenario(period_ms=33), max_ms=10_000.0, limits=parse_all(["latency.paced<=2ms"]))
    (r,) = document["results"]
    assert r["paced"]["p50_ms"] == r["latency_ms"]["p50"] == pytest.approx(3, rel=0.01)
    assert r["paced"]["ratio"] == pytest.approx(3, rel=0.01)
    assert r["paced"]["back_to_back_ms"]["p50"] == pytest.approx(1, rel=0.01)
    assert document["budget"][0]["verdict"] == "missed"


def test_a_multi_stream_query_takes_its_samples_at_once():
    device = noisy(1.0)
    (r,) = bench(device, scenario=scenario("multi-stream"), percentile=0.99)["results"]
    assert (device.sessions[0].streams, r["scenario"]["samples"]) == (8, 8)
    assert r["throughput"] == pytest.approx(8 * 1000 / r["latency_ms"]["mean"])
    assert r["latency_ms"]["n"] >= 2 * 299
    firsts = [first for first, load in device.sessions[0].asked if load.samples == 8]
    assert all(first % 8 == 0 for first in firsts)


def test_offline_queries_are_long_and_the_figure_is_a_rate():
    device = noisy(1.0, 1.5)
    limits = parse_all(["throughput>=1500/s"])
    document = bench(device, 2, scenario=scenario("offline", streams=2), limits=limits)
    a = document["results"][0]
    assert a["latency_ms"]["p50"] >= 90
    assert a["throughput"] == pytest.approx(2000, rel=0.05)
    assert a["throughput_ci"][0] <= a["throughput"] <= a["throughput_ci"][1]
    assert document["comparisons"][0]["ratio"] == pytest.approx(1.5, rel=0.05)
    assert [line["verdict"] for line in document["budget"]] == ["met", "missed"]
    assert not any("too few" in w for w in a["warnings"])


def test_processes_are_fresh_and_their_spread_is_in_the_interval():
    device = FakeDevice()
    device._calls = tuple((lambda i, p=p: 1e6 * (1 + 0.1 * p) + i % 5) for p in range(3))
    (r,) = bench(device, processes=3)["results"]
    assert len(device.sessions) == 3
    assert r["processes"]["matters"]
    assert r["latency_ms"]["p50_ci"][0] < 1.0
    assert r["latency_ms"]["p50_ci"][1] > 1.2
    assert any("memory layout" in w for w in r["warnings"])


def test_too_few_samples_is_an_answer():
    (r,) = bench(noisy(200.0), percentile=0.99)["results"]
    assert r["latency_ms"]["p99_bound"] is None
    assert r["latency_ms"]["p99_ci"][1] is None
    assert any("a bound needs 299" in w for w in r["warnings"])
    assert r["grade"]["letter"] == "C"


def test_bad_conditions_are_measured_again_after_a_cool_down(monkeypatch):
    device = noisy(1.0)
    device.machine.throttled = True
    waits = []

    def cooler(on, most_ms, tick):
        waits.append(most_ms)
        on.machine.throttled = len(waits) < 2
        return True

    monkeypatch.setattr(turns, "cool_down", cooler)
    (r,) = bench(device, cool_down_ms=5000.0)["results"]
    assert (r["tries"], r["grade"]["letter"]) == (3, "A")
    assert waits == [5000.0, 5000.0]


def test_bad_conditions_that_last_are_reported(monkeypatch):
    device = noisy(1.0)
    device.machine.others = 0.6
    wait = partial(cool_down, clock=lambda: device.machine.ns / 1e9, sleep=lambda s: device.machine.pass_(int(s * 1e9)))
    monkeypatch.setattr(turns, "cool_down", wait)
    (r,) = bench(device, cool_down_ms=60_000.0)["results"]
    assert r["tries"] == 1
    assert any("waiting did not help" in w for w in r["warnings"])
    assert r["grade"]["letter"] == "D"


def test_ctrl_c_keeps_whole_rounds():
    device = FakeDevice()

    def stopped(i):
        if device.machine.ns > 1.2e9:
            raise KeyboardInterrupt
        return 1e6 + i % 7

    device._calls = (stopped,)
    document = bench(device, 2, min_ms=5000.0, max_ms=5000.0)
    assert document["interrupted"]
    assert code(document) == 130
    a, b = document["results"]
    assert a["blocks"] == b["blocks"] > 0
    assert document["comparisons"][0]["verdict"] in ("same", "undecided")


def test_ctrl_c_before_anything_was_measured():
    def stopped(_):
        raise KeyboardInterrupt

    document = bench(FakeDevice(stopped))
    assert code(document) == 130
    assert document["results"][0]["latency_ms"] is None


def test_sustained_models_follow_one_another_and_are_not_compared(monkeypatch):
    monkeypatch.setattr(benches, "cool_down", lambda *_: True)
    device = FakeDevice()

    def heating(i):
        return (1.0e6 if i < 4000 else 1.5e6) * (1 + 0.01 * abs(device.machine.rng.normal()))

    device._calls = (heating, device.noisy(1.0))
    limits = parse_all(["latency.sustained<=1.2ms"])
    document = bench(device, 2, scenario=scenario(sustain_ms=20_000), limits=limits, cool_down_ms=1000.0)
    hot, cold = (r["sustained"] for r in document["results"])
    assert document["comparisons"] == []
    assert hot["steady_ms"]["value"] == pytest.approx(1.5, rel=0.02)
    assert hot["slowdown"] == pytest.approx(1.5, rel=0.03)
    assert 2 < hot["onset_s"] < 6
    assert (cold["onset_s"], cold["settled_s"]) == (None, 0.0)
    assert len(hot["windows"]) == 40
    assert [line["verdict"] for line in document["budget"]] == ["missed", "met"]


def test_a_run_that_never_settles_has_no_steady_figure():
    device = FakeDevice()
    device._calls = (lambda i: 1e6 * (1 + i / 8000) + i % 7,)
    limits = parse_all(["latency.sustained<=10ms"])
    document = bench(device, scenario=scenario(sustain_ms=20_000), limits=limits)
    (r,) = document["results"]
    assert r["sustained"]["steady_ms"] is None
    assert any("--sustain more" in w for w in r["warnings"])
    assert document["budget"][0]["verdict"] == "undecided"


def test_millions_of_samples_are_summed_up_from_fewer_and_counted_whole(monkeypatch):
    monkeypatch.setattr(interleave, "MANY", 100)
    device = FakeDevice()
    device._calls = (lambda i: 1e6 + (5e7 if i == 333 else i % 100),)
    (r,) = bench(device)["results"]
    assert r["latency_ms"]["n"] > 400
    assert r["latency_ms"]["max"] > 50
    assert r["outliers"]["n"] == 1
