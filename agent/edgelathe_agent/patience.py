"""How long the child of a session may take, and what the host is told meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Callable, Dict, NamedTuple, Optional

if TYPE_CHECKING:
    from edgelathe_agent.jobs import Job
    from edgelathe_agent.serve import Agent

Head = Dict[str, Any]


class Session(NamedTuple):
    """An open model: its child and the limits of its requests: `call_seconds` of those that run it, beyond what it was
    to run for; `seconds` of the others."""

    job: Job
    seconds: float
    call_seconds: float
    memory_bytes: int

    def limit(self, runs_for: Optional[float]) -> float:
        """Most seconds of a request; 0: any."""
        if runs_for is None:
            return self.seconds
        return self.call_seconds and self.call_seconds + runs_for


class Tell:
    """Tells the host every few seconds what a child is at: in its own words, else `what`. A tick of a wait."""

    EVERY = 3.0

    def __init__(self, agent: Agent, job: Job, what: str, after: float = 0.0) -> None:
        """`after`: seconds in which nothing is told."""
        self._agent, self._job, self._what = agent, job, what
        self._begun = time.monotonic()
        self._last = self._begun + after

    def __call__(self) -> None:
        """Look at the clock."""
        now = time.monotonic()
        if now - self._last >= self.EVERY:
            self._last = now
            self._agent.event(f"{self._job.doing or self._what}, {now - self._begun:.0f} s so far")


class Patience:
    """A tick of a request that runs the model: `tick`, and a word to the host where it takes long beyond `runs_for`."""

    AFTER = 10.0

    def __init__(self, agent: Agent, head: Head, runs_for: float, tick: Callable[[], None] = lambda: None) -> None:
        session = agent.sessions.get(head["session"])
        self._tick, what = tick, "the model has not answered yet"
        self._tell = session and Tell(agent, session.job, what, after=runs_for + self.AFTER)

    def __call__(self) -> None:
        """Look at the clock."""
        self._tick()
        if self._tell:
            self._tell()
