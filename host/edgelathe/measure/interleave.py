"""Timing several sessions in turns. The device answers raw samples; all else is here."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgelathe.device.errors import ModelFailure
from edgelathe.stats.latency import located
from edgelathe.stats.series import steady

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Timeable(Protocol):
    """What `bench` takes of a session."""

    def time(self, calls: int = 1, min_ms: float = 0.0, first: int = 0) -> Any:
        """A block: `.ns`, `.conditions`, `.more`."""


@dataclass(frozen=True)
class BenchPlan:
    """How long to measure, per session: at least `min_ms` and `min_calls`, at most `max_ms`, in blocks.

    Samples that hang together may be worth too few independent ones for an interval: it goes on until the median has
    one, or `max_ms`. `warm_ms` bounds the warm-up, which ends before when the blocks no longer change.
    """

    min_ms: float = 1000.0
    min_calls: int = 200
    max_ms: float = 20_000.0
    block_ms: float = 100.0
    warm_ms: float = 3000.0
    warm_block_ms: float = 40.0


@dataclass(eq=False)
class Series:
    """The samples of one session: int64 nanoseconds per block, blocks in the order of the rounds.

    Block i of all sessions of one `bench` belongs to the same round. `conditions` and `more` hold what the agent said
    of each block; `wall_ms` is the time that all took, pauses too; `settled`: the warm-up ended because times were
    steady; `error` is why it ended early (None: it did not).
    """

    blocks: list[NDArray[np.int64]] = field(default_factory=list)
    conditions: list[Mapping[str, Any]] = field(default_factory=list)
    more: list[Mapping[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    warm_calls: int = 0
    wall_ms: float = 0.0
    settled: bool = True
    error: ModelFailure | None = None

    @property
    def calls(self) -> int:
        """How many calls were counted."""
        return sum(len(b) for b in self.blocks)

    @property
    def spent_ms(self) -> float:
        """Time of the counted calls."""
        return float(sum(int(b.sum()) for b in self.blocks)) / 1e6

    def add(self, timed: Any, ns: NDArray[np.int64]) -> None:
        """One more block: what the agent said of it, and those of its samples that count."""
        self.blocks.append(ns)
        self.conditions.append(timed.conditions)
        self.more.append(timed.more)
        self.wall_ms += wall_ms(timed.ns, timed.more)

    def cut(self, rounds: int) -> None:
        """Keep the first so many rounds."""
        del self.blocks[rounds:], self.conditions[rounds:], self.more[rounds:]


#: Most samples that a statistic is computed from; of more every second, third, ... counts.
MANY = 2_000_000

#: Fewest calls of a block whose first is left out: it runs with the caches of the session before it.
COLD = 10


def bench(
    sessions: Sequence[Timeable],
    plan: BenchPlan | None = None,
    *,
    seed: int = 0,
    tick: Callable[[float], None] | None = None,
    until: Callable[[Sequence[Series]], bool] | None = None,
    into: list[Series] | None = None,
    survive: bool = False,
) -> list[Series]:
    """Warm up each session until steady, then time all in randomized rounds of one block each.

    Interleaving shares drift and disturbance between the sessions; the order within a round is random from `seed`,
    so that no session always follows the same other (Box, Hunter and Hunter, Statistics for Experimenters, 4.2:
    block what you can, randomize what you cannot).

    Args:
        sessions: open and fed.
        plan: how long.
        seed: of the order.
        tick: told how far it is, 0 to 1.
        until: asked after each round once there is enough of all; it goes on until that says so, or `max_ms`.
            None: what is enough is all.
        into: filled with the series, so that what is there survives an exception.
        survive: a session that fails is left out from then on and its series says why; else ModelFailure is raised.
    """
    plan = plan or BenchPlan()
    series = [] if into is None else into
    series += [Series() for _ in sessions]
    live, chance = list(range(len(sessions))), random.Random(seed)

    def each(step: Callable[[Timeable, Series, BenchPlan], None]) -> None:
        for i in tuple(live):
            try:
                step(sessions[i], series[i], plan)
            except ModelFailure as e:
                if not survive:
                    raise
                series[i].error = e
                live.remove(i)

    each(_warm)
    while live and _goes_on(series, live, plan, until):
        chance.shuffle(live)
        each(_block)
        if tick and live:
            tick(min(_part(series[i], plan, until is not None) for i in live))
    for i in live:
        series[i].warnings += _remarks(series[i], plan)
    return series


def thinned(blocks: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Every k-th sample of each block, k the least that leaves MANY: long runs of quick models have millions."""
    k = max(1, -(-sum(map(len, blocks)) // MANY))
    return [b[::k] for b in blocks]


def _goes_on(
    series: Sequence[Series], live: Sequence[int], plan: BenchPlan, until: Callable[[Sequence[Series]], bool] | None
) -> bool:
    if any(not _enough(series[i], plan) for i in live):
        return True
    if until is None or any(series[i].wall_ms >= plan.max_ms for i in live):
        return False
    return not until(series)


def _warm(session: Timeable, series: Series, plan: BenchPlan) -> None:
    blocks: list[NDArray[np.int64]] = []
    spent = 0.0
    while spent < plan.warm_ms:
        timed = session.time(1, plan.warm_block_ms, series.warm_calls)
        blocks.append(timed.ns)
        series.warm_calls += len(timed.ns)
        spent += wall_ms(timed.ns, timed.more)
        if steady(blocks):
            return
    if len(blocks) > 5:
        series.settled = False
        series.warnings.append(f"did not settle within {plan.warm_ms / 1000:.0f} s of warm-up")


def _block(session: Timeable, series: Series, plan: BenchPlan) -> None:
    timed = session.time(1, plan.block_ms, series.warm_calls + series.calls)
    series.add(timed, timed.ns[1:] if len(timed.ns) >= COLD else timed.ns)


def wall_ms(ns: NDArray[np.int64], more: Mapping[str, Any]) -> float:
    """Time of a block, with its pauses where there are some."""
    return float(more.get("wall_ns") or ns.sum()) / 1e6


def _enough(series: Series, plan: BenchPlan) -> bool:
    return series.wall_ms >= plan.max_ms or (_part(series, plan) >= 1.0 and located(thinned(series.blocks)))


def _part(series: Series, plan: BenchPlan, open_end: bool = False) -> float:
    whole = series.wall_ms / max(plan.max_ms, 1e-9)
    if open_end:
        return whole
    return max(whole, min(series.wall_ms / max(plan.min_ms, 1e-9), series.calls / max(plan.min_calls, 1)))


def _remarks(series: Series, plan: BenchPlan) -> list[str]:
    remarks = []
    if series.calls < plan.min_calls:
        remarks.append(f"{series.calls} calls in {plan.max_ms / 1000:.0f} s, {plan.min_calls} were wanted")
    hot = sum(bool(c.get("throttled")) for c in series.conditions)
    if hot:
        remarks.append(f"the device throttled in {hot} of {len(series.conditions)} blocks")
    return remarks
