"""Latency over a long time: one model without a pause, in windows, from the first call on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.claim import Claim
from edgelathe.measure.cooldown import hottest
from edgelathe.measure.interleave import Series, Timeable
from edgelathe.stats import drift, latency

#: Windows of a run, and the shortest one in ms.
WINDOWS, SHORTEST_MS = 240, 500.0


@dataclass(frozen=True)
class Window:
    """What happened in one window: seconds since the start (its middle), latencies in ms, and the device beside it.

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
        series.blocks.append(timed.ns)
        series.conditions.append(timed.conditions)
        series.more.append(timed.more)
        series.wall_ms += float(timed.more.get("wall_ns") or timed.ns.sum()) / 1e6
        last, passed = windows(series)[-1], series.wall_ms / 1000
        tick(f"{passed:.0f} of {sustain_ms / 1000:.0f} s · {last}", min(1.0, series.wall_ms / sustain_ms))
    return series


def windows(series: Series) -> list[Window]:
    """The windows of a sustained series."""
    found, at = [], 0.0
    for ns, conditions, more in zip(series.blocks, series.conditions, series.more, strict=True):
        took = float(more.get("wall_ns") or ns.sum()) / 1e9
        after = conditions.get("after") or {}
        p50, p95 = (float(v) / 1e6 for v in np.percentile(ns, [50, 95]))
        clock = max((after.get("clocks_khz") or {}).values(), default=None)
        found.append(
            Window(at + took / 2, p50, p95, len(ns), hottest(after) or None, clock, conditions.get("throttled"))
        )
        at += took
    return found


def steady_claim(series: Series) -> Claim:
    """`latency.sustained`: the median once the device has come to a steady state, in ms, with its bounds.

    Where it did not the last part counts, and its bounds are as wide as its drift makes them.
    """
    return latency.claim(series.blocks[settled(series.blocks) :], "p50")


def settled(blocks: Sequence[NDArray[np.int64]]) -> int:
    """The first window of the steady state: the earliest eighth of the run after which no drift is seen."""
    n = len(blocks)
    starts = [n * part // 8 for part in range(7)]
    return next((at for at in starts if not drift.drift(blocks[at:]).significant), starts[-1])
