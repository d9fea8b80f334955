"""The document of `eval`: accuracies of models on a device, compared in pairs, and parity with this host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core import budget, dataset
from edgelathe.core.budget import Limit
from edgelathe.core.claim import Claim
from edgelathe.core.dataset import Dataset
from edgelathe.core.device import SessionOptions
from edgelathe.core.result import Accuracy, BudgetLine
from edgelathe.device.errors import ModelFailure
from edgelathe.device.open import Device
from edgelathe.measure.early import Answer, kept, settled
from edgelathe.measure.evaluated import BadOutputError, evaluated, failed
from edgelathe.measure.parity import parity, remarks
from edgelathe.measure.partial import Partial
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
        require_provider: a session on another one is a failure.
    """

    limits: tuple[Limit, ...] = ()
    parity: int = 200
    seed: int = 0
    fresh: bool = False
    require_provider: str | None = None


@dataclass(frozen=True, eq=False)
class _Asked:
    """What all models are asked: `order` holds the numbers that the samples had in the data as given."""

    device: Device
    plan: EvalPlan
    metric: Metric
    data: Dataset
    order: NDArray[np.int64]
    remarks: tuple[str, ...]
    tick: Tick


@dataclass(frozen=True, eq=False)
class _Model:
    """One model's part of the document; `outputs` as they are scored, None where it failed."""

    name: str
    result: dict[str, Any]
    outputs: Array | None = None
    claims: Mapping[str, Claim] = field(default_factory=dict)
    ended: Answer = "continue"
    partial: Partial | None = None
    interrupted: bool = False
    error: ModelFailure | BadOutputError | None = None


def eval_document(
    device: Device, models: Sequence[tuple[str, Model]], options: Sequence[SessionOptions], data: Dataset,
    plan: EvalPlan = EvalPlan(), *, remarks: Sequence[str] = (), tick: Tick = lambda what, part: None,
) -> dict[str, Any]:  # fmt: skip
    """Accuracies of models on the device, and parity with the host: `edgelathe.eval/1`.

    Without labels there is no accuracy of one model: the answers of the first model then count as right. Ctrl-C ends
    the measuring; the document then says `interrupted` and holds what is there.

    Args:
        device: an open one.
        models: names (as the user gave them) and models; drops are counted against the first.
        options: how each runs.
        data: samples and labels, as loaded.
        plan: how to evaluate.
        remarks: warnings that hold for every model.
        tick: told of progress.

    Raises:
        UserError: the data do not fit a model, or all outputs are NaN.
        ModelFailure: the device can run none, or not the one that the others are compared with.
    """
    metric = metrics.load_metric(data.metric, Path(data.name).parent)
    budget.suit(plan.limits, metric.name, metric.unit, metric.better)
    order = np.arange(len(data))
    if plan.limits:
        order = np.random.default_rng(plan.seed).permutation(order)
        data = dataset.take(data, order)
    asked = _Asked(device, plan, metric, data, order, tuple(remarks), tick)
    got: list[_Model] = []
    for (name, model), how in zip(models, options, strict=True):
        if got and got[-1].interrupted:
            got.append(_Model(name, failed(name, model, how, None), interrupted=True))
            continue
        try:
            got.append(_one(asked, name, model, how, got[0] if got else None))
        except KeyboardInterrupt:
            got.append(_Model(name, failed(name, model, how, None), interrupted=True))
        except (ModelFailure, BadOutputError) as e:
            got.append(_Model(name, failed(name, model, how, e), error=e))
            if got[0].error and (data.labels is None or _drops(plan)):
                raise  # there is nothing to compare with
    interrupted = got[-1].interrupted
    if got[0].error and all(m.error for m in got):
        raise got[0].error
    lines = [
        {"model": m.name, **line.to_json()}
        for number, m in enumerate(got, 1)
        for line in _judged(plan.limits, m.claims, m.ended, number)
    ]
    document: dict[str, Any] = {
        "schema": "edgelathe.eval/1", "device": device.probe.to_json(), "results": [m.result for m in got],
        "comparisons": _comparisons(got, metric, data), "interrupted": interrupted,
    }  # fmt: skip
    if not interrupted:
        for m in got:
            if m.partial:
                m.partial.remove()
    return {**document, "budget": lines} if plan.limits else document


def code(document: Mapping[str, Any]) -> int:
    """The exit code that a document asks for: 130 interrupted, 1 a limit not met or a model that failed, else 0."""
    if document["interrupted"]:
        return 130
    kept = all(line["verdict"] == "met" for line in document.get("budget", ()))
    return int(not kept or any(r.get("error") for r in document["results"]))


def _one(asked: _Asked, name: str, model: Model, how: SessionOptions, base: _Model | None) -> _Model:
    """Evaluate one model; `base`: the first one, None where this is it."""
    plan, metric = asked.plan, asked.metric
    bound = dataset.bind(asked.data, model.signature, name)
    first = base.outputs if base else None
    ask = None
    if bound.labels is not None and not (_drops(plan) and first is None):  # what drops are counted against is run whole
        ask = settled(metric, plan.limits, bound.labels, len(bound), first if _drops(plan) else None)
    got = evaluated(
        asked.device, model, how, bound, ask, fresh=plan.fresh, require_provider=plan.require_provider,
        tick=lambda done, n: asked.tick(f"{name} {done:,}/{n:,}", done / n),
    )  # fmt: skip
    outputs = got.raw if metric.classes else run.real([got.raw], model.signature)[0]
    accuracy, claims = _accuracy(metric, outputs, first, bound.labels, name)
    same = 0 if got.interrupted else min(plan.parity, len(got.raw))
    seen = {k: v[:same] for k, v in bound.inputs.items()}
    par = parity(model, seen, how, got.raw[:same], asked.device.probe, decides=metric.classes) if same else None
    if par and par.first_flip is not None:
        par = replace(par, first_flip=int(asked.order[par.first_flip]))
    unlabelled = () if bound.labels is not None else ("no labels: agreement with the first model is shown",)
    warnings = [*asked.remarks, *unlabelled, *bound.warnings, *got.warnings, *(remarks(par) if same else ())]
    result = {
        "model": name, "format": model.format, "runtime": how.runtime, "options": got.options.to_json(),
        "accuracy": accuracy.to_json(), "parity": par and par.to_json(), "warnings": warnings,
    }  # fmt: skip
    return _Model(name, result, outputs, claims, got.ended, got.partial, got.interrupted)


def _drops(plan: EvalPlan) -> bool:
    return any(limit.metric == "accuracy.drop" for limit in plan.limits)


def _accuracy(
    metric: Metric, outputs: Array, base: Array | None, labels: Array | None, name: str
) -> tuple[Accuracy, Mapping[str, Claim]]:
    """Accuracy with its claims, and the drop below `base` where there is one."""
    first = outputs if base is None else base
    n = min(len(outputs), len(first))
    known = None if labels is None else labels[:n]
    try:
        accuracy, value, drop = metrics.compare_accuracy(metric, first[:n], outputs[:n], known, name)
    except metrics.OutputError as e:
        mend = "find the layer with `edgelathe compress --recipe` skipped, or mend it"
        raise BadOutputError(name, str(e), mend) from e
    if base is None:
        return replace(accuracy, drop=None, drop_low=None, drop_high=None), {"accuracy": value}
    return accuracy, {"accuracy": value, "accuracy.drop": drop}


def _judged(limits: Sequence[Limit], claims: Mapping[str, Claim], ended: Answer, count: int) -> list[BudgetLine]:
    """The verdicts on one model. One that ended early is judged by what it was stopped for."""
    known = kept(claims, limits) if ended == "in" else claims
    lines = []
    for limit in limits:
        if limit.metric == "accuracy.drop" and count == 1:
            continue  # nothing to be worse than
        lines.append(budget.judge(limit, known.get(limit.metric)))
    return lines


def _comparisons(got: Sequence[_Model], metric: Metric, data: Dataset) -> list[dict[str, Any]]:
    """Each model against the first, on the samples that both have: what was lost and won, and how sure that is."""
    first, found = got[0], []
    for m in got[1:]:
        if first.outputs is None or m.outputs is None:
            continue
        n = min(len(m.outputs), len(first.outputs))
        labels = None if data.labels is None else data.labels[:n]
        drop = difference.compare(metric, first.outputs[:n], m.outputs[:n], labels, m.name)
        found.append({"a": first.name, "b": m.name, "metric": metric.name, **drop.to_json()})
    return found
