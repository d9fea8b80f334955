"""What `bench` is asked to do: the scenario, how long, and under which budget. Plain values, checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edgelathe.core import budget
from edgelathe.core.budget import Limit
from edgelathe.core.errors import UserError, nearest
from edgelathe.stats.latency import QUANTILES
from edgelathe.stats.quantile import samples_needed

Name = Literal["single-stream", "multi-stream", "offline", "paced", "sustained"]

SCENARIOS: tuple[Name, ...] = ("single-stream", "multi-stream", "offline")

#: Samples of a multi-stream query in MLPerf LoadGen.
STREAMS = 8

#: Time that each model is measured: at least, and at most where something is left to settle.
MIN_MS, MAX_MS = 2000.0, 30_000.0

#: How often a measurement is repeated whose conditions were bad.
TRIES = 3


@dataclass(frozen=True)
class Scenario:
    """How samples reach the model, after MLPerf LoadGen: a query follows when the one before is done.

    Attributes:
        name: single-stream: a query is one call. multi-stream: `streams` samples at once. offline: many samples,
            as fast as they go. paced: single-stream, with a query every `period_ms`. sustained: single-stream for
            `sustain_ms`.
        streams: samples of a multi-stream query; calls at once when offline (0: as many as the cores hold).
        batch: samples of a call (0: one, or the model's fixed batch).
    """

    name: Name = "single-stream"
    streams: int = 1
    batch: int = 0
    period_ms: float = 0.0
    sustain_ms: float = 0.0

    @property
    def percentile(self) -> float:
        """The quantile that its figure is at least about: LoadGen's 0.99 for multi-stream, else 0.95."""
        return 0.99 if self.name == "multi-stream" else 0.95

    def to_json(self) -> dict[str, Any]:
        """Its name, and what is not left out."""
        rows = {"streams": self.streams if self.name in ("multi-stream", "offline") else 0, "batch": self.batch}
        more = {**rows, "period_ms": self.period_ms, "sustain_ms": self.sustain_ms}
        return {"name": self.name, **{k: v for k, v in more.items() if v}}


@dataclass(frozen=True)
class Job:
    """All of one `bench` but the models.

    Attributes:
        min_ms, max_ms: of measuring each model; with one model and no budget it stops at `min_ms`.
        percentile: the quantile whose interval the number of calls must support.
        limits: of the budget.
        margin: what still counts as equally fast.
        processes: how often each model is opened in a fresh process.
        cool_down_ms: most time to wait before a measurement under bad conditions is repeated; 0: it is not.
        energy: measured by the device's sensor `rail` (None: its total), or by the command `meter` on this host.
        memory, load: measured in further fresh processes.
        shapes: of inputs that no data are given for (see `measure.inputs`).
    """

    scenario: Scenario = field(default_factory=Scenario)
    min_ms: float = MIN_MS
    max_ms: float = MAX_MS
    percentile: float = 0.95
    limits: tuple[Limit, ...] = ()
    allow_emulated: bool = False
    margin: float = 0.02
    processes: int = 1
    cool_down_ms: float = 30_000.0
    energy: bool = False
    rail: str | None = None
    meter: str = ""
    memory: bool = False
    load: bool = False
    require_provider: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int = 0

    @property
    def calls(self) -> int:
        """Fewest calls: twice what a bound on the percentile needs, and 200 for a shape to be seen."""
        least = 50 if self.scenario.name == "paced" else 200
        return max(least, 2 * samples_needed(max(0.5, self.percentile)))


def scenario(
    name: str = "", *, streams: int = 0, batch: int = 0, period_ms: float = 0.0, sustain_ms: float = 0.0
) -> Scenario:
    """The scenario that these options describe. Raises UserError for those that exclude one another."""
    timed = [option for option, given in (("--period", period_ms), ("--sustain", sustain_ms)) if given]
    if len(timed) == 2:
        raise UserError("--period", "and --sustain are two scenarios", "measure one after the other")
    if timed and name not in ("", "single-stream"):
        raise UserError(timed[0], f"is a single-stream scenario, not {name}", "leave --scenario out")
    if name and name not in SCENARIOS:
        raise UserError("--scenario", f"no scenario '{name}'", nearest(name, SCENARIOS))
    if streams and (timed or name in ("", "single-stream")):
        raise UserError("--streams", "one stream is all that this scenario has", "add --scenario multi-stream")
    if timed:
        kind: Name = "paced" if period_ms else "sustained"
        return Scenario(kind, 1, batch, period_ms, sustain_ms)
    chosen: Name = next((s for s in SCENARIOS if s == name), "single-stream")
    wide = STREAMS if chosen == "multi-stream" else 0 if chosen == "offline" else 1
    made = Scenario(chosen, streams or wide, batch)
    if chosen == "multi-stream" and batch > made.streams:
        raise UserError("--batch", f"{batch} samples a call, a query has {made.streams}", "give more --streams")
    return made


def times(least_ms: float | None, most_ms: float | None) -> tuple[float, float]:
    """`min_ms` and `max_ms` of a job; one that is not given suits the other. Raises UserError where they cross."""
    if least_ms and most_ms and most_ms < least_ms:
        raise UserError("--max-time", "is less than --min-time", "give at least as much")
    least = least_ms or min(MIN_MS, most_ms or MIN_MS)
    return least, most_ms or max(MAX_MS, least)


def quantile_of(text: str) -> float:
    """`99` or `p99` as 0.99. Raises UserError for a percentile that is not reported."""
    found = QUANTILES.get("p" + text.strip().removeprefix("p"))
    if found is None:
        raise UserError("--percentile", f"no percentile '{text}'", "choose from 50, 90, 95, 99")
    return found


def limits(exprs: Sequence[str], job: Job, models: int) -> tuple[Limit, ...]:
    """The budget of a bench. Raises UserError for a limit on what this bench does not measure."""
    found = budget.parse_all(list(exprs)) if exprs else ()
    for limit in found:
        where, missing = f"budget '{limit.expr}'", _missing(limit.metric, job)
        if missing:
            raise UserError(where, f"this bench does not measure {limit.metric}", missing)
        if limit.relative and models < 2:
            raise UserError(where, "is relative to the first model, and there is one only", "name the model before it")
    return tuple(found)


def _missing(metric: str, job: Job) -> str:
    """What to do for this metric to be measured; empty: nothing."""
    family, _, part = metric.partition(".")
    name = job.scenario.name
    if family == "accuracy":
        return "use `edgelathe eval`"
    if part in ("paced", "sustained"):
        option = {"paced": "--period 33ms", "sustained": "--sustain 10min"}[part]
        return "" if name == part else f"add {option}"
    if family == "latency" and name == "offline":
        return "offline has a throughput only: leave --scenario offline out"
    asked = {"memory": job.memory, "load": job.load, "energy": job.energy}
    return "" if asked.get(family, True) else f"add --{family}"


def check(job: Job) -> None:
    """Raises UserError for options that do not go together."""
    name = job.scenario.name
    if job.processes > 1 and name in ("paced", "sustained"):
        raise UserError("--processes", f"does not go with a {name} bench", "leave one of them out")
    if job.processes == 2:
        raise UserError("--processes", "two processes have no interval", "give 3 or more, 5 is good")
