"""Accuracy metrics: one table, one way to evaluate a model and to compare it with the uncompressed one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.claim import Claim
from edgelathe.core.errors import UserError, nearest
from edgelathe.core.result import Accuracy
from edgelathe.stats import labels as check
from edgelathe.stats import scores, user_metric
from edgelathe.stats.paired import Bootstrap, Estimate, Weighted, bootstrap, paired_drop, percentile, replicates
from edgelathe.stats.proportion import wilson

Array = NDArray[np.generic]
Pair = Callable[[Array, Array], Array]
Prepare = Callable[[Array, Array], Weighted]
Check = Callable[[Array, Array, str], None]


class OutputError(ValueError):
    """Outputs that have no accuracy: some are NaN. The message names the share."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        unit: `share` (of right samples), `error` (in the targets' unit) or `score` (everything else).
        better: `higher` or `lower`.
        prepare: `(outputs, labels) -> Weighted`: the metric as a function of how often each sample counts.
        check: `(labels, outputs, where)` raises UserError, starting with `where`, if they do not fit the metric.
        per_sample: [n] whether each sample is right, for shares; [n] values where the metric is their mean; else None.
        classes: labels are classes (without labels: the baseline's answers) and not targets (its outputs).
        counts: the metric moves in steps as samples change sides, and its bootstrap bounds are widened by 1/n.
        blind: `(labels, outputs per sample)` -> outputs [m, k] of answers that never look at the input; None: unknown.
        resamples: of the bootstrap, at most.
    """

    name: str
    unit: Literal["share", "error", "score"]
    better: Literal["higher", "lower"]
    prepare: Prepare
    check: Check
    per_sample: Pair | None = None
    classes: bool = True
    counts: bool = True
    blind: Callable[[Array, int], Array] | None = None
    resamples: int = 2000

    def value(self, outputs: Array, labels: Array) -> float:
        """The metric over all samples."""
        return float(self.prepare(outputs, labels)(np.ones((1, len(outputs))))[0])

    def worse(self, base: float, value: float) -> float:
        """How much worse `value` is than `base`, positive where it is."""
        return base - value if self.better == "higher" else value - base


def _by_class(
    name: str, prepare: Prepare, per_sample: Pair | None = None, checks: Check = check.check_classes
) -> Metric:
    unit: Literal["share", "score"] = "share" if per_sample else "score"
    return Metric(name, unit, "higher", prepare, checks, per_sample, blind=scores.common_classes)


def _by_target(name: str, unit: Literal["error", "score"], prepare: Prepare, per_sample: Pair | None = None) -> Metric:
    better: Literal["higher", "lower"] = "lower" if unit == "error" else "higher"
    return Metric(name, unit, better, prepare, check.check_targets, per_sample, False, False, scores.middle_targets)


METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        _by_class("top1", scores.mean_of(scores.top1), scores.top1),
        _by_class("top5", scores.mean_of(scores.top5), scores.top5, check.check_top5),
        _by_class("balanced", scores.balanced),
        _by_class("f1", scores.f1),
        _by_class("auroc", scores.auroc, checks=check.check_ranking),
        _by_target("mae", "error", scores.mean_of(scores.absolute_error), scores.absolute_error),
        _by_target("rmse", "error", scores.root_mean_square),
        _by_target("cosine", "score", scores.mean_of(scores.cosine), scores.cosine),
    )
}


def load_metric(name: str, folder: Path | None = None) -> Metric:
    """A metric by name, or a user's own as `module:function`, looked for in `folder` and the current one too.

    The function takes (outputs [n, ...], labels [n, ...]) and returns a number; higher is better unless it has an
    attribute `better = "lower"`. Raises UserError for an unknown name or a function that cannot be imported.
    """
    if name in METRICS:
        return METRICS[name]
    where = f"metric '{name}'"
    module_name, colon, function_name = name.partition(":")
    if not colon:
        raise UserError(where, "no such metric", nearest(name, METRICS))
    function = user_metric.find(where, module_name, function_name, folder)
    said = getattr(function, "better", "higher")
    if said not in ("higher", "lower"):
        raise UserError(where, f"its attribute better is {said!r}", 'set it to "higher" or "lower"')
    better: Literal["higher", "lower"] = "lower" if said == "lower" else "higher"
    prepare = user_metric.resampling(where, function)
    return Metric(name, "score", better, prepare, check.check_nothing, classes=False, counts=False, resamples=200)


def targets(metric: Metric, labels: Array | None, base_outputs: Array) -> Array:
    """The labels, or where there are none what the uncompressed model says: its answers [n], or its outputs."""
    if labels is not None:
        return labels
    return scores.flat(base_outputs).argmax(1) if metric.classes else base_outputs


def evaluate(metric: Metric, outputs: Array, labels: Array | None, where: str = "labels") -> Accuracy:
    """The metric of outputs [n, ...] with its two-sided 95% interval: Wilson's for shares, else bootstrap.

    Without labels the outputs are compared with themselves (the baseline). Error metrics and cosine want real values:
    dequantize integer outputs first; classes may be read off raw integers. Raises OutputError where outputs are NaN,
    UserError starting with `where` where labels do not fit.
    """
    wanted = _checked(metric, outputs, targets(metric, labels, outputs), where)
    estimate = _estimate(metric, outputs, wanted)
    return Accuracy(metric.name, estimate.value, len(outputs), estimate.low, estimate.high)


def compare_accuracy(
    metric: Metric, base_outputs: Array, outputs: Array, labels: Array | None, where: str = "labels"
) -> tuple[Accuracy, Claim, Claim]:
    """The metric of a candidate and its drop against the baseline, on the same n samples.

    Returns the accuracy with its drop (positive: worse; for errors the rise), the claim on the value and that on the
    drop. Shares: `paired_drop`; else the paired bootstrap of the difference. Raises as `evaluate`.
    """
    if len(base_outputs) != len(outputs):
        raise ValueError(f"{len(base_outputs)} and {len(outputs)} samples are no pairs")
    wanted = _checked(metric, base_outputs, targets(metric, labels, base_outputs), where)
    _checked(metric, outputs, wanted, where)
    value: Estimate
    drop: Estimate
    if metric.unit == "share" and metric.per_sample:
        value = _estimate(metric, outputs, wanted)
        drop = paired_drop(*(metric.per_sample(o, wanted).astype(bool) for o in (base_outputs, outputs)))
    else:
        n, how = len(outputs), _bootstrap(metric, outputs)
        sign = 1 if metric.better == "higher" else -1
        before, after = metric.prepare(base_outputs, wanted), metric.prepare(outputs, wanted)
        base, now = replicates(before, n, how), replicates(after, n, how)
        first, second = (float(m(np.ones((1, n)))[0]) for m in (before, after))
        value = _bounded(metric, percentile(second, now, n, how.step))
        drop = percentile(sign * (first - second), sign * (base - now), n, how.step)
    accuracy = Accuracy(metric.name, value.value, len(outputs), value.low, value.high)
    return replace(accuracy, drop=drop.value, drop_low=drop.low, drop_high=drop.high), value.claim, drop.claim


def against(metric: Metric, baseline: float, drop: Claim) -> Claim:
    """The claim on a candidate's value that follows from its drop: narrower than its own, as samples are paired.

    For limits such as `accuracy>=0.98x`, which compare with the baseline's value on the same samples.
    """
    sign = -1 if metric.better == "higher" else 1
    lower, upper = sorted((baseline + sign * drop.lower, baseline + sign * drop.upper))
    return Claim(baseline + sign * drop.value, lower, upper, n=drop.n)


def chance(metric: Metric, labels: Array, classes: int) -> float | None:
    """What the best answer that never looks at the input scores; None where that is unknown (a user's metric).

    `labels` as from `targets`; `classes` is the number of outputs per sample.
    """
    if metric.blind is None:
        return None
    rows = metric.blind(labels, classes)
    values = [metric.value(np.broadcast_to(row, (len(labels), len(row))), labels) for row in rows]
    return max(values) if metric.better == "higher" else min(values)


def fell_to_chance(metric: Metric, value: Claim, drop: Claim, level: float | None) -> bool:
    """Whether a candidate is worse than the baseline, and not shown to be better than chance, both one-sided at 95%.

    `level` is that of `chance`. A baseline near chance does not condemn its candidates, nor do few samples alone.
    """
    if level is None or drop.lower <= 0:
        return False
    return value.lower <= level if metric.better == "higher" else value.upper >= level


def _checked(metric: Metric, outputs: Array, labels: Array, where: str) -> Array:
    if len(outputs) == 0:
        raise UserError(where, "no samples", "give one at least")
    if np.issubdtype(outputs.dtype, np.floating):
        bad = int(np.isnan(scores.flat(outputs)).any(1).sum())
        if bad:
            raise OutputError(f"NaN in the outputs of {bad} of {len(outputs)} samples ({bad / len(outputs):.1%})")
    metric.check(labels, outputs, where)
    return labels


def _estimate(metric: Metric, outputs: Array, labels: Array) -> Estimate:
    n = len(outputs)
    if metric.unit != "share" or metric.per_sample is None:
        return _bounded(metric, bootstrap(metric.prepare(outputs, labels), n, _bootstrap(metric, outputs)))
    right = int(metric.per_sample(outputs, labels).sum())
    wide, narrow = wilson(right, n, 0.025), wilson(right, n, 0.05)
    return Estimate(right / n, wide.low, wide.high, narrow.low, narrow.high, n)


def _bounded(metric: Metric, estimate: Estimate) -> Estimate:
    """Metrics of classes lie in 0..1, and so do their bounds."""
    return estimate.within(0.0, 1.0) if metric.classes else estimate


def _bootstrap(metric: Metric, outputs: Array) -> Bootstrap:
    """As many resamples as 200M numbers allow, 400 at least."""
    resamples = min(metric.resamples, max(400, 200_000_000 // max(1, outputs.size)))
    return Bootstrap(resamples, step=1 / len(outputs) if metric.counts else 0.0)
