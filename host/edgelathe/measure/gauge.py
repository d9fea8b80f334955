"""What reads power while a device idles or runs a model: its own sensors, or an external meter at this host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from edgelathe.core.device import Probe
from edgelathe.core.errors import UserError
from edgelathe.device.open import Device
from edgelathe.device.session import Load, Session, Timed
from edgelathe.measure import watts
from edgelathe.measure.meter import ExternalMeter
from edgelathe.measure.rail import choose
from edgelathe.measure.watts import Window


class Gauge(Protocol):
    """What reads power while the device idles or runs a model."""

    tier: Mapping[str, Any]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was wrong with it so far."""

    def idle(self, seconds: float) -> Reading:
        """The device does nothing for so long."""

    def load(self, session: Session, seconds: float, load: Load) -> tuple[Reading, Timed]:
        """The session is called for so long."""


class Reading(NamedTuple):
    """One window. refresh_s: time between changes of the slowest source (None: unknown); every_s: between its readings.

    cost_us: time that reading all sources once takes on the device. why: what ended the readings early.
    """

    window: Window
    refresh_s: float | None
    every_s: float = 0.0
    cost_us: float = 0.0
    why: str = ""


@contextmanager
def gauge(device: Device, rail: str | None = None, command: str | None = None) -> Iterator[Gauge]:
    """The external meter that `command` runs on this host, else the device's sensor `rail` (None: its only total).

    Raises UserError where there is none, or the choice is not clear: nothing has been measured then.
    """
    sensors = sensors_of(device.probe, rail, command)
    if not command:
        yield OnDevice(device, sensors)
        return
    with ExternalMeter(command) as meter:
        yield OnHost(device, meter)


def sensors_of(probe: Probe, rail: str | None, command: str | None) -> tuple[Mapping[str, Any], ...]:
    """The device's sensors that energy would be read from; none where `command` is given. Raises as `gauge`."""
    if probe.emulated:
        why = probe.extra.get("emulated_why") or "by its own word"
        raise UserError(probe.name, f"is emulated ({why}): it has no power of its own", "measure energy on a real one")
    if command and rail is not None:
        raise UserError("--rail", "is one of the device's own, --meter is given too", "leave one of them out")
    return () if command else choose(probe, rail)


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

    @property
    def warnings(self) -> tuple[str, ...]:
        """None: what goes wrong comes with the readings."""
        return ()

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

    @property
    def warnings(self) -> tuple[str, ...]:
        """The meter's."""
        return self._meter.warnings

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
        every = self._meter.refresh_s()
        return Reading(Window((trace,), begun + slack, ended - slack), every, every or 0.0)


def _reading(power: Sequence[Mapping[str, Any]], seconds: float) -> Reading:
    traces = tuple(watts.trace(p) for p in power)
    ended = next((f"{p['label']}: {p['why']}" for p in power if p["why"]), "")
    slow = [float(p["refresh_s"]) for p in power if p["refresh_s"]]
    every = [float(np.median(np.diff(t.t))) for t in traces if len(t.t) > 1]
    cost = sum(float(p["cost_us"] or 0) for p in power)
    return Reading(Window(traces, 0.0, seconds), max(slow, default=None), max(every, default=0.0), cost, ended)
