"""The model that `simulate` runs: as given, or compressed by a recipe first; and the data it is judged on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgelathe.core import dataset
from edgelathe.model.fixed.prepare import needs_samples
from edgelathe.recipes.resolve import needs_data
from edgelathe.recipes.run import run

if TYPE_CHECKING:
    from edgelathe.core.dataset import Dataset
    from edgelathe.core.recipe import Recipe
    from edgelathe.model.fixed.prepare import Wanted
    from edgelathe.model.types import Model


@dataclass(frozen=True, eq=False)
class Subject:
    """What is simulated.

    Attributes:
        model: to be run in fixed point.
        reference: the model as given, where a recipe made another of it; None: it is the same.
        samples: bound to `model`; what it is judged on.
        calibration: bound to the model as given; None where nothing needs it.
        notes: for the user.
    """

    model: Model
    reference: Model | None
    samples: Dataset
    calibration: Dataset | None
    notes: tuple[str, ...]


def subject(
    model: Model,
    samples: Dataset,
    calib: Dataset | None,
    wanted: Wanted,
    recipe: tuple[Recipe, str] | None,
    limit: int | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Subject:
    """Compress where a recipe is given, and set a part of the samples aside where calibration data are needed.

    Args:
        model: as given.
        samples: as loaded.
        calib: calibration data as loaded, None where none were given.
        wanted: bit widths and target of the simulation.
        recipe: a resolved one, and its text for messages.
        limit: judge on so many samples.
        on_step: told the name of each step.

    Raises:
        UserError: data that do not fit, or a step that cannot take the model.
    """
    where = f"{model.name}.{model.format}"
    needed = needs_samples(model, wanted) if recipe is None else needs_data(recipe[0], model.format, recipe[1])
    notes: list[str] = []
    if needed and calib is None:
        aside, rest, _ = dataset.holdout(samples)
        whole, calib, samples = len(samples), dataset.take(samples, aside), dataset.take(samples, rest)
        notes.append(f"no --calib: {len(calib)} of the {whole} samples are for calibration, not evaluated on")
    bound = dataset.bind(calib, model.signature, where) if calib is not None else None
    if bound is not None and calib is not None:
        notes += dataset.compare(calib, samples)
    if limit is not None:
        samples = dataset.take(samples, range(min(limit, len(samples))))
    made = model if recipe is None else run(recipe[0], model, bound, recipe[1], on_step).model
    judged = dataset.bind(samples, made.signature, where)
    notes += judged.warnings
    return Subject(made, None if made is model else model, replace(judged, warnings=()), bound, tuple(notes))
