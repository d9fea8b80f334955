"""Energy per inference: windows of load between windows of idling, by the device's own sensors or an external meter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any, NamedTuple, Protocol

from edgelathe.core.claim import Claim
from edgelathe.core.errors import UserError
from edgelathe.device.open import Device
from edgelathe.device.session import SINGLE, Load, Session, Timed
from edgelathe.measure import watts
from edgelathe.measure.meter import ExternalMeter
from edgelathe.measure.rail import choose
from edgelathe.measure.watts import Block, Window

Tick = Callable[[float], None]


@dataclass(frozen=True)
class EnergyPlan:
    """How long to measure.

    Attributes:
        blocks: load windows, each between two idle ones; the interval comes from how much they differ.
        window_s: of a load window; idle windows take as long between two blocks, and half of that at the ends. A slow
            sensor makes them longer, up to `most_s`.
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


class Gauge(Protocol):
    """What reads power while the device idles or runs a model."""

    tier: Mapping[str, Any]

    def idle(self, seconds: float) -> Reading:
        """The device does nothing for so long."""

    def load(self, session: Session, seconds: float, load: Load) -> tuple[Reading, Timed]:
        """The session is called for so long."""


class Reading(NamedTuple):
    """One window. refresh_s: time between changes of the slowest source (None: unknown); why: what ended it early."""

    window: Window
    refresh_s: float | None
    cost_us: float
    why: str = ""


@contextmanager
def gauge(device: Device, rail: str | None = None, command: str | None = None) -> Iterator[Gauge]:
    """The external meter that `command` runs on this host, else the device's sensor `rail` (None: its only total).

    Raises UserError where there is none, or the choice is not clear: nothing has been measured then.
    """
    if device.probe.emulated:
        what = (
            f"is emulated ({device.probe.extra.get('emulated_why') or 'by its own word'}): it has no power of its own"
        )
        raise UserError(device.name, what, "measure energy on a real device")
    if not command:
        yield OnDevice(device, choose(device.probe, rail))
        return
    if rail is not None:
        raise UserError("--rail", "is one of the device's own, --meter is given too", "leave one of them out")
    with ExternalMeter(command) as meter:
        yield OnHost(device, meter)


class OnDevice:
    """Reads the device's own sensors, on the device."""

    def __init__(self, device: Device, sensors: Sequence[Mapping[str, Any]]) -> None:
        self._device, self._labels = device, tuple(str(s["label"]) for s in sensors)

        def joined(field: str) -> str:
            return "+".join(dict.fromkeys(str(s.get(field) or "") for s in sensors))

        self.tier: Mapping[str, Any] = {
            "source": "device", "driver": joined("driver"), "rail": "+".join(self._labels), "scope": joined("scope"),
            "kind": joined("kind"), "note": joined("note"),
        }  # fmt: skip

    def idle(self, seconds: float) -> Reading:
        """`watch`."""
        answer = self._device.client.request("watch", {"seconds": seconds, "meters": list(self._labels)}).head
        return _reading(answer["power"], seconds)

    def load(self, session: Session, seconds: float, load: Load) -> tuple[Reading, Timed]:
        """`time`, with meters."""
        timed = session.time(1, 1000 * seconds, load=replace(load, meters=self._labels))
        return _reading(timed.more["power"], timed.more["wall_ns"] / 1e9), timed


class OnHost:
    """Reads an external meter here, while the device does its part there."""

    def __init__(self, device: Device, meter: ExternalMeter) -> None:
        self._device, self._meter = device, meter
        self.tier: Mapping[str, Any] = {
            "source": "meter", "driver": "meter", "rail": meter.command, "scope": "", "kind": "power",
            "note": "all that the external meter measures",
        }  # fmt: skip

    def idle(self, seconds: float) -> Reading:
        """Between two requests; only the middle of the time that the request took counts."""
        begun = self._meter.now()
        self._device.client.request("watch", {"seconds": seconds, "meters": []})
        return self._between(begun, self._meter.now(), seconds)

    def load(self, session: Session, seconds: float, load: Load) -> tuple[Reading, Timed]:
        """The same for calls; how long they took together is the device's word."""
        begun = self._meter.now()
        timed = session.time(1, 1000 * seconds, load=load)
        return self._between(begun, self._meter.now(), timed.more["wall_ns"] / 1e9), timed

    def _between(self, begun: float, ended: float, inside: float) -> Reading:
        slack = max(0.0, ended - begun - inside)  # of the link, at either end
        trace = self._meter.trace(ended)
        return Reading(Window((trace,), begun + slack, ended - slack), self._meter.refresh_s(), 0.0)


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
    return _judge(taken, by.tier, load)


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
    """Idle windows between two blocks are cut in halves, so that no reading counts for two blocks."""
    taken, settle = _Taken([], [], []), plan.settle_s
    session.time(1, 1000 * settle, load=load)
    first = by.idle(2 * settle + plan.window_s / 2)
    window_s, settle = _long(first, plan)
    if window_s > plan.window_s:
        first = by.idle(2 * settle + window_s / 2)
    taken.idle.append(first)
    for number in range(plan.blocks):
        tick(number / plan.blocks)
        session.time(1, 1000 * settle, load=load)
        under, timed = by.load(session, window_s, load)
        taken.load.append(under)
        last = number == plan.blocks - 1
        between = by.idle(settle + window_s / 2 + (0 if last else window_s / 2))
        taken.idle.append(between)
        taken.reason = next((r.why for r in (taken.idle[-2], under, between) if r.why), "")
        if taken.reason:
            break
        before = taken.idle[-2].window
        begun = before.start + settle if number == 0 else (before.start + settle + before.end) / 2
        after = between.window
        ended = after.end if last else (after.start + settle + after.end) / 2
        parts = (before.cut(begun, before.end), under.window, after.cut(after.start + settle, ended))
        idle, busy, again = (w.watts() for w in parts)
        if idle is not None and busy is not None and again is not None:
            wall_s = timed.more["wall_ns"] / 1e9
            taken.blocks.append(Block(idle, busy, again, wall_s, len(timed.ns) * samples))
        taken.throttled += bool(timed.conditions.get("throttled"))
    tick(1.0)
    return taken


def _long(first: Reading, plan: EnergyPlan) -> tuple[float, float]:
    """Seconds of a window in which even a slow sensor has ten values, and until it shows a change."""
    slow, most = first.refresh_s or 0.0, max(plan.most_s, plan.window_s)
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

    counts = [(len(t.t), r.window.end - r.window.start) for r in taken.load for t in r.window.traces]
    rate = fmean(n / s for n, s in counts if s > 0) if counts else 0.0
    slow = [r.refresh_s for r in taken.readings if r.refresh_s]
    powers = [t for r in taken.readings for t in r.window.traces if t.kind == "power"]
    return {
        "rate_hz": rate, "refresh_s": median(slow) if slow else None,
        "resolution_w": watts.resolution(powers) or None,
        "idle_s": seconds(taken.idle), "load_s": seconds(taken.load), "windows": len(taken.blocks),
        "idle_w": fmean(b.idle for b in taken.blocks) if taken.blocks else None,
        "load_w": fmean(b.load for b in taken.blocks) if taken.blocks else None,
        "sampling_share": rate * fmean(r.cost_us for r in taken.readings) / 1e6,
    }  # fmt: skip


def _reading(power: Sequence[Mapping[str, Any]], seconds: float) -> Reading:
    traces = tuple(watts.trace(p) for p in power)
    ended = next((f"{p['label']}: {p['why']}" for p in power if p["why"]), "")
    slow = [float(p["refresh_s"]) for p in power if p["refresh_s"]]
    cost = sum(float(p["cost_us"] or 0) for p in power)
    return Reading(Window(traces, 0.0, seconds), max(slow, default=None), cost, ended)
