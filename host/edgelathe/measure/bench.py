"""The document of `bench`: what a device says of models, measured in turns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from edgelathe.core.dataset import Dataset
from edgelathe.core.device import SessionOptions
from edgelathe.core.result import BudgetLine
from edgelathe.device.errors import ModelFailure
from edgelathe.device.open import Device
from edgelathe.measure import export, extras, figures
from edgelathe.measure.claims import claims, judge
from edgelathe.measure.cooldown import cool_down
from edgelathe.measure.extras import Extra
from edgelathe.measure.gauge import gauge
from edgelathe.measure.interleave import Series
from edgelathe.measure.plan import Job
from edgelathe.measure.subject import Measured, Opened, Subject, opened, subjects
from edgelathe.measure.sustain import sustain
from edgelathe.measure.turns import Outcome, in_turns
from edgelathe.model.types import Model
from edgelathe.report.document import finite

Tick = Callable[[str, float], None]


def bench_document(
    device: Device, models: Sequence[tuple[str, Model]], options: Sequence[SessionOptions], data: Dataset | None,
    job: Job, *, raw: Path | None = None, remarks: Sequence[str] = (), tick: Tick = lambda what, part: None,
) -> dict[str, Any]:  # fmt: skip
    """Models measured in turns, each pair compared, and a budget judged: `edgelathe.bench/1`.

    Ctrl-C ends the measuring; the document then says `interrupted` and holds what is there.

    Args:
        device: an open one.
        models: names (as the user gave them) and models.
        options: how each runs.
        data: samples to run on, as loaded; None: random ones that fit the inputs.
        job: what to measure.
        raw: a file for the raw samples.
        remarks: warnings that hold for every model.
        tick: told of progress.

    Raises:
        UserError: data or shapes do not fit a model, or no power sensor is there.
        ModelFailure: the device can run none.
    """
    found = subjects(models, options, data, job.scenario.batch, job.seed, job.shapes)
    more = [Extra() for _ in found]
    probe = device.probe
    with gauge(device, job.rail, job.meter) if job.energy else nullcontext() as meter:
        outcome = _in_a_row(device, found, job, tick) if job.scenario.sustain_ms else in_turns(device, found, job, tick)
        try:
            if not outcome.interrupted:
                extras.measure(device, outcome.measured, job, meter, more, tick)
        except KeyboardInterrupt:
            outcome.interrupted = True
    measured = outcome.measured
    if measured and all(m.error for m in measured):
        raise next(m.error for m in measured if m.error)
    results = [figures.result(m, job, probe, remarks, e.fields) for m, e in zip(measured, more, strict=True)]
    if raw:
        export.write(raw, measured, probe.cores)
    lines = _budget(measured, job, more, emulated=probe.emulated)
    document = {
        "schema": "edgelathe.bench/1", "device": probe.to_json(), "scenario": job.scenario.to_json(), "seed": job.seed,
        "results": results, "comparisons": _comparisons(measured, job), "interrupted": outcome.interrupted,
        **({"budget": lines} if job.limits else {}),
    }  # fmt: skip
    return {k: finite(v) for k, v in document.items()}


def code(document: dict[str, Any]) -> int:
    """The exit code that a document asks for: 130 interrupted, 1 a limit not met or a model that failed, else 0."""
    if document["interrupted"]:
        return 130
    kept = all(line["verdict"] == "met" for line in document.get("budget", ()))
    return int(not kept or any(r.get("error") for r in document["results"]))


def _comparisons(measured: Sequence[Measured], job: Job) -> list[dict[str, Any]]:
    """All pairs that were measured in turns."""
    if job.scenario.sustain_ms:
        return []
    able = [m for m in measured if not m.error and m.groups and m.whole.calls]
    return [figures.comparison(a, b, job) for a, b in itertools.combinations(able, 2)]


def _budget(measured: Sequence[Measured], job: Job, more: Sequence[Extra], *, emulated: bool) -> list[dict[str, Any]]:
    if not (job.limits and measured):
        return []
    found = [
        {} if m.error else claims(m, e.claims, sustained=bool(job.scenario.sustain_ms))
        for m, e in zip(measured, more, strict=True)
    ]
    lines: list[dict[str, Any]] = []
    for m, claim in zip(measured, found, strict=True):
        judged: list[BudgetLine] = judge(job.limits, m, measured[0], claim, found[0], job, emulated=emulated)
        lines += [{"model": m.subject.name, **line.to_json()} for line in judged]
    return lines


def _in_a_row(device: Device, found: Sequence[Subject], job: Job, tick: Tick) -> Outcome:
    """Sustained: one model after the other, each from a device that has cooled down."""
    outcome = Outcome([Measured(s) for s in found])
    try:
        for number, m in enumerate(outcome.measured):
            if number and job.cool_down_ms:
                cool_down(device, job.cool_down_ms, tick)
            with opened(device, [m.subject], job.scenario, job.require_provider) as (got,):
                if not isinstance(got, Opened):
                    m.error = got
                    continue
                m.facts = got.facts
                m.groups.append(Series())
                try:
                    sustain(got.lane, job.scenario.sustain_ms, tick, m.groups[0])
                except ModelFailure as e:
                    m.error = e
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome
