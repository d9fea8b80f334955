"""What a metric may lose: how much some answers lose of it, and the fewest bits that lose no more."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.mixed import limits
from edgelathe.compress.sensitivity.explain import needs_labels
from edgelathe.core import dataset
from edgelathe.core.errors import UserError
from edgelathe.stats import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.core.dataset import Dataset
    from edgelathe.stats.metrics import Metric

_COUNTED = 512  # samples that a drop is counted on


def counted(data: Dataset) -> Dataset:
    """The samples that a drop is counted on: evenly out of all."""
    return dataset.take(data, dataset.spread(len(data), _COUNTED))


@dataclass(frozen=True, eq=False)
class Drop:
    """A limit `text`, on samples and the float model's answers `want` to them; `what` loses, in words.

    What is lost is that of the data's metric; where that counts classes, and there is one number a sample and no label
    (`single`), the squared error against what the float model's numbers vary by.
    """

    text: str
    some: Dataset
    want: NDArray[Any]
    metric: Metric
    single: bool
    what: str

    @classmethod
    def of(cls, text: str, some: Dataset, want: NDArray[Any], what: str) -> Drop:
        """Raises UserError where there are no labels that the metric needs."""
        metric = metrics.load_metric(some.metric, Path(some.name).parent)
        single = needs_labels(metric, want, some.labels)
        if single and some.metric == "auroc":
            why = "auroc needs labels, there are none"
            raise UserError(f"{some.name}: metric", why, 'give labels, or metric = "rmse"')
        return cls(text, some, want, metric, single, what)

    def fewest(self, ways: int, answers: Callable[[int], NDArray[Any]]) -> tuple[int, str]:
        """Of so many ways, from fewest bits to most, the first that keeps the limit, by bisection; and what is lost.

        The last one where none keeps it. Raises UserError where labels do not fit.
        """
        asked, low, high = limits.drop(self.text), 0, ways - 1
        limit = max(asked, 1 / len(self.some)) if asked and self._share else asked  # less cannot be counted
        kept = self._lost(answers(high))
        reached = kept <= limit
        while reached and low < high:
            middle = (low + high) // 2
            found = self._lost(answers(middle))
            if found <= limit:
                high, kept = middle, found
            else:
                low = middle + 1
        allowed = f"{self.text}, and so one of {len(self.some)} samples," if limit > asked else self.text
        return high, f"{allowed} allowed, {self._said(kept, reached=reached)} on {len(self.some)} samples"

    @property
    def _share(self) -> bool:
        """Whether the metric counts samples."""
        return not self.single and dataset.METRICS.get(self.some.metric) not in (None, "target")

    def _lost(self, have: NDArray[Any]) -> float:
        if self.single:
            return _squared(self.want, have)
        try:
            where = f"{self.some.name}: labels"
            found = metrics.compare_accuracy(self.metric, self.want, have, self.some.labels, where)[0].drop
        except metrics.OutputError:
            return math.inf
        return math.inf if found is None else found

    def _said(self, kept: float, *, reached: bool) -> str:
        kind = f"{self.what} lose" if reached else "even the most bits lose"
        if self.single:
            return f"{kind} {100 * kept:.2g}% in squared error of one output, as there are no labels,"
        return f"{kind} {f'{100 * kept:.1f} points' if self._share else f'{kept:.3g}'} of {self.some.metric}"


def _squared(want: NDArray[Any], have: NDArray[Any]) -> float:
    """Squared error against what the wanted numbers vary by; infinite where it is not finite."""
    error, spread = (float(np.square(v.astype(np.float64)).sum()) for v in (want - have, want - want.mean()))
    found = error / spread if spread > 0 else error
    return found if math.isfinite(found) else math.inf
