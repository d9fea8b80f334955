from __future__ import annotations

from dataclasses import replace

from edgelathe.core.budget import parse_all
from edgelathe.core.claim import Claim
from edgelathe.core.device import SessionOptions
from edgelathe.core.result import Accuracy, Candidate, Latency
from edgelathe.fit.decide import Rules, decide
from edgelathe.fit.measured import Entry


def entry(id: str, size: int, p50: float, drop: float, *, wide: float = 0.002, status: str = "measured") -> Entry:
    latency = Latency(p50, p50, p50, p50, p50, p50, p50, 500)
    accuracy = Accuracy("top1", 0.9 - drop, 1000, 0.88 - drop, 0.92 - drop, drop, drop - wide, drop + wide)
    candidate = Candidate(
        id, f"recipe-{id}", "onnx", SessionOptions("onnxruntime", "CPUExecutionProvider"), size, id * 8, status,  # type: ignore[arg-type]
        latency=latency, accuracy=accuracy,
    )  # fmt: skip
    claims = {
        "size": Claim.of(size),
        "latency.p50": Claim(p50, p50 * 0.99, p50 * 1.01, n=500),
        "accuracy.drop": Claim(drop, drop - wide, drop + wide, n=1000),
    }
    return Entry(candidate, claims, {"latency.p50": Claim(p50, p50 * 0.99, p50 * 1.01)})


BASE = entry("baseline", 1000, 1.0, 0.0)


def rules(*budget: str, **more: bool) -> Rules:
    return Rules(parse_all(budget), **more)


def test_the_fastest_of_those_that_meet_the_budget_is_chosen() -> None:
    found = decide(
        rules("size<=0.5x", "accuracy.drop<=1%"),
        [entry("a", 500, 0.9, 0.0), entry("b", 300, 0.5, 0.005), entry("c", 200, 0.3, 0.05)],
        BASE,
    )
    assert (found.chosen, found.met) == ("b", True)
    assert [line.verdict for line in found.lines] == ["met", "met"]
    assert "recipe-b" in found.reason


def test_of_equally_fast_ones_the_smallest() -> None:
    found = decide(rules("size<=0.6x"), [entry("a", 500, 0.50, 0.0), entry("b", 300, 0.505, 0.0)], BASE)
    assert found.chosen == "b"


def test_out_of_reach_names_the_limit_and_the_closest() -> None:
    found = decide(rules("size<=0.01x"), [entry("a", 500, 0.9, 0.0), entry("b", 300, 2.0, 0.3)], BASE)
    assert (found.chosen, found.met) == ("b", False)
    assert found.lines[0].verdict == "missed"
    assert "size" in found.reason
    assert "no candidate of 2" in found.reason


def test_a_bound_that_straddles_the_limit_is_undecided() -> None:
    found = decide(rules("accuracy.drop<=1%"), [entry("a", 500, 0.9, 0.009, wide=0.005)], BASE)
    assert (found.met, found.lines[0].verdict) == (False, "undecided")
    assert found.reason.startswith("undecided")
    assert "would settle it" in found.reason


def test_lenient_judges_the_point_estimate_and_says_so() -> None:
    found = decide(rules("accuracy.drop<=1%", lenient=True), [entry("a", 500, 0.9, 0.009, wide=0.005)], BASE)
    assert found.met
    assert "--lenient" in found.reason


def test_times_of_an_emulated_device_prove_nothing_unasked() -> None:
    fast = [entry("a", 500, 0.1, 0.0)]
    held = decide(rules("latency<=0.5ms", "size<=0.5x", emulated=True), fast, BASE)
    assert (held.met, held.lines[0].verdict, held.lines[1].verdict) == (False, "undecided", "met")
    assert "emulated" in held.lines[0].note
    assert decide(rules("latency<=0.5ms", emulated=True, allow_emulated=True), fast, BASE).met


def test_what_fell_to_chance_is_never_chosen_while_there_is_another() -> None:
    found = decide(rules("size<=0.6x"), [entry("a", 100, 0.1, 0.8, status="rejected"), entry("b", 900, 1.0, 0.0)], BASE)
    assert (found.chosen, found.met) == ("b", False)


def test_where_all_fell_to_chance_the_reason_says_so() -> None:
    fell = entry("a", 100, 0.1, 0.8, status="rejected")
    fell = replace(fell, candidate=fell.candidate.with_(why="fell to chance: top1 0.1; worst layers: conv1"))
    found = decide(rules("accuracy.drop<=1%"), [fell], BASE)
    assert (found.chosen, found.met) == ("a", False)
    assert "which fell to chance: top1 0.1" in found.reason
    assert "conv1" not in found.reason


def test_with_nothing_measured_there_is_no_choice() -> None:
    failed = Entry(Candidate("a", "int8", "onnx", SessionOptions("r", "p"), status="failed", why="refused"))
    found = decide(rules("size<=0.5x"), [failed], BASE)
    assert (found.chosen, found.met) == (None, False)
    assert "int8: refused" in found.reason


def test_relative_latency_is_judged_by_the_interleaved_ratio() -> None:
    drifted = entry("a", 500, 0.5, 0.0)
    wide = Entry(drifted.candidate, drifted.claims, {"latency.p50": Claim(0.5, 0.4, 0.7)})
    line = decide(rules("latency<=0.6x"), [wide], BASE).lines[0]
    assert (line.verdict, line.bound) == ("undecided", 0.7)
