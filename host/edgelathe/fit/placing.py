"""`in_float=measured`: which patterns of a model the device is faster at in float, timed there with micro-models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edgelathe.compress.integer import int8, micro, placement
from edgelathe.compress.sensitivity.explain import brief
from edgelathe.core.dataset import Dataset
from edgelathe.core.device import SessionOptions
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.core.recipe import Recipe
from edgelathe.device.open import Device
from edgelathe.measure import figures
from edgelathe.measure.plan import Job
from edgelathe.measure.subject import Measured, subjects
from edgelathe.measure.turns import in_turns
from edgelathe.model.types import Model
from edgelathe.recipes.open_choice import asked, filled
from edgelathe.recipes.ready import used

#: How long each form of a pattern is timed; no second try, for what is not settled stays integer.
JOB = Job(min_ms=400.0, max_ms=3000.0, percentile=0.5, cool_down_ms=0.0)

Tick = Callable[[str, float], None]


@dataclass(frozen=True)
class Timed:
    """One pattern on the device: time in float over time in integers, its 95% interval, and what that shows."""

    pattern: str
    layer: str
    ratio: float
    low: float
    high: float | None
    verdict: str

    @property
    def in_float(self) -> bool:
        """Only what is shown to be faster so: a pattern that is the same, or undecided, stays integer."""
        return self.verdict == "faster"

    def __str__(self) -> str:
        high = "?" if self.high is None else f"{self.high:.2f}"
        where = f"{self.pattern} ({brief(self.layer)})"
        return f"{where}: float takes {self.ratio:.2f}x of integer [{self.low:.2f}, {high}], {self.verdict}"


@dataclass(frozen=True, eq=False)
class Scene:
    """What is timed where: a model with data bound to it, on an open device with these features, run in this way."""

    device: Device
    model: Model
    data: Dataset
    hardware: Hardware
    session: SessionOptions
    require_provider: str | None = None
    seed: int = 0


class Placing:
    """The choice for one model and device: `kept` from before, else measured when the first recipe asks for it.

    Attributes:
        chosen: patterns as `in_float` takes them; None while nobody asked.
    """

    def __init__(self, scene: Scene, kept: str | None, say: Callable[[str], None], tick: Tick) -> None:
        self._scene, self._say, self._tick = scene, say, tick
        self.chosen = kept

    def __call__(self, recipe: Recipe) -> Recipe:
        """The recipe with the choice in the place of `measured`."""
        if not asked(recipe):
            return recipe
        if self.chosen is None:
            found = measure(self._scene, self._say, self._tick)
            self.chosen = placement.text(tuple(t.pattern for t in found if t.in_float))
        return filled(recipe, self.chosen)


def measure(scene: Scene, say: Callable[[str], None], tick: Tick) -> list[Timed]:
    """Time both forms of every pattern of the model in turns. One that the device cannot run is told and left out.

    Raises UserError where the model does not run on the data or has 2 GB and more, DeviceError where the device goes
    away.
    """
    if scene.model.external:
        raise UserError("in_float=measured", "does not take models of 2 GB and more", "name the patterns, or none")
    if scene.device.probe.emulated:
        say("in_float=measured: the device is emulated, its times prove nothing: all patterns stay integer")
        return []
    found = []
    options = int8.resolve(int8.Options(), used(scene.hardware, scene.session))
    for one in micro.micros(scene.model, options, scene.data):
        timed = _time(scene, one, lambda _, part, one=one: tick(f"{one.pattern} in float or integer", part))  # type: ignore[misc]
        if isinstance(timed, Timed):
            found.append(timed)
        say(str(timed))
    return found


def _time(scene: Scene, one: micro.Micro, tick: Tick) -> Timed | str:
    """Or why it could not be timed."""
    how = replace(scene.session, config={**scene.session.config, **one.config})
    models = [("integer", one.integer), ("float", one.real)]
    job = replace(JOB, require_provider=scene.require_provider, seed=scene.seed)
    outcome = in_turns(scene.device, subjects(models, [how, how], None, 0, scene.seed), job, tick)
    if outcome.interrupted:
        raise KeyboardInterrupt
    integer, real = outcome.measured
    failed = next((m.error for m in (integer, real) if m.error), None)
    if failed or not _timed(integer, real):
        return f"{one.pattern} ({brief(one.layer)}): stays integer, not timed: {failed.what if failed else 'too slow'}"
    got = figures.comparison(integer, real, job)
    return Timed(one.pattern, one.layer, got["ratio"], got["low"], got["high"], got["verdict"])


def _timed(*measured: Measured) -> bool:
    return all(m.groups and m.whole.calls for m in measured)
