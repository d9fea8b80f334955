"""The loop with a replayed device: hours of measuring, connection losses and clocks, in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from edgelathe.core.budget import parse_all
from edgelathe.core.claim import Claim
from edgelathe.core.device import SessionOptions
from edgelathe.core.errors import DeviceError, UserError
from edgelathe.core.recipe import Step, from_toml, parse
from edgelathe.core.result import Accuracy, Latency
from edgelathe.core.signature import Signature
from edgelathe.device.errors import ModelFailure
from edgelathe.fit.decide import Rules
from edgelathe.fit.loop import Loop, Timing
from edgelathe.fit.measured import Entry, Measured
from edgelathe.fit.plan import Plan
from edgelathe.model.external import External
from edgelathe.model.types import Model
from edgelathe.recipes.ready import to_table
from edgelathe.recipes.run import Built

SESSION = SessionOptions("onnxruntime", "CPUExecutionProvider")
TOTAL = 100


def model(name: str, size: int) -> Model:
    return Model("onnx", name.encode().ljust(size, b"."), name, Signature((), ()))


def plan(id: str, text: str = "int8") -> Plan:
    return Plan(id, text, replace(parse(text), session=to_table(SESSION)))


@dataclass
class Replay:
    """A device that answers from a table: by model name (drop, p50), or raises."""

    answers: Mapping[str, tuple[float, float] | Exception]
    stops_early: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)

    def baseline(self) -> Measured:
        self.asked.append("baseline")
        return self._answer("baseline", 1000, 0.0, 1.0, TOTAL)

    def candidate(self, model: Model, options: SessionOptions, outputs: np.ndarray, *, whole: bool) -> Measured:
        assert len(outputs) == TOTAL
        self.asked.append(f"{model.name}{' whole' if whole else ''}")
        answer = self.answers[model.name]
        if isinstance(answer, Exception):
            raise answer
        n = 10 if model.name in self.stops_early and not whole else TOTAL
        return self._answer(model.name, model.bytes, *answer, n)

    def _answer(self, name: str, size: int, drop: float, p50: float, n: int) -> Measured:
        latency = Latency(p50, p50, p50, p50, p50, p50, p50, 200)
        claims = {"size": Claim.of(size), "latency.p50": Claim.of(p50), "accuracy.drop": Claim.of(drop)}
        accuracy = Accuracy("top1", 0.9 - drop, n, 0.8, 1.0, drop, drop, drop)
        said = (f"{name}: of {n} samples",)
        return Measured(SESSION, latency, accuracy, claims, {}, np.zeros((n, 2)), 5.0, warnings=said)


@dataclass
class Shelf:
    kept: dict[str, Entry] = field(default_factory=dict)
    out: np.ndarray | None = None

    def entries(self) -> dict[str, Entry]:
        return self.kept

    def save(self, entry: Entry, artifact: bytes | None) -> None:
        self.kept = {**self.kept, entry.candidate.id: entry}

    def outputs(self) -> np.ndarray | None:
        return self.out

    def save_outputs(self, entry: Entry, outputs: np.ndarray) -> None:
        self.save(entry, None)
        self.out = outputs


def loop(measure: Replay, keep: Shelf, plans: list[Plan], *budget: str, clock: object = None, **more: object) -> Loop:
    built = {p.id: Built(model(p.id, 300 + 100 * i)) for i, p in enumerate(plans)}

    def build(p: Plan) -> Built:
        if p.text == "sparse":
            raise UserError("recipe 'sparse'", "does not fit", "leave it out")
        if p.text == "fold":
            return Built(replace(model(p.id, 900), external=External((memoryview(bytes(100)),))))
        return built[p.id]

    timing = Timing(clock or (lambda: 0.0))  # type: ignore[arg-type]
    rules = Rules(parse_all(budget))
    return Loop(model("m", 1000), SESSION, plans, rules, measure, build, keep, timing, **more)  # type: ignore[arg-type]


def test_what_was_measured_before_a_lost_connection_is_not_measured_again() -> None:
    keep = Shelf()
    plans = [plan("a"), plan("b"), plan("c")]
    broken = Replay({"a": (0.0, 0.9), "b": DeviceError("cam", "connection lost", "check it")})
    with pytest.raises(DeviceError):
        loop(broken, keep, plans, "size<=0.5x").run()
    assert set(keep.kept) == {"baseline", "a"}
    before = {k: e.candidate for k, e in keep.kept.items()}
    healed = Replay({"b": (0.0, 0.5), "c": (0.0, 0.7)})
    outcome = loop(healed, keep, plans, "size<=0.5x").run()
    assert healed.asked == ["b", "c"]
    assert {k: e.candidate for k, e in keep.kept.items() if k in before} == before
    assert [e.candidate.id for e in outcome.entries] == ["a", "b", "c"]
    assert outcome.decision.met


def test_a_candidate_that_fails_is_an_answer_and_the_rest_goes_on() -> None:
    refused = ModelFailure("cam", "the runtime refused it", "leave it out", "model")
    measure = Replay({"a": refused, "c": (0.0, 0.7)})
    outcome = loop(measure, Shelf(), [plan("a"), plan("b", "sparse"), plan("c")], "size<=0.5x").run()
    assert [e.candidate.status for e in outcome.entries] == ["failed", "failed", "measured"]
    assert "refused" in outcome.entries[0].candidate.why
    assert "does not fit" in outcome.entries[1].candidate.why
    assert outcome.decision.chosen == "c"


def test_a_candidate_that_grew_beyond_what_a_protobuf_holds_fails() -> None:
    outcome = loop(Replay({"b": (0.0, 0.7)}), Shelf(), [plan("a", "fold"), plan("b")], "size<=0.5x").run()
    assert [e.candidate.status for e in outcome.entries] == ["failed", "measured"]
    assert "fit takes models below 2 GB; use `compress`, `bench` and `eval`" in outcome.entries[0].candidate.why


def test_the_closest_candidate_is_evaluated_on_every_sample() -> None:
    measure = Replay({"a": (0.3, 0.9)}, stops_early=frozenset({"a"}))
    outcome = loop(measure, Shelf(), [plan("a")], "accuracy.drop<=1%").run()
    assert measure.asked == ["baseline", "a", "a whole"]
    accuracy = outcome.entries[0].candidate.accuracy
    assert accuracy is not None
    assert accuracy.n == TOTAL
    assert not outcome.decision.met
    assert outcome.entries[0].candidate.warnings == (f"a: of {TOTAL} samples",)  # not those of the first time too


def test_time_is_up_before_all_candidates_are_measured() -> None:
    ticks = iter(range(0, 10_000, 10))
    measure = Replay({"a": (0.0, 0.9), "b": (0.0, 0.9), "c": (0.0, 0.9)})
    plans = [plan("a"), plan("b"), plan("c")]
    outcome = loop(measure, Shelf(), plans, "size<=0.9x", clock=lambda: float(next(ticks)), max_time=60.0).run()
    assert measure.asked == ["baseline", "a"]
    assert outcome.decision.chosen == "a"


def test_evidence_survives_the_store() -> None:
    outcome = loop(Replay({"a": (0.0, 0.9)}), Shelf(), [plan("a")], "size<=0.5x").run()
    entry = outcome.entries[0]
    assert Entry.restore(entry.candidate, entry.evidence(), entry.recipe_toml) == entry


def test_what_steps_chose_stands_in_the_recipe_that_is_kept() -> None:
    made = replace(plan("a").recipe, steps=(Step("int8", {}, {"head": {"weights": 5}}),))
    work = loop(Replay({"a": (0.0, 0.9)}), Shelf(), [plan("a")], "size<=0.5x")
    outcome = replace(work, build=lambda p: Built(model("a", 300), recipe=made)).run()
    assert from_toml(outcome.entries[0].recipe_toml, "recipe.toml") == made


def test_a_file_that_is_there_already_is_not_measured_twice() -> None:
    measure = Replay({"a": (0.0, 0.9)})
    plans = [plan("a"), plan("b", "prune+int8")]
    work = loop(measure, Shelf(), plans, "size<=0.5x")
    same = replace(work, build=lambda p: Built(model("a", 300)))
    outcome = same.run()
    assert measure.asked == ["baseline", "a"]
    assert outcome.entries[1].candidate.status == "rejected"
    assert "the same file as int8" in outcome.entries[1].candidate.why


def test_a_step_with_a_bug_costs_its_candidate_only() -> None:
    def build(p: Plan) -> Built:
        if p.id == "a":
            raise ValueError("need at least one array to concatenate")
        return Built(model(p.id, 300))

    work = loop(Replay({"b": (0.0, 0.9)}), Shelf(), [plan("a"), plan("b", "fp16")], "size<=0.5x")
    outcome = replace(work, build=build).run()
    assert [e.candidate.status for e in outcome.entries] == ["failed", "measured"]
    assert "bug" in outcome.entries[0].candidate.why
    assert outcome.decision.chosen == "b"


def test_the_choice_has_seen_every_sample_even_when_the_closest_changes() -> None:
    measure = Replay({"a": (0.3, 0.9), "b": (0.4, 0.9)}, stops_early=frozenset({"a", "b"}))
    answers = {"a": (0.6, 0.9), "b": (0.4, 0.9)}
    early = dict(measure.answers)

    class Worse(Replay):
        def candidate(self, model: Model, options: SessionOptions, outputs: np.ndarray, *, whole: bool) -> Measured:
            self.answers = answers if whole else early
            return super().candidate(model, options, outputs, whole=whole)

    worse = Worse(early, frozenset({"a", "b"}))
    outcome = loop(worse, Shelf(), [plan("a"), plan("b", "fp16")], "accuracy.drop<=1%").run()
    assert worse.asked == ["baseline", "a", "b", "a whole", "b whole"]
    assert outcome.decision.chosen == "b"


def test_a_candidate_that_lost_too_much_says_which_layers() -> None:
    measure = Replay({"a": (0.3, 0.9), "b": (0.0, 0.9)})
    work = loop(measure, Shelf(), [plan("a"), plan("b", "fp16")], "accuracy.drop<=1%")
    outcome = replace(work, explain=lambda built: f"worst layers of {built.model.name}: conv1").run()
    lost, kept = outcome.entries
    assert lost.candidate.why.endswith("worst layers of a: conv1")
    assert "conv1" not in kept.candidate.why


def test_nan_is_explained_and_other_failures_are_not() -> None:
    nan = ModelFailure("fake", "NaN in the outputs of 3 of 100 samples", "leave the step out", "model")
    refused = ModelFailure("fake", "refused", "try again", "model")
    work = loop(Replay({"a": nan, "b": refused}), Shelf(), [plan("a"), plan("b", "fp16")], "size<=0.5x")
    outcome = replace(work, explain=lambda built: "worst layers: conv1 (values overflow)").run()
    assert outcome.entries[0].candidate.why.endswith("worst layers: conv1 (values overflow)")
    assert "conv1" not in outcome.entries[1].candidate.why


def test_a_loss_within_the_limit_needs_no_reason() -> None:
    work = loop(Replay({"a": (0.05, 0.9)}), Shelf(), [plan("a")], "accuracy.drop<=50%")
    outcome = replace(work, explain=lambda built: "worst layers: conv1").run()
    assert outcome.decision.met
    assert "conv1" not in outcome.entries[0].candidate.why
