"""Two models on the same samples, by any metric: the difference, how sure it is, and how many answers changed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.stats import metrics
from edgelathe.stats.metrics import Metric
from edgelathe.stats.paired import mcnemar

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Difference:
    """How much worse b is than a on n samples that both answered.

    Attributes:
        value: positive where b is worse: a fraction for shares, else in the metric's unit.
        low: two-sided 95% interval: paired difference for shares, paired bootstrap else.
        high: its other end.
        n: samples.
        p: McNemar's exact two-sided p for shares; None for other metrics.
        lost: samples right with a and wrong with b; None for other metrics.
        won: the other way round.
        changed: samples whose answer (the first of the largest outputs) differs; None where outputs are no classes.
    """

    value: float
    low: float
    high: float
    n: int
    p: float | None
    lost: int | None
    won: int | None
    changed: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain fields, `value` as `drop`."""
        fields = asdict(self)
        return {"drop": fields.pop("value"), **fields}


def compare(metric: Metric, a: Array, b: Array, labels: Array | None, where: str = "labels") -> Difference:
    """Outputs b [n, ...] against outputs a [n, ...]; without labels the answers of a count as right.

    Raises as `metrics.compare_accuracy`.
    """
    accuracy, _, drop = metrics.compare_accuracy(metric, a, b, labels, where)
    p = lost = won = changed = None
    if metric.per_sample and metric.unit == "share":
        wanted = metrics.targets(metric, labels, a)
        before, after = (metric.per_sample(o, wanted).astype(bool) for o in (a, b))
        lost, won = int((before & ~after).sum()), int((~before & after).sum())
        p = mcnemar(lost, won)
    if metric.classes:
        changed = int((a.reshape(len(a), -1).argmax(1) != b.reshape(len(b), -1).argmax(1)).sum())
    low, high = accuracy.drop_low, accuracy.drop_high
    assert low is not None
    assert high is not None
    return Difference(drop.value, low, high, drop.n, p, lost, won, changed)
