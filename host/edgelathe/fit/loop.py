"""The loop: measure the baseline, build and measure each plan, keep each answer, decide.

Devices, clock and store are arguments, so that hours of measuring can be replayed in a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.device import SessionOptions
from edgelathe.core.errors import UserError
from edgelathe.core.recipe import to_toml
from edgelathe.core.result import Candidate
from edgelathe.device.errors import ModelFailure
from edgelathe.fit.decide import Decision, Rules, decide
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
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("compress_s", "push_s", "measure_s", "plan_s"), 0.0))

    def spend(self, kind: str, start: float) -> None:
        """Book the time since `start`."""
        self.seconds[kind] += self.clock() - start


@dataclass(frozen=True)
class Outcome:
    """All entries in the order of the plan, and the decision."""

    baseline: Entry
    entries: tuple[Entry, ...]
    decision: Decision


#: (phase, candidate's text, its number, of how many)
Tell = Callable[[str, str, int, int], None]


def run(
    model: Model,
    session: SessionOptions,
    plans: Sequence[Plan],
    rules: Rules,
    measure: Measure,
    build: Callable[[Plan], Built],
    keep: Keep,
    timing: Timing,
    *,
    max_time: float | None = None,
    tell: Tell = lambda phase, text, at, of: None,
) -> Outcome:
    """Measure the baseline and every plan that is not in `keep` yet, then decide.

    Raises DeviceError when the device goes away; what was finished until then is in `keep`.
    """
    start = timing.clock()
    done = dict(keep.entries())
    outputs = keep.outputs()
    if "baseline" not in done or outputs is None:
        tell("measure", "baseline", 0, len(plans))
        at = timing.clock()
        measured = measure.baseline()
        timing.spend("measure_s", at)
        bare = Candidate("baseline", "", model.format, session, model.bytes, model.sha256)
        done["baseline"] = Entry.of(bare, measured, "")
        outputs = measured.outputs
        keep.save_outputs(done["baseline"], outputs)
    for number, plan in enumerate(plans, 1):
        if plan.id in done:
            continue
        if max_time is not None and timing.clock() - start > max_time:
            break
        done[plan.id] = _one(plan, model, measure, build, keep, timing, outputs, lambda phase, p=plan, n=number: tell(phase, p.text, n, len(plans)))
    baseline = done["baseline"]
    entries = [done[plan.id] for plan in plans if plan.id in done]
    decision = decide(rules, entries, baseline)
    chosen = next((p for p in plans if p.id == decision.chosen), None)
    if chosen and not _whole(done[chosen.id], baseline):  # its evaluation stopped early, and it is the closest all the same
        tell("measure", f"{chosen.text} on every sample", len(plans), len(plans))
        built = build(chosen)
        again = measure.candidate(built.model, _options(chosen, built), outputs, whole=True)
        done[chosen.id] = Entry.of(done[chosen.id].candidate, again, to_toml(chosen.recipe))
        keep.save(done[chosen.id], built.model.data)
        entries = [done[plan.id] for plan in plans if plan.id in done]
        decision = decide(rules, entries, baseline)
    return Outcome(baseline, tuple(entries), decision)


def _one(
    plan: Plan,
    model: Model,
    measure: Measure,
    build: Callable[[Plan], Built],
    keep: Keep,
    timing: Timing,
    outputs: NDArray[np.generic],
    tell: Callable[[str], None],
) -> Entry:
    """Build and measure one plan. What fails is a failed candidate with its reason, not a failed run."""
    toml = to_toml(plan.recipe)
    candidate = Candidate(plan.id, plan.text, model.format, from_table(plan.recipe.session, {}))
    try:
        tell("compress")
        at = timing.clock()
        built = build(plan)
        timing.spend("compress_s", at)
        candidate = candidate.with_(
            bytes=built.model.bytes, sha256=built.model.sha256, options=_options(plan, built), status="running"
        )
        tell("measure")
        at = timing.clock()
        entry = Entry.of(candidate, measure.candidate(built.model, candidate.options, outputs, whole=False), toml)
        timing.spend("measure_s", at)
        artifact = built.model.data
    except (UserError, ModelFailure) as e:  # this recipe does not suit this model, or its result not this device
        entry, artifact = Entry(candidate.with_(status="failed", why=str(e)), recipe_toml=toml), None
    keep.save(entry, artifact)
    return entry


def _options(plan: Plan, built: Built) -> SessionOptions:
    return from_table(plan.recipe.session, built.config)


def _whole(entry: Entry, baseline: Entry) -> bool:
    mine, its = entry.candidate.accuracy, baseline.candidate.accuracy
    return mine is None or its is None or mine.n == its.n
