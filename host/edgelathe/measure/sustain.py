"""Latency over a long time: one model without a pause, in windows, from the first call on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.claim import Claim
from edgelathe.measure.cooldown import hottest
from edgelathe.measure.interleave import Series, Timeable, thinned, wall_ms
from edgelathe.stats import latency
from edgelathe.stats.settle import Steady, steady_state

#: Windows of a run, and the shortest one in ms.
WINDOWS, SHORTEST_MS = 240, 500.0


@dataclass(frozen=True)
class Window:
    """What happened in one window: its start in seconds, latencies in ms, and the device beside it.

    `temperature_c` is the hottest sensor's, `clock_khz` the highest CPU clock, both at its end; None: unknown.
    """

    t_s: float
    p50_ms: float
    p95_ms: float
    n: int
    temperature_c: float | None
    clock_khz: int | None
    throttled: bool | None

    def to_json(self) -> dict[str, Any]:
        """Plain fields."""
        return asdict(self)

    def __str__(self) -> str:
        clock = "" if self.clock_khz is None else f" · {self.clock_khz / 1e6:.2f} GHz"
        heat = "" if self.temperature_c is None else f" · {self.temperature_c:.0f} °C"
        return f"{self.p50_ms:.3g} ms{heat}{clock}{' · throttled' if self.throttled else ''}"


def window_ms(sustain_ms: float) -> float:
    """Length of a window."""
    return max(SHORTEST_MS, sustain_ms / WINDOWS)


def sustain(
    session: Timeable, sustain_ms: float, tick: Callable[[str, float], None], series: Series | None = None
) -> Series:
    """Time a session for so long, a window a block; nothing is left out, the first calls neither.

    `series` is filled, so that what is there survives an interruption.
    """
    series = Series() if series is None else series
    while series.wall_ms < sustain_ms:
        timed = session.time(1, window_ms(sustain_ms), series.calls)
        series.add(timed, timed.ns)
        last, _ = _window(series, len(series.blocks) - 1, 0.0)
        passed = series.wall_ms / 1000
        tick(f"{passed:.0f} of {sustain_ms / 1000:.0f} s · {last}", min(1.0, series.wall_ms / sustain_ms))
    return series


def windows(series: Series) -> list[Window]:
    """The windows of a sustained series."""
    found, at = [], 0.0
    for i in range(len(series.blocks)):
        window, took = _window(series, i, at)
        found.append(window)
        at += took
    return found


def _window(series: Series, i: int, at: float) -> tuple[Window, float]:
    """Window i, which began at `at` seconds, and how long it took."""
    ns, conditions, more = series.blocks[i], series.conditions[i], series.more[i]
    took = wall_ms(ns, more) / 1000
    after = conditions.get("after") or {}
    p50, p95 = (float(v) / 1e6 for v in np.percentile(ns, [50, 95]))
    clock = max((after.get("clocks_khz") or {}).values(), default=None)
    return Window(at, p50, p95, len(ns), hottest(after) or None, clock, conditions.get("throttled")), took


def steady(found: Sequence[Window]) -> Steady:
    """When it became slower, and where it settled."""
    throttled = [bool(w.throttled) for w in found] if all(w.throttled is not None for w in found) else ()
    return steady_state([w.t_s for w in found], [w.p50_ms for w in found], throttled)


def steady_claim(series: Series) -> Claim:
    """`latency.sustained`: the median of the calls once the device has come to a steady state, in ms, with its bounds.

    They are infinite where it was still changing when the run ended.
    """
    all_ = windows(series)
    found = steady(all_)
    claim = latency.claim(_after(series, all_, found), "p50")
    return claim if _is_steady(found) else replace(claim, lower=-math.inf, upper=math.inf)


def to_json(series: Series) -> dict[str, Any]:
    """The `sustained` of a result. `steady_ms`: median of the calls in the steady state, from `settled_s` on, with its
    95% interval; null: it was still changing. `slowdown`: that over the level before `onset_s`."""
    all_ = windows(series)
    found = steady(all_)
    got = latency.summarize(_after(series, all_, found))
    low, high = got.ci["p50"].low, got.ci["p50"].high
    hot = next((w.t_s for w in all_ if w.throttled), None)
    return {
        "steady_ms": {"value": got.p50, "low": low, "high": high} if _is_steady(found) else None,
        "settled_s": found.since_s if _is_steady(found) else None, "onset_s": found.onset_s, "throttled_s": hot,
        "before_ms": found.before, "slowdown": found.level / found.before if found.before else None,
        "windows": [w.to_json() for w in all_],
    }  # fmt: skip


def remarks(series: Series) -> list[str]:
    """What is to be said of a run that came to nothing steady."""
    if _is_steady(steady(windows(series))):
        return []
    return ["latency was still changing when the time was up: give --sustain more"]


def _is_steady(found: Steady) -> bool:
    """Whether there is a level that the run came to, and stayed at for long enough to bound it."""
    return found.settled and math.isfinite(found.low) and math.isfinite(found.high)


def _after(series: Series, all_: Sequence[Window], found: Steady) -> list[NDArray[np.int64]]:
    at = next(i for i, w in enumerate(all_) if w.t_s >= found.since_s)
    return thinned(series.blocks[at:])
