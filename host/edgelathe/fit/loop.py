"""The loop: measure the baseline, build and measure each plan, keep each answer, decide.

Devices, clock and store are arguments, so that hours of measuring can be replayed in a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.device import SessionOptions
from edgelathe.core.errors import EdgelatheError, UserError
from edgelathe.core.recipe import to_toml
from edgelathe.core.result import Candidate
from edgelathe.device.errors import ModelFailure
from edgelathe.fit.decide import Decision, Rules, decide, lines
from edgelathe.fit.measured import Entry, Measure
from edgelathe.fit.plan import Plan
from edgelathe.model.types import Model
from edgelathe.recipes.ready import from_table
from edgelathe.recipes.run import Built


class Keep(Protocol):
    """Where finished work goes, and what of it is there already."""

    def entries(self) -> Mapping[str, Entry]:
        """Finished candidates and the baseline, by id."""

    def save(self, entry: Entry, artifact: bytes | None) -> None:
        """Durable when it returns."""

    def outputs(self) -> NDArray[np.generic] | None:
        """The baseline's outputs, where they were saved."""

    def save_outputs(self, entry: Entry, outputs: NDArray[np.generic]) -> None:
        """The baseline with its outputs, so that a resumed run need not measure it again."""


@dataclass
class Timing:
    """Seconds spent, by kind of work."""

    clock: Callable[[], float]
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("compress_s", "push_s", "measure_s", "plan_s"), 0.0)
    )

    @contextmanager
    def spent(self, kind: str) -> Iterator[None]:
        """Book the time that the block takes."""
        start = self.clock()
        yield
        self.seconds[kind] += self.clock() - start


@dataclass(frozen=True)
class Outcome:
    """All entries in the order of the plan, and the decision."""

    baseline: Entry
    entries: tuple[Entry, ...]
    decision: Decision


#: (phase, candidate's text, its number, of how many)
Tell = Callable[[str, str, int, int], None]


@dataclass(frozen=True)
class Loop:
    """One run's work, with all that touches the world as arguments.

    `session` is how the baseline runs; `build` compresses by a plan; `max_time` is in seconds of the timing's clock;
    `explain` says which layers went wrong, for candidates that lost too much.
    """

    model: Model
    session: SessionOptions
    plans: Sequence[Plan]
    rules: Rules
    measure: Measure
    build: Callable[[Plan], Built]
    keep: Keep
    timing: Timing
    max_time: float | None = None
    tell: Tell = lambda phase, text, at, of: None
    explain: Callable[[Built], str] = lambda built: ""

    def run(self) -> Outcome:
        """Measure the baseline and every plan that is not kept yet, then decide.

        Raises DeviceError when the device goes away; what was finished until then is kept.
        """
        start = self.timing.clock()
        done = dict(self.keep.entries())
        outputs = self.keep.outputs()
        if "baseline" not in done or outputs is None:
            done["baseline"], outputs = self._baseline()
        for number, plan in enumerate(self.plans, 1):
            if plan.id in done:
                continue
            if self.max_time is not None and self.timing.clock() - start > self.max_time:
                break
            done[plan.id] = self._candidate(plan, number, outputs, done)
        baseline = done.pop("baseline")
        while True:
            decision = decide(self.rules, self._ordered(done), baseline)
            closest = next((p for p in self.plans if p.id == decision.chosen), None)
            if closest is None or _whole(done[closest.id], baseline):
                return Outcome(baseline, tuple(self._ordered(done)), decision)
            # its evaluation stopped early, yet none is closer
            done[closest.id] = self._again(closest, done[closest.id], outputs, baseline)

    def _ordered(self, done: Mapping[str, Entry]) -> list[Entry]:
        return [done[plan.id] for plan in self.plans if plan.id in done]

    def _baseline(self) -> tuple[Entry, NDArray[np.generic]]:
        self.tell("measuring", "baseline", 0, len(self.plans))
        with self.timing.spent("measure_s"):
            measured = self.measure.baseline()
        bare = Candidate("baseline", "", self.model.format, self.session, self.model.bytes, self.model.sha256)
        entry = Entry.of(bare, measured, "")
        self.keep.save_outputs(entry, measured.outputs)
        return entry, measured.outputs

    def _candidate(self, plan: Plan, number: int, outputs: NDArray[np.generic], done: Mapping[str, Entry]) -> Entry:
        """Build and measure one plan. What fails is a failed candidate with its reason, not a failed run."""
        toml = to_toml(plan.recipe)
        candidate = Candidate(plan.id, plan.text, self.model.format, from_table(plan.recipe.session, {}))
        artifact, built = None, None
        try:
            self.tell("compressing", plan.text, number, len(self.plans))
            with self.timing.spent("compress_s"):
                built = _built(self.build, plan)
            toml = to_toml(built.recipe or plan.recipe)
            candidate = candidate.with_(
                bytes=built.model.bytes, sha256=built.model.sha256, options=_options(plan, built)
            )
            twin = next((e.candidate for e in done.values() if e.candidate.sha256 == built.model.sha256), None)
            if twin is not None:
                same = twin.recipe or "the uncompressed model"
                entry = Entry(candidate.with_(status="rejected", why=f"the same file as {same}"), recipe_toml=toml)
                self.keep.save(entry, None)
                return entry
            self.tell("measuring", plan.text, number, len(self.plans))
            with self.timing.spent("measure_s"):
                measured = self.measure.candidate(built.model, candidate.options, outputs, whole=False)
            entry = self._explained(Entry.of(candidate, measured, toml), built, done["baseline"])
            artifact = built.model.data
        except (UserError, ModelFailure) as e:  # the recipe does not suit the model, or its result not the device
            why = _said(str(e), self.explain(built) if built is not None and "NaN" in e.what else "")
            entry = Entry(candidate.with_(status="failed", why=why), recipe_toml=toml)
        self.keep.save(entry, artifact)
        return entry

    def _explained(self, entry: Entry, built: Built, baseline: Entry) -> Entry:
        """With the reason in `why`, where the accuracy fell to chance, or is worse while a limit on it is not met."""
        accuracy = entry.candidate.accuracy
        open_ = (line for line in lines(self.rules, entry, baseline) if line.verdict != "met")
        lost = (
            accuracy is not None
            and (accuracy.drop_low or 0.0) > 0
            and any(x.metric.startswith("accuracy") for x in open_)
        )
        if entry.candidate.status != "rejected" and not lost:
            return entry
        return replace(entry, candidate=entry.candidate.with_(why=_said(entry.candidate.why, self.explain(built))))

    def _again(self, plan: Plan, entry: Entry, outputs: NDArray[np.generic], baseline: Entry) -> Entry:
        """The closest candidate on every sample."""
        self.tell("measuring on every sample", plan.text, len(self.plans), len(self.plans))
        built = self.build(plan)
        try:
            with self.timing.spent("measure_s"):
                measured = self.measure.candidate(built.model, _options(plan, built), outputs, whole=True)
        except ModelFailure as e:
            failed = entry.candidate.with_(status="failed", why=str(e), latency=None, accuracy=None)
            self.keep.save(Entry(failed, recipe_toml=entry.recipe_toml), None)
            return Entry(failed, recipe_toml=entry.recipe_toml)
        bare = entry.candidate.with_(warnings=())  # those of the first time are about figures that are gone
        whole = self._explained(Entry.of(bare, measured, entry.recipe_toml), built, baseline)
        self.keep.save(whole, built.model.data)
        return whole


def _built(build: Callable[[Plan], Built], plan: Plan) -> Built:
    """Build; a step that fails in a way nobody foresaw costs this candidate, not the hours of the others."""
    try:
        built = build(plan)
    except EdgelatheError:
        raise
    except Exception as e:
        what = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        mend = f"this is a bug, please report it (`edgelathe compress --recipe '{plan.text}' -v` shows where)"
        raise UserError(f"recipe '{plan.text}'", what, mend) from e
    if built.model.external:
        what = f"its result has {built.model.bytes / 1e9:.1f} GB, and fit takes models below 2 GB"
        raise UserError(f"recipe '{plan.text}'", what, "use `compress`, `bench` and `eval`")
    return built


def _said(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _options(plan: Plan, built: Built) -> SessionOptions:
    return from_table(plan.recipe.session, built.config)


def _whole(entry: Entry, baseline: Entry) -> bool:
    mine, its = entry.candidate.accuracy, baseline.candidate.accuracy
    return mine is None or its is None or mine.n == its.n
