"""Reads named power and energy sensors while something runs, as often as they have something new to say."""

from __future__ import annotations

import time
from statistics import median
from typing import Any, Dict, List, Optional

from edgelathe_agent.protocol import AgentError
from edgelathe_agent.rails import Source, sources, why

#: Seconds between two readings of a sensor, at least and at most.
FASTEST, SLOWEST = 0.01, 0.25
#: Largest share of the time that a sensor's readings may take.
DUTY = 0.05
#: The sensor's own pace is looked at after each of so many readings, then whenever as many more are there.
_LEARN = 32


class Meter:
    """Reads the named sensors each time `take` is called; `interval`: seconds between readings, 0 for no sensor.

    Time counts from the first `take`. Raises AgentError("request") for a sensor that is not there or cannot be read.
    """

    def __init__(self, root: str, labels: List[str]) -> None:
        found = {s.label: s for s in sources(root)} if labels else {}
        self._tracks = [_Track(_named(found, label)) for label in labels]
        self.interval = FASTEST if labels else 0.0
        self._start: Optional[int] = None

    def take(self) -> None:
        """One reading of each sensor that may have something new."""
        self._take(last=False)

    def readings(self) -> Optional[List[Dict[str, Any]]]:
        """[{"label", "kind", "unit", "t_ns", "values", "refresh_s", "cost_us", "why", ...}], after a last reading.

        Energy counts in joules from the first reading. refresh_s: time between changes of the value (null: it changed
        too seldom to tell); cost_us: median time of a reading; why: what ended the readings early, else "". None where
        no sensor was named.
        """
        if not self._tracks:
            return None
        self._take(last=True)
        return [track.to_json() for track in self._tracks]

    def _take(self, last: bool) -> None:
        now = time.monotonic_ns()
        if self._start is None:
            self._start = now
        for track in self._tracks:
            if not track.why and (last or now >= track.due):
                track.read(self._start)


class _Track:
    """The readings of one sensor."""

    def __init__(self, source: Source) -> None:
        self.source, self.due, self.why = source, 0, ""
        self._t: List[int] = []
        self._values: List[float] = []
        self._costs: List[int] = []
        self._turns, self._raw, self._pause = 0.0, 0.0, 0

    def read(self, start: int) -> None:
        begun = time.monotonic_ns()
        try:
            value = self._unwrapped(self.source.value())
        except (OSError, ValueError) as e:
            self.why = f"{why(e)} after {(begun - start) / 1e9:.1f} s"
            return
        end = time.monotonic_ns()
        self._t.append((begun + end) // 2 - start)
        self._values.append(value)
        self._costs.append(end - begun)
        if len(self._t) <= _LEARN or len(self._t) % _LEARN == 0:
            self._pause = int(1e9 * self._pace())
        self.due = begun + self._pause

    def to_json(self) -> Dict[str, Any]:
        energy = self.source.kind == "energy"
        first = self._values[0] if energy and self._values else 0.0
        return {
            "label": self.source.label, "kind": self.source.kind, "unit": "J" if energy else "W", "t_ns": self._t,
            "values": [v - first for v in self._values], "driver": self.source.driver, "note": self.source.note,
            "refresh_s": refresh(self._t, self._values) or self.source.refresh_s or None,
            "cost_us": median(self._costs) / 1e3 if self._costs else None, "why": self.why,
        }  # fmt: skip

    def _unwrapped(self, value: float) -> float:
        """A counter goes on where it starts again. Raises ValueError where it is not known how far it counts."""
        if self.source.kind == "energy" and self._values and value < self._raw:
            if not self.source.wraps_j:
                raise ValueError("the counter started again")
            self._turns += self.source.wraps_j
        self._raw = value
        return self._turns + value

    def _pace(self) -> float:
        """Twice for each change of the value, and seldom enough for its cost."""
        own = refresh(self._t, self._values) or self.source.refresh_s
        return min(max(FASTEST, own / 2, median(self._costs) / 1e9 / DUTY), max(SLOWEST, own / 2))


def refresh(t_ns: List[int], values: List[float]) -> float:
    """Seconds between changes of a value, the median; 0 with fewer than four changes."""
    turns = [t for t, a, b in zip(t_ns[1:], values, values[1:]) if a != b]
    return median(b - a for a, b in zip(turns, turns[1:])) / 1e9 if len(turns) > 3 else 0.0


def _named(found: Dict[str, Source], label: str) -> Source:
    source = found.get(label)
    if source is None:
        mend = "one of " + ", ".join(sorted(found)) if found else "this machine shows none"
        raise AgentError("request", f"no power sensor {label!r}", mend)
    if source.why:
        raise AgentError("request", f"power sensor {label}: {source.why}", "choose another, or see docs/energy.md")
    return source
