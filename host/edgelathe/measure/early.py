"""When an evaluation has settled what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.budget import Limit
from edgelathe.stats import stopping
from edgelathe.stats.metrics import Metric

Array = NDArray[np.generic]
Answer = Literal["continue", "in", "out"]
Ask = Callable[[Array], Answer]
"""Outputs of the first samples -> whether the limits are surely kept (`in`) or broken (`out`) by all samples."""


def settled(metric: Metric, limits: Sequence[Limit], labels: Array, total: int, base: Array | None) -> Ask:
    """The question that accuracy limits put to an evaluation, by `stopping.decide`; samples must be in random order.

    Args:
        metric: only shares are settled early, others go on to the end.
        limits: of a budget; those that are not on accuracy are left out.
        labels: [total] as from `metrics.targets`.
        total: number of samples.
        base: outputs of the model that drops are counted against; None: there is none, and drops stay open.
    """
    score = metric.per_sample
    asked = [limit for limit in limits if limit.metric in ("accuracy", "accuracy.drop") and not limit.relative]
    if not asked or score is None or metric.unit != "share":
        return lambda _: "continue"
    base_ok = None if base is None else score(base, labels).astype(bool)
    always = np.ones(total, bool)

    def ask(got: Array) -> Answer:
        n = len(got)
        ok = score(got, labels[:n]).astype(bool)
        answers: list[str] = []
        for limit in asked:
            # A share of at least v is a drop of at most 1 - v from a model that is always right.
            before, most = (base_ok, limit.value) if limit.metric == "accuracy.drop" else (always, 1 - limit.value)
            if before is None:
                return "continue"
            lost, won = int((before[:n] & ~ok).sum()), int((~before[:n] & ok).sum())
            answers.append(stopping.decide(lost, won, n, total, most))
        if "out" in answers:
            return "out"
        return "in" if all(a == "in" for a in answers) else "continue"

    return ask
