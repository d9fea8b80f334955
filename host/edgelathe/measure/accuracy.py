"""The document of `eval`: accuracies of models on a device, compared in pairs, and parity with this host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core import budget, dataset
from edgelathe.core.budget import Limit
from edgelathe.core.claim import Claim
from edgelathe.core.dataset import Dataset
from edgelathe.core.device import SessionOptions
from edgelathe.core.errors import UserError
from edgelathe.core.result import Accuracy, BudgetLine
from edgelathe.device.open import Device
from edgelathe.measure.early import Answer, Ask, answered, kept, settled
from edgelathe.measure.parity import Parity, parity
from edgelathe.measure.partial import Partial
from edgelathe.measure.stream import stream
from edgelathe.model import run
from edgelathe.model.types import Model
from edgelathe.stats import difference, metrics
from edgelathe.stats.metrics import Metric

Array = NDArray[np.generic]
Tick = Callable[[str, float], None]


@dataclass(frozen=True)
class EvalPlan:
    """How to evaluate.

    Attributes:
        limits: on `accuracy` and `accuracy.drop` (against the first model). An evaluation ends once they are settled.
        parity: so many samples are compared with this host's answers.
        seed: of the order of the samples, which is random where an evaluation may end early.
        fresh: do not take up an evaluation that was cut off.
    """

    limits: tuple[Limit, ...] = ()
    parity: int = 200
    seed: int = 0
    fresh: bool = False


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One model's evaluation: what its session was, its first output [n, ...] as stored, and how it ended."""

    options: SessionOptions
    raw: Array
    ended: Answer
    warnings: tuple[str, ...]


def eval_document(
    device: Device, models: Sequence[tuple[str, Model]], options: Sequence[SessionOptions], data: Dataset,
    plan: EvalPlan = EvalPlan(), *, remarks: Sequence[str] = (), tick: Tick = lambda what, part: None,
) -> dict[str, Any]:  # fmt: skip
    """Accuracies of models on the device, and parity with the host: `edgelathe.eval/1`.

    Without labels there is no accuracy of one model: the answers of the first model then count as right.

    Args:
        device: an open one.
        models: names (as the user gave them) and models; drops are counted against the first.
        options: how each runs.
        data: samples and labels, as loaded.
        plan: how to evaluate.
        remarks: warnings that hold for every model.
        tick: told of progress.

    Raises:
        UserError: the data do not fit a model, or outputs are NaN. ModelFailure: the device cannot run one.
    """
    metric = metrics.load_metric(data.metric, Path(data.name).parent)
    budget.suit(plan.limits, metric.name, metric.unit, metric.better)
    order = np.arange(len(data))
    if plan.limits:
        order = np.random.default_rng(plan.seed).permutation(order)
        data = dataset.take(data, order)
    drops = any(limit.metric == "accuracy.drop" for limit in plan.limits)
    results: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    answers: list[Array] = []
    first: Array | None = None
    for (name, model), how in zip(models, options, strict=True):
        bound = dataset.bind(data, model.signature, name)
        ask = None
        if bound.labels is not None and not (drops and first is None):  # what drops are counted against is run whole
            ask = settled(metric, plan.limits, bound.labels, len(bound), first if drops else None)
        got = _evaluate(device, (name, model), how, bound, plan, ask, tick)
        outputs = got.raw if metric.classes else run.real([got.raw], model.signature)[0]
        first = outputs if first is None else first
        accuracy, claims = _accuracy(metric, outputs, first, bound.labels, name, alone=not results)
        same = min(plan.parity, len(got.raw))
        seen = {k: v[:same] for k, v in bound.inputs.items()}
        par = parity(model, seen, how, got.raw[:same], device.probe, decides=metric.classes) if same else None
        if par and par.first_flip is not None:
            par = replace(par, first_flip=int(order[par.first_flip]))
        unlabelled = () if bound.labels is not None else ("no labels: agreement with the first model is shown",)
        warnings = [*remarks, *unlabelled, *bound.warnings, *got.warnings, *(_remarks(par) if same else ())]
        results.append(
            {
                "model": name, "format": model.format, "runtime": how.runtime, "options": got.options.to_json(),
                "accuracy": accuracy.to_json(), "parity": par and par.to_json(), "warnings": warnings,
            }
        )  # fmt: skip
        lines += [{"model": name, **line.to_json()} for line in _judged(plan.limits, claims, got.ended, len(results))]
        answers.append(outputs)
    document: dict[str, Any] = {
        "schema": "edgelathe.eval/1", "device": device.probe.to_json(), "results": results,
        "comparisons": _comparisons([name for name, _ in models], answers, metric, data),
    }  # fmt: skip
    return {**document, "budget": lines} if plan.limits else document


def _evaluate(
    device: Device, named: tuple[str, Model], how: SessionOptions, data: Dataset, plan: EvalPlan,
    ask: Ask | None, tick: Tick,
) -> Evaluated:  # fmt: skip
    name, model = named
    with device.open_session(model, how) as session:
        partial = Partial(_key(device, model, how, session.version, data))
        if plan.fresh:
            partial.remove()
        parts, n = partial.load(), len(data)
        begun = sum(map(len, parts))
        taken_up = (f"{begun:,} of {n:,} samples were measured before it was cut off",) if begun else ()

        def hear(block: Array, done: int) -> None:
            partial.append(block)
            tick(f"{name} {done:,}/{n:,}", done / n)

        batch = run.batch_size(model.signature)
        blocks = stream(session, data.inputs, batch=batch, first=begun, forget=device.forget)
        raw, ended = answered(blocks, n, ask, before=parts, hear=hear)
        ran = replace(how, provider=session.provider)
        warnings = (*taken_up, *session.warnings)
    partial.remove()
    return Evaluated(ran, raw, ended, warnings)


def _key(device: Device, model: Model, how: SessionOptions, version: str, data: Dataset) -> dict[str, object]:
    probe = device.probe
    where = [device.target.url, probe.machine, probe.cpu]
    ran = {"runtime": how.runtime, "version": version, **how.to_json()}
    return {"model": model.sha256, "data": data.sha256, "device": where, "session": ran}


def _accuracy(
    metric: Metric, outputs: Array, first: Array, labels: Array | None, name: str, *, alone: bool
) -> tuple[Accuracy, dict[str, Claim]]:
    n = min(len(outputs), len(first))
    known = None if labels is None else labels[:n]
    try:
        accuracy, value, drop = metrics.compare_accuracy(metric, first[:n], outputs[:n], known, name)
    except metrics.OutputError as e:
        raise UserError(name, str(e), "find the layer with `edgelathe compress --recipe` skipped, or mend it") from e
    if alone:
        return replace(accuracy, drop=None, drop_low=None, drop_high=None), {"accuracy": value}
    return accuracy, {"accuracy": value, "accuracy.drop": drop}


def _judged(limits: Sequence[Limit], claims: dict[str, Claim], ended: Answer, count: int) -> list[BudgetLine]:
    """The verdicts on one model. One that ended early is judged by what it was stopped for."""
    known = kept(claims, limits) if ended == "in" else claims
    lines = []
    for limit in limits:
        if limit.metric == "accuracy.drop" and count == 1:
            continue  # nothing to be worse than
        lines.append(budget.judge(limit, known.get(limit.metric)))
    return lines


def _comparisons(names: Sequence[str], answers: Sequence[Array], metric: Metric, data: Dataset) -> list[dict[str, Any]]:
    """Each model against the first, on the samples that both have: what was lost and won, and how sure that is."""
    found = []
    for name, outputs in zip(names[1:], answers[1:], strict=True):
        n = min(len(outputs), len(answers[0]))
        labels = None if data.labels is None else data.labels[:n]
        got = difference.compare(metric, answers[0][:n], outputs[:n], labels, name)
        found.append({"a": names[0], "b": name, "metric": metric.name, **got.to_json()})
    return found


def _remarks(found: Parity | None) -> list[str]:
    if found is None:
        return ["parity is unknown: this host lacks the runtime or provider of the device"]
    if not found.flips:
        return []
    why = f": {found.why}" if found.why else ""
    return [f"{found.flips} of {found.n} answers differ from this host's{why}"]
