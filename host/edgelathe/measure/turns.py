"""Measuring several models in turns, in fresh processes where asked, again where the conditions were bad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgelathe.device.errors import ModelFailure
from edgelathe.device.open import Device
from edgelathe.measure import conditions
from edgelathe.measure.cooldown import cool_down
from edgelathe.measure.interleave import BenchPlan, Series, Timeable, bench
from edgelathe.measure.looks import Looks
from edgelathe.measure.paced import Paced
from edgelathe.measure.plan import TRIES, Job
from edgelathe.measure.subject import Measured, Opened, Subject, opened

Tick = Callable[[str, float], None]


@dataclass(eq=False)
class Outcome:
    """What a bench came to; `interrupted`: the user stopped it, and what was there by then is kept."""

    measured: list[Measured] = field(default_factory=list)
    interrupted: bool = False


def in_turns(device: Device, found: Sequence[Subject], job: Job, tick: Tick) -> Outcome:
    """Measure all, until the job is settled. A model that fails does not take the others' results with it."""
    outcome, cores = Outcome(), device.probe.cores
    try:
        for number in range(1, TRIES + 1):
            outcome.measured = [Measured(s, tries=number) for s in found]
            for process in range(1, job.processes + 1):
                of = f" · process {process}/{job.processes}" if job.processes > 1 else ""
                _once(device, outcome.measured, job, lambda part, of=of: tick(f"latency{of}", part))  # type: ignore[misc]
            if not job.cool_down_ms or not _disturbed(outcome.measured, cores):
                break
            if number == TRIES:
                _remark(outcome.measured, f"conditions were bad in each of {TRIES} tries")
            elif not cool_down(device, job.cool_down_ms, tick):
                _remark(outcome.measured, "other processes kept the device busy, and waiting did not help")
                break
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


def _once(device: Device, measured: Sequence[Measured], job: Job, tick: Callable[[float], None]) -> None:
    """One series for each model that has not failed, each in a fresh process."""
    live = [m for m in measured if m.error is None]
    with opened(device, [m.subject for m in live], job.scenario, job.require_provider) as got:
        for m, one in zip(live, got, strict=True):
            m.error = one if isinstance(one, ModelFailure) else None
        pairs = [(m, one) for m, one in zip(live, got, strict=True) if isinstance(one, Opened)]
        for m, one in pairs:
            m.facts = m.facts or one.facts
        lanes: list[Timeable] = [o.lane for _, o in pairs]
        if job.scenario.period_ms:
            lanes[:0] = [Paced(o.session, job.scenario.period_ms, o.lane.width) for _, o in pairs]
        plan = BenchPlan(min_ms=job.min_ms, min_calls=_calls(job), max_ms=job.max_ms)
        looks = Looks(job, [o.facts.samples for _, o in pairs]) if _open_end(job, len(pairs)) else None
        series: list[Series] = []
        try:
            bench(lanes, plan, seed=job.seed, tick=tick, until=looks, into=series, survive=True)
        finally:
            _keep(pairs, series, looks)


def _keep(pairs: Sequence[tuple[Measured, Opened]], series: Sequence[Series], looks: Looks | None) -> None:
    """Hand the series to their models; rounds that were cut short are dropped."""
    whole = min((len(s.blocks) for s in series if s.error is None), default=0)
    for i, (m, _) in enumerate(pairs[: len(series)]):
        lanes = series[i :: len(pairs)]
        m.error = next((s.error for s in lanes if s.error), None)
        for s in lanes:
            s.cut(whole)
        m.groups.append(lanes[0])
        m.beside = lanes[1] if len(lanes) > 1 else None
        m.looks = looks.count if looks else 1


def _open_end(job: Job, models: int) -> bool:
    """Whether it may go on beyond the least time: there is something to settle, and time for it."""
    return job.max_ms > job.min_ms and job.processes == 1 and (models > 1 or bool(job.limits))


def _calls(job: Job) -> int:
    """Fewest queries of a series; the offline scenario is about the mean of its few large ones."""
    return 10 if job.scenario.name == "offline" else job.calls


def _disturbed(measured: Sequence[Measured], cores: int) -> bool:
    return any(
        conditions.retry_needed(conditions.marked(g.conditions, g.more, cores))
        for one in measured
        for g in one.groups
        if g.conditions
    )


def _remark(measured: Sequence[Measured], text: str) -> None:
    for m in measured:
        m.warnings.append(text)
