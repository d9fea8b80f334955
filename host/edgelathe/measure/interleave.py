"""Timing several sessions in turns, and evaluating one in blocks. The device answers raw samples; all else is here."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgelathe.stats.series import steady

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Array = NDArray[np.generic]


class Timeable(Protocol):
    """What `bench` takes of a session."""

    def time(self, calls: int = 1, min_ms: float = 0.0, first: int = 0) -> Any:
        """A block: `.ns`, `.conditions`."""


class Inferable(Protocol):
    """What `evaluate` takes of a session."""

    def infer(self, first: int, count: int) -> list[Array]:
        """Outputs of `count` samples."""


@dataclass(frozen=True)
class BenchPlan:
    """How long to measure, per session: at least `min_ms` and `min_calls`, at most `max_ms` of calls, in blocks.

    `warm_ms` bounds the warm-up, which ends before when the blocks no longer change.
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

    Block i of all sessions of one `bench` belongs to the same round. `conditions` holds those of each block.
    """

    blocks: list[NDArray[np.int64]] = field(default_factory=list)
    conditions: list[Mapping[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    warm_calls: int = 0

    @property
    def calls(self) -> int:
        """How many calls were counted."""
        return sum(len(b) for b in self.blocks)

    @property
    def spent_ms(self) -> float:
        """Time of the counted calls."""
        return float(sum(int(b.sum()) for b in self.blocks)) / 1e6


#: Fewest calls of a block whose first is left out: it runs with the caches of the session before it.
COLD = 10


def bench(
    sessions: Sequence[Timeable],
    plan: BenchPlan | None = None,
    *,
    seed: int = 0,
    tick: Callable[[float], None] | None = None,
) -> list[Series]:
    """Warm up each session until steady, then time all in randomized rounds of one block each.

    Interleaving shares drift and disturbance between the sessions; the order within a round is random from `seed`,
    so that no session always follows the same other (Box, Hunter and Hunter, Statistics for Experimenters, 4.2:
    block what you can, randomize what you cannot). `tick` is told how far it is, 0 to 1.
    """
    plan = plan or BenchPlan()
    series = [_warmed(session, plan) for session in sessions]
    order, chance = list(range(len(sessions))), random.Random(seed)
    while pending := [i for i in order if not _enough(series[i], plan)]:
        chance.shuffle(order)
        for i in order:
            _block(sessions[i], series[i], plan)
        if tick:
            tick(min(_part(series[i], plan) for i in pending))
    for s in series:
        s.warnings += _remarks(s, plan)
    return series


def evaluate(
    session: Inferable,
    n: int,
    *,
    block: int | None = None,
    batch: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[list[Array]]:
    """Outputs of samples 0 to n, an array per output and block, so that a caller can show progress and stop early.

    Blocks hold `block` samples; where it is None as many as take about half a second, in multiples of `batch`.
    """
    at, size = 0, block or batch
    while at < n:
        count, begun = min(size, n - at), clock()
        yield session.infer(at, count)
        at += count
        if block is None:
            seconds = max(clock() - begun, 1e-3)
            wanted = int(min(4 * size, size * 0.5 / seconds))  # grows fourfold at most: the first call is the slowest
            size = max(batch, min(wanted, 4096) // batch * batch)


def _warmed(session: Timeable, plan: BenchPlan) -> Series:
    series, blocks, spent = Series(), [], 0.0
    while spent < plan.warm_ms:
        ns = session.time(1, plan.warm_block_ms, series.warm_calls).ns
        blocks.append(ns)
        series.warm_calls += len(ns)
        spent += float(ns.sum()) / 1e6
        if steady(blocks):
            return series
    if len(blocks) > 5:
        series.warnings.append(f"did not settle within {plan.warm_ms / 1000:.0f} s of warm-up")
    return series


def _block(session: Timeable, series: Series, plan: BenchPlan) -> None:
    timed = session.time(1, plan.block_ms, series.warm_calls + series.calls)
    series.blocks.append(timed.ns[1:] if len(timed.ns) >= COLD else timed.ns)
    series.conditions.append(timed.conditions)


def _enough(series: Series, plan: BenchPlan) -> bool:
    return series.spent_ms >= plan.max_ms or _part(series, plan) >= 1.0


def _part(series: Series, plan: BenchPlan) -> float:
    least = min(series.spent_ms / max(plan.min_ms, 1e-9), series.calls / max(plan.min_calls, 1))
    return max(least, series.spent_ms / max(plan.max_ms, 1e-9))


def _remarks(series: Series, plan: BenchPlan) -> list[str]:
    remarks = []
    if series.calls < plan.min_calls:
        remarks.append(f"{series.calls} calls in {plan.max_ms / 1000:.0f} s, {plan.min_calls} were wanted")
    hot = sum(bool(c.get("throttled")) for c in series.conditions)
    if hot:
        remarks.append(f"the device throttled in {hot} of {len(series.conditions)} blocks")
    return remarks
