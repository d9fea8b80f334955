"""Latency over minutes: when did it become slower, and where did it settle?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.stats import latency
from edgelathe.stats.drift import drift
from edgelathe.stats.series import ranks

FEWEST = 10
"""With fewer windows no change is looked for."""

SHORTEST = 4
"""A level lasts so many windows at least."""

LEAST = 0.05
"""A change of the level below this part is not an onset of anything."""


@dataclass(frozen=True)
class Steady:
    """What a sustained run came to.

    Attributes:
        onset_s: when it became slower (the start of the first slower window); None: it did not.
        before: median before the onset, None without one. In the unit of the medians, as are the next three.
        level: median of the steady state: of all that follows its last change.
        low: two-sided 95% interval of the level; infinite where windows are too few.
        high: its other end.
        since_s: the start of the steady state.
        settled: no trend is left in the steady state; else it was still changing when the run ended.
        reported: whether the device itself reported throttling since the onset; None: there is none, or it cannot say.
    """

    onset_s: float | None
    before: float | None
    level: float
    low: float
    high: float
    since_s: float
    settled: bool
    reported: bool | None

    def to_json(self) -> dict[str, Any]:
        """Plain fields; an infinite end is null."""
        ends = {k: v if math.isfinite(v) else None for k, v in (("low", self.low), ("high", self.high))}
        return {
            "onset_s": self.onset_s, "before": self.before, "level": self.level, **ends,
            "since_s": self.since_s, "settled": self.settled, "reported": self.reported,
        }  # fmt: skip


def steady_state(times_s: Sequence[float], medians: Sequence[float], throttled: Sequence[bool] = ()) -> Steady:
    """Onset of a slowdown and the steady state, from medians of equally long windows that began at `times_s`.

    Levels are parted at change points, first of the whole run and then of each part (binary segmentation): where two
    medians leave the least absolute deviation, if Pettitt's test (1979, A non-parametric approach to the change-point
    problem) sees a change at 1% and it is LEAST of the level at least. The test takes windows as independent; where
    they wander it is LEAST that keeps it from seeing levels (in simulations with a spread of 2% and a correlation of
    0.8 an onset was seen in 2 of 200 runs without one). The steady state is the last part. `throttled` says for each
    window whether the device reported it. Raises ValueError for no window, or lengths that differ, or a median that is
    not above 0.
    """
    values = np.asarray(medians, np.float64)
    if not len(values) == len(times_s) > 0 or len(throttled) not in (0, len(values)) or not (values > 0).all():
        raise ValueError(f"{len(times_s)} times, {len(values)} medians above 0, {len(throttled)} flags")
    starts = [0, *_changes(values, 0)]
    levels = [float(np.median(part)) for part in np.split(values, starts[1:])]
    onset = next((i for i in range(1, len(levels)) if levels[i] > (1 + LEAST) * min(levels[:i])), None)
    last = values[starts[-1] :]
    level, ends = latency.bounded([last], np.sort(last), "p50", 0.025)
    return Steady(
        onset_s=None if onset is None else float(times_s[starts[onset]]),
        before=None if onset is None else min(levels[:onset]),
        level=level,
        low=ends.low,
        high=ends.high,
        since_s=float(times_s[starts[-1]]),
        settled=not drift([np.array([v]) for v in last]).significant,
        reported=any(throttled[starts[onset] :]) if onset is not None and len(throttled) else None,
    )


def _changes(values: NDArray[np.float64], at: int) -> list[int]:
    """Where a new level begins, ascending; `at` is the index of the first value in the whole run."""
    split = _change(values) if len(values) >= FEWEST else None
    if split is None:
        return []
    return [*_changes(values[:split], at), at + split, *_changes(values[split:], at + split)]


def _change(values: NDArray[np.float64]) -> int | None:
    n = len(values)
    sums = 2 * np.cumsum(ranks(values)) - np.arange(1, n + 1) * (n + 1)  # Pettitt's U after each value
    if 2 * math.exp(-6 * float(np.abs(sums).max()) ** 2 / (n**3 + n**2)) > 0.01:
        return None
    split = min(range(SHORTEST, n - SHORTEST + 1), key=lambda i: _spread(values[:i]) + _spread(values[i:]))
    before, after = float(np.median(values[:split])), float(np.median(values[split:]))
    return split if abs(math.log(after / before)) >= math.log1p(LEAST) else None


def _spread(values: NDArray[np.float64]) -> float:
    return float(np.abs(values - np.median(values)).sum())
