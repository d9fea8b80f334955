"""`in_float=measured`: the choice that a recipe leaves to the device, found and filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgelathe.compress.integer import placement
from edgelathe.core.recipe import Recipe, Value

_STEPS, _OPTION = ("int8", "mixed"), "in_float"


def asked(recipe: Recipe) -> bool:
    """Whether a step of the recipe waits for what a device is faster at."""
    return any(s.use in _STEPS and _given(s.options) == placement.MEASURED for s in recipe.steps)


def filled(recipe: Recipe, chosen: str) -> Recipe:
    """The recipe with `chosen` where it says `measured`."""
    steps = []
    for step in recipe.steps:
        rest = {k: v for k, v in step.options.items() if k.replace("-", "_") != _OPTION}
        open_ = step.use in _STEPS and _given(step.options) == placement.MEASURED
        steps.append(replace(step, options={**rest, _OPTION: chosen}) if open_ else step)
    return replace(recipe, steps=tuple(steps))


def _given(options: Mapping[str, Value]) -> Value | None:
    return next((v for k, v in options.items() if k.replace("-", "_") == _OPTION), None)
