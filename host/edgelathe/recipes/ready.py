"""A recipe made ready for one model: choices made, layers known, calibration data at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgelathe.calibrate import synthetic
from edgelathe.core import dataset, profile_types
from edgelathe.core import profile as profiles
from edgelathe.core.dataset import Dataset
from edgelathe.core.device import Probe, SessionOptions
from edgelathe.core.errors import DeviceError, UserError
from edgelathe.core.profile import Hardware, Profile, runtimes_for
from edgelathe.core.recipe import Recipe, to_toml
from edgelathe.model.graph import layers
from edgelathe.model.types import Format, Model
from edgelathe.recipes.resolve import check_layers, check_size, check_weights, needs_data, resolve
from edgelathe.recipes.run import Built

_SESSION = ("runtime", "provider", "threads")
_GPU = ("CUDA", "Tensorrt", "TensorRT", "NvTensorRT")  # beginnings of providers that run on tensor cores


def choose_session(profile: Profile, format: Format, probe: Probe | None, threads: int | None = None) -> SessionOptions:
    """The profile's first way to run this format that the device has. Raises DeviceError when it has none."""
    choices = runtimes_for(profile, format, probe)
    if not choices:
        if probe is None:
            raise UserError(
                f"profile '{profile.name}'", f"has no runtime for {format} models", "choose another profile"
            )
        what = f"no runtime of profile '{profile.name}' for {format} models is there"
        raise DeviceError(probe.name, what, f"run `edgelathe device install {probe.name}`")
    first = choices[0]
    return SessionOptions(first.runtime, first.provider, threads or first.threads, dict(first.config))


def remarks(profile: Profile, format: Format, probe: Probe) -> tuple[str, ...]:
    """What a user must know where the device is not as the profile says: another machine, a runtime that is missing."""
    out = []
    if not profiles.fits(profile, probe.machine):
        out.append(f"profile '{profile.name}' is for {profile.machine}, {probe.name} is {probe.machine}")
    wanted, there = (runtimes_for(profile, format, p) for p in (None, probe))
    if wanted and there and wanted[0] != there[0]:
        first, real = wanted[0], there[0]
        out.append(
            f"{first.runtime} with {first.provider} is not there: {real.runtime} with {real.provider} runs instead"
        )
    return tuple(out)


def ready(recipe: Recipe, model: Model, hardware: Hardware, session: SessionOptions, where: str) -> Recipe:
    """The recipe resolved for `model` and `hardware`; a session that it already names stays. Raises UserError."""
    resolved = resolve(recipe, model.format, used(hardware, session), where)
    check_size(resolved, model, where)
    check_weights(resolved, model, where)
    if any(step.layers for step in resolved.steps):
        check_layers(resolved, (layer.name for layer in layers(model)), where)
    return resolved if recipe.session else replace(resolved, session=to_table(session))


def used(hardware: Hardware, session: SessionOptions) -> Hardware:
    """The hardware as a session sees it: what a GPU has does not count where the CPU runs the model."""
    if session.provider.startswith(_GPU):
        return hardware
    return replace(hardware, features=hardware.features - profile_types.GPU_FEATURES)


def to_table(session: SessionOptions) -> dict[str, str | int]:
    """Session options as the `[session]` table of a recipe, those of the provider as `provider.NAME`.

    CPUs are left out: they are those of one device at one time.
    """
    return {"runtime": session.runtime, "provider": session.provider, "threads": session.threads, **session.config}


def from_table(table: Mapping[str, Any], config: Mapping[str, str]) -> SessionOptions:
    """The inverse of `to_table`, with the entries `config` that the steps asked for."""
    entries = {k: str(v) for k, v in table.items() if k not in _SESSION}
    return SessionOptions(str(table["runtime"]), str(table["provider"]), int(table["threads"]), {**entries, **config})


def from_text(text: str) -> SessionOptions:
    """Session options as `recipes.run.session_text` writes them into a model; a value may hold semicolons."""
    table: dict[str, str] = {}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        if equals:
            table[name] = value
        elif table:
            table[next(reversed(table))] += f";{part}"
    return from_table(table, {})


def calibration(path: str | None, recipe: Recipe, model: Model, where: str) -> Dataset | None:
    """The calibration data that the recipe is run with, bound to the model; made up where none were given.

    Args:
        path: as given by the user, None where none was.
        recipe: a resolved one; where it has a `holdout`, the same part of the data is taken as when it was made.
        model: whose inputs the data must fit.
        where: the recipe's text or file, for messages.

    Raises:
        UserError: data that a step needs are not given and cannot be made up, or do not fit.
    """
    if path is None:
        step = needs_data(recipe, model.format, where)
        if step and model.external:
            what = "needs calibration data, which are not made up for a model of 2 GB and more"
            raise UserError(f"{where}: {step}", what, "give them with --data")
        return synthetic.make(model) if step else None
    data = dataset.load(path)
    if recipe.holdout:
        data = dataset.apply_holdout(data, recipe.holdout)
    return dataset.bind(data, model.signature, f"{model.name}.{model.format}")


@dataclass(frozen=True)
class Compressed:
    """A finished `compress`, ready to be shown."""

    before: Model
    built: Built
    recipe: Recipe
    path: Path

    @property
    def replay(self) -> Recipe:
        """The recipe with every choice made, those of a search too: with it the same data give the same bytes."""
        return self.built.recipe or self.recipe

    def to_json(self) -> dict[str, Any]:
        """The document `edgelathe.compress/1`."""
        options = from_table(self.recipe.session, self.built.config)
        return {
            "schema": "edgelathe.compress/1",
            "model": str(self.path),
            "recipe": str(self.recipe),
            "recipe_toml": to_toml(self.replay),
            "bytes_before": self.before.bytes,
            "bytes_after": self.built.model.bytes,
            "sha256": self.built.model.sha256,
            "options": {"runtime": options.runtime, **options.to_json()},
            "steps": [step.to_json() for step in self.built.steps],
            **({"synthetic": self.built.synthetic} if self.built.synthetic else {}),
        }
