"""From readings of power to energy per inference: pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.claim import Claim
from edgelathe.stats.special import student

Array = NDArray[np.float64]

#: Fewest changes (of a counter) or readings (of a power) that a window needs.
FEWEST = 3


class Trace(NamedTuple):
    """Readings of one source: `t` in seconds, ascending; `values` in watts, or joules counted from some start."""

    kind: str
    t: Array
    values: Array


class Window(NamedTuple):
    """Readings of each source that counts, and from when to when, in their seconds, the machine did one thing."""

    traces: tuple[Trace, ...]
    start: float
    end: float

    def cut(self, start: float, end: float) -> Window:
        """The same readings, for a part of the time."""
        return Window(self.traces, max(self.start, start), min(self.end, end))

    def counts(self) -> list[int]:
        """How many readings of each source lie in it."""
        return [int(_inside(trace.t, self.start, self.end).sum()) for trace in self.traces]

    def watts(self) -> float | None:
        """Mean power of all sources together; None with too few readings."""
        means = [mean_watts(trace, self.start, self.end) for trace in self.traces]
        return None if not means or None in means else sum(m for m in means if m is not None)


@dataclass(frozen=True)
class Block:
    """A load window between two idle ones: mean watts before, under load and after.

    `wall_s` is the time that `inferences` took together, pauses included.
    """

    before: float
    load: float
    after: float
    wall_s: float
    inferences: int

    @property
    def idle(self) -> float:
        """Idle power at the time of the load: a drift that is linear over the block cancels."""
        return (self.before + self.after) / 2

    @property
    def scale(self) -> float:
        """Millijoules per inference of one watt."""
        return 1000 * self.wall_s / self.inferences

    @property
    def net_mj(self) -> float:
        """Energy per inference above idling."""
        return (self.load - self.idle) * self.scale

    @property
    def gross_mj(self) -> float:
        """Energy per inference of all that the source counts."""
        return self.load * self.scale


@dataclass(frozen=True)
class Mean:
    """A mean with its two-sided 95% interval [low, high], and as a claim with one-sided bounds."""

    value: float
    low: float
    high: float
    claim: Claim


def _inside(t: Array, start: float, end: float) -> NDArray[np.bool_]:
    return (t >= start) & (t <= end)


def mean_watts(trace: Trace, start: float, end: float) -> float | None:
    """Mean power between two times; None with fewer than FEWEST readings there.

    Power by the trapezoid rule, ends interpolated. A counter by its slope between the first and the last change that
    were seen: each is seen late by the same time on average, so the slope of a staircase is not biased.
    """
    t, values = trace.t, trace.values
    if trace.kind == "energy":
        turns = 1 + np.flatnonzero(np.diff(values))
        t, values = t[turns], values[turns]
    inside = _inside(t, start, end)
    if inside.sum() < FEWEST:
        return None
    if trace.kind == "energy":
        t, values = t[inside], values[inside]
        return float((values[-1] - values[0]) / (t[-1] - t[0]))
    at = np.concatenate([[start], t[inside], [end]])
    here = np.interp(at, t, values)
    return float(((here[1:] + here[:-1]) / 2 * np.diff(at)).sum() / (end - start))


def net(blocks: Sequence[Block], widen_w: float = 0.0) -> Mean:
    """Net energy per inference in mJ from two blocks at least: Student's t on the paired differences load - idle.

    Box, Hunter and Hunter, Statistics for Experimenters, 3.2 (paired comparison). Assumes independent blocks; `widen_w`
    watts are added on each side for what repetition cannot show, the sensor's rounding. Raises ValueError for one
    block.
    """
    if len(blocks) < 2:
        raise ValueError(f"{len(blocks)} blocks have no interval")
    values = np.array([b.net_mj for b in blocks])
    value, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    more = widen_w * float(np.mean([b.scale for b in blocks]))
    wide, narrow = (student(alpha, len(values) - 1) * error + more for alpha in (0.025, 0.05))
    claim = Claim(value, value - narrow, value + narrow, n=len(values))
    return Mean(value, value - wide, value + wide, claim)


def rounding(windows: Iterable[Window]) -> float:
    """Watts that the mean of a window may be off because the sensor rounds; 0 where its own noise averages that out.

    Half a step where the readings of a window spread by less than half a step (no dither: Widrow and Kollar,
    Quantization Noise, 3): all of them may be rounded the same way.
    """
    taken = list(windows)
    worst = 0.0
    for i, kind in enumerate([trace.kind for trace in taken[0].traces] if taken else []):
        if kind == "power":
            traces = [w.traces[i] for w in taken]
            step = resolution(traces)
            spread = median([float(np.std(t.values)) for t in traces if len(t.values)] or [0.0])
            worst += step / 2 if spread < step / 2 else 0.0
    return worst


def resolution(traces: Sequence[Trace]) -> float:
    """The smallest step between two values that were seen, in their unit; 0: none."""
    steps = np.diff(np.unique(np.concatenate([t.values for t in traces]))) if traces else np.empty(0)
    steps = steps[steps > 1e-9]
    return float(steps.min()) if len(steps) else 0.0


def stuck(windows: Iterable[Window]) -> bool:
    """Whether no source ever changed its value."""
    taken = list(windows)
    if not taken:
        return False
    every = zip(*(w.traces for w in taken), strict=True)
    return all(_still(traces) for traces in every)


def _still(traces: Sequence[Trace]) -> bool:
    if traces[0].kind == "energy":  # each window counts from its own start
        return all(len(np.unique(t.values)) < 2 for t in traces)
    return len(np.unique(np.concatenate([t.values for t in traces]))) < 2


def trace(answer: Mapping[str, Any]) -> Trace:
    """An entry of the agent's `power`: time in seconds from its start."""
    return Trace(answer["kind"], np.array(answer["t_ns"], np.float64) / 1e9, np.array(answer["values"], np.float64))
