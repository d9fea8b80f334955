"""What a bench measures beside the calls, one model after the other: energy, memory, loading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgelathe.core.claim import Claim
from edgelathe.device.errors import ModelFailure
from edgelathe.device.open import Device
from edgelathe.measure import energy
from edgelathe.measure.footprint import footprint
from edgelathe.measure.gauge import Gauge
from edgelathe.measure.plan import Job
from edgelathe.measure.subject import Measured, Opened, opened

Tick = Callable[[str, float], None]


@dataclass(eq=False)
class Extra:
    """Of one model: fields of its result, claims by metric of a budget, and what is to be remarked."""

    fields: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)


def measure(
    device: Device, measured: Sequence[Measured], job: Job, gauge: Gauge | None, into: Sequence[Extra], tick: Tick
) -> None:
    """All that the job asks for, for the models that could be timed. `into` is filled.

    `gauge` is None where no energy is asked for.
    """
    for m, extra in zip(measured, into, strict=True):
        if m.error:
            continue
        if gauge:
            _energy(device, m, job, gauge, extra, tick)
        if job.memory or job.load:
            _footprint(device, m, job, extra, tick)


def _energy(device: Device, m: Measured, job: Job, gauge: Gauge, extra: Extra, tick: Tick) -> None:
    try:
        with opened(device, [m.subject], job.scenario, job.require_provider) as (got,):
            if not isinstance(got, Opened):
                raise got
            found = energy.measure(
                gauge, got.session, load=replace(got.lane.load, period_ms=job.scenario.period_ms),
                samples=got.lane.width, tick=lambda part: tick("energy", part),
            )  # fmt: skip
    except ModelFailure as e:
        m.warnings.append(f"energy: {e.what}")
        return
    extra.fields["energy"] = found.to_json()
    m.warnings += found.warnings
    if found.claim:
        extra.claims["energy"] = found.claim


def _footprint(device: Device, m: Measured, job: Job, extra: Extra, tick: Tick) -> None:
    s = m.subject
    try:
        found = footprint(
            device, s.model, s.options, s.inputs,
            cold=job.load, require_provider=job.require_provider, seed=job.seed, tick=tick,
        )  # fmt: skip
    except ModelFailure as e:
        m.warnings.append(f"memory and load: {e.what}")
        return
    extra.fields["footprint"] = found.to_json()
    m.warnings += found.warnings
    if found.memory:
        extra.fields["memory"] = {"peak_bytes": found.peak_bytes}
        if job.memory:
            extra.claims["memory"] = found.memory
    if job.load:
        extra.claims["load"] = found.load
