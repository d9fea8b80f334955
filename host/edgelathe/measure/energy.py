"""Energy per inference: windows of load between windows of idling, by the device's own sensors or an external meter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from edgelathe.core.claim import Claim
from edgelathe.device.errors import AgentRefusal, ModelFailure
from edgelathe.device.session import SINGLE, Load, Session
from edgelathe.measure import watts
from edgelathe.measure.gauge import Gauge, Reading, gauge
from edgelathe.measure.watts import Block, Window

__all__ = ["Energy", "EnergyPlan", "Gauge", "gauge", "measure"]

Tick = Callable[[float], None]


@dataclass(frozen=True)
class EnergyPlan:
    """How long to measure.

    Attributes:
        blocks: load windows, each between two idle ones; the interval comes from how much they differ.
        window_s: of a load window; idle windows take as long, the first half of that. A slow sensor makes them longer,
            up to `most_s`.
        settle_s: after each change between idling and load, not counted.
    """

    blocks: int = 6
    window_s: float = 1.5
    most_s: float = 20.0
    settle_s: float = 0.3


@dataclass(frozen=True)
class Energy:
    """Energy per inference above idling, with its 95% interval, in mJ; None: it could not be told, `warnings` say why.

    Attributes:
        gross_mj: with what idling takes. period_mj: gross, of one period of a paced load.
        claim: with one-sided bounds, for a budget.
        tier: where it comes from: {"source": device | meter, "driver", "rail", "scope", "kind", "rate_hz", "refresh_s",
            "resolution_w", "idle_s", "load_s", "windows", "idle_w", "load_w", "sampling_share", "note"}; null: unknown.
    """

    mj: float | None
    low: float | None
    high: float | None
    gross_mj: float | None
    period_mj: float | None
    claim: Claim | None
    tier: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any] | None:
        """The `energy` of a result; null where it could not be told."""
        if self.mj is None:
            return None
        return {
            "mj_per_inference": self.mj, "low": self.low, "high": self.high, "gross_mj": self.gross_mj,
            "period_mj": self.period_mj, "tier": dict(self.tier), "warnings": list(self.warnings),
        }  # fmt: skip


def measure(
    by: Gauge, session: Session, *, load: Load = SINGLE, samples: int = 1,
    plan: EnergyPlan | None = None, tick: Tick = lambda part: None,
) -> Energy:  # fmt: skip
    """Energy per inference of a session that has been fed, in blocks of idling, load, idling.

    Args:
        by: from `gauge`.
        session: an open one.
        load: how it is called; with a period the energy of one period is told too.
        samples: inferences of a query.
        plan: how long.
        tick: told how far it is, 0 to 1.
    """
    plan = plan or EnergyPlan()
    taken = _take(by, session, load, samples, plan, tick)
    found = _judge(taken, by.tier, load)
    return replace(found, warnings=(*found.warnings, *by.warnings))


@dataclass
class _Taken:
    """What was read: all windows, the blocks made of them, and what was remarked."""

    idle: list[Reading]
    load: list[Reading]
    blocks: list[Block]
    reason: str = ""
    throttled: int = 0

    @property
    def readings(self) -> list[Reading]:
        return [*self.idle, *self.load]


def _take(by: Gauge, session: Session, load: Load, samples: int, plan: EnergyPlan, tick: Tick) -> _Taken:
    """All blocks; fewer where the sensor gave up."""
    taken = _Taken([], [], [])
    try:
        session.time(1, 1000 * plan.settle_s, load=load)
        first = by.idle(2 * plan.settle_s + plan.window_s / 2)
        window_s, settle = _long(first, plan)
        if window_s > plan.window_s:
            first = by.idle(2 * settle + window_s / 2)
        taken.idle.append(first)
        while len(taken.blocks) < plan.blocks and len(taken.load) < 2 * plan.blocks and not taken.reason:
            tick(len(taken.blocks) / plan.blocks)
            if not _one(by, session, load, samples, taken, (window_s, settle)):
                window_s = max(window_s, min(2 * window_s, plan.most_s))  # readings come slower than they seemed to
    except AgentRefusal as e:
        if isinstance(e, ModelFailure) or e.kind != "request":
            raise
        taken.reason = e.what  # the sensor went between two windows
    tick(1.0)
    return taken


def _one(by: Gauge, session: Session, load: Load, samples: int, taken: _Taken, spans: tuple[float, float]) -> bool:
    """One more block; whether its windows had readings enough.

    An idle window between two blocks is cut in halves: no reading counts for two blocks.
    """
    window_s, settle = spans
    before, first = taken.idle[-1].window, not taken.load
    session.time(1, 1000 * settle, load=load)
    under, timed = by.load(session, window_s, load)
    between = by.idle(settle + window_s)
    taken.reason = next((r.why for r in (taken.idle[-1], under, between) if r.why), "")
    taken.load.append(under)
    taken.idle.append(between)
    taken.throttled += bool(timed.conditions.get("throttled"))
    after = between.window
    begun, ended = (_middle(w, settle) for w in (before, after))
    parts = (
        before.cut(before.start + settle if first else begun, before.end),
        under.window,
        after.cut(after.start + settle, ended),
    )
    idle, busy, again = (w.watts() for w in parts)
    if taken.reason or idle is None or busy is None or again is None:
        return False
    taken.blocks.append(Block(idle, busy, again, timed.more["wall_ns"] / 1e9, len(timed.ns) * samples))
    return True


def _middle(window: Window, settle: float) -> float:
    return (window.start + settle + window.end) / 2


def _long(first: Reading, plan: EnergyPlan) -> tuple[float, float]:
    """Seconds of a window in which even a slow or costly sensor has ten values, and until it shows a change."""
    slow, most = max(first.refresh_s or 0.0, first.every_s), max(plan.most_s, plan.window_s)
    return min(max(plan.window_s, 10 * slow), most), min(max(plan.settle_s, 2 * slow), most / 4)


def _judge(taken: _Taken, tier: Mapping[str, Any], load: Load) -> Energy:
    windows = [r.window for r in taken.readings]
    full = {**tier, **_tier(taken)}
    rail = tier["rail"]
    reason = ""
    if taken.reason:
        reason = f"sensor {rail}: {taken.reason}"
    elif watts.stuck(windows):
        reason = f"sensor {rail} gave one value all the time, idle and under load: it is stuck"
    elif len(taken.blocks) < watts.FEWEST:
        slow = full["refresh_s"]
        often = f"it changes every {slow:.2g} s" if slow else "it changes too seldom"
        longest = max(r.window.end - r.window.start for r in taken.load)
        reason = f"sensor {rail} is too slow: {often}, a window has {longest:.2g} s"
    warnings = [f"energy: {reason}"] if reason else []
    if len(taken.blocks) < watts.FEWEST or (reason and not taken.reason):
        return Energy(None, None, None, None, None, None, full, tuple(warnings))
    got = watts.net(taken.blocks, watts.rounding(windows))
    gross = fmean(b.gross_mj for b in taken.blocks)
    if got.low <= 0:
        warnings.append(
            f"energy: below what this sensor can tell: {got.value:.3g} mJ per inference, 95% interval "
            f"[{got.low:.3g}, {got.high:.3g}]"
        )
    if taken.throttled:
        warnings.append(f"energy: the device throttled in {taken.throttled} of {len(taken.load)} load windows")
    period = full["load_w"] * load.period_ms if load.period_ms else None  # W times ms is mJ
    return Energy(got.value, got.low, got.high, gross, period, got.claim, full, tuple(warnings))


def _tier(taken: _Taken) -> dict[str, Any]:
    def seconds(readings: Sequence[Reading]) -> float:
        return sum(r.window.end - r.window.start for r in readings)

    counts = [(n, r.window.end - r.window.start) for r in taken.load for n in r.window.counts()]
    rate = fmean(n / s for n, s in counts if s > 0) if counts else 0.0
    slow = [r.refresh_s for r in taken.readings if r.refresh_s]
    powers = [t for r in taken.readings for t in r.window.traces if t.kind == "power"]
    return {
        "rate_hz": rate, "refresh_s": median(slow) if slow else None,
        "resolution_w": watts.resolution(powers) or None,
        "idle_s": seconds(taken.idle), "load_s": seconds(taken.load), "windows": len(taken.blocks),
        "idle_w": fmean(b.idle for b in taken.blocks) if taken.blocks else None,
        "load_w": fmean(b.load for b in taken.blocks) if taken.blocks else None,
        "sampling_share": rate * fmean(r.cost_us for r in taken.load) / 1e6 if taken.load else None,
    }  # fmt: skip
