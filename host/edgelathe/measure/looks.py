"""When a bench may end: as soon as every comparison has a verdict and every limit is surely kept or broken."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.budget import Limit
from edgelathe.measure.interleave import Series
from edgelathe.measure.plan import Job
from edgelathe.stats import sequential, throughput

Blocks = list[NDArray[np.generic]]


class Looks:
    """Asked by `interleave.bench` after each round; it looks at planned numbers of rounds only.

    The first look is made when there is enough of all models, the last at `max_ms`. `count` is how many there can be:
    the intervals of all that is decided here are to be widened for them.

    Args:
        job: of the bench.
        widths: samples of a query of each model; the first `len(widths)` series are theirs.
        judged: the one model whose limits matter, beside others that it is only held against; None: all matter, and
            so does each comparison.
    """

    def __init__(self, job: Job, widths: Sequence[int], judged: int | None = None) -> None:
        self._job, self._widths, self._judged = job, tuple(widths), judged
        self._at: tuple[int, ...] = ()
        self._done = 0

    @property
    def count(self) -> int:
        """Number of looks; 1 before the first."""
        return max(1, len(self._at))

    def __call__(self, series: Sequence[Series]) -> bool:
        """Whether to end."""
        live = [i for i in range(len(self._widths)) if series[i].error is None]
        rounds = min(len(series[i].blocks) for i in live) if live else 0
        if not rounds:
            return True
        if not self._at:
            longest = max(s.wall_ms for s in series if s.error is None) / rounds
            self._at = sequential.looks(max(rounds, int(self._job.max_ms / longest)), first=rounds)
        passed = sum(at <= rounds for at in self._at)
        if passed == self._done:
            return False
        self._done = passed
        return passed == self.count or self._settled(series, live, passed)

    def _settled(self, series: Sequence[Series], live: Sequence[int], k: int) -> bool:
        if self._judged is not None:
            return all(self._kept(limit, series, self._judged, k) for limit in self._job.limits)
        for i, j in itertools.combinations(live, 2):
            a, b = (per_sample(series[n], self._widths[n]) for n in (i, j))
            if not sequential.settled(a, b, k, self.count, margin=self._job.margin):
                return False
        return all(self._kept(limit, series, i, k) for limit in self._job.limits for i in live)

    def _kept(self, limit: Limit, series: Sequence[Series], i: int, k: int) -> bool:
        name = statistic(limit.metric)
        if name is None or (limit.relative and (i == 0 or series[0].error)):
            return True  # what more samples of this kind do not decide
        value = limit.value
        if limit.metric == "throughput" and not limit.relative:
            blocks = [(len(b) * self._widths[i], int(b.sum())) for b in series[i].blocks]
            rate = throughput.claim(blocks, looks=self.count)
            return k == self.count or rate.lower >= value or rate.upper < value
        if limit.metric == "throughput":
            value = 1 / value
        if not limit.relative:
            return sequential.limit_settled(series[i].blocks, name, value, k, self.count)
        a, b = per_sample(series[0], self._widths[0]), per_sample(series[i], self._widths[i])
        return sequential.ratio_settled(a, b, name, value, k, self.count)


def per_sample(series: Series, width: int) -> Blocks:
    """The blocks in nanoseconds a sample, where queries of two models may differ in size."""
    return [b / width for b in series.blocks] if width > 1 else list(series.blocks)


def statistic(metric: str) -> str | None:
    """The statistic of latencies that a metric of a budget is about; None: it is about something else."""
    family, _, part = metric.partition(".")
    if metric == "throughput":
        return "mean"
    if family != "latency" or part == "sustained":
        return None
    return "p50" if part == "paced" else part
