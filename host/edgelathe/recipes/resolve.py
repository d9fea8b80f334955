"""From a recipe as written to one with every choice made, so that it replays without the device."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import replace

from edgelathe.compress.types import WEIGHTED, StepSpec
from edgelathe.core.errors import UserError, nearest
from edgelathe.core.profile import Hardware
from edgelathe.core.recipe import Recipe, Step, Value
from edgelathe.model.onnx import weight_types
from edgelathe.model.types import Format, Model
from edgelathe.recipes import options
from edgelathe.recipes.table import STEPS


def spec(step: Step, format: Format, where: str) -> StepSpec:
    """The row of the table for a step. Raises UserError with the nearest name, or the formats that have the step."""
    by_format = STEPS.get(step.use)
    if by_format is None:
        raise UserError(where, f"no step '{step.use}'", nearest(step.use, STEPS))
    if format not in by_format:
        have = [name for name, row in STEPS.items() if format in row]
        raise UserError(where, f"'{step.use}' is not for {format} models", "choose from " + ", ".join(have))
    return by_format[format]


def resolve(recipe: Recipe, format: Format, hardware: Hardware, where: str) -> Recipe:
    """The recipe with the steps that others ask for put before them, and every option written out.

    Args:
        recipe: as the user wrote it.
        format: of the model that it is for.
        hardware: decides the options that were left open.
        where: the recipe's text or file, for messages.

    Raises:
        UserError: an unknown step or option, a value out of range, a step behind one that takes none.
    """
    steps: list[Step] = []
    closed: str | None = None
    for step in recipe.steps:
        row = spec(step, format, where)
        for wanted in row.after:
            if wanted not in {s.use for s in steps} | {s.use for s in recipe.steps}:
                steps.append(_resolved(Step(wanted), spec(Step(wanted), format, where), hardware, where))
        if closed and not row.corrects:
            raise UserError(where, f"'{step.use}' comes after '{closed}'", f"put {closed} last")
        if row.corrects and step is recipe.steps[0]:
            raise UserError(where, f"'{step.use}' has no step before it to correct", f"write int8+{step.use}")
        steps.append(_resolved(step, row, hardware, where))
        closed = step.use if row.final else closed
    return replace(recipe, steps=tuple(steps))


def check_layers(recipe: Recipe, layers: Iterable[str], where: str) -> None:
    """Raises UserError when an override names a layer, or a pattern, that the model does not have."""
    names = list(layers)
    for step in recipe.steps:
        for pattern in step.layers:
            if not fnmatch.filter(names, pattern):
                raise UserError(
                    f"{where}: {step.use}.layers",
                    f"no layer '{pattern}'",
                    nearest(pattern, names, "see `edgelathe inspect`"),
                )


def needs_data(recipe: Recipe, format: Format, where: str) -> str | None:
    """The first step that cannot do without calibration data, if any."""
    return next((s.use for s in recipe.steps if "data" in spec(s, format, where).needs), None)


def check_size(recipe: Recipe, model: Model, where: str) -> None:
    """Raises UserError where a step does not take a model as large as this one."""
    for step in recipe.steps if model.external else ():
        if not spec(step, model.format, where).large:
            able = ", ".join(name for name, rows in STEPS.items() if model.format in rows and rows[model.format].large)
            what = f"'{step.use}' does not take models of 2 GB and more, and this one has {model.bytes / 1e9:.1f} GB"
            raise UserError(where, what, f"choose from {able}")


def check_weights(recipe: Recipe, model: Model, where: str) -> None:
    """Raises UserError where a step takes weights in float32, and the layers that it changes have none."""
    for step in recipe.steps if model.format == "onnx" else ():
        row = spec(step, model.format, where)
        types = weight_types(model, row.ops & WEIGHTED) if row.float32 else frozenset[str]()
        if types and "float32" not in types:
            what = f"takes weights in float32, those of this model are {' and '.join(sorted(types))}"
            raise UserError(f"{where}: {step.use}", what, "export the model in float32")


def _resolved(step: Step, row: StepSpec, hardware: Hardware, where: str) -> Step:
    inside = f"{where}: {step.use}"
    chosen = row.resolve(options.build(row.options, step.options, inside), hardware)
    return Step(
        step.use, options.written(chosen), {k: _override(v, row, f"{inside}: {k}") for k, v in step.layers.items()}
    )


def _override(written: Mapping[str, Value], row: StepSpec, where: str) -> dict[str, Value]:
    rest = {k: v for k, v in written.items() if k != "skip"}
    checked = options.build(row.options, rest, where)
    given = {k.replace("-", "_") for k in rest}
    out: dict[str, Value] = {k: v for k, v in options.written(checked).items() if k in given}
    if "skip" in written:
        if not isinstance(written["skip"], bool):
            raise UserError(f"{where}: skip", f"{written['skip']!r} is not true or false", "write skip = true")
        out["skip"] = written["skip"]
    return out
