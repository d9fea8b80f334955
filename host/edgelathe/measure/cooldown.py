"""Waiting until a device is quiet again: not throttled, cooler, and left alone by other processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from edgelathe.measure.conditions import BUSY_SHARE

#: Seconds between two looks at the device, and after which load that has not fallen is taken to stay.
STEP, PATIENCE = 2.0, 8.0

#: Kelvin by which it must have cooled between two looks for cooling to go on.
COOLING = 0.3

Sense = Mapping[str, Any]


class Sensing(Protocol):
    """What is asked of a device."""

    def sense(self) -> Sense:
        """As the agent's `sense` answers."""


def cool_down(
    device: Sensing,
    most_ms: float,
    tick: Callable[[str, float], None] = lambda what, part: None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until the device is quiet, `most_ms` at most; whether it is worth to measure again.

    It waits on while the device throttles or cools. Where it does neither, and others kept it busy for PATIENCE
    seconds without letting go, waiting does not help: False. What a device does not tell is not waited for.
    """
    begun, before, first = clock(), device.sense(), None
    while (passed := clock() - begun) < most_ms / 1000:
        tick("cooling down", passed * 1000 / most_ms)
        sleep(min(STEP, most_ms / 1000))
        now = device.sense()
        share, cooling = load(before, now), hottest(before) - hottest(now) > COOLING
        busy = share is not None and share > BUSY_SHARE
        if not (now.get("throttled") or cooling or busy):
            return True
        first = share if first is None else first
        steady = busy and share is not None and first is not None and share > 0.8 * first
        if steady and not (now.get("throttled") or cooling) and clock() - begun >= PATIENCE:
            return False
        before = now
    return most_ms > 0 and not before.get("throttled")


def load(before: Sense, after: Sense) -> float | None:
    """Share of all CPUs that was busy between two looks; None: unknown."""
    ends = [s.get("cpu_s") or {} for s in (before, after)]
    if any(e.get(k) is None for e in ends for k in ("busy", "idle")):
        return None
    busy, idle = (ends[1][k] - ends[0][k] for k in ("busy", "idle"))
    return float(busy / (busy + idle)) if busy + idle > 0 else None


def hottest(sense: Sense) -> float:
    """The highest temperature in Celsius; 0 where none is known."""
    return max((float(t) for t in (sense.get("temperatures_c") or {}).values() if t is not None), default=0.0)
