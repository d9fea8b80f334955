"""What a budget may ask of a model beside plain calls and answers: pace, endurance, energy, memory, loading."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.budget import Limit
from edgelathe.core.claim import Claim
from edgelathe.core.device import SessionOptions
from edgelathe.device.open import Device
from edgelathe.device.session import Load, Session
from edgelathe.measure import energy
from edgelathe.measure.footprint import footprint
from edgelathe.measure.interleave import BenchPlan, bench
from edgelathe.measure.paced import Paced
from edgelathe.measure.sustain import steady_claim, sustain
from edgelathe.model.types import Model
from edgelathe.stats import latency, ratio

Tick = Callable[[str, float], None]

#: Paced calls take their pauses too: fewer are enough for a median.
PACED = BenchPlan(min_ms=3000.0, min_calls=50, max_ms=30_000.0, warm_ms=2000.0)


@dataclass(frozen=True)
class Asked:
    """What the limits ask for. `period_ms` and `sustain_ms` are 0 where no limit is about them."""

    limits: tuple[Limit, ...] = ()
    period_ms: float = 0.0
    sustain_ms: float = 0.0
    rail: str | None = None
    meter: str | None = None

    def about(self, *metrics: str) -> bool:
        """Whether a limit is on one of these."""
        return any(limit.metric in metrics for limit in self.limits)


@dataclass(eq=False)
class Found:
    """Claims and ratios by metric, medians in ms by name for the latency, and what else goes with a candidate."""

    claims: dict[str, Claim] = field(default_factory=dict)
    ratios: dict[str, Claim] = field(default_factory=dict)
    energy: Mapping[str, Any] | None = None
    peak_bytes: int | None = None
    warnings: list[str] = field(default_factory=list)


class Beside:
    """Measures it. A context manager: it holds the power meter.

    Args:
        device: an open one.
        asked: by the budget.
        require_provider: a session on another one is a failure.
        seed: of orders.
        tick: told of progress.

    Raises:
        UserError: when it is entered, where energy is asked for and nothing can tell it.
    """

    def __init__(self, device: Device, asked: Asked, require_provider: str | None, seed: int, tick: Tick) -> None:
        self._device, self._asked, self._provider = device, asked, require_provider
        self._seed, self._tick = seed, tick
        self._stack = ExitStack()
        self._gauge: energy.Gauge | None = None

    def __enter__(self) -> Beside:
        if self._asked.about("energy"):
            asked = self._asked
            self._gauge = self._stack.enter_context(energy.gauge(self._device, asked.rail, asked.meter))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(
        self, model: Model, options: SessionOptions, sessions: Sequence[Session],
        inputs: Mapping[str, NDArray[np.generic]],
    ) -> Found:  # fmt: skip
        """Of the last of `sessions`, which are fed; a first one is the baseline's, for ratios."""
        found, asked = Found(), self._asked
        if asked.period_ms:
            self._paced(sessions, found)
        if asked.sustain_ms:
            series = sustain(sessions[-1], asked.sustain_ms, lambda what, part: self._tick(f"sustained {what}", part))
            found.claims["latency.sustained"] = steady_claim(series)
        if self._gauge:
            told = energy.measure(self._gauge, sessions[-1], load=Load(), tick=lambda part: self._tick("energy", part))
            found.energy = told.to_json()
            found.warnings += told.warnings
            if told.claim:
                found.claims["energy"] = told.claim
        if asked.about("memory", "load"):
            cost = footprint(
                self._device, model, options, inputs,
                cold=False, require_provider=self._provider, seed=self._seed, tick=self._tick,
            )  # fmt: skip
            found.claims["load"] = cost.load
            found.peak_bytes = cost.peak_bytes
            found.warnings += cost.warnings
            if cost.memory:
                found.claims["memory"] = cost.memory
        return found

    def _paced(self, sessions: Sequence[Session], found: Found) -> None:
        lanes = [Paced(session, self._asked.period_ms) for session in sessions]
        series = bench(lanes, PACED, seed=self._seed, tick=lambda part: self._tick("paced latency", part))
        found.claims["latency.paced"] = latency.claim(series[-1].blocks, "p50")
        if len(series) > 1:
            found.ratios["latency.paced"] = ratio.compare(series[0].blocks, series[-1].blocks).claim
