"""Calls with pauses between them, as an application makes them: caches and clocks have gone cold meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from edgelathe.device.session import Load, Session, Timed
from edgelathe.measure.interleave import COLD

#: Fewest counted queries of a block.
FEWEST = 3


@dataclass(frozen=True)
class Paced:
    """A session with a query every `period_ms`, as `interleave.bench` takes it. `width` samples go into a query.

    The first query of a block is left out: no pause is before it. A query that would begin late begins at once.
    """

    session: Session
    period_ms: float
    width: int = 1

    def time(self, calls: int = 1, min_ms: float = 0.0, first: int = 0) -> Timed:  # noqa: ARG002
        """A block of about a second, of FEWEST counted queries at least and fewer than COLD."""
        wanted = max(calls, min(COLD - 1, max(FEWEST, round(1000 / self.period_ms))))
        timed = self.session.time(wanted + 1, 0.0, first * self.width, Load(period_ms=self.period_ms))
        return Timed(timed.ns[1:], timed.conditions, timed.more)
