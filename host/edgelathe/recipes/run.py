"""Run a resolved recipe on a model."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgelathe.calibrate.synthetic import Synthetic
from edgelathe.compress.sensitivity.explain import Explanation
from edgelathe.compress.tflite import explain as explaining
from edgelathe.compress.types import Context, Note
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.core.recipe import Recipe, Step
from edgelathe.model import io, metadata
from edgelathe.model.graph import layers
from edgelathe.model.types import Model
from edgelathe.recipes import options
from edgelathe.recipes.resolve import check_size, spec


@dataclass(frozen=True)
class StepRun:
    """What one step did: seconds, a note per layer, and where asked how the model answers since."""

    use: str
    seconds: float
    notes: tuple[Note, ...]
    explained: Explanation | None = None

    def to_json(self) -> dict[str, Any]:
        """A row of `steps` in `edgelathe.compress/1`."""
        layers = [{"layer": n.layer, "done": n.done, "what": n.what} for n in self.notes]
        row: dict[str, Any] = {"use": self.use, "seconds": round(self.seconds, 3), "layers": layers}
        return row | {"explain": self.explained.to_json()} if self.explained else row


@dataclass(frozen=True)
class Built:
    """A compressed model, what each step did, and the session entries that the model wants.

    `synthetic` says how the calibration images were made up, "" where real samples were given or none were needed.
    `recipe` is the recipe with all that steps chose by a search, so that it replays without one; None: as it was given.
    """

    model: Model
    steps: tuple[StepRun, ...] = ()
    config: Mapping[str, str] = field(default_factory=dict)
    synthetic: str = ""
    recipe: Recipe | None = None


def run(
    recipe: Recipe, model: Model, data: Dataset | None, where: str, on_step: Callable[[str], None] = lambda _: None,
    *, explain: bool = False,
) -> Built:  # fmt: skip
    """Apply every step in turn; pure but for the time it takes.

    Args:
        recipe: a resolved one; its `session` goes into the model's metadata.
        model: the uncompressed model.
        data: calibration samples bound to the model, None where there are none.
        where: the recipe's text or file, for messages.
        on_step: told the name of each step as it starts.
        explain: whether to compare the model with the uncompressed one after each step that changed it.

    Raises:
        UserError: a step needs data and there are none, or cannot take this model.
    """
    done: list[StepRun] = []
    steps: list[Step] = []
    config: dict[str, str] = {}
    current, made_up = model, ""
    twin: Model | None = None
    if explain and model.external:
        raise UserError("--explain", "does not take models of 2 GB and more", "leave it out, and compare with `eval`")
    for step in recipe.steps:
        row = spec(step, model.format, where)
        if data is None and "data" in row.needs:
            raise UserError(f"{where}: {step.use}", "needs calibration data", "give them with --data")
        if explain and (data is None or isinstance(data, Synthetic)):
            raise UserError("--explain", "needs samples to compare models on", "give them with --data")
        check_size(replace(recipe, steps=(step,)), current, where)
        on_step(step.use)
        start = time.perf_counter()
        context = Context(data=data, overrides=step.layers, reference=model, twin=twin)
        before, kept = current.sha256 if explain else "", None if row.gives_twin else current
        handed = [current]  # not held here while the step runs: it may want the memory
        del current
        applied = row.apply(handed.pop(), options.build(row.options, step.options, where), context)
        seconds = time.perf_counter() - start
        config |= applied.config
        explained = None
        if explain and data is not None and applied.model.sha256 != before:
            on_step(f"{step.use}: explain")
            explained = explaining.explain(model, applied.model, data, config)
        if row.final:
            twin = applied.twin or kept or applied.model
        current, notes, chosen = applied.model, applied.notes, applied.chosen
        del applied
        unknown = sorted(chosen.keys() - {la.name for la in layers(model)}) if chosen else []
        if unknown:
            what = (
                "the uncompressed model has no layer of this name: no recipe holds what was chosen, it is chosen anew"
            )
            notes = (*notes, Note(unknown[0], False, what))
        if isinstance(data, Synthetic) and "data" in row.needs:
            notes, made_up = (*notes, Note("model", True, f"calibrated without data: {data.how}")), data.how
        steps.append(step if unknown else _with_choices(step, chosen))
        done.append(StepRun(step.use, seconds, notes, explained))
    if made_up:
        current = metadata.write(current, metadata.CALIBRATION, f"synthetic: {made_up}")
    if recipe.session and current.sha256 != model.sha256:
        current = metadata.write(current, metadata.SESSION, session_text(recipe, config))
    io.validate(current)
    replay = replace(recipe, steps=tuple(steps))
    return Built(current, tuple(done), config, made_up, replay if replay != recipe else None)


def _with_choices(step: Step, chosen: Mapping[str, Mapping[str, Any]]) -> Step:
    """The step with overrides of each layer for what it chose, and none of these options in others' names."""
    if not chosen:
        return step
    names = {name for own in chosen.values() for name in own}
    rows = {key: {k: v for k, v in own.items() if k not in names} for key, own in step.layers.items()}
    merged = {key: own for key, own in rows.items() if own}
    for layer, choice in chosen.items():
        key = glob.escape(layer)
        merged[key] = {**merged.get(key, {}), **choice}
    return replace(step, layers=merged)


def session_text(recipe: Recipe, config: Mapping[str, str]) -> str:
    """The session options that the model is meant for: `runtime=...;provider=...;threads=...;KEY=VALUE`."""
    return ";".join(f"{k}={v}" for k, v in {**recipe.session, **config}.items())
